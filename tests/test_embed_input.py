"""What rd-embed is given: FASTA files of every kind, ids, folders, flags."""

import importlib.metadata
import os
import re
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from rd_lightning import JointMoments, fit_chain
from rd_lightning.cli.command import run_command
from rd_lightning.display.console import plain_console
from rd_lightning.embed import embed
from rd_lightning.families import MINI
from rd_lightning.families import family as registry
from rd_lightning.fit import fit
from rd_lightning.formats import fair_esm
from rd_lightning.merge import main as merge_main

from .conftest import family_rows

NAMES = ("50K", "200K")


@pytest.fixture(scope="module")
def head(tmp_path_factory) -> Path:
    """As rd-fit leaves it, in the folder ``run``."""
    run = tmp_path_factory.mktemp("input") / "run"
    moments = JointMoments((32, 64)).update(family_rows(300, (32, 64), 0))
    found = fit_chain(moments, names=NAMES, context={"family": "mini"})
    found.save_pretrained(run / "head")
    return run


@pytest.fixture
def inside(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["rd-embed"])
    return tmp_path


def run(head: Path, *settings: str) -> None:
    run_command("embed", embed, [f"head={head}", *settings], resumes=True)


def refused(capsys, head: Path, *settings: str) -> str:
    """The one line."""
    with pytest.raises(SystemExit) as stopped:
        run(head, *settings)
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    return said


def vectors(path: str) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        ids = file["rd_lightning/index/id"].asstr()[:]  # type: ignore[union-attr]
        names = {id: id.replace("/", "%2F") for id in ids}
        return {id: file["per-protein"][name][:] for id, name in names.items()}  # type: ignore


def test_what_is_done_to_the_sequences_is_said(inside, head, capsys):
    Path("x.fasta").write_text(">a\nacdef\n>b\nACJ*\n>c\nACX\n")
    run(head, "fasta=x.fasta", "out=x.h5", "preflight=true")
    said = " ".join(capsys.readouterr().out.split())
    for part in ("1 sequences upper-cased", "1 trailing '*' dropped", "1 residues J read as X"):
        assert part in said


def test_a_fifo_a_folder_and_a_file_are_one(inside, head):
    Path("many").mkdir()
    Path("many/a.fa").write_text(">x\nACDEF\n")
    Path("many/b.fa").write_text(">y z\nGHIKL\n")
    Path("many/._a.fa").write_bytes(b"\0\5\x16\7")
    Path("uniprot (1),[2]=蛋白.fasta").write_text(">x\nACDEF\n>y z\nGHIKL\n")
    os.mkfifo("fifo")
    text = Path("uniprot (1),[2]=蛋白.fasta").read_text()
    writer = threading.Thread(target=Path("fifo").write_text, args=(text,))
    writer.start()
    run(head, "fasta=fifo", "out=fifo.h5")
    writer.join()
    run(head, "fasta=many", "out=folder.h5")
    run(head, "fasta=uniprot (1),[2]=蛋白.fasta", "out=2024_05_01", "format=hdf5")
    one, two, three = map(vectors, ("fifo.h5", "folder.h5", "2024_05_01"))
    assert list(one) == ["x", "y"]
    for id, vector in one.items():
        assert np.array_equal(two[id], vector)
        assert np.array_equal(three[id], vector)


def test_accessions_are_the_keys_of_uniprots_own_files(inside, head):
    Path("x.fasta").write_text(">sp|P12345|AATM_RABIT a\nACDEF\n>tr|Q1|Q1_X\nGHIKL\n")
    run(head, "fasta=x.fasta", "out=whole.h5")
    run(head, "fasta=x.fasta", "out=x.h5", "ids=accession", "layout=flat")
    with h5py.File("x.h5") as file:  # as on UniProt's help page
        found = {id: np.array(embedding) for id, embedding in file.items()}
    assert list(found) == ["P12345", "Q1"]
    for vector, whole in zip(found.values(), vectors("whole.h5").values(), strict=True):
        assert np.array_equal(vector, whole)


def test_the_whole_header_may_be_the_id(inside, head, capsys):
    Path("x.fasta").write_bytes(b">s 1/2\nACDEF\n>s prot\xe9ine\nGHIKL\n")
    assert "with ids=header it is the whole" in refused(capsys, head, "fasta=x.fasta", "out=x.h5")
    run(head, "fasta=x.fasta", "out=x.h5", "ids=header")
    assert list(vectors("x.h5")) == ["s 1/2", "s protéine"]
    run(head, "fasta=x.fasta", "out=x.parquet", "ids=header")
    assert pd.read_parquet("x.parquet")["id"].tolist() == ["s 1/2", "s protéine"]
    run(head, "fasta=x.fasta", "out=pt", "format=pt", "ids=header")
    content = torch.load("pt/s 1%2F2.pt", weights_only=True)
    assert content["label"] == "s 1/2"


