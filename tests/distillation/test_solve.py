import io
import itertools
import json

import jaxtyping
import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.display.console import plain_console
from rd_lightning.distillation import solve
from rd_lightning.distillation.linalg import eigh_descending, fix_signs, marchenko_pastur_edge
from rd_lightning.errors import InputError
from rd_lightning.fitting.summary import print_report, save_report_picture
from rd_lightning.head.head import reach
from rd_lightning.head.report import FitReport

from ..conftest import SEEDS, family_rows

CHAINS = {"three": [9, 14, 22], "four": [6, 10, 17, 30]}


def moments_of(blocks) -> JointMoments:
    return JointMoments([b.shape[1] for b in blocks]).update(blocks)


def two_pass(blocks, num_components=None):
    """Reverse distillation stage by stage: explicit residuals, full SVDs.

    Returns z and, of every stage, (components, B, V, mean of h, mean of z).
    """
    z, stages = blocks[0], []
    for h in blocks[1:]:
        h_mean, z_mean = h.mean(0), z.mean(0)
        _, s, vh = torch.linalg.svd(z - z_mean, full_matrices=False)
        values = s**2 / (len(z) - 1)
        m = num_components or int((values > marchenko_pastur_edge(values, len(z))).sum())
        scores = (z - z_mean) @ vh[:m].T
        b = vh[:m].T @ torch.linalg.lstsq(scores, h - h_mean).solution
        residual = (h - h_mean) - (z - z_mean) @ b
        v = torch.linalg.svd(residual, full_matrices=False).Vh[: h.shape[1] - z.shape[1]].T
        v = fix_signs(v)
        z = torch.cat([z, residual @ v], dim=1)
        stages.append((m, b, v, h_mean, z_mean))
    return z, stages


@pytest.mark.parametrize("dims", CHAINS.values(), ids=CHAINS.keys())
@pytest.mark.parametrize("rule", ["marchenko_pastur", 5])
@pytest.mark.parametrize("seed", SEEDS)
def test_one_pass_equals_two_passes(dims, rule, seed):
    blocks = family_rows(3000, dims, seed, mean=3)
    expected, stages = two_pass(blocks, None if rule == "marchenko_pastur" else rule)
    head = fit_chain(moments_of(blocks), num_components=rule, dtype=torch.float64)
    assert [s.num_components for s in head.report.stages] == [m for m, *_ in stages]
    assert (head(blocks) - expected).abs().max() < 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_the_fused_head_equals_the_literal_recursion(seed):
    """On other rows than those of the fit, with B, V and the means of the two-pass fit."""
    dims = CHAINS["four"]
    blocks = family_rows(3300, dims, seed, mean=3)
    fit, others = [b[:3000] for b in blocks], [b[3000:] for b in blocks]
    _, stages = two_pass(fit)
    z = others[0]
    for h, (_, b, v, h_mean, z_mean) in zip(others[1:], stages, strict=True):
        z = torch.cat([z, (h - h_mean - (z - z_mean) @ b) @ v], dim=1)
    head = fit_chain(moments_of(fit), dtype=torch.float64)
    assert (head(others) - z).abs().max() < 1e-9


