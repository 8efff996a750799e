"""Pictures: what is drawn where, and that it is a PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.report import angles as angles_file
from rd_lightning.evaluation.report import figures as pictures
from rd_lightning.evaluation.report.angles import save_angles_picture
from rd_lightning.evaluation.report.figures import STYLES, save_scaling_picture, save_width_picture
from rd_lightning.evaluation.report.labels import APART, spread

from ...conftest import SEEDS

LEVELS = {"8M": 320, "35M": 480, "150M": 640}
SCHEMES = ("random", "contiguous")
ASSAYS = ("BLAT_ECOLX_Stiffler_2015", "BLAT_ECOLX_Firnberg_2014", "GFP_AEQVI_Sarkisyan_2016")
COLUMNS = [
    "assay",
    "scheme",
    "representation",
    "level",
    "width",
    "pooling",
    "probe",
    "metric",
    "value",
]


def results(
    seed: int = 0,
    *,
    assays: Sequence[str] = ASSAYS,
    schemes: Sequence[str] = SCHEMES,
    representations: Sequence[str] = tuple(STYLES),
) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    levels = {**LEVELS, "": 400}
    rows = [
        (assay, scheme, name, level, width, pooling, probe, metric, generator.uniform(0, 1))
        for assay in assays
        for scheme in schemes
        for name in representations
        for level, width in ({"": 4000} if name == "one_hot" else levels).items()
        if name != "raw" or level
        for pooling in (("",) if name == "one_hot" else ("mean", "bos"))
        for probe in ("ridge", "mlp")
        for metric in ("spearman", "spearman_folds", "ndcg")
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def angles(seed: int = 0, *, kinds: Sequence[str] = ("subset", "bootstrap")) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    draws = [("subset", share, draw) for share in (0.1, 0.3) for draw in range(5)]
    draws += [("subset", 1.0, 0), *(("bootstrap", 1.0, draw) for draw in range(10))]
    rows = []
    for kind, share, draw in draws:
        for stage in ("8M->35M", "35M->150M"):
            middle = generator.uniform(0, 40)
            rows.append((kind, share, draw, 1000, stage, middle, 2 * middle, 0.5))
    names = ["kind", "share", "draw", "num_residues", "stage"]
    names += ["median_angle_degrees", "largest_angle_degrees", "r2_heldout"]
    table = pd.DataFrame(rows, columns=names)
    return table[table["kind"].isin(kinds)]


def line(axes, label: str):
    (found,) = (drawn for drawn in axes.lines if drawn.get_label() == label)
    return found


def legend(figure) -> list[str]:
    (found,) = figure.legends
    return [text.get_text() for text in found.get_texts()]


def texts(ticks) -> list[str]:
    return [text.get_text() for text in ticks]


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


@pytest.mark.parametrize("schemes", [("random",), SCHEMES, ("a", "b", "c", "d")])
def test_all_are_png_of_a_sensible_size(tmp_path, schemes):
    table = results(schemes=schemes)
    save_width_picture(table, tmp_path / "width.png")
    save_scaling_picture(table, tmp_path / "scaling.png", levels=list(LEVELS), metric="ndcg")
    save_angles_picture(angles(), tmp_path / "angles.png")
    for name in ("width", "scaling", "angles"):
        width, height = png_size(tmp_path / f"{name}.png")
        assert 600 <= width <= 1800 and 350 <= height <= 1400


POOLED, BY_FOLD = "Spearman, pooled over folds", "Spearman, mean over folds"


def chosen(table: pd.DataFrame, metric: str, scheme: str) -> pd.DataFrame:
    """Rows of the first pooling and probe."""
    kept = (table["metric"] == metric) & (table["probe"] == "ridge") & (table["scheme"] == scheme)
    return table[kept & table["pooling"].isin(["mean", ""])]


def names(axes) -> list[str]:
    """Written at the right ends, from below."""
    found = [t for t in axes.texts if t.get_position()[0] > 1]
    return [t.get_text() for t in sorted(found, key=lambda t: t.get_position()[1])]


@pytest.mark.parametrize("seed", SEEDS)
def test_the_width_picture_shows_means_over_assays_pooled_and_by_fold(seed):
    table = results(seed)
    figure = pictures._width_figure(table, "spearman")
    assert [axes.get_title() for axes in figure.axes] == [
        f"{scheme}: {score} (3 assays)" for scheme in SCHEMES for score in (POOLED, BY_FOLD)
    ]
    assert figure.get_suptitle() == (
        "Mean over assays by width of the embedding (mean pooling, ridge)"
    )
    for number, axes in enumerate(figure.axes):
        metric = ("spearman", "spearman_folds")[number % 2]
        part = chosen(table, metric, SCHEMES[number // 2])
        for name, look in STYLES.items():
            if name == "one_hot":
                continue
            drawn = line(axes, look.label)
            rows = part[part["representation"] == name]
            widths = sorted(set(rows["width"]))
            assert list(drawn.get_xdata()) == widths
            means = [rows[rows["width"] == w]["value"].mean() for w in widths]
            assert drawn.get_ydata() == pytest.approx(means)
        assert axes.get_xscale() == "log"
        assert texts(axes.get_xticklabels()) == ["320", "480", "640"]
        assert set(names(axes)) == {s.label for n, s in STYLES.items() if n != "one_hot"}
    one = pictures._width_figure(table, "ndcg")
    assert [axes.get_title() for axes in one.axes] == [f"{s}: NDCG (3 assays)" for s in SCHEMES]


def test_a_few_lines_are_in_colour_and_the_others_grey():
    axes = pictures._width_figure(results(schemes=["random"]), "spearman").axes[0]
    colors = {drawn.get_label(): str(drawn.get_color()) for drawn in axes.lines}
    coloured = {label for label, color in colors.items() if color != pictures._BACKGROUND}
    assert coloured <= {"rd", "raw", "PCA, chained", "one-hot"} and len(coloured) >= 3
    rd = line(axes, "rd")
    others = [drawn for drawn in axes.lines if drawn is not rd]
    assert rd.get_linewidth() >= 1.8 * max(drawn.get_linewidth() for drawn in others)
    assert rd.get_zorder() > max(drawn.get_zorder() for drawn in others)
    assert rd.get_markevery() == [0, 2, 3]  # 320, 480, 640, but not 400


def test_names_do_not_cover_each_other():
    axes = pictures._width_figure(results(schemes=["random"]), "spearman").axes[0]
    places = sorted(t.get_position()[1] for t in axes.texts if t.get_position()[0] > 1)
    assert len(places) == len(STYLES) - 1
    assert np.diff(places).min() >= 0.999 * APART


def test_names_are_spread_as_little_as_can_be():
    assert spread([]) == [] and spread([0.3]) == [0.3]
    assert spread([0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9])
    assert spread([0.5, 0.5, 0.5]) == pytest.approx([0.5 - APART, 0.5, 0.5 + APART])
    assert spread([0.5, 1.2, 1.3]) == pytest.approx([0.5, 1 - APART, 1])
    assert spread([0.2, 0.21, 0.8]) == pytest.approx([0.205 - APART / 2, 0.205 + APART / 2, 0.8])


def intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Two wide about each mean of rd and raw at a level, and about rd at 400."""
    rows = [
        {
            **{"scheme": scheme, "pooling": "mean", "probe": "ridge", "representation": name},
            **{"level": level, "low": 0.4, "high": 0.6 + shift, "fold_low": 0.3, "fold_high": 0.7},
        }
        for scheme in SCHEMES
        for name, levels in (("rd", ("8M", "35M", "150M", "400")), ("raw", ("8M", "35M", "150M")))
        for shift, level in enumerate(levels)
    ]
    other = [{**row, "probe": "mlp", "low": -9.0, "fold_high": 9.0} for row in rows]
    return pd.DataFrame(other + rows)


