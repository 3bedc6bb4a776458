import math

import pandas as pd
import pytest

from s3ray.results import best_ratios, summarize
from s3ray.results.statistics import half_width


def rows(valid, test, branch="suff+min"):
    """Rows of one configuration from {ratio: [accuracy per seed]}."""
    return pd.DataFrame(
        {
            "dataset": "toy",
            "kind": "simulated",
            "scale": "smoke",
            "granularity": 8,
            "batch_size": 64,
            "branch": branch,
            "preservation_ratio": ratio,
            "split": split,
            "seed": seed,
            "accuracy": accuracy,
            "active_parameters": 1000.0 * ratio,
            "active_parameters_paper": 1000.0 * ratio,
        }
        for split, curve in (("valid", valid), ("test", test))
        for ratio, accuracies in curve.items()
        for seed, accuracy in enumerate(accuracies)
    )


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
    assert summary["std"].isna().all()
    assert summary["half_width"].isna().all()
    assert math.isnan(half_width(pd.Series([0.5])))


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


def test_of_equal_ratios_the_largest_is_chosen():
    curve = {1.0: [0.5], 0.9: [0.7], 0.5: [0.7], 0.1: [0.7]}
    assert best_ratios(rows(curve, curve)).iloc[0]["p_star"] == 0.9


def test_configurations_without_p_1_or_without_pruning_have_no_choice():
    assert best_ratios(rows({1.0: [0.5]}, {1.0: [0.5]})).empty
    assert best_ratios(rows({0.5: [0.5]}, {0.5: [0.5]})).empty
