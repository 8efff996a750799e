"""How much ESM-2 takes is known before it comes."""

import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import PackageNotFoundError

import pytest
import torch

from rd_lightning.errors import InputError
from rd_lightning.families import Member, download, get_family
from rd_lightning.families.download import download_missing, to_download
from rd_lightning.fit import main
from rd_lightning.runtime import ddp, owner

from ..conftest import run_here

PUBLISHED = {"8M": 30.1e6, "35M": 134e6, "150M": 595e6, "650M": 2.61e9, "3B": 5.68e9, "15B": 30.3e9}
"""Bytes of fair-esm's checkpoints."""


def test_what_is_missing_and_how_large_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    members = get_family("esm2").members
    found = to_download(members, None)
    assert {d.name: d.num_bytes for d in found} == pytest.approx(PUBLISHED, rel=0.03)
    assert {d.folder for d in found} == {tmp_path / "checkpoints"}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "esm2_t6_8M_UR50D.pt").touch()
    assert [d.name for d in to_download(members, None)] == list(PUBLISHED)[1:]
    assert to_download(members, tmp_path) == []
    assert to_download(get_family("mini").members, None) == []


def test_a_file_of_ones_own_is_no_repository(tmp_path, monkeypatch):
    """Where a family of one's own finds its weights is for its ``load`` to say."""
    monkeypatch.chdir(tmp_path)
    own = Member("S", 8, "weights/small.pt", 1, 2)
    assert to_download([own], None) == []
    member = replace(get_family("esmc").members[0], checkpoint="org/name")
    monkeypatch.setattr(download, "check_transformers", lambda *_: None)
    assert [d.name for d in to_download([member], None)] == ["300M"]


@pytest.mark.parametrize("found", [None, "5.15.1"])
def test_what_reads_the_weights_is_there_before_they_come(tmp_path, monkeypatch, found):
    def version(name):
        if found is None:
            raise PackageNotFoundError(name)
        return found

    monkeypatch.setattr("rd_lightning.families.transformers_library.version", version)
    words = ("family=esmc", "out=run", "data.num_sequences=60")
    for more in ((), ("preflight=true",)):
        status, said = run_here(main, tmp_path, "rd-fit", *words, *more)
        assert status == 1
        needed = "Hugging Face encoders need transformers: pip install -U"
        if found:
            needed = "the weights of 300M need transformers 5.16 or newer, not 5.15.1: pip install"
        assert needed in said
        assert not (tmp_path / "run").exists()


def test_processes_that_begin_at_once_download_once(tmp_path, monkeypatch):
    """In threads, each of which opens the lock for itself; all find the whole file."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr(owner, "_POLL", 0.01)
    asked = []

    def fetch(url, path, progress):
        asked.append(url)
        time.sleep(0.3)
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("data", url)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    family = get_family("esm2")
    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(download_missing, family.members[:2], None) for _ in range(4)]
        for run in runs:
            run.result()
    assert sorted(asked) == sorted(set(asked)) and len(asked) == 2
    assert to_download(family.members[:2], None) == []
    assert not list((tmp_path / "checkpoints").glob(".*"))


def test_a_fit_downloads_before_its_processes_meet(tmp_path, monkeypatch):
    """Those that wait in a collective for a download end after half an hour."""
    seen = []
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr(download, "downloaded", lambda member: seen.append(member.name) or tmp_path)

    def first_decides(*_):
        seen.append("met")
        raise InputError("this is far enough")

    monkeypatch.setattr(ddp, "first_decides", first_decides)
    words = ("family=esm2", "level=35M", "out=run", "data.num_sequences=60")
    status, said = run_here(main, tmp_path, "rd-fit", *words)
    assert (status, seen) == (1, ["8M", "35M", "met"]), said
