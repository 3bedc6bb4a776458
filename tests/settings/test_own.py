"""What data of the user's need of a scale."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from s3ray.data import Dataset, from_arrays
from s3ray.settings import Settings, settings_for


def _settings(samples: int, steps: int = 1, overrides: dict[str, Any] | None = None, scale: str = "smoke") -> Settings:
    values = np.arange(samples * steps, dtype=float).reshape(samples, steps, 1)
    split = ({"left": values, "right": values[:, :1]}, np.arange(samples) % 2)
    data = from_arrays("own", train=split, valid=split, test=split)
    return settings_for("own", scale, overrides, data=data)


@pytest.mark.parametrize(
    ("samples", "sizes"),
    [(2, (2,)), (3, (2,)), (28, (8,)), (48, (16,)), (127, (32,)), (128, (64,)), (255, (64,)), (256, (64, 128))],
)
def test_the_batch_leaves_two_of_it_per_epoch(samples: int, sizes: tuple[int, ...]) -> None:
    assert _settings(samples).batch_sizes == sizes


def test_few_samples_are_trained_for_as_many_steps() -> None:
    small, large = _settings(28), _settings(6400)
    # 3 steps of 8 per epoch, and 100 of 64: epochs of the scale are 16 and 12.
    assert (small.specialization.optimizer.epochs, small.selection.optimizer.epochs) == (134, 67)
    assert (large.specialization.optimizer.epochs, large.selection.optimizer.epochs) == (16, 12)


def test_what_the_user_sets_stays_and_is_reckoned_with() -> None:
    own = _settings(
        256,
        overrides={
            "batch_sizes": [128],
            "specialization": {"optimizer": {"epochs": 3}},
            "dataset": {"own": {"model": {"positions": "none"}}},
        },
    )
    assert own.batch_sizes == (128,)
    assert own.specialization.optimizer.epochs == 3
    assert own.selection.optimizer.epochs == 100  # 2 steps per epoch at this batch size
    assert _settings(256, steps=4, overrides={"model": {"positions": "none"}}).model.positions == "none"


def test_steps_are_counted_at_the_users_own_batch_size() -> None:
    own = _settings(300, overrides={"batch_sizes": [256]})  # one batch per epoch
    assert (own.batch_sizes, own.specialization.optimizer.epochs) == ((256,), 400)


def test_positions_are_for_sequences() -> None:
    assert _settings(64).model.positions == "none"
    assert _settings(64, steps=2).model.positions == "sinusoidal"


def test_it_holds_at_every_scale(tiny_dataset: Dataset) -> None:
    assert _settings(100, scale="paper").batch_sizes == (32,)
    assert _settings(100, scale="paper").specialization.optimizer.epochs == 134


def test_other_data_have_the_scales_own_settings(tiny_dataset: Dataset) -> None:
    assert tiny_dataset.kind != "user"
    assert settings_for("tiny", "smoke", data=tiny_dataset) == settings_for("tiny", "smoke")
