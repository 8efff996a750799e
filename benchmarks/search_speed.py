"""Seconds and memory of search: a prefix and its shortlist against all columns, and against others.

    python -m benchmarks.search_speed WORK [--records 20000 1000000]

Vectors are synthetic, of ESM-2's levels up to 650M: families of records share 64 hidden factors of
decaying size, which every column mixes at random, beside noise of its own; so a prefix knows each
factor less exactly than all columns do. Queries are members of the families that the index does
not hold. Nothing of this says how well a prefix of real embeddings serves: ``benchmarks.search``
does. All of it runs in one thread, and seconds are the processor's, on which other processes have
the least influence; files are in WORK.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from rd_lightning.retrieval import ArrayReader, PreparedIndex, build_index, search
from rd_lightning.retrieval.faiss_index import FaissIndex

from .timing import machine

LEVELS, DIMS = ("8M", "35M", "150M", "650M"), (320, 480, 640, 1280)
FACTORS, FAMILY, BLOCK = 64, 50, 20_000
QUERIES = 256
PARTS = 4
"""Into which others' copies of the vectors are divided: each holds the whole in float32."""


def synthetic(path: Path, records: int) -> np.ndarray:
    """The (QUERIES, width) queries; the records are a float16 file, made where it is missing."""
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.arange(1, FACTORS + 1) ** -0.5
    mixing = torch.randn(FACTORS, DIMS[-1], generator=generator) * spectrum[:, None]

    def members(families: torch.Tensor) -> torch.Tensor:
        own = torch.randn(len(families), FACTORS, generator=generator)
        noise = torch.randn(len(families), DIMS[-1], generator=generator)
        return (families + 0.7 * own) @ mixing + 1.5 * noise + 3

    number = max(1, records // FAMILY)
    families = torch.randn(number, FACTORS, generator=generator)
    queries = members(families[torch.randint(number, (QUERIES,), generator=generator)])
    if not path.exists():
        made = np.lib.format.open_memmap(path, "w+", np.float16, (records, DIMS[-1]))
        for start in range(0, records, BLOCK):
            stop = min(start + BLOCK, records)
            which = torch.randint(number, (stop - start,), generator=generator)
            made[start:stop] = members(families[which]).half().numpy()
        made.flush()
    return queries.numpy()


def seconds(call: Callable[[], object], times: int) -> float:
    """The median of some calls, after one that reads the files."""
    call()
    found = []
    for _ in range(times):
        started = time.process_time()
        call()
        found.append(time.process_time() - started)
    return float(np.median(found))


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Peaks of this process in MB: its own memory (anonymous), and with mapped files that are in
    memory (resident), which the system takes back when it needs them."""
    peaks, done = {"RssAnon": 0.0, "VmRSS": 0.0}, threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in peaks:
                    peaks[name] = max(peaks[name], int(value.split()[0]) / 1e3)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()


def kept(records: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact hits that are found."""
    rows = zip(records, exact, strict=True)
    return float(np.mean([len(np.intersect1d(*pair)) for pair in rows])) / exact.shape[1]


def ours(index: PreparedIndex, queries: np.ndarray, times: int) -> np.ndarray:
    full = seconds(lambda: search(index, queries), times)
    exact = search(index, queries).records
    print(f"| all {index.width} columns, exact | 200 | 1.000 | {full:.2f} | |")
    took = seconds(lambda: search(index, queries, shortlist=10), times)
    print(f"| all {index.width} columns, exact | 10 | 1.000 | {took:.2f} | {full / took:.2f}x |")
    for prefix in DIMS[:2]:
        for shortlist in (50, 100, 200, 500, 1000, 2000):
            options = {"prefix": prefix, "shortlist": shortlist}
            share = kept(search(index, queries, **options).records, exact)
            took = seconds(lambda options=options: search(index, queries, **options), times)
            ratio = f"{full / took:.2f}x"
            print(f"| prefix of {prefix} | {shortlist:,} | {share:.3f} | {took:.2f} | {ratio} |")
            if share >= 0.999:
                break
    return exact


def others(index: PreparedIndex, queries: np.ndarray, exact: np.ndarray) -> None:
    """The same centred, scaled, normalised vectors in scikit-learn and FAISS, part after part."""
    import faiss
    from sklearn.neighbors import NearestNeighbors

    scaled = index.scaling.apply(queries)
    unit = (scaled / np.linalg.norm(scaled, axis=1, keepdims=True)).astype(np.float32)
    parts = PARTS if index.num_records > 100_000 else 1
    edges = np.linspace(0, index.num_records, parts + 1, dtype=int)
    took, found = {"scikit-learn": 0.0, "FAISS flat": 0.0}, {"scikit-learn": [], "FAISS flat": []}
    for start, stop in pairwise(edges.tolist()):
        blocks = index.block(start, stop, index.width, torch.device("cpu"))
        rows = torch.nn.functional.normalize(torch.cat(blocks, dim=1)).numpy()
        del blocks
        flat = faiss.IndexFlatIP(index.width)
        flat.add(rows)
        started = time.process_time()
        scores, records = flat.search(unit, 10)
        took["FAISS flat"] += time.process_time() - started
        found["FAISS flat"].append((scores, records + start))
        del flat
        brute = NearestNeighbors(n_neighbors=10, algorithm="brute", metric="cosine").fit(rows)
        started = time.process_time()
        distances, records = brute.kneighbors(unit)
        took["scikit-learn"] += time.process_time() - started
        found["scikit-learn"].append((1 - distances, records + start))
        del brute, rows
    for name, pieces in found.items():
        scores, records = (np.concatenate(p, axis=1) for p in zip(*pieces, strict=True))
        best = np.take_along_axis(records, np.argsort(-scores, axis=1)[:, :10], axis=1)
        share = f"{kept(best, exact):.3f}"
        print(f"| {name}, all {index.width} columns | | {share} | {took[name]:.2f} | |")


def graph(index: PreparedIndex, queries: np.ndarray, exact: np.ndarray) -> None:
    """FAISS's graph over a prefix, ordered by all columns."""
    started = time.process_time()
    made = FaissIndex(index, DIMS[0], "hnsw")
    print(f"\nFAISS's graph over {DIMS[0]} columns made in {time.process_time() - started:.1f} s")
    options = {"prefix": DIMS[0], "shortlist": 200, "faiss": made}
    took = seconds(lambda: search(index, queries, **options), 3)
    share = kept(search(index, queries, **options).records, exact)
    print(f"| FAISS hnsw, prefix of {DIMS[0]} | 200 | {share:.3f} | {took:.2f} | |")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_speed", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--records", type=int, nargs="+", default=[20_000, 1_000_000])
    parser.add_argument("--no-others", action="store_true", help="ours alone")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    if os.environ.get("OMP_NUM_THREADS") != "1":
        parser.error("start it with OMP_NUM_THREADS=1: seconds are those of one thread")
    torch.set_num_threads(1)
    print(machine())
    for records in given.records:
        path = given.work / f"synthetic-{records}.npy"
        queries = synthetic(path, records)
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
        folder = given.work / f"index-{records}"
        print(f"\n{records:,} records of {DIMS[-1]} columns, float16; {QUERIES} queries, 10 hits")
        started = time.process_time()
        with watched() as peaks:
            index = build_index(ArrayReader(vectors, levels=LEVELS, dims=DIMS), folder)
        took = time.process_time() - started
        print(f"prepared in {took:.1f} s, peak {peaks['RssAnon']:,.0f} MB of its own")
        for words, options in (("exact", {}), ("prefix of 320", {"prefix": 320})):
            with watched() as peaks:
                search(index, queries, **options)
            print(
                f"{words}: peak {peaks['RssAnon']:,.0f} MB of its own, {peaks['VmRSS']:,.0f} MB "
                "with the mapped files"
            )
        print("\n| search | shortlist | exact hits found | s | full / this |")
        print("|---|---:|---:|---:|---:|")
        exact = ours(index, queries, 3 if records <= 100_000 else 1)
        if not given.no_others:
            others(index, queries, exact)
            if records <= 100_000:
                graph(index, queries, exact)


if __name__ == "__main__":
    main()
