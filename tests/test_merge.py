"""Parts of a fit, merged into the whole: a map-reduce."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rd_lightning import RDHead
from rd_lightning.fit import main as fit_main
from rd_lightning.fitting.state import FitState
from rd_lightning.merge import main
from rd_lightning.runtime.owner import owned

from .conftest import clean_environment, random_sequences, run_here
from .fitting.test_checkpoint import SETTINGS, assert_same, finish, start


def merge(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit status, and what it printed."""
    return run_here(main, folder, "rd-merge", *arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("merge")
    sequences = random_sequences(90, 3, longest=120)
    text = "".join(f">s{i}\n{s}\n" for i, s in enumerate(sequences))
    (folder / "x.fasta").write_text(text)
    for name in ("whole", *(f"{i}" for i in range(1, 5))):
        part = [] if name == "whole" else [f"data.part={name}/4"]
        status, said = run_here(fit_main, folder, "rd-fit", *SETTINGS, f"out={name}", *part)
        assert status == 0 and ("rd-merge" in said) == bool(part), said
    return folder


@pytest.mark.slow
def test_four_parts_are_the_whole(folder):
    """Each part is a run of its own, as the tasks of a job array would be."""
    states = [f"{i}/moments.safetensors" for i in (3, 1, 4, 2)]
    status, said = merge(folder, *states, "out=merged")
    assert status == 0, said
    assert "50K -> 200K" in said
    merged, whole = (FitState.load(folder / n / "moments.safetensors") for n in ("merged", "whole"))
    assert_same(merged, whole)
    heads = [RDHead.from_pretrained(folder / n / "head") for n in ("merged", "whole")]
    for (_, a), (_, b) in zip(heads[0].named_buffers(), heads[1].named_buffers(), strict=True):
        assert (a - b).abs().max() <= 2**-22 * b.abs().max()


def test_a_part_has_no_head(folder):
    assert sorted(p.name for p in (folder / "1").iterdir()) == ["moments.safetensors"]


def test_a_merge_does_not_overwrite_a_part(folder):
    before = (folder / "1" / "moments.safetensors").read_bytes()
    status, said = merge(folder, "1/moments.safetensors", "2/moments.safetensors", "out=1")
    assert status == 1
    assert "1 holds a fit already" in said
    assert (folder / "1" / "moments.safetensors").read_bytes() == before


def test_some_of_the_parts_can_be_merged_and_it_is_said(folder):
    status, said = merge(folder, "1/moments.safetensors", "2/moments.safetensors", "out=half")
    assert status == 0, said
    assert "2 part(s) of 4 merged; the others are not in" in said


def test_a_part_given_twice_is_refused(folder):
    state = "1/moments.safetensors"
    status, said = merge(folder, state, "2/moments.safetensors", state, "out=twice")
    assert status == 1
    assert "1/moments.safetensors: part 1 of 4 of these sequences is in already" in said
    assert not (folder / "twice").exists()


def test_the_whole_and_a_part_overlap(folder):
    status, said = merge(folder, "whole/moments.safetensors", "1/moments.safetensors", "out=more")
    assert status == 1
    assert "with another plan (part 1 of 1); residues would count twice" in said


def test_the_process_fails_with_one_line(folder):
    done = subprocess.run(
        [sys.executable, "-m", "rd_lightning.merge", "out=none"],
        capture_output=True,
        text=True,
        timeout=180,
        env=clean_environment(),
        cwd=folder,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "name the states" in done.stderr
    assert not (folder / "none").exists()


@pytest.mark.parametrize("states", ["null", "[]"])
def test_no_states(folder, states):
    status, said = merge(folder, f"states={states}", "out=none")
    assert status == 1 and "name the states" in said and "Traceback" not in said


def test_bad_input(folder):
    status, said = merge(folder, "nothing.safetensors", "out=none")
    assert status == 1
    assert "nothing.safetensors: no such file" in said
    status, said = merge(folder, "whole/head/head.safetensors", "out=none")
    assert status == 1
    assert "not moments of rd_lightning" in said
    assert not (folder / "none").exists()


def test_more_parts_than_batches(folder):
    status, said = finish(start(folder, "out=empty", "data.part=900/1000"))
    assert status == 1
    assert "part 900 of 1000 is empty" in said


@pytest.mark.parametrize("left", [None, (), ("head.safetensors",)])
def test_a_merge_that_was_killed_while_it_wrote_is_written(folder, left):
    """Its moments and no head yet, or a part of one; of other states, they are somebody's part."""
    shutil.rmtree(folder / "killed", ignore_errors=True)
    states = [f"{i}/moments.safetensors" for i in range(1, 5)]
    assert merge(folder, *states, "out=killed")[0] == 0
    for file in (folder / "killed/head").iterdir():
        if file.name not in (left or ()):
            file.unlink()
    if left is None:
        (folder / "killed/head").rmdir()
    before = FitState.load(folder / "killed/moments.safetensors")
    status, said = merge(folder, *states[:3], "out=killed")
    assert status == 1
    assert "killed holds a fit already" in said
    assert merge(folder, *states, "out=killed")[0] == 0
    RDHead.from_pretrained(folder / "killed/head")
    assert_same(FitState.load(folder / "killed/moments.safetensors"), before)
    assert "holds a fit already" in merge(folder, *states, "out=killed")[1]


def test_one_writer(folder):
    with owned(folder / "busy"):
        status, said = merge(folder, "whole/moments.safetensors", "out=busy")
    assert status == 1
    assert f"busy is being written by another run (process {os.getpid()} on" in said
