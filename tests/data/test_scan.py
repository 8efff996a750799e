"""One pass: ids under a rule, nucleotides, folders, and pipes that cannot be read twice."""

import os
import threading

import pytest

from rd_lightning.data.scan import IdRule, scan_fasta
from rd_lightning.data.store import SequenceStore, read_at, write_at
from rd_lightning.errors import InputError

from ..conftest import disk_full

UNIQUE = IdRule(unique=True)
FIRST_WORDS = "".join(f">sample chain {i}\n{'ACDEF'[i:]}\n" for i in range(5))


def ids(store: SequenceStore) -> list[str]:
    return [store.id(i) for i in range(len(store))]


def test_ids_of_a_fit_need_not_differ(fasta):
    for on_invalid in ("raise", "skip"):
        with scan_fasta(fasta([("a", "AC"), ("a", "DE"), ("b", "FG")]), on_invalid=on_invalid) as s:
            assert ids(s) == ["a", "a", "b"]
            assert (s.summary.num_duplicate_ids, s.summary.num_skipped) == (1, 0)


def test_first_words_that_collide_are_told_of_the_whole_header(tmp_path):
    path = tmp_path / "x.fasta"
    path.write_text(FIRST_WORDS)
    with pytest.raises(InputError, match="with ids=header it is the whole") as caught:
        scan_fasta(path, ids=UNIQUE)
    assert "record 5 (sample, line 9): duplicate id, of record 1" in str(caught.value)
    with scan_fasta(path, ids=IdRule("header", unique=True)) as store:
        assert ids(store) == [f"sample chain {i}" for i in range(5)]
    with scan_fasta(path, ids=UNIQUE, on_invalid="skip") as store:
        assert ids(store) == ["sample"]
        assert store.summary.num_duplicate_ids == store.summary.num_skipped == 4
    path.write_text(FIRST_WORDS * 2)
    with pytest.raises(InputError) as caught:
        scan_fasta(path, ids=IdRule("header", unique=True))
    assert "ids=header" not in str(caught.value)


def test_accessions_that_collide_are_told_of_the_whole_word(fasta):
    path = fasta([("sp|P1|A_X", "AC"), ("sp|P2|B_X x", "DE"), ("other y", "FG")])
    rule = IdRule("accession", unique=True)
    with scan_fasta(path, ids=rule) as store:
        assert ids(store) == ["P1", "P2", "other"]
    path = fasta([("sp|P1|A_X", "AC"), ("tr|P1|B_X", "DE")])
    with pytest.raises(InputError, match="with ids=first_word it is the whole word"):
        scan_fasta(path, ids=rule)
    with scan_fasta(path, ids=UNIQUE) as store:
        assert ids(store) == ["sp|P1|A_X", "tr|P1|B_X"]


def test_ids_that_differ_in_case_alone(fasta):
    path = fasta([("1abc_A", "AC"), ("1abc_a", "DE"), ("é", "FG"), ("e\u0301", "HI")])
    with scan_fasta(path, ids=UNIQUE) as store:
        assert len(store) == 4
    with pytest.raises(InputError) as caught:
        scan_fasta(path, ids=IdRule(unique=True, ignore_case=True))
    said = str(caught.value)
    assert "record 2 (1abc_a, line 3): id that differs in case alone from record 1's" in said
    assert "record 4" in said


def test_ids_that_an_output_cannot_hold(fasta):
    rule = IdRule(problem=lambda id: None if id else "no id")
    with pytest.raises(InputError, match=r"record 2 \(no id, line 3\): no id"):
        scan_fasta(fasta([("a", "AC"), ("", "DE")]), ids=rule)


@pytest.mark.parametrize("rule", [IdRule(), UNIQUE])
def test_a_pipe_with_duplicate_ids_is_read_once(tmp_path, rule):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_text, args=(">a\nAC\n>a\nDE\n>b\nFG\n",))
    writer.start()
    with scan_fasta(fifo, ids=rule, on_invalid="skip") as store:
        assert ids(store) == (["a", "b"] if rule.unique else ["a", "a", "b"])
    writer.join()


def test_a_folder_is_the_files_put_together(tmp_path, fasta):
    (tmp_path / "many").mkdir()
    (tmp_path / "many/b.fasta").write_text(">x\nACD\n>y\nEFG")
    (tmp_path / "many/a.fasta").write_text("\n>z\nHIK\n")
    whole = fasta([("z", "HIK"), ("x", "ACD"), ("y", "EFG")])
    with scan_fasta(tmp_path / "many") as found, scan_fasta(whole) as expected:
        assert ids(found) == ids(expected)
        assert found.summary.digest == expected.summary.digest
        assert [found.record_number(i) for i in range(3)] == [1, 2, 3]
    (tmp_path / "many/c.fasta").write_text(">w\nA-D\n>z\nAAA\n")
    with pytest.raises(InputError) as caught:
        scan_fasta(tmp_path / "many", ids=UNIQUE)
    assert "record 4 (w, c.fasta line 1): gap '-' at position 2" in str(caught.value)
    assert "record 5 (z, c.fasta line 3): duplicate id, of record 1" in str(caught.value)
    with scan_fasta(tmp_path / "many", on_invalid="skip") as store:
        assert "4\tc.fasta:1\tw\tgap" in (store.folder / "skipped.tsv").read_text()


def test_nucleotides_are_refused_unless_they_are_wanted(fasta):
    path = fasta(["acgtacgtac" * 10, "ACGUN" * 20])
    with pytest.raises(InputError) as caught:
        scan_fasta(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: nucleotides, not proteins: 100.0% of 200 letters are A, C, G,")
    assert "on_nucleotides=read" in said
    with scan_fasta(path, on_nucleotides="read") as store:
        assert len(store) == 2


def test_a_system_without_pread(fasta, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "pread")
    monkeypatch.delattr(os, "pwrite")
    with scan_fasta(fasta(["ACDEF", "GHI", "ACDEF"])) as store:
        assert [store.sequence(i) for i in (2, 0, 1)] == [b"ACDEF", b"ACDEF", b"GHI"]
        assert store.sequence(0, 1, 3) == b"CDE"
        assert ids(store) == ["s0", "s1", "s2"]
    with open(tmp_path / "raw", "wb+") as file:
        assert write_at(file.fileno(), memoryview(b"abc"), 2) == 3
        assert read_at(file.fileno(), 4, 1) == b"\0abc"


def test_a_full_disk_is_named(tmp_path, fasta, monkeypatch):
    """That of the store, not the one of the sequences."""
    path = fasta(["MKV"])
    monkeypatch.setattr("rd_lightning.data.scan._Scan._keep", disk_full)
    with pytest.raises(OSError, match="No space") as raised:
        scan_fasta(path, folder=tmp_path / "store")
    assert raised.value.filename == str(tmp_path / "store")
