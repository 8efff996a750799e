import gzip
import lzma

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_lightning.data.fasta import clean, read_records
from rd_lightning.errors import InputError

PLAIN = b">a first\nACD\nEF\n\n>b\nGH I\n"
EXPECTED = [(1, 1, "a", "ACDEF"), (2, 5, "b", "GHI")]


def write(tmp_path, content: bytes, name="x.fasta"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("x.fasta", lambda b: b),
        ("x.fasta.gz", gzip.compress),
        ("x.fasta.xz", lzma.compress),
        ("x.fasta.zst", lambda b: zstandard.ZstdCompressor().compress(b)),
    ],
)
def test_plain_and_compressed(tmp_path, name, pack):
    assert [tuple(r) for r in read_records(write(tmp_path, pack(PLAIN), name))] == EXPECTED


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.rstrip(b"\n"),
        b"\xef\xbb\xbf" + PLAIN,
    ],
    ids=["CRLF", "no last line end", "byte-order mark"],
)
def test_line_ends_and_marks(tmp_path, content):
    assert [tuple(r) for r in read_records(write(tmp_path, content))] == EXPECTED


def test_leading_blank_lines_count(tmp_path):
    assert next(read_records(write(tmp_path, b"\n  \n" + PLAIN))).line == 3


def test_long_and_foreign_headers(tmp_path):
    long = b"x" * 10_000
    records = list(read_records(write(tmp_path, b">" + long + b" y\nAC\n>\xff\xfe z\nDE\n>\nFG\n")))
    assert [r.id for r in records] == [long.decode(), "ÿþ", ""]


def test_a_very_long_record(tmp_path):
    (record,) = read_records(write(tmp_path, b">a\n" + b"ACDEFGHIKL\n" * 10_000))
    assert len(record.letters) == 100_000


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "x.fasta", "the file is empty"),
        (b"\n\n", "x.fasta", "the file is empty"),
        (b"\nACDEF\n", "x.fasta", "not a FASTA file: line 2 is 'ACDEF'"),
        (gzip.compress(PLAIN * 1000)[:-40], "x.fasta.gz", "cannot be read after record"),
        (b"no gzip", "x.fasta.gz", "cannot be read|not a FASTA"),
        (b"(\xb5/\xfd broken", "x.fasta.zst", "cannot be read after record 0"),
    ],
    ids=["empty", "blank lines", "no heading", "cut gzip", "no gzip", "broken zstd"],
)
def test_unusable_files(tmp_path, content, name, message):
    path = write(tmp_path, content, name)
    with pytest.raises(InputError, match=message) as caught:
        list(read_records(path))
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(read_records(tmp_path / "none.fasta"))
    with pytest.raises(InputError, match="no such file"):
        list(read_records(tmp_path))


@pytest.mark.parametrize(
    ("letters", "sequence", "flags"),
    [
        ("ACDX", b"ACDX", (False, False, 0)),
        ("acDx", b"ACDX", (True, False, 0)),
        ("ACD*", b"ACD", (False, True, 0)),
        ("AJJD", b"AXXD", (False, False, 2)),
        ("BZUO", b"BZUO", (False, False, 0)),
    ],
)
def test_policy(letters, sequence, flags):
    cleaned = clean(letters)
    assert cleaned.sequence == sequence
    assert (cleaned.upper_cased, cleaned.stop_dropped, cleaned.num_j) == flags
    assert cleaned.problem is None


@pytest.mark.parametrize(
    ("letters", "problem"),
    [
        ("", "the sequence is empty"),
        ("*", "the sequence is empty"),
        ("AC-D", "gap '-' at position 3"),
        ("AC.D", "gap '.' at position 3"),
        ("A1C", "not an amino acid: '1' at position 2"),
        ("A*C", "not an amino acid: '*' at position 2"),
        ("Aé", "not an amino acid: 'é' at position 2"),
        ("Aß", "not an amino acid: 'ß' at position 2"),
    ],
)
def test_problems(letters, problem):
    assert clean(letters).problem == problem


FRAGMENTS = st.sampled_from(
    [
        b">",
        b"\n",
        b"\r\n",
        b" ",
        b"a",
        b"ACDEF",
        b"*",
        b"-",
        b"J",
        b"\xff",
        b"\x00",
        b"\xef\xbb\xbf",
    ]
)


@settings(max_examples=300, deadline=None)
@given(content=st.lists(FRAGMENTS | st.binary(max_size=4), max_size=40).map(b"".join))
def test_any_bytes_give_records_or_the_one_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "x.fasta"
    path.write_bytes(content)
    try:
        for record in read_records(path):
            cleaned = clean(record.letters)
            assert record.line >= 1
            assert (cleaned.problem is None) == bool(
                cleaned.sequence and not cleaned.sequence.strip(b"LAGVSERTIDPKQNFYMHWCXBUZO")
            )
    except InputError as error:
        assert str(path) in str(error)
