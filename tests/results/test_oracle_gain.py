"""What the printed curves can carry: by hand on small curves, the nulls' closed forms and rates, the twelve curves."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from s3ray.results.exhibits import EXHIBITS
from s3ray.results.oracle_gain import NULLS, chance, gains, printed_gains, roughness, shape, step_size

POINTS = 10


@pytest.fixture(scope="module")
def printed() -> pd.DataFrame:
    return printed_gains().set_index(["dataset", "granularity", "null"])


def test_gain_and_sizes_by_hand() -> None:
    curve = [60.0, 61.0, 64.0, 63.0]
    assert gains(curve) == 4.0
    assert gains([60.0, 59.0, 58.5]) == -1.0
    assert gains([60.0, 59.0]) == -1.0
    # Steps 1, 3, -1; second differences 2, -4.
    assert step_size(curve) == pytest.approx(math.sqrt(11 / 3))
    assert roughness(curve) == pytest.approx(math.sqrt(20 / 2 / 6))
    assert roughness([50.0, 51.0, 52.0, 53.0]) == 0.0  # a slope is no noise
    np.testing.assert_allclose(gains([curve, [60.0, 59.0, 58.5, 58.0]]), [4.0, -1.0])


@pytest.mark.parametrize(
    ("curve", "name"),
    [
        ([60.0, 59.0, 61.0], "rising"),
        ([60.0, 61.0, 59.0], "peak inside"),
        ([60.0, 59.0, 58.0], "falling"),
        ([60.0, 60.0, 60.0], "falling"),  # of equal ones the largest ratio
        ([60.0, 61.0, 61.0], "peak inside"),
        ([60.0], "falling"),
    ],
)
def test_the_shape_is_where_the_largest_number_stands(curve: Any, name: str) -> None:
    assert shape(curve) == name


@pytest.mark.parametrize(
    ("null", "expected"),
    [
        ("white noise", 1.485013),  # the mean of the largest of nine normal values
        # The first step has mean 0; the largest of 0 and eight further sums Σ √(1 / 2πk) (Spitzer 1956).
        ("random walk", sum(1 / math.sqrt(2 * math.pi * k) for k in range(1, 9))),
    ],
)
def test_the_expected_gain_of_a_flat_curve(null: str, expected: float) -> None:
    curve = np.random.default_rng(1).normal(60, 1, POINTS)
    found = chance(curve, null)
    assert found.size == NULLS[null].size(curve)
    assert found.expected == pytest.approx(expected * found.size, abs=0.005 * found.size)
    assert found.low < found.expected < found.high


@pytest.mark.parametrize("null", NULLS)
@pytest.mark.parametrize("size", [0.3, 3.0])
def test_five_of_a_hundred_flat_curves_exceed_their_null_whatever_the_noise(null: str, size: float) -> None:
    generator = np.random.default_rng(2)
    curves = 60 + size * NULLS[null].noise(generator.standard_normal((4000, POINTS)))
    rate = np.mean([chance(curve, null).p_value < 0.05 for curve in curves])
    assert rate == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 4000))


def test_a_clear_gain_is_found_and_none_is_not() -> None:
    noise = np.random.default_rng(3).normal(0, 0.1, POINTS)
    bend = np.array([0, 1, 2, 3, 4, 4, 4, 3, 2, 1])
    assert chance(60 + bend + noise, "white noise").p_value < 0.01
    assert chance(60 - bend + noise, "white noise").p_value > 0.5
    # No noise is seen at all: nothing is known better than to a hundredth of a point.
    for null in NULLS:
        found = chance([60.0] * POINTS, null)
        assert found.size == pytest.approx(0.01 / math.sqrt(12))
        assert found.p_value > 0.5


GAINS = {  # best p, gain, shape, as printed
    ("mosei", 2): (0.1, 2.77, "rising"),
    ("mosei", 4): (0.1, 2.07, "rising"),
    ("mosei", 8): (0.5, 0.59, "peak inside"),
    ("mosi", 2): (0.1, 5.05, "rising"),
    ("mosi", 4): (0.5, 1.60, "peak inside"),
    ("mosi", 8): (0.7, 1.84, "peak inside"),
    ("ur_funny", 2): (0.1, 1.61, "rising"),
    ("ur_funny", 4): (0.4, 0.56, "peak inside"),
    ("ur_funny", 8): (0.2, 1.35, "peak inside"),
    ("mustard", 2): (0.1, 3.86, "rising"),
    ("mustard", 4): (0.8, 3.62, "peak inside"),
    ("mustard", 8): (0.8, 0.97, "peak inside"),
}


def test_the_twelve_printed_curves(printed: pd.DataFrame) -> None:
    assert len(printed) == 12 * len(NULLS)
    for curve, (ratio, gain, name) in GAINS.items():
        for null in NULLS:
            line = printed.loc[(*curve, null)]
            assert (line["oracle_p"], line["gain"], line["shape"]) == (ratio, pytest.approx(gain), name)
    # MUStARD, χ = 8: √(61.59 · 38.41 / 138), and 62.56 - 59.18 over the smallest ratio.
    line = printed.loc[("mustard", 8, "white noise")]
    assert (line["samples"], line["full"]) == (138, 61.59)
    assert line["binomial_error"] == pytest.approx(4.1404, abs=1e-4)
    assert line["over_smallest"] == pytest.approx(3.38)


def test_which_printed_gains_exceed_chance(printed: pd.DataFrame) -> None:
    p_values = printed["p_value"].unstack("null")
    exceeds = {null: [curve for curve in GAINS if p_values.loc[curve, null] < 0.05] for null in NULLS}
    assert exceeds == {
        "white noise": [("mosei", 2), ("mosei", 4), ("mosei", 8), ("mosi", 2), ("mosi", 8), ("ur_funny", 2)],
        "random walk": [("mosei", 2)],
    }
    # To 0.005: the Monte Carlo error is far below.
    found = p_values.xs(8, level="granularity").loc[["mosei", "mosi", "ur_funny", "mustard"]]
    np.testing.assert_allclose(found["white noise"], [0.012, 0.017, 0.055, 0.658], atol=0.005)
    np.testing.assert_allclose(found["random walk"], [0.321, 0.261, 0.376, 0.664], atol=0.005)


def test_the_exhibit_reads_no_results(printed: pd.DataFrame) -> None:
    exhibit = EXHIBITS["oracle_gain"]
    nothing: Any = None
    table = exhibit.tables(nothing)["oracle_gain"]
    assert len(table.frame) == 24
    shown = table.shown.set_index(["dataset", "χ"])
    assert len(shown) == 12
    line = shown.loc[("mosei (paper)", 2)]
    assert (line["gain over p 1"], line["shape"], line["exceeds"]) == ("+2.77", "rising", "white noise, random walk")
    assert shown.loc[("mosi (paper)", 8), "white noise: expected"] == "+0.53 (+1.46)"
    found = exhibit.finding(nothing)
    assert found.startswith("Of 12 printed gains of the best p over p = 1, ")
    assert "6 exceed white noise and 1 exceeds a random walk (p-value < 0.05)" in found
    assert found in table.note
    chart = exhibit.figures(nothing)["oracle_gain"]
    assert chart.panels[0][0].title == "mosei, 4643 test samples"
    for panel, dataset in zip(chart.panels[0], ("mosei", "mosi", "ur_funny", "mustard"), strict=True):
        (star,) = [curve for curve in panel.curves if curve.label == "printed"]
        assert star.y == pytest.approx([GAINS[dataset, granularity][1] for granularity in (2, 4, 8)])
