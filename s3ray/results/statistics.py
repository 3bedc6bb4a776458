"""The statistical rules, written before results.

Seeds

- A seed is a replicate. Means are over seeds; std is the sample deviation (ddof 1); intervals are two-sided
  95 % Student t intervals of the mean. With one seed, std and intervals are missing, not zero.
- Beside them stands the percentile bootstrap of the mean (Efron and Tibshirani 1993; 1999 resamples, a fixed
  generator). It asks for many seeds. Three values have only 10 distinct resample means, and the smallest,
  three times the lowest value, has probability 1/27, more than 2.5 %: at n = 3 the interval is the range of the
  values, which holds the mean of a symmetric distribution 75 times in 100 instead of 95. It understates; the t
  interval is the one to quote.

The choice of p

- p* is the preservation ratio below 1 with the highest *validation* accuracy, averaged over seeds; of equal
  ones the largest. Its test accuracy is the figure to quote, its gain over p = 1 is a paired difference over
  seeds.
- The oracle is the ratio below 1 with the highest *test* accuracy. It is reported beside p*, labelled, only
  because the paper's Table 2 chose that way.

The claim of a reverse U (`verdicts`): test accuracy at p* is above p = 1 and above the smallest ratio

- All tests are t tests of paired differences over seeds at level 0.05, Holm-corrected (Holm 1979) over a family:
  the configurations (datasets × χ) of one Selection branch and batch size. The claim's two one-sided tests of
  all of them are one family; the tests behind `monotone` are another, those behind `flat` a third. A test that
  cannot be made, for want of seeds, counts as made and not rejected; so does the comparison of p* with itself.
- The verdict is the first that holds:
  1. `peak inside`: both corrected tests of the claim reject.
  2. `monotone`: smallest ratio and p = 1 differ (two-sided), p* is not significantly above the better of the
     two, and its gain over it is shown to be below the margin (one-sided). Without that last condition, a peak
     that too few seeds could not show would be called monotone.
  3. `flat`: p*, p = 1 and the smallest ratio are pairwise equivalent: two one-sided tests (Schuirmann 1987)
     within the margin, 1 point if not said otherwise. Of the ratios between, this says nothing.
  4. `undecided`.
- `more_seeds`, where undecided: how many more seeds give each test of the claim that has not rejected 80 %
  power (paired t test, noncentral t) if its observed effect and deviation are the truth, at the level that
  Bonferroni grants, which is Holm's hardest step. Infinite beyond 100 or if the effect has the wrong sign; NaN
  below two seeds. An effect seen in few seeds is itself uncertain: a plan, not a promise.
- An accuracy is a count over the test samples. If rows say how many (`samples`), the deviation of differences is
  not taken for less than that of two values known to one sample, 1 / (samples · √6): three equal differences
  on a test set of a hundred are a coincidence, not certainty.
- p* is chosen on validation, but by the models that are tested: what is peculiar to them at p* is chosen along,
  and the tests are optimistic by that much. Where no ratio is better than p = 1 and only the smallest is worse (ten
  ratios, one configuration, simulated), `peak inside` comes out in 5 of 100 cases if the noise of the two splits
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

CONFIGURATION = ["dataset", "method", "kind", "scale", "granularity", "batch_size", "branch"]
FAMILY = ["branch", "batch_size"]  # configurations that agree in these are corrected together
ALPHA = 0.05
POWER = 0.8
RESAMPLES = 1999
MOST_SEEDS = 100  # as many more as are worth saying

_BEST = ["p_star", "valid", "test", "test_full", "gain", "gain_half_width", "oracle_p", "oracle_test", "n"]
_VERDICT = ["n", "p_star", "smallest", "test", "test_full", "test_smallest"]
_VERDICT += ["gain_full", "p_full", "holm_full", "gain_smallest", "p_smallest", "holm_smallest"]
_VERDICT += ["p_monotone", "holm_monotone", "p_flat", "holm_flat", "verdict", "more_seeds", "oracle_p", "oracle_test"]


def half_width(values: pd.Series[float]) -> float:
    """Half of the 95 % t interval of the mean; NaN below two values."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def bootstrap_interval(values: pd.Series[float]) -> tuple[float, float]:
    """95 % percentile bootstrap of the mean; NaN below two values."""
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
    grouped = rows.groupby([*CONFIGURATION, "preservation_ratio", "split"], sort=False)
    summary = grouped.agg(
        mean=("accuracy", "mean"),
        std=("accuracy", "std"),
        n=("seed", "nunique"),
        half_width=("accuracy", half_width),
        active_parameters=("active_parameters", "mean"),
        active_parameters_paper=("active_parameters_paper", "mean"),
    ).reset_index()
    summary["low"] = summary["mean"] - summary["half_width"]
    summary["high"] = summary["mean"] + summary["half_width"]
    summary[["boot_low", "boot_high"]] = [bootstrap_interval(accuracy) for _, accuracy in grouped["accuracy"]]
    return summary