@pytest.mark.parametrize(
    ("header", "out", "words"),
    [
        (b"", "out=x.h5", "record 2 (no id, line 3): no id; HDF5 needs a name for each record"),
        (b"a\0b", "out=x.h5", "line 3): a NUL in the id, which HDF5 cannot hold"),
        (b"", "format=pt", "no id; format=pt needs a name for each file"),
        (b"a\tb", "format=npy", "a tab in the id, which index.tsv cannot hold"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_before_anything_is_computed(
    inside, head, capsys, header, out, words
):
    Path("x.fasta").write_bytes(b">s\nACDEF\n>" + header + b"\nGHIKL\n")
    where = [out] if out.startswith("out=") else ["out=x", out]
    settings = ["fasta=x.fasta", *where, "ids=header"]
    assert words in refused(capsys, head, *settings)
    assert sorted(os.listdir()) == ["x.fasta"]
    run(head, *settings, "on_invalid=skip")
    assert words.split("): ")[-1] in next(inside.glob("*.skipped.tsv")).read_text()


def test_names_that_a_disk_does_not_tell_apart(inside, head, capsys, monkeypatch):
    Path("x.fasta").write_text(">1abc_A\nACDEF\n>1abc_a\nGHIKL\n")
    run(head, "fasta=x.fasta", "out=linux", "format=pt")
    assert {p.name for p in Path("linux").glob("*.pt")} == {"1abc_A.pt", "1abc_a.pt"}
    capsys.readouterr()
    monkeypatch.setattr(fair_esm, "folder_ignores_case", lambda folder: True)
    said = refused(capsys, head, "fasta=x.fasta", "out=mac", "format=pt")
    assert "record 2 (1abc_a, line 3): id that differs in case alone from record 1's" in said
    run(head, "fasta=x.fasta", "out=mac.h5")


def test_the_lookup_by_accession_in_the_docs_finds_the_vectors(inside, head):
    text = (Path(__file__).parents[1] / "docs/embedding.md").read_text()
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "accession" in c]
    rabbit, own = "sp|P12345|AATM_RABIT", "tr|Q1|Q1_X"
    Path("x.fasta").write_text(f">{rabbit} a\nACDEF\n>{own}\nGHIKL\n>other\nMKT\n")
    run(head, "fasta=x.fasta", "out=emb.h5")
    found = {}
    exec(code, found)
    assert found["by_accession"] == {"P12345": rabbit, "Q1": own, "other": "other"}
    assert np.array_equal(found["vector"], vectors("emb.h5")[rabbit])


@pytest.mark.parametrize("name", ["[x]", ":B:", "[/]", "[bold]"])
def test_a_users_text_is_printed_as_it_stands(inside, head, capsys, name):
    Path(f"{name}.fasta".replace("/", "|")).write_text(f">{name}\nACDEF\n")
    file = f"{name}.fasta".replace("/", "|")
    run(head, f"fasta={file}", f"out={file}.h5")
    said = capsys.readouterr().out
    assert f"({name})" in said
    assert f"embeddings: {file}.h5\n" in said
    assert f"input           {file}\n" in said
    assert name in refused(capsys, head, f"fasta={name}none", "out=y.h5")


def test_quiet_and_verbose(inside, head, capsys):
    Path("x.fasta").write_text(">a\nACDEF\n")
    run(head, "fasta=x.fasta", "out=x.h5", "-q")
    assert capsys.readouterr() == ("", "")
    assert Path("x.h5").exists()
    assert "error: x.h5 exists already" in refused(capsys, head, "fasta=x.fasta", "out=x.h5", "-q")
    with pytest.raises(SystemExit):
        run(head, "fasta=x.fasta", "out=x.h5", "--verbose")
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("error: x.h5 exists already; choose another out, or remove it\n")


def test_a_reader_that_has_enough_does_not_end_the_work(monkeypatch):
    out, into = os.pipe()
    os.close(out)
    with open(into, "w", closefd=True) as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        console = plain_console()
        console.print("x" * 100_000)
        console.print("y")
        assert console.quiet


def test_a_family_of_another_package_is_a_choice(inside, monkeypatch, capsys):
    """As its entry point makes it known."""

    def load(self):
        from dataclasses import replace

        return replace(MINI, name="theirs")

    point = importlib.metadata.EntryPoint("theirs", "x:y", "rd_lightning.families")
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", load)
    known = importlib.metadata.EntryPoints([point])

    def entry_points(**options):
        return known.select(**options)

    monkeypatch.setattr("rd_lightning.cli.overrides.entry_points", entry_points)
    monkeypatch.setattr(registry, "entry_points", entry_points)
    Path("x.fasta").write_text("".join(f">{i}\n{'ACDEFGHIKLMNPQRSTVWY' * 5}\n" for i in range(9)))
    settings = ["fasta=x.fasta", "family=theirs", "level=200K", "out=run", "heldout=0"]
    run_command("fit", fit, settings)
    assert "theirs: 50K (32) -> 200K (64)" in capsys.readouterr().out
    run(Path("run"), "fasta=x.fasta", "out=x.h5", "family=theirs")
    assert len(vectors("x.h5")) == 9
    monkeypatch.setattr(sys, "argv", ["rd-merge", "run", "out=again"])
    merge_main()
    assert Path("again/head/config.json").exists()


def test_shell_completion(inside, monkeypatch, capsys):
    monkeypatch.setenv("COMP_LINE", "rd-embed pool")
    monkeypatch.setattr(sys, "argv", ["rd-embed"])
    run_command("embed", embed, ["-sc", "query=bash"])
    assert "pooling=" in capsys.readouterr().out
    run_command("embed", embed, ["-sc", "install=bash"])
    assert "complete" in capsys.readouterr().out
