"""rd-search as a user types it: what it finds, prepares, resumes and refuses."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.embed import main as rd_embed
from rd_lightning.formats import open_vectors
from rd_lightning.retrieval import PreparedIndex, search
from rd_lightning.runtime.files import read_json, write_json
from rd_lightning.search import main

from .conftest import clean_environment, family_rows, random_sequences, run_here

TIMEOUT = 240
NAMES, DIMS = ("50K", "200K", "800K"), (32, 64, 128)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A head of the bundled family, sequences, and their embeddings."""
    folder = tmp_path_factory.mktemp("search")
    for seed, name in enumerate(("head", "other_head")):
        moments = JointMoments(DIMS).update(family_rows(600, DIMS, seed))
        fit_chain(moments, names=NAMES, context={"family": "mini"}).save_pretrained(folder / name)
    sequences = random_sequences(90, 3, longest=60)
    sequences[70] = sequences[5]
    (folder / "x.fasta").write_text("".join(f">s{i}\n{s}\n" for i, s in enumerate(sequences)))
    (folder / "q.fasta").write_text("".join(f">q{i}\n{sequences[i]}\n" for i in (5, 20, 41)))
    for words in (
        ("fasta=x.fasta", "out=emb.h5"),
        ("fasta=q.fasta", "out=q.h5"),
        ("fasta=q.fasta", "out=q.parquet"),
        ("fasta=q.fasta", "out=small.h5", "level=200K"),
        ("fasta=q.fasta", "out=bos.h5", "pooling=bos"),
        ("fasta=q.fasta", "out=q_npy", "format=npy"),
    ):
        assert run_here(rd_embed, folder, "rd-embed", "head=head", *words)[0] == 0
    words = ("head=other_head", "fasta=q.fasta", "out=other.h5")
    assert run_here(rd_embed, folder, "rd-embed", *words)[0] == 0
    assert rd_search(folder, "index=emb.h5", "build=prepared")[0] == 0
    return folder


def rd_search(folder: Path, *words: str) -> tuple[int, str]:
    return run_here(main, folder, "rd-search", *words)


def found(path: Path) -> pd.DataFrame:
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, sep="\t")


def vectors(path: Path) -> tuple[list[str], np.ndarray]:
    with open_vectors(path) as reader:
        return list(reader.ids), reader.vectors("mean", 0, len(reader.ids))


def test_a_table_of_hits(folder, tmp_path):
    status, said = rd_search(folder, "index=prepared", "query=q.h5", "k=4", f"out={tmp_path}/h.tsv")
    assert status == 0, said
    assert "3 queries, 12 hits" in said
    table = found(tmp_path / "h.tsv")
    levels = [f"{kind}_{name}" for name in NAMES for kind in ("score", "rank")]
    first = ["query", "target", "score", "rank", "query_length", "target_length"]
    assert list(table) == [*first, *levels]
    assert table["query"].tolist() == [f"q{i}" for i in (5, 20, 41) for _ in range(4)]
    assert table["rank"].tolist() == [1, 2, 3, 4] * 3
    # The two records of one sequence, in their order.
    assert table["target"][[0, 1, 4, 8]].tolist() == ["s5", "s70", "s20", "s41"]
    best = table[table["rank"] == 1]
    assert (best["score"] == 1).all() and (best["query_length"] == best["target_length"]).all()
    index, (ids, queries) = PreparedIndex(folder / "prepared"), vectors(folder / "q.h5")
    result = search(index, queries, k=4, ids=ids)
    assert table["target"].tolist() == [index.ids[r] for r in result.records.ravel().tolist()]
    np.testing.assert_allclose(table["score"], result.score.ravel(), rtol=0, atol=5e-7)
    for name in NAMES:
        at = result.level_scores(name).ravel()
        np.testing.assert_allclose(table[f"score_{name}"], at, rtol=0, atol=5e-7)
        assert table[f"rank_{name}"].tolist() == result.level_ranks(name).ravel().tolist()
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize("query", ["q.parquet", "q_npy", "q.fasta"])
@pytest.mark.parametrize("words", [(), ("prefix=50K", "shortlist=20", "level=200K")])
def test_queries_of_any_kind_give_the_same(folder, tmp_path, query, words):
    for name in ("q.h5", query):
        head = ("head=head",) if name.endswith("fasta") else ()
        out = f"out={tmp_path / Path(name).name}.parquet"
        status, said = rd_search(
            folder, "index=prepared", f"query={name}", "k=5", out, *words, *head
        )
        assert status == 0, said
    one, other = (found(tmp_path / f"{name}.parquet") for name in ("q.h5", query))
    columns = ["query", "target", "rank"]
    pd.testing.assert_frame_equal(one[columns], other[columns])
    # Sequences run in other batches here; their embeddings agree to float32's rounding.
    np.testing.assert_allclose(one["score"], other["score"], rtol=0, atol=1e-5)


