"""The four augmentations by hand, and that workers draw what one worker draws."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from s3ray.methods.augment import DROP, NOISE, NONE, PERMUTE, augment, transformed
from s3ray.model import Draws, Ragged, Source
from s3ray.model.draws import seed_of

# Two samples of 5 and 3 steps with one feature each.
X = Ragged(torch.tensor([[10.0], [11.0], [12.0], [13.0], [14.0], [20.0], [21.0], [22.0]]), torch.tensor([5, 3]))
ORDER = torch.tensor([0.5, 0.1, 0.9, 0.3, 0.7, 0.6, 0.2, 0.4], dtype=torch.float64)
NORMAL = torch.arange(8.0)[:, None]


def _values(*kinds: int) -> list[float]:
    result = transformed(X, torch.tensor(kinds), ORDER, NORMAL)
    assert torch.equal(result.lengths_B, X.lengths_B)
    return result.values_TF[:, 0].tolist()


def test_permute_sorts_a_samples_steps_by_the_order() -> None:
    # Orders .5 .1 .9 .3 .7 → steps 1, 3, 0, 4, 2; and .6 .2 .4 → 1, 2, 0.
    assert _values(PERMUTE, PERMUTE) == [11, 13, 10, 14, 12, 21, 22, 20]


def test_noise_has_deviation_a_tenth() -> None:
    first, second = _values(NOISE, NONE), [20.0, 21.0, 22.0]
    assert torch.tensor(first).allclose(torch.tensor([10.0, 11.1, 12.2, 13.3, 14.4, *second]))


def test_drop_zeroes_a_fifth_of_the_steps_rounded_down() -> None:
    # One of five: the step with the lowest order; none of three.
    assert _values(DROP, DROP) == [10, 0, 12, 13, 14, 20, 21, 22]
    ten = Ragged(torch.ones(10, 2), torch.tensor([10]))
    order = torch.linspace(0.9, 0.0, 10, dtype=torch.float64)
    dropped = transformed(ten, torch.tensor([DROP]), order, torch.zeros(10, 2)).values_TF
    assert dropped.tolist() == [[1.0, 1.0]] * 8 + [[0.0, 0.0]] * 2


def test_each_sample_has_its_own_kind() -> None:
    assert _values(NONE, NONE) == X.values_TF[:, 0].tolist()
    assert _values(NONE, PERMUTE) == [10, 11, 12, 13, 14, 21, 22, 20]
    assert _values(DROP, NOISE)[:5] == [10, 0, 12, 13, 14]


def _batch(samples: int) -> Ragged:
    """Lengths 5 to 9, every value distinct and away from 0."""
    lengths = torch.arange(samples) % 5 + 5
    return Ragged(torch.arange(1.0, 2 * int(lengths.sum()) + 1).view(-1, 2).double(), lengths)


def _draws(x: Ragged, rows: slice | None = None) -> Draws:
    tokens = len(x.values_TF)
    return Draws(Source(seed_of("test")), tokens, rows or slice(0, tokens))


def _kind(before: Tensor, after: Tensor) -> int:
    """Which transformation made `after`; steps are rows."""
    if torch.equal(before, after):
        return NONE
    if torch.equal(before, after.sort(dim=0).values):  # values grow with the step
        return PERMUTE
    zeroed = (after == 0).all(dim=1)
    if zeroed.any():
        assert zeroed.sum() == len(before) // 5
        assert torch.equal(before[~zeroed], after[~zeroed])
        return DROP
    assert (before - after).abs().max() < 1.0  # ten deviations
    return NOISE


def test_kinds_are_uniform_over_samples() -> None:
    x = _batch(4000)
    after = augment(x, _draws(x))
    lengths = x.lengths_B.tolist()
    assert torch.equal(after.lengths_B, x.lengths_B)
    pairs = zip(x.values_TF.split(lengths), after.values_TF.split(lengths), strict=True)
    kinds = torch.tensor([_kind(before, other) for before, other in pairs])
    counts = kinds.bincount(minlength=4)
    # A count is binomial(4000, ¼): 1000 with deviation sqrt(4000 · ¼ · ¾) = 27.4; beyond four of them, one in 16000.
    # A permutation of at least five steps leaves all in place once in 120, and then counts as none.
    assert (counts - 1000).abs().max() < 4 * math.sqrt(4000 * 0.25 * 0.75) + 1000 / 120


def test_a_workers_rows_are_those_of_one_worker() -> None:
    x = _batch(12)
    whole = augment(x, _draws(x))
    ends = list(itertools.accumulate(x.lengths_B.tolist()))
    rows = slice(ends[5], ends[11])
    shard = augment(Ragged(x.values_TF[rows], x.lengths_B[6:]), _draws(x, rows))
    assert torch.equal(shard.values_TF, whole.values_TF[rows])
