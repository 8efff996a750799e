import h5py
import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.formats.members import MemberFile, MemberReaders, member_files

WIDTHS = {"A": 3, "B": 5}


@pytest.fixture
def write(tmp_path):
    """A flat HDF5: id to number of residues (or None, for one vector a protein)."""

    def write(name, records, *, width=None, dtype="float32"):
        path = tmp_path / f"{name}.h5"
        random = np.random.default_rng(len(name))
        with h5py.File(path, "w", track_order=True) as file:
            for id, length in records.items():
                shape = (width or WIDTHS[name],)
                shape = shape if length is None else (length, *shape)
                file[id] = random.normal(size=shape).astype(dtype)
        return MemberFile(name, path)

    return write


PROTEINS = {"p": 4, "q": 2, "r": 7}


def test_proteins_are_matched_by_id_in_the_order_of_the_first(write):
    files = write("A", PROTEINS), write("B", {id: PROTEINS[id] for id in "rpq"})
    with MemberReaders(files) as readers:
        matched = readers.match()
        ids = [[readers.readers[k].ids[i] for i in row] for k, row in enumerate(matched.positions)]
        assert ids[0] == list(readers.readers[0].ids)
        assert ids[1] == ids[0]
        assert matched.lengths.tolist() == [PROTEINS[id] for id in ids[0]]
        assert matched.problems == ()
        assert readers.widths == (3, 5)
        for k in range(2):
            with h5py.File(files[k].path) as file:
                for id, position, length in zip(
                    ids[0], matched.positions[k].tolist(), matched.lengths.tolist(), strict=True
                ):
                    assert np.array_equal(readers.rows(k, position, length), file[id][:])


def test_accessions_match_whole_ids_of_uniprot(tmp_path):
    """UniProt's own files have accessions; those of a FASTA file from there have whole ids."""
    paths = tmp_path / "a.npz", tmp_path / "b.npz"
    np.savez(paths[0], ids=np.array(["P12345", "Q9"]), vectors=np.ones((2, 3), np.float32))
    np.savez(paths[1], ids=np.array(["x", "sp|P12345|N"]), vectors=np.ones((2, 5), np.float32))
    files = member_files({"A": paths[0], "B": paths[1]})
    with MemberReaders(files, "mean") as readers:
        assert readers.match("skip").positions.tolist() == [[0], [1]]
    np.savez(paths[1], ids=np.array(["P12345", "sp|P12345|N"]), vectors=np.ones((2, 5), "f4"))
    with (
        MemberReaders(files, "mean") as readers,
        pytest.raises(InputError, match=r"P12345 and sp\|P12345\|N are one protein by their acc"),
    ):
        readers.match()


def test_what_a_file_lacks_is_named_or_left_out(write, tmp_path):
    files = write("A", {**PROTEINS, "only": 3}), write("B", {**PROTEINS, "q": 3, "more": 2})
    with MemberReaders(files) as readers:
        with pytest.raises(InputError) as error:
            readers.match()
        said = str(error.value)
        assert "3 protein(s) cannot be used" in said
        assert f"(only): not in {files[1].path}" in said
        assert f"(q): 3 residues in {files[1].path}, 2 in {files[0].path}" in said
        assert f"(more): of {files[1].path}: not in {files[0].path}" in said
        assert "on_invalid=skip" in said
        matched = readers.match("skip")
        assert [readers.readers[0].ids[i] for i in matched.positions[0]] == ["p", "r"]
    matched.write_problems(tmp_path / "skipped.tsv")
    lines = (tmp_path / "skipped.tsv").read_text().splitlines()
    assert lines[0] == "record\tline\tid\tproblem"
    assert {line.split("\t")[2] for line in lines[1:]} == {"only", "q", "more"}


def test_more_than_ten_problems_are_cut(write):
    files = write("A", {f"p{i}": 2 for i in range(12)}), write("B", {"p0": 2})
    with MemberReaders(files) as readers, pytest.raises(InputError) as error:
        readers.match()
    assert str(error.value).count("not in") == 10
    assert "11 protein(s)" in str(error.value) and "; ..." in str(error.value)


def test_nothing_in_common_is_said_with_ids(write):
    files = write("A", {"p": 2}), write("B", {"q": 2})
    with MemberReaders(files) as readers, pytest.raises(InputError, match="no protein is in all"):
        readers.match("skip")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "lists a name and a path for each member"),
        ("a.h5", "lists a name and a path for each member"),
        (["a.h5"], "lists a name and a path for each member"),
        ([{"name": "A"}], "lists a name and a path for each member"),
        ([{"name": "A", "path": "A.h5", "dtype": 1}], "lists a name and a path"),
        ({"A": "none.h5"}, "embeddings: none.h5 of A: no such file"),
        ([{"name": "A", "path": "A.h5"}, {"name": "A", "path": "B.h5"}], "A is the name of both"),
        ({"A": "A.h5", "B": "./A.h5"}, "is given for both A and B"),
    ],
)
def test_bad_settings_are_a_line(given, message, write, tmp_path, monkeypatch):
    write("A", PROTEINS), write("B", PROTEINS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        member_files(given)


def test_names_may_be_numbers_as_yaml_has_them(write):
    file = write("A", PROTEINS)
    assert member_files([{"name": 650, "path": str(file.path)}])[0].name == "650"


def test_files_of_means_and_of_other_numbers_are_refused(write, tmp_path):
    means = write("A", dict.fromkeys(PROTEINS))
    with pytest.raises(InputError, match="holds mean vectors, and embeddings of residues are need"):
        MemberReaders([means, write("B", PROTEINS)])
    with MemberReaders([means, write("B", dict.fromkeys(PROTEINS))], "mean") as readers:
        assert not readers.by_residue and readers.match().lengths is None
        positions = np.array([2, 0, 1])
        with h5py.File(means.path) as file:
            expected = np.stack([file[readers.readers[0].ids[i]][:] for i in positions])
        assert np.array_equal(readers.means(0, positions), expected)
    whole = write("A", PROTEINS, dtype="int32")
    with pytest.raises(InputError, match="int32"):
        MemberReaders([whole, write("B", PROTEINS)])


def test_a_file_of_both_kinds_and_one_of_residues_are_read_by_residue(write):
    files = write("A", PROTEINS), write("B", PROTEINS)
    with MemberReaders(files, "mean") as readers:
        assert readers.by_residue


def test_the_digest_is_of_the_numbers(write):
    files = write("A", PROTEINS), write("B", PROTEINS)
    with MemberReaders(files) as readers:
        before = [readers.digest(k, row) for k, row in enumerate(readers.match().positions)]
    with h5py.File(files[1].path, "r+") as file:
        file["q"][0, 0] += 1
    with MemberReaders(files) as readers:
        after = [readers.digest(k, row) for k, row in enumerate(readers.match().positions)]
    assert before[0] == after[0] and before[1] != after[1]
