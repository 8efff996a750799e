"""Scores of test rows: against scikit-learn, and that nothing leaks from or to them."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from rd_lightning.data.fasta import RESIDUES
from rd_lightning.errors import InputError
from rd_lightning.evaluation.probes.architectures import NetworkSettings
from rd_lightning.evaluation.probes.ridge import DEFAULT_PENALTIES
from rd_lightning.evaluation.representations.affine import columns_of
from rd_lightning.evaluation.representations.baselines import Representation
from rd_lightning.evaluation.representations.row_stream import RowBatch
from rd_lightning.evaluation.representations.sequence_rows import SequenceRows
from rd_lightning.evaluation.statistics.predictions import Side
from rd_lightning.evaluation.statistics.protein_bootstrap import resample_task
from rd_lightning.evaluation.statistics.task_metrics import task_metrics
from rd_lightning.evaluation.tasks.probe_fits import Head, Source, probes_of
from rd_lightning.evaluation.tasks.reading import read_tasks
from rd_lightning.evaluation.tasks.scoring import TaskScored, num_fits, reads_often, score_task
from rd_lightning.evaluation.tasks.splits import TaskSplit, splits_of
from rd_lightning.evaluation.tasks.task import TEST, TRAIN, VALIDATION, Task
from rd_lightning.evaluation.tasks.task_moments import roles_of

from ...conftest import SHARED, random_sequences

D = 6
QUICK = NetworkSettings(learning_rate=2e-2, max_epochs=12, patience=5, proteins_per_step=20)


class Rows:
    """Given rows, by protein."""

    width = D

    def __init__(self, rows: Sequence[np.ndarray]) -> None:
        self.rows, self.read = rows, []

    def batches(
        self, proteins: Sequence[int], generator: torch.Generator | None = None
    ) -> Iterator[RowBatch]:
        order = list(proteins)
        if generator is not None:
            order = [order[i] for i in torch.randperm(len(order), generator=generator).tolist()]
        self.read.append(set(order))
        for start in range(0, len(order), 7):
            part = order[start : start + 7]
            own = [torch.from_numpy(self.rows[p]) for p in part]
            yield RowBatch(part, [len(rows) for rows in own], torch.cat(own))


def source(rows: Sequence[np.ndarray]) -> Source:
    whole = columns_of(slice(None), D)
    return Source(Rows(rows), [Representation("rd", whole, {2: "A", 4: "", D: "B"})])


def planted(seed: int, kind="classes", *, unit="residue", number=90, permuted=False, strength=3.0):
    """Rows and targets that follow from them by a linear rule, in three shipped parts."""
    drawn = np.random.default_rng(seed)
    sequences = tuple(s + "A" for s in random_sequences(number, seed, longest=30))
    rule = drawn.standard_normal((D, 3))
    rows, scores = [], []
    for sequence in sequences:
        size = len(sequence) if unit == "residue" else 1
        x = drawn.standard_normal((size, D)) * np.linspace(3, 0.5, D) + 4
        rows.append(x.astype(np.float32))
        scores.append(strength * (x - 4) @ rule + drawn.standard_normal((size, 3)))
    if permuted:
        scores = [drawn.standard_normal(s.shape) for s in scores]
    targets = {
        "classes": [s.argmax(axis=1) for s in scores],
        "labels": [(s > 0).astype(np.int8) for s in scores],
        "number": [s[:, 0] for s in scores],
    }[kind]
    names = () if kind == "number" else ("C", "E", "H")
    parts = np.repeat(
        [TRAIN, VALIDATION, TEST], [number // 2, number // 6, number - number // 2 - number // 6]
    )
    ids = tuple(f"p{i}" for i in range(number))
    return Task("t", unit, kind, ids, sequences, tuple(targets), names, parts), rows


def score(task: Task, rows, probes=("ridge",), **options) -> tuple[TaskScored, list[TaskSplit]]:
    splits, _ = splits_of(task)
    return score_task(task, splits, [source(rows)], probes, **options), splits


@pytest.mark.parametrize("unit", ["residue", "protein"])
@pytest.mark.parametrize("kind", ["classes", "labels", "number"])
def test_ridge_is_scikit_learns(kind, unit):
    task, rows = planted(0, kind, unit=unit)
    scored, [split] = score(task, rows)
    x, y = (
        [
            np.concatenate([of(p) for p in part])
            for part in (split.train, split.validation, split.test)
        ]
        for of in (lambda p: rows[int(p)].astype(np.float64), lambda p: task.y(int(p)))
    )
    for width, level in {2: "A", 4: "", D: "B"}.items():
        scaler = StandardScaler().fit(x[0][:, :width])
        z = [scaler.transform(part[:, :width]) for part in x]
        models = [Ridge(alpha=p).fit(z[0], y[0]) for p in DEFAULT_PENALTIES]
        errors = [
            ((m.predict(z[1]).reshape(y[1].shape) - y[1]) ** 2).sum(axis=1).mean() for m in models
        ]
        expected = models[int(np.argmin(errors))].predict(z[2])
        found = scored.scores[Head("ridge", "rd", level, width)]
        # Kept in float32, which rounds scores of a few units by a few 1e-7.
        assert np.allclose(found, expected.reshape(found.shape), atol=2e-6)
    chosen = {c["width"]: c["penalty"] for c in scored.choices}
    assert chosen[D] == DEFAULT_PENALTIES[int(np.argmin(errors))]


def test_the_truth_is_of_the_test_rows_that_count():
    task, rows = planted(1)
    targets = [t.copy() for t in task.targets]
    for t in targets:
        t[::3] = -1
    task = replace(task, targets=tuple(targets))
    scored, [split] = score(task, rows)
    expected = [task.targets[p][task.targets[p] >= 0] for p in split.test]
    assert scored.proteins == split.test.tolist()
    assert np.array_equal(scored.truth.values, np.concatenate(expected))
    assert np.array_equal(
        np.bincount(scored.truth.protein, minlength=len(expected)), list(map(len, expected))
    )
    assert all(
        len(s) == len(scored.truth.values) and np.isfinite(s).all() for s in scored.scores.values()
    )


@pytest.mark.parametrize("kind", ["classes", "labels", "number"])
def test_planted_signals_are_found_and_permuted_ones_are_not(kind):
    probes = ("ridge",) if kind == "number" else ("ridge", "logistic")
    for permuted in (False, True):
        task, rows = planted(2, kind, permuted=permuted)
        scored, _ = score(task, rows, probes)
        for probe in probes:
            own = scored.scores[Head(probe, "rd", "B", D)].astype(np.float64)
            metric = "spearman" if kind == "number" else "auroc_macro"
            chance = 0.0 if kind == "number" else 0.5
            if not permuted:
                assert task_metrics(scored.truth, own)[metric] > 0.9
                continue
            drawn = resample_task(scored.truth, {Side("rd", "B"): own}, num_resamples=300)
            low, high = np.quantile(drawn[Side("rd", "B")][metric].draws, [0.0005, 0.9995])
            assert low < chance < high


@pytest.mark.parametrize("probe", ["ridge", "logistic", "mlp"])
def test_masked_residues_change_nothing(probe):
    task, rows = planted(3)
    drawn = np.random.default_rng(0)
    hidden = [drawn.random(len(t)) < 0.3 for t in task.targets]
    targets = tuple(np.where(h, -1, t) for h, t in zip(hidden, task.targets, strict=True))
    task = replace(task, targets=targets)
    spoilt = [np.where(h[:, None], np.float32(1e6), r) for h, r in zip(hidden, rows, strict=True)]
    clean, masked = (score(task, r, (probe,), network=QUICK)[0] for r in (rows, spoilt))
    for head, values in clean.scores.items():
        assert np.array_equal(values, masked.scores[head]), head


@pytest.mark.parametrize("probe", ["ridge", "logistic", "cnn", "mlp"])
def test_test_proteins_touch_nothing(probe):
    """Other rows and other targets in one half of the test proteins: the other half is scored as
    before, and every choice is the same."""
    task, rows = planted(4)
    scored, [split] = score(task, rows, (probe,), network=QUICK)
    spoilt = set(split.test[::2].tolist())
    other_rows = [r * 100 if p in spoilt else r for p, r in enumerate(rows)]
    targets = tuple((t + 1) % 3 if p in spoilt else t for p, t in enumerate(task.targets))
    other, _ = score(replace(task, targets=targets), other_rows, (probe,), network=QUICK)
    assert other.choices == scored.choices
    kept = ~np.isin(np.array(scored.proteins)[scored.truth.protein], list(spoilt))
    for head, values in scored.scores.items():
        assert np.array_equal(values[kept], other.scores[head][kept])
    assert not np.array_equal(values[~kept], other.scores[head][~kept])


def test_test_proteins_are_not_read_before_they_are_scored():
    task, rows = planted(5)
    of = source(rows)
    [split], _ = splits_of(task)
    score_task(task, [split], [of], ("ridge", "logistic", "cnn"), network=QUICK)
    *before, last = of.rows.read
    assert last == set(split.test.tolist())
    assert all(not read & last for read in before)


def test_each_fold_is_scored_by_models_of_the_others(monkeypatch):
    task, rows = planted(6, "number", number=60)
    task = replace(task, parts=None)
    splits, _ = splits_of(task, num_folds=4)
    scored = score_task(task, splits, [source(rows)], ("ridge",))
    assert scored.truth.widening > 1
    found = scored.scores[Head("ridge", "rd", "B", D)]
    for split in splits:
        alone = score_task(task, [split], [source(rows)], ("ridge",))
        rows_of = np.isin(np.array(scored.proteins)[scored.truth.protein], split.test)
        # Sums of the same moments in another order.
        assert np.allclose(found[rows_of], alone.scores[Head("ridge", "rd", "B", D)], atol=1e-5)
    assert set(roles_of(splits)) == set(range(60))


def test_majority_is_the_training_rows_mean():
    for kind in ("classes", "labels", "number"):
        task, rows = planted(7, kind)
        scored, [split] = score(task, rows)
        own = scored.scores[Head("ridge", "majority", "", 0)]
        mean = np.concatenate([task.y(int(p)) for p in split.train]).mean(axis=0)
        assert np.allclose(own, mean if kind != "number" else mean[0], atol=1e-6)


def test_probabilities_of_logistic_regression():
    for kind in ("classes", "labels"):
        task, rows = planted(8, kind)
        scored, _ = score(task, rows, ("logistic",))
        values = scored.scores[Head("logistic", "rd", "B", D)]
        assert (values >= 0).all() and (values <= 1).all()
        if kind == "classes":
            assert np.allclose(values.sum(axis=1), 1, atol=1e-5)
    assert task_metrics(scored.truth, values.astype(np.float64))["f1_macro"] > 0.8


def test_what_is_fitted_is_counted():
    task, rows = planted(9)
    splits, _ = splits_of(task)
    told = []
    score_task(task, splits, [source(rows)], ("ridge", "logistic"), on_fit=told.append)
    assert sum(told) == num_fits(task, splits, [source(rows)], ("ridge", "logistic")) == 6


def test_numbers_have_no_logistic_regression():
    task, _ = planted(10, "number")
    assert probes_of(task, ["ridge", "logistic"]) == ["ridge"]
    with pytest.raises(InputError, match="t: its targets are numbers, and logistic regression"):
        probes_of(task, ["logistic"])


def test_rows_are_kept_where_they_are_read_often():
    task, _ = planted(11)
    splits, _ = splits_of(task)
    assert not reads_often(["ridge"], splits)
    assert reads_often(["ridge", "logistic"], splits) and reads_often(["ridge"], splits * 2)
    assert reads_often(["cnn"], splits) and reads_often(["mlp"], splits)


def test_a_cnn_is_of_residues():
    task, _ = planted(12, unit="protein")
    assert probes_of(task, ["ridge", "cnn", "mlp"]) == ["ridge", "mlp"]
    with pytest.raises(
        InputError,
        match="^t: its targets are of whole proteins, and cnn is a network along residues; use "
        "probes=mlp$",
    ):
        probes_of(task, ["cnn"])


def xor_of(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Whether the first two columns, which are about 4, have one sign there."""
    return tuple(((r[:, 0] > 4) == (r[:, 1] > 4)).astype(np.int64) for r in rows)


