"""The table of a fit's stages, as wide terminals and narrow ones show it."""

import dataclasses
import io

import pytest

from rd_lightning import JointMoments, fit_chain
from rd_lightning.display.console import plain_console
from rd_lightning.fitting.summary import print_report

from ..conftest import family_rows

NAMES = ("150M", "650M", "3B", "15B")
EXPLAINED = "weakest / noise: close to 1, the last component kept is hardly above the noise"


@pytest.fixture(scope="module")
def moments():
    dims = (8, 16, 24, 40)
    return JointMoments(dims).update(family_rows(300, dims, 0))


def shown(report, width: int) -> list[str]:
    console = plain_console()
    console.file, console.width = io.StringIO(), width
    print_report(console, report)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 100, 120])
def test_it_fits_with_its_words_whole(moments, width):
    report = fit_chain(moments, names=NAMES).report
    stages = [
        dataclasses.replace(s, num_components=1280, num_inputs=2560, rank=2560, r2_heldout=0.5)
        for s in report.stages
    ]
    lines = shown(dataclasses.replace(report, stages=tuple(stages)), width)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for words in ("components", "weakest", "/ noise", "held-out", "residual kept", "150M -> 650M"):
        assert words in text
    assert "1280 / 2560" in text
    assert EXPLAINED in lines


def test_the_noise_is_explained_where_the_rule_found_it(moments):
    assert EXPLAINED in shown(fit_chain(moments, names=NAMES).report, 80)
    by_number = fit_chain(moments, names=NAMES, num_components=4).report
    assert EXPLAINED not in shown(by_number, 80)
