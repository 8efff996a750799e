"""The GPU benchmark's parts at tiny sizes on the CPU, so that they run when there is a GPU."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, scale
from rd_lightning.families import ESM2

from ..conftest import tiny_family

CPU = torch.device("cpu")


def test_without_a_device_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu"])
    assert gpu.main() == 0
    assert capsys.readouterr().out == "not run: no CUDA device\n"


def test_a_step_and_its_parts():
    family = tiny_family()
    step = gpu.measure_step(family, "C", CPU, length=8, num_windows=3, repeats=1)
    assert (step.num_residues, step.num_tokens) == (24, 30)
    assert list(step.forward) == ["A", "B", "C"]
    members = family.members
    expected = sum(scale.matrix_flops(m) + scale.attention_flops(m, 10) for m in members)
    assert step.flops == 30 * expected
    assert min(step.update, step.head, step.whole, *step.forward.values()) > 0


def test_utilisation_is_operations_over_time_and_peak():
    step = gpu.Step(100, 110, 6e9, {"A": 0.01, "B": 0.02}, update=0.01, head=0.03, whole=0.05)
    assert step.rate == 2000
    report = gpu.report_step("B", step, peak=1e12, measured=4e11, expected=1e6)
    assert "200 GFLOP/s, 50.0% of the measured product, 20.0% of the nominal peak" in report
    assert "A 33.3%, B 66.7%" in report
    assert "20.0% of the step" in report and "50.0% of embedding" in report


def test_it_runs_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    args = argparse.Namespace(
        targets=["B", "C"],
        length=8,
        tokens=40,
        repeats=1,
        residues=3000,
        workers=[0],
        product=16,
        columns=16,
        copied=1000,
        swept=["B"],
        panels=[2, 256],
        chunks=[8],
        out=tmp_path / "device.json",
    )
    gpu.run(args, CPU, tiny_family())
    out = capsys.readouterr().out
    assert "C: " in out and "residues/s with num_workers=0" in out and "eigh of 16 columns" in out
    assert out.count("| B |") == out.count("| C |") == 1
    assert out.count("| B, float64") == out.count("| B, float32") == 3  # its own, and two panels
    record = json.loads((tmp_path / "device.json").read_text())
    assert list(record["steps"]) == ["B", "C"]
    assert list(record["steps"]["C"]["forward"]) == ["A", "B", "C"]


def test_the_paper_takes_what_was_measured(tmp_path: Path, capsys, monkeypatch):
    """A device with half of an H100's rates, that reaches so much of them."""
    members, half = ESM2.up_to("150M"), scale.H100.bfloat16 / 2
    tokens, residues = 32 * 302, 32 * 300
    each = [scale.matrix_flops(m) + scale.attention_flops(m, 302) for m in members]
    shares = (0.1, 0.2, 0.3)
    forward = {
        m.name: tokens * f / (share * half)
        for m, f, share in zip(members, each, shares, strict=True)
    }
    step = gpu.Step(residues, tokens, sum(each) * tokens, forward, 0.5, 0.25, whole=9.0)
    rates = {torch.bfloat16: half, torch.float32: 1e12, torch.float64: 2e12}
    record = gpu.device_record(CPU, rates, 1e11, {"150M": gpu.step_record(members, step)})
    path = tmp_path / "device.json"
    path.write_text(json.dumps({**record, "name": "Half", "memory": 24e9}))
    on = scale.read_device(path)
    assert dict(on.assumed.by_member) == pytest.approx(dict(zip(forward, shares, strict=True)))
    found = scale.cost(members, scale.Corpus(1, 300, 300), on.device, on.assumed)
    assert found.forward_bounded * residues == pytest.approx(sum(forward.values()))
    assert found.update * residues == pytest.approx(0.5)
    assert found.head * residues == pytest.approx(0.25)
    monkeypatch.setattr("sys.argv", ["scale", "--device", str(path)])
    scale.main()
    out = capsys.readouterr().out
    assert "Half. Measured: products in bfloat16" in out
    assert "forward passes of 8M, 35M, 150M; update and head at 150M" in out
    assert "1 GPU, measured" in out and "both, of 24 GB" in out
