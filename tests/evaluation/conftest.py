"""Small assays of which everything is known."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from rd_lightning.evaluation.assays.folds import random_folds
from rd_lightning.evaluation.assays.splits import Split, splits

from ..conftest import SHARED

PROTEINGYM = SHARED / "proteingym"


def real_assay(name: str) -> Path:
    """A file of ProteinGym; the test skips where it is absent."""
    path = PROTEINGYM / f"{name}.csv"
    if not path.is_file():
        pytest.skip(f"{path} is absent: the real assays are not part of the project")
    return path


def planted(
    num_rows: int, width: int, seed: int, *, noise: float = 0.3, mean: float = 5.0
) -> tuple[torch.Tensor, torch.Tensor, list[Split]]:
    """Rows about a large mean, y linear in them, five random folds."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x = normal(num_rows, width) * torch.linspace(3, 0.1, width, dtype=torch.float64) + mean
    y = (x - mean) @ normal(width) / width**0.5 + noise * normal(num_rows) + 2
    return x, y, splits(random_folds(num_rows, seed=seed))


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows under a header to a file."""

    def write(
        rows: Sequence[Sequence[object]],
        columns: Sequence[str] = ("mutant", "mutated_sequence", "DMS_score", "DMS_score_bin"),
        name: str = "x.csv",
    ) -> Path:
        path = tmp_path / name
        lines = [",".join(columns), *(",".join(map(str, row)) for row in rows)]
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