@pytest.mark.parametrize(
    ("probe", "unit"), [("cnn", "residue"), ("mlp", "residue"), ("mlp", "protein")]
)
def test_networks_find_at_levels_what_no_linear_probe_does(probe, unit):
    task, rows = planted(13, unit=unit, number=90 if unit == "residue" else 400)
    task = replace(task, targets=xor_of(rows), names=("no", "yes"))
    scored, _ = score(task, rows, ("ridge", probe), network=QUICK)
    heads = [head for head in scored.scores if head.probe == probe]
    # Not at the width between the levels.
    assert heads == [
        Head(probe, "majority", "", 0),
        Head(probe, "rd", "A", 2),
        Head(probe, "rd", "B", D),
    ]
    own = scored.scores[Head(probe, "rd", "A", 2)].astype(np.float64)
    assert np.allclose(own.sum(axis=1), 1, atol=1e-6)
    assert task_metrics(scored.truth, own)["accuracy"] > 0.85
    linear = scored.scores[Head("ridge", "rd", "A", 2)].astype(np.float64)
    assert task_metrics(scored.truth, linear)["accuracy"] < 0.65
    chosen = {(c["probe"], c["level"]): c for c in scored.choices}
    assert 1 <= chosen[probe, "A"]["epochs"] <= QUICK.max_epochs


