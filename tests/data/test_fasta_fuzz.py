"""Random bytes and random changes of a real file: records, or one InputError."""

import gzip
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rd_lightning.data.fasta import read_records
from rd_lightning.data.scan import IdRule, scan_fasta
from rd_lightning.errors import InputError
from rd_lightning.families import sample_fasta

REAL = sample_fasta().read_bytes()[:1500]
BOUNDED = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b">", b"\n>", b"\r", b"\0", b"\xff", b"*", b"J", b">P1;", b"\xef\xbb\xbf"]),
)
CHANGED = st.builds(
    lambda at, size, piece: REAL[:at] + piece + REAL[at + size :],
    st.integers(0, len(REAL)),
    st.integers(0, 200),
    PIECES,
)
CONTENTS = st.one_of(
    st.binary(max_size=200), CHANGED, st.binary(max_size=99).map(lambda b: b">" + b)
)


@BOUNDED
@given(CONTENTS, st.sampled_from(["x.fasta", "x.fasta.gz", "x.zst", "x.bz2", "x.xz"]), st.data())
def test_a_scan_gives_sequences_or_one_line(tmp_path, content, name, data):
    path = Path(tmp_path / name)
    if name.endswith(".gz"):
        content = gzip.compress(content, mtime=0)
        cut = data.draw(st.integers(0, len(content)))
        content = content[:cut] + data.draw(st.binary(max_size=3)) + content[cut:]
    path.write_bytes(content)
    rule = IdRule(
        data.draw(st.sampled_from(["first_word", "header", "accession"])),
        data.draw(st.booleans()),
        data.draw(st.booleans()),
        lambda id: None if id else "no id",
    )
    on_invalid = data.draw(st.sampled_from(["raise", "skip"]))
    try:
        with scan_fasta(path, ids=rule, on_invalid=on_invalid) as store:
            summary = store.summary
            ids = [store.id(i) for i in range(len(store))]
            total = sum(len(store.sequence(i)) for i in range(len(store)))
    except InputError as error:
        assert "\n" not in str(error)
        return
    assert total == summary.num_residues > 0
    assert summary.num_records == summary.num_sequences + summary.num_skipped
    assert all(ids)
    if rule.unique:
        assert len({rule.key(id) for id in ids}) == len(ids)


@BOUNDED
@given(st.binary(max_size=60).filter(lambda b: not set(b) & set(b"\r\n")))
def test_a_header_can_be_put_back(tmp_path, header):
    path = Path(tmp_path / "x.fasta")
    path.write_bytes(b">" + header + b"\nACD\n")
    try:
        (record,) = read_records(path, ids="header")
    except InputError as error:
        assert "PIR" in str(error)
        return
    try:
        expected = header.decode()
    except UnicodeDecodeError:
        expected = header.decode("latin-1")
    assert record.id == expected.strip()
