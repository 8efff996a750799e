"""Tables of terms and letters of residues, brought into the order of the proteins."""

import gzip

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.sae.annotations import (
    Proteins,
    ResidueLabels,
    check_lengths,
    protein_terms,
    read_terms,
    residue_labels,
)
from rd_lightning.evaluation.sae.ontology import TermGraph

PROTEINS = Proteins(["p", "q", "r"], ["MKV", "MKVL", "MA"])
GRAPH = TermGraph({"root": [], "a": ["root"], "b": ["a"], "c": ["root"]}, {"a": "name of a"})
GAF = """!gaf-version: 2.2
DB\tp\tS\tenables\tb\tref\tIEA\t\tF\t\t\tprotein\ttaxon:1\t20240101\tX
DB\tq\tS\tNOT|enables\tb\tref\tIEA\t\tF\t\t\tprotein\ttaxon:1\t20240101\tX
DB\tq\tS\tenables\tc\tref\tIEA\t\tF\t\t\tprotein\ttaxon:1\t20240101\tX
"""


def test_terms_are_in_the_order_of_the_proteins():
    found = protein_terms({"q": ["y", "x"], "p": ["x"], "else": ["z"]}, PROTEINS)
    assert found.terms == ["x", "y"] and list(found.names) == ["x", "y"]
    assert [of.tolist() for of in found.of] == [[0], [0, 1], []]
    assert found.known.tolist() == [0, 1]
    assert found.num_proteins.tolist() == [2, 1]
    assert found.num_unmatched == 1


def test_terms_of_a_graph_are_propagated():
    found = protein_terms({"p": ["b"], "q": ["c", "unknown"]}, PROTEINS, graph=GRAPH)
    terms = [{found.terms[i] for i in of} for of in found.of]
    assert terms == [{"b", "a", "root"}, {"c", "root"}, set()]
    assert found.names[found.terms.index("a")] == "name of a"


@pytest.mark.parametrize("name", ["x.tsv", "x.csv", "x.tsv.gz"])
def test_tables(tmp_path, name):
    separator = "," if "csv" in name else "\t"
    rows = [("id", "term", "name"), ("p", "1", "one"), ("q", "2", "two"), ("q", "1", "one")]
    text = "\n".join(separator.join(row) for row in rows) + "\n"
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    found = read_terms(tmp_path / name, PROTEINS)
    assert found.terms == ["1", "2"] and list(found.names) == ["one", "two"]
    assert [of.tolist() for of in found.of] == [[0], [0, 1], []]


def test_gaf_without_what_is_negated(tmp_path):
    (tmp_path / "x.gaf").write_text(GAF)
    found = read_terms(tmp_path / "x.gaf", PROTEINS, graph=GRAPH)
    terms = [{found.terms[i] for i in of} for of in found.of]
    assert terms == [{"b", "a", "root"}, {"c", "root"}, set()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id\tname\np\tx\n", r"x.tsv: no column term \(there: id, name\)"),
        ("", "x.tsv: not a table of ids and terms"),
        ("id\tterm\np\t\n", "x.tsv: no id or no term in row 1 after the header"),
        (
            "id\tterm\nzz\tx\n",
            r"x.tsv: none of the 1 annotated ids is that of a sequence \(annotated: zz; "
            r"sequences: p, q, r\); give one naming to both",
        ),
        ("id\tterm\np\tx\n", r"x.tsv: none of the 1 terms is in the graph \(x\)"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path, text, message):
    (tmp_path / "x.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_terms(tmp_path / "x.tsv", PROTEINS, graph=GRAPH)


def test_a_table_that_is_missing(tmp_path):
    with pytest.raises(InputError, match="x.tsv: no such file; give a table with the columns id"):
        read_terms(tmp_path / "x.tsv", PROTEINS)


def test_letters_of_residues():
    found = residue_labels({"q": "HEH?", "p": "EEE"}, PROTEINS, {"H": "helix", "E": "strand"})
    assert found.terms == ["helix", "strand"]
    assert found.of[0].tolist() == [1, 1, 1] and found.of[1].tolist() == [0, 1, 0, -1]
    assert found.of[2] is None
    assert found.known.tolist() == [0, 1] and found.num_proteins.tolist() == [1, 2]


def test_labels_that_cannot_be_used():
    with pytest.raises(InputError, match="p: 2 labels for 3 residues"):
        residue_labels({"p": "HE"}, PROTEINS, {"H": "helix"})
    with pytest.raises(InputError, match="none of the 1 labelled ids is that of a sequence"):
        residue_labels({"z": "HE"}, PROTEINS, {"H": "helix"})
    for wrong in (np.array([0, 2]), np.array([-2, 0]), np.array([0.0, 1.0])):
        with pytest.raises(InputError, match="protein 1: labels are whole numbers from -1"):
            ResidueLabels(["a", "b"], [None, wrong])
    with pytest.raises(InputError, match="r: 3 labels for 2 residues"):
        check_lengths(ResidueLabels(["a"], [None, None, np.zeros(3, int)]), PROTEINS)


def test_permuted_terms_stay_together():
    generator = np.random.default_rng(0)
    number = 50
    proteins = Proteins([str(i) for i in range(number)], ["M"] * number)
    sets = {str(i): generator.choice(list("abcdef"), 2).tolist() for i in range(40)}
    given = protein_terms(sets, proteins)
    found = given.permuted(1)
    before = [tuple(of) for of in given.of]
    after = [tuple(of) for of in found.of]
    assert sorted(before) == sorted(after) and before != after
    assert all(not len(of) for of in found.of[40:])
    assert after == [tuple(of) for of in given.permuted(1).of]
    assert after != [tuple(of) for of in given.permuted(2).of]


def test_permuted_labels_are_another_proteins_rolled():
    lengths = [30, 50, 20, 40]
    of = [np.full(n, i) for i, n in enumerate(lengths)]
    of[0][:10] = -1
    given = ResidueLabels(list("abcd"), [*of, None])
    found = given.permuted(0)
    assert [len(o) for o in found.of[:4]] == lengths and found.of[4] is None
    drawn = [set(o[o >= 0]).pop() for o in found.of[:4] if o is not None]
    assert sorted(drawn) == [0, 1, 2, 3] and drawn != [0, 1, 2, 3]
    # Runs stay whole: what was one run of one label has two ends at most in a circle.
    own = ResidueLabels(["a", "b"], [np.repeat([0, 1], [10, 30])] * 5).permuted(3)
    assert all(int((np.roll(o, 1) != o).sum()) == 2 for o in own.of if o is not None)
