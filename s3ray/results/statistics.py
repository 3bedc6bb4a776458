"""The statistical rules, written before results.

Seeds

- A seed is a replicate. Means are over seeds; std is the sample deviation (ddof 1); intervals are two-sided
  95 % Student t intervals of the mean. With one seed, std and intervals are missing, not zero.
- Beside them stands the percentile bootstrap of the mean (Efron and Tibshirani 1993; 1999 resamples, a fixed
  generator). It asks for many seeds. Three values have only 10 distinct resample means, and the smallest,
  three times the lowest value, has probability 1/27, more than 2.5 %: at n = 3 the interval is the range of the
  values, which holds the mean of a symmetric distribution 75 times in 100 instead of 95. It understates; the t
  interval is the one to quote.
- An interval is cut off where no true value can lie: that of an accuracy at 0 and 100 %, that of a difference at 100
  points either way, of a difference of differences at 200. What is cut off could never be right, so it holds the true
  value as often as before. With two seeds t is 12.7, and such ends are usual: they say that two seeds tell nothing, and
  stay. `half_width` is the t interval's own, uncut; where it leads beyond the ends, the cut interval is printed in its
  place. Tests are of the uncut.

The choice of p

- p* is the preservation ratio below 1 with the highest *validation* accuracy, averaged over seeds; of equal
  ones the largest. Its test accuracy is the figure to quote, its gain over p = 1 is a paired difference over
  seeds.
- The oracle is the ratio below 1 with the highest *test* accuracy. It is reported beside p*, labelled, only
  because the paper's Table 2 chose that way.

Verdicts on the shape of a curve (`verdicts`), read from p = 1 to the smallest ratio, on test

- Five names. `peak inside`: p* is above p = 1 and above the smallest ratio, the reverse U. `falling`: accuracy falls
  towards the smallest ratio. `rising`: it rises towards the smallest ratio. `flat`: it stays. `undecided`: none shown.
- The family of a curve's tests is the curve: its verdict is the same whatever else was run. Of many curves without
  any effect, each may therefore be misjudged: for each claim 5 in 100 at most, save for the optimism below. How many
  that are is said beside the table.
- All tests are t tests of paired differences over seeds at level 0.05. The verdict is the first that holds:
  1. `peak inside`: p* is above p = 1, and above the smallest ratio (one-sided). Both must be shown, so neither is
     corrected (intersection-union test; Berger 1982). p* is not above itself.
  2. `falling`, `rising`: the ends differ (two-sided), and no step against that direction, from any ratio to any
     smaller one, is shown to exceed the margin (one-sided): a saw-tooth is neither. The largest such step of the mean
     curve stands in the table, as `rise` and `fall`.
  3. `flat`: p*, p = 1 and the smallest ratio are pairwise equivalent, by two one-sided tests (Schuirmann 1987) within
     the margin, 1 point if not said otherwise, and no step either way is shown to exceed it. Or: from two seeds on,
     every seed has one accuracy at all ratios. Equal numbers need no test to be equal.
  4. `undecided`.
- Errors of steps are pooled over ratios (two-way layout of seeds and ratios, (n - 1)(k - 1) degrees of freedom), which
  takes the noise for the same at all ratios. All steps are tested without correction: what stops a direction is
  found too often rather than too seldom.
- What `falling` and `rising` do not show: that every step goes that way. A rise within the margin, or within
  what the noise hides, is not excluded, and a peak that too few seeds can show is such a rise. `rise` says how large.
- `more_seeds`, where undecided: how many more seeds give every test of a claim 80 % power (paired t tests, noncentral
  t), if the observed effects and deviations are the truth; `claim` is the one that takes fewest. Only claims that
  more seeds could decide: of the right sign, and not against a step that is shown already. Infinite beyond 100; NaN
  where there is no such claim, and below two seeds. An effect seen in few seeds is itself uncertain: a plan, not a
  promise. These tests are of the same test samples at every seed: where infinitely many seeds would not show the claim
  for other samples of the kind, the table says "more test samples" instead (`crossed.py`).
- An accuracy is a count over the test samples. If rows say how many (`samples`), a value is not taken to be known
  better than to one sample, deviation 1 / (samples · √12), nor a difference of two than to √2 times that: three equal
  differences on a test set of a hundred are a coincidence, not certainty. So in tests as in intervals, those of means
  included (a `std` is what was observed).
- Simulated (independent noise of one point, ten ratios, three seeds): where nothing has any effect, 2 to 3 of 100
  curves come out as `falling`, as many as `rising`, and fewer than 1 as `peak inside`; a saw-tooth of 5 points comes
  out as `falling`, `rising` or `flat` in none of 300. A fall of 6.8 points is found in 96 of 100, in 59 with noise of
  two points.
- p* is chosen on validation, but by the models that are tested: what is peculiar to them at p* is chosen along,
  and the tests are optimistic by that much. Where no ratio is better than p = 1 and only the smallest is worse (ten
  ratios, simulated), `peak inside` comes out in 5 of 100 cases if the noise of the two splits
  is independent, in 10 if half of its variance is common, in 16 (three seeds) to 20 (ten) if all of it is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

CONFIGURATION = ["dataset", "method", "kind", "scale", "granularity", "batch_size", "reading", "branch"]
ALPHA = 0.05
POWER = 0.8
RESAMPLES = 1999
MOST_SEEDS = 100  # as many more as are worth saying
_EQUAL = 1e-9  # accuracies that differ by less differ by rounding

_SUMMARY = ["mean", "std", "n", "half_width", "active_parameters", "active_parameters_paper"]
_SUMMARY += ["low", "high", "boot_low", "boot_high"]
_BEST = ["p_star", "valid", "test", "test_full", "gain", "gain_half_width", "oracle_p", "oracle_test", "n"]
_VERDICT = ["n", "p_star", "smallest", "test", "test_full", "test_smallest"]
_VERDICT += ["gain_full", "p_full", "gain_smallest", "p_smallest", "ends", "p_ends"]
_VERDICT += ["rise", "p_rise", "fall", "p_fall", "p_flat", "verdict", "more_seeds", "claim", "oracle_p", "oracle_test"]


def half_width(values: pd.Series[float], resolution: float = 0.0) -> float:
    """Half of the 95 % t interval of the mean; NaN below two values. Missing values don't count.

    Args:
        resolution: step of the grid on which values lie.
    """
    values = values.dropna()
    n = len(values)
    if n < 2:
        return math.nan
    return float(stats.t.ppf(0.975, n - 1) * max(values.std(ddof=1), resolution / math.sqrt(12)) / math.sqrt(n))


def bootstrap_interval(values: pd.Series[float]) -> tuple[float, float]:
    """95 % percentile bootstrap of the mean; NaN below two values. Missing values don't count."""
    values = values.dropna()
    if len(values) < 2:
        return float("nan"), float("nan")
    # Sorted, since a fixed generator draws positions: the order of rows must not matter. Not BCa, which has no
    # value where all are equal, and whose correction three values cannot carry.
    sample = np.sort(values.to_numpy(float))
    low, high = np.percentile(sample[_resamples(len(sample))].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


@functools.cache
def _resamples(n: int) -> NDArray[np.int64]:
    """Positions (RESAMPLES, n), the same whatever the values: a report asks for thousands of intervals."""
    return np.random.default_rng(0).integers(n, size=(RESAMPLES, n))


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, std, n and intervals over seeds, per configuration, preservation ratio and split."""
    lines = []
    keys = [*CONFIGURATION, "preservation_ratio", "split"]
    for values, group in rows.groupby(keys, sort=False):
        accuracy = group["accuracy"].dropna()
        width = half_width(accuracy, resolution(group))
        boot_low, boot_high = bootstrap_interval(accuracy)
        lines.append(
            dict(zip(keys, values, strict=True))
            | {
                "mean": accuracy.mean(),
                "std": accuracy.std(ddof=1),
                "n": len(accuracy),
                "half_width": width,
                "active_parameters": group["active_parameters"].mean(),
                "active_parameters_paper": group["active_parameters_paper"].mean(),
                "low": max(accuracy.mean() - width, 0.0) if len(accuracy) > 1 else math.nan,
                "high": min(accuracy.mean() + width, 1.0) if len(accuracy) > 1 else math.nan,
                "boot_low": boot_low,
                "boot_high": boot_high,
            }
        )
    return pd.DataFrame(lines, columns=[*keys, *_SUMMARY])


def resolution(rows: pd.DataFrame) -> float:
    """What one sample changes in an accuracy; 0 if rows do not say."""
    samples = rows["samples"].min() if "samples" in rows else math.nan
    return 1 / samples if samples > 0 else 0.0


class _Curve(NamedTuple):
    configuration: dict[str, Any]
    valid: pd.DataFrame  # seed × preservation ratio
    test: pd.DataFrame
    resolution: float  # accuracy of one test sample; 0 if rows do not say
    p_star: float
    oracle: float


def _curves(rows: pd.DataFrame) -> Iterator[_Curve]:
    """The configurations that were measured at p = 1 and below, on both splits, with their choices of p."""
    needed = [*CONFIGURATION, "split", "seed", "preservation_ratio", "accuracy", "samples"]
    for configuration, group in rows[rows.columns.intersection(needed)].groupby(CONFIGURATION, sort=False):
        group = group[group["accuracy"].notna()]
        valid, test = (
            group[group["split"] == split].pivot(index="seed", columns="preservation_ratio", values="accuracy")
            for split in ("valid", "test")
        )
        pruned = sorted((p for p in map(float, valid.columns) if p < 1.0 and p in test), reverse=True)
        if not pruned or 1.0 not in test:
            continue
        yield _Curve(
            configuration=dict(zip(CONFIGURATION, configuration, strict=True)),
            valid=valid,
            test=test,
            resolution=resolution(group[group["split"] == "test"]),
            p_star=_highest(valid[pruned]),
            oracle=_highest(test[pruned]),
        )


def _highest(curves: pd.DataFrame) -> float:
    """The ratio with the highest mean over seeds; of equal ones the first."""
    complete = curves.dropna()  # means over different seeds would compare seeds, not ratios
    # Equal up to what the order of a sum makes of it; means of accuracies lie further apart.
    means = (curves if complete.empty else complete).mean().round(9)
    return max(map(float, curves.columns), key=lambda p: float(means[p]))


def best_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Per configuration: p* and what it gives on test, beside p = 1 and the oracle.

    Columns: `p_star`, `valid` and `test` (means at p*), `test_full` (mean at p = 1), `gain` (mean paired
    difference test(p*) - test(1)) with `gain_half_width`, `oracle_p`, `oracle_test`, `n`. Seeds that lack either
    test accuracy don't count.
    """
    results = []
    for curve in _curves(rows):
        test = curve.test[[curve.p_star, 1.0]].dropna()
        gain = Difference.paired(test[curve.p_star], test[1.0], curve.resolution)
        results.append(
            curve.configuration
            | {
                "p_star": curve.p_star,
                "valid": curve.valid[curve.p_star].mean(),
                "test": test[curve.p_star].mean(),
                "test_full": test[1.0].mean(),
                "gain": gain.mean,
                "gain_half_width": gain.half_width(0.95),
                "oracle_p": curve.oracle,
                "oracle_test": curve.test[curve.oracle].mean(),
                "n": len(test),
            }
        )
    return pd.DataFrame(results, columns=[*CONFIGURATION, *_BEST])


@dataclass(frozen=True, slots=True)
class Difference:
    """An estimated difference of means whose standardised error follows Student's t.

    The tests return p-values; NaN where the error is unknown.
    """

    mean: float
    error: float  # standard error
    freedom: float  # degrees of freedom

    @classmethod
    def paired(cls, first: pd.Series[float], second: pd.Series[float], resolution: float = 0.0) -> Difference:
        """Of two series over the same seeds; `resolution` is the step of the grid on which values lie."""
        differences = (first - second).dropna()
        n = len(differences)
        if n < 2:
            return cls(float(differences.mean()), math.nan, math.nan)
        # A value known to one step of the grid has deviation 1/√12 of it, the difference of two 1/√6.
        deviation = max(differences.std(ddof=1), resolution / math.sqrt(6))
        return cls(float(differences.mean()), deviation / math.sqrt(n), n - 1)

    @property
    def reversed(self) -> Difference:
        """Second minus first."""
        return Difference(-self.mean, self.error, self.freedom)

    def p_above(self, bound: float = 0.0) -> float:
        """Of the one-sided test whose alternative is a difference above `bound`."""
        if self.error == 0.0:
            return 0.0 if self.mean > bound else 1.0
        return float(stats.t.sf((self.mean - bound) / self.error, self.freedom))

    def p_below(self, bound: float = 0.0) -> float:
        """Of the one-sided test whose alternative is a difference below `bound`."""
        return self.reversed.p_above(-bound)

    def p_nonzero(self) -> float:
        """Of the two-sided test."""
        return float(np.minimum(1.0, 2 * min(self.p_above(), self.p_below())))

    def p_within(self, margin: float) -> float:
        """Of equivalence: the larger of two one-sided tests."""
        return max(self.p_above(-margin), self.p_below(margin))

    def half_width(self, confidence: float) -> float:
        """Of the two-sided t interval, uncut."""
        return float(stats.t.ppf((1 + confidence) / 2, self.freedom)) * self.error

    def interval(self, confidence: float, largest: float = 1.0) -> tuple[float, float]:
        """The two-sided t interval, cut off at `largest` either way, beyond which no difference can lie."""
        reach = self.half_width(confidence)
        low, high = np.clip([self.mean - reach, self.mean + reach], -largest, largest)
        return float(low), float(high)


def power(effect: float, n: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """Power of the one-sided paired t test with n pairs (Cohen 1988, chapter 2).

    Args:
        effect: mean of the differences over their deviation.
        n: number of pairs, 2 or more.
        alpha: level of the test.
    """
    pairs = np.asarray(n, dtype=float)
    threshold = stats.t.isf(alpha, pairs - 1)
    return np.asarray(stats.nct.sf(threshold, pairs - 1, effect * np.sqrt(pairs)), dtype=float)


def verdicts(rows: pd.DataFrame, margin: float = 1.0) -> pd.DataFrame:
    """Per configuration with a pruning curve: its shape, by the rules above.

    Args:
        rows: as collected; only configurations measured at p = 1 and below have a curve.
        margin: of equivalence, in points of accuracy.

    Returns:
        Columns: `n`; `p_star` and `smallest` (ratios); `test`, `test_full`, `test_smallest` (means at p*, 1 and the
        smallest ratio); `gain_full` and `gain_smallest` (p* over each end) and `ends` (the smallest ratio over p = 1),
        each with its `p_…`; `rise` and `fall` (the mean curve's largest steps up and down towards the smallest ratio)
        with the `p_…` of exceeding the margin; `p_flat`; `verdict`; `more_seeds` and the `claim` that they would
        decide; `oracle_p` and `oracle_test`, chosen on test and no part of the verdict. Seeds that lack one of the
        three ratios don't count.
    """
    results = []
    for curve in _curves(rows):
        shape = _Shape.of(curve, margin / 100)
        verdict = shape.verdict()
        more, claim = shape.more_seeds() if verdict == "undecided" else (0.0, "")
        results.append(
            curve.configuration
            | {
                "n": len(shape.test),
                "p_star": curve.p_star,
                "smallest": shape.smallest,
                "test": shape.test[curve.p_star].mean(),
                "test_full": shape.test[1.0].mean(),
                "test_smallest": shape.test[shape.smallest].mean(),
                "gain_full": shape.over_full.mean,
                "p_full": shape.over_full.p_above(),
                "gain_smallest": shape.over_smallest.mean,
                "p_smallest": shape.over_smallest.p_above(),
                "ends": shape.ends.mean,
                "p_ends": shape.ends.p_nonzero(),
                "rise": shape.rise.mean,
                "p_rise": shape.rise.p_above(shape.margin),
                "fall": shape.fall.mean,
                "p_fall": shape.fall.p_above(shape.margin),
                "p_flat": shape.p_flat(),
                "verdict": verdict,
                "more_seeds": more,
                "claim": claim,
                "oracle_p": curve.oracle,
                "oracle_test": curve.test[curve.oracle].mean(),
            }
        )
    return pd.DataFrame(results, columns=[*CONFIGURATION, *_VERDICT])


class _Shape(NamedTuple):
    """A curve's differences and what they show."""

    test: pd.DataFrame  # seed × p*, 1 and the smallest ratio; complete
    smallest: float
    over_full: Difference  # p* over p = 1
    over_smallest: Difference
    ends: Difference  # the smallest ratio over p = 1
    rise: Difference  # the largest step up from a ratio to a smaller one
    fall: Difference  # the largest step down, as a positive number
    constant: bool  # one accuracy per seed
    margin: float

    @classmethod
    def of(cls, curve: _Curve, margin: float) -> _Shape:
        smallest = min(map(float, curve.test.columns))
        test = curve.test[sorted({curve.p_star, 1.0, smallest})].dropna()
        # p* equals itself by definition, not by coincidence.
        coincidence = curve.resolution if curve.p_star != smallest else 0.0
        complete = curve.test.loc[test.index].dropna(axis=1)  # the steps between ratios that all these seeds have
        rise, fall = _steps(complete, curve.resolution)
        return cls(
            test=test,
            smallest=smallest,
            over_full=Difference.paired(test[curve.p_star], test[1.0], curve.resolution),
            over_smallest=Difference.paired(test[curve.p_star], test[smallest], coincidence),
            ends=Difference.paired(test[smallest], test[1.0], curve.resolution),
            rise=rise,
            fall=fall,
            constant=len(complete) > 1 and bool((complete.max(axis=1) - complete.min(axis=1) < _EQUAL).all()),
            margin=margin,
        )

    def p_flat(self) -> float:
        return max(d.p_within(self.margin) for d in (self.over_full, self.over_smallest, self.ends))

    def verdict(self) -> str:
        """The first rule that holds; a missing p-value is below nothing, and above nothing."""
        no_rise, no_fall = (step.p_above(self.margin) >= ALPHA for step in (self.rise, self.fall))
        if max(self.over_full.p_above(), self.over_smallest.p_above()) < ALPHA:
            return "peak inside"
        if self.ends.p_nonzero() < ALPHA:
            if self.ends.mean < 0 and no_rise:
                return "falling"
            if self.ends.mean > 0 and no_fall:
                return "rising"
        if self.constant or (self.p_flat() < ALPHA and no_rise and no_fall):
            return "flat"
        return "undecided"

    def more_seeds(self) -> tuple[float, str]:
        """How many more seeds the claim takes that takes fewest, and its name; NaN and none if there is none."""
        no_rise, no_fall = (step.p_above(self.margin) >= ALPHA for step in (self.rise, self.fall))
        claims: dict[str, list[_Test]] = {
            "peak inside": [(self.over_full, 0.0, ALPHA), (self.over_smallest, 0.0, ALPHA)]
        }
        if no_rise:
            claims["falling"] = [(self.ends.reversed, 0.0, ALPHA / 2)]
        if no_fall:
            claims["rising"] = [(self.ends, 0.0, ALPHA / 2)]
        if no_rise and no_fall:
            pairs = (self.over_full, self.over_smallest, self.ends)
            claims["flat"] = [(d, -self.margin, ALPHA) for pair in pairs for d in (pair, pair.reversed)]
        best, claim = math.nan, ""
        for name, tests in claims.items():
            if all(difference.mean > bound for difference, bound, _ in tests):
                needed = max(_more_pairs(*test) for test in tests)
                if not claim or needed < best:
                    best, claim = needed, name
        return (best, claim) if len(self.test) > 1 else (math.nan, "")


_Test = tuple[Difference, float, float]  # one-sided, of a difference above a bound, at a level


def _steps(complete: pd.DataFrame, resolution: float) -> tuple[Difference, Difference]:
    """The largest rise and fall of the mean curve from a ratio to a smaller one, with pooled errors."""
    values = complete[sorted(complete.columns, reverse=True)].to_numpy(float)  # seed × ratio
    n, k = values.shape
    if n < 2:
        unknown = Difference(math.nan, math.nan, math.nan)
        return unknown, unknown
    means = values.mean(axis=0)
    residuals = values - values.mean(axis=1, keepdims=True) - means + values.mean()
    freedom = (n - 1) * (k - 1)
    deviation = max(math.sqrt((residuals**2).sum() / freedom), resolution / math.sqrt(12))
    error = deviation * math.sqrt(2 / n) if deviation > _EQUAL else 0.0
    steps = (means - means[:, None])[np.triu_indices(k, 1)].round(9)  # to a smaller ratio, minus from a larger
    rise, fall = max(0.0, float(steps.max())), max(0.0, float(-steps.min()))
    return Difference(rise, error, freedom), Difference(fall, error, freedom)


def _more_pairs(difference: Difference, bound: float, alpha: float) -> float:
    """How many more pairs give a one-sided test 80 % power; 0 if it has rejected."""
    if not difference.p_above(bound) >= alpha:
        return 0.0 if not math.isnan(difference.error) else math.nan
    n = difference.freedom + 1
    effect = (difference.mean - bound) / (difference.error * math.sqrt(n))
    more = np.arange(1, MOST_SEEDS + 1)
    enough = more[power(effect, n + more, alpha) >= POWER]
    return float(enough[0]) if enough.size else math.inf
