"""The table and the figure of factors, on made-up values whose means are known."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from s3ray.results.chart import Curve, Panel
from s3ray.results.exhibits.factors import factor_chart, factor_table

RATIOS = (1.0, 0.5, 0.1)
KINDS = {"shared relevant": 1, "shared other": 3, "unique relevant": 2, "unique other": 2, "nuisance": 8}
QUANTITIES = {
    "R2": list(KINDS),
    "share of variance": list(KINDS),
    "energy distance": list(KINDS)[:2],
    "energy coefficient": list(KINDS)[:2],
    "energy distance between values": list(KINDS)[:2],
    "I(X;Z) bound": [""],
    "I(Z;Y) bound": [""],
    "I(Z;X|Y) surrogate": [""],
    "1 - cosine to class mean": [""],
}


def mean(quantity: str, kind: str, method: str, branch: str, granularity: int, ratio: float) -> float:
    """Different for everything it depends on."""
    height = 0.02 * list(QUANTITIES).index(quantity) + 0.1 * (1 + [*KINDS, ""].index(kind))
    return height * ratio + 0.03 * (branch == "none") + 0.05 * (method == "clip") + 0.001 * granularity


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    """Seeds lie 0.02 apart, the factors of a kind symmetrically about their mean."""
    curves = [("s3", branch, g, p) for branch in ("none", "suff+min") for g in (2, 8) for p in RATIOS]
    curves += [("clip", "none", 1, 1.0), ("factorcl", "proj", 1, 1.0), ("mine", "none", 1, 1.0)]
    rows = []
    for (method, branch, granularity, ratio), seed in itertools.product(curves, (0, 1)):
        for quantity, kinds in QUANTITIES.items():
            for kind in kinds:
                center = mean(quantity, kind, method, branch, granularity, ratio) + 0.02 * seed - 0.01
                count = KINDS.get(kind, 1)
                for number in range(count):
                    value = center + 0.01 * (number - (count - 1) / 2)
                    factor = f"{kind} {number}" if kind else ""
                    for split, modality, other in (("test", "both", 0), ("valid", "both", 5), ("test", "first", 9)):
                        rows.append(
                            {
                                "dataset": "latent_factors",
                                "kind": "simulated",
                                "method": method,
                                "branch": branch,
                                "granularity": granularity,
                                "batch_size": 64,
                                "seed": seed,
                                "preservation_ratio": ratio,
                                "split": split,
                                "quantity": quantity,
                                "factor": factor,
                                "factor_kind": kind,
                                "modality": modality,
                                "value": value + other,
                            }
                        )
    return pd.DataFrame(rows).sample(frac=1, random_state=0)


def lines(panel: Panel) -> dict[str, Curve]:
    return {curve.label: curve for curve in panel.curves}


def test_figure_carries_the_means_that_were_put_in(points: pd.DataFrame) -> None:
    chart = factor_chart(points)
    assert [panel.title for panel in chart.panels[0]] == [
        "after Specialization",
        "after Selection",
        "other methods (p = 1)",
    ]
    assert chart.title.startswith("What representations keep: latent_factors (simulated data), S3 at χ = 8")
    assert [axis.inverted for axis in chart.columns] == [True, True, False]  # pruning goes to the right
    for column, branch in enumerate(("none", "suff+min")):
        for row, quantity, scale in ((0, "R2", 1), (1, "share of variance", 100)):
            drawn = lines(chart.panels[row][column])
            for kind in KINDS:
                assert list(drawn[kind].x) == list(RATIOS)
                expected = [scale * mean(quantity, kind, "s3", branch, 8, p) for p in RATIOS]
                np.testing.assert_allclose(drawn[kind].y, expected)
        shown = [(q, k) for q in ("energy distance", "energy distance between values") for k in list(KINDS)[:2]]
        for curve, (quantity, kind) in zip(chart.panels[2][column].curves, shown, strict=True):
            np.testing.assert_allclose(curve.y, [mean(quantity, kind, "s3", branch, 8, p) for p in RATIOS])
        drawn = lines(chart.panels[3][column])
        for quantity in ("I(X;Z) bound", "I(Z;Y) bound", "I(Z;X|Y) surrogate"):
            np.testing.assert_allclose(drawn[quantity].y, [mean(quantity, "", "s3", branch, 8, p) for p in RATIOS])


def test_band_is_one_standard_deviation_over_seeds(points: pd.DataFrame) -> None:
    curve = lines(factor_chart(points).panels[0][0])["shared relevant"]
    # Two seeds 0.02 apart: the sample standard deviation is 0.02 / √2. The factors' spread is no part of it.
    assert curve.band
    assert curve.spread[0] == pytest.approx(0.02 / 2**0.5)
    assert curve.hover[0].split("\n") == ["shared relevant", "p 1", f"mean {curve.y[0]:.2f}", "std 0.01", "n 2"]


def test_other_methods_stand_at_their_means_in_the_tables_order(points: pd.DataFrame) -> None:
    chart = factor_chart(points)
    assert list(chart.columns[-1].ticks.values()) == ["CLIP", "FactorCL-proj", "mine"]
    curve = lines(chart.panels[0][2])["nuisance"]
    expected = [
        mean("R2", "nuisance", m, b, 1, 1.0) for m, b in (("clip", "none"), ("factorcl", "proj"), ("x", "none"))
    ]
    np.testing.assert_allclose(curve.y[1::4], expected)
    assert [curve.x[1::4], np.isfinite(curve.spread).tolist()] == [[0, 1, 2], [False, True, False, False] * 3]
    assert curve.hover[1].startswith("nuisance\nCLIP\nmean ")


def test_shares_stand_on_a_scale_of_their_own(points: pd.DataFrame) -> None:
    assert [axis.symlog for axis in factor_chart(points).rows] == [False, True, False, False]


def test_one_seed_has_no_spread_and_s3_or_the_others_may_be_alone(points: pd.DataFrame) -> None:
    one = points[points["seed"] == 0]
    is_s3 = one["method"] == "s3"
    for shown, columns in ((one[is_s3], 2), (one[~is_s3], 1), (one[is_s3 & (one["branch"] == "none")], 1)):
        chart = factor_chart(shown)
        assert [len(row) for row in chart.panels] == [columns] * 4
        assert "n = 1" in chart.title
        assert not any(np.isfinite(curve.spread).any() for row in chart.panels for p in row for curve in p.curves)


def test_a_figure_is_of_one_dataset_at_one_batch_size(points: pd.DataFrame) -> None:
    with pytest.raises(AssertionError, match="one dataset at one batch size"):
        factor_chart(pd.concat([points, points.assign(batch_size=128)]))


def test_table_has_a_line_per_curve_point_with_mean_and_std(points: pd.DataFrame) -> None:
    table = factor_table(points)
    assert len(table) == 2 * 2 * len(RATIOS) + 3
    assert set(table["dataset"]) == {"latent_factors (simulated data)"}
    assert set(table["n"]) == {2}
    chosen = (table["method"] == "S3, after Selection") & (table["χ"] == 8) & (table["p"] == "0.5")
    line = table[chosen].iloc[0]

    def cell(quantity: str, kind: str, scale: float = 1.0) -> str:
        return f"{scale * mean(quantity, kind, 's3', 'suff+min', 8, 0.5):.2f} ({scale * 0.02 / 2**0.5:.2f})"

    for kind in KINDS:
        assert line[f"R² {kind}"] == cell("R2", kind)
        assert line[f"share of variance (%) {kind}"] == cell("share of variance", kind, 100)
    assert line["I(Z;Y) bound"] == cell("I(Z;Y) bound", "")
    # Over all four shared factors: one relevant and three others.
    means = [mean("energy distance", kind, "s3", "suff+min", 8, 0.5) for kind in ("shared relevant", "shared other")]
    assert line["energy distance"].split()[0] == f"{(means[0] + 3 * means[1]) / 4:.2f}"


def test_what_two_modalities_share_alone_has_columns_and_curves_where_there_is_any(points: pd.DataFrame) -> None:
    assert not any("by two" in column for column in factor_table(points).columns)
    by_two = points[points["factor_kind"] == "shared other"].assign(factor_kind="shared by two other")
    more = pd.concat([points, by_two])
    table = factor_table(more)
    assert list(table["R² shared by two other"]) == list(table["R² shared other"])
    assert "R² shared by two relevant" not in table
    assert "shared by two other" in lines(factor_chart(more).panels[0][0])


def test_table_is_ordered_by_method_granularity_and_falling_p(points: pd.DataFrame) -> None:
    table = factor_table(points)
    expected = [(f"S3, {when} Selection", g, f"{p:g}") for when in ("without", "after") for g in (2, 8) for p in RATIOS]
    expected += [("CLIP", 1, "1"), ("FactorCL-proj", 1, "1"), ("mine", 1, "1")]
    assert list(table[["method", "χ", "p"]].itertuples(index=False, name=None)) == expected
