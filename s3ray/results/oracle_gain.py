"""What the paper's printed pruning curves can carry: the oracle's gain over p = 1 beside what chance gives.

The rules, written before results.

- A curve is one line of Table 1 after Selection: mean test accuracies of three seeds at p = 1 and nine smaller ratios.
  Its *gain* is that of the oracle, the best of the nine, over p = 1. The best of nine noisy numbers is above one
  noisy number even where the true curve is flat.
- Two nulls say what a flat curve's gain is. Both take the noise for normal and of one size along the curve:
  1. white noise: every point has an error of its own. Its deviation σ is estimated from second differences,
     σ̂² = mean((y[i-1] - 2 y[i] + y[i+1])²) / 6, which a straight slope leaves alone;
  2. a random walk: errors add up from p = 1 to the smallest ratio, as if each ratio changed a little what the one
     before it gave. The deviation τ of a step is estimated from first differences, τ̂² = mean((y[i+1] - y[i])²).
- Neither is taken for less than what printing to a hundredth of a point leaves: σ̂ and τ̂ are at least 0.01 / √12.
- What is tested is the gain over the *estimated* size, gain / σ̂ or gain / τ̂, simulated with the size estimated from
  each simulated curve again. Its distribution depends on no unknown, so that a flat curve with such noise has p < 0.05
  in 5 of 100 cases. With σ̂ taken for the truth it would be 10 of 100 (simulated).
- Ten points cannot say which null is the right one, so both are shown. Simulated: a flat curve that wanders exceeds
  white noise in 36 of 100 cases, and one with white noise exceeds the random walk in fewer than 1 of 1000.
- `expected` is the mean gain of a flat curve whose noise has the estimated size. `high` is the gain that such a curve
  exceeds in 5 of 100 cases, `low` the one that it falls short of in 5 of 100, the estimate's own error counted.
- The claim of a curve *exceeds* a null where its p is below 0.05. Each curve is judged by itself: of 12 flat ones 0.6
  exceed by chance. A real rise or bend enlarges σ̂ and τ̂: the test misses some effects and invents none.
- The shape is that of the printed means, without a test: where the largest number stands. `rising`: at the
  smallest ratio; `falling`: at p = 1; `peak inside`: between them. Of equal numbers the largest ratio counts.
- One accuracy's binomial standard error, √(a (1 - a) / N) at p = 1 and N test samples, is there for scale alone: the
  same samples are scored at every ratio, so that much of it is common to the curve.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from s3ray.data.multibench import FILES
from s3ray.results.published import published_table
from s3ray.results.statistics import ALPHA

Values = NDArray[np.float64]

DRAWS = 1_000_000  # Monte Carlo error of a p-value: 0.0005 at most
_CHUNK = 100_000  # curves held at once
_PRINTED = 0.01 / math.sqrt(12)  # deviation that rounding to two digits leaves, in points


def gains(curves: ArrayLike) -> Values:
    """Best point but the first over the first; `curves` (..., points) from p = 1 to the smallest ratio, 2 or more."""
    y = np.asarray(curves, float)
    return np.asarray(y[..., 1:].max(axis=-1) - y[..., 0])


def roughness(curves: ArrayLike) -> Values:
    """σ̂ of white noise, from second differences; `curves` (..., points), 3 or more."""
    return np.asarray(np.sqrt((np.diff(np.asarray(curves, float), 2) ** 2).mean(axis=-1) / 6))


def step_size(curves: ArrayLike) -> Values:
    """τ̂ of a random walk, from first differences; `curves` (..., points), 2 or more."""
    return np.asarray(np.sqrt((np.diff(np.asarray(curves, float)) ** 2).mean(axis=-1)))


class _Null(NamedTuple):
    size: Callable[[ArrayLike], Values]
    noise: Callable[[Values], Values]  # of independent standard normal draws (curves, points)


NULLS: Mapping[str, _Null] = {
    "white noise": _Null(roughness, lambda draws: draws),
    "random walk": _Null(step_size, lambda draws: draws.cumsum(axis=-1)),
}


class Chance(NamedTuple):
    """What a null says of a curve's gain; all but `p_value` in the curve's unit."""

    size: float  # σ̂ or τ̂
    expected: float
    low: float
    high: float
    p_value: float  # of a gain as large as the curve's


class _Simulated(NamedTuple):
    expected: float  # gain of noise of size 1
    low: float  # gain over estimated size that 5 of 100 fall short of
    high: float  # that 5 of 100 exceed
    ratios: Values  # gain over estimated size, sorted


@functools.cache
def _simulated(null: str, points: int) -> _Simulated:
    generator = np.random.default_rng(0)
    total, ratios = 0.0, []
    for _ in range(DRAWS // _CHUNK):
        curves = NULLS[null].noise(generator.standard_normal((_CHUNK, points)))
        gain = gains(curves)
        total += float(gain.sum())
        ratios.append(gain / NULLS[null].size(curves))
    ordered = np.sort(np.concatenate(ratios))
    low, high = ordered[int(ALPHA * DRAWS)], ordered[int((1 - ALPHA) * DRAWS)]
    return _Simulated(total / DRAWS, float(low), float(high), ordered)


def chance(curve: ArrayLike, null: str) -> Chance:
    """What `null`, a name of `NULLS`, says of the gain of `curve` (points,), 3 or more in percent from p = 1 on."""
    y = np.asarray(curve, float)
    size = max(float(NULLS[null].size(y)), _PRINTED)
    flat = _simulated(null, len(y))
    as_large = DRAWS - np.searchsorted(flat.ratios, float(gains(y)) / size, side="left")
    return Chance(size, size * flat.expected, size * flat.low, size * flat.high, float(as_large / DRAWS))


def shape(curve: ArrayLike) -> str:
    """Where the largest of a printed curve's points (points,) stands, from p = 1 to the smallest ratio."""
    best = int(np.argmax(np.asarray(curve, float)))
    return "falling" if best == 0 else "rising" if best == np.size(curve) - 1 else "peak inside"


def printed_gains() -> pd.DataFrame:
    """A line per printed curve (data set × χ) and null, in points of accuracy.

    Columns: `dataset`, `granularity`, `samples` (of test), `binomial_error`, `full` (accuracy at p = 1, percent),
    `oracle_p`, `gain`, `over_smallest` (the oracle over the smallest ratio), `shape`, `null`, and `size`, `expected`,
    `low`, `high`, `p_value` of `Chance`.
    """
    table = published_table(1)
    table = table[table["stage"] != "specialization"].astype(
        {"granularity": int, "preservation_ratio": float, "accuracy_mean": float}
    )
    lines = []
    for (dataset, granularity), own in table.groupby(["dataset", "granularity"], sort=False):
        own = own.sort_values("preservation_ratio", ascending=False)
        y, samples = own["accuracy_mean"].to_numpy(), FILES[str(dataset)].samples["test"]
        best = 1 + int(np.argmax(y[1:]))
        about = {
            "dataset": dataset,
            "granularity": granularity,
            "samples": samples,
            "binomial_error": math.sqrt(y[0] * (100 - y[0]) / samples),
            "full": y[0],
            "oracle_p": own["preservation_ratio"].iloc[best],
            "gain": y[best] - y[0],
            "over_smallest": y[best] - y[-1],
            "shape": shape(y),
        }
        lines += [about | {"null": null, **chance(y, null)._asdict()} for null in NULLS]
    return pd.DataFrame(lines)