class _Curve(NamedTuple):
    configuration: dict[str, Any]
    valid: pd.DataFrame  # seed × preservation ratio
    test: pd.DataFrame
    resolution: float  # accuracy of one test sample; 0 if rows do not say
    p_star: float
    oracle: float


def _curves(rows: pd.DataFrame) -> Iterator[_Curve]:
    """The configurations that were measured at p = 1 and below, with their choices of p."""
    needed = [*CONFIGURATION, "split", "seed", "preservation_ratio", "accuracy", "samples"]
    for configuration, group in rows[rows.columns.intersection(needed)].groupby(CONFIGURATION, sort=False):
        valid, test = (
            group[group["split"] == split].pivot(index="seed", columns="preservation_ratio", values="accuracy")
            for split in ("valid", "test")
        )
        pruned = sorted((p for p in map(float, valid.columns) if p < 1.0), reverse=True)
        if not pruned or 1.0 not in test:
            continue
        resolution = 1 / group.loc[group["split"] == "test", "samples"].min() if "samples" in group else 0.0
        yield _Curve(
            configuration=dict(zip(CONFIGURATION, configuration, strict=True)),
            valid=valid,
            test=test,
            resolution=resolution,
            p_star=_highest(valid[pruned]),
            oracle=_highest(test[pruned]),
        )


def _highest(curves: pd.DataFrame) -> float:
    """The ratio with the highest mean over seeds; of equal ones the first."""
    # Equal up to what the order of a sum makes of it; means of accuracies lie further apart.
    means = curves.mean().round(9)
    return max(map(float, curves.columns), key=lambda p: float(means[p]))


