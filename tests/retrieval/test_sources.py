"""What a path names, and whether its files are those of before."""

import os

import pytest

from rd_lightning.errors import InputError
from rd_lightning.retrieval.sources import source_of

from .vectors import indexed, nested


def test_kinds(tmp_path):
    indexed(tmp_path, nested(3))
    (tmp_path / "many").mkdir()
    for name in ("x.fasta", "x.fa.gz", "x.h5", "x.parquet", "many/a.faa.zst"):
        (tmp_path / name).touch()
    expected = {
        **{"index": "index", "x.fasta": "fasta", "x.fa.gz": "fasta", "many": "fasta"},
        **{"x.h5": "embeddings", "x.parquet": "embeddings", ".": "fasta"},
    }
    for name, kind in expected.items():
        assert source_of("index", str(tmp_path / name), "").kind == kind, name


def test_refused(tmp_path):
    for path, words in (
        (None, "query is missing; name it: query=q.fasta"),
        ("-", "query=- is a pipe"),
        (str(tmp_path / "no"), "no: no such file or folder"),
    ):
        with pytest.raises(InputError, match=words):
            source_of("query", path, "query=q.fasta")


@pytest.mark.parametrize("folder", [False, True])
def test_a_change_is_seen(tmp_path, folder):
    file = tmp_path / "emb/per-protein.npy" if folder else tmp_path / "emb.h5"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"one")
    source = source_of("index", str(tmp_path / "emb" if folder else file), "")
    known = source.record()
    assert source.is_same(known)
    os.utime(file, ns=(1, 1))  # copied, or touched: the content decides
    assert source.is_same(known) and source.stamp() != known["files"]
    file.write_bytes(b"two")
    assert not source.is_same(known)
    if folder:
        file.write_bytes(b"one")
        (tmp_path / "emb/bos.npy").write_bytes(b"more")
        assert not source.is_same(known)
