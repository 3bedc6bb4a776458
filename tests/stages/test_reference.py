"""The references: the most frequent training class, and the probe on means of raw features."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.stages.probe import ProbeSettings
from s3ray.stages.reference import REFERENCE, ReferencePoint, reference_points
from s3ray.stages.stage import Context


def _split(labels: list[int], **modalities: list[list[list[float]]]) -> Split:
    """From a list of steps per sample and modality."""
    sequences = {}
    for name, samples in modalities.items():
        offsets = np.cumsum([0, *map(len, samples)])
        values = np.array([step for sample in samples for step in sample], dtype=np.float32)
        sequences[name] = Sequences(values, offsets)
    return Split(sequences, np.array(labels))


def _accuracy(points: list[ReferencePoint], reference: str) -> dict[str, float]:
    return {point.split: point.accuracy for point in points if point.reference == reference}


def _separable(labels: list[int]) -> Split:
    """The mean of `left`'s only feature is -1 or 1 by class; its steps are anything. `right` is always 0."""
    left = {0: [[9.0], [-13.0], [1.0]], 1: [[-7.0], [9.0]]}
    return _split(labels, left=[left[label] for label in labels], right=[[[0.0]] for _ in labels])


def test_points_by_hand_where_the_means_tell_the_classes_apart() -> None:
    splits = {"train": [0, 1, 1, 1, 0], "valid": [1, 0, 0, 0], "test": [1, 1, 0]}
    data = Dataset("toy", "user", **{name: _separable(labels) for name, labels in splits.items()})
    # Of training's five samples three are of class 1, which one of valid's four and two of test's three are.
    # Balanced accuracy, macro and weighted F1, AUROC: of class 1 alone precision 1/4 and 2/3, recall 1.
    untold = [
        (0.25, 4, bytes([0b1000_0000]), 0.5, 0.2, 0.1, 0.5),
        (2 / 3, 3, bytes([0b1100_0000]), 0.5, 0.4, 1.6 / 3, 0.5),
    ]
    told = [(1.0, 4, bytes([0b1111_0000]), *[1.0] * 4), (1.0, 3, bytes([0b1110_0000]), *[1.0] * 4)]
    expected = [
        ReferencePoint(reference, split, *known, True)
        for reference, either in (
            ("majority class", untold),
            ("raw features", told),
            ("raw left", told),
            ("raw right", untold),
            ("raw means and deviations", told),
        )
        for split, known in zip(("valid", "test"), either, strict=True)
    ]
    for found, by_hand in zip(reference_points(data, ProbeSettings().classifier), expected, strict=True):
        assert asdict(found) == pytest.approx(asdict(by_hand))


def test_deviations_over_steps_are_a_reference_of_their_own() -> None:
    # Steps of class 0 are 1 and -1, of class 1 they are 3 and -3: the means are all 0.
    def split(labels: list[int]) -> Split:
        steps = [[[1.0 + 2 * label], [-1.0 - 2 * label]] for label in labels]
        return _split(labels, left=steps, right=[[[0.0]] for _ in labels])

    data = Dataset("toy", "user", split([1, 0, 0, 0, 1]), split([1, 1, 0]), split([0, 1, 1, 1]))
    points = reference_points(data, ProbeSettings().classifier)
    assert _accuracy(points, "raw features") == _accuracy(points, "majority class") == {"valid": 1 / 3, "test": 1 / 4}
    assert _accuracy(points, "raw means and deviations") == {"valid": 1.0, "test": 1.0}


def test_one_modality_of_single_steps_has_one_raw_reference() -> None:
    def split(labels: list[int]) -> Split:
        return _split(labels, left=[[[float(label)]] for label in labels])

    data = Dataset("toy", "user", split([0, 1]), split([1, 0]), split([1]))
    points = reference_points(data, ProbeSettings().classifier)
    assert {point.reference for point in points} == {"majority class", "raw features"}


@pytest.mark.parametrize("informative", ["left", "right"])
def test_both_modalities_are_seen(informative: str) -> None:
    def split(labels: list[int]) -> Split:
        values = {name: [[[float(label == (name == informative))]] for label in labels] for name in ("left", "right")}
        values["right" if informative == "left" else "left"] = [[[1.0], [1.0]] for _ in labels]
        return _split(labels, left=values["left"], right=values["right"])

    data = Dataset("toy", "user", split([0, 1, 0, 1, 0]), split([1, 1, 1]), split([1, 1]))
    assert _accuracy(reference_points(data, ProbeSettings().classifier), "raw features") == {"valid": 1.0, "test": 1.0}
    assert _accuracy(reference_points(data, ProbeSettings().classifier), "majority class") == {
        "valid": 0.0,
        "test": 0.0,
    }


