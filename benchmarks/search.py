"""What a prefix costs in search: hits of MMseqs2 that are found, by width and by shortlist.

    python -m benchmarks.search WORK [--picture docs/pictures/search.png]

WORK keeps what is made once: a head of ``mini`` fitted on 1,500 of the targets, embeddings, hits of
MMseqs2. Targets and queries are MMseqs2's own example data (Debian's package mmseqs2), or those of
``--targets`` and ``--queries``. Embedding 20,000 proteins takes a quarter of an hour on one core.

A target counts as found when it is among the first n by score and MMseqs2 aligns it to the query
with an E-value below 1e-3; a query's own record is left out of both. The recall of a query is what
is found of the hits, divided by n or the number of hits, whichever is less; its mean is over the
queries that have a hit.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, diags

from rd_lightning import RDHead
from rd_lightning.data.fasta import clean, read_records
from rd_lightning.embedding.nested_model import NestedModel
from rd_lightning.families import MINI, register_family
from rd_lightning.formats import accession, open_vectors
from rd_lightning.retrieval import ArrayReader, PreparedIndex, build_index, search

from .timing import machine

EXAMPLE = Path("/usr/share/doc/mmseqs2/example-data")
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
FIRST = (10, 100)
SUBSET = 4000


def command(*words: object) -> None:
    """Run one of ours, or any other program, showing what it prints."""
    name, *others = map(str, words)
    ours = name.startswith("rd-")
    module = f"rd_lightning.{name.removeprefix('rd-')}"
    subprocess.run([sys.executable, "-m", module, *others] if ours else [name, *others], check=True)


def make(work: Path, targets: Path, queries: Path) -> None:
    """What WORK keeps, where it is not there."""
    work.mkdir(parents=True, exist_ok=True)
    head = work / "fit/head"
    if not head.exists():
        command("rd-fit", f"fasta={targets}", "num_sequences=1500", f"out={work}/fit")
    for name, fasta in (("query", queries), ("db", targets)):
        if not (out := work / f"{name}.npy").exists():
            command("rd-embed", f"head={head}", f"fasta={fasta}", f"out={out}", "format=npy")
    if not (work / "hits.m8").exists():
        started = time.perf_counter()
        words = ("-e", "1e-3", "-s", "7.5", "--max-seqs", "1000", "--threads", "1", "-v", "1")
        temporary = work / "mmseqs"
        command("mmseqs", "easy-search", queries, targets, work / "hits.part", temporary, *words)
        print(f"MMseqs2, one thread: {time.perf_counter() - started:.0f} s")
        (work / "hits.part").rename(work / "hits.m8")


def read_hits(path: Path, queries: Sequence[str], targets: Sequence[str]) -> list[np.ndarray]:
    """Of each query, numbers of the targets that MMseqs2 found, without the query's own."""
    place = {accession(id): number for number, id in enumerate(targets)}
    found: dict[str, set[int]] = defaultdict(set)
    for line in path.read_text().splitlines():
        query, target = line.split("\t")[:2]
        if query != target and target in place:
            found[query].add(place[target])
    return [np.array(sorted(found[accession(id)]), np.int64) for id in queries]


def recall(records: np.ndarray, hits: Sequence[np.ndarray], first: int) -> float:
    """Mean over the queries with a hit; ``records`` are (queries, at least ``first``)."""
    shares = [
        len(np.intersect1d(row[:first], known)) / min(first, len(known))
        for row, known in zip(records, hits, strict=True)
        if len(known)
    ]
    return float(np.mean(shares))


def largest_alone(head: RDHead, fasta: Path, numbers: Sequence[int], out: Path) -> np.ndarray:
    """(records, width) means of the largest member's own embeddings, kept in a file."""
    if not out.exists():
        members = MINI.members[-1:]
        alone = replace(MINI, name="largest_alone", members=members)
        register_family(alone)
        report = replace(head.report.truncated(1), context={"family": alone.name})
        single = RDHead([members[0].name], [members[0].width], [], report)
        model = NestedModel(alone, single)
        records = [clean(record.letters).sequence.decode() for record in read_records(fasta)]
        found = model.embed([records[n] for n in numbers], pooling="mean")
        np.save(out, found.numpy())
    return np.load(out, allow_pickle=False)


