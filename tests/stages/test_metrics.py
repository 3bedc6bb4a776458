"""The metrics beside accuracy, held against scikit-learn's and scipy's own, and where there is no value."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    roc_auc_score,
)

from s3ray.errors import UserError
from s3ray.stages.metrics import METRICS, ClassMetrics, RegressionMetrics, SentimentAccuracies, check_metric


def drawn(samples: int, classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Labels that lean to the first classes, and noisy probabilities of them with what they predict."""
    rng = np.random.default_rng(classes)
    weights = np.arange(classes, 0, -1) / np.arange(1, classes + 1).sum()
    labels = rng.choice(classes, samples, p=weights)
    raw = rng.random((samples, classes)) + 0.5 * np.eye(classes)[labels]
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    return labels, probabilities.argmax(axis=1), probabilities


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_class_metrics_are_those_of_scikit_learn(classes: int) -> None:
    labels, predicted, probabilities = drawn(200, classes)
    scores = probabilities[:, 1] if classes == 2 else probabilities
    found = ClassMetrics.of(labels, predicted, probabilities, np.arange(classes))
    assert asdict(found) == pytest.approx(
        {
            "balanced_accuracy": balanced_accuracy_score(labels, predicted),
            "macro_f1": f1_score(labels, predicted, average="macro"),
            "weighted_f1": f1_score(labels, predicted, average="weighted"),
            "auroc": roc_auc_score(labels, scores, multi_class="ovr"),
        }
    )
    assert len({round(value, 6) for value in asdict(found).values()}) == 4


@pytest.mark.filterwarnings("error")
def test_a_class_that_the_split_lacks_leaves_auroc_alone_without_a_value() -> None:
    labels, predicted, probabilities = drawn(200, 3)
    few = labels != 2
    found = ClassMetrics.of(labels[few], predicted[few], probabilities[few], np.arange(3))
    assert math.isnan(found.auroc)
    # The third class is predicted and so part of F1's mean, with 0; it has no recall.
    assert 2 in predicted[few]
    assert found.macro_f1 == pytest.approx(f1_score(labels[few], predicted[few], average="macro"))
    recalls = [(predicted[labels == c] == c).mean() for c in (0, 1)]
    assert found.balanced_accuracy == pytest.approx(np.mean(recalls))
    unknown = ClassMetrics.of(labels, predicted, probabilities[:, :2], np.arange(2))  # train lacks the third
    assert math.isnan(unknown.auroc)


@pytest.mark.filterwarnings("error")
def test_a_constant_prediction_has_values() -> None:
    labels, certain = np.array([0, 0, 0, 1]), np.tile([1.0, 0.0], (4, 1))
    found = ClassMetrics.of(labels, np.zeros(4, np.int64), certain, np.arange(2))
    assert asdict(found) == pytest.approx(
        {"balanced_accuracy": 0.5, "macro_f1": 3 / 7, "weighted_f1": 0.75 * 6 / 7, "auroc": 0.5}
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("right", [True, False])
def test_one_sample_has_values_but_no_auroc(right: bool) -> None:
    found = ClassMetrics.of(np.array([1]), np.array([int(right)]), np.array([[0.4, 0.6]]), np.arange(2))
    assert (found.balanced_accuracy, found.macro_f1, found.weighted_f1) == (right, right, right)
    assert math.isnan(found.auroc)


def test_acc2_leaves_neutrals_out_under_one_convention_and_counts_them_as_positive_under_the_other() -> None:
    scores = np.array([-3.0, -0.3, 0.0, 0.0, 0.3, 2.0], np.float32)
    positive = np.array([False, True, True, False, True, False])
    found = SentimentAccuracies.of(scores, positive)
    assert found.acc2_nonnegative == accuracy_score(scores >= 0, positive) == 3 / 6
    polar = scores != 0
    assert found.acc2_nonzero == accuracy_score(scores[polar] > 0, positive[polar]) == 2 / 4


def test_acc2_of_neutrals_alone_and_of_one_sample() -> None:
    neutral = SentimentAccuracies.of(np.zeros(1, np.float32), np.array([True]))
    assert neutral.acc2_nonnegative == 1.0
    assert math.isnan(neutral.acc2_nonzero)
    assert asdict(SentimentAccuracies.of(np.array([1.0]), np.array([False]))) == {
        "acc2_nonnegative": 0.0,
        "acc2_nonzero": 0.0,
    }


def test_regression_metrics_are_those_of_scikit_learn_and_scipy() -> None:
    rng = np.random.default_rng(0)
    scores = rng.uniform(-3, 3, 50)
    predicted = scores + rng.normal(size=50)
    found = RegressionMetrics.of(scores, predicted)
    assert found.mae == pytest.approx(mean_absolute_error(scores, predicted))
    assert found.pearson_r == pytest.approx(stats.pearsonr(scores, predicted)[0])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("scores", "predicted"),
    [([1.0, 2.0], [0.5, 0.5]), ([1.0, 1.0], [0.5, 1.5]), ([1.0], [0.5])],
    ids=["constant prediction", "constant sentiment", "one sample"],
)
def test_a_correlation_of_what_does_not_vary_has_no_value(scores: list[float], predicted: list[float]) -> None:
    found = RegressionMetrics.of(np.array(scores), np.array(predicted))
    assert found.mae == pytest.approx(np.abs(np.subtract(scores, predicted)).mean())
    assert math.isnan(found.pearson_r)


def test_a_mistyped_metric_names_the_nearest() -> None:
    for name in METRICS:
        check_metric(name)
    with pytest.raises(UserError, match=r"^metric 'macro_f': there is none of this name; did you mean 'macro_f1'\?"):
        check_metric("macro_f")
