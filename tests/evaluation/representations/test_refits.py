"""Refits on shares and resamples of the groups, against the rows themselves."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from rd_lightning import JointMoments, fit_chain
from rd_lightning.errors import InputError
from rd_lightning.evaluation.representations import refits as training_set
from rd_lightning.evaluation.representations.refits import (
    COLUMNS,
    Refit,
    Skipped,
    refits,
    summarise,
)
from rd_lightning.fitting.state import FitState, Part

from ...conftest import SEEDS, family_rows

DIMS = [5, 9, 14]
NAMES = ["8M", "35M", "150M"]


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def groups_of_rows(num_groups: int, seed: int, *, rows_each: int = 60) -> list[list[torch.Tensor]]:
    blocks = family_rows(num_groups * rows_each, DIMS, seed, mean=2)
    parts = zip(*(block.split(rows_each) for block in blocks), strict=True)
    return [list(part) for part in parts]


def state_of(
    groups: Sequence[Sequence[torch.Tensor]], heldout: Sequence[torch.Tensor] | None = None
) -> FitState:
    state = FitState(DIMS, len(groups))
    state.set_shift_(torch.cat([block.mean(0) for block in groups[0]]))
    for moments, blocks in zip(state.groups, groups, strict=True):
        moments.update(blocks)
    if heldout is not None:
        state.heldout.update(heldout)
    return state


def stacked(groups: Sequence[Sequence[torch.Tensor]]) -> JointMoments:
    """Moments of the rows themselves, groups as often as they are given."""
    return JointMoments(DIMS).update([torch.cat(blocks) for blocks in zip(*groups, strict=True)])


def largest_difference(a, b) -> float:
    pairs = zip(a.buffers(), b.buffers(), strict=True)
    return max((x - y).abs().max().item() for x, y in pairs)


def angle_error(num_rows: int, angle: float = 0.0) -> float:
    """Bound on the error of an angle between two spans of columns with so many rows.

    It is the arcsine or arccosine of a singular value of a product of two orthonormal bases. The
    bases, the product and its singular values are each backward stable, which leaves an error in
    the value of some num_rows * eps; 10 of these are allowed in all. An error delta in the value
    changes the angle by at most arccos(1 - delta) = sqrt(2 delta), which is reached at values of 1
    (half of the digits are lost there), and where that is less, by twice the first-order
    delta / sin or delta / cos: scipy takes either, also next to 0.
    """
    delta = 10 * num_rows * torch.finfo(torch.float64).eps
    slope = min(math.sin(angle), math.cos(angle))
    worst = math.sqrt(2 * delta)
    return min(worst, 2 * delta / slope) if slope > 0 else worst


@pytest.mark.parametrize("turns", [(0.1, 0.7, 1.2), (0.0, 0.3, 1.5), (0.0, 0.0, 0.0), (1e-4,) * 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_planted_angles_are_found_in_ascending_order(turns, seed):
    """Whatever columns span the two, in whatever order."""
    basis = torch.linalg.qr(normal(9, 9, seed=seed)).Q
    planted = torch.tensor(turns[::-1], dtype=torch.float64)
    turned = planted.cos() * basis[:, :3] + planted.sin() * basis[:, 4:7]
    mix = torch.linalg.qr(normal(3, 3, seed=seed + 1)).Q
    found = training_set._angles(basis[:, :3], turned @ mix)
    assert found.dtype == torch.float64 and found.shape == (3,)
    assert torch.equal(found, found.sort().values)
    for angle, turn in zip(found.tolist(), turns, strict=True):
        assert angle == pytest.approx(turn, rel=0, abs=angle_error(9, turn))


@pytest.mark.parametrize("seed", SEEDS)
def test_equal_spans_turn_by_nothing_and_orthogonal_ones_by_a_right_angle(seed):
    basis = torch.linalg.qr(normal(10, 10, seed=seed)).Q
    mix = normal(4, 4, seed=seed + 1)
    # The span of columns that are rounded is known up to their condition number.
    bound = angle_error(10) + 10 * 2.3e-16 * torch.linalg.cond(mix).item()
    assert training_set._angles(basis[:, :4], basis[:, :4] @ mix).abs().max() < bound
    apart = training_set._angles(basis[:, :4], basis[:, 4:8])
    assert (apart - math.pi / 2).abs().max() < angle_error(10)


@pytest.mark.parametrize(
    "options", [{}, {"regression": "ols"}, {"regression": "ridge", "ridge": 9}]
)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_refit_is_the_fit_of_its_groups_rows(options, seed):
    """A group drawn twice counts twice."""
    groups = groups_of_rows(6, seed)
    heldout = family_rows(80, DIMS, seed + 50, mean=2)
    state = state_of(groups, heldout)
    sizes = {"num_draws": 2, "num_resamples": 4, "seed": seed}
    draws = training_set._draws(6, (0.3, 1.0), 2, 4, seed)
    found = list(refits(state, NAMES, shares=(0.3, 1.0), **sizes, **options))
    assert [r[:3] for r in found] == [d[:3] for d in draws]
    full = fit_chain(stacked(groups), names=NAMES, dtype=torch.float64, **options)
    for refit, draw in zip(found, draws, strict=True):
        rows = stacked([groups[g] for g in draw.groups])
        expected = fit_chain(
            rows,
            names=NAMES,
            heldout=JointMoments(DIMS).update(heldout),
            dtype=torch.float64,
            **options,
        )
        assert isinstance(refit, Refit)
        assert refit.num_residues == rows.num_rows
        assert refit.head.dtype == torch.float64 and refit.head.names == tuple(NAMES)
        assert largest_difference(refit.head, expected) < 1e-8
        r2 = [stage.r2_heldout for stage in expected.report.stages]
        assert refit.r2_heldout == pytest.approx(r2, abs=1e-9)
        for k, angles in enumerate(refit.angles, start=1):
            pair = (getattr(head, f"projection_{k}").T.numpy() for head in (expected, full))
            # An angle moves by no more than the directions do, 1e-8 from above, and both are
            # rounded; those of a refit on all groups are 0, where that counts most.
            bound = 1e-8 + 2 * angle_error(DIMS[k])
            ours = np.sort(subspace_angles(*pair))
            assert angles.numpy() == pytest.approx(ours, rel=0, abs=bound)


def test_draws_are_of_the_sizes_asked_for():
    draws = training_set._draws(20, (0.01, 0.1, 0.3, 1.0), 5, 10, 0)
    subsets = [d for d in draws if d.kind == "subset"]
    assert [(d.share, d.draw) for d in subsets] == [
        *((share, draw) for share in (0.01, 0.1, 0.3) for draw in range(5)),
        (1.0, 0),
    ]
    sizes = {0.01: 1, 0.1: 2, 0.3: 6, 1.0: 20}
    assert all(len(set(d.groups)) == len(d.groups) == sizes[d.share] for d in subsets)
    resamples = [d for d in draws if d.kind == "bootstrap"]
    assert [d.draw for d in resamples] == list(range(10))
    assert all(len(d.groups) == 20 and len(set(d.groups)) < 20 for d in resamples)
    assert len({d.groups for d in draws if len(d.groups) > 1}) == 5 + 5 + 1 + 10
    assert draws == training_set._draws(20, (0.01, 0.1, 0.3, 1.0), 5, 10, 0)
    assert draws != training_set._draws(20, (0.01, 0.1, 0.3, 1.0), 5, 10, 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_whole_training_set_is_the_full_fit(seed):
    state = state_of(groups_of_rows(4, seed))
    before = state.clone()
    (found,) = refits(state, NAMES, shares=(1.0,), num_resamples=0)
    assert isinstance(found, Refit)
    full = fit_chain(state.total, names=NAMES, dtype=torch.float64)
    assert found.head.digest() == full.digest()
    assert [len(a) for a in found.angles] == [4, 5]
    for angles, d in zip(found.angles, DIMS[1:], strict=True):
        assert angles.abs().max() < angle_error(d)
    assert found.r2_heldout == (None, None)
    for ours, theirs in zip(state.all_moments, before.all_moments, strict=True):
        assert torch.equal(ours.flat, theirs.flat)


@pytest.mark.parametrize("options", [{"regression": "ols"}, {"num_components": 3}])
@pytest.mark.parametrize("seed", SEEDS)
def test_equal_groups_give_equal_refits(options, seed):
    blocks = family_rows(100, DIMS, seed, mean=2)
    found = list(refits(state_of([blocks] * 5), NAMES, **options))
    assert len(found) == 5 + 5 + 1 + 10
    for refit in found:
        assert isinstance(refit, Refit)
        assert largest_difference(refit.head, found[0].head) < 1e-8
        for angles, d in zip(refit.angles, DIMS[1:], strict=True):
            assert angles.max() < 1e-8 + angle_error(d)


def test_the_full_fit_is_solved_once_and_no_group_is_lost(monkeypatch):
    solved = []

    def counted(moments, **options):
        solved.append(moments.num_rows)
        return fit_chain(moments, **options)

    monkeypatch.setattr(training_set, "fit_chain", counted)
    found = list(refits(state_of(groups_of_rows(10, 0)), NAMES, num_draws=2, num_resamples=3))
    assert len(found) == 2 + 2 + 1 + 3
    assert solved == [600, 60, 60, 180, 180, 600, 600, 600]


def test_draws_with_too_few_residues_are_told_not_dropped():
    state = state_of(groups_of_rows(10, 0, rows_each=10))
    found = list(refits(state, NAMES, shares=(0.1, 0.5), num_draws=2, num_resamples=1))
    assert [type(r) for r in found] == [Skipped, Skipped, Refit, Refit, Refit]
    assert found[1][:4] == ("subset", 0.1, 1, 10)
    assert "10 residues cannot determine 14 directions of 150M" in found[0].reason
    table = summarise(found)
    assert len(table) == 2 * len(found)
    assert table["median_angle_degrees"].isna().tolist() == [True] * 4 + [False] * 6


@pytest.mark.parametrize("seed", SEEDS)
def test_the_table_has_a_row_a_refit_and_stage(seed):
    state = state_of(groups_of_rows(5, seed), family_rows(80, DIMS, seed + 50, mean=2))
    found = list(refits(state, NAMES, shares=(0.4,), num_draws=2, num_resamples=1))
    table = summarise(iter(found))
    assert tuple(table.columns) == COLUMNS
    assert table["stage"].tolist() == ["8M->35M", "35M->150M"] * 3
    assert table["kind"].tolist() == ["subset"] * 4 + ["bootstrap"] * 2
    for i, refit in enumerate(found):
        assert isinstance(refit, Refit)
        for k, angles in enumerate(refit.angles):
            row = table.iloc[2 * i + k]
            assert (row["share"], row["draw"]) == (refit.share, refit.draw)
            assert row["num_residues"] == refit.num_residues
            degrees = np.degrees(angles.numpy())
            assert row["median_angle_degrees"] == pytest.approx(np.median(degrees))
            assert row["largest_angle_degrees"] == pytest.approx(degrees.max())
            assert row["r2_heldout"] == refit.r2_heldout[k]


def test_a_table_without_held_out_residues_or_refits():
    found = refits(state_of(groups_of_rows(3, 0)), NAMES, shares=(1.0,), num_resamples=0)
    assert summarise(found)["r2_heldout"].isna().all()
    assert tuple(summarise([]).columns) == COLUMNS


def test_a_larger_share_is_nearer_to_the_full_fit():
    """Of rows with a clear gap between what is added and what is not."""
    state = state_of(groups_of_rows(20, 3, rows_each=100))
    table = summarise(refits(state, NAMES, shares=(0.1, 0.5), num_resamples=0))
    angles = table.groupby(["stage", "share"])["median_angle_degrees"].mean().unstack()
    assert (angles[0.5] < 0.7 * angles[0.1]).all()


def test_inputs_that_cannot_be():
    """All at the call, before anything is drawn."""
    groups = groups_of_rows(3, 0)
    state = state_of(groups)
    with pytest.raises(InputError, match=r"in 1 group; .* rd-fit data\.num_groups=20"):
        refits(state_of(groups[:1]), NAMES)
    for share in (0, -0.1, 1.5, math.nan):
        with pytest.raises(InputError, match=r"each is a share of the groups in \(0, 1\], not"):
            refits(state, NAMES, shares=(0.1, share))
    with pytest.raises(InputError, match="num_draws is a whole number of at least 1"):
        refits(state, NAMES, num_draws=0)
    with pytest.raises(InputError, match="num_resamples is a whole number of at least 0"):
        refits(state, NAMES, num_resamples=-1)
    with pytest.raises(InputError, match="2 names for 3 models"):
        refits(state, NAMES[:2])
    with pytest.raises(InputError, match="ridge, the penalty"):
        refits(state, NAMES, regression="ridge")
    with pytest.raises(InputError, match="more residues than columns are needed"):
        refits(state_of(groups_of_rows(3, 0, rows_each=4)), NAMES)
    state.parts.append(Part("x", "y", {}, 1, 1, 3, 9))
    with pytest.raises(InputError, match="of an unfinished run .3 of 9 batches"):
        refits(state, NAMES)
