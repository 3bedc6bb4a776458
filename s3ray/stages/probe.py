"""The linear probe: logistic regression on frozen representations."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3ray.config import ProbeConfig


@dataclass(frozen=True, slots=True)
class ProbeScore:
    accuracy: dict[str, float]  # per split but train
    converged: bool  # False: the optimiser stopped at max_iterations


def probe(
    features: Mapping[str, NDArray[Any]], labels: Mapping[str, NDArray[np.int64]], config: ProbeConfig
) -> ProbeScore:
    """Fit on `train`, standardised by its statistics; score every other split.

    Args:
        features: (n, width) per split, `train` among them.
        labels: (n,) per split.
    """
    # Imported here: most processes of a worker group never probe, and this import takes a second.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = LogisticRegression(C=config.inverse_regularization, max_iter=config.max_iterations)
    pipeline = make_pipeline(StandardScaler(), classifier)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        pipeline.fit(features["train"], labels["train"])
    accuracy = {split: float(pipeline.score(features[split], labels[split])) for split in features if split != "train"}
    return ProbeScore(accuracy, bool((classifier.n_iter_ < config.max_iterations).all()))
