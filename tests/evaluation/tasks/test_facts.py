"""What a person is told of an evaluation on tasks, and which probes a run may ask for."""

from pathlib import Path

import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.options import EvaluateOptions
from rd_lightning.evaluation.tasks.facts import notes
from rd_lightning.evaluation.tasks.job import TaskJob

SEQUENCES = ("MKTAYIAKQR", "GWLVNEHSTC", "PDFEKLMRQY", "HCSTVWAGIN", "RRKLMDEQPF", "YTWSCHNAGV")
PARTS = ("train", "train", "train", "validation", "test", "test")


def tasks(folder: Path, *, residues: bool) -> list[str]:
    """A table of proteins and, if asked for, one of residues."""
    rows = [f"{s},{'AB'[i % 2]},{PARTS[i]}" for i, s in enumerate(SEQUENCES)]
    (folder / "where.csv").write_text("\n".join(["sequence,target,set", *rows]) + "\n")
    if not residues:
        return [str(folder / "where.csv")]
    entries = [f">p{i} TARGET={'HE' * 5} SET={PARTS[i]}\n{s}\n" for i, s in enumerate(SEQUENCES)]
    (folder / "fold.fasta").write_text("".join(entries))
    return [str(folder / "where.csv"), str(folder / "fold.fasta")]


def job_of(folder: Path, probes: list[str], *, residues: bool) -> TaskJob:
    options = EvaluateOptions(tasks=tasks(folder, residues=residues), probes=probes)
    return TaskJob(options, folder / "out")


def test_a_network_along_residues_needs_a_task_of_residues(tmp_path):
    said = "^where: its targets are of whole proteins, and cnn is a network along residues; use"
    for probes in (["cnn"], ["ridge", "cnn"]):
        with pytest.raises(InputError, match=f"{said} probes=mlp$"):
            job_of(tmp_path, probes, residues=False)


def test_what_a_task_of_several_does_not_have_is_said(tmp_path):
    found = notes(job_of(tmp_path, ["ridge", "cnn"], residues=True))
    left_out = [
        note for note in found if note.startswith("where: no cnn: its targets are of whole")
    ]
    assert len(left_out) == 1 and not any(note.startswith("fold: no ") for note in found)
    assert any("at levels alone" in note for note in found)
    linear = notes(job_of(tmp_path, ["ridge"], residues=True))
    assert not any("at levels alone" in note or ": no " in note for note in linear)