def best_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Per configuration: p* and what it gives on test, beside p = 1 and the oracle.

    Columns: `p_star`, `valid` and `test` (means at p*), `test_full` (mean at p = 1), `gain` (mean paired
    difference test(p*) - test(1)) with `gain_half_width`, `oracle_p`, `oracle_test`, `n`.
    """
    results = []
    for curve in _curves(rows):
        gain = curve.test[curve.p_star] - curve.test[1.0]
        results.append(
            curve.configuration
            | {
                "p_star": curve.p_star,
                "valid": curve.valid[curve.p_star].mean(),
                "test": curve.test[curve.p_star].mean(),
                "test_full": curve.test[1.0].mean(),
                "gain": gain.mean(),
                "gain_half_width": half_width(gain),
                "oracle_p": curve.oracle,
                "oracle_test": curve.test[curve.oracle].mean(),
                "n": len(curve.test),
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
        differences = first - second
        n = len(differences)
        # A value known to one step of the grid has deviation 1/√12 of it, the difference of two 1/√6.
        deviation = np.maximum(differences.std(ddof=1), resolution / math.sqrt(6))
        return cls(float(differences.mean()), float(deviation / math.sqrt(n)), n - 1)

    def p_above(self, bound: float = 0.0) -> float:
        """Of the one-sided test whose alternative is a difference above `bound`."""
        if self.error == 0.0:
            return 0.0 if self.mean > bound else 1.0
        return float(stats.t.sf((self.mean - bound) / self.error, self.freedom))

    def p_below(self, bound: float = 0.0) -> float:
        """Of the one-sided test whose alternative is a difference below `bound`."""
        return Difference(-self.mean, self.error, self.freedom).p_above(-bound)

    def p_nonzero(self) -> float:
        """Of the two-sided test."""
        return float(np.minimum(1.0, 2 * min(self.p_above(), self.p_below())))

    def p_within(self, margin: float) -> float:
        """Of equivalence: the larger of two one-sided tests."""
        return max(self.p_above(-margin), self.p_below(margin))

    def interval(self, confidence: float) -> tuple[float, float]:
        reach = float(stats.t.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return self.mean - reach, self.mean + reach


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's adjusted p-values, in the order given. NaN stays and counts as a test that does not reject."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p)  # NaN last
    steps = len(p) - np.arange(len(p))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps * p[order]))
    return adjusted


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
    """Per configuration with a pruning curve: whether it peaks inside, by the rules above.

    Args:
        rows: as collected; only configurations measured at p = 1 and below have a curve.
        margin: of equivalence, in points of accuracy.

    Returns:
        Columns: `n`; `p_star` and `smallest` (ratios); `test`, `test_full`, `test_smallest` (means at p*, 1 and the
        smallest ratio); `gain_full` and `gain_smallest` (p* over each end) with `p_…` and `holm_…`, raw and
        corrected; the same of `monotone` and `flat`; `verdict`; `more_seeds`; `oracle_p` and `oracle_test`, chosen
        on test and no part of the verdict.
    """
    results, claims = [], []
    for curve in _curves(rows):
        smallest = min(map(float, curve.test.columns))
        test = curve.test[sorted({curve.p_star, 1.0, smallest})].dropna()
        over_full = Difference.paired(test[curve.p_star], test[1.0], curve.resolution)
        ends = Difference.paired(test[smallest], test[1.0], curve.resolution)
        # p* equals itself by definition, not by coincidence.
        coincidence = curve.resolution if curve.p_star != smallest else 0.0
        over_smallest = Difference.paired(test[curve.p_star], test[smallest], coincidence)
        over_better = over_full if test[1.0].mean() >= test[smallest].mean() else over_smallest
        claims.append((over_full, over_smallest))
        results.append(
            curve.configuration
            | {
                "n": len(test),
                "p_star": curve.p_star,
                "smallest": smallest,
                "test": test[curve.p_star].mean(),
                "test_full": test[1.0].mean(),
                "test_smallest": test[smallest].mean(),
                "gain_full": over_full.mean,
                "p_full": over_full.p_above(),
                "gain_smallest": over_smallest.mean,
                "p_smallest": over_smallest.p_above(),
                "p_monotone": max(ends.p_nonzero(), over_better.p_below(margin / 100)),
                "p_flat": max(d.p_within(margin / 100) for d in (over_full, over_smallest, ends)),
                "oracle_p": curve.oracle,
                "oracle_test": curve.test[curve.oracle].mean(),
            }
        )
    if not results:
        return pd.DataFrame(columns=[*CONFIGURATION, *_VERDICT])
    table = pd.DataFrame(results)
    family = table.groupby(FAMILY).ngroup()
    claim = _holm_within(pd.concat([family, family]), pd.concat([table["p_full"], table["p_smallest"]]))
    table["holm_full"], table["holm_smallest"] = np.split(claim, 2)
    table["holm_monotone"] = _holm_within(family, table["p_monotone"])
    table["holm_flat"] = _holm_within(family, table["p_flat"])
    table["verdict"] = [_verdict(tests) for _, tests in table.iterrows()]
    levels = ALPHA / (2 * family.map(family.value_counts()))
    table["more_seeds"] = [
        _more_seeds(pairs, tests, level) if tests["verdict"] == "undecided" else 0.0
        for pairs, (_, tests), level in zip(claims, table.iterrows(), levels, strict=True)
    ]
    return table[[*CONFIGURATION, *_VERDICT]]


def _holm_within(family: pd.Series[int], p_values: pd.Series[float]) -> NDArray[np.float64]:
    members, p = family.to_numpy(), p_values.to_numpy(float)
    adjusted = np.empty(len(p))
    for number in np.unique(members):
        adjusted[members == number] = holm(p[members == number])
    return adjusted


def _verdict(tests: pd.Series[Any]) -> str:
    """The first rule that holds; a missing p-value is below nothing."""
    over_full, over_smallest = tests["holm_full"] < ALPHA, tests["holm_smallest"] < ALPHA
    over_better = over_full if tests["test_full"] >= tests["test_smallest"] else over_smallest
    if over_full and over_smallest:
        return "peak inside"
    if tests["holm_monotone"] < ALPHA and not over_better:
        return "monotone"
    return "flat" if tests["holm_flat"] < ALPHA else "undecided"


def _more_seeds(claim: tuple[Difference, Difference], tests: pd.Series[Any], alpha: float) -> float:
    """How many more seeds those tests of the claim need that have not rejected."""
    corrected = zip(claim, (tests["holm_full"], tests["holm_smallest"]), strict=True)
    needs = [_more_pairs(difference, alpha) for difference, p in corrected if not p < ALPHA]
    return float(np.max(needs))  # NaN if one is


def _more_pairs(difference: Difference, alpha: float) -> float:
    if math.isnan(difference.error):
        return math.nan
    if difference.mean <= 0:
        return math.inf
    n = difference.freedom + 1
    effect = difference.mean / (difference.error * math.sqrt(n))
    more = np.arange(1, MOST_SEEDS + 1)
    enough = more[power(effect, n + more, alpha) >= POWER]
    return float(enough[0]) if enough.size else math.inf
