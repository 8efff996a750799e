"""The command itself, as a user types it."""

import inspect
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import matplotlib.image
import pytest
import yaml

from rd_lightning import FastaDataModule, JointMoments, RDHead, RDModule
from rd_lightning.cli.overrides import config_folder, misspelt_override
from rd_lightning.fit import main

from .conftest import clean_environment

TIMEOUT = 180


def rd_fit(folder: Path, *overrides: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "rd_lightning.fit", *overrides],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=clean_environment(),
        cwd=folder,
    )


SMALL = ("data.num_sequences=12", "target=200K")


def test_a_run_says_what_it_does_and_writes_what_it_says(tmp_path):
    done = rd_fit(tmp_path, "out=run", "data.heldout=0.2", *SMALL)
    assert done.returncode == 0, done.stderr
    for part in (
        "mini: 50K (32) -> 200K (64)",
        "12 of 300 records",
        "held out",
        "batches",
        "float64",
        "50K -> 200K",
        "residues/s",
        "head, moments and report:",
    ):
        assert part in done.stdout, part
    assert "Warning" not in done.stderr
    assert "warn" not in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run"]
    has_pages = find_spec("vl_convert") is not None  # report=auto
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "head",
        "moments.safetensors",
        *(["report.html"] if has_pages else []),
        "report.json",
        "report.png",
    ]
    assert (f"a browser: {tmp_path}/run/report.html" in done.stdout) == has_pages
    head = RDHead.from_pretrained(tmp_path / "run" / "head")
    moments = JointMoments.load(tmp_path / "run" / "moments.safetensors")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert head.names == ("50K", "200K")
    assert report["num_residues"] == moments.num_rows == head.report.num_residues
    assert report["config"]["data"]["heldout"] == 0.2
    assert report["context"]["family"] == "mini"
    height, width, _ = matplotlib.image.imread(tmp_path / "run" / "report.png").shape
    assert width > 1000
    assert height > 300

    again = rd_fit(tmp_path, "out=run", *SMALL)
    assert again.returncode == 1
    assert "run holds a fit already; choose another folder: out=DIR" in again.stderr


@pytest.mark.slow
def test_multirun(tmp_path):
    done = rd_fit(tmp_path, "-m", "out=sweep", "regression=pcr,ridge,ols", *SMALL)
    assert done.returncode == 0, done.stderr
    heads = [RDHead.from_pretrained(tmp_path / "sweep" / str(i) / "head") for i in range(3)]
    assert [h.report.regression for h in heads] == ["pcr", "ridge", "ols"]


BAD = {
    "data.fasta=none.fasta": "none.fasta: no such file",
    "data.fasta=empty.fasta": "empty.fasta: the file is empty",
    "data.fasta=text.fasta": "text.fasta: not a FASTA file: line 1 is 'hello'",
    "data.fasta=digit.fasta": "digit.fasta: 1 unusable record(s): record 2 (b, line 3): "
    "not an amino acid: '1' at position 3",
    "data.fasta=short.fasta": "8 residues cannot determine 64 directions of 200K",
    "target=7B": "no member '7B' in the family mini: 50K, 200K, 800K",
    "target=50K": "50K is the smallest member of mini",
    "family=esm3": "no family 'esm3'; there are ankh",
    "trainer=tpu": "no trainer 'tpu'; there are cpu, ddp, ddp_cpu, gpu",
    "data.fastaa=x": "no key 'data.fastaa' in the configuration; did you mean data.fasta",
    "fastaa=x": "no key 'fastaa' in the configuration; did you mean fasta",
    "data.num_sequences=301": "num_sequences=301 asked for, but the file has 300 usable",
    "data.heldout=1.5": "heldout is a share in [0, 1), not 1.5",
    "trainer.devices=many": "the trainer cannot be made",
    "family.weights=.": "mini_50K.safetensors: no such file",
}

# Of a wrong type: the type checker of the tests would see them first, so in a process of their own.
WRONG_TYPES = {
    "regression.ridge=strong": "ridge, the penalty, goes with regression='ridge'",
    "data.long=cut": "long is window, whole, skip or truncate, not 'cut'",
    "data.heldout=many": "heldout is a share in [0, 1), not 'many'",
    "data.tokens_per_batch=2.5": "tokens_per_batch is a whole number of at least 1, not 2.5",
    "data.on_invalid=drop": "on_invalid is raise or skip, not 'drop'",
    "regression.num_components=most": "num_components is marchenko_pastur",
}


@pytest.mark.parametrize("override", BAD)
def test_bad_input_is_one_clear_line_and_leaves_nothing(tmp_path, monkeypatch, capfd, override):
    (tmp_path / "empty.fasta").touch()
    (tmp_path / "text.fasta").write_text("hello\n")
    (tmp_path / "digit.fasta").write_text(">a\nACD\n>b\nAC1\n")
    (tmp_path / "short.fasta").write_text(">a\nACDEFGHI\n")
    before = sorted(p.name for p in tmp_path.iterdir())
    arguments = [override] if override.startswith("target") else [override, "target=200K"]
    if "short" in override:
        arguments.append("data.heldout=0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rd-fit", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    printed = capfd.readouterr().err
    errors = [line for line in printed.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, printed
    assert BAD[override] in errors[0]
    assert "Traceback" not in printed
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_the_process_fails_with_one_line(tmp_path):
    override = "data.fasta=none.fasta"
    done = rd_fit(tmp_path, override)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert BAD[override] in done.stderr
    assert not any(tmp_path.iterdir())


def test_the_nearest_keys_are_named():
    assert misspelt_override("fit", ["data.fasta=x", "trainer=gpu", "hydra.x=1", "-m"]) is None
    assert misspelt_override("fit", ["regression=ridge", "regression.ridge=2"]) is None
    assert misspelt_override("fit", ["regression=pcr,ols"]) is None
    assert "did you mean target" in misspelt_override("fit", ["targt=35M"])
    assert "data.num_sequences" in misspelt_override("fit", ["data.num_sequence=3"])


def test_the_configuration_repeats_the_signatures():
    """What conf/ shows as defaults is what the Python signatures have."""

    def defaults(function) -> dict:
        found = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in found if p.default is not inspect.Parameter.empty}

    conf = config_folder()
    module = defaults(RDModule)
    fit = yaml.safe_load((conf / "fit.yaml").read_text())
    for key in ("target", "solver", "accumulate", "on_nonfinite"):
        assert fit[key] == module[key], key
    data = yaml.safe_load((conf / "data" / "fasta.yaml").read_text())
    assert data.pop("claim") is None and data.pop("claim_parts") == 64  # the command's own
    for key, value in data.items():
        assert value == defaults(FastaDataModule)[key], key
    pcr = yaml.safe_load((conf / "regression" / "pcr.yaml").read_text())
    assert pcr == {key: module[key] for key in pcr}
    assert module["family"] == "mini"