def test_an_index_of_sequences(folder, tmp_path):
    words = ("index=x.fasta", "head=head", f"build={tmp_path}/index", "query=q.h5", "k=5")
    status, said = rd_search(folder, *words, f"out={tmp_path}/a.tsv")
    assert status == 0, said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tsv", "index"]
    status, said = rd_search(folder, *words, f"out={tmp_path}/b.tsv")  # nothing is embedded again
    assert status == 0 and "residues to embed" not in said
    rd_search(folder, "index=prepared", "query=q.h5", "k=5", f"out={tmp_path}/c.tsv")
    tables = [found(tmp_path / f"{name}.tsv") for name in "abc"]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2], rtol=0, atol=1e-5)


def test_the_index_beside_its_embeddings(folder, tmp_path):
    """Made once, taken again, made again when the embeddings or the settings change."""
    (tmp_path / "emb.h5").write_bytes((folder / "emb.h5").read_bytes())
    prepared = tmp_path / "emb.h5.search"

    def run(name: str, *words: str) -> str:
        out = f"out={tmp_path}/{name}.tsv"
        index, query = f"index={tmp_path}/emb.h5", f"query={folder}/q.h5"
        status, said = rd_search(tmp_path, index, query, out, *words)
        assert status == 0, said
        return said

    assert "to prepare" in run("first")
    made = prepared.stat().st_ino
    assert "to prepare" not in run("second") and prepared.stat().st_ino == made
    assert "it has scale=column" in run("third", "scale=level")
    assert "it has scale=level" in run("fourth")
    (tmp_path / "emb.h5").touch()  # the same content at another time
    assert "to prepare" not in run("fifth")
    (tmp_path / "emb.h5").write_bytes((folder / "q.h5").read_bytes())
    assert "its source has changed" in run("sixth", "k=3")
    assert len(PreparedIndex(prepared).ids) == 3
    tables = [found(tmp_path / f"{n}.tsv") for n in ("first", "second", "fourth", "fifth")]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(tables[0], table)


def test_a_smaller_level_of_one_head(folder, tmp_path):
    """Files of different levels are of one head; the head shows it."""
    words = ("index=prepared", "query=small.h5", "level=200K", f"out={tmp_path}/h.tsv")
    status, said = rd_search(folder, *words)
    assert status == 1 and "if they are levels of one head, name it: head=DIR" in said
    status, said = rd_search(folder, *words, "head=head")
    assert status == 0, said
    rd_search(folder, "index=prepared", "query=q.h5", "level=200K", f"out={tmp_path}/w.tsv")
    pd.testing.assert_frame_equal(
        found(tmp_path / "h.tsv"), found(tmp_path / "w.tsv"), rtol=0, atol=1e-5
    )


