"""One analysis for all tests that read it."""

import pytest

from rd_lightning.evaluation.sae.analysis import analyse
from rd_lightning.evaluation.sae.result import SAEResult
from rd_lightning.evaluation.sae.stream import Mapped

from .fakes import identity
from .test_analysis import WIDTH, case


@pytest.fixture(scope="session")
def result() -> SAEResult:
    maps = {"raw": identity(WIDTH), "rd": Mapped(identity(WIDTH).map, 5, inner=2)}
    return analyse(*case(**maps))
