"""The table and the figure of what pruning takes, on made-up values whose means are known."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from s3ray.results.chart import Panel
from s3ray.results.exhibits.pruned import EXHIBIT, pruned_chart, pruned_table

RATIOS = (1.0, 0.5, 0.1)
KINDS = ("shared relevant", "shared other", "unique relevant", "unique other", "nuisance")
QUANTITIES = ("share of pairs kept", "routing weight")


def value(quantity: str, kind: str, branch: str, granularity: int, ratio: float, layer: int) -> float:
    """Different for everything it depends on; of layers 0 and 1 the mean is that of layer 0.5."""
    beyond = 0.01 * KINDS.index(kind) + 0.1 * (branch == "none") + 0.002 * granularity + 0.04 * layer
    return beyond * ratio + (ratio if quantity == QUANTITIES[0] else 0.3)


@pytest.fixture(scope="module")
def points() -> pd.DataFrame:
    """Seeds lie 0.02 apart, the two factors of a kind symmetrically about their mean."""
    rows = []
    for quantity, kind, branch, granularity, ratio, layer, seed, number in itertools.product(
        QUANTITIES, KINDS, ("none", "suff+min"), (2, 4, 8), RATIOS, (0, 1), (0, 1), (-1, 1)
    ):
        center = value(quantity, kind, branch, granularity, ratio, layer) + 0.02 * seed - 0.01 + 0.003 * number
        for split, modality, other in (("test", "both", 0), ("valid", "both", 5), ("test", "first", 9)):
            rows.append(
                {
                    "dataset": "latent_factors",
                    "kind": "simulated",
                    "method": "s3",
                    "branch": branch,
                    "granularity": granularity,
                    "batch_size": 64,
                    "seed": seed,
                    "preservation_ratio": ratio,
                    "split": split,
                    "quantity": quantity,
                    "factor": f"{kind} {number}",
                    "factor_kind": kind,
                    "modality": modality,
                    "layer": layer,
                    "value": center + other,
                }
            )
    other_quantity = pd.DataFrame(rows[:3]).assign(quantity="R2", layer=None)
    return pd.concat([pd.DataFrame(rows), other_quantity]).sample(frac=1, random_state=0)


def lines(panel: Panel) -> dict[str, list[float]]:
    return {curve.label: list(curve.y) for curve in panel.curves}


def test_figure_shows_pairs_beyond_p_and_weights_at_the_smallest_and_the_largest_granularity(
    points: pd.DataFrame,
) -> None:
    chart = pruned_chart(points)
    assert [panel.title for panel in chart.panels[0]] == ["after Specialization", "after Selection"]
    assert chart.title.endswith("test values, mean ± std, n = 2")
    shown = [(2, QUANTITIES[0]), (2, QUANTITIES[1]), (8, QUANTITIES[0]), (8, QUANTITIES[1])]
    assert [axis.title.splitlines()[0] for axis in chart.rows] == ["χ = 2", "χ = 2", "χ = 8", "χ = 8"]
    for (granularity, quantity), row in zip(shown, chart.panels, strict=True):
        for branch, panel in zip(("none", "suff+min"), row, strict=True):
            drawn = lines(panel)
            assert list(drawn) == list(KINDS)
            for kind in KINDS:
                means = np.array([value(quantity, kind, branch, granularity, p, 0) + 0.02 * p for p in RATIOS])
                expected = 100 * (means - RATIOS) if quantity == QUANTITIES[0] else means
                np.testing.assert_allclose(drawn[kind], expected)


def test_band_is_one_standard_deviation_over_seeds_and_hover_says_the_share_itself(points: pd.DataFrame) -> None:
    curve = pruned_chart(points).panels[0][0].curves[0]
    assert curve.band
    # Two seeds 0.02 apart: the sample standard deviation is 0.02 / √2, in points 100 times that.
    assert curve.spread[0] == pytest.approx(2 / 2**0.5)
    share = 100 * value(QUANTITIES[0], KINDS[0], "none", 2, 0.5, 0) + 1
    assert curve.hover[1].split("\n")[:3] == [f"{QUANTITIES[0]}: {KINDS[0]}", "p 0.5", f"mean {share:.2f}"]


def test_table_has_a_line_per_layer_and_one_of_all(points: pd.DataFrame) -> None:
    table = pruned_table(points)
    order = list(table[["χ", "method", "p", "layer"]].itertuples(index=False, name=None))
    methods = ("S3, without Selection", "S3, after Selection")
    assert order == list(itertools.product((2, 4, 8), methods, ("1", "0.5", "0.1"), ("all", "0", "1")))
    assert set(table["n"]) == {2}
    chosen = (table["χ"] == 8) & (table["method"] == methods[1]) & (table["p"] == "0.5")
    for layer, line in zip((0.5, 0, 1), table[chosen].to_dict("records"), strict=True):
        kept = 100 * (0.5 + 0.5 * (0.01 * 4 + 0.016 + 0.04 * layer))
        assert line["pairs kept (%) nuisance"] == f"{kept:.1f} (1.4)"
        assert line["weight nuisance"] == f"{0.3 + 0.5 * (0.01 * 4 + 0.016 + 0.04 * layer):.4f} (0.0141)"


def test_one_seed_one_granularity_and_a_kind_that_is_not_there(points: pd.DataFrame) -> None:
    one = points[(points["seed"] == 0) & (points["granularity"] == 2) & (points["factor_kind"] != "nuisance")]
    chart = pruned_chart(one[one["branch"] == "none"])
    assert [len(row) for row in chart.panels] == [1, 1]
    assert "n = 1" in chart.title
    assert list(lines(chart.panels[0][0])) == list(KINDS[:-1])
    table = pruned_table(one)
    assert set(table["weight nuisance"]) == {""}
    assert "(" not in table["weight shared other"].iloc[0]


def test_without_routed_tokens_there_is_nothing(points: pd.DataFrame) -> None:
    others = points[points["quantity"] == "R2"]
    assert pruned_table(others).empty
    results = cast(Any, SimpleNamespace(factors=others))
    assert EXHIBIT.figures(results) == {}
