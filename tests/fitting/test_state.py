"""What adds up, what does not go together, and the file."""

import weakref

import pytest
import torch

from rd_lightning import JointMoments
from rd_lightning.errors import InputError
from rd_lightning.fitting.plan import HELDOUT
from rd_lightning.fitting.state import FitState, Part, solve_state

from ..conftest import SEEDS, family_rows
from ..ranks import Ranks

DIMS = [5, 9]
IDENTITY = {"family": "tiny", "names": ["A", "B"], "weights": {"A": "1", "B": "2"}}


def state_of(rows, content: str, *, index=1, of=1, identity=None, groups=1) -> FitState:
    state = FitState(DIMS, groups)
    state.identity = dict(identity or IDENTITY)
    for g, moments in enumerate(state.groups):
        moments.update([r[g::groups] for r in rows])
    state.parts = [Part(content, f"plan of {content}", {}, index, of, 3, 3)]
    return state


@pytest.mark.parametrize("seed", SEEDS)
def test_states_of_different_data_and_shifts_add_up(tmp_path, seed):
    one, two = family_rows(200, DIMS, seed), family_rows(300, DIMS, seed + 10, mean=3)
    merged = state_of(one, "x").merge_(state_of(two, "y"))
    rows = torch.cat([torch.cat([a, b]) for a, b in zip(one, two, strict=True)], dim=1)
    error = (merged.total.covariance - torch.cov(rows.T)).norm() / torch.cov(rows.T).norm()
    assert error < 1e-12
    merged.save(tmp_path / "m")
    loaded = FitState.load(tmp_path / "m")
    assert loaded.parts == merged.parts
    assert loaded.identity == merged.identity
    assert torch.equal(loaded.total.covariance, merged.total.covariance)
    assert torch.equal(JointMoments.load(tmp_path / "m").covariance, merged.total.covariance)


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_add_up_to_the_whole(tmp_path, seed):
    rows = family_rows(300, DIMS, seed)
    state = state_of(rows, "x", groups=4)
    expected = torch.cov(torch.cat(rows, dim=1).T)
    assert (state.total.covariance - expected).norm() / expected.norm() < 1e-12
    state.to("cpu").save(tmp_path / "m")
    loaded = FitState.load(tmp_path / "m")
    assert [m.num_rows for m in loaded.groups] == [75] * 4
    assert torch.equal(loaded.groups[2].covariance, state.groups[2].covariance)


def test_states_that_do_not_go_together():
    rows = family_rows(50, DIMS, 0)
    one = state_of(rows, "x")
    other = {**IDENTITY, "weights": {"A": "1", "B": "3"}}
    with pytest.raises(InputError, match=r"weights\.B: 2 in one, 3 in the other"):
        one.clone().merge_(state_of(rows, "y", identity=other))
    with pytest.raises(InputError, match="num_groups: 1 in one, 2 in the other"):
        one.clone().merge_(state_of(rows, "y", groups=2))
    with pytest.raises(InputError, match="part 1 of 1 of these sequences is in already"):
        one.clone().merge_(state_of(rows, "x"))


def shares(index: int, of: int, *, done: int = 3, plan: str = "p") -> FitState:
    """A state of one share of the sequences x."""
    state = state_of(family_rows(20, DIMS, index), "x", index=index, of=of)
    state.parts = [Part("x", plan, {}, index, of, done, 3)]
    return state


def test_shares_of_one_plan_add_up_each_once():
    whole = shares(1, 3).merge_(shares(3, 3)).merge_(shares(2, 3))
    assert [part.index for part in whole.parts] == [1, 3, 2]
    assert whole.total.num_rows == 60
    with pytest.raises(InputError, match="part 2 of 3 of these sequences is in already"):
        whole.merge_(shares(2, 3))
    with pytest.raises(InputError, match=r"another plan \(part 1 of 3\); residues would count"):
        whole.merge_(shares(2, 4))
    with pytest.raises(InputError, match=r"another plan \(part 1 of 3\)"):
        whole.merge_(shares(2, 3, plan="q"))
    assert whole.total.num_rows == 60


def test_an_unfinished_share_is_not_added():
    message = r"x\.st: is of an unfinished run \(2 of 3 batches\); finish it with rd-fit resume="
    with pytest.raises(InputError, match=message):
        shares(1, 2).merge_(shares(2, 2, done=2), name="x.st")
    with pytest.raises(InputError, match=message):
        shares(1, 2, done=2).merge_(shares(2, 2), name="x.st")
    assert shares(1, 2).unusable() is None
    assert FitState(DIMS).unusable() is None  # of data without a plan


def test_held_out_rows_are_apart(tmp_path):
    rows, heldout = family_rows(60, DIMS, 0), family_rows(40, DIMS, 1)
    state = FitState(DIMS, 2)
    state.set_shift_(torch.cat(rows, dim=1).mean(dim=0))
    state.of_group(0).update([r[:30] for r in rows])
    state.of_group(1).update([r[30:] for r in rows])
    state.of_group(HELDOUT).update(heldout)
    state.identity = dict(IDENTITY)
    state.save(tmp_path / "m")
    for found in (state, state.clone(), FitState.load(tmp_path / "m")):
        for moments, given in ((found.total, rows), (found.heldout, heldout)):
            expected = torch.cov(torch.cat(given, dim=1).T)
            assert (moments.covariance - expected).norm() / expected.norm() < 1e-12
        assert [m.num_rows for m in found.all_moments] == [30, 30, 40]
        assert torch.equal(found.shift, state.groups[0].shift)
        assert found.identity == IDENTITY
    size = sum(DIMS) ** 2 * 8
    assert 3 * size <= state.num_bytes <= 3 * (size + 10 * sum(DIMS) * 8)


