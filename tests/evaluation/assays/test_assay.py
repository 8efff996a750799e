import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.assays.assay import read_assay, read_assays

from ..conftest import PROTEINGYM, real_assay

GOOD = [
    ("A1C", "CDEF", 1.5, 1),
    ("D2G:F4Y", "AGEY", -2, 0),
    ("E3K", "ADKF", 0.25, 1),
    ("E3K", "ADKF", 0.5, 1),
]


def test_a_file_is_read(csv):
    assay = read_assay(csv(GOOD, name="P.singles.csv"))
    assert assay.name == "P.singles" and len(assay) == 4
    assert assay.wild_type == "ADEF"
    assert assay.positions == [(1,), (2, 4), (3,), (3,)]
    assert assay.depths is not None and assay.depths.tolist() == [1, 2, 1, 1]
    assert assay.scores.dtype == np.float64 and assay.scores.tolist() == [1.5, -2, 0.25, 0.5]
    assert assay.bins is not None and assay.bins.tolist() == [1, 0, 1, 1]
    assert assay.num_duplicates == 1
    assert assay.folds == {} and assay.reference is None and assay.num_silent == 0


def test_depth_is_counted_from_the_sequences(csv):
    """A silent mutation changes nothing: T9L:N23N is the single mutant T9L."""
    rows = [*GOOD, ("A1C:E3E", "CDEF", 1.0, 1), ("F4F", "ADEF", 0.0, 1), ("WT", "ADEF", 0.1, 1)]
    assay = read_assay(csv(rows))
    assert assay.positions is not None and assay.positions[4:] == [(1,), (), ()]
    assert assay.depths is not None and assay.depths.tolist() == [1, 2, 1, 1, 1, 0, 0]
    assert assay.num_silent == 2 and assay.num_duplicates == 3
    assert assay.same.tolist() == [0, 1, 2, 2, 0, 5, 5]
    assert assay.clusters.tolist() == [0, 1, 2, 2, 0, 5, 5]


def test_clusters_are_positions_or_where_none_are_known_sequences(csv):
    rows = [("AC", 1), ("AD", 2), ("CC", 3), ("AC", 4)]
    path = csv(rows, ("mutated_sequence", "DMS_score"))
    assert read_assay(path).clusters.tolist() == [0, 1, 2, 0]
    assert read_assay(path, wild_type="AA").clusters.tolist() == [0, 0, 2, 0]


def test_fold_columns_are_kept(csv):
    columns = ("mutant", "mutated_sequence", "DMS_score", "fold_random_5")
    assay = read_assay(csv([(*row[:3], i % 2) for i, row in enumerate(GOOD)], columns))
    assert assay.bins is None
    assert assay.folds["fold_random_5"].tolist() == [0, 1, 0, 1]


def test_any_csv_with_a_sequence_and_a_number(csv):
    path = csv([("NA", 1), ("nc", 2)], ("protein", "activity"))
    assay = read_assay(path, sequence="protein", score="activity")
    assert assay.sequences == ["NA", "NC"]  # text, not a missing value
    assert assay.mutants is None and assay.positions is None and assay.wild_type is None
    assay = read_assay(path, sequence="protein", score="activity", wild_type="NA")
    assert assay.mutants == ["WT", "A2C"] and assay.positions == [(), (2,)]


def test_the_wild_type_may_stand_among_the_variants(csv):
    assay = read_assay(csv([("WT", "ADEF", 0, 1), *GOOD]))
    assert assay.positions is not None and assay.positions[0] == ()


