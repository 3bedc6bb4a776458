import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from s3ray.results import best_ratios, summarize
from s3ray.results.formatting import gain
from s3ray.results.statistics import (
    CONFIGURATION,
    Difference,
    bootstrap_interval,
    half_width,
    power,
    verdicts,
)
from toy_configuration import TOY


def rows(valid: Any, test: Any, **columns: Any) -> Any:
    """Rows of one configuration from {ratio: [accuracy per seed]}."""
    return pd.DataFrame(
        {
            **TOY,
            "preservation_ratio": ratio,
            "split": split,
            "seed": seed,
            "accuracy": accuracy,
            "active_parameters": 1000.0 * ratio,
            "active_parameters_paper": 1000.0 * ratio,
            **columns,
        }
        for split, curve in (("valid", valid), ("test", test))
        for ratio, accuracies in curve.items()
        for seed, accuracy in enumerate(accuracies)
    )


def around(mean: Any, *deviations: Any) -> Any:
    return [mean + deviation for deviation in deviations]


def verdict(test: Any, margin: Any = 1.0, **columns: Any) -> Any:
    """Of one configuration whose p* is 0.5 or, if it has fewer ratios, the one below 1."""
    valid = {ratio: [0.9 if ratio == 0.5 else 0.1] * len(values) for ratio, values in test.items()}
    return verdicts(rows(valid, test, **columns), margin).iloc[0]


def test_mean_std_n_and_interval() -> None:
    # .6 .7 .8: mean .7, sample deviation .1; t(0.975, 2) = 4.30265, so half the interval is 4.30265 · .1 / √3.
    summary = summarize(rows({1.0: [0.6, 0.7, 0.8]}, {1.0: [0.5, 0.5, 0.5]})).set_index("split")
    valid = summary.loc["valid"]
    assert valid["mean"] == pytest.approx(0.7)
    assert valid["std"] == pytest.approx(0.1)
    assert valid["n"] == 3
    assert valid["half_width"] == pytest.approx(4.30265 * 0.1 / math.sqrt(3), rel=1e-5)
    assert valid["high"] - valid["low"] == pytest.approx(2 * valid["half_width"])
    assert summary.loc["test", "std"] == 0.0


def test_no_interval_reaches_where_nothing_can_lie() -> None:
    # .8 and .96: half the interval is 12.7062 · .08 = 1.016, beyond both ends.
    curve = {1.0: [0.80, 0.96], 0.5: [0.98, 0.50]}
    summary = summarize(rows(curve, curve)).iloc[0]
    assert (summary["low"], summary["high"]) == (0.0, 1.0)
    assert summary["half_width"] == pytest.approx(12.7062 * 0.08, rel=1e-5)
    best = best_ratios(rows(curve, curve)).iloc[0]
    # Differences +.18 and -.46: -.14 ± 4.07.
    assert best["gain_half_width"] == pytest.approx(12.7062 * 0.32, rel=1e-5)
    assert gain(best["gain"], best["gain_half_width"]) == "-14.00 [-100.00, +100.00]"
    difference = Difference(0.9, 0.1, 1)
    assert difference.interval(0.95) == (pytest.approx(0.9 - 1.27062, rel=1e-5), 1.0)
    assert difference.interval(0.95, largest=2.0)[1] == 2.0
    assert gain(0.9, 0.05) == "+90.00 ± 5.00"
    assert gain(0.9) == "+90.00"


def test_one_seed_has_no_deviation_and_no_interval() -> None:
    summary = summarize(rows({1.0: [0.6]}, {1.0: [0.5]}))
    for column in ("std", "half_width", "low", "high", "boot_low", "boot_high"):
        assert summary[column].isna().all()
    assert math.isnan(half_width(pd.Series([0.5])))


