import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from s3ray.results import best_ratios, summarize
from s3ray.results.statistics import (
    CONFIGURATION,
    Difference,
    _verdict,
    bootstrap_interval,
    half_width,
    holm,
    power,
    verdicts,
)


def rows(valid, test, **columns):
    """Rows of one configuration from {ratio: [accuracy per seed]}."""
    configuration = {
        "dataset": "toy",
        "method": "s3",
        "kind": "simulated",
        "scale": "smoke",
        "granularity": 8,
        "batch_size": 64,
        "branch": "suff+min",
    }
    return pd.DataFrame(
        {
            **configuration,
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


def around(mean, *deviations):
    return [mean + deviation for deviation in deviations]


def verdict(test, **arguments):
    """Of one configuration whose p* is 0.5 or, if it has fewer ratios, the one below 1."""
    valid = {ratio: [0.9 if ratio == 0.5 else 0.1] * len(values) for ratio, values in test.items()}
    return verdicts(rows(valid, test), **arguments).iloc[0]


def test_mean_std_n_and_interval():
    # .6 .7 .8: mean .7, sample deviation .1; t(0.975, 2) = 4.30265, so half the interval is 4.30265 · .1 / √3.
    summary = summarize(rows({1.0: [0.6, 0.7, 0.8]}, {1.0: [0.5, 0.5, 0.5]})).set_index("split")
    valid = summary.loc["valid"]
    assert valid["mean"] == pytest.approx(0.7)
    assert valid["std"] == pytest.approx(0.1)
    assert valid["n"] == 3
    assert valid["half_width"] == pytest.approx(4.30265 * 0.1 / math.sqrt(3), rel=1e-5)
    assert valid["high"] - valid["low"] == pytest.approx(2 * valid["half_width"])
    assert summary.loc["test", "std"] == 0.0


def test_one_seed_has_no_deviation_and_no_interval():
    summary = summarize(rows({1.0: [0.6]}, {1.0: [0.5]}))
    for column in ("std", "half_width", "low", "high", "boot_low", "boot_high"):
        assert summary[column].isna().all()
    assert math.isnan(half_width(pd.Series([0.5])))


def test_the_bootstrap_of_three_seeds_is_their_range_and_understates():
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


def test_the_bootstrap_agrees_with_all_resamples():
    values = [0.61, 0.64, 0.66, 0.71, 0.73]
    means = np.mean(list(itertools.product(values, repeat=5)), axis=1)
    summary = summarize(rows({1.0: values}, {1.0: values})).iloc[0]
    # 1999 resamples know the share below a bound to 2.5 % ± 4 · √(.025 · .975 / 1999).
    error = 4 * math.sqrt(0.025 * 0.975 / 1999)
    assert np.mean(means < summary["boot_low"]) == pytest.approx(0.025, abs=error)
    assert np.mean(means > summary["boot_high"]) == pytest.approx(0.025, abs=error)


def test_the_bootstrap_does_not_depend_on_the_order_of_seeds():
    values = pd.Series([0.61, 0.64, 0.66, 0.71, 0.73, 0.52, 0.88])
    intervals = {bootstrap_interval(values.sample(frac=1, random_state=state)) for state in range(10)}
    assert len(intervals) == 1


def test_p_star_is_chosen_on_validation_and_the_oracle_on_test():
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
def test_of_equal_ratios_the_largest_is_chosen(last):
    # The mean of .56 .58 .60 is 0.58 or 0.5800000000000001, as the order of the sum will have it.
    curve = {1.0: [0.5] * 3, 0.9: [0.58] * 3, 0.5: last, 0.1: last}
    assert best_ratios(rows(curve, curve)).iloc[0]["p_star"] == 0.9


def test_configurations_without_p_1_or_without_pruning_have_no_choice():
    for curve in ({1.0: [0.5]}, {0.5: [0.5]}):
        assert best_ratios(rows(curve, curve)).empty
        assert verdicts(rows(curve, curve)).empty
        assert set(CONFIGURATION) < set(verdicts(rows(curve, curve)).columns)


def test_holm_by_hand():
    # In order: .005 · 4, .01 · 3, .03 · 2, and .04 · 1, which may not fall below its predecessor.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.7]) == pytest.approx([0.8, 0.8])
    # A test that could not be made still counts.
    np.testing.assert_allclose(holm([math.nan, 0.01, 0.02]), [math.nan, 0.03, 0.04])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_bonferroni_for_the_smallest_and_keeps_the_order(p):
    adjusted = holm(p)
    assert adjusted.min() == pytest.approx(min(1.0, len(p) * min(p)))
    assert (adjusted >= np.array(p) - 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()


def t_tail(t):
    """P(T > t) with two degrees of freedom, in closed form."""
    return 0.5 - t / (2 * math.sqrt(2 + t * t))


def test_paired_tests_by_hand():
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


def test_paired_tests_agree_with_scipy():
    first, second = np.random.default_rng(0).normal(size=(2, 7))
    difference = Difference.paired(pd.Series(first), pd.Series(second))
    assert difference.p_above() == pytest.approx(stats.ttest_rel(first, second, alternative="greater").pvalue)
    assert difference.p_nonzero() == pytest.approx(stats.ttest_rel(first, second).pvalue)
    one_sided = [
        stats.ttest_1samp(first - second, bound, alternative=alternative).pvalue
        for bound, alternative in ((-0.8, "greater"), (0.8, "less"))
    ]
    assert difference.p_within(0.8) == pytest.approx(max(one_sided))


def test_differences_without_deviation():
    same = Difference.paired(pd.Series([0.5, 0.5]), pd.Series([0.5, 0.5]))
    assert (same.p_above(), same.p_below(), same.p_nonzero(), same.p_within(0.01)) == (1.0, 1.0, 1.0, 0.0)
    above = Difference.paired(pd.Series([0.75, 0.75]), pd.Series([0.5, 0.5]))
    assert (above.p_above(), above.p_below(), above.p_nonzero(), above.p_within(0.01)) == (0.0, 1.0, 0.0, 1.0)
    one = Difference.paired(pd.Series([0.5]), pd.Series([0.4]))
    assert all(math.isnan(p) for p in (one.p_above(), one.p_below(), one.p_nonzero(), one.p_within(0.01)))


def test_equal_differences_on_a_small_test_set_are_no_certainty():
    # Three differences of 2 of 100 samples: error .01 / √6 / √3 instead of 0, so t = .02 · √18 / .01 = 6√2.
    test = {1.0: [0.50, 0.52, 0.54], 0.5: [0.52, 0.54, 0.56], 0.1: [0.40, 0.42, 0.44]}
    valid = {1.0: [0.1] * 3, 0.5: [0.9] * 3, 0.1: [0.1] * 3}
    sure, unsure = verdicts(rows(valid, test)).iloc[0], verdicts(rows(valid, test, samples=100)).iloc[0]
    assert sure["p_full"] < 1e-12
    assert unsure["p_full"] == pytest.approx(t_tail(6 * math.sqrt(2)))


def test_power_is_the_published_one():
    # G*Power's manual, matched pairs (after Cohen): dz 0.421637, 50 pairs, two-sided .05, power 0.832114; the other
    # tail has no share in it. And dz 0.5 takes 34 pairs two-sided, 27 one-sided, for 80 %.
    assert power(0.421637, 50, 0.025) == pytest.approx(0.832114, abs=1e-6)
    assert (power(0.5, [33, 34], 0.025) >= 0.8).tolist() == [False, True]
    assert (power(0.5, [26, 27], 0.05) >= 0.8).tolist() == [False, True]


@pytest.mark.parametrize(("effect", "n", "alpha"), [(2.0, 3, 0.05), (1.0, 5, 0.025), (0.0, 4, 0.05)])
def test_power_is_the_share_of_rejections(effect, n, alpha):
    differences = np.random.default_rng(1).normal(effect, 1.0, (20_000, n))
    rejected = np.mean(stats.ttest_1samp(differences, 0.0, axis=1, alternative="greater").pvalue < alpha)
    assert power(effect, n, alpha) == pytest.approx(rejected, abs=4 * math.sqrt(0.25 / 20_000))


def test_a_clear_peak():
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
    # The smaller of the two is doubled, the larger is not.
    assert result["holm_smallest"] == pytest.approx(2 * over_smallest)
    assert result["holm_full"] == pytest.approx(max(over_full, 2 * over_smallest))


def test_a_gain_over_one_end_is_no_peak():
    result = verdict({1.0: [0.70, 0.71, 0.69], 0.5: [0.71, 0.69, 0.72], 0.1: [0.40, 0.41, 0.42]})
    assert result["holm_smallest"] < 0.05 < result["holm_full"]
    assert result["verdict"] == "undecided"


def test_a_monotone_fall():
    test = {
        1.0: around(0.70, -0.001, 0.000, 0.001, 0.000),
        0.5: around(0.65, 0.001, 0.001, -0.001, -0.001),
        0.1: around(0.50, 0.001, 0.000, 0.000, -0.001),
    }
    result = verdict(test)
    assert result["verdict"] == "monotone"
    ends = stats.ttest_rel(test[0.1], test[1.0]).pvalue
    not_superior = stats.ttest_1samp(np.subtract(test[0.5], test[1.0]), 0.01, alternative="less").pvalue
    assert result["p_monotone"] == pytest.approx(max(ends, not_superior))


def test_a_rise_towards_the_smallest_ratio_is_monotone():
    curve = {1.0: [0.60, 0.61, 0.60], 0.5: [0.70, 0.70, 0.71], 0.1: [0.80, 0.81, 0.81]}
    # p* is the end itself: nothing to be above, however coarse the test set.
    for samples in ({}, {"samples": 100}):
        result = verdicts(rows(curve, curve, **samples)).iloc[0]
        assert (result["p_star"], result["p_smallest"], result["verdict"]) == (0.1, 1.0, "monotone")


def test_a_peak_above_the_better_end_alone_is_not_monotone():
    tests = {"holm_monotone": 0.01, "holm_flat": 0.5, "test_full": 0.7, "test_smallest": 0.6}
    assert _verdict(pd.Series({"holm_full": 0.06, "holm_smallest": 0.01, **tests})) == "monotone"
    assert _verdict(pd.Series({"holm_full": 0.01, "holm_smallest": 0.06, **tests})) == "undecided"


def test_a_fall_that_may_hide_a_peak_is_not_monotone():
    # The ends differ beyond doubt, but p* may well be 2 points above p = 1.
    result = verdict({1.0: [0.70, 0.71, 0.69], 0.5: [0.71, 0.69, 0.72], 0.1: [0.30, 0.31, 0.30]})
    assert stats.ttest_rel([0.30, 0.31, 0.30], [0.70, 0.71, 0.69]).pvalue < 1e-3
    assert result["verdict"] == "undecided"


def test_a_flat_curve_and_its_margin():
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


def test_curves_that_prune_nothing_are_flat():
    curve = {1.0: [0.5, 0.6, 0.7], 0.5: [0.5, 0.6, 0.7], 0.1: [0.5, 0.6, 0.7]}
    assert verdict(curve)["verdict"] == "flat"


def test_noise_is_undecided_and_says_how_many_seeds_it_takes():
    # Gains over p = 1 of mean half their deviation: 2/√3 · .01 · ½, with deviations ± .01. A family of two tests grants
    # each .025 one-sided, which is the two-sided .05: 34 pairs (G*Power), of which there are four.
    gains = around(0.01 / math.sqrt(3), -0.01, 0.01, -0.01, 0.01)
    star = [0.5 + gain for gain in gains]
    # The gain over the smallest ratio is shown already, with or without deviation, and asks for no more.
    for smallest in ([0.3] * 4, [accuracy - 0.2 for accuracy in star]):
        result = verdict({1.0: [0.5] * 4, 0.5: star, 0.1: smallest})
        assert result["holm_smallest"] < 0.05 < result["holm_full"]
        assert (result["verdict"], result["more_seeds"]) == ("undecided", 30)


def test_more_seeds_beyond_a_hundred_or_for_an_effect_of_the_wrong_sign_are_infinite():
    for mean in (0.001, -0.01):
        gains = around(mean, -0.02, 0.02, -0.02, 0.02)
        result = verdict({1.0: [0.5] * 4, 0.5: [0.5 + gain for gain in gains], 0.1: [0.3] * 4})
        assert (result["verdict"], result["more_seeds"]) == ("undecided", math.inf)


def test_one_seed_decides_nothing():
    result = verdict({1.0: [0.5], 0.5: [0.9], 0.1: [0.1]})
    assert result["verdict"] == "undecided"
    assert result[["p_full", "holm_full", "holm_smallest", "holm_monotone", "holm_flat", "more_seeds"]].isna().all()
    assert result["gain_full"] == pytest.approx(0.4)


def test_the_oracle_stands_beside_and_decides_nothing():
    valid = {1.0: [0.5] * 3, 0.5: [0.9] * 3, 0.1: [0.5] * 3}
    result = verdicts(rows(valid, {1.0: [0.6, 0.7, 0.8], 0.5: [0.5, 0.7, 0.6], 0.1: [0.8, 0.9, 0.7]})).iloc[0]
    assert (result["p_star"], result["oracle_p"]) == (0.5, 0.1)
    assert result["test"] == pytest.approx(0.6)
    assert result["oracle_test"] == pytest.approx(0.8)


def test_a_family_is_corrected_together_and_others_are_not():
    curve = {1.0: [0.70, 0.71, 0.72], 0.5: [0.80, 0.82, 0.81], 0.1: [0.60, 0.59, 0.61]}
    alone = verdicts(rows(curve, curve)).iloc[0]
    assert alone["verdict"] == "peak inside"
    family = [rows(curve, curve, dataset=d, granularity=g) for d in ("a", "b") for g in (2, 4, 8)]
    others = [rows(curve, curve, batch_size=128), rows(curve, curve, branch="none")]
    table = verdicts(pd.concat([*family, *others]))
    # Twelve tests instead of two.
    raw = table[["p_full", "p_smallest"]].iloc[:6].to_numpy().ravel()
    assert table[["holm_full", "holm_smallest"]].iloc[:6].to_numpy().ravel() == pytest.approx(holm(raw))
    assert (table["holm_full"].iloc[:6] > alone["holm_full"]).all()
    assert table["holm_full"].iloc[6:].tolist() == pytest.approx([alone["holm_full"]] * 2)


counts = st.lists(st.lists(st.integers(30, 70), min_size=8, max_size=8), min_size=1, max_size=4)


@settings(max_examples=10, deadline=None)
@given(data=st.data(), seeds=counts)
def test_neither_the_order_of_rows_nor_the_names_of_seeds_matter(data, seeds):
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
