import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score

from rd_lightning import JointMoments, RDHead, fit_chain
from rd_lightning.errors import InputError
from rd_lightning.metrics import ResidualVariance

from ..conftest import SEEDS, family_rows

DIMS, NAMES = [5, 9, 14], ["A", "B", "C"]


def fitted(seed: int, **options) -> RDHead:
    moments = JointMoments(DIMS).update(family_rows(600, DIMS, seed, mean=1))
    return fit_chain(moments, names=NAMES, dtype=torch.float64, **options)


def explicit(head: RDHead, rows: list[torch.Tensor]) -> dict[str, float]:
    """Explicit regressions and residuals of rows."""
    z, shares = head(rows), {}
    for k in (1, 2):
        below, h = z[:, : head.dims[k - 1]].numpy(), rows[k].numpy()
        guess = LinearRegression().fit(below, h).predict(below)
        shares[f"explained/{NAMES[k]}"] = r2_score(h, guess, multioutput="variance_weighted")
        residual = torch.from_numpy(h - guess)
        basis = torch.linalg.qr(getattr(head, f"projection_{k}").mT).Q
        shares[f"kept/{NAMES[k]}"] = ((residual @ basis).norm() / residual.norm()).item() ** 2
    return shares


OPTIONS = [{}, {"level_widths": [3, 7, 10]}, {"level_widths": [5, 6, 9]}]
OPTIONS += [{"scale": "rms"}, {"scale": "whiten"}, {"level_widths": [3, 7, 10], "scale": "whiten"}]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("seed", SEEDS)
def test_equals_explicit_residuals_on_another_stream(seed, options):
    head = fitted(seed, **options)
    rows = family_rows(240, DIMS, seed + 10, mean=2)
    metric = ResidualVariance(head)
    mask = torch.rand(240, generator=torch.Generator().manual_seed(seed)) < 0.7
    for start in (0, 80, 160):
        padded = [h[start : start + 80].reshape(4, 20, -1).clone() for h in rows]
        kept = mask[start : start + 80].reshape(4, 20)
        padded[1][~kept] = torch.nan
        metric.update(dict(zip(NAMES, padded, strict=True)), row_mask=kept)
    found = {name: share.item() for name, share in metric.compute().items()}
    assert found == pytest.approx(explicit(head, [h[mask] for h in rows]), abs=1e-10)
    halves = [
        ResidualVariance(head).update([h[mask][part] for h in rows])
        for part in (slice(0, 50), slice(50, None))
    ]
    merged = halves[0].merge_(halves[1]).compute()
    assert {n: s.item() for n, s in merged.items()} == pytest.approx(found, abs=1e-10)


def test_on_the_fits_own_rows_it_is_the_report():
    head = fitted(0, regression="ols")
    found = ResidualVariance(head).update(family_rows(600, DIMS, 0, mean=1)).compute()
    for stage in head.report.stages:
        assert found[f"explained/{stage.target}"].item() == pytest.approx(stage.r2_fit)
        assert found[f"kept/{stage.target}"].item() == pytest.approx(stage.kept_variance)


def test_of_too_few_rows_it_is_nan_and_of_nothing_left_too():
    head = fitted(0)
    metric = ResidualVariance(head)
    value = metric([h[:1] for h in family_rows(3, DIMS, 0)])
    assert all(share.isnan() for share in value.values())
    found = metric.update(family_rows(4, DIMS, 0)).compute()
    assert found["explained/C"].item() == pytest.approx(1)
    assert found["kept/C"].isnan()


def test_the_head_is_not_of_the_metric():
    metric = ResidualVariance(fitted(0))
    metric.persistent(True)
    assert list(metric.state_dict()) == ["state", "origin"]
    assert not list(metric.modules())[1:]


def test_what_does_not_fit_is_refused():
    head, rows = fitted(0), family_rows(6, DIMS, 0)
    metric = ResidualVariance(head)
    with pytest.raises(InputError, match="one level"):
        ResidualVariance(head.truncate("A"))
    with pytest.raises(InputError, match="expected blocks"):
        metric.update(rows[:2])
    with pytest.raises(InputError, match="expected the members"):
        metric.update({"A": rows[0]})
    with pytest.raises(InputError, match="leading shape"):
        metric.update(rows, row_mask=torch.ones(5, dtype=torch.bool))