def test_all_against_all_without_self(folder, tmp_path):
    words = ("index=prepared", "query=emb.h5", "exclude_self=true", "k=89", "shortlist=89")
    assert rd_search(folder, *words, f"out={tmp_path}/h.tsv")[0] == 0
    table = found(tmp_path / "h.tsv")
    assert len(table) == 90 * 89 and (table["query"] != table["target"]).all()
    assert table.groupby("query")["rank"].apply(list).map(lambda r: r == [*range(1, 90)]).all()


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_faiss(folder, tmp_path, kind):
    pytest.importorskip("faiss", reason='needs pip install ".[faiss]"')
    words = ("index=prepared", "query=q.h5", "k=5", "prefix=200K", "shortlist=60")
    rd_search(folder, *words, f"out={tmp_path}/exact.tsv")
    # So many candidates, or lists, that nothing is left out.
    faiss = ("backend=faiss", f"faiss.kind={kind}", "faiss.effort=90")
    status, said = rd_search(folder, *words, *faiss, f"out={tmp_path}/faiss.tsv")
    assert status == 0, said
    assert (folder / f"prepared/faiss-{kind}-64.index").exists()
    pd.testing.assert_frame_equal(found(tmp_path / "exact.tsv"), found(tmp_path / "faiss.tsv"))


@pytest.mark.slow
def test_kill_9_then_go_on(folder, tmp_path):
    """Again and again; the table is that of an undisturbed run."""
    words = [f"index={folder}/prepared", f"query={folder}/emb.h5", "queries_per_block=1"]
    command = [sys.executable, "-m", "rd_lightning.search", *words, "records_per_block=1"]
    parts, killed = tmp_path / "killed.tsv.unfinished", 0
    for _ in range(2):
        before = len(list(parts.glob("block-*")))
        process = subprocess.Popen(
            [*command, "out=killed.tsv"],
            env=clean_environment(),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + TIMEOUT
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(parts.glob("block-*"))) > before + 3:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        killed += process.wait(TIMEOUT) == -signal.SIGKILL
    assert killed >= 1
    assert not (tmp_path / "killed.tsv").exists()
    status, said = rd_search(tmp_path, *words, "records_per_block=1", "out=killed.tsv", "k=9")
    assert status == 1 and "of an unfinished run with other settings (k: 10 there, 9 now)" in said
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("block-*.safetensors")}
    status, said = rd_search(tmp_path, *words, "records_per_block=1", "out=killed.tsv")
    assert status == 0 and "resuming an earlier search" in said
    assert len(kept) > 3 and not parts.exists()
    assert rd_search(tmp_path, *words, "records_per_block=1", "out=whole.tsv")[0] == 0
    assert (tmp_path / "killed.tsv").read_text() == (tmp_path / "whole.tsv").read_text()


def test_a_report_beside_the_table(folder, tmp_path):
    pytest.importorskip("vl_convert", reason='needs vl-convert-python: pip install ".[report]"')
    words = ("index=prepared", "query=q.h5", "k=4", "report=true", f"out={tmp_path}/h.tsv")
    status, said = rd_search(folder, *words)
    assert status == 0, said
    assert f"to look at in a browser: {tmp_path}/h.html" in said
    page = (tmp_path / "h.html").read_text("utf-8")
    assert "3 queries, 12 hits of 90 records" in page
    assert str(PreparedIndex(folder / "prepared").source["digest"]) in page
    (tmp_path / "h.tsv").unlink()
    status, said = rd_search(folder, *words)  # the page would be lost
    assert status == 1 and f"{tmp_path}/h.html exists already" in said


def test_only_prepared(folder, tmp_path):
    status, said = rd_search(folder, "index=emb.h5", f"build={tmp_path}/index", "dtype=float16")
    assert status == 0 and f"index: {tmp_path}/index" in said
    index = PreparedIndex(tmp_path / "index")
    assert (index.num_records, index.dims, index.dtype) == (90, DIMS, "float16")
    assert index.head_digest == RDHead.from_pretrained(folder / "head").digest()


