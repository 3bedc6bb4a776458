"""What pruning changes, with seeds and test samples both random: a line per curve."""

from __future__ import annotations

import math

import pandas as pd

from s3ray.results.collect import Results
from s3ray.results.crossed import Crossed, discordances, on_test
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.formatting import gain
from s3ray.results.statistics import ALPHA, CONFIGURATION, best_ratios

_MARGIN = 1.0  # points
_PINNED = ("χ", "batch size", "Selection loss", "p*", "gain over p 1", "95 % interval", "p-value")


def _tables(results: Results) -> dict[str, Table]:
    return {"crossed": Table(crossed_table(results.rows), pinned=_PINNED)}


def crossed_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per curve whose rows say which samples are right: p*, chosen on validation, against p = 1 on test."""
    lines = []
    curves = dict(list(rows.groupby(CONFIGURATION, sort=False)))
    for _, best in best_ratios(rows).iterrows():
        own = curves[tuple(best[CONFIGURATION])]
        star, full = on_test(own, best["p_star"]), on_test(own, 1.0)
        crossed, changed = Crossed.between(star, full), discordances(star, full)
        if not crossed.seeds:
            continue
        difference, p_flat = crossed.difference, crossed.p_within(_MARGIN / 100)
        is_open = not (difference.p_nonzero() < ALPHA or p_flat < ALPHA)
        towards = crossed if difference.mean > 0 else crossed.reversed
        lines.append(
            {
                "dataset": f"{best['dataset']} ({best['kind']} data)",
                "χ": best["granularity"],
                "batch size": best["batch_size"],
                "Selection loss": best["branch"],
                "seeds": crossed.seeds,
                "test samples": crossed.samples,
                "p*": f"{best['p_star']:g}",
                "gain over p 1": gain(difference.mean),
                # No sample changed: that nothing was seen is no proof to the last digit.
                "95 % interval": _interval(*difference.interval(0.95)) if difference.error else "",
                "p-value": _p_value(difference.p_nonzero()),
                "p-value of flat": _p_value(p_flat),
                "over seeds alone": gain(best["gain"], best["gain_half_width"]),
                "gained / lost": f"{changed['gained'].sum()} / {changed['lost'].sum()}",
                "seeds / samples / both (%)": _parts(crossed),
                "needed": towards.decided_by() if is_open else "",
            }
        )
    return pd.DataFrame(lines)


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{gain(low)} to {gain(high)}"


def _p_value(value: float) -> str:
    return "no test" if math.isnan(value) else f"{value:.2g}"


def _parts(crossed: Crossed) -> str:
    """Of the squared error; equal values have none, one seed or one sample cannot tell."""
    parts = (crossed.from_seeds, crossed.from_samples, crossed.from_both)
    return " / ".join(f"{100 * part / sum(parts):.0f}" for part in parts) if sum(parts) > 0 else ""


EXHIBIT = Exhibit(
    name="crossed",
    title="Gains for new seeds and new test samples",
    note="Test, p* (chosen on validation) minus p = 1, in points. Interval and p-value take seeds and test samples as "
    "random (one seed: samples alone); beside them the interval over seeds alone, which holds for these test samples "
    "only. p-value of flat: that the difference lies within 1 point. Gained and lost: samples right at p* alone and at "
    "p = 1 alone, over all seeds. Then what the error is made of: what only more seeds reduce, only more test samples, "
    "or either. Needed: what could show a difference as large as the one seen. Rules: s3ray/results/crossed.py.",
    tables=_tables,
    everywhere=True,
)