def test_a_clone_shares_nothing():
    state = shares(1, 2)
    copy = state.clone()
    copy.merge_(shares(2, 2))
    copy.identity["family"] = "other"
    assert (state.total.num_rows, copy.total.num_rows) == (20, 40)
    assert len(state.parts) == 1 and state.identity == IDENTITY


def test_the_sum_on_the_host_takes_no_copy_on_the_device(monkeypatch):
    state = state_of(family_rows(60, DIMS, 0), "x", groups=2)
    state.heldout.set_shift_(state.shift or state.groups[0].shift)
    expected = state.clone()
    for name in ("clone", "all_reduce_"):
        monkeypatch.setattr(JointMoments, name, lambda self: pytest.fail("a copy, or a collective"))
    found = state.summed_on_host()
    assert found is not None and (found.parts, found.identity) == (state.parts, IDENTITY)
    for a, b, mine in zip(found.all_moments, expected.all_moments, state.all_moments, strict=True):
        assert torch.equal(a.flat, b.flat) and torch.equal(a.shift, b.shift)
        assert a.flat.data_ptr() != mine.flat.data_ptr()
    assert state.summed_on_host(keep=False) is None


def test_the_sum_of_two_processes_is_there_once_a_group(monkeypatch):
    """On every device one group at a time is there twice; the sum is where it is asked for."""
    shift = torch.zeros(sum(DIMS), dtype=torch.float64)
    states = []
    for rank in range(2):
        state = FitState(DIMS, 3).set_shift_(shift)
        for g, moments in enumerate(state.all_moments):
            moments.update(family_rows(20 + g, DIMS, 10 * rank + g))
        states.append(state)
    alive, most = weakref.WeakSet(), []
    clone = JointMoments.clone

    def counted(self):
        made = clone(self)
        alive.add(made)
        most.append(len(alive))
        return made

    expected = [a.clone().merge_(b) for a, b in zip(*(s.all_moments for s in states), strict=True)]
    monkeypatch.setattr(JointMoments, "clone", counted)
    ranks = Ranks(2, monkeypatch)
    found = ranks.run(lambda rank: states[rank].summed_on_host(keep=rank == 0))
    assert found[1] is None
    assert max(most) <= 2  # one a process, which threads stand for
    for got, sums in zip(found[0].all_moments, expected, strict=True):
        assert got.num_rows == sums.num_rows
        assert (got.covariance - sums.covariance).norm() / sums.covariance.norm() < 1e-12
    assert [m.num_rows for m in states[0].all_moments] == [20, 21, 22, 23]


def test_files_that_are_no_state(tmp_path):
    moments = JointMoments(DIMS)
    moments.update(family_rows(20, DIMS, 0))
    moments.save(tmp_path / "m")
    with pytest.raises(InputError, match="not the state of a fit"):
        FitState.load(tmp_path / "m")


def test_a_state_without_names_is_not_solved():
    state = shares(1, 1)
    state.identity = {}
    with pytest.raises(InputError, match="does not say which members"):
        solve_state(state, {})
    head = solve_state(shares(1, 1), {}, {"where": "here"})
    assert head.names == ("A", "B") and head.dims == tuple(DIMS)
    assert head.report.context["where"] == "here"
    assert [part["index"] for part in head.report.context["parts"]] == [1]
    assert head.report.num_residues == 20


@pytest.mark.parametrize(("heldout", "has_r2"), [(0, False), (1, False), (2, True)])
def test_held_out_rows_are_scored_where_they_can_vary(heldout, has_r2):
    """One row has no variance."""
    rows = family_rows(60, DIMS, 0)
    state = state_of([r[2:] for r in rows], "x")
    state.heldout.update([r[:heldout] for r in rows])
    head = solve_state(state, {})
    assert (head.report.stages[0].r2_heldout is not None) == has_r2
    assert head.report.num_heldout_residues == (heldout if has_r2 else 0)
    assert state.num_rows == 58 + heldout


def test_ranks_add_up_group_by_group(monkeypatch):
    rows = family_rows(120, DIMS, 0, mean=2)

    def on(rank: int) -> FitState:
        state = FitState(DIMS, 2)
        for g, moments in enumerate(state.all_moments):
            moments.update([r[rank + 2 * g :: 6] for r in rows])
        return state.all_reduce_()

    for state in Ranks(2, monkeypatch).run(on):
        for g, moments in enumerate(state.all_moments):
            own = torch.cat([torch.cat(rows, 1)[rank + 2 * g :: 6] for rank in (0, 1)])
            assert moments.num_rows == 40
            error = (moments.covariance - torch.cov(own.T)).norm() / torch.cov(own.T).norm()
            assert error < 1e-12
