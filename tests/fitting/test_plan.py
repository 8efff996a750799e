import itertools
from dataclasses import asdict, replace

import numpy as np
import pytest

from rd_lightning.data.scan import scan_fasta
from rd_lightning.data.store import SequenceStore
from rd_lightning.errors import InputError
from rd_lightning.families.esm2 import esm_tokenizer
from rd_lightning.fitting.plan import (
    HELDOUT,
    BatchPlan,
    PlanSettings,
    check_enough,
    planned_batch,
)

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
        {"heldout": True},
        {"heldout": "0.1"},
        {"num_sequences": 0},
        {"num_groups": 0},
        {"seed": -1},
    ],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises((InputError, TypeError), match=next(iter(wrong))):
        PlanSettings(**wrong)


def test_settings_at_their_limits_and_by_default():
    """A default is part of a plan's digest, which checkpoints hold."""
    least = {"tokens_per_batch": 1, "max_residues": 1, "num_sequences": 1, "num_groups": 1}
    least |= {"heldout": 0, "seed": 0}
    assert {k: v for k, v in asdict(PlanSettings(**least)).items() if k in least} == least
    assert PlanSettings() == PlanSettings(2048, 1022, "window", None, 0.05, 1, 0)


def test_the_summary_counts_what_the_batches_hold(store):
    plan = BatchPlan(store, SETTINGS)
    held, batches = plan.group == HELDOUT, [plan.windows(b) for b in range(len(plan))]
    residues = np.array([sum(length for *_, length in windows) for windows in batches])
    tokens = [len(windows) * (windows[0][2] + 2) for windows in batches]
    assert plan.residues_by_batch().tolist() == residues.tolist()
    assert [plan.num_residues(b) for b in range(len(plan))] == residues.tolist()
    assert plan.tokens_by_batch().tolist() == tokens
    found = plan.summary()
    assert found.num_sequences == 101
    digests = store.column("digest")
    assert found.num_heldout_sequences == (digests < int(0.2 * 2**64)).sum() > 0
    assert (found.num_residues, found.num_tokens) == (residues.sum(), sum(tokens))
    assert found.num_heldout_residues == residues[held].sum() > 0
    assert (found.num_batches, found.num_windows) == (len(batches), sum(map(len, batches)))
    assert found.longest_window == max(windows[0][2] for windows in batches)
    assert found.num_residues_left_out == 0


@pytest.mark.parametrize(
    ("long", "windows", "left_out"),
    [
        ("window", [(1, 40), (2, 21), (2, 20), (3, 40), (3, 40), (0, 39)], 0),
        ("whole", [(0, 39), (1, 40), (2, 41), (3, 80)], 0),
        ("skip", [(0, 39), (1, 40)], 121),
        ("truncate", [(0, 39), (1, 40), (2, 40), (3, 40)], 41),
    ],
)
def test_lengths_at_the_limit(fasta, long, windows, left_out):
    """40 residues are not too long for a window of 40."""
    with scan_fasta(fasta(["A" * 39, "C" * 40, "D" * 41, "E" * 80])) as store:
        plan = BatchPlan(store, replace(SETTINGS, long=long, heldout=0))
        found = [(i, size) for b in range(len(plan)) for i, _, size in plan.windows(b)]
        assert sorted(found) == sorted(windows)
        assert plan.summary().num_long == 2
        assert plan.summary().num_residues_left_out == left_out


@pytest.mark.parametrize("num_groups", [1, 3, 50_000])
def test_groups_are_by_digest(store, num_groups):
    """50,000 is more than 16 bits hold with a sign."""
    plan = BatchPlan(store, replace(SETTINGS, num_groups=num_groups))
    digests = store.column("digest")
    for b in range(len(plan)):
        for i, *_ in plan.windows(b):
            held = int(digests[i]) < int(0.2 * 2**64)
            assert plan.group[b] == (HELDOUT if held else int(digests[i]) % num_groups)


def test_equal_lengths_keep_the_order_of_the_file(store):
    """Within a group; of batches of equal length too."""
    plan = BatchPlan(store, replace(SETTINGS, num_groups=2))
    for group in (HELDOUT, 0, 1):
        found = [
            (-length, i, start)
            for b in np.flatnonzero(plan.group == group).tolist()
            for i, start, length in plan.windows(b)
        ]
        whole = [(length, i) for length, i, start in found if not start]
        assert [length for length, *_ in found] == sorted(length for length, *_ in found)
        short = [pair for pair in whole if len(store.sequence(pair[1])) <= 40]
        assert short == sorted(short)


def test_a_number_is_its_batch_and_a_negative_one_none(store):
    plan = BatchPlan(store, SETTINGS)
    for number in (0, len(plan) - 1):
        batch = planned_batch(store, number, plan=plan, tokenizer=esm_tokenizer())
        assert batch.windows == plan.windows(number)
        assert (batch.number, batch.group) == (number, plan.group[number])
        assert batch.num_residues == plan.num_residues(number)
    none = planned_batch(store, -1, plan=plan, tokenizer=esm_tokenizer())
    assert (none.number, none.num_residues, none.windows) == (-1, 0, [])


def test_what_is_held_out_does_not_determine_the_chain(store):
    """One residue more than columns is enough, counted without the held-out ones."""
    planned = BatchPlan(store, SETTINGS).summary()
    options = {"num_components": 1, "level_widths": None}
    fit = planned.num_residues - planned.num_heldout_residues
    check_enough(planned, [4, fit - 1], ["a", "b"], options)
    with pytest.raises(InputError, match=f"{fit} residues cannot determine {fit} directions of b"):
        check_enough(planned, [4, fit], ["a", "b"], options)
    without = replace(planned, num_heldout_residues=1)
    with pytest.raises(InputError, match="needs held-out sequences"):
        check_enough(without, [4, 5], ["a", "b"], {**options, "num_components": "heldout"})
