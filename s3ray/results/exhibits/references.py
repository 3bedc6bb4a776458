"""What needs no representation learning: the floor of every curve."""

from __future__ import annotations

import math

import pandas as pd

from s3ray.results import labels
from s3ray.results.collect import Results
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.formatting import percent


def _tables(results: Results) -> dict[str, Table]:
    return {"references": Table(reference_table(results.references))}


def reference_table(references: pd.DataFrame) -> pd.DataFrame:
    """A line per (dataset, reference): accuracy in percent on validation and test."""
    lines = []
    for (dataset, kind, reference), rows in references.groupby(["dataset", "kind", "reference"], sort=False):
        accuracy = rows.set_index("split")["accuracy"]
        lines.append(
            {
                "dataset": f"{dataset} ({kind} data)",
                "reference": labels.reference_title(str(reference)),
                "validation": percent(accuracy.get("valid", math.nan)),
                "test": percent(accuracy.get("test", math.nan)),
            }
        )
    return pd.DataFrame(lines)


EXHIBIT = Exhibit(
    name="references",
    title="References",
    note="What needs no representation learning: the floor of every curve.",
    reads=("references",),
    tables=_tables,
    everywhere=True,
)
