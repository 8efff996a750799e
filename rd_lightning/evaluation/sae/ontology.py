"""Terms in a directed acyclic graph, as those of the Gene Ontology: ancestors, depths, paths."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from itertools import combinations
from pathlib import Path

import networkx as nx
import numpy as np

from ...errors import InputError, reason


class TermGraph:
    """Terms and their parents (is_a).

    A graph may have several roots, as the Gene Ontology has three. For paths and depths they hang
    from one common node above them, so that any two terms have a common ancestor.

    Args:
        parents: by term; of roots, none.
        names: by term, to be read; a term without one is called by its id.
        alternatives: other ids of terms.

    Raises:
        InputError: a parent is no term, or the graph has a circle.

    Examples:
        >>> graph = TermGraph({"root": [], "a": ["root"], "b": ["root"], "c": ["a"]})
        >>> graph.depth("c"), graph.distance("b", "c"), graph.depth(graph.lowest_common(["b", "c"]))
        (2, 3, 0)
    """

    TOP = ""
    """The node above the roots; its depth is -1."""

    def __init__(
        self,
        parents: Mapping[str, Collection[str]],
        names: Mapping[str, str] | None = None,
        alternatives: Mapping[str, str] | None = None,
    ) -> None:
        self.names, self._alternatives = dict(names or {}), dict(alternatives or {})
        self._graph = nx.DiGraph()  # edges from a term to its parents
        self._graph.add_nodes_from(parents)
        for term, above in parents.items():
            for parent in above:
                if parent not in parents:
                    raise InputError(f"{term} has the parent {parent}, which is no term")
            self._graph.add_edges_from((term, parent) for parent in above or [self.TOP])
        if not nx.is_directed_acyclic_graph(self._graph):
            circle = [edge[0] for edge in nx.find_cycle(self._graph)]
            raise InputError(f"the terms {', '.join(circle[:5])} are above each other in a circle")
        self._up: dict[str, dict[str, int]] = {}

    def __contains__(self, term: str) -> bool:
        return term in self._alternatives or (term in self._graph and term != self.TOP)

    def __len__(self) -> int:
        return len(self._graph) - (self.TOP in self._graph)

    def main(self, term: str) -> str:
        """The term's own id, where this is another one of it."""
        return self._alternatives.get(term, term)

    def name(self, term: str) -> str:
        return self.names.get(self.main(term), term)

    def ancestors(self, term: str) -> set[str]:
        """All above it, and itself."""
        return self._steps_up(term).keys() - {self.TOP}

    def depth(self, term: str) -> int:
        """Edges on the longest way down from a root, which has 0; -1 of :attr:`TOP`."""
        return self._depths[self.main(term)] - 1

    def distance(self, one: str, other: str) -> int:
        """Edges on the shortest path through a common ancestor."""
        up, also = self._steps_up(one), self._steps_up(other)
        return min(up[c] + also[c] for c in up.keys() & also.keys())

    def lowest_common(self, terms: Iterable[str]) -> str:
        """The deepest term that is, or is above, each of them; :attr:`TOP` where they are under
        different roots. Of several, the first by id.

        Raises:
            InputError: no terms are given.
        """
        above = [self._steps_up(term).keys() for term in terms]
        if not above:
            raise InputError("a lowest common ancestor is of one term or more; none is given")
        common = set.intersection(*map(set, above))
        return max(sorted(common), key=lambda term: self._depths[term])

    def most_specific(self, terms: Collection[str]) -> list[str]:
        """Without those that are above another one of them, sorted."""
        main = {self.main(term) for term in terms}
        above = {a for term in main for a in self.ancestors(term) - {term}}
        return sorted(main - above)

    def mean_distance(self, terms: Collection[str]) -> float:
        """Over all pairs; 0 of a single term."""
        pairs = [self.distance(*pair) for pair in combinations(terms, 2)]
        return float(np.mean(pairs)) if pairs else 0.0

    @cached_property
    def _depths(self) -> dict[str, int]:
        depths: dict[str, int] = {}
        for node in reversed(list(nx.topological_sort(self._graph))):
            depths[node] = 1 + max((depths[p] for p in self._graph.successors(node)), default=-1)
        return depths

    def _steps_up(self, term: str) -> dict[str, int]:
        """Fewest edges up to each ancestor."""
        main = self.main(term)
        if main not in self._up:
            if main not in self._graph:
                raise InputError(f"there is no term {term} in the graph")
            self._up[main] = dict(nx.single_source_shortest_path_length(self._graph, main))
        return self._up[main]


def read_obo(path: str | os.PathLike) -> TermGraph:
    """The is_a graph of an OBO file, as https://geneontology.org/docs/download-ontology offers it
    (``go-basic.obo``), without obsolete terms.

    Raises:
        InputError: there is no such file, it is no OBO file or damaged, or goatools is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; download go-basic.obo from geneontology.org and give its path"
        )
    try:
        from goatools.obo_parser import GODag  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "reading an OBO file needs goatools; install it: pip install 'rd-lightning[go]'"
        ) from None
    damaged = f"{path}: not an OBO file, or one cut short"
    try:
        found = GODag(str(path), prt=None)
    except KeyError as error:
        raise InputError(f"{damaged} (a parent {error.args[0]} is no term)") from None
    except (AssertionError, ValueError, IndexError, RecursionError, UnicodeDecodeError) as error:
        raise InputError(f"{damaged} ({reason(error)})") from error
    if not found:
        raise InputError(f"{damaged} (it has no terms)")
    terms = {term.item_id: term for term in found.values()}
    return TermGraph(
        {key: [parent.item_id for parent in term.parents] for key, term in terms.items()},
        {key: term.name for key, term in terms.items()},
        {key: term.item_id for key, term in found.items() if key != term.item_id},
    )
