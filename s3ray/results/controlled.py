"""A curve beside its controls: do the experts matter at all, and is the peak the router's doing? The rules.

All tests are paired over seeds on test, as those of `s3ray.results.statistics`, at level 0.05; p* is chosen on
validation there. Controls are reference rows: no p is chosen among them, and p = 0 is no end of a curve.

- `experts`: whether they matter. `yes`: p = 1 is above p = 0, where none is computed (one-sided). `hurt`: it is below
  (one-sided). `no`: it is shown to be less than the margin above p = 0 (one-sided). In the last two cases a pruning
  curve says nothing, since what it prunes is worth nothing. Else `undecided`.
- `router`: whether it matters which pairs are kept. `yes`: at p* the ranked curve is above the one that keeps as many
  pairs at random (one-sided). `no`: it is below (one-sided), or equivalent within the margin (two one-sided tests).
  Else `undecided`. It is asked at p*, not where the two lie furthest apart, and it is not corrected: one curve, one
  question. A `peak inside` is the router's doing only where this says `yes`.
- The interaction with Selection: how much more ranked pruning gains over random pruning after Selection than before,
  at the p* of the curve after Selection. A mean with its 95 % interval; nothing is decided by it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from s3ray.results.statistics import ALPHA, CONFIGURATION, Difference, best_ratios, resolution

_DIFFERENCES = ["over_random", "over_smallest", "over_contribution", "over_no_expert", "full_over_no_expert"]
_DIFFERENCES += ["over_untrained", "interaction"]
_MISSING: pd.Series[float] = pd.Series(dtype=float)


def controlled(rows: pd.DataFrame, controls: pd.DataFrame, margin: float = 1.0) -> pd.DataFrame:
    """Per configuration that has a p* and controls: the curve's differences from them on test, as shares.

    Args:
        rows, controls: as collected (`Results`).
        margin: of equivalence, in points of accuracy.

    Returns:
        Columns: `n`, `p_star`, `test` and `test_full` (means at p* and 1), `no_expert` and `untrained` (means); of
        each difference its mean, `…_low` and `…_high` (95 %), and `…_p` (two-sided): `over_random`, `over_smallest`,
        `over_contribution` (at p*), `over_no_expert` and `over_untrained` (p* over them), `full_over_no_expert`
        (p = 1 over it), `interaction`; `experts` and `router`. What was not measured is NaN, and its answer is empty.
    """
    measured = best_ratios(rows).iterrows() if len(controls) else ()
    lines = [_line(best, rows, controls, margin / 100) for _, best in measured]
    means = ["n", "p_star", "test", "test_full", "no_expert", "untrained"]
    told = [f"{d}{suffix}" for d in _DIFFERENCES for suffix in ("", "_low", "_high", "_p")]
    columns = [*CONFIGURATION, *means, *told, "experts", "router"]
    return pd.DataFrame([line for line in lines if line], columns=columns)


def _line(best: pd.Series[Any], rows: pd.DataFrame, controls: pd.DataFrame, margin: float) -> dict[str, Any]:
    """Of one configuration; empty if it has no controls."""
    configuration = {name: best[name] for name in CONFIGURATION}
    own, mine = _of(controls, configuration), _of(rows, configuration)
    if own.empty:
        return {}
    ranked, p, step = _curve(mine), float(best["p_star"]), resolution(mine)
    others = {str(control): _curve(curve) for control, curve in own.groupby("control")}

    def of(control: str, at: float) -> pd.Series[float]:
        return _at(others[control], at) if control in others else _MISSING

    def over(at: float, other: pd.Series[float]) -> Difference:
        return Difference.paired(_at(ranked, at), other, step)

    no_expert, untrained = of("no expert", 0.0), of("untrained", 1.0)
    differences = {f"over_{rule}": over(p, of(rule, p)) for rule in ("random", "smallest", "contribution")}
    differences["over_no_expert"] = over(p, no_expert)
    differences["full_over_no_expert"] = full = over(1.0, no_expert)
    differences["over_untrained"] = over(p, untrained)
    differences["interaction"] = _interaction(rows, controls, configuration, p, step)
    random = differences["over_random"]
    return (
        configuration
        | {name: best[name] for name in ("n", "p_star", "test", "test_full")}
        | {"no_expert": no_expert.mean(), "untrained": untrained.mean()}
        | {name: value for d, each in differences.items() for name, value in _told(d, each).items()}
        | {
            "experts": _answer(full, ("yes", full.p_above()), ("hurt", full.p_below()), ("no", full.p_below(margin))),
            "router": _answer(
                random, ("yes", random.p_above()), ("no", min(random.p_below(), random.p_within(margin)))
            ),
        }
    )


def _answer(difference: Difference, *answers: tuple[str, float]) -> str:
    """The first that is shown; a missing p-value is below nothing, and a missing difference has no answer."""
    if math.isnan(difference.mean):
        return ""
    return next((answer for answer, p in answers if p < ALPHA), "undecided")


def _interaction(
    rows: pd.DataFrame, controls: pd.DataFrame, configuration: Mapping[str, Any], p: float, step: float
) -> Difference:
    """(ranked - random) after Selection, minus the same before it."""
    if configuration["branch"] == "none":
        return Difference(math.nan, math.nan, math.nan)

    def gains(branch: str) -> pd.Series[float]:
        same = {**configuration, "branch": branch}
        own = _of(controls, same)
        return _at(_curve(_of(rows, same)), p) - _at(_curve(own[own["control"] == "random"]), p)

    # Two gains, each a difference of two accuracies: √2 times a difference's own step.
    return Difference.paired(gains(configuration["branch"]), gains("none"), step * math.sqrt(2))


def _told(name: str, difference: Difference) -> dict[str, float]:
    low, high = difference.interval(0.95)
    return {name: difference.mean, f"{name}_low": low, f"{name}_high": high, f"{name}_p": difference.p_nonzero()}


def _of(frame: pd.DataFrame, configuration: Mapping[str, Any]) -> pd.DataFrame:
    """The test rows of a configuration."""
    names = list(configuration)
    found = (frame[names] == pd.Series(configuration)).all(axis=1) & (frame["split"] == "test")
    return frame[found & frame["accuracy"].notna()]


def _curve(frame: pd.DataFrame) -> pd.DataFrame:
    """Seed × preservation ratio."""
    return frame.pivot(index="seed", columns="preservation_ratio", values="accuracy")


def _at(curve: pd.DataFrame, ratio: float) -> pd.Series[float]:
    return curve.get(ratio, _MISSING)