def test_the_bootstrap_of_three_seeds_is_their_range_and_understates() -> None:
    values = [0.6, 0.7, 0.95]
    # All 27 resamples of three values have 10 distinct means; the lowest is more frequent than 2.5 %.
    means = [round(sum(resample) / 3, 9) for resample in itertools.product(values, repeat=3)]
    assert len(set(means)) == 10
    assert means.count(0.6) / 27 > 0.025
    summary = summarize(rows({1.0: values}, {1.0: [0.5] * 3})).set_index("split")
    assert list(summary.loc["valid", ["boot_low", "boot_high"]]) == pytest.approx([0.6, 0.95])
    assert list(summary.loc["test", ["boot_low", "boot_high"]]) == pytest.approx([0.5, 0.5])
    assert summary.loc["valid", "low"] < 0.6 < 0.95 < summary.loc["valid", "high"]
    # A symmetric distribution has its mean below all three values in 1 of 8 cases, above them in another 1 of 8.
    samples = np.random.default_rng(0).normal(size=(40_000, 3))
    covered = np.mean((samples.min(axis=1) < 0) & (samples.max(axis=1) > 0))
    assert covered == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 40_000))


def test_the_bootstrap_agrees_with_all_resamples() -> None:
    values = [0.61, 0.64, 0.66, 0.71, 0.73]
    means = np.mean(list(itertools.product(values, repeat=5)), axis=1)
    summary = summarize(rows({1.0: values}, {1.0: values})).iloc[0]
    # 1999 resamples know the share below a bound to 2.5 % ± 4 · √(.025 · .975 / 1999).
    error = 4 * math.sqrt(0.025 * 0.975 / 1999)
    assert np.mean(means < summary["boot_low"]) == pytest.approx(0.025, abs=error)
    assert np.mean(means > summary["boot_high"]) == pytest.approx(0.025, abs=error)


def test_the_bootstrap_does_not_depend_on_the_order_of_seeds() -> None:
    values = pd.Series([0.61, 0.64, 0.66, 0.71, 0.73, 0.52, 0.88])
    intervals = {bootstrap_interval(values.sample(frac=1, random_state=state)) for state in range(10)}
    assert len(intervals) == 1


def test_p_star_is_chosen_on_validation_and_the_oracle_on_test() -> None:
    valid = {1.0: [0.9, 0.9], 0.5: [0.7, 0.8], 0.1: [0.6, 0.6]}
    test = {1.0: [0.60, 0.62], 0.5: [0.61, 0.65], 0.1: [0.8, 0.8]}
    best = best_ratios(rows(valid, test)).iloc[0]
    # p = 1 is best on validation but is not a pruned point; test must not be looked at: 0.1 would win there.
    assert best["p_star"] == 0.5
    assert best["valid"] == pytest.approx(0.75)
    assert best["test"] == pytest.approx(0.63)
    # Paired differences 0.01 and 0.03.
    assert best["gain"] == pytest.approx(0.02)
    assert best["gain_half_width"] == pytest.approx(12.7062 * math.sqrt(0.0002) / math.sqrt(2), rel=1e-4)
    assert (best["oracle_p"], best["n"]) == (0.1, 2)
    assert best["oracle_test"] == pytest.approx(0.8)


@pytest.mark.parametrize("last", [[0.58, 0.58, 0.58], [0.56, 0.58, 0.60], [0.60, 0.58, 0.56]])
def test_of_equal_ratios_the_largest_is_chosen(last: Any) -> None:
    # The mean of .56 .58 .60 is 0.58 or 0.5800000000000001, as the order of the sum will have it.
    curve = {1.0: [0.5] * 3, 0.9: [0.58] * 3, 0.5: last, 0.1: last}
    assert best_ratios(rows(curve, curve)).iloc[0]["p_star"] == 0.9


def test_configurations_without_p_1_or_without_pruning_have_no_choice() -> None:
    for curve in ({1.0: [0.5]}, {0.5: [0.5]}):
        assert best_ratios(rows(curve, curve)).empty
        assert verdicts(rows(curve, curve)).empty
        assert set(CONFIGURATION) < set(verdicts(rows(curve, curve)).columns)


def t_tail(t: Any) -> Any:
    """P(T > t) with two degrees of freedom, in closed form."""
    return 0.5 - t / (2 * math.sqrt(2 + t * t))