@pytest.mark.parametrize("options", [{"regression": "ols"}, {"regression": "ridge", "ridge": 7.0}])
def test_new_columns_are_the_leading_directions_of_the_residual(options):
    blocks = family_rows(2000, CHAINS["three"], 0)
    head = fit_chain(moments_of(blocks), dtype=torch.float64, **options)
    z = head(blocks)
    for stage, start, stop in zip(head.report.stages, head.dims, head.dims[1:], strict=False):
        new = torch.cov(z[:, start:stop].T)
        assert torch.allclose(new, torch.diag(new.diagonal()), atol=1e-10)
        kept = torch.tensor(stage.residual_spectrum[: stop - start], dtype=torch.float64)
        assert torch.allclose(new.diagonal(), kept, atol=1e-10)
        assert stage.kept_variance == pytest.approx(
            (kept.sum() / sum(stage.residual_spectrum)).item()
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_r2_equals_scikit_learns_on_fit_and_heldout_rows(seed):
    blocks = family_rows(2500, CHAINS["three"], seed, mean=2)
    fit, others = [b[:2000] for b in blocks], [b[2000:] + 0.05 for b in blocks]
    _, stages = two_pass(fit)
    head = fit_chain(moments_of(fit), heldout=moments_of(others), dtype=torch.float64)
    assert head.report.num_heldout_residues == 500
    for rows, name in ((fit, "r2_fit"), (others, "r2_heldout")):
        z = head(rows)
        for k, (_, b, _, h_mean, z_mean) in enumerate(stages):
            predicted = h_mean + (z[:, : head.dims[k]] - z_mean) @ b
            expected = r2_score(rows[k + 1], predicted, multioutput="variance_weighted")
            assert getattr(head.report.stages[k], name) == pytest.approx(expected, abs=1e-9)


def test_level_variance_is_the_total_variance_of_each_level():
    blocks = family_rows(2000, CHAINS["four"], 0)
    head = fit_chain(moments_of(blocks), dtype=torch.float64)
    z = head(blocks)
    expected = [torch.cov(z[:, :d].T).trace().item() for d in head.dims]
    assert head.report.level_variance == pytest.approx(expected)


@pytest.mark.parametrize("seed", SEEDS)
def test_randomized_keeps_the_exact_variance(seed):
    moments = moments_of(family_rows(3000, [8, 40], seed))
    kept = [
        fit_chain(moments, solver=solver).report.stages[0].kept_variance
        for solver in ("exact", "randomized")
    ]
    assert 1 - 1e-3 < kept[1] / kept[0] <= 1 + 1e-12


def test_auto_is_exact_at_esm2s_shares():
    head = fit_chain(moments_of(family_rows(500, [8, 12], 0)))
    assert head.report.stages[0].solver == "exact"


def test_order_of_batches_and_signs_do_not_change_the_head():
    blocks = family_rows(2000, CHAINS["three"], 0)
    forward, backward = JointMoments(CHAINS["three"]), JointMoments(CHAINS["three"])
    for rows in torch.arange(2000).split(300):
        forward.update([b[rows] for b in blocks])
    for rows in torch.arange(2000).split(170)[::-1]:
        backward.update([b[rows] for b in blocks])
    one, two = (fit_chain(m, dtype=torch.float64) for m in (forward, backward))
    for (name, a), (_, b) in zip(one.named_buffers(), two.named_buffers(), strict=True):
        assert (a - b).abs().max() < 1e-9, name


def test_the_report_is_json_and_comes_back():
    from rd_lightning.head.report import FitReport

    blocks = family_rows(500, CHAINS["three"], 0)
    report = fit_chain(moments_of(blocks), names=["a", "b", "c"], context={"family": "x"}).report
    assert [(s.source, s.target) for s in report.stages] == [("a", "b"), ("b", "c")]
    again = FitReport.from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False)))
    assert again == report
    for stage in report.stages:
        assert stage.last_kept_over_edge > 1
        assert stage.first_dropped_over_edge is None or stage.first_dropped_over_edge <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["a"]}, "1 names for 3 models"),
        ({"names": ["a", "a", "b"]}, "names must differ"),
        ({"regression": "lasso"}, "pcr, ridge or ols"),
        ({"solver": "fast"}, "auto, exact or randomized"),
        ({"regression": "ridge"}, "ridge"),
        ({"ridge": 1.0}, "ridge"),
        ({"regression": "ridge", "ridge": -1.0}, "at least 0"),
        ({"num_components": 10}, "has 9 inputs"),
        ({"num_components": 0.0}, "num_components"),
        ({"num_components": "heldout"}, "held-out"),
    ],
)
def test_options_that_do_not_fit(options, message):
    moments = moments_of(family_rows(100, CHAINS["three"], 0))
    with pytest.raises((InputError, TypeError), match=f"{message}|type"):
        fit_chain(moments, **options)


def test_fewer_residues_than_columns():
    with pytest.raises(InputError, match="22 residues cannot determine 22 directions of c"):
        fit_chain(moments_of(family_rows(22, CHAINS["three"], 0)), names=list("abc"))


def test_widths_must_grow():
    with pytest.raises(InputError, match="b has 5 after a's 5.* b could add none; .*leave a"):
        fit_chain(moments_of(family_rows(100, [5, 5], 0)), names=["a", "b"])
    with pytest.raises(InputError, match=r"c has 6 after b's 7.* keep=\[1,3,6\]"):
        fit_chain(moments_of(family_rows(100, [5, 7, 6], 0)), names=["a", "b", "c"])


def test_heldout_of_other_widths():
    fit, other = (moments_of(family_rows(100, d, 0)) for d in ([5, 8], [5, 9]))
    with pytest.raises(InputError, match="held-out moments have widths"):
        fit_chain(fit, heldout=other)


def test_any_sub_chain_comes_from_the_same_state():
    """A chain over the first members equals the head truncated to them."""
    blocks = family_rows(2000, CHAINS["four"], 0)
    whole = fit_chain(moments_of(blocks), dtype=torch.float64)
    for k, _ in itertools.product([2, 3], [0]):
        part = fit_chain(moments_of(blocks[:k]), dtype=torch.float64)
        truncated = whole.truncate(whole.names[k - 1])
        assert (part(blocks[:k]) - truncated(blocks[:k])).abs().max() < 1e-9


