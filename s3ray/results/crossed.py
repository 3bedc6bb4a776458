"""Differences of accuracies where the same samples are scored by every seed: seeds and samples both random.

The rules, written before results

- Every seed's probe is right or wrong about each of the same N samples. What is compared is therefore paired twice: by
  seed and by sample. d_si, the difference of two such 0/1 values (at p* and at p = 1, ranked and random, …) or of two
  such differences (an interaction), of S seeds and N samples, is taken as d_si = μ + seed_s + sample_i + rest_si, all
  three random (two-way crossed random effects, no replication; Searle, Casella and McCulloch 1992, chapter 4). μ is
  meant of new seeds *and* new samples of the same kind. Training data are fixed: what others would do is not in it.
- Mean squares: of seeds A, of samples B, of the rest E (analysis of variance). Their expectations are
  σ_rest² + N σ_seed², σ_rest² + S σ_sample² and σ_rest². The squared error of the mean is estimated by

      (E + max(A - E, 0) + max(B - E, 0)) / (S N):

  a negative component counts as none. Where both are positive that is A + B - E; where seeds show no effect of their
  own it is B, and the test the paired t test over samples; where samples show none it is A, and the test the one over
  seeds. A is not taken to be known better than one step of the accuracies' grid, 1 / (6 N), as in paired tests.
- Degrees of freedom: Satterthwaite's (1946), of the mean squares that are in it. Tests and intervals are Student's t.
- d_si = 0 everywhere: the error is 0.
- One seed: only samples are random, a paired t test over them; nothing is known of other seeds. One sample: only seeds
  are. With one of each, or none in common, error and tests are missing. Seeds that one side lacks don't count.
- The three parts of the squared error: of seeds, max(A - E, 0) / (S N), which only more seeds reduce; of samples,
  max(B - E, 0) / (S N), which only more samples reduce; of both, E / (S N), which either reduces. So infinitely many
  seeds leave √(part of samples), infinitely many samples √(part of seeds).
- What would decide (`decided_by`): a test has 80 % power, if the observed effect and parts are the truth, with
  infinitely many seeds at these samples ("more seeds"), or with infinitely many samples at these seeds ("more test
  samples"), or with each of them (`or`), or with neither alone (`and`). Where even infinitely many seeds could not
  decide, "more test samples" is always among the words. One seed: "more seeds". As uncertain as the parts are: a plan,
  not a promise.
- Equivalence (`p_within`): two one-sided tests (Schuirmann 1987; one alone is `p_below`), each of which must also hold
  with the error that a true difference of the margin m cannot fall below if samples agree over seeds,
  √(m (1 - m) / N): values of -1, 0, 1 whose mean is m have at least that variance. So no difference seen on few
  samples is no proof of none: at m of one point at least 268 samples are needed.
- Discordances (McNemar 1947): samples gained (wrong before, right now) and lost, per seed, with the exact mid-p of one
  seed's (Fagerland, Lydersen and Laake 2013). Sums over seeds have no such p: seeds share samples.

Simulated before the choice (0/1 values from a probit with effects of seeds and samples, 1,000 to 3,000 data sets each,
3 and 5 seeds, 300 and 4,000 samples; share of true nulls rejected at 5 %): with no, small and large effects of seeds,
no and large ones of samples, and differences in 0.5 to 15 of 100 samples 2 to 8 of 100 are rejected; 0 to 3 where
only 0.1 of 100 differ. Where samples have effects, the t test over seeds alone rejects 5 to 23; where seeds have, the
one over samples alone up to 93. Not cutting off the component of seeds gave 2 to 8, too, but up to twice the length of
intervals where seeds have no effect; max(A, E) in A's place 0 to 7, mostly below 3; the crossed ("pigeonhole")
bootstrap (Owen 2007) 0 to 28. Intervals hold a true difference of two points 91 to 98 times in 100, fewest with three
seeds that have small effects of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from s3ray.results.statistics import ALPHA, POWER, Difference, power

SEEDS, SAMPLES = "more seeds", "more test samples"


def right(rows: pd.DataFrame) -> pd.DataFrame:
    """Which samples are classified right, seeds × samples of 0 and 1; empty where rows do not say.

    Args:
        rows: of one configuration, preservation ratio and split, with the columns `seed`, `samples` and `correct`.

    Raises:
        ValueError: a seed is there twice, seeds differ in the number of samples, or bits are missing.
    """
    rows = rows[rows["correct"].notna()] if "correct" in rows else rows[:0]
    if rows.empty:
        return pd.DataFrame(dtype=np.int8)
    if rows["seed"].duplicated().any() or rows["samples"].nunique(dropna=False) > 1:
        raise ValueError("rows of one configuration have one line a seed, all of the same samples")
    samples = int(rows["samples"].iloc[0])
    packed = [np.frombuffer(bits, np.uint8) for bits in rows["correct"]]
    if any(len(bits) != math.ceil(samples / 8) for bits in packed):
        raise ValueError(f"{samples} samples take {math.ceil(samples / 8)} bytes")
    unpacked = np.unpackbits(np.stack(packed), axis=1, count=samples)
    return pd.DataFrame(unpacked.astype(np.int8), index=rows["seed"].to_numpy()).sort_index()


def on_test(rows: pd.DataFrame, ratio: float) -> pd.DataFrame:
    """`right` of one configuration's test samples at a preservation ratio."""
    return right(rows[(rows["split"] == "test") & (rows["preservation_ratio"] == ratio)])