def test_networks_are_fitted_to_every_baseline_and_split():
    task, _ = planted(14, number=24)
    folds = np.arange(24).reshape(3, 8)
    splits = [TaskSplit(f"fold {i}", *(folds[(i + j) % 3] for j in range(3))) for i in range(3)]
    rows = SequenceRows(task.sequences, "residue")
    sources, told = [Source(rows, rows.representations)], []
    short = NetworkSettings(max_epochs=2)
    scored = score_task(task, splits, sources, ("cnn",), network=short, on_fit=told.append)
    assert {head[1] for head in scored.scores} == {"majority", "amino_acid", "one_hot_window"}
    assert all(np.isfinite(values).all() for values in scored.scores.values())
    assert sum(told) == num_fits(task, splits, sources, ("cnn",)) == 6
    assert told.count(0) == 3 * 2


@pytest.mark.parametrize("kind", ["labels", "number"])
def test_networks_of_labels_and_numbers(kind):
    task, rows = planted(15, kind)
    scored, _ = score(task, rows, ("mlp",), network=QUICK)
    own = scored.scores[Head("mlp", "rd", "B", D)].astype(np.float64)
    found = task_metrics(scored.truth, own)
    assert found["spearman" if kind == "number" else "auroc_macro"] > 0.9
    if kind == "number":
        assert own.std() > 2  # of the targets' unit, not of standardised ones
    else:
        assert own.min() >= 0 and own.max() <= 1


