import hashlib

import pytest

from rd_lightning.data.scan import IdRule, digest64, scan_fasta
from rd_lightning.data.store import SequenceStore
from rd_lightning.errors import InputError

from ..conftest import random_sequences

MESSY = [
    ("a", "acdef"),
    ("b", "AC1"),
    ("c", "ACDEF*"),
    ("d", ""),
    ("a", "GGGG"),
    ("e", "AJJ"),
    ("f", "A-C"),
]


def test_sequences_ids_and_columns(fasta):
    sequences = random_sequences(50, 0)
    with scan_fasta(fasta(sequences)) as store:
        assert len(store) == 50
        assert [store.sequence(i).decode() for i in range(50)] == sequences
        assert [store.id(i) for i in range(50)] == [f"s{i}" for i in range(50)]
        assert store.column("length").tolist() == [len(s) for s in sequences]
        assert store.column("digest").tolist() == [digest64(s.encode()) for s in sequences]
        long = next(i for i, s in enumerate(sequences) if len(s) > 6)
        assert store.sequence(long, 2, 4).decode() == sequences[long][2:6]
        with pytest.raises(IndexError):
            store.sequence(long, 2, len(sequences[long]))
        content = "".join(s + "\n" for s in sequences).encode()
        assert store.summary.digest == hashlib.sha256(content).hexdigest()
        assert store.summary.num_residues == sum(map(len, sequences))
        assert sum(store.summary.residues_by_letter.values()) == store.summary.num_residues
        longest = max(range(50), key=lambda i: len(sequences[i]))
        assert store.summary.longest == len(sequences[longest])


def test_the_digest_depends_on_the_sequences_alone(fasta, tmp_path):
    one = scan_fasta(fasta(["ACDEF", "GHI"]))
    path = tmp_path / "other.fasta"
    path.write_bytes(b">x y\r\nacd\r\nef\r\n>z\r\nGHI*")
    assert scan_fasta(path).summary.digest == one.summary.digest


def test_unusable_records_are_listed(fasta):
    with pytest.raises(InputError) as caught:
        scan_fasta(fasta(MESSY), ids=IdRule(unique=True))
    message = str(caught.value)
    for part in (
        "4 unusable record(s)",
        "record 2 (b, line 3): not an amino acid: '1' at position 3",
        "record 4 (d, line 7): the sequence is empty",
        "record 7 (f, line 13): gap '-' at position 2",
        "record 5 (a, line 9): duplicate id, of record 1",
        "on_invalid=skip",
    ):
        assert part in message


def test_only_the_first_ten_are_listed(fasta):
    with pytest.raises(InputError, match="the first ten unusable") as caught:
        scan_fasta(fasta([(f"s{i}", "A1") for i in range(50)]))
    assert str(caught.value).count("not an amino acid") == 10


def test_unusable_records_are_skipped_and_counted(fasta):
    with scan_fasta(fasta(MESSY), on_invalid="skip", ids=IdRule(unique=True)) as store:
        assert [store.id(i) for i in range(len(store))] == ["a", "c", "e"]
        assert [store.record_number(i) for i in range(len(store))] == [1, 3, 6]
        assert store.sequence(2) == b"AXX"
        summary = store.summary
        assert (summary.num_records, summary.num_sequences, summary.num_skipped) == (7, 3, 4)
        assert (summary.num_upper_cased, summary.num_stops_dropped, summary.num_j_as_x) == (1, 1, 2)
        assert summary.num_duplicate_sequences == 1
        assert summary.num_residues == 13
        rows = (store.folder / "skipped.tsv").read_text().splitlines()
        assert rows[0] == "record\tline\tid\tproblem"
        assert {row.split("\t")[0] for row in rows[1:]} == {"2", "4", "5", "7"}


def test_nothing_usable(fasta):
    with pytest.raises(InputError, match="no usable sequence among 1"):
        scan_fasta(fasta([("a", "1")]), on_invalid="skip")


@pytest.mark.parametrize("content", [[("a", "1")], ["ACD"]])
def test_no_folder_is_left_behind(fasta, tmp_path, content):
    folder = tmp_path / "spool"
    try:
        with scan_fasta(fasta(content), folder=folder):
            assert folder.is_dir()
    except InputError:
        pass
    assert not folder.exists()


def test_another_process_opens_the_same_store(fasta):
    with scan_fasta(fasta(["ACDEF", "GHI"])) as store:
        with SequenceStore.open(store.folder) as other:
            assert other.sequence(1) == b"GHI"
            assert other.summary == store.summary
        assert store.folder.is_dir()


def test_hostile_ids_touch_no_path(fasta, tmp_path):
    records = [("../../x", "ACD"), ("/etc/passwd", "CD"), ("a/b", "DE")]
    before = sorted(p.name for p in tmp_path.iterdir())
    with scan_fasta(fasta(records)) as store:
        assert [store.id(i) for i in range(3)] == [name for name, _ in records]
        assert sorted(p.name for p in store.folder.iterdir()) == [
            "data", "entries", "skipped.tsv", "summary.json",
        ]  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*before, "x.fasta"])
