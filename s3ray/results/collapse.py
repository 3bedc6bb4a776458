"""Numbers that mean nothing: of encoders whose representations are all equal, or whose tokens all take one expert.

The rules, written before results

- Representations have collapsed where their `spread` on a split (`stages.probe.spread_of`) is below 1e-3: what the
  probe reads is then less than a thousandth of their length. It is not known of rows that were computed before it was
  measured, nor of a split of one sample.
- A modality's routing has collapsed where the entropy of its mean routing distribution, averaged over layers, is at the
  last step of the training below 1% of log N, that of N experts used alike: nearly all weight is then one expert's in
  every layer. One expert alone cannot collapse.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from s3ray.results.statistics import CONFIGURATION
from s3ray.sweep import Cell

SPREAD, ENTROPY = 1e-3, 0.01


def equal_representations(spread: float | None) -> str:
    """In words; empty if they have not collapsed."""
    return "all representations equal" if spread is not None and spread < SPREAD else ""


def one_expert(metrics: Sequence[Mapping[str, Any]], experts: int) -> str:
    """In words; empty if no modality's routing has collapsed.

    Args:
        metrics: of a training, a row per step.
        experts: N.
    """
    named = metrics[-1].items() if metrics and experts > 1 else ()
    prefix = "global_entropy/"
    small = [
        name.removeprefix(prefix)
        for name, entropy in named
        if name.startswith(prefix) and entropy is not None and entropy < ENTROPY * math.log(experts)
    ]
    return f"all tokens of {' and '.join(small)} on one expert" if small else ""


def sentences(rows: pd.DataFrame) -> list[str]:
    """A sentence per cell and branch that has collapsed."""
    if rows.empty:
        return []
    told = rows[rows["collapsed"] != ""]
    found = []
    for _, own in told.groupby([*CONFIGURATION, "seed"], sort=False, dropna=False):
        line, what = own.iloc[0], dict.fromkeys(words for text in own["collapsed"] for words in text.split("; "))
        ratios = ", ".join(f"{ratio:g}" for ratio in own["preservation_ratio"].unique())
        cell = Cell(**{field.name: line[field.name] for field in dataclasses.fields(Cell)})
        found.append(f"{cell} {line['branch']}, p {ratios}: {'; '.join(what)}; its numbers mean nothing")
    return found
