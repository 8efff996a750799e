import warnings

import numpy as np
import pytest

from rd_lightning.errors import InputError
from rd_lightning.evaluation.statistics import protein_bootstrap
from rd_lightning.evaluation.statistics.predictions import Side
from rd_lightning.evaluation.statistics.protein_bootstrap import Drawn, resample_task
from rd_lightning.evaluation.statistics.resampling import cluster_counts
from rd_lightning.evaluation.statistics.task_metrics import Truth, metric_names, task_metrics

from ...conftest import SEEDS
from .test_task_metrics import planted_task

KINDS = ("classes", "labels", "number")
OURS, THEIRS = Side("rd", "35M"), Side("raw", "35M")
ROUNDING = 1e-10
"""Sums of some hundred products of numbers about 1, divided by variances above 0.01."""


def quietly(*args, **kwargs) -> dict[Side, dict[str, Drawn]]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return resample_task(*args, **kwargs)


def repeated(truth: Truth, scores: np.ndarray, counts: np.ndarray) -> tuple[Truth, np.ndarray]:
    """The rows of a resample, each copy of a protein a protein of its own."""
    of = np.unique(truth.clusters, return_inverse=True)[1]
    proteins = [p for p, c in enumerate(of) for _ in range(int(counts[c]))]
    rows = [np.flatnonzero(truth.protein == p) for p in proteins]
    copies = np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    every = np.concatenate(rows)
    own = truth._replace(
        values=truth.values[every], protein=copies, clusters=np.arange(len(proteins))
    )
    return own, scores[every]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("per_residue", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_the_metrics_of_the_repeated_rows(kind, per_residue, seed):
    """So few rows that each score of a positive has a bin of its own. Some resamples miss a class,
    have a label in no row or in all, or a protein without a correlation of its own."""
    truth, scores = planted_task(seed, kind)
    truth = truth._replace(per_residue=per_residue)
    rare = np.flatnonzero(truth.protein < 3)
    if kind == "classes":
        truth.values[truth.values == 2] = 1
        truth.values[rare] = 2
    elif kind == "labels":
        truth.values[:, 0], truth.values[:, 1] = truth.protein < 3, truth.protein >= 3
    else:
        scores[truth.protein == 4] = 0.5
    found = quietly(truth, {OURS: scores}, num_resamples=40, seed=seed)[OURS]
    assert tuple(found) == metric_names(truth.kind, per_residue)
    number = len(np.unique(truth.clusters))
    [(_, counts)] = cluster_counts(number, 40, 40, np.random.default_rng(seed))
    assert (counts[:2].sum(axis=0) == 0).any()  # the clusters of the first three proteins
    for i, drawn in enumerate(counts.T):
        expected = task_metrics(*repeated(truth, scores, drawn))
        for name, own in found.items():
            assert own.draws[i] == pytest.approx(expected[name], abs=ROUNDING, nan_ok=True), name
    assert {name: own.value for name, own in found.items()} == {
        name: value
        for name, value in task_metrics(truth, scores).items()
        if name != "proteins_defined"
    }


def test_areas_in_bins_are_moved_to_the_exact_value(monkeypatch):
    """With a bin for each positive the draws are exact; in coarse bins each draw, moved, is off by
    at most the bounds of itself and of all rows, which for 40 bins are about 0.1 at most
    (test_score_bins), and their mean lies by the exact value."""
    truth, scores = planted_task(0, "classes", num_proteins=60)
    scores = scores + 0.01 * np.random.default_rng(0).standard_normal(scores.shape)
    exact = resample_task(truth, {OURS: scores}, num_resamples=100)[OURS]

    class Coarse(protein_bootstrap.ScoreBins):
        def __init__(self, *args):
            super().__init__(*args, num_bins=40)

    monkeypatch.setattr(protein_bootstrap, "ScoreBins", Coarse)
    coarse = resample_task(truth, {OURS: scores}, num_resamples=100)[OURS]
    for name, own in coarse.items():
        assert own.value == exact[name].value
        error = np.abs(own.draws - exact[name].draws).max()
        if name.startswith("au"):
            assert 0 < error < 0.2
            assert abs(own.draws.mean() - exact[name].draws.mean()) < 0.2 * own.draws.std()
        else:
            assert error == 0


def copied(truth: Truth, scores: np.ndarray, times: int) -> tuple[Truth, np.ndarray]:
    """Every protein that many times, its copies in its cluster."""
    number = len(truth.clusters)
    protein = np.concatenate([truth.protein + number * i for i in range(times)])
    values = np.concatenate([truth.values] * times)
    clusters = np.tile(truth.clusters, times)
    return truth._replace(values=values, protein=protein, clusters=clusters), np.concatenate(
        [scores] * times
    )


@pytest.mark.parametrize("kind", KINDS)
def test_copies_of_proteins_narrow_nothing(kind):
    """All metrics are functions of shares, so the draws of 50 copies of each are those of one.
    Resampled alone they would give an interval a seventh as wide."""
    truth, scores = planted_task(0, kind)
    many, of_many = copied(truth, scores, 50)
    once = quietly(truth, {OURS: scores}, num_resamples=60)[OURS]
    often = quietly(many, {OURS: of_many}, num_resamples=60)[OURS]
    alone = many._replace(clusters=np.arange(len(many.clusters)))
    wrong = quietly(alone, {OURS: of_many}, num_resamples=60)[OURS]
    for name in once:
        assert often[name].draws == pytest.approx(once[name].draws, abs=ROUNDING), name
        assert np.std(wrong[name].draws) < 0.3 * np.std(once[name].draws)


@pytest.mark.parametrize("kind", KINDS)
def test_one_protein_in_fifty_copies_does_not_count_as_fifty(kind):
    truth, scores = planted_task(1, kind)
    first = truth.protein == 0
    copies = np.repeat(np.arange(50), first.sum()) + 12
    heavy = truth._replace(
        values=np.concatenate([truth.values, *[truth.values[first]] * 50]),
        protein=np.concatenate([truth.protein, copies]),
        clusters=np.concatenate([truth.clusters, np.full(50, truth.clusters[0])]),
    )
    guess = np.concatenate([scores, *[scores[first]] * 50])
    name = metric_names(truth.kind, False)[0]
    together = quietly(heavy, {OURS: guess}, num_resamples=400)[OURS][name].draws
    alone = heavy._replace(clusters=np.arange(62))
    apart = quietly(alone, {OURS: guess}, num_resamples=400)[OURS][name].draws
    assert np.std(together) > 1.5 * np.std(apart)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_do_not_depend_on_other_sides_or_on_chunks(kind, monkeypatch):
    truth, scores = planted_task(0, kind)
    sides = {Side("rd", str(i)): scores + 0.1 * i for i in range(10)}
    seen = []
    found = quietly(truth, sides, num_resamples=40, on_side=lambda: seen.append(1))
    assert list(found) == list(sides) and len(seen) == 10
    monkeypatch.setattr(protein_bootstrap, "_COLUMNS_CHUNK", 7)
    monkeypatch.setattr(protein_bootstrap, "VALUES_AT_ONCE", 7 * len(scores))
    last = Side("rd", "9")
    alone = quietly(truth, {last: sides[last]}, num_resamples=40)[last]
    other = quietly(truth, {last: sides[last]}, num_resamples=40, seed=1)[last]
    for name, own in found[last].items():
        assert alone[name].draws == pytest.approx(own.draws, abs=1e-12)
        assert alone[name].value == own.value == other[name].value
        assert not np.allclose(other[name].draws, own.draws)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interval_is_widened_about_its_middle(kind):
    truth, scores = planted_task(0, kind)
    plain = quietly(truth, {OURS: scores}, num_resamples=50)[OURS]
    wide = quietly(truth._replace(widening=1.5), {OURS: scores}, num_resamples=50)[OURS]
    for name, own in plain.items():
        middle = own.draws.mean()
        assert wide[name].value == own.value
        assert wide[name].draws - middle == pytest.approx(1.5 * (own.draws - middle))


@pytest.mark.parametrize("kind", KINDS)
def test_one_cluster_has_values_and_no_draws(kind):
    truth, scores = planted_task(0, kind)
    found = quietly(truth._replace(clusters=np.full(12, 3)), {OURS: scores}, num_resamples=9)[OURS]
    for own in found.values():
        assert np.isfinite(own.value) and np.isnan(own.draws).all() and len(own.draws) == 9


@pytest.mark.parametrize("kind", KINDS)
def test_proteins_without_rows_are_not_drawn(kind):
    """Proteins of which no residue counts."""
    truth, scores = planted_task(0, kind)
    sparse = truth._replace(
        protein=2 * truth.protein + 1, clusters=np.repeat(truth.clusters, 2) * 2 + np.arange(24) % 2
    )
    found, expected = (quietly(t, {OURS: scores}, num_resamples=20)[OURS] for t in (sparse, truth))
    for name, own in expected.items():
        assert found[name].draws == pytest.approx(own.draws, abs=1e-12)


def test_what_is_not_defined_has_no_draws():
    truth, scores = planted_task(0, "number")
    found = quietly(truth, {OURS: 0 * scores + 0.1, THEIRS: scores}, num_resamples=9)
    for name, own in found[OURS].items():
        assert np.isnan(own.value) and np.isnan(own.draws).all()
        assert np.isfinite(found[THEIRS][name].draws).all()
    truth, scores = planted_task(0, "labels")
    scores[:, 0] = 0.2
    found = quietly(truth, {OURS: scores}, num_resamples=9)[OURS]
    assert np.isnan(found["mcc_macro"].draws).all()
    assert np.isfinite(found["f1_macro"].draws).all()
    with pytest.raises(InputError, match="num_resamples is a whole number"):
        resample_task(truth, {OURS: scores}, num_resamples=0)
    assert resample_task(truth, {}) == {}


def test_a_resample_of_equal_predictions_has_no_correlation():
    """Not even one of rounding: three clusters, of which one has constant predictions."""
    truth, scores = planted_task(0, "number")
    truth = truth._replace(clusters=np.arange(12) // 4)
    scores[truth.protein < 4] = 0.1
    found = quietly(truth, {OURS: scores}, num_resamples=100)[OURS]
    [(_, counts)] = cluster_counts(3, 100, 100, np.random.default_rng(0))
    alone = counts[0] == 3
    assert alone.any()
    for own in found.values():
        assert np.array_equal(np.isnan(own.draws), alone)


def test_labels_that_say_nothing_are_at_chance():
    """Of 40 intervals with a chance of 0.9 or more, fewer than 29 hold 0.5 once in 2,600 times."""
    truth, scores = planted_task(0, "labels", num_proteins=30)
    held = 0
    for seed in range(40):
        order = np.random.default_rng(seed).permutation(len(scores))
        shuffled = truth._replace(values=truth.values[order])
        draws = resample_task(shuffled, {OURS: scores}, num_resamples=200)[OURS]
        low, high = np.quantile(draws["auroc_macro"].draws, [0.025, 0.975])
        held += low <= 0.5 <= high
    assert held >= 29


def shared_errors(seed: int, num_proteins: int) -> tuple[Truth, np.ndarray]:
    """In some proteins the scores tell nearly all, in others little."""
    generator = np.random.default_rng(seed)
    protein = np.repeat(np.arange(num_proteins), 30)
    values = generator.integers(2, size=len(protein))
    signal = generator.uniform(0, 3, size=num_proteins)[protein]
    score = signal * (values - 0.5) + generator.standard_normal(len(protein))
    clusters = np.arange(num_proteins)
    truth = Truth("classes", values, protein, clusters, ("a", "b"), True)
    return truth, np.column_stack([-score, score])


@pytest.mark.parametrize(
    ("trials", "least"), [(30, 25), pytest.param(200, 180, marks=pytest.mark.slow)]
)
def test_intervals_over_proteins_cover_the_truth_and_those_over_residues_do_not(trials, least):
    """Of 200 intervals of a chance of 0.94 (the percentiles of 50 clusters are a little narrow)
    fewer than 180 (0.90) hold the truth once in 100 times; of 30, fewer than 25 once in 150.

    Over residues they are narrower by ``sqrt(1 + 29 c)``, with c the correlation of hits within a
    protein: too narrow by half for c = 0.1.
    """
    metrics = ("accuracy", "auroc_macro", "aupr_macro")
    truth = task_metrics(*shared_errors(10**6, 20_000))
    covered = dict.fromkeys([(m, by) for m in metrics for by in ("proteins", "residues")], 0)
    for seed in range(trials):
        own, scores = shared_errors(seed, 50)
        rows = np.arange(len(scores))
        for by, task in (
            ("proteins", own),
            ("residues", own._replace(protein=rows, clusters=rows)),
        ):
            found = resample_task(task, {OURS: scores}, num_resamples=300, seed=seed)[OURS]
            for metric in metrics:
                low, high = np.quantile(found[metric].draws, [0.025, 0.975])
                covered[metric, by] += low <= truth[metric] <= high
    for metric in metrics:
        assert covered[metric, "proteins"] >= least, covered
        assert covered[metric, "residues"] < 0.8 * trials, covered