def test_paired_tests_by_hand() -> None:
    # Differences .01 .02 .03: mean .02, deviation .01, standard error .01 / √3, t = 2√3.
    difference = Difference.paired(pd.Series([0.51, 0.52, 0.53]), pd.Series([0.5, 0.5, 0.5]))
    assert difference.p_above() == pytest.approx(t_tail(2 * math.sqrt(3)))
    assert difference.p_below() == pytest.approx(1 - t_tail(2 * math.sqrt(3)))
    assert difference.p_nonzero() == pytest.approx(2 * t_tail(2 * math.sqrt(3)))
    # Within ± .05: the nearer bound is .03 away, t = 3√3, and the larger of the two p-values.
    assert difference.p_within(0.05) == pytest.approx(t_tail(3 * math.sqrt(3)))
    assert difference.p_within(0.01) > 0.5
    # 90 %: t(0.95, 2) = 2.91999.
    assert difference.interval(0.9) == pytest.approx((0.02 - 0.0168586, 0.02 + 0.0168586), abs=1e-6)


def test_paired_tests_agree_with_scipy() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 7))
    difference = Difference.paired(pd.Series(first), pd.Series(second))
    assert difference.p_above() == pytest.approx(stats.ttest_rel(first, second, alternative="greater").pvalue)
    assert difference.p_nonzero() == pytest.approx(stats.ttest_rel(first, second).pvalue)
    one_sided = [
        stats.ttest_1samp(first - second, bound, alternative=alternative).pvalue
        for bound, alternative in ((-0.8, "greater"), (0.8, "less"))
    ]
    assert difference.p_within(0.8) == pytest.approx(max(one_sided))


def test_differences_without_deviation() -> None:
    same = Difference.paired(pd.Series([0.5, 0.5]), pd.Series([0.5, 0.5]))
    assert (same.p_above(), same.p_below(), same.p_nonzero(), same.p_within(0.01)) == (1.0, 1.0, 1.0, 0.0)
    above = Difference.paired(pd.Series([0.75, 0.75]), pd.Series([0.5, 0.5]))
    assert (above.p_above(), above.p_below(), above.p_nonzero(), above.p_within(0.01)) == (0.0, 1.0, 0.0, 1.0)
    one = Difference.paired(pd.Series([0.5]), pd.Series([0.4]))
    assert all(math.isnan(p) for p in (one.p_above(), one.p_below(), one.p_nonzero(), one.p_within(0.01)))


def test_equal_differences_on_a_small_test_set_are_no_certainty() -> None:
    # Three differences of 2 of 100 samples: error .01 / √6 / √3 instead of 0, so t = .02 · √18 / .01 = 6√2.
    test = {1.0: [0.50, 0.52, 0.54], 0.5: [0.52, 0.54, 0.56], 0.1: [0.40, 0.42, 0.44]}
    valid = {1.0: [0.1] * 3, 0.5: [0.9] * 3, 0.1: [0.1] * 3}
    sure, unsure = verdicts(rows(valid, test)).iloc[0], verdicts(rows(valid, test, samples=100)).iloc[0]
    assert sure["p_full"] < 1e-12
    assert unsure["p_full"] == pytest.approx(t_tail(6 * math.sqrt(2)))


def test_power_is_the_published_one() -> None:
    # G*Power's manual, matched pairs (after Cohen): dz 0.421637, 50 pairs, two-sided .05, power 0.832114; the other
    # tail has no share in it. And dz 0.5 takes 34 pairs two-sided, 27 one-sided, for 80 %.
    assert power(0.421637, 50, 0.025) == pytest.approx(0.832114, abs=1e-6)
    assert (power(0.5, [33, 34], 0.025) >= 0.8).tolist() == [False, True]
    assert (power(0.5, [26, 27], 0.05) >= 0.8).tolist() == [False, True]


@pytest.mark.parametrize(("effect", "n", "alpha"), [(2.0, 3, 0.05), (1.0, 5, 0.025), (0.0, 4, 0.05)])
def test_power_is_the_share_of_rejections(effect: Any, n: Any, alpha: Any) -> None:
    differences = np.random.default_rng(1).normal(effect, 1.0, (20_000, n))
    rejected = np.mean(stats.ttest_1samp(differences, 0.0, axis=1, alternative="greater").pvalue < alpha)
    assert power(effect, n, alpha) == pytest.approx(rejected, abs=4 * math.sqrt(0.25 / 20_000))