def secondary_structure() -> Path:
    path = SHARED / "tasks" / "secondary_structure"
    if not path.is_dir():
        pytest.skip(f"{path} is absent: the real tasks are not part of the project")
    return path


def letters(task: Task, proteins) -> tuple[np.ndarray, np.ndarray]:
    """One-hot residues and classes of the rows that count, made without the package."""
    known = [task.targets[p] >= 0 for p in proteins]
    sequence = np.concatenate(
        [np.array(list(task.sequences[p]))[k] for p, k in zip(proteins, known, strict=True)]
    )
    hot = (sequence[:, None] == np.array(list(RESIDUES))).astype(np.float64)
    return hot, np.concatenate([task.targets[p][k] for p, k in zip(proteins, known, strict=True)])


@pytest.mark.parametrize("probe", ["ridge", "logistic"])
def test_amino_acid_identity_of_real_proteins_is_scikit_learns(probe):
    """Secondary structure from the residue alone, on a third of the training chains."""
    [task] = read_tasks(secondary_structure())
    [split], _ = splits_of(task)
    split = replace(split, train=split.train[::3], test=split.test[::3])
    rows = SequenceRows(task.sequences, "residue")
    [representation, _] = rows.representations
    scored = score_task(task, [split], [Source(rows, [representation])], (probe,))
    found = scored.scores[Head(probe, "amino_acid", "", 25)]
    [chosen] = scored.choices
    x, y = letters(task, split.train)
    scaler = StandardScaler().fit(x)
    x_test, y_test = letters(task, split.test)
    z, z_test = scaler.transform(x), scaler.transform(x_test)
    if probe == "ridge":
        expected = Ridge(alpha=chosen["penalty"]).fit(z, np.eye(3)[y]).predict(z_test)
        assert np.abs(found - expected).max() < 1e-6
    else:
        c = np.inf if chosen["penalty"] == 0 else 1 / (len(z) * chosen["penalty"])
        model = LogisticRegression(C=c, max_iter=2000, tol=1e-10).fit(z, y)
        expected = model.predict_proba(z_test)
        # Of the letters; those that are seen a few times in training are far from converged.
        common = np.isin(x_test.argmax(axis=1), np.flatnonzero(x.sum(axis=0) > 100))
        assert np.abs(found - expected)[common].max() < 0.02
    accuracy = (expected.argmax(axis=1) == y_test).mean()
    assert task_metrics(scored.truth, found.astype(np.float64))["accuracy"] == pytest.approx(
        accuracy, abs=2e-3
    )