def kmer_counts(fasta: Path, k: int) -> csr_matrix:
    """(records, 20^k) how often each word of k residues is in a sequence; others are left out."""
    values = np.full(256, -1)
    values[np.frombuffer(LETTERS.encode(), np.uint8)] = np.arange(20)
    rows, columns = [], []
    for number, record in enumerate(read_records(fasta)):
        residues = values[np.frombuffer(clean(record.letters).sequence, np.uint8)]
        windows = np.lib.stride_tricks.sliding_window_view(residues, min(k, len(residues)))
        windows = windows[(windows >= 0).all(axis=1)]
        if windows.shape[1] == k:
            columns.append(windows @ 20 ** np.arange(k))
            rows.append(np.full(len(windows), number))
    total = number + 1
    found = csr_matrix(
        (np.ones(sum(map(len, rows))), (np.concatenate(rows), np.concatenate(columns))),
        (total, 20**k),
    )
    found.sum_duplicates()
    return found


def kmer_search(
    queries: csr_matrix, targets: csr_matrix, own: Sequence[int], number: int
) -> np.ndarray:
    """(queries, number) best targets by the cosine of counts."""

    def normalised(counts: csr_matrix) -> csr_matrix:
        norms = np.sqrt(counts.multiply(counts).sum(axis=1)).A1
        return diags(1 / np.maximum(norms, 1e-12)) @ counts

    scores = (normalised(queries) @ normalised(targets).T).toarray()
    for row, record in enumerate(own):
        if record >= 0:
            scores[row, record] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :number]


class Bench:
    """Vectors of queries against indices of the targets, and the truth."""

    def __init__(self, work: Path, targets: Path, queries: Path) -> None:
        self.work, self.fasta = work, {"query": queries, "db": targets}
        with open_vectors(work / "query.npy") as reader:
            self.ids = list(reader.ids)
            self.queries = reader.vectors("mean", 0, len(reader.ids))
        with open_vectors(work / "db.npy") as reader:
            self.targets = list(reader.ids)
        self.hits = read_hits(work / "hits.m8", self.ids, self.targets)
        place = {id: number for number, id in enumerate(self.targets)}
        self.own = [place.get(id, -1) for id in self.ids]

    def index(self, **options: object) -> PreparedIndex:
        with open_vectors(self.work / "db.npy") as reader:
            return build_index(reader, self.work / "index", **options)

    def found(self, index: PreparedIndex, queries: np.ndarray, **options: object) -> np.ndarray:
        options = {"k": 100, "ids": self.ids, "exclude_self": True, **options}
        return search(index, queries, **options).records

    def recalls(self, records: np.ndarray) -> list[float]:
        return [recall(records, self.hits, first) for first in FIRST]

    def row(
        self, name: str, columns: int, records: np.ndarray, seconds: float | None = None
    ) -> str:
        shares = " | ".join(f"{r:.3f}" for r in self.recalls(records))
        took = "" if seconds is None else f"{1000 * seconds / len(self.ids):.2f}"
        return f"| {name} | {columns} | {4 * columns:,} | {shares} | {took} |"


def timed_search(bench: Bench, index: PreparedIndex, **options: object) -> tuple[np.ndarray, float]:
    bench.found(index, bench.queries[:, : index.width], **options)  # files are in memory from here
    started = time.process_time()
    records = bench.found(index, bench.queries[:, : index.width], **options)
    return records, time.process_time() - started


def by_scale(bench: Bench) -> None:
    """Recall of each treatment of the columns, at each level."""
    print("\n| centre | scale | columns | first 10 | first 100 |\n|---|---|---:|---:|---:|")
    for centre in (True, False):
        for scale in ("none", "level", "column"):
            index = bench.index(centre=centre, scale=scale)
            for width in index.dims:
                found = bench.recalls(bench.found(index, bench.queries, width=width))
                shares = " | ".join(f"{r:.3f}" for r in found)
                print(f"| {str(centre).lower()} | {scale} | {width} | {shares} |")


HEADINGS = (
    "| vectors | columns | bytes a protein (float32) | first 10 | first 100 | ms a query |\n"
    "|---|---:|---:|---:|---:|---:|"
)


def by_width(bench: Bench) -> dict[str, list[tuple[int, float]]]:
    """Recall of every width and of the baselines; curves of the first 10."""
    print(f"\n{HEADINGS}")
    index, curves = bench.index(), {"nested": []}
    for width in sorted({*index.dims, 8, 16, 48, 96}):
        records, seconds = timed_search(bench, index, width=width)
        level = dict(zip(index.dims, index.levels, strict=True)).get(width)
        name = f"nested, up to {level}" if level else "nested, within a level"
        print(bench.row(name, width, records, seconds))
        curves["nested"].append((width, bench.recalls(records)[0]))
    for k, name in ((1, "composition"), (2, "pairs of residues"), (3, "3-mers")):
        counts = [kmer_counts(bench.fasta[of], k) for of in ("query", "db")]
        records = kmer_search(*counts, bench.own, max(FIRST))
        print(bench.row(name, 20**k, records))
        curves[name] = [(20**k, bench.recalls(records)[0])]
    return curves