def test_a_clear_peak() -> None:
    test = {
        1.0: around(0.70, -0.01, 0.00, 0.01, 0.00),
        0.5: around(0.80, 0.00, 0.01, 0.00, -0.01),
        0.1: around(0.60, 0.01, 0.00, 0.00, -0.01),
    }
    result = verdict(test)
    assert result["verdict"] == "peak inside"
    assert (result["n"], result["p_star"], result["smallest"], result["more_seeds"]) == (4, 0.5, 0.1, 0)
    assert (result["gain_full"], result["gain_smallest"]) == pytest.approx((0.1, 0.2))
    over_full, over_smallest = (stats.ttest_rel(test[0.5], test[p], alternative="greater").pvalue for p in (1.0, 0.1))
    assert (result["p_full"], result["p_smallest"]) == pytest.approx((over_full, over_smallest))


def test_a_gain_over_one_end_is_no_peak() -> None:
    # 30 points above the smallest ratio, but of p = 1 nobody knows: what is shown is the fall.
    result = verdict({1.0: [0.70, 0.71, 0.69], 0.5: [0.71, 0.69, 0.72], 0.1: [0.40, 0.41, 0.42]})
    assert result["p_smallest"] < 0.05 < result["p_full"]
    assert result["verdict"] == "falling"
    # And where the fall is not shown either, nothing is.
    result = verdict({1.0: [0.70, 0.71, 0.69], 0.5: [0.80, 0.82, 0.66], 0.1: [0.69, 0.72, 0.69]})
    assert result["verdict"] == "undecided"


RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def shaped(points: Any, deviation: Any = 0.3, seeds: Any = 3, seed: Any = 0) -> Any:
    """Test accuracies of a curve in points about 70, with noise of this deviation at every ratio and seed."""
    noise = np.random.default_rng(seed).normal(0, deviation, (len(points), seeds)) if deviation else 0.0
    return dict(zip(RATIOS, (70 + np.reshape(points, (-1, 1)) + np.zeros(seeds) + noise) / 100, strict=True))


@pytest.mark.parametrize("deviation", [0.0, 0.3])
@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (np.linspace(0, -6.8, 10), "falling"),
        (np.linspace(0, 6.8, 10), "rising"),
        ([0, 0, 0, 0, 0, 0, 0, 0, -3, -8], "falling"),
        ([0, 3, 5, 5, 5, 5, 5, 5, 5, 5], "rising"),
        ([0, 0, 0, 0, 0, 5, 0, 0, 0, 0], "peak inside"),
        ([0, 1, 2, 3, 4, 5, 4, 2, 0, -2], "peak inside"),
        ([0] * 10, "flat"),
        # Saw-teeth: the ends equal, the last lower, the last higher. p* (.5) is no higher than the better end.
        ([0, -5, 0, -5, 0, 0, -5, 0, -5, 0], "undecided"),
        ([0, -5, 0, -5, 0, 0, -5, 0, -5, -5], "undecided"),
        ([-5, -5, 0, -5, 0, 0, -5, 0, -5, 0], "undecided"),
        # Down and up again: p* below both ends.
        ([0, -2, -4, -6, -8, -8, -6, -4, -2, 0], "undecided"),
    ],
    ids=[
        "fall",
        "rise",
        "late fall",
        "early rise",
        "peak",
        "broad peak",
        "flat",
        "saw",
        "saw down",
        "saw up",
        "valley",
    ],
)
def test_shapes(points: Any, expected: Any, deviation: Any) -> None:
    assert verdict(shaped(points, deviation), samples=1000)["verdict"] == expected


def test_a_fall_in_every_seed_is_falling_however_the_seeds_scatter() -> None:
    """6.8 points in each of three seeds, on a test set of 300, with noise between that is larger than the margin."""
    test = {
        1.0: [0.712, 0.655, 0.694],
        0.9: [0.724, 0.641, 0.701],
        0.5: [0.718, 0.662, 0.679],
        0.1: [0.644, 0.587, 0.626],
    }
    result = verdict(test, samples=300)
    assert result["verdict"] == "falling"
    # Means .687, .68867, .68633, .619: the largest rise is .167 points, from p = 1 to .9.
    assert (result["ends"], result["rise"], result["fall"]) == pytest.approx((-0.068, 0.005 / 3, 0.209 / 3), abs=1e-9)
    assert (result["more_seeds"], result["claim"]) == (0, "")


