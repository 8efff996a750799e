import subprocess
import sys
import time
from pathlib import Path

import matplotlib.image
import pytest
import torch

from rd_lightning import RDModule
from rd_lightning.data.scan import scan_fasta
from rd_lightning.families import family_from_config, get_family, sample_fasta
from rd_lightning.fitting import preflight
from rd_lightning.fitting.estimate import expected_seconds, forward_flops, moment_flops
from rd_lightning.fitting.plan import BatchPlan, PlanSettings

from ..conftest import clean_environment, random_sequences, run_here
from ..test_fit import rd_fit


def test_it_says_what_a_fit_would_do_and_loads_no_model(tmp_path, fasta):
    path = fasta([*random_sequences(30, 0), "acd" * 400, "AJJ*"])
    done = rd_fit(
        tmp_path,
        f"data.fasta={path}",
        "preflight=true",
        "out=look",
        "family.weights=nowhere",  # a model that was loaded would fail
        "data.num_groups=3",
    )
    assert done.returncode == 0, done.stderr
    for part in (
        "32 of 32 records",
        "1,200 residues (s30)",
        "1 above 1,022 residues: cut into equal windows",
        "1 sequences upper-cased",
        "1 trailing '*' dropped",
        "2 residues J read as X",
        "3 groups of the fit",
        "Residues by letter",
        "expected time: about",
    ):
        assert part in " ".join(done.stdout.split()), part
    assert sorted(p.name for p in (tmp_path / "look").iterdir()) == ["preflight.png"]
    assert matplotlib.image.imread(tmp_path / "look" / "preflight.png").shape[1] >= 600


def test_skipped_records_are_listed_in_the_output(tmp_path, fasta):
    records = [(f"s{i}", s) for i, s in enumerate(random_sequences(200, 0))]
    path = fasta([*records, ("odd/../id", "AC1"), ("s3", "ACD")])
    done = rd_fit(tmp_path, f"data.fasta={path}", "data.on_invalid=skip", "out=run", "target=200K")
    assert done.returncode == 0, done.stderr
    assert "1 record skipped" in done.stdout.replace("records", "record")
    rows = (tmp_path / "run" / "skipped.tsv").read_text().splitlines()
    assert rows[1].split("\t") == [
        "201",
        "401",
        "odd/../id",
        "not an amino acid: '1' at position 3",
    ]
    assert len(rows) == 2  # a fit needs no id, so a duplicate one is used


def test_operations_are_those_of_the_layers(fasta):
    """Against a count of the matrix products' sizes, for one batch of one window."""
    members = get_family("mini").up_to("200K")
    with scan_fasta(fasta(["A" * 98])) as store:
        plan = BatchPlan(store, PlanSettings(heldout=0.0))
    expected = 0
    for m in members:
        d, length = m.width, 100
        projections = 4 * 2 * length * d * d
        feed_forward = 2 * 2 * length * d * 4 * d
        attention = 2 * 2 * length * length * d
        expected += m.num_layers * (projections + feed_forward + attention)
    assert forward_flops(plan, members) == pytest.approx(expected)
    assert moment_flops(plan, members) == 98 * 96**2


def test_the_forecast_scales(fasta):
    members = get_family("esm2").up_to("35M")
    device = torch.device("cpu")
    with scan_fasta(fasta(random_sequences(50, 0))) as store:
        plan = BatchPlan(store, PlanSettings())
    one = expected_seconds(plan, members, device, "32-true", 1)
    four = expected_seconds(plan, members, device, "32-true", 4)
    assert 0 < four < one


MEMORY = """
import sys, resource
from pathlib import Path
from rd_lightning.fit import main
sys.argv = ["rd-fit", *sys.argv[1:]]
main()
peak = [l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM")]
print("peak", int(peak[0].split()[1]) * 1024)
"""


def peak_memory(folder: Path, *overrides: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *overrides],
        capture_output=True,
        text=True,
        timeout=1500,
        env={**clean_environment(), "MALLOC_MMAP_THRESHOLD_": str(2**18)},
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1].split()[1])


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_memory_does_not_grow_with_the_file(tmp_path):
    """At most 32 bytes a sequence between 20,000 and 500,000; windows are short to be quick.

    glibc is told to give freed arrays back at once: left to itself it keeps some megabytes, more
    or fewer by machine, and those are not held by the fit.
    """
    peaks = {}
    for number in (20_000, 500_000):
        path = tmp_path / f"{number}.fasta"
        generator = torch.Generator().manual_seed(0)
        with open(path, "w") as handle:
            for i in range(number):
                letters = torch.randint(20, (300,), generator=generator)
                sequence = "".join("LAGVSERTIDPKQNFYMHWC"[j] for j in letters.tolist())
                handle.write(f">sequence_{i} of a file\n{sequence}\n")
        started = time.monotonic()
        peaks[number] = peak_memory(
            tmp_path,
            f"data.fasta={path}",
            f"out={number}",
            "target=200K",
            "data.long=truncate",
            "data.max_residues=2",
        )
        print(number, peaks[number], f"{time.monotonic() - started:.0f} s")
    growth = (peaks[500_000] - peaks[20_000]) / 480_000
    assert growth <= 32, f"{growth:.1f} bytes a sequence"


@pytest.mark.parametrize("has_bfloat16", [True, False])
@pytest.mark.parametrize("command", ["fit", "embed"])
def test_a_processor_with_bf16_is_pointed_out(monkeypatch, tmp_path, command, has_bfloat16):
    from rd_lightning import JointMoments, fit_chain
    from rd_lightning.embed import main as rd_embed_main
    from rd_lightning.fit import main as rd_fit_main

    capabilities = {"avx512_bf16": has_bfloat16}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    moments = JointMoments([32, 64]).update([torch.randn(300, 32), torch.randn(300, 64)])
    head = fit_chain(moments, names=["50K", "200K"], context={"family": "mini"})
    head.save_pretrained(tmp_path / "head")
    words = ["preflight=true", "out=o.h5", f"fasta={sample_fasta()}"]
    main, more = (rd_fit_main, []) if command == "fit" else (rd_embed_main, ["head=head"])
    status, said = run_here(main, tmp_path, command, *words, *more)
    assert status == 0, said
    assert ("precision=bf16-mixed" in said) == has_bfloat16


def test_a_model_is_downloaded_once_for_all_its_layers(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    esm2 = get_family("esm2")
    layers = family_from_config({"name": esm2.name, "members": ["8M@3", "8M", "35M@2", "35M"]})
    module = RDModule(layers, level_widths=[310, 320, 480, 490])
    assert preflight._weights(module) == preflight._weights(RDModule(esm2, "35M"))