def against_largest_alone(bench: Bench) -> None:
    """Nested and the largest member's own embedding, among some of the targets, drawn at random."""
    some = np.sort(np.random.default_rng(0).choice(len(bench.targets), SUBSET, replace=False))
    hits = [np.flatnonzero(np.isin(some, known)) for known in bench.hits]
    head = RDHead.from_pretrained(bench.work / "fit/head")
    every = range(len(bench.ids))
    with open_vectors(bench.work / "db.npy") as reader:
        nested = reader.vectors("mean", 0, len(bench.targets))[some]
    names = [bench.targets[n] for n in some]
    rows = {"nested": (bench.queries, nested)}
    rows["largest alone"] = (
        largest_alone(head, bench.fasta["query"], every, bench.work / "query_alone.npy"),
        largest_alone(head, bench.fasta["db"], some.tolist(), bench.work / "db_alone.npy"),
    )
    print(f"\namong {SUBSET:,} of the targets, drawn at random")
    print("| vectors | columns | first 10 | first 100 |\n|---|---:|---:|---:|")
    for name, (queries, targets) in rows.items():
        index = build_index(ArrayReader(targets, names), bench.work / "index")
        found = bench.found(index, queries)
        shares = " | ".join(f"{recall(found, hits, first):.3f}" for first in FIRST)
        print(f"| {name} | {index.width} | {shares} |")


def by_shortlist(bench: Bench) -> dict[str, list[tuple[int, float]]]:
    """Recall and time of a shortlist by each smaller level, against all columns."""
    index = bench.index()
    exact, exact_seconds = timed_search(bench, index, k=10)
    print(f"\nall {index.width} columns: {1000 * exact_seconds / len(bench.ids):.2f} ms a query")
    print("\n| prefix | shortlist | hits in the first 10 | exact first 10 found | ms a query |")
    print("|---:|---:|---:|---:|---:|")
    curves: dict[str, list[tuple[int, float]]] = {}
    for width in index.dims[:-1]:
        for shortlist in (10, 30, 100, 200, 500, 1000, 2000, 5000):
            options = {"k": 10, "prefix": width, "shortlist": shortlist}
            records, seconds = timed_search(bench, index, **options)
            found = recall(records, bench.hits, 10)
            kept = recall(records, exact, 10)
            curves.setdefault(f"prefix of {width}", []).append((shortlist, found))
            took = f"{1000 * seconds / len(bench.ids):.2f}"
            print(f"| {width} | {shortlist:,} | {found:.3f} | {kept:.3f} | {took} |")
    curves["all columns"] = [(s, recall(exact, bench.hits, 10)) for s in (10, 5000)]
    return curves


def draw(widths: dict, shortlists: dict, path: Path) -> None:
    from rd_lightning.display.figures import make_panels, save_figure

    titles = ("by width", "by shortlist, ordered by all columns")
    figure, panels = make_panels(titles)
    styles = {"nested": "o-", "all columns": "--"}
    for title, curves, label in (
        (titles[0], widths, "columns"),
        (titles[1], shortlists, "candidates a query"),
    ):
        axes = panels[title]
        for name, points in curves.items():
            axes.plot(
                *zip(*points, strict=True),
                styles.get(name, "^" if len(points) == 1 else "o-"),
                label=name,
            )
        axes.set(xscale="log", xlabel=label, ylim=(0, None))
        axes.set_ylabel("share of MMseqs2's hits in the first 10")
        axes.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--targets", type=Path, default=EXAMPLE / "DB.fasta.gz")
    parser.add_argument("--queries", type=Path, default=EXAMPLE / "QUERY.fasta.gz")
    parser.add_argument("--picture", type=Path, help="file of the curves")
    given = parser.parse_args()
    make(given.work, given.targets, given.queries)
    bench = Bench(given.work, given.targets, given.queries)
    numbers = [len(known) for known in bench.hits if len(known)]
    print(machine())
    print(f"{len(bench.ids):,} queries, {len(bench.targets):,} targets, MMseqs2 at E < 1e-3:")
    print(
        f"{sum(numbers):,} hits of {len(numbers):,} queries, {np.median(numbers):.0f} in the median"
    )
    by_scale(bench)
    widths, shortlists = by_width(bench), by_shortlist(bench)
    against_largest_alone(bench)
    if given.picture:
        draw(widths, shortlists, given.picture)


if __name__ == "__main__":
    main()
