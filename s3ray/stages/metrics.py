"""The metrics beside accuracy that the field reports: what they are called, and how they are computed.

The rules, written before results

- Values are scikit-learn's, Pearson's r is scipy's. A value that is not defined is NaN, and no error.
- Balanced accuracy: the mean of recalls over the classes that the split has. Macro and weighted F1: over the classes
  that labels or predictions have, 0 for one that is never right; weighted by how many samples are of it.
- AUROC, of the probe's probabilities: with two classes of the second; with more the plain mean over classes, each
  against the rest. It is not defined where the split lacks a class that train has, or has one that train lacks: a mean
  over fewer classes would be another quantity.
- Acc-2, of sentiments y: `≥ 0` asks of every sample whether y ≥ 0; `> 0` asks whether y > 0 of the samples with y ≠ 0,
  as MulT (Tsai et al. 2019) and MISA (Hazarika et al. 2020) score. Both judge the class that the probe predicts, which
  was fitted on the classes of the data's own label rule; where that is y > 0, the first judges a probe that was taught
  otherwise. Both follow from what every row says of its samples (`correct`), and from classes and sentiments of the
  data at hand when results are collected: nothing of it is committed, and rows say which scores these were.
- MAE and Pearson's r, of a ridge regression of the sentiments on the same representations (`stages/sentiment.py`); its
  predictions are not cut to the scale. r is not defined where predictions or sentiments are constant, nor below two
  samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from s3ray.errors import UserError, nearest

# What a metric is computed of: the probe's predictions where it is fitted, these and the sentiment scores, or a
# regression of the scores, which is a stage of its own.
Source = Literal["probe", "scores", "regression"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """How a column of the rows is called and shown.

    Attributes:
        title: in headings.
        unit: in headings, behind the title.
        factor: what a value is shown times. A negative one says that less is better.
        digits: behind the point.
        source: what it is computed of.
    """

    title: str
    unit: str = " (%)"
    factor: float = 100.0
    digits: int = 2
    source: Source = "probe"


METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(title="accuracy"),
    "balanced_accuracy": Metric(title="balanced accuracy"),
    "macro_f1": Metric(title="macro F1"),
    "weighted_f1": Metric(title="weighted F1"),
    "auroc": Metric(title="AUROC"),
    "acc2_nonnegative": Metric(title="Acc-2, ≥ 0", source="scores"),
    "acc2_nonzero": Metric(title="Acc-2, > 0 without neutrals", source="scores"),
    "mae": Metric(title="MAE", unit="", factor=-1.0, digits=3, source="regression"),
    "pearson_r": Metric(title="Pearson's r", unit="", factor=1.0, digits=3, source="regression"),
}


def check_metric(name: str) -> None:
    """UserError for a name that is no metric's."""
    if name not in METRICS:
        raise UserError(f"metric {name!r}: there is none of this name; {nearest(name, METRICS)}")


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """What a probe's predictions on a split come to beside accuracy; NaN where a value is not defined."""

    balanced_accuracy: float
    macro_f1: float
    weighted_f1: float
    auroc: float

    @classmethod
    def of(
        cls,
        labels_N: NDArray[np.int64],
        predicted_N: NDArray[np.int64],
        probabilities_NC: NDArray[Any],
        classes_C: NDArray[np.int64],
    ) -> ClassMetrics:
        """Of a split's N samples, one or more.

        Args:
            probabilities_NC: that a sample is of a class.
            classes_C: that train has, in the order of the columns.
        """
        # Imported here, as in `probe`: most processes of a worker group never come here.
        from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

        auroc = math.nan
        if np.array_equal(np.unique(labels_N), classes_C):
            # Softmax in single precision sums to 1 less exactly than scikit-learn may ask for.
            share_NC = probabilities_NC / probabilities_NC.sum(axis=1, keepdims=True, dtype=np.float64)
            scores = share_NC[:, 1] if len(classes_C) == 2 else share_NC
            auroc = roc_auc_score(labels_N, scores, multi_class="ovr", average="macro")
        # Once per class for all three: each of scikit-learn's own functions looks at every sample again.
        _, recall, f1, samples = precision_recall_fscore_support(labels_N, predicted_N, zero_division=0)
        return cls(
            balanced_accuracy=float(recall[samples > 0].mean()),
            macro_f1=float(f1.mean()),
            weighted_f1=float(np.average(f1, weights=samples)),
            auroc=float(auroc),
        )


@dataclass(frozen=True, slots=True)
class SentimentAccuracies:
    """Acc-2 under both conventions; NaN where no sample counts."""

    acc2_nonnegative: float
    acc2_nonzero: float

    @classmethod
    def of(cls, scores_N: NDArray[Any], positive_N: NDArray[np.bool_]) -> SentimentAccuracies:
        """Of N sentiments, and whether each is predicted to be of the positive class."""
        right_N, polar_N = (scores_N > 0) == positive_N, scores_N != 0
        nonzero = right_N[polar_N].mean() if polar_N.any() else math.nan
        return cls(float(((scores_N >= 0) == positive_N).mean()), float(nonzero))


@dataclass(frozen=True, slots=True)
class RegressionMetrics:
    """How far predicted sentiments lie from the true ones."""

    mae: float
    pearson_r: float

    @classmethod
    def of(cls, scores_N: NDArray[Any], predicted_N: NDArray[Any]) -> RegressionMetrics:
        """Of a split's N samples, one or more."""
        from scipy.stats import pearsonr
        from sklearn.metrics import mean_absolute_error

        known = len(scores_N) > 1 and np.ptp(scores_N) > 0 and np.ptp(predicted_N) > 0
        r = pearsonr(scores_N, predicted_N).statistic if known else math.nan
        return cls(float(mean_absolute_error(scores_N, predicted_N)), float(r))
