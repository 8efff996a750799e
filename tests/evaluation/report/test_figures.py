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
        for metric in ("spearman", "ndcg")
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
        assert 600 <= width <= 1800 and 350 <= height <= 1000


@pytest.mark.parametrize("metric", ["spearman", "ndcg"])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_width_picture_shows_means_over_assays(seed, metric):
    table = results(seed)
    figure = pictures._width_figure(table, metric)
    assert [axes.get_title() for axes in figure.axes] == list(SCHEMES)
    assert figure.get_suptitle() == (
        "Mean over 3 assays by width of the embedding (mean pooling, ridge)"
    )
    first = table[(table["metric"] == metric) & (table["probe"] == "ridge")]
    for axes in figure.axes:
        part = first[first["scheme"] == axes.get_title()]
        for name, look in STYLES.items():
            drawn = line(axes, look.label)
            rows = part[part["representation"] == name]
            if name == "one_hot":
                assert drawn.get_ydata() == pytest.approx([rows["value"].mean()] * 2)
                continue
            rows = rows[rows["pooling"] == "mean"]
            widths = sorted(set(rows["width"]))
            assert list(drawn.get_xdata()) == widths
            means = [rows[rows["width"] == w]["value"].mean() for w in widths]
            assert drawn.get_ydata() == pytest.approx(means)
        assert axes.get_xscale() == "log"
        assert texts(axes.get_xticklabels()) == ["320", "480", "640"]
    assert figure.axes[0].get_ylabel() == {"spearman": "Spearman", "ndcg": "NDCG"}[metric]
    assert legend(figure) == [look.label for look in STYLES.values()]


def test_reverse_distillation_stands_out_and_no_two_lines_look_alike():
    (axes,) = pictures._width_figure(results(schemes=["random"]), "spearman").axes
    rd = line(axes, "rd")
    others = [drawn for drawn in axes.lines if drawn is not rd]
    assert rd.get_linewidth() >= 2 * max(drawn.get_linewidth() for drawn in others)
    assert rd.get_zorder() > max(drawn.get_zorder() for drawn in others)
    assert rd.get_markevery() == [0, 2, 3]  # 320, 480, 640, but not 400
    looks = {(str(d.get_color()), str(d._dash_pattern), d.get_marker()) for d in axes.lines}
    assert len(looks) == len(STYLES)


def test_narrow_embeddings_have_ticks_too():
    table = results()
    table.loc[table["level"] == "", "width"] = 50
    for axes in pictures._width_figure(table, "spearman").axes:
        assert texts(axes.get_xticklabels()) == ["80", "160", "320", "480", "640"]
        assert list(axes.get_xticks()) == [80, 160, 320, 480, 640]


def test_only_what_is_there_is_drawn():
    table = results(assays=ASSAYS[:1], schemes=["random"], representations=["rd", "new"])
    figure = pictures._width_figure(table, "spearman")
    assert legend(figure) == ["rd", "new"]
    assert "Mean over 1 assay by" in figure.get_suptitle()
    figure = pictures._scaling_figure(table, list(LEVELS), "spearman")
    assert legend(figure) == ["rd", "BLAT_ECOLX"]
    raw = results(assays=ASSAYS[2:], representations=["raw"])
    figure = pictures._scaling_figure(raw, list(LEVELS), "spearman")
    assert legend(figure) == ["raw", "GFP_AEQVI"]
    only_one_hot = results(representations=["one_hot"])
    assert legend(pictures._width_figure(only_one_hot, "spearman")) == ["one-hot"]


def test_a_representation_of_one_scheme_is_in_the_legend():
    table = pd.concat(
        [
            results(representations=["rd"]),
            results(schemes=SCHEMES[1:], representations=["pca"]),
        ]
    )
    assert legend(pictures._width_figure(table, "spearman")) == ["rd", "PCA"]


def test_values_that_are_nan_are_left_out_of_the_means():
    table = results()
    table.loc[table["assay"] == ASSAYS[0], "value"] = np.nan
    table.loc[table["representation"] == "fusion", "value"] = np.nan
    rows = (table["representation"] == "rd") & (table["width"] == 320)
    table.loc[rows & (table["assay"] == ASSAYS[1]), "value"] = np.nan
    figure = pictures._width_figure(table, "spearman")
    assert "Mean over 1 to 2 assays" in figure.get_suptitle()
    assert "fusion" not in legend(figure)
    last = table[rows & (table["assay"] == ASSAYS[2]) & (table["metric"] == "spearman")]
    last = last[(last["pooling"] == "mean") & (last["probe"] == "ridge")]
    for axes in figure.axes:
        value = last[last["scheme"] == axes.get_title()]["value"].item()
        assert line(axes, "rd").get_ydata()[0] == pytest.approx(value)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_scaling_picture_has_a_line_an_assay(seed):
    table = results(seed)
    levels = ["150M", "8M", "35M"]
    figure = pictures._scaling_figure(table, levels, "spearman")
    assert [axes.get_title() for axes in figure.axes] == list(SCHEMES)
    short = ["BLAT_ECOLX_Stiffler_2015", "BLAT_ECOLX_Firnberg_2014", "GFP_AEQVI"]
    assert legend(figure) == ["raw", "rd", *short]
    kept = (table["metric"] == "spearman") & (table["pooling"] == "mean")
    first = table[kept & (table["probe"] == "ridge")].set_index("level")
    for axes in figure.axes:
        part = first[first["scheme"] == axes.get_title()]
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
    kept = (table["metric"] == "spearman") & (table["pooling"] == "mean")
    kept &= (table["probe"] == "ridge") & (table["assay"] != "P3_HUMAN_X_2020")
    for axes, scheme in zip(figure.axes, SCHEMES, strict=True):
        assert axes.get_title() == f"{scheme} (thick: mean of 11)"
        faint = [drawn for drawn in axes.lines if drawn.get_alpha()]
        assert len(faint) == 2 * 12 and len(axes.lines) == 2 * 12 + 2
        rows = table[kept & (table["scheme"] == scheme)]
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
    with pytest.raises(InputError, match="no number of metric 'auroc' .* have spearman, ndcg"):
        pictures._width_figure(results(), "auroc")
    with pytest.raises(InputError, match="no number of metric 'spearman'"):
        pictures._width_figure(results().assign(value=np.nan), "spearman")
    with pytest.raises(InputError, match="of ndcg for rd or raw at the levels 3B, 15B"):
        pictures._scaling_figure(results(), ["3B", "15B"], "ndcg")
    with pytest.raises(InputError, match="no refits to draw"):
        angles_file._angles_figure(angles(kinds=[]))
