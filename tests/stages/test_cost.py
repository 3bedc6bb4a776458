"""Estimated seconds beside measured ones, where data are long or wide: right within a factor of two."""

from __future__ import annotations

from typing import Any

import pytest

from s3ray.data.facts import DataFacts
from s3ray.model import ModelConfig
from s3ray.stages.cost import encoding_seconds, training_seconds
from s3ray.stages.probe import ClassifierConfig
from s3ray.stages.reference import REFERENCE


def _facts(steps: int, features: int, train: int) -> DataFacts:
    """Of two modalities alike, the other splits a third of train each."""
    samples = {"train": train, "valid": train // 3, "test": train // 3}
    names = ("left", "right")
    return DataFacts(
        fingerprint="",
        kind="user",
        features=dict.fromkeys(names, features),
        classes=3,
        samples=samples,
        tokens={split: 2 * steps * n for split, n in samples.items()},
        mean_steps=dict.fromkeys(names, float(steps)),
        most_steps=dict.fromkeys(names, steps),
        squares={split: 2 * steps**2 * n for split, n in samples.items()},
    )


def _model(width: int, **changes: Any) -> ModelConfig:
    return ModelConfig(width=width, layers=2, heads=1, granularity=8, **changes)


# Seconds of one training step at batch size 64, alone on a core.
STEP = [
    (1, 10_000, 32, 0.037),
    (50, 1000, 32, 0.229),
    (50, 10_000, 32, 0.369),
    (200, 100, 32, 0.721),
    (600, 100, 32, 2.543),
    (1250, 1000, 32, 6.409),
    (1250, 100, 64, 11.35),
]


@pytest.mark.parametrize(("steps", "features", "width", "seconds"), STEP)
def test_a_training_step(steps: int, features: int, width: int, seconds: float) -> None:
    estimate = training_seconds(_model(width), _facts(steps, features, 64), 64, 1)
    assert 0.5 < estimate / seconds < 2


@pytest.mark.parametrize(("width", "seconds"), [(32, 23.5), (64, 37.5)])
def test_encoding_long_sequences(width: int, seconds: float) -> None:
    assert 0.5 < encoding_seconds(_model(width), _facts(1250, 100, 256), 256) / seconds < 2


@pytest.mark.parametrize(
    ("steps", "features", "train", "seconds"),
    [(1, 1000, 1000, 2.25), (1, 10_000, 500, 6.07), (50, 10_000, 200, 13.8), (1250, 100, 200, 3.95)],
)
def test_references(steps: int, features: int, train: int, seconds: float) -> None:
    facts = _facts(steps, features, train)
    config = ClassifierConfig(inverse_regularization=0.1, max_iterations=1000, standardize=True)
    assert 0.5 < REFERENCE.estimate(REFERENCE.planned(config, facts), facts) / seconds < 2
