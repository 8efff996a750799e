import itertools
import json

import pytest
import torch
from sklearn.metrics import r2_score

from rd_lightning import JointMoments, fit_chain
from rd_lightning.distillation.linalg import fix_signs, marchenko_pastur_edge
from rd_lightning.errors import InputError

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
