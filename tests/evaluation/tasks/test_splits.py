"""Splits of tasks: as shipped, or folds of whole clusters."""

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.tasks import splits as module
from rd_lightning.evaluation.tasks.splits import folds_of, splits_of
from rd_lightning.evaluation.tasks.task import TEST, TRAIN, VALIDATION

from ...conftest import random_sequences
from .conftest import protein_task


@pytest.fixture(autouse=True)
def _equal_sequences_are_clusters(monkeypatch):
    """In the place of MMseqs2, for known clusters."""

    def clusters(sequences, identity):
        first: dict[str, int] = {}
        ids = [first.setdefault(sequence, len(first)) for sequence in sequences]
        return np.array(ids, dtype=np.int64), f"{len(first)} clusters at {identity}"

    monkeypatch.setattr(module, "clusters_of", clusters)


def clustered(sizes: list[int], parts: list[int] | None = None):
    """A task whose clusters of equal sequences have these sizes; classes alternate."""
    distinct = list(dict.fromkeys(random_sequences(4 * len(sizes), 0)))
    sequences = [distinct[i] for i, size in enumerate(sizes) for _ in range(size)]
    return protein_task(sequences, [i % 2 for i in range(len(sequences))], parts)


def indices(split) -> list[list[int]]:
    return [part.tolist() for part in (split.train, split.validation, split.test)]


@pytest.mark.parametrize("num_folds", [2, 3, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_folds_divide_no_cluster_and_test_each_protein_once(num_folds, seed):
    task = clustered([1, 5, 2, 2, 7, 1, 1, 3, 1, 4, 1, 1])
    splits, said = splits_of(task, num_folds=num_folds, seed=seed, identity=0.4)
    assert len(splits) == num_folds
    clusters = task.clusters()
    for split in splits:
        parts = indices(split)
        assert sorted(i for part in parts for i in part) == list(range(len(task)))
        assert all(parts) and all(part == sorted(part) for part in parts)
        held = [set(clusters[part].tolist()) for part in parts]
        assert not (held[0] & held[1] or held[0] & held[2] or held[1] & held[2])
    tested = np.concatenate([split.test for split in splits])
    assert sorted(tested.tolist()) == list(range(len(task)))
    assert said.startswith(f"no split is shipped: {num_folds} folds over 12 clusters at 0.4;")
    if num_folds > 2:
        following = [*splits[1:], splits[0]]
        assert all(
            one.validation.tolist() == two.test.tolist()
            for one, two in zip(splits, following, strict=True)
        )


def test_folds_go_by_their_seed():
    task = clustered([1, 2] * 10)
    first, again, other = (splits_of(task, seed=seed)[0][0].test.tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("seed", range(5))
def test_folds_differ_by_no_more_than_the_largest_cluster(seed):
    generator = np.random.default_rng(seed)
    sizes = generator.geometric(0.3, size=30)
    ids = np.repeat(np.arange(30), sizes)
    counts = np.bincount(folds_of(ids, 4, seed), minlength=4)
    assert counts.max() - counts.min() <= sizes.max() and counts.min() > 0
    # Clusters of one: as even as can be.
    counts = np.bincount(folds_of(np.arange(22), 4, seed))
    assert sorted(counts.tolist()) == [5, 5, 6, 6]


def test_a_shipped_split_is_taken_as_it_is():
    task = clustered([1] * 6, [TRAIN, TEST, TRAIN, VALIDATION, TEST, TRAIN])
    (split,), said = splits_of(task)
    assert split.name == "shipped" and indices(split) == [[0, 2, 5], [3], [1, 4]]
    assert said == "the split is the files' own"


def test_a_sequence_that_trains_and_tests_is_said():
    parts = [TRAIN, TRAIN, TEST, VALIDATION, TEST, TEST]
    task = clustered([1, 2, 2, 1], parts)
    (split,), said = splits_of(task)
    assert indices(split) == [[0, 1], [3], [2, 4, 5]]
    assert (
        "2 of 3 test sequences also stand in the training or validation part (such as s2)" in said
    )


def test_without_validation_a_tenth_of_the_training_clusters_validates():
    sizes = [2] * 20 + [1] * 3
    task = clustered(sizes, [TRAIN] * 40 + [TEST] * 3)
    (split,), said = splits_of(task, identity=0.5)
    assert len(split.validation) == 4 and split.test.tolist() == [40, 41, 42]
    clusters = task.clusters()
    assert len(set(clusters[split.validation].tolist())) == 2
    assert not set(clusters[split.validation].tolist()) & set(clusters[split.train].tolist())
    assert "no validation part: a tenth of the training clusters, 4 proteins, is taken" in said
    assert "20 clusters at 0.5" in said
    other = splits_of(task, seed=1)[0][0]
    assert other.validation.tolist() != split.validation.tolist()


def test_what_cannot_be_split_is_said():
    with pytest.raises(
        InputError, match="^task: 4 clusters of similar sequences for 5 folds and a"
    ):
        splits_of(clustered([2, 2, 2, 2]))
    with pytest.raises(InputError, match="^task: 2 clusters of similar sequences for 2 folds"):
        splits_of(clustered([2, 2]), num_folds=2)
    with pytest.raises(InputError, match="^num_folds is a whole number of at least 2, not 1"):
        splits_of(clustered([1] * 9), num_folds=1)
    with pytest.raises(InputError, match="^task: the training proteins are one cluster"):
        splits_of(clustered([3, 1], [TRAIN] * 3 + [TEST]))
    task = protein_task(random_sequences(9, 3), [1] + [0] * 8)
    with pytest.raises(InputError, match=r"^task: fold \d: the training targets are all alike"):
        splits_of(task, num_folds=3)
