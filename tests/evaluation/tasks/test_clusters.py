"""Similar sequences are found to be one cluster, by MMseqs2 and by ourselves."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.tasks import clusters as module
from rd_lightning.evaluation.tasks.clusters import Method, clusters_of

from ...conftest import torch_threads

LETTERS = "LAGVSERTIDPKQNFYMHWC"
METHODS = [
    "kmer",
    pytest.param(
        "mmseqs",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(shutil.which("mmseqs") is None, reason="no mmseqs on the PATH"),
        ],
    ),
]


def families(number: int, members: int, identity: float, *, length: int = 200) -> list[str]:
    """Random proteins, each with mutants that keep a share of its residues; member by member, so
    that a family's sequences do not stand together."""
    generator = np.random.default_rng(0)
    found = []
    first = generator.integers(20, size=(number, length))
    for member in range(members):
        rows = first.copy()
        if member:
            changed = generator.random(rows.shape) > identity
            rows[changed] = (rows[changed] + generator.integers(1, 20, size=changed.sum())) % 20
        found += ["".join(LETTERS[i] for i in row) for row in rows]
    return found


@pytest.mark.parametrize("method", METHODS)
def test_similar_sequences_are_clusters(method: Method):
    """One call for all, as one of MMseqs2 takes seconds of CPU time. Mutants at 60% share
    0.6**4 = 13% of their 4-mers; unrelated sequences 200/20**4 = 0.1%."""
    generator = np.random.default_rng(0)
    # As a file, these alone would be taken for nucleotides.
    gene = "".join("ACGT"[i] for i in generator.integers(4, size=300))
    members = families(13, 3, 0.6)
    whole = members[0]
    others = [whole[:100], whole[:190], whole]  # a half does not cover 80% of both
    others += ["MK", "GGG", "MK", "M", gene, gene[:290]]
    ids, said = clusters_of([*members, *others], method=method)
    assert ids[:39].tolist() == [*range(13)] * 3
    assert ids[39:].tolist() == [13, 0, 0, 14, 15, 14, 16, 17, 17]
    name = {"kmer": "shared 4-mers", "mmseqs": "MMseqs2"}[method]
    assert said.startswith(f"18 clusters by {name} (") and "not installed" not in said


@pytest.mark.parametrize("method", METHODS)
def test_a_higher_identity_parts_families(method: Method):
    """Mutants of 60% are not alike at 90%; those of 97% are (0.97**4 = 89% of their 4-mers, above
    the 0.9**4 = 66% that are asked for). Threads do not matter."""
    sequences = [*families(6, 2, 0.6), *families(12, 2, 0.97)[6:12], *families(12, 2, 0.97)[18:]]
    expected = [*range(18), *range(12, 18)]
    with torch_threads(2):
        ids, _ = clusters_of(sequences, 0.9, method=method)
    assert ids.tolist() == expected
    np.testing.assert_array_equal(clusters_of(sequences, 0.9, method=method)[0], expected)


def test_one_short_sequence_is_a_cluster():
    ids, said = clusters_of(["MK", "MK"], method="kmer")
    assert ids.tolist() == [0, 0] and said.startswith("1 cluster by")


def test_blocks_do_not_matter(monkeypatch):
    sequences = families(15, 3, 0.5)
    whole, _ = clusters_of(sequences, method="kmer")
    monkeypatch.setattr(module, "_BLOCK", 4)
    np.testing.assert_array_equal(clusters_of(sequences, method="kmer")[0], whole)


def program(folder: Path, *lines: str) -> None:
    path = folder / "mmseqs"
    path.write_text("\n".join(("#!/bin/sh", *lines)) + "\n")
    path.chmod(0o755)


def test_mmseqs_is_called_and_read(monkeypatch, tmp_path):
    """A stand-in that pairs the first two sequences, and leaves out the third as too short."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    program(tmp_path, f'echo "$@" > {tmp_path}/said', f"cp $2 {tmp_path}/in.fasta",
            r'printf "1\t1\n1\t0\n3\t3\n" > "$3_cluster.tsv"')  # fmt: skip
    with torch_threads(2):
        ids, said = clusters_of(["MKV", "MKA", "W", "MKV", "GGGG"], 0.25)
    assert ids.tolist() == [0, 0, 1, 0, 2]
    assert said == "3 clusters by MMseqs2 (at least 25% identity over 80% of both)"
    assert (tmp_path / "in.fasta").read_text() == ">0\nMKV\n>1\nMKA\n>2\nW\n>3\nGGGG\n"
    words = (tmp_path / "said").read_text().split()
    assert words[0] == "easy-cluster" and not Path(words[1]).exists()
    options = ["--dbtype", "1", "--min-seq-id", "0.25", "-c", "0.8", "--threads", "2", "-v", "1"]
    assert words[4:] == options


def test_without_mmseqs_ours_is_taken_and_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    sequences = families(4, 2, 0.6)
    ids, said = clusters_of(sequences)
    assert ids.tolist() == [0, 1, 2, 3] * 2
    assert said.startswith("4 clusters by shared 4-mers")
    assert said.endswith("for about 30% identity; MMseqs2 is not installed)")
    with pytest.raises(
        InputError, match="^mmseqs is not on the PATH; install MMseqs2 .*method=kmer"
    ):
        clusters_of(sequences, method="mmseqs")
    program(tmp_path, "echo 'no SSE4.1' >&2", "exit 3")
    assert clusters_of(sequences)[1].endswith("; mmseqs failed (status 3: no SSE4.1))")
    with pytest.raises(InputError, match=r"^mmseqs failed \(status 3: no SSE4.1\)"):
        clusters_of(sequences, method="mmseqs")
    program(tmp_path, "exit 0")
    with pytest.raises(InputError, match=r"^mmseqs failed \(.*No such file"):
        clusters_of(sequences, method="mmseqs")


@pytest.mark.parametrize("identity", [0, 1.5, True, float("nan"), -1])
def test_an_identity_is_a_share(identity):
    with pytest.raises(InputError, match="^identity is a share above 0 and up to 1, not"):
        clusters_of(["MK"], identity)
