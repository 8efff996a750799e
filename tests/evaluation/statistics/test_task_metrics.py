import warnings

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    roc_auc_score,
)

from rd_lightning.errors import InputError
from rd_lightning.evaluation.statistics.task_metrics import (
    Truth,
    metric_names,
    primary_metric,
    task_metrics,
)

from ...conftest import SEEDS

NAMES = ("H", "E", "C")
EXACT = 1e-12


def planted_task(seed: int, kind: str, num_proteins: int = 12) -> tuple[Truth, np.ndarray]:
    """Proteins of uneven lengths, some of one sequence; scores that tie."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(6, 25, size=num_proteins)
    protein = np.repeat(np.arange(num_proteins), lengths)
    shared = generator.standard_normal((num_proteins, 3))[protein]
    number = len(protein)
    noise = shared + generator.standard_normal((number, 3))
    clusters = np.arange(num_proteins) * 3 // 4 + 7
    if kind == "number":
        values = generator.standard_normal(number).round(1)
        scores = (values + noise[:, 0]).round(1)
    elif kind == "labels":
        values = (generator.random((number, 3)) < [0.1, 0.3, 0.5]).astype(np.int64)
        scores = (values + 0.4 * noise).round(1)
    else:
        values = generator.choice(3, size=number, p=[0.5, 0.3, 0.2])
        scores = (np.eye(3)[values] + 0.6 * noise).round(1)
    names = () if kind == "number" else NAMES
    return Truth(kind, values, protein, clusters, names, True), scores  # pyright: ignore[reportArgumentType]


def no_warning(truth: Truth, scores: np.ndarray) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return task_metrics(truth, scores)


@pytest.mark.parametrize("seed", SEEDS)
def test_classes_as_scikit_learn_scores_them(seed):
    truth, scores = planted_task(seed, "classes")
    y, guess, one = truth.values, scores.argmax(axis=1), np.eye(3)[truth.values]
    own = [accuracy_score(y[truth.protein == p], guess[truth.protein == p]) for p in range(12)]
    assert no_warning(truth, scores) == pytest.approx(
        {
            "accuracy": accuracy_score(y, guess),
            "accuracy_protein": np.mean(own),
            "f1_macro": f1_score(y, guess, average="macro"),
            "mcc": matthews_corrcoef(y, guess),
            "aupr_macro": average_precision_score(one, scores, average="macro"),
            "aupr_micro": average_precision_score(one, scores, average="micro"),
            "auroc_macro": roc_auc_score(one, scores, average="macro"),
        },
        abs=EXACT,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_as_scikit_learn_scores_them(seed):
    truth, scores = planted_task(seed, "labels")
    y, guess = truth.values, scores >= 0.5
    assert (scores == 0.5).any()
    assert no_warning(truth, scores) == pytest.approx(
        {
            "aupr_micro": average_precision_score(y, scores, average="micro"),
            "aupr_macro": average_precision_score(y, scores, average="macro"),
            "auroc_macro": roc_auc_score(y, scores, average="macro"),
            "f1_macro": f1_score(y, guess, average="macro"),
            "mcc_macro": np.mean([matthews_corrcoef(y[:, c], guess[:, c]) for c in range(3)]),
        },
        abs=EXACT,
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_numbers_as_scipy_scores_them(seed):
    """A protein with constant predictions, one with constant truth and one of a single row have no
    correlation of their own."""
    truth, scores = planted_task(seed, "number")
    scores[truth.protein == 3] = scores[0]
    truth.values[truth.protein == 5] = truth.values[0]
    kept = (truth.protein != 7) | (np.arange(len(scores)) == np.flatnonzero(truth.protein == 7)[0])
    truth = truth._replace(values=truth.values[kept], protein=truth.protein[kept])
    scores = scores[kept]
    parts = [truth.protein == p for p in range(12) if p not in (3, 5, 7)]
    assert no_warning(truth, scores) == pytest.approx(
        {
            "spearman": spearmanr(truth.values, scores)[0],
            "pearson": pearsonr(truth.values, scores)[0],
            "spearman_protein": np.mean([spearmanr(truth.values[p], scores[p])[0] for p in parts]),
            "pearson_protein": np.mean([pearsonr(truth.values[p], scores[p])[0] for p in parts]),
            "proteins_defined": 9,
        },
        abs=EXACT,
    )


@pytest.mark.parametrize("kind", ["classes", "labels", "number"])
def test_the_primary_metric_is_first_and_tasks_of_whole_proteins_have_none_within_them(kind):
    truth, scores = planted_task(0, kind)
    names = metric_names(kind, True)
    first = {"classes": "accuracy", "labels": "aupr_micro", "number": "spearman"}[kind]
    assert names[0] == primary_metric(kind) == first
    found = task_metrics(truth, scores)
    assert list(found)[: len(names)] == list(names)
    assert set(found) - set(names) <= {"proteins_defined"}
    whole = task_metrics(truth._replace(per_residue=False), scores)
    assert tuple(whole) == metric_names(kind, False)
    assert not any("protein" in name for name in whole)
    assert whole == {name: found[name] for name in whole}


def test_a_class_that_no_row_has_is_left_out_of_means():
    """Even where it is predicted; F1 of the others counts these predictions as missed."""
    truth, scores = planted_task(0, "classes")
    wide = np.hstack([scores, scores.max(axis=1, keepdims=True) - 0.3])
    wide[:5, 3] += 1
    found = no_warning(truth._replace(names=(*NAMES, "X")), wide)
    one, guess = np.eye(4)[truth.values], wide.argmax(axis=1)
    assert (guess == 3).sum() == 5
    expected = {
        "f1_macro": f1_score(truth.values, guess, labels=[0, 1, 2], average="macro"),
        "mcc": matthews_corrcoef(truth.values, guess),
        "aupr_macro": average_precision_score(one[:, :3], scores, average="macro"),
        "auroc_macro": roc_auc_score(one[:, :3], scores, average="macro"),
        "aupr_micro": average_precision_score(one.ravel(), wide.ravel()),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=EXACT)


def test_labels_that_no_row_or_every_row_has():
    truth, scores = planted_task(0, "labels")
    truth.values[:, 0], truth.values[:, 1] = 0, 1
    found = no_warning(truth, scores)
    y, guess = truth.values, (scores >= 0.5).astype(int)
    assert found["f1_macro"] == pytest.approx(f1_score(y[:, 1:], guess[:, 1:], average="macro"))
    assert found["aupr_macro"] == pytest.approx(
        (1 + average_precision_score(y[:, 2], scores[:, 2])) / 2
    )
    assert found["auroc_macro"] == pytest.approx(roc_auc_score(y[:, 2], scores[:, 2]))
    assert found["mcc_macro"] == pytest.approx(matthews_corrcoef(y[:, 2], guess[:, 2]))
    assert np.isnan(list(no_warning(truth._replace(values=0 * y), scores).values())).all()


def test_constant_predictions():
    """They rank nothing: an AUROC of 0.5, an average precision of the share; no correlation."""
    truth, scores = planted_task(0, "classes")
    share = np.bincount(truth.values) / len(scores)
    found = no_warning(truth, np.tile([0.5, 0.2, 0.3], (len(scores), 1)))
    assert np.isnan(found["mcc"]) and found["accuracy"] == pytest.approx(share[0])
    assert found["auroc_macro"] == 0.5 and found["aupr_macro"] == pytest.approx(1 / 3)
    assert found["f1_macro"] == pytest.approx(2 * share[0] / (1 + share[0]) / 3)
    one_class = truth._replace(values=0 * truth.values)
    found = no_warning(one_class, scores)
    assert np.isnan([found["mcc"], found["auroc_macro"]]).all() and found["aupr_macro"] == 1

    truth, scores = planted_task(0, "labels")
    scores[:, 0] = 0.2
    found = no_warning(truth, scores)
    assert np.isnan(found["mcc_macro"])
    assert found["f1_macro"] == pytest.approx(
        f1_score(truth.values, scores >= 0.5, average="macro", zero_division=0)
    )

    truth, scores = planted_task(0, "number")
    rounding = 1e-15 * np.random.default_rng(0).standard_normal(len(scores))
    for constant in (0 * scores, 0 * scores + 0.1, 0.1 * (1 + rounding)):
        found = no_warning(truth, constant)
        assert found.pop("proteins_defined") == 0
        assert np.isnan(list(found.values())).all()


def test_scores_that_cannot_be_of_the_rows():
    truth, scores = planted_task(0, "classes")
    number = len(scores)
    with pytest.raises(InputError, match=rf"scores of shape \({number}, 3\), not \({number}, 2\)"):
        task_metrics(truth, scores[:, :2])
    of_number, guess = planted_task(0, "number")
    with pytest.raises(
        InputError, match=rf"shape \({number},\), not \({number - 1},\), for number"
    ):
        task_metrics(of_number, guess[1:])
    scores[0, 0], scores[1, 2] = np.nan, np.inf
    with pytest.raises(InputError, match=f"2 of {3 * number} scores are not finite; look for"):
        task_metrics(truth, scores)
    none = np.zeros(0, dtype=np.int64)
    with pytest.raises(InputError, match="no row to score"):
        task_metrics(truth._replace(values=none, protein=none), scores[:0])