def test_missing_inner_ratios_do_not_hide_a_fall() -> None:
    """Two seeds lack a ratio each, another one; all have both ends."""
    nan = float("nan")
    test = {1.0: [0.70, 0.71, 0.72], 0.5: [0.69, 0.70, 0.71], 0.1: [0.63, 0.64, 0.65]}
    test |= {0.9: [nan, 0.70, 0.72], 0.3: [0.66, nan, 0.68]}
    result = verdict(test, samples=1000)
    assert (result["n"], result["verdict"]) == (3, "falling")


def test_the_ends_decide_the_direction_and_steps_on_the_way_may_forbid_it() -> None:
    fall = {1.0: [0.70, 0.71, 0.72], 0.9: [0.66, 0.68, 0.67], 0.5: [0.70, 0.70, 0.73], 0.1: [0.60, 0.61, 0.62]}
    result = verdict(fall)
    assert result["p_ends"] < 1e-9
    # From p .9 (mean .67) to .5 (.71) it rises by 4 points. Residuals of the two-way layout, by hand, in points.
    x = 100 * np.array(list(fall.values())).T
    residuals = x - x.mean(1, keepdims=True) - x.mean(0) + x.mean()
    error = math.sqrt((residuals**2).sum() / 6) * math.sqrt(2 / 3)
    assert (100 * result["rise"], 100 * result["fall"]) == pytest.approx((4.0, 10.0))
    assert result["p_rise"] == pytest.approx(stats.t.sf((4 - 1) / error, 6))
    assert result["verdict"] == "undecided"
    # With a margin that allows for it, it is a fall.
    assert verdict(fall, margin=4.0)["verdict"] == "falling"


def test_a_flat_curve_and_its_margin() -> None:
    test = {
        1.0: around(0.70, -0.001, 0.000, 0.001, 0.000),
        0.5: around(0.70, 0.001, 0.001, -0.001, -0.001),
        0.1: around(0.70, 0.001, 0.000, 0.000, -0.001),
    }
    result = verdict(test)
    assert result["verdict"] == "flat"
    pairs = itertools.combinations(test.values(), 2)
    equivalence = max(
        stats.ttest_1samp(np.subtract(a, b), bound, alternative=side).pvalue
        for a, b in pairs
        for bound, side in ((-0.01, "greater"), (0.01, "less"))
    )
    assert result["p_flat"] == pytest.approx(equivalence)
    assert verdict(test, margin=0.1)["verdict"] == "undecided"


def test_equal_numbers_are_flat_without_a_test() -> None:
    curve = {1.0: [0.5, 0.6, 0.7], 0.5: [0.5, 0.6, 0.7], 0.1: [0.5, 0.6, 0.7]}
    # On 20 samples one is 5 points: no test could show that differences stay within 1.
    for samples in ({}, {"samples": 20}):
        assert verdict(curve, **samples)["verdict"] == "flat"
    assert verdict({p: values[:2] for p, values in curve.items()}, samples=20)["verdict"] == "flat"
    assert verdict({p: values[:1] for p, values in curve.items()}, samples=20)["verdict"] == "undecided"
    # One sample more or less, in one seed: no longer equal, and no more than that.
    assert verdict({**curve, 0.5: [0.5, 0.65, 0.7]}, samples=20)["verdict"] == "undecided"


def test_more_seeds_are_those_of_the_cheapest_claim() -> None:
    # p* over either end: mean .5 of the deviation 2/√3; the ends are equal. One-sided at .05,
    # dz .5 takes 27 pairs (G*Power), of which there are four.
    gains = [-1, 1, -1, 1]
    peak = verdict({1.0: [0.5] * 4, 0.5: [0.5 + (g + 3**-0.5) / 100 for g in gains], 0.1: [0.5] * 4}, margin=0.1)
    assert (peak["verdict"], peak["more_seeds"], peak["claim"]) == ("undecided", 27 - 4, "peak inside")
    # p* below p = 1: no number of seeds makes a peak of it. The ends differ by .5 deviations: two-sided, 34 pairs.
    ends = [0.5 - (g + 3**-0.5) / 100 for g in gains]
    falling = verdict({1.0: [0.5] * 4, 0.5: [0.5 - 1e-6] * 4, 0.1: ends}, margin=0.5)
    assert (falling["verdict"], falling["more_seeds"], falling["claim"]) == ("undecided", 34 - 4, "falling")
    rising = verdict({1.0: ends, 0.5: [0.5 - 1e-6] * 4, 0.1: [0.5] * 4}, margin=0.5)
    assert (rising["verdict"], rising["claim"]) == ("undecided", "rising")
    # Within a margin that more seeds would show: .15 points are dz .65 of the widest difference, 17 pairs one-sided.
    flat = verdict({1.0: [0.5] * 4, 0.5: [0.499, 0.501] * 2, 0.1: [0.501, 0.499] * 2}, margin=0.15)
    assert (flat["verdict"], flat["more_seeds"], flat["claim"]) == ("undecided", 17 - 4, "flat")


