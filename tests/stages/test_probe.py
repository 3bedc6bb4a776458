"""The linear probe."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from s3ray.stages.probe import ProbeScore, ProbeSettings, probe


def _accuracy(score: ProbeScore) -> dict[str, float]:
    return {split: float(correct.mean()) for split, correct in score.correct.items()}


def test_separable_classes_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    labels = {split: np.arange(size) % 3 for split, size in (("train", 60), ("valid", 30), ("test", 9))}
    features = {s: 10.0 * np.eye(3)[y] + rng.normal(size=(len(y), 3)) for s, y in labels.items()}
    score = probe(features, labels, ProbeSettings().classifier)
    assert _accuracy(score) == {"valid": 1.0, "test": 1.0}  # and none for train
    assert score.converged


def test_accuracy_is_the_share_of_hits() -> None:
    features = {"train": np.array([[-1.0], [1.0]] * 10), "test": np.array([[-1.0], [-1.0], [1.0], [1.0]])}
    labels = {"train": np.array([0, 1] * 10), "test": np.array([0, 1, 1, 1])}
    assert _accuracy(probe(features, labels, ProbeSettings().classifier)) == {"test": 0.75}


def test_only_train_statistics_standardise() -> None:
    # Train is centred at 0 with class 1 on the right. Every test value lies far to the right: all class 1.
    # Standardised by the test split's own mean, half of them would fall on the left.
    features = {"train": np.array([[-1.0], [1.0]] * 20), "test": np.linspace(5.0, 6.0, 10)[:, None]}
    labels = {"train": np.array([0, 1] * 20), "test": np.ones(10, dtype=np.int64)}
    assert _accuracy(probe(features, labels, ProbeSettings().classifier)) == {"test": 1.0}


def test_correct_says_of_every_sample_whether_the_probe_is_right() -> None:
    features = {
        "train": np.array([[-1.0], [1.0]] * 10),
        "test": np.array([[-1.0], [-1.0], [1.0]]),
        "one": np.ones((1, 1)),
    }
    labels = {"train": np.array([0, 1] * 10), "test": np.array([0, 1, 1]), "one": np.array([0])}
    correct = probe(features, labels, ProbeSettings().classifier).correct
    assert {split: right.tolist() for split, right in correct.items()} == {"test": [True, False, True], "one": [False]}


def test_unless_asked_to_it_does_not_standardise() -> None:
    """As scikit-learn scores the features as they are, of which one is large and off centre."""
    rng = np.random.default_rng(0)
    labels = {"train": rng.integers(0, 2, 80), "test": rng.integers(0, 2, 200)}
    features = {
        s: (rng.normal(size=(len(y), 2)) + 0.7 * y[:, None]) * [0.01, 10.0] + [0.0, 50.0] for s, y in labels.items()
    }
    raw, standardised = (
        probe(features, labels, ProbeSettings(standardize=standardize).classifier).correct["test"]
        for standardize in (False, True)
    )
    plain = LogisticRegression(max_iter=1000).fit(features["train"], labels["train"])
    assert np.array_equal(raw, plain.predict(features["test"]) == labels["test"])
    assert not np.array_equal(raw, standardised)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scale_of_a_feature_does_not_count(scale: float) -> None:
    rng = np.random.default_rng(0)
    labels = {"train": rng.integers(0, 2, 80), "test": rng.integers(0, 2, 40)}
    features = {s: rng.normal(size=(len(y), 4)) + 0.7 * y[:, None] for s, y in labels.items()}
    scaled = {s: x * np.array([scale, 1.0, 1.0, 1.0]) for s, x in features.items()}
    plain, other = (probe(x, labels, ProbeSettings().classifier) for x in (features, scaled))
    assert np.array_equal(plain.correct["test"], other.correct["test"])
    assert plain.converged == other.converged


def test_an_unfinished_fit_is_reported() -> None:
    rng = np.random.default_rng(0)
    labels = {"train": rng.integers(0, 4, 100), "test": rng.integers(0, 4, 20)}
    features = {s: rng.normal(size=(len(y), 10)) for s, y in labels.items()}
    assert not probe(features, labels, ProbeSettings(max_iterations=1).classifier).converged
    assert probe(features, labels, ProbeSettings().classifier).converged