@dataclass(frozen=True, slots=True)
class Crossed:
    """An estimated difference of accuracies, as shares, and where its error comes from.

    Attributes:
        difference: with seeds and samples random.
        seeds: that both sides have.
        samples: that each of them scored.
        from_seeds: part of the squared error that only more seeds reduce; NaN with one seed or one sample.
        from_samples: part that only more samples reduce.
        from_both: part that either reduces.
    """

    difference: Difference
    seeds: int
    samples: int
    from_seeds: float
    from_samples: float
    from_both: float

    @classmethod
    def between(cls, first: pd.DataFrame, second: pd.DataFrame) -> Crossed:
        """First minus second, each seeds × samples of 0 and 1."""
        return cls._of(_minus(first, second))

    @classmethod
    def interaction(
        cls, first: pd.DataFrame, second: pd.DataFrame, other_first: pd.DataFrame, other_second: pd.DataFrame
    ) -> Crossed:
        """(First - second) - (other first - other second): is the difference larger here than there?"""
        return cls._of(_minus(_minus(first, second), _minus(other_first, other_second)))

    @classmethod
    def _of(cls, differences: pd.DataFrame) -> Crossed:
        d_SN = differences.to_numpy(float)
        S, N = d_SN.shape
        if d_SN.size < 2:
            mean = float(d_SN.mean()) if d_SN.size else math.nan
            return cls(Difference(mean, math.nan, math.nan), S, N, math.nan, math.nan, math.nan)
        mean = float(d_SN.mean())
        if not d_SN.any():
            parts = (0.0,) * 3 if min(S, N) > 1 else (math.nan,) * 3
            return cls(Difference(0.0, 0.0, (S if S > 1 else N) - 1), S, N, *parts)
        if min(S, N) == 1:
            one_way = Difference.paired(pd.Series(d_SN.ravel()), pd.Series(np.zeros(d_SN.size)), 1 / N)
            return cls(one_way, S, N, math.nan, math.nan, math.nan)
        seeds_S1, samples_N = d_SN.mean(axis=1, keepdims=True), d_SN.mean(axis=0)
        rest_SN = d_SN - seeds_S1 - samples_N + mean
        A = max(N * float(((seeds_S1 - mean) ** 2).sum()) / (S - 1), 1 / (6 * N))
        B = S * float(((samples_N - mean) ** 2).sum()) / (N - 1)
        E = float((rest_SN**2).sum()) / ((S - 1) * (N - 1))
        # Each mean square with the weight that it has in the sum; equal ones differ by rounding.
        by_seeds, by_samples = A > E * (1 + 1e-9), B > E * (1 + 1e-9)
        weighted = [(by_seeds * A, S - 1), (by_samples * B, N - 1)]
        weighted += [((1 - by_seeds - by_samples) * E, (S - 1) * (N - 1))]
        squared = sum(square for square, _ in weighted)
        uncertain = sum(square**2 / freedom for square, freedom in weighted)
        return cls(
            difference=Difference(mean, math.sqrt(squared / (S * N)), squared**2 / uncertain),
            seeds=S,
            samples=N,
            from_seeds=max(A - E, 0.0) / (S * N),
            from_samples=max(B - E, 0.0) / (S * N),
            from_both=E / (S * N),
        )

    @property
    def reversed(self) -> Crossed:
        """Second minus first."""
        parts = (self.from_seeds, self.from_samples, self.from_both)
        return Crossed(self.difference.reversed, self.seeds, self.samples, *parts)

    def p_below(self, margin: float) -> float:
        """Of the one-sided test whose alternative is a difference below a margin, a positive share."""
        if math.isnan(self.difference.error):
            return math.nan
        least = Difference(self.difference.mean, math.sqrt(margin * (1 - margin) / self.samples), math.inf)
        return max(self.difference.p_below(margin), least.p_below(margin))

    def p_within(self, margin: float) -> float:
        """Of equivalence: the difference lies within ± margin, a share."""
        return max(self.p_below(margin), self.reversed.p_below(margin))

    def seeds_suffice(self, bound: float = 0.0, alpha: float = ALPHA / 2) -> bool:
        """Whether infinitely many seeds at these samples would show a difference above `bound` (one-sided)."""
        return self._suffices(self.from_samples, self.samples, bound, alpha)

    def samples_suffice(self, bound: float = 0.0, alpha: float = ALPHA / 2) -> bool:
        """Whether infinitely many samples at these seeds would."""
        return self._suffices(self.from_seeds, self.seeds, bound, alpha)

    def _suffices(self, squared_error: float, n: int, bound: float, alpha: float) -> bool:
        effect = self.difference.mean - bound
        if not effect > 0 or math.isnan(squared_error):
            return False
        return squared_error == 0 or bool(power(effect / math.sqrt(squared_error * n), n, alpha) >= POWER)

    def decided_by(self, bound: float = 0.0, alpha: float = ALPHA / 2) -> str:
        """What would show a difference above `bound`; empty if it is shown, or if its sign is against it."""
        if not self.difference.mean > bound or self.difference.p_above(bound) < alpha:
            return ""
        if self.seeds == 1:
            return SEEDS
        by_seeds, by_samples = self.seeds_suffice(bound, alpha), self.samples_suffice(bound, alpha)
        if by_seeds == by_samples:
            return f"{SEEDS} {'or' if by_seeds else 'and'} {SAMPLES}"
        return SEEDS if by_seeds else SAMPLES