def test_a_preflight_writes_nothing(folder, tmp_path):
    (tmp_path / "emb.h5").write_bytes((folder / "emb.h5").read_bytes())
    for index in (f"{tmp_path}/emb.h5", f"{folder}/prepared", f"{folder}/x.fasta"):
        words = (f"index={index}", f"query={folder}/q.fasta", f"head={folder}/head", "out=h.tsv")
        status, said = rd_search(tmp_path, *words, "preflight=true")
        assert status == 0, said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["emb.h5"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("query=q.h5", "out=h.tsv"), "index is missing; name it: index=emb.h5"),
        (("index=prepared",), "query is missing; name it: query=q.fasta, or prepare alone"),
        (("index=prepared", "query=q.h5"), "out is missing; name the table: out=hits.tsv"),
        (("index=none.h5", "query=q.h5", "out=h.tsv"), "index=none.h5: no such file or folder"),
        (("index=prepared", "query=-", "out=h.tsv"), "query=- is a pipe, which is read once"),
        (("index=prepared", "query=q.h5", "out=h.csv"), "the suffix is .tsv or .parquet"),
        (("index=prepared", "query=q.fasta", "out=h.tsv"), "name the head that embeds them"),
        (("index=x.fasta", "query=q.h5", "out=h.tsv"), "index=x.fasta holds sequences; name the"),
        (("index=prepared", "query=prepared", "out=h.tsv"), "query=prepared is a prepared index"),
        (("index=prepared", "build=b"), "index=prepared is prepared already; leave build out"),
        (("index=prepared", "query=other.h5", "out=h.tsv"), "other.h5 is of another head than"),
        (
            ("index=prepared", "query=q.fasta", "head=other_head", "out=h.tsv"),
            "prepared is of another head than head=; embed it with that head",
        ),
        (("index=prepared", "query=bos.h5", "out=h.tsv"), "bos.h5: no mean vectors, of which"),
        (("index=prepared", "query=small.h5", "head=head", "out=h.tsv"), "search with width=64"),
        (("index=prepared", "query=q.h5", "k=91", "out=h.tsv"), "k=91, but prepared holds 90"),
        (("index=emb.h5", "query=q.h5", "k=91", "out=h.tsv"), "k=91, but emb.h5 holds 90 records"),
        (("index=prepared", "query=q.h5", "level=3B", "out=h.tsv"), "no level '3B'; there are 50K"),
        (("index=prepared", "query=q.h5", "width=129", "out=h.tsv"), "129 columns asked for"),
        (("index=prepared", "query=q.h5", "prefix=no", "out=h.tsv"), "no level 'no'"),
        (
            ("index=prepared", "query=q.h5", "level=50K", "width=3", "out=h.tsv"),
            "name a level (50K) or a width (3), not both",
        ),
        (("index=prepared", "query=q.h5", "scale=level", "out=h.tsv"), "scale=column, not level"),
        (("index=prepared", "query=q.h5", "scale=rms", "out=h.tsv"), "scale is none, level or"),
        (("index=prepared", "query=q.h5", "backend=gpu", "out=h.tsv"), "backend is exact or faiss"),
        (("index=prepared", "query=q.h5", "device=tpu", "out=h.tsv"), "device is cpu, cuda"),
        (("index=prepared", "query=empty.h5", "out=h.tsv"), "empty.h5: not HDF5, or cut short"),
        (("index=prepared", "query=empty.fasta", "head=head", "out=h.tsv"), "empty.fasta"),
        (("index=x.h5", "query=q.h5", "out=h.tsv"), "no such file"),
        (("index=prepared", "query=q.h5", "out=taken.tsv"), "taken.tsv exists already; choose"),
        (("index=emb.h5", "build=head", "query=q.h5", "out=h.tsv"), "head holds other files"),
    ],
)
def test_what_cannot_be_is_a_line(folder, unchecked, words, line):
    (folder / "taken.tsv").write_text("mine")
    (folder / "empty.h5").touch()
    (folder / "empty.fasta").touch()
    before = sorted(p.name for p in folder.rglob("*"))
    status, said = rd_search(folder, *words)
    assert status == 1
    *_, last = said.splitlines()
    assert last.startswith("error: ") and line in last, said
    after = sorted(p.name for p in folder.rglob("*"))
    assert [n for n in after if n not in before and "unfinished" not in n] == []


def test_other_weights_are_refused(folder, tmp_path):
    index = tmp_path / "index"
    assert rd_search(folder, "index=emb.h5", f"build={index}")[0] == 0
    about = read_json(index / "index.json", "")
    about["metadata"]["weights"]["200K"] = "0" * 16
    write_json(index / "index.json", about)
    words = (f"index={index}", "query=q.h5", f"out={tmp_path}/h.tsv")
    assert "was made with other weights of 200K" in rd_search(folder, *words)[1]
