"""rd-fit and rd-embed on files of embeddings, as a user types them."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from rd_lightning import JointMoments, RDHead
from rd_lightning.embed import main as rd_embed
from rd_lightning.families import MINI
from rd_lightning.fit import main as rd_fit
from rd_lightning.fitting.state import FitState
from rd_lightning.merge import main as rd_merge

from .commands import Command
from .conftest import clean_environment, random_sequences, run_here
from .embedded_files import flat_files, raw_embeddings

CHOSEN = replace(MINI, members=(MINI.members[0], MINI.members[2]))
"""Not the first members of the family."""
FILES = "embeddings=[{name: 50K, path: 50K.float32.h5}, {name: 800K, path: 800K.float32.h5}]"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Sequences, files of their embeddings, and a fit of these in ``run``."""
    made = tmp_path_factory.mktemp("files")
    records = [(f"s{i}", s) for i, s in enumerate(random_sequences(60, 0))]
    (made / "x.fasta").write_text("".join(f">{id}\n{sequence}\n" for id, sequence in records))
    raw = raw_embeddings(CHOSEN, records)
    flat_files(made, dict(zip(("50K", "800K"), raw, strict=True)))
    status, said = run_here(rd_fit, made, "rd-fit", FILES, "out=run", "heldout=0.2")
    assert status == 0, said
    (made / "said").write_text(said)
    return made


def test_a_run_says_what_it_reads_and_writes_a_head(folder):
    said = (folder / "said").read_text()
    for part in (
        "members         50K (32) -> 800K (128)",
        "50K             50K.float32.h5 (flat HDF5, float32, 32 columns)",
        "sequences       60 of 60 records",
        "50K -> 800K",
        "head, moments and report:",
    ):
        assert part in said, part
    for part in ("weights", "memory", "precision"):
        assert part not in said, part
    report = json.loads((folder / "run" / "report.json").read_text())
    assert "family" not in report["config"]
    assert report["context"]["embedding_files"]["800K"]["file"] == "800K.float32.h5"
    head = RDHead.from_pretrained(folder / "run")
    assert head.names == ("50K", "800K") and head.dims == (32, 128)
    moments = JointMoments.load(folder / "run" / "moments.safetensors")
    assert moments.num_rows == head.report.num_residues


def test_it_embeds_from_files_and_from_sequences_alike(folder, one_thread):
    """With the family named, whose members of these names are run; float32 forward passes of other
    shapes."""
    status, said = run_here(
        rd_embed, folder, "rd-embed", "head=run", FILES, "out=a.h5", "pooling=[mean,residue]"
    )
    assert status == 0, said
    assert "60 in all files; a row a residue" in said
    words = ("rd-embed", "head=run", "fasta=x.fasta", "out=b.h5", "pooling=[mean,residue]")
    status, said = run_here(rd_embed, folder, *words)
    assert status == 1
    assert "the head was fitted on files of embeddings, not by running models; name the" in said
    status, said = run_here(rd_embed, folder, *words, "family=mini")
    assert status == 0, said
    with h5py.File(folder / "a.h5") as found, h5py.File(folder / "b.h5") as expected:
        for group in ("per-protein", "per-residue"):
            assert set(found[group]) == set(expected[group])
            for id in found[group]:
                size = np.abs(expected[group][id]).max()
                assert np.abs(found[group][id][:] - expected[group][id][:]).max() < 1e-4 * size
    status, said = run_here(rd_embed, folder, *words, "family=esm2")
    assert status == 1 and "no member '50K' in the family esm2" in said