def test_a_folder_and_the_reference_file(csv, tmp_path):
    csv(GOOD, name="B.singles.csv"), csv(GOOD, name="A.csv")
    reference = tmp_path / "reference.txt"
    reference.write_text("DMS_id,UniProt_ID,coarse_selection_type\nB,B_HUMAN,Binding\n")
    (first, second), problems = read_assays(tmp_path, reference=reference)
    assert problems == {}
    assert (first.name, second.name) == ("A", "B.singles")
    assert first.reference is None
    assert second.reference == ("B_HUMAN", "Binding")


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([*GOOD, ("A1G", "CDEF", 1, 1)], "line 6, mutant A1G: .* holds C at position 1, not G"),
        ([*GOOD, ("G1C", "CDEF", 1, 1)], "line 6, mutant G1C: .* wild type G, where A stands"),
        ([*GOOD, ("A1C", "CDKF", 1, 1)], "line 6, mutant A1C: .*position 3 .* K, where E stands"),
        ([*GOOD, ("F9Y", "ADEY", 1, 1)], "line 6, mutant F9Y: F9Y lies outside .* has 4"),
        ([*GOOD, ("A1C", "CDEFA", 1, 1)], "line 6, mutant A1C: .* 5 residues, the wild type 4"),
        ([*GOOD, ("A1del", "DEF", 1, 1)], "line 6, mutant A1del: not substitutions"),
        ([*GOOD, ("A1C:A1C", "CDEF", 1, 1)], "line 6, mutant A1C:A1C: not substitutions"),
        ([*GOOD, ("A1-", "-DEF", 1, 1)], "line 6: gap '-' at position 1"),
        ([*GOOD, ("A1C", "", 1, 1)], "line 6: the sequence is empty"),
        ([*GOOD, ("A1C", "CDEF", "nan", 1)], "line 6: DMS_score is 'nan', not a finite .*1 such"),
        ([*GOOD, ("A1C", "CDEF", "", 1)], "line 6: DMS_score is ''"),
        ([*GOOD, ("A1C", "CDEF", "inf", 1)], "line 6: DMS_score is 'inf'"),
        ([*GOOD, ("A1C", "CDEF", 1, 2)], "line 6: DMS_score_bin is '2', not 0 or 1"),
        ([(*row[:2], 3, 1) for row in GOOD], "DMS_score is 3 in all 4 rows"),
        ([], "a header and no rows"),
    ],
)
def test_what_cannot_be_used_is_one_line(csv, rows, line):
    path = csv(rows)
    with pytest.raises(InputError, match=line) as caught:
        read_assay(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_the_callers_wild_type_overrules_the_rows(csv):
    with pytest.raises(InputError, match=r"line 2, mutant A1C: .*makes position 2 .* D, where K"):
        read_assay(csv(GOOD), wild_type="AKEF")
    with pytest.raises(InputError, match=r"line 2: .* 2 residues, the wild type 3"):
        read_assay(
            csv([("NA", 1), ("NC", 2)], ("s", "y")), sequence="s", score="y", wild_type="NAA"
        )


def test_all_bad_files_of_a_folder_are_named(csv, tmp_path):
    for name in ("A.csv", "B.csv", "C.csv", "D.csv"):
        csv(GOOD if name in "B.csv D.csv" else [("A1C", "CDEF", "x", 1)], name=name)
    found, problems = read_assays(tmp_path)
    assert [assay.name for assay in found] == ["B", "D"]
    assert list(problems) == ["A", "C"]
    for name, said in problems.items():
        assert said.startswith(f"{tmp_path / name}.csv: DMS_score is 'x'") or "line 2" in said


def test_missing_columns_and_files(csv, tmp_path):
    with pytest.raises(InputError, match=r"no column mutated_sequence, DMS_score \(there: a, b\)"):
        read_assay(csv([(1, 2)], ("a", "b")))
    rows = [("AA", 1, "first"), ("AC", 2, 0)]
    assay = read_assay(csv(rows, ("mutated_sequence", "DMS_score", "fold_x")))
    assert assay.folds == {} and list(assay.unusable) == ["fold_x"]
    assert assay.unusable["fold_x"].endswith("line 2: fold_x is 'first', not a fold")
    with pytest.raises(InputError, match="no such file"):
        read_assay(tmp_path / "nothing.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no CSV file in this folder"):
        read_assays(tmp_path / "empty")
    (tmp_path / "zero.csv").write_text("")
    with pytest.raises(InputError, match="the file is empty"):
        read_assay(tmp_path / "zero.csv")
    (tmp_path / "torn.csv").write_text('mutated_sequence,DMS_score\n"AA,1\nAC,2\n')
    with pytest.raises(InputError, match="not a CSV file"):
        read_assay(tmp_path / "torn.csv")


def test_the_real_assays():
    if not PROTEINGYM.is_dir():
        pytest.skip(f"{PROTEINGYM} is absent: the real assays are not part of the project")
    found, problems = read_assays(PROTEINGYM)
    assays = {assay.name: assay for assay in found}
    assert problems == {} and len(assays) == 5
    blat = assays["BLAT_ECOLX_Stiffler_2015.singles"]
    assert len(blat) == 4996 and blat.wild_type is not None and len(blat.wild_type) == 286
    assert set(blat.folds) == {"fold_random_5", "fold_modulo_5", "fold_contiguous_5"}
    for name, assay in assays.items():
        assert assay.depths is not None and assay.wild_type is not None
        assert assay.depths.max() == (2 if "multiples" in name else 1)


def test_a_real_file_with_one_wrong_letter(tmp_path):
    lines = real_assay("AMFR_HUMAN_Tsuboyama_2023_4G3O.singles").read_text().splitlines()
    fields = lines[100].split(",")
    position = int(fields[0][1:-1])
    fields[1] = fields[1][: position - 1] + "X" + fields[1][position:]
    lines[100] = ",".join(fields)
    (tmp_path / "amfr.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"line 101, mutant {fields[0]}: .* holds X at position"):
        read_assay(tmp_path / "amfr.csv")
