"""Draws: functions of a key, of which a rank sees its rows of what one worker would see."""

from __future__ import annotations

import pytest
import torch

from s3ray.model.draws import Draws, generator


def _draws(rows: slice, key: tuple[int | str, ...] = ("step", 3, 7, "text"), tokens: int = 10) -> Draws:
    return Draws(generator(*key), tokens, rows)


def test_rows_of_a_shard_are_rows_of_the_whole_on_every_call() -> None:
    whole, shard = _draws(slice(0, 10)), _draws(slice(4, 9))
    for _ in range(2):
        assert torch.equal(shard.normal(3, torch.float32), whole.normal(3, torch.float32)[4:9])
        assert torch.equal(shard.dropout(5, 0.5, torch.float32), whole.dropout(5, 0.5, torch.float32)[4:9])


def test_successive_draws_differ() -> None:
    draws = _draws(slice(0, 10))
    assert not torch.equal(draws.normal(3, torch.float32), draws.normal(3, torch.float32))


@pytest.mark.parametrize(
    "other", [("step", 4, 7, "text"), ("step", 3, 8, "text"), ("step", 3, 7, "vision"), ("step", 37, "text")]
)
def test_every_part_of_the_key_counts(other: tuple[int | str, ...]) -> None:
    first = _draws(slice(0, 10)).normal(3, torch.float64)
    assert torch.equal(first, _draws(slice(0, 10)).normal(3, torch.float64))
    assert not torch.equal(first, _draws(slice(0, 10), other).normal(3, torch.float64))


def test_normal_has_unit_variance() -> None:
    drawn = _draws(slice(0, 10_000), tokens=10_000).normal(4, torch.float64)
    # n = 40,000: the mean has deviation 1/200, the variance √(2/n) = 0.0071; bounds at 4.5 deviations.
    assert abs(drawn.mean().item()) < 4.5 / 200
    assert abs(drawn.var().item() - 1.0) < 4.5 * 0.0071


def test_dropout_multipliers_are_zero_or_scaled_and_keep_the_mean() -> None:
    drawn = _draws(slice(0, 10_000), tokens=10_000).dropout(4, 0.2, torch.float64)
    assert drawn.unique().tolist() == [0.0, 1.25]  # 1 / (1 - 0.2)
    # The share of zeros has deviation √(0.2 · 0.8 / 40,000) = 0.002; bound at 4.5 deviations.
    assert abs((drawn == 0).double().mean().item() - 0.2) < 0.009