@pytest.mark.slow
def test_two_processes_and_two_parts_give_the_same_moments(folder):
    alone = FitState.load(folder / "run" / "moments.safetensors")
    for i in (1, 2):
        words = (FILES, f"out=part{i}", f"part={i}/2", "heldout=0.2", "tokens_per_batch=300")
        status, said = run_here(rd_fit, folder, "rd-fit", *words)
        assert status == 0, said
    status, said = run_here(rd_merge, folder, "rd-merge", "part1", "part2", "out=sum")
    assert status == 0, said
    words = [FILES, "out=ddp", "heldout=0.2", "tokens_per_batch=300", "trainer=ddp_cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "rd_lightning.fit", *words],
        cwd=folder,
        env={**clean_environment(), "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    for name in ("sum", "ddp"):
        found = FitState.load(folder / name / "moments.safetensors")
        assert found.num_rows == alone.num_rows
        for one, other in zip(found.all_moments, alone.all_moments, strict=True):
            # Other batches: float32 products, whose sums are float64 (a share of 1e-6 of the
            # deviations, see JointMoments).
            size = other.covariance.diagonal().sqrt()
            error = (one.covariance - other.covariance).abs()
            assert (error <= 1e-5 * torch.outer(size, size) + 1e-12).all()


@pytest.mark.slow
def test_a_run_that_is_killed_resumes(folder):
    """The signal may come before or after the stream; either way the end is that of one run."""
    words = [FILES, "out=stopped", "heldout=0.2", "tokens_per_batch=60", "resume=auto"]
    command = Command("fit", words, folder, folder / "stopped.log")
    for _ in range(600):
        if (folder / "stopped").exists() or command.wait(0.1) is not None:
            break
    command.kill(signal.SIGTERM)
    assert command.wait(60) in (0, 143), command.said()
    status, said = run_here(rd_fit, folder, "rd-fit", *words)
    assert status == 0, said
    status, said = run_here(rd_fit, folder, "rd-fit", *words[:1], "out=once", *words[2:4])
    assert status == 0, said
    found, expected = (
        FitState.load(folder / name / "moments.safetensors").total for name in ("stopped", "once")
    )
    assert found.num_rows == expected.num_rows
    assert torch.allclose(found.scatter, expected.scatter, rtol=1e-12, atol=1e-9)


def test_preflight_reads_and_says_the_time(folder):
    status, said = run_here(rd_fit, folder, "rd-fit", FILES, "out=look", "preflight=true")
    assert status == 0, said
    assert "expected time: about" in said
    assert "Residues by letter" not in said
    assert sorted(p.name for p in (folder / "look").iterdir()) == ["preflight.png"]
    status, said = run_here(
        rd_embed, folder, "rd-embed", "head=run", FILES, "out=look.h5", "preflight=true"
    )
    assert status == 0 and not (folder / "look.h5").exists()


BAD = {
    (rd_fit, "fasta=x.fasta"): "data.fasta is of sequences, and embeddings names files",
    (rd_fit, "store=x"): "data.store is of sequences",
    (rd_fit, "on_nucleotides=read"): "data.on_nucleotides is of sequences",
    (rd_fit, "family=mini"): "embeddings: no model is loaded; leave out family",
    (rd_fit, "family.offload=layers"): "embeddings: no model is loaded; leave out family",
    (rd_fit, "level=200K"): "no member '200K' in the family embeddings: 50K, 800K",
    (rd_fit, "num_sequences=61"): "num_sequences=61 asked for, but the file has 60 usable",
    (rd_fit, "embeddings=[x.h5]"): "embeddings lists a name and a path for each member",
    (rd_fit, "embeddings={50K: 50K.float32.h5}"): "embeddings: one file, of 50K: there is nothing",
    (rd_fit, "embeddings={A: x.fasta, B: said}"): "x.fasta: no embedding file that is known",
    (rd_fit, "embeddings={800K: 800K.float32.h5, 50K: 50K.float32.h5}"): "widths must grow",
    (rd_embed, "fasta=x.fasta"): "fasta is of sequences or models, and embeddings names files",
    (rd_embed, "long=skip"): "long is of sequences or models",
    (rd_embed, "family=mini"): "family is of sequences or models",
    (rd_embed, "family.weights=x"): "family.weights is of sequences or models",
    (rd_embed, "trainer=ddp_cpu"): "embeddings: one process on one device",
    (rd_embed, "level=200K"): "no level '200K'",
    (rd_embed, "embeddings={50K: 50K.float32.h5}"): "no file of 800K, which 800K needs",
}


@pytest.mark.parametrize("case", BAD, ids=[f"{m.__module__[13:]} {w}" for m, w in BAD])
def test_bad_input_is_one_line(folder, case, unchecked):
    command, word = case
    files = () if word.startswith("embeddings=") else (FILES,)
    name = "rd-fit" if command is rd_fit else "rd-embed"
    head = () if command is rd_fit else ("head=run",)
    status, said = run_here(command, folder, name, *files, *head, "out=bad.h5", word)
    assert status == 1
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and BAD[case] in errors[0], said
    assert not (folder / "bad.h5").exists()