def test_more_seeds_beyond_a_hundred_are_infinite_and_where_none_would_help_there_are_none() -> None:
    gains = around(0.001, -0.02, 0.02, -0.02, 0.02)
    far = verdict({1.0: [0.5] * 4, 0.5: [0.5 + g for g in gains], 0.1: [0.5] * 4}, margin=0.05)
    assert (far["verdict"], far["more_seeds"], far["claim"]) == ("undecided", math.inf, "peak inside")
    # A valley, seen clearly: no peak, ends that do not differ, and steps that are no flat curve's.
    valley = verdict({1.0: [0.70, 0.71, 0.72], 0.5: [0.60, 0.61, 0.62], 0.1: [0.70, 0.71, 0.72]})
    assert (valley["verdict"], valley["claim"]) == ("undecided", "")
    assert math.isnan(valley["more_seeds"])


def test_one_seed_decides_nothing() -> None:
    result = verdict({1.0: [0.5], 0.5: [0.9], 0.1: [0.1]})
    assert (result["verdict"], result["claim"]) == ("undecided", "")
    assert result[["p_full", "p_smallest", "p_ends", "p_rise", "p_fall", "p_flat", "more_seeds"]].isna().all()
    assert result["gain_full"] == pytest.approx(0.4)


def test_the_oracle_stands_beside_and_decides_nothing() -> None:
    valid = {1.0: [0.5] * 3, 0.5: [0.9] * 3, 0.1: [0.5] * 3}
    result = verdicts(rows(valid, {1.0: [0.6, 0.7, 0.8], 0.5: [0.5, 0.7, 0.6], 0.1: [0.8, 0.9, 0.7]})).iloc[0]
    assert (result["p_star"], result["oracle_p"]) == (0.5, 0.1)
    assert result["test"] == pytest.approx(0.6)
    assert result["oracle_test"] == pytest.approx(0.8)


def test_a_verdict_does_not_change_with_what_else_is_in_the_sweep() -> None:
    peak = {1.0: [0.70, 0.71, 0.72], 0.5: [0.80, 0.82, 0.81], 0.1: [0.60, 0.59, 0.61]}
    own = rows(peak, peak)
    noise = np.random.default_rng(0).uniform(0.4, 0.6, (40, 3, 3))
    others = [rows(c, c, dataset=f"d{i}") for i, c in enumerate(dict(zip(peak, x, strict=True)) for x in noise)]
    others += [rows(peak, peak, batch_size=128), rows(peak, peak, branch="none"), rows(peak, peak, granularity=2)]
    alone, among = verdicts(own).iloc[0], verdicts(pd.concat([*others, own])).iloc[-1]
    assert alone["verdict"] == "peak inside"
    pd.testing.assert_series_equal(alone, among, check_names=False)


@pytest.mark.slow
def test_how_often_a_curve_is_misjudged() -> None:
    """Simulated, as the docstring promises: 150 curves of each kind at ten ratios, three seeds."""
    promised = {
        # Noise about nothing: each direction at 2.5 %, a peak at less than 5 %.
        "flat": (np.zeros(10), {"falling": 0.025, "rising": 0.025, "peak inside": 0.05}),
        # Teeth of 5 points: neither a direction nor flat.
        "saw": (np.array([0, -5] * 5), {"falling": 0.01, "rising": 0.01, "flat": 0.01}),
    }
    for name, (truth, rates) in promised.items():
        rng = np.random.default_rng(0)
        curves = []
        for number in range(150):
            valid, test = (0.7 + truth / 100 + rng.normal(0, 0.01, (3, 10)) for _ in range(2))
            pair = (dict(zip(RATIOS, x.T, strict=True)) for x in (valid, test))
            curves.append(rows(*pair, dataset=f"{name} {number}"))
        found = verdicts(pd.concat(curves))["verdict"].value_counts(normalize=True)
        for verdict_, rate in rates.items():
            assert found.get(verdict_, 0.0) <= rate + 4 * math.sqrt(rate * (1 - rate) / 150), (name, verdict_)