def seeds_can_decide(rows: pd.DataFrame, judged: pd.Series[Any], margin: float = 1.0) -> bool:
    """Whether infinitely many seeds, at these test samples, would show the claim of an undecided verdict.

    Every test of the claim must have its power. True where rows of fewer than two seeds say
    which samples are right.

    Args:
        rows: of one configuration.
        judged: its line of `statistics.verdicts`, with a claim.
        margin: as given there, in points.
    """
    star, full, smallest = (on_test(rows, p) for p in (judged["p_star"], 1.0, judged["smallest"]))
    ends = Crossed.between(smallest, full)
    over_full, over_smallest = Crossed.between(star, full), Crossed.between(star, smallest)
    if min(ends.seeds, over_full.seeds, over_smallest.seeds) < 2:
        return True
    tests = {
        "peak inside": [(over_full, 0.0, ALPHA), (over_smallest, 0.0, ALPHA)],
        "falling": [(ends.reversed, 0.0, ALPHA / 2)],
        "rising": [(ends, 0.0, ALPHA / 2)],
        "flat": [(d, -margin / 100, ALPHA) for pair in (over_full, over_smallest, ends) for d in (pair, pair.reversed)],
    }
    return all(difference.seeds_suffice(*test) for difference, *test in tests[judged["claim"]])


def discordances(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Per seed that both have: samples `gained` (right in first alone) and `lost` (in second alone), and the mid-`p`.

    Args:
        first, second: seeds × samples of 0 and 1.
    """
    differences = _minus(first, second)
    gained, lost = (differences == 1).sum(axis=1), (differences == -1).sum(axis=1)
    fewer, both = np.minimum(gained, lost), gained + lost
    mid_p = 2 * stats.binom.cdf(fewer, both, 0.5) - stats.binom.pmf(fewer, both, 0.5)
    return pd.DataFrame({"gained": gained, "lost": lost, "p": np.minimum(mid_p, 1.0)}, index=differences.index)


def _minus(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Over the seeds of both; small integers."""
    common = first.index.intersection(second.index)
    if common.empty:
        return pd.DataFrame(dtype=np.int8)
    if first.shape[1] != second.shape[1]:
        raise ValueError(f"{first.shape[1]} and {second.shape[1]} samples cannot be paired")
    values: NDArray[np.int8] = first.loc[common].to_numpy(np.int8) - second.loc[common].to_numpy(np.int8)
    return pd.DataFrame(values, index=common)
