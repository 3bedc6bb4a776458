"""What needs no representation learning, and what any representation is to be held against."""

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
                "reference": labels.inputs_title(str(reference)),
                "validation": percent(accuracy.get("valid", math.nan)),
                "test": percent(accuracy.get("test", math.nan)),
            }
        )
    return pd.DataFrame(lines)


EXHIBIT = Exhibit(
    name="references",
    title="References",
    note="Accuracy without representation learning: of the most frequent training class, and of logistic regression on "
    "raw features, averaged over steps, its regularisation chosen on validation. A representation that ends below the "
    "best of them is worth less than the data themselves. The best inputs, in other tables and figures, are those of "
    "raw features with the highest accuracy on validation here. Where samples lack modalities, another regression sees "
    "nothing but which: who lacks what can tell the class.",
    reads=("references",),
    tables=_tables,
    everywhere=True,
)