def test_an_interval_of_equal_differences_is_as_wide_as_one_sample_leaves_it() -> None:
    # "+0.50 ± 0.00" of two seeds on 200 samples: error .005 / √6 / √2, t(.975, 1) = 12.7062.
    curve = {1.0: [0.700, 0.705], 0.5: [0.705, 0.710]}
    best = best_ratios(rows(curve, curve, samples=200)).iloc[0]
    assert best["gain"] == pytest.approx(0.005)
    assert best["gain_half_width"] == pytest.approx(12.7062 * 0.005 / math.sqrt(12), rel=1e-5)
    # Of a mean likewise, but a value is known to 1/√12 of a sample.
    same = {1.0: [0.7, 0.7], 0.5: [0.7, 0.7]}
    summary = summarize(rows(same, same, samples=200)).iloc[0]
    assert summary["std"] == 0.0
    assert summary["half_width"] == pytest.approx(12.7062 * 0.005 / math.sqrt(24), rel=1e-5)


def test_missing_values_do_not_count() -> None:
    nan = math.nan
    values = pd.Series([0.6, nan, 0.7, 0.8])
    assert half_width(values) == pytest.approx(half_width(values.dropna()))
    assert bootstrap_interval(values) == bootstrap_interval(values.dropna())
    assert math.isnan(half_width(pd.Series([0.5, nan])))
    curve = {1.0: [0.5, nan, 0.52, 0.51], 0.5: [0.6, 0.9, 0.61, nan], 0.1: [0.4, 0.5, 0.41, 0.43]}
    summary = summarize(rows(curve, curve)).set_index(["split", "preservation_ratio"])
    assert summary["n"].tolist() == [3, 3, 4] * 2
    # Only seeds 0 and 2 have both accuracies.
    best = best_ratios(rows(curve, curve)).iloc[0]
    assert (best["p_star"], best["n"]) == (0.5, 2)
    assert best[["test", "test_full", "gain"]].tolist() == pytest.approx([0.605, 0.51, 0.095])
    assert verdicts(rows(curve, curve)).iloc[0]["n"] == 2
    # A ratio that one lucky seed has alone is not chosen for it.
    lucky = {1.0: [0.5, 0.5], 0.5: [0.6, 0.6], 0.1: [0.9, nan]}
    uneven = {1.0: [0.5, 0.5], 0.5: [0.4, 0.8], 0.1: [0.45, nan]}
    assert best_ratios(rows(uneven, uneven)).iloc[0]["p_star"] == 0.1  # of seed 0, which has both
    assert best_ratios(rows(lucky, lucky)).iloc[0]["p_star"] == 0.1


counts = st.lists(st.lists(st.integers(30, 70), min_size=8, max_size=8), min_size=1, max_size=4)


@settings(max_examples=10, deadline=None)
@given(data=st.data(), seeds=counts)
def test_neither_the_order_of_rows_nor_the_names_of_seeds_matter(data: Any, seeds: Any) -> None:
    ratios = (1.0, 0.9, 0.5, 0.1)
    accuracies = np.array(seeds) / 100  # seed × (split, ratio)
    valid, test = (dict(zip(ratios, part.T, strict=True)) for part in (accuracies[:, :4], accuracies[:, 4:]))
    table = pd.concat([rows(valid, test, samples=100, granularity=chi) for chi in (2, 8)])
    names = data.draw(st.permutations(range(len(seeds))))
    order = data.draw(st.permutations(range(len(table))))
    changed = table.assign(seed=table["seed"].map(dict(enumerate(names)))).iloc[order]
    for function, keys in (
        (summarize, [*CONFIGURATION, "preservation_ratio", "split"]),
        (best_ratios, CONFIGURATION),
        (verdicts, CONFIGURATION),
    ):
        before, after = (function(t).sort_values(keys, ignore_index=True) for t in (table, changed))
        pd.testing.assert_frame_equal(before, after, rtol=1e-9, atol=1e-9)
