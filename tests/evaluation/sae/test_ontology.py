"""A graph of seven terms of which every path is known; OBO files, whole and damaged."""

import builtins

import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.sae.ontology import TermGraph, read_obo

#       r          s
#      / \         |
#     a   b        t
#    /  \/
#   c   d
PARENTS = {"r": [], "s": [], "a": ["r"], "b": ["r"], "c": ["a"], "d": ["a", "b"], "t": ["s"]}
OBO = """format-version: 1.2
data-version: releases/2024-01-01
ontology: go

[Term]
id: GO:0000001
name: process
namespace: biological_process

[Term]
id: GO:0000002
name: transport
namespace: biological_process
alt_id: GO:0000009
is_a: GO:0000001 ! process

[Term]
id: GO:0000003
name: gone
namespace: biological_process
is_obsolete: true

[Term]
id: GO:0000004
name: ion transport
namespace: biological_process
is_a: GO:0000002 ! transport
"""


@pytest.fixture
def graph() -> TermGraph:
    return TermGraph(PARENTS)


def test_depths_are_the_longest_ways(graph):
    assert {t: graph.depth(t) for t in "rsabtcd"} == {
        **dict.fromkeys("rs", 0),
        **dict.fromkeys("abt", 1),
        **dict.fromkeys("cd", 2),
    }
    longer = TermGraph({"r": [], "a": ["r"], "b": ["a", "r"]})
    assert longer.depth("b") == 2
    assert graph.depth(TermGraph.TOP) == -1
    assert len(graph) == 7


def test_ancestors_are_all_above_and_itself(graph):
    assert graph.ancestors("d") == {"d", "a", "b", "r"}
    assert graph.ancestors("s") == {"s"}


@pytest.mark.parametrize(
    ("one", "other", "edges"),
    [
        ("a", "a", 0),
        ("a", "c", 1),
        ("c", "d", 2),
        ("a", "b", 2),  # through r: their common child d is no ancestor
        ("c", "b", 3),
        ("c", "t", 5),  # c-a-r-(top)-s-t
    ],
)
def test_distance_is_through_a_common_ancestor(graph, one, other, edges):
    assert graph.distance(one, other) == graph.distance(other, one) == edges


@pytest.mark.parametrize(
    ("terms", "lowest"),
    [("c", "c"), ("cd", "a"), ("bd", "b"), ("cb", "r"), ("cdb", "r"), ("ct", TermGraph.TOP)],
)
def test_lowest_common_ancestor(graph, terms, lowest):
    assert graph.lowest_common(terms) == lowest


def test_most_specific_are_not_above_another_one(graph):
    assert graph.most_specific(["r", "a", "b", "c"]) == ["b", "c"]
    assert graph.most_specific(["r", "a", "b", "c", "d"]) == ["c", "d"]


def test_mean_distance_is_over_pairs(graph):
    assert graph.mean_distance(["c", "d", "b"]) == pytest.approx((2 + 3 + 1) / 3)
    assert graph.mean_distance(["c"]) == 0


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ({"a": ["x"]}, "a has the parent x, which is no term"),
        ({"a": ["b"], "b": ["a"]}, "the terms .* are above each other in a circle"),
    ],
)
def test_graphs_that_cannot_be(parents, message):
    with pytest.raises(InputError, match=message):
        TermGraph(parents)


def test_terms_that_are_not_there(graph):
    with pytest.raises(InputError, match="there is no term x in the graph"):
        graph.ancestors("x")
    with pytest.raises(InputError, match="one term or more; none is given"):
        graph.lowest_common([])
    assert "x" not in graph and TermGraph.TOP not in graph


def test_an_obo_file(tmp_path):
    pytest.importorskip("goatools", reason="the extra go is not installed")
    path = tmp_path / "go.obo"
    path.write_text(OBO)
    graph = read_obo(path)
    assert len(graph) == 3 and "GO:0000003" not in graph
    assert graph.name("GO:0000004") == "ion transport"
    assert graph.depth("GO:0000004") == 2
    assert graph.main("GO:0000009") == "GO:0000002" and graph.name("GO:0000009") == "transport"
    assert graph.ancestors("GO:0000009") == {"GO:0000001", "GO:0000002"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello\n", "not an OBO file, or one cut short .it has no terms"),
        ("", "not an OBO file, or one cut short .it has no terms"),
        (OBO.replace("GO:0000001 !", "GO:7 !"), r"cut short \(a parent GO:7 is no term\)"),
        (OBO.replace("name: transport\n", "name: a\nname: b\n"), "not an OBO file"),
    ],
)
def test_obo_files_that_are_damaged(tmp_path, text, message):
    pytest.importorskip("goatools", reason="the extra go is not installed")
    path = tmp_path / "go.obo"
    path.write_text(text)
    with pytest.raises(InputError, match=f"go.obo: .*{message}"):
        read_obo(path)


def test_an_obo_file_that_is_missing(tmp_path):
    with pytest.raises(InputError, match="x.obo: no such file; download go-basic.obo from"):
        read_obo(tmp_path / "x.obo")


def test_goatools_that_is_missing(tmp_path, monkeypatch):
    path = tmp_path / "go.obo"
    path.write_text(OBO)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("goatools"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"needs goatools; install it: pip install 'rd-light.*go"):
        read_obo(path)
