"""Pictures of energies: what is drawn, where, and how much of it."""

import re

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.energy import mean_energy
from rd_lightning.evaluation.report import energy as module
from rd_lightning.evaluation.report.energy import (
    level_colors,
    save_energy_by_class_picture,
    save_energy_picture,
)


def shares(number: int, levels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).dirichlet([1.0] * levels, number).astype(np.float32)


@pytest.mark.parametrize(("residues", "lines"), [(1, 1), (250, 1), (251, 2), (900, 4), (9000, 8)])
def test_every_residue_is_drawn_once_and_shares_reach_one(residues, lines):
    energies = shares(residues)
    figure = module._protein_figure(energies, ["B", "C", "D"], None, "")
    assert len(figure.axes) == lines
    drawn: list[list[float]] = [[], [], []]
    for axes in figure.axes:
        for k, patch in enumerate(axes.patches):
            values, edges, base = patch.get_data()
            assert np.diff(edges) == pytest.approx(1)
            drawn[k] += (values - base).tolist()
        assert axes.get_ylim() == (0, 1)
    # Cumulated in float32: a unit of the last place below 1 a level.
    assert np.abs(np.array(drawn).T - energies).max() < 3 * 2**-24
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["D", "C", "B"]


def test_letters_are_there_where_they_can_be_read(tmp_path):
    figure = module._protein_figure(shares(30), None, "ACDEFGHIKL" * 3, "$1$")
    ticks = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert [t[0] for t in ticks] == list("ACDEFGHIKL" * 3)
    assert [t[2:] for t in ticks][9::10] == ["10", "20", "30"]
    long = module._protein_figure(shares(101), None, "A" * 101, "")
    assert len(long.axes[0].get_xticklabels()) < 101
    save_energy_picture(shares(30), tmp_path / "a.png", sequence="ACDEFGHIKL" * 3, title="$1$")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_classes_are_drawn_at_their_means_with_their_intervals(tmp_path):
    generator = np.random.default_rng(0)
    pairs = [(shares(40, 2), generator.choice(list("HEC"), 40)) for _ in range(9)]
    table = mean_energy(pairs, ("B", "C"), num_resamples=50)
    figure = module._class_figure(table, "", True)
    last = table[(table["level"] == "C") & (table["class"] != "all")].sort_values("mean")
    names = [t.get_text().split()[0] for t in figure.axes[0].get_yticklabels()]
    assert names == last["class"].tolist(), "by the share of the largest level"
    for axes, level in zip(figure.axes, ("B", "C"), strict=True):
        rows = table[table["level"] == level].set_index("class").loc[names]
        points = axes.lines[1]
        assert np.array(points.get_xdata()) == pytest.approx(rows["mean"].to_numpy())
        ends = np.array([s[:, 0] for s in axes.collections[0].get_segments()])
        assert ends == pytest.approx(rows[["low", "high"]].to_numpy())
        low, high = axes.get_xlim()
        assert high - low >= module.LEAST_SPAN
        assert low < ends.min() and ends.max() < high
    spans = {round(float(np.diff(axes.get_xlim())[0]), 9) for axes in figure.axes}
    assert len(spans) == 1, "one scale for all levels"
    save_energy_by_class_picture(table, tmp_path / "b.png", sort=False)
    assert (tmp_path / "b.png").stat().st_size > 5000


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_colors_differ(number):
    colors = level_colors(number)
    assert len(set(colors)) == number == len(colors)


def test_bad_input(tmp_path):
    for energies, options, said in (
        (shares(3)[0], {}, "energies of one sequence are (residues, levels), not (3,)"),
        (np.zeros((0, 2)), {}, "not (0, 2)"),
        (shares(4), {"levels": ["A"]}, "1 names of levels for energies of shape (4, 3)"),
        (shares(4), {"sequence": "ACD"}, "a sequence of 3 residues for energies of shape (4, 3)"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            save_energy_picture(energies, tmp_path / "c.png", **options)
    alone = mean_energy([(shares(3), np.array(["x"] * 3))], ("B", "C", "D"))
    with pytest.raises(InputError, match="has no class beside that of all residues"):
        save_energy_by_class_picture(alone[alone["class"] == "all"], tmp_path / "d.png")
