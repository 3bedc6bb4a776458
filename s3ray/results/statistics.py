"""The statistical rules, written before results.

- A seed is a replicate. Means are over seeds; std is the sample deviation (ddof 1); intervals are two-sided
  95 % Student t intervals of the mean. With one seed, std and interval are missing, not zero.
- p* is the preservation ratio below 1 with the highest *validation* accuracy, averaged over seeds; of equal
  ones the largest. Its test accuracy is the figure to quote, its gain over p = 1 is a paired difference over
  seeds.
- The oracle is the ratio below 1 with the highest *test* accuracy. It is reported beside p*, labelled, only
  because the paper's Table 2 chose that way.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

CONFIGURATION = ["dataset", "kind", "scale", "granularity", "batch_size", "branch"]


def half_width(values: pd.Series[float]) -> float:
    """Half of the 95 % t interval of the mean; NaN below two values."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")


def summarize(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean, std, n and interval over seeds, per configuration, preservation ratio and split."""
    grouped = rows.groupby([*CONFIGURATION, "preservation_ratio", "split"], sort=False)
    summary = grouped.agg(
        mean=("accuracy", "mean"),
        std=("accuracy", lambda a: a.std(ddof=1)),
        n=("seed", "nunique"),
        half_width=("accuracy", half_width),
        active_parameters=("active_parameters", "mean"),
        active_parameters_paper=("active_parameters_paper", "mean"),
    ).reset_index()
    summary["low"] = summary["mean"] - summary["half_width"]
    summary["high"] = summary["mean"] + summary["half_width"]
    return summary


def best_ratios(rows: pd.DataFrame) -> pd.DataFrame:
    """Per configuration: p* and what it gives on test, beside p = 1 and the oracle.

    Columns: `p_star`, `valid` and `test` (means at p*), `test_full` (mean at p = 1), `gain` (mean paired
    difference test(p*) - test(1)) with `gain_half_width`, `oracle_p`, `oracle_test`, `n`.
    """
    results = []
    for configuration, group in rows.groupby(CONFIGURATION, sort=False):
        by_seed = group.pivot_table(index="seed", columns=["split", "preservation_ratio"], values="accuracy")
        if 1.0 not in by_seed["test"]:
            continue
        pruned = sorted((p for p in by_seed["valid"] if p < 1.0), reverse=True)
        if not pruned:
            continue
        # max returns the first of equal values: the largest ratio.
        p_star = max(pruned, key=lambda p: by_seed["valid"][p].mean())
        oracle = max(pruned, key=lambda p: by_seed["test"][p].mean())
        gain = by_seed["test"][p_star] - by_seed["test"][1.0]
        results.append(
            dict(zip(CONFIGURATION, configuration, strict=True))
            | {
                "p_star": p_star,
                "valid": by_seed["valid"][p_star].mean(),
                "test": by_seed["test"][p_star].mean(),
                "test_full": by_seed["test"][1.0].mean(),
                "gain": gain.mean(),
                "gain_half_width": half_width(gain),
                "oracle_p": oracle,
                "oracle_test": by_seed["test"][oracle].mean(),
                "n": len(by_seed),
            }
        )
    return pd.DataFrame(results)