@pytest.mark.parametrize(
    "options",
    [{}, {"regression": "ols"}, {"regression": "ridge", "ridge": 0.0}, {"num_components": 0.9}],
    ids=["pcr", "ols", "ridge", "share"],
)
def test_a_chain_with_nothing_left_is_solved(options, tmp_path):
    """The second member holds the first and its products, the third nothing new, a fourth none."""
    small, other = family_rows(500, [4, 3], 0)
    second = torch.cat([small, other], 1)
    third = torch.cat([second, second[:, :3]], 1)
    constant = torch.ones(500, 12, dtype=torch.float64)
    blocks = [small, second, third, constant]
    head = fit_chain(moments_of(blocks), heldout=moments_of(blocks), dtype=torch.float64, **options)
    z = head(blocks)
    assert torch.isfinite(z).all()
    report = head.report
    assert report.stages[2].r2_fit is None and report.stages[2].r2_heldout is None
    assert report.stages[2].kept_variance is None
    if not options or "num_components" not in options:
        assert report.stages[1].r2_fit == pytest.approx(1, abs=1e-9) or not options
    json.dumps(report.to_dict(), allow_nan=False)
    head.save_pretrained(tmp_path)
    assert RDHead.from_pretrained(tmp_path).report == report
    assert read_back(report) == report
    console = plain_console()
    console.file = io.StringIO()
    print_report(console, report)
    assert "not defined" in console.file.getvalue()
    save_report_picture(report, head.dims, head.names, tmp_path / "x.png")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_residual_of_rounding_has_no_kept_share(seed):
    """20 distinct rows, which the first member's 32 columns span: all that float32 products leave
    are eigenvalues of both signs, whose leading ones add up to more than the whole."""
    dims = (32, 64, 128)
    rows = [block.float() for block in family_rows(20, dims, seed)]
    order = torch.arange(400) % 20
    moments = JointMoments(dims, precision="float32")
    for start in range(0, 400, 50):
        moments.update([block[order[start : start + 50]] for block in rows])
    for stage in fit_chain(moments, regression="ols").report.stages:
        assert stage.kept_variance is None
        assert stage.residual_variance >= 0
        assert stage.r2_fit == pytest.approx(1, abs=1e-5) and stage.r2_fit <= 1
    varied = JointMoments(dims, precision="float32")
    varied.update([block.float() for block in family_rows(400, dims, seed)])
    for stage in fit_chain(varied, regression="ols").report.stages:
        assert stage.kept_variance is not None and 0.5 < stage.kept_variance < 1


def read_back(report: FitReport) -> FitReport:
    return FitReport.from_dict(json.loads(json.dumps(report.to_dict())))


def test_heldout_rows_that_do_not_vary_have_no_r2():
    blocks = family_rows(500, [4, 9], 0, mean=3)
    row = [b[:1].expand(2, -1) for b in blocks]
    for rows in (row, [b[7:8].expand(50, -1) for b in blocks]):
        report = fit_chain(moments_of(blocks), heldout=moments_of(rows)).report
        assert report.stages[0].r2_heldout is None
    varied = fit_chain(moments_of(blocks), heldout=moments_of([b[:3] for b in blocks])).report
    assert varied.stages[0].r2_heldout is not None and varied.stages[0].r2_heldout > -100


def test_a_nan_that_was_not_left_out_is_named():
    blocks = family_rows(50, [4, 9], 0)
    blocks[1][3, 2] = torch.nan
    with pytest.raises(InputError, match="held NaN or infinity; leave such rows out"):
        fit_chain(moments_of(blocks))


def planted(spectrum: torch.Tensor) -> JointMoments:
    """Moments of [h_1 | h_2], h_1 of one column apart from h_2, whose covariance has the
    spectrum."""
    width = len(spectrum)
    generator = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q
    rows = torch.randn(2 * width, width + 1, generator=generator, dtype=torch.float64)
    white = torch.linalg.qr(rows - rows.mean(0)).Q * (2 * width - 1) ** 0.5
    return moments_of([white[:, :1], (white[:, 1:] * spectrum.sqrt()) @ q.mT])


