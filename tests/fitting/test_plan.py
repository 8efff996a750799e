import itertools
from dataclasses import replace

import pytest

from rd_lightning.data.scan import scan_fasta
from rd_lightning.data.store import SequenceStore
from rd_lightning.errors import InputError
from rd_lightning.fitting.plan import HELDOUT, BatchPlan, PlanSettings

from ..conftest import SEEDS, random_sequences


@pytest.fixture(params=SEEDS)
def store(request, fasta):
    with scan_fasta(fasta(random_sequences(101, request.param, longest=90))) as store:
        yield store


SETTINGS = PlanSettings(tokens_per_batch=200, max_residues=40, heldout=0.2)


def residues(plan: BatchPlan) -> list[tuple[int, int]]:
    """Every (sequence, position) of every batch."""
    windows = itertools.chain(*(plan.windows(b) for b in range(len(plan))))
    return [(i, p) for i, start, length in windows for p in range(start, start + length)]


def everything(store: SequenceStore) -> set[tuple[int, int]]:
    return {(i, p) for i in range(len(store)) for p in range(len(store.sequence(i)))}


@pytest.mark.parametrize("long", ["window", "whole"])
def test_every_residue_is_in_exactly_one_batch(store, long):
    plan = BatchPlan(store, replace(SETTINGS, long=long))
    found = residues(plan)
    assert len(found) == len(set(found))
    assert set(found) == everything(store)
    assert plan.summary().num_residues == store.summary.num_residues


def test_windows_are_the_fewest_and_equal_to_within_one(store):
    plan = BatchPlan(store, SETTINGS)
    by_sequence: dict[int, list[int]] = {}
    for b in range(len(plan)):
        for i, _, length in plan.windows(b):
            by_sequence.setdefault(i, []).append(length)
    for i, lengths in by_sequence.items():
        assert len(lengths) == -(-len(store.sequence(i)) // SETTINGS.max_residues)
        assert max(lengths) - min(lengths) <= 1


def test_skip_and_truncate_say_what_is_left_out(store):
    lengths = store.column("length")
    skipped = BatchPlan(store, replace(SETTINGS, long="skip")).summary()
    assert skipped.num_residues == lengths[lengths <= 40].sum()
    assert skipped.num_residues_left_out == lengths[lengths > 40].sum()
    cut = BatchPlan(store, replace(SETTINGS, long="truncate"))
    assert cut.summary().num_residues == lengths.clip(max=40).sum()
    assert cut.summary().num_residues_left_out == (lengths - lengths.clip(max=40)).sum()
    assert {p for _, p in residues(cut)} <= set(range(40))
    assert cut.summary().num_long == (lengths > 40).sum()


def test_budget_groups_and_order(store):
    plan = BatchPlan(store, SETTINGS)
    longest = []
    digests = store.column("digest")
    for b in range(len(plan)):
        windows = plan.windows(b)
        longest.append(max(length for _, _, length in windows))
        assert len(windows) * (longest[-1] + 2) <= SETTINGS.tokens_per_batch
        for i, _, _ in windows:
            assert (digests[i] < int(0.2 * 2**64)) == (plan.group[b] == HELDOUT)
    assert longest == sorted(longest, reverse=True)
    assert {HELDOUT, 0} == set(plan.group.tolist())


def test_a_window_above_the_budget_is_alone(store):
    plan = BatchPlan(store, replace(SETTINGS, tokens_per_batch=1))
    assert all(len(plan.windows(b)) == 1 for b in range(len(plan)))


def test_same_input_same_plan(store):
    one, two = BatchPlan(store, SETTINGS), BatchPlan(store, SETTINGS)
    assert one.digest() == two.digest()
    assert residues(one) == residues(two)
    others = [
        replace(SETTINGS, tokens_per_batch=100),
        replace(SETTINGS, heldout=0.1),
        replace(SETTINGS, num_sequences=50),
    ]
    assert len({BatchPlan(store, s).digest() for s in [SETTINGS, *others]}) == 4


def test_a_random_subset(store):
    subset = replace(SETTINGS, num_sequences=30, seed=1)
    chosen = {i for i, _ in residues(BatchPlan(store, subset))}
    assert len(chosen) == 30
    assert chosen == {i for i, _ in residues(BatchPlan(store, subset))}
    assert chosen != {i for i, _ in residues(BatchPlan(store, replace(subset, seed=2)))}
    with pytest.raises(InputError, match="num_sequences=1000 asked for, but the file has 101"):
        BatchPlan(store, replace(SETTINGS, num_sequences=1000))


def test_copies_of_a_sequence_are_on_one_side(fasta):
    sequences = random_sequences(40, 3)
    with scan_fasta(fasta(sequences * 2)) as store:
        plan = BatchPlan(store, replace(SETTINGS, heldout=0.5))
        sides: dict[bytes, set[int]] = {}
        for b in range(len(plan)):
            for i, _, _ in plan.windows(b):
                sides.setdefault(store.sequence(i), set()).add(int(plan.group[b]))
        assert all(len(side) == 1 for side in sides.values())


def test_all_sequences_too_long_to_keep(fasta):
    with (
        scan_fasta(fasta(["A" * 50])) as store,
        pytest.raises(InputError, match="long=skip leaves none"),
    ):
        BatchPlan(store, replace(SETTINGS, long="skip"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens_per_batch": 0},
        {"max_residues": 0},
        {"long": "cut"},
        {"heldout": 1.0},
        {"heldout": -0.1},
        {"num_sequences": 0},
    ],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises((InputError, TypeError), match=next(iter(wrong))):
        PlanSettings(**wrong)
