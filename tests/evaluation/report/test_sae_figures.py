"""Bars of the measures: a panel each, heights and intervals as in the table."""

import math

import pandas as pd
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.report import sae_figures
from rd_lightning.evaluation.report.sae_figures import save_measures_picture

NAMES = {"alive": "features active", "terms": "terms enriched", "generality": "depth"}
COLUMNS = ["representation", "width", "annotation", "labels", "measure", "mean", "low", "high"]


def summary(generality: float = math.nan) -> pd.DataFrame:
    rows = []
    for name, shift in (("raw", 0.0), ("rd", 1.0), ("other", 2.0)):
        rows.append((name, 8, "", "given", "alive", 10 + shift, 9 + shift, 11 + shift))
        rows.append((name, 8, "go", "given", "terms", 4 + shift, 3 + shift, 5 + shift))
        rows.append((name, 8, "go", "permuted", "terms", 0.0, math.nan, math.nan))
        rows.append((name, 8, "go", "given", "generality", generality, math.nan, math.nan))
    return pd.DataFrame(rows, columns=COLUMNS)


def drawn(table: pd.DataFrame):
    return sae_figures._figure(table, NAMES, ("alive",))


def test_a_panel_a_measure_that_is_defined():
    titles = [axes.get_title() for axes in drawn(summary()).axes]
    assert titles == ["features active", "terms enriched"]
    titles = [axes.get_title() for axes in drawn(summary(2.0)).axes]
    assert titles == ["features active", "terms enriched", "depth"]


def test_bars_and_intervals_are_those_of_the_table():
    alive, terms = drawn(summary()).axes
    assert [bar.get_height() for bar in alive.patches] == [10, 11, 12]
    assert [bar.get_height() for bar in terms.patches] == [4, 0, 5, 0, 6, 0]
    ends = [[y for _, y in segment] for c in terms.collections for segment in c.get_segments()]
    assert ends == [[3, 5], [4, 6], [5, 7]]
    labels = [text.get_text() for text in terms.get_xticklabels()]
    assert labels == ["raw\n(8)", "rd\n(8)", "other\n(8)"]
    assert [t.get_text() for t in terms.texts] == ["0"] * 3
    left, right = terms.patches[:2]
    assert left.get_x() + left.get_width() <= right.get_x() and right.get_alpha() < 1
    assert len({bar.get_facecolor()[:3] for bar in alive.patches}) == 3


def test_a_measure_that_one_representation_lacks():
    table = summary(2.0)
    table.loc[(table["representation"] == "raw") & (table["measure"] == "generality"), "mean"] = (
        math.nan
    )
    depth = drawn(table).axes[-1]
    assert [t.get_text() for t in depth.texts] == ["-"]


def test_an_axis_begins_at_zero_unless_a_mean_is_below():
    table = summary()
    table.loc[table["measure"] == "terms", "low"] = -5.0
    assert drawn(table).axes[1].get_ylim()[0] == 0
    assert drawn(summary(-1.0)).axes[-1].get_ylim()[0] < -1


def test_a_file(tmp_path):
    save_measures_picture(summary(), tmp_path / "x.png", names=NAMES, whole=("alive",))
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_nothing_to_draw(tmp_path):
    table = summary().assign(mean=math.nan)
    with pytest.raises(InputError, match="no measure of the autoencoders is defined"):
        save_measures_picture(table, tmp_path / "x.png", names=NAMES, whole=("alive",))
    assert not list(tmp_path.iterdir())
