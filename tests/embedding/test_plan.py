"""Every sequence in exactly one batch; windows that cover every residue."""

import itertools

import numpy as np
import pytest

from rd_lightning.data.windows import overlapping_windows
from rd_lightning.embedding.plan import EmbedPlan, EmbedSettings

SEEDS = (0, 1, 2)


@pytest.mark.parametrize("seed", SEEDS)
def test_windows_cover_and_share(seed):
    generator = np.random.default_rng(seed)
    for _ in range(200):
        limit = int(generator.integers(2, 50))
        overlap = int(generator.integers(0, limit))
        length = int(generator.integers(1, 400))
        windows = overlapping_windows(length, limit, overlap)
        assert windows[0][0] == 0
        assert sum(windows[-1]) == length
        assert all(size == min(limit, length) for _, size in windows)
        for (a, size), (b, _) in itertools.pairwise(windows):
            assert a < b
            assert a + size - b >= overlap
        # The fewest: one window less cannot reach the end.
        fewer = len(windows) - 1
        assert fewer == 0 or limit + (fewer - 1) * (limit - overlap) < length


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("long", ["window", "whole", "skip", "truncate"])
def test_every_sequence_once(seed, long):
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 300, 200).astype(np.int32)
    settings = EmbedSettings(500, max_residues=100, long=long, overlap=10)
    plan = EmbedPlan(lengths, settings)
    found = [i for b in range(len(plan)) for i in plan.sequences(b)]
    expected = np.flatnonzero(lengths <= 100) if long == "skip" else np.arange(200)
    assert sorted(found) == expected.tolist()
    residues = np.minimum(lengths, 100) if long == "truncate" else lengths
    assert plan.residues_by_batch().sum() == residues[expected].sum()
    longest = []
    for b in range(len(plan)):
        windows = [w for i in plan.sequences(b) for w in plan.windows(i)]
        longest.append(max(size for _, size in windows))
        tokens = len(windows) * (longest[-1] + 2)
        assert tokens <= 500 or len(plan.sequences(b)) == 1
    assert longest == sorted(longest, reverse=True)