def test_rd_and_raw_have_their_intervals():
    table = results()
    figure = pictures._width_figure(table, "spearman", intervals(table))
    assert "95% intervals of rd and raw" in figure.get_suptitle()
    for number, axes in enumerate(figure.axes):
        [band], [bars] = (
            [c for c in axes.collections if type(c).__name__ == kind]
            for kind in ("FillBetweenPolyCollection", "LineCollection")
        )
        x, y = band.get_paths()[0].vertices.T
        assert set(x) == {320, 400, 480, 640}
        assert len(bars.get_segments()) == 3
        if number % 2 == 0:
            assert (y.min(), y.max()) == (0.4, 3.6)
            assert axes.get_ylim()[1] > 3.6
        else:
            assert (y.min(), y.max()) == (0.3, 0.7) and axes.get_ylim()[1] < 2


def test_one_hot_is_one_baseline_and_does_not_squash_the_others():
    table = results()
    table.loc[table["representation"] == "one_hot", "width"] = range(
        1000, 1000 + (table["representation"] == "one_hot").sum()
    )  # as wide as each assay allows
    figure = pictures._width_figure(table, "spearman")
    for number, axes in enumerate(figure.axes):
        assert "(3 assays)" in axes.get_title()
        metric = ("spearman", "spearman_folds")[number % 2]
        part = chosen(table, metric, SCHEMES[number // 2])
        mean = part[part["representation"] == "one_hot"]["value"].mean()
        drawn = [d for d in axes.lines if d.get_label() == "one-hot"]
        if drawn:
            assert drawn[0].get_ydata() == pytest.approx([mean] * 2)
        else:
            assert not axes.get_ylim()[0] <= mean <= axes.get_ylim()[1]
    far = table["representation"] == "one_hot"
    table.loc[far, "value"] = np.where(table.loc[far, "metric"] == "spearman", -0.75, np.nan)
    for number, axes in enumerate(pictures._width_figure(table, "spearman").axes):
        assert axes.get_ylim()[0] > -0.5
        said = [t.get_text() for t in axes.texts if "one-hot" in t.get_text()]
        assert said == [("one-hot -0.75 ↓", "one-hot: not defined")[number % 2]]


def test_a_single_point_is_seen():
    table = results(representations=["rd", "fusion"])
    table = table[(table["representation"] != "fusion") | (table["width"] == 480)]
    for axes in pictures._width_figure(table, "spearman").axes:
        assert line(axes, "fusion").get_marker() == "D"


def test_narrow_embeddings_have_ticks_too():
    table = results()
    table.loc[table["level"] == "", "width"] = 50
    for axes in pictures._width_figure(table, "spearman").axes:
        assert texts(axes.get_xticklabels()) == ["80", "160", "320", "480", "640"]
        assert list(axes.get_xticks()) == [80, 160, 320, 480, 640]


def test_only_what_is_there_is_drawn():
    table = results(assays=ASSAYS[:1], schemes=["random"], representations=["rd", "new"])
    figure = pictures._width_figure(table, "spearman")
    for axes in figure.axes:
        assert set(names(axes)) == {"rd", "new"} and axes.get_title().endswith("(1 assay)")
    figure = pictures._scaling_figure(table, list(LEVELS), "spearman")
    assert legend(figure) == ["rd", "BLAT_ECOLX"]
    raw = results(assays=ASSAYS[2:], representations=["raw"])
    figure = pictures._scaling_figure(raw, list(LEVELS), "spearman")
    assert legend(figure) == ["raw", "GFP_AEQVI"]
    for axes in pictures._width_figure(results(representations=["one_hot"]), "spearman").axes:
        assert [d.get_label() for d in axes.lines] == ["one-hot"]


def test_values_that_are_nan_are_left_out_of_the_means():
    table = results()
    table.loc[table["assay"] == ASSAYS[0], "value"] = np.nan
    table.loc[table["representation"] == "fusion", "value"] = np.nan
    rows = (table["representation"] == "rd") & (table["width"] == 320)
    table.loc[rows & (table["assay"] == ASSAYS[1]), "value"] = np.nan
    figure = pictures._width_figure(table, "spearman")
    for number, axes in enumerate(figure.axes):
        assert axes.get_title().endswith("(1 to 2 assays)") and "fusion" not in names(axes)
        metric = ("spearman", "spearman_folds")[number % 2]
        part = chosen(table[rows & (table["assay"] == ASSAYS[2])], metric, SCHEMES[number // 2])
        assert line(axes, "rd").get_ydata()[0] == pytest.approx(part["value"].item())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_scaling_picture_has_a_line_an_assay(seed):
    table = results(seed)
    levels = ["150M", "8M", "35M"]
    figure = pictures._scaling_figure(table, levels, "spearman")
    assert [axes.get_title() for axes in figure.axes] == [
        f"{scheme}: {score}" for scheme in SCHEMES for score in (POOLED, BY_FOLD)
    ]
    short = ["BLAT_ECOLX_Stiffler_2015", "BLAT_ECOLX_Firnberg_2014", "GFP_AEQVI"]
    assert legend(figure) == ["raw", "rd", *short]
    for number, axes in enumerate(figure.axes):
        metric = ("spearman", "spearman_folds")[number % 2]
        part = chosen(table, metric, SCHEMES[number // 2]).set_index("level")
        assert texts(axes.get_xticklabels()) == levels
        for assay, label in zip(ASSAYS, short, strict=True):
            rows = part[part["assay"] == assay]
            rd = line(axes, label)
            same = [d for d in axes.lines if d.get_color() == rd.get_color() and d is not rd]
            assert len(same) == 1 and same[0].get_linestyle() == "--"
            for drawn, name in ((rd, "rd"), (same[0], "raw")):
                values = rows[rows["representation"] == name]["value"][levels]
                assert drawn.get_ydata() == pytest.approx(values.to_numpy())


def test_many_assays_are_drawn_faintly_around_their_mean():
    table = results(assays=[f"P{i}_HUMAN_X_2020" for i in range(12)])
    gone = (table["assay"] == "P3_HUMAN_X_2020") & (table["level"] == "35M")
    table.loc[gone & (table["representation"] == "rd"), "value"] = np.nan
    # P3 counts in neither mean: they are of the same assays.
    figure = pictures._scaling_figure(table, list(LEVELS), "spearman")
    assert legend(figure) == ["raw, mean", "rd, mean"]
    for number, axes in enumerate(figure.axes):
        metric = ("spearman", "spearman_folds")[number % 2]
        assert axes.get_title().endswith(" (thick: mean of 11)")
        faint = [drawn for drawn in axes.lines if drawn.get_alpha()]
        assert len(faint) == 2 * 12 and len(axes.lines) == 2 * 12 + 2
        rows = chosen(table, metric, SCHEMES[number // 2])
        rows = rows[rows["assay"] != "P3_HUMAN_X_2020"]
        for name in ("raw", "rd"):
            means = rows[rows["representation"] == name].groupby("level")["value"].mean()
            drawn = line(axes, f"{name}, mean")
            assert drawn.get_ydata() == pytest.approx(means[list(LEVELS)].to_numpy())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_angles_picture_has_a_point_a_draw(seed):
    table = angles(seed)
    figure = angles_file._angles_figure(table)
    assert [axes.get_title() for axes in figure.axes] == ["8M → 35M", "35M → 150M"]
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    assert legend(figure) == ["largest angle", "median angle"]
    assert figure.axes[0].get_ylabel() == "degrees"
    for axes in figure.axes:
        assert texts(axes.get_xticklabels()) == ["10%", "30%", "100%", "bootstrap"]
        rows = table[table["stage"] == axes.get_title().replace(" → ", "->")]
        for measure in ("median", "largest"):
            drawn = line(axes, f"{measure} angle")
            values = rows[f"{measure}_angle_degrees"]
            assert drawn.get_ydata() == pytest.approx(values.to_numpy())
            ticks = axes.get_xticks()
            nearest = np.abs(drawn.get_xdata()[:, None] - ticks).argmin(axis=1)
            assert np.bincount(nearest).tolist() == [5, 5, 1, 10]
            means = rows[rows["kind"] == "subset"].groupby("share")[values.name].mean()
            through = [d for d in axes.lines if d.get_color() == drawn.get_color()]
            (through,) = (d for d in through if d is not drawn)
            assert through.get_ydata() == pytest.approx(means.to_numpy())
            assert through.get_xdata() == pytest.approx(ticks[:3])
        assert axes.get_ylim()[0] == 0


@pytest.mark.parametrize("kind", ["subset", "bootstrap"])
def test_angles_of_one_kind(kind, tmp_path):
    table = angles(kinds=[kind])
    shown = texts(angles_file._angles_figure(table).axes[0].get_xticklabels())
    assert shown == {"subset": ["10%", "30%", "100%"], "bootstrap": ["bootstrap"]}[kind]
    save_angles_picture(table[table["stage"] == "8M->35M"], tmp_path / "one.png")


def test_draws_that_were_skipped_are_said_in_the_picture(tmp_path):
    table = angles()
    skipped = (table["share"] == 0.1) & (table["draw"] != 2)
    names = ["median_angle_degrees", "largest_angle_degrees"]
    table.loc[skipped, names] = np.nan
    axes, _ = angles_file._angles_figure(table).axes
    assert [text.get_text() for text in axes.texts] == ["4 of 5:\ntoo few\nresidues"]
    table.loc[table["share"] == 0.1, names] = np.nan
    save_angles_picture(table, tmp_path / "none.png")


def test_nothing_to_draw():
    with pytest.raises(
        InputError, match="no number of metric 'auroc' .* spearman, spearman_folds, ndcg"
    ):
        pictures._width_figure(results(), "auroc")
    with pytest.raises(InputError, match="no number of metric 'spearman'"):
        pictures._width_figure(results().assign(value=np.nan), "spearman")
    with pytest.raises(InputError, match="of ndcg for rd or raw at the levels 3B, 15B"):
        pictures._scaling_figure(results(), ["3B", "15B"], "ndcg")
    with pytest.raises(InputError, match="no refits to draw"):
        angles_file._angles_figure(angles(kinds=[]))