def test_lengths_and_sums_are_not_seen() -> None:
    # Class 1 has three steps, class 0 one; every step is 1. The sums would tell them apart, the means don't.
    def split(labels: list[int]) -> Split:
        steps = [[[1.0]] * (3 if label else 1) for label in labels]
        return _split(labels, left=steps, right=steps)

    data = Dataset("toy", "user", split([1, 0, 0, 0, 1]), split([1, 1, 0]), split([0, 1, 1, 1]))
    points = reference_points(data, ProbeSettings().classifier)
    assert _accuracy(points, "raw features") == {"valid": 1 / 3, "test": 1 / 4}
    assert _accuracy(points, "raw features") == _accuracy(points, "majority class")


def _noise(size: int, rng: np.random.Generator) -> Split:
    """Ragged steps of 3 + 2 features about which the class says little."""
    labels = rng.integers(0, 3, size).tolist()
    left = [(rng.normal(size=(rng.integers(1, 6), 3)) + 0.2 * label).tolist() for label in labels]
    right = [rng.normal(size=(rng.integers(1, 6), 2)).tolist() for _ in labels]
    return _split(labels, left=left, right=right)


@pytest.mark.parametrize("inverse_regularization", [1.0, 0.01])
def test_noise_scores_as_scikit_learn_on_means_pooled_by_hand(inverse_regularization: float) -> None:
    rng = np.random.default_rng(0)
    data = Dataset("toy", "user", _noise(60, rng), _noise(41, rng), _noise(37, rng))
    pooled = {}
    for name, split in data.splits.items():
        rows = []
        for i in range(len(split)):
            row: list[float] = []
            for sequences in split.modalities.values():
                steps = sequences.values[sequences.offsets[i] : sequences.offsets[i + 1]].astype(np.float64)
                row += [sum(step[f] for step in steps) / len(steps) for f in range(sequences.features)]
            rows.append(row)
        pooled[name] = np.array(rows)
    mean, deviation = pooled["train"].mean(axis=0), pooled["train"].std(axis=0)
    # The regularisation is chosen on validation of three, of equals the configured one.
    tried = []
    for factor in (1.0, 0.1, 10.0):
        classifier = LogisticRegression(C=factor * inverse_regularization, max_iter=1000)
        classifier.fit((pooled["train"] - mean) / deviation, data.train.labels)
        tried.append(
            {
                name: classifier.score((pooled[name] - mean) / deviation, data.splits[name].labels)
                for name in ("valid", "test")
            }
        )
    expected = max(tried, key=lambda scores: scores["valid"])
    config = ProbeSettings(inverse_regularization=inverse_regularization).classifier
    assert _accuracy(reference_points(data, config), "raw features") == expected
    assert all(0.2 < accuracy < 0.6 for accuracy in expected.values())


def test_an_unfinished_fit_is_told_of_the_probe_alone() -> None:
    rng = np.random.default_rng(0)
    data = Dataset("toy", "user", _noise(60, rng), _noise(20, rng), _noise(20, rng))
    converged = {
        (point.reference == "majority class", point.probe_converged)
        for point in reference_points(data, ProbeSettings(max_iterations=1).classifier)
    }
    assert converged == {(True, True), (False, False)}


def test_several_classes(tiny_dataset: Dataset) -> None:
    points = reference_points(tiny_dataset, ProbeSettings().classifier)
    # Train's classes 0 and 1 tie at nine: class 0, which 4 of valid's 10 and 3 of test's 9 have.
    assert _accuracy(points, "majority class") == {"valid": 0.4, "test": 3 / 9}
    assert _accuracy(points, "raw features") == {"valid": 1.0, "test": 1.0}  # every step carries its class
    assert {point.split: point.samples for point in points} == {"valid": 10, "test": 9}


def test_the_stage_needs_no_model(tiny_dataset: Dataset) -> None:
    config = ProbeSettings(inverse_regularization=0.5).classifier
    outcome = REFERENCE.run(config, tiny_dataset, None, Context())
    assert outcome.rows == [asdict(point) for point in reference_points(tiny_dataset, config)]
    assert outcome.weights is None