@pytest.mark.parametrize("flat", [True, False])
def test_auto_falls_back_to_exact_where_the_spectrum_is_flat(flat, monkeypatch):
    monkeypatch.setattr(solve, "RANDOMIZED_FROM_WIDTH", 128)
    places = torch.arange(1, 401, dtype=torch.float64)
    spectrum = 1 + 0.3 * torch.cos(places) if flat else 1 / places
    moments = planted(spectrum)
    found = {
        solver: fit_chain(moments, level_widths=[1, 33], solver=solver, regression="ols").report
        for solver in ("auto", "exact", "randomized")
    }
    stages = {solver: report.stages[0] for solver, report in found.items()}
    assert stages["auto"].solver == ("exact" if flat else "randomized")
    assert stages["exact"].guaranteed_share == 1
    best = stages["exact"].kept_variance
    for stage in stages.values():
        assert stage.kept_variance is not None and best is not None
        assert stage.guaranteed_share <= stage.kept_variance / best + 1e-12
        assert read_back(found["auto"]) == found["auto"]
    assert stages["auto"].guaranteed_share >= 0.999
    assert stages["auto"].kept_variance / best >= 0.999
    # The control: without the look at the spectrum it would be less.
    assert not flat or stages["randomized"].kept_variance / best < 0.999


def test_whole_numbers_of_any_kind_give_the_same_head(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    moments = moments_of(family_rows(300, [6, 9], 0))
    expected = fit_chain(moments, num_components=3, level_widths=[4, 8])
    for whole in (np.int64, torch.tensor, np.int8):
        found = fit_chain(
            moments, num_components=whole(3), level_widths=[whole(4), whole(8)], ridge=None
        )
        assert found.digest() == expected.digest() and found.report == expected.report
    found = fit_chain(moments, num_components=3, level_widths=np.array([4, 8]))
    assert found.digest() == expected.digest()
    json.dumps(found.report.to_dict())
    for wrong in ([4.0, 8], [True, 8], ["4", 8], [4], "48", 8):
        with pytest.raises(InputError, match="keep lists a number of columns"):
            fit_chain(moments, level_widths=wrong)
    assert reach(expected, None, np.int64(5)) == reach(expected, None, 5) == (2, 5)


@pytest.mark.parametrize(
    ("width", "rank", "expected"),
    [
        (2048, 255, "randomized"),
        (2048, 256, "exact"),
        (2047, 1, "exact"),
        (4096, 511, "randomized"),
        (4096, 512, "exact"),
    ],
)
def test_auto_is_randomized_below_an_eighth_of_2048_or_more(width, rank, expected, monkeypatch):
    """As :func:`fit_chain` says. The solvers are left out: they take seconds."""
    nothing = torch.zeros(1, dtype=torch.float64)
    pairs = nothing.expand(rank), nothing.expand(width, rank)
    monkeypatch.setattr(solve, "randomized_eigh", lambda matrix, rank: pairs)
    monkeypatch.setattr(solve, "guaranteed_share", lambda *args: 0.999)
    monkeypatch.setattr(solve, "eigh_descending", lambda matrix: pairs)
    assert solve._top(nothing.expand(width, width), rank, "auto").solver == expected


def test_how_near_the_last_kept_and_the_first_dropped_are_to_the_edge():
    blocks = family_rows(3000, CHAINS["three"], 0)
    stage = fit_chain(moments_of(blocks)).report.stages[0]
    values, _ = eigh_descending(torch.cov(blocks[0].T))
    edge = marchenko_pastur_edge(values, 3000)
    m = int((values > edge).sum())
    assert 0 < m < 9
    assert (stage.num_inputs, stage.num_components) == (9, m)
    assert stage.edge == pytest.approx(edge)
    assert stage.last_kept_over_edge == pytest.approx(values[m - 1].item() / edge)
    assert stage.first_dropped_over_edge == pytest.approx(values[m].item() / edge)


def test_the_unit_of_the_embeddings_changes_no_figure():
    """A variance of 1e-14 is one, where all are of that size."""
    blocks = family_rows(500, CHAINS["three"], 0)
    plain, small = (fit_chain(moments_of([b * c for b in blocks])).report for c in (1, 1e-7))
    for one, other in zip(plain.stages, small.stages, strict=True):
        assert other.num_components == one.num_components
        assert other.r2_fit == pytest.approx(one.r2_fit, rel=1e-6)
        assert other.kept_variance == pytest.approx(one.kept_variance, rel=1e-6)


def test_the_report_says_which_components_were_used():
    """The rule as given; regressions that know of no components use all."""
    moments = moments_of(family_rows(300, [6, 9], 0))
    for rule in ("marchenko_pastur", 3, 0.9):
        assert fit_chain(moments, num_components=rule).report.num_components == rule
    for options in ({"regression": "ols"}, {"regression": "ridge", "ridge": 1.0}):
        report = fit_chain(moments, **options).report
        assert (report.num_components, report.stages[0].num_components) == ("all", 6)
