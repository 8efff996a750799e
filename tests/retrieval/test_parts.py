"""Blocks of hits come back as they were, and a damaged one is a line."""

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.retrieval.parts import Parts


def parts(folder) -> Parts:
    return Parts(folder, [f"q{i}" for i in range(5)], ["a", "b"], (2, 4), ("S",), 2)


def arrays(queries: int):
    generator = np.random.default_rng(queries)
    return (
        generator.integers(0, 2, (queries, 3)),
        generator.normal(size=(queries, 3, 2)),
        generator.integers(1, 9, (queries, 3, 2)).astype(np.int32),
    )


def test_there_and_back(tmp_path):
    found = parts(tmp_path)
    assert [found.bounds(i) for i in range(len(found))] == [(0, 2), (2, 4), (4, 5)]
    written = [arrays(end - begin) for begin, end in map(found.bounds, range(3))]
    for number, block in enumerate(written):
        assert not found.is_done(number)
        found.write(number, *block)
        assert found.is_done(number)
    results = list(parts(tmp_path).results())
    assert [list(r.queries) for r in results] == [["q0", "q1"], ["q2", "q3"], ["q4"]]
    for result, block in zip(results, written, strict=True):
        for one, other in zip((result.records, result.scores, result.ranks), block, strict=True):
            np.testing.assert_array_equal(one, other)


def test_damaged(tmp_path):
    found = parts(tmp_path)
    found.write(0, *arrays(1))
    with pytest.raises(InputError, match=r"block-000000.safetensors: damaged; remove .* again"):
        found.read(0)
    (tmp_path / "block-000001.safetensors").write_bytes(b"cut")
    with pytest.raises(InputError, match="not a safetensors file, or one cut short"):
        found.read(1)
