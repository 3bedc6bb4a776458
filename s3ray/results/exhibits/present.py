"""Accuracy by what samples have, where some lack a modality."""

from __future__ import annotations

import json

import pandas as pd

from s3ray.results import labels
from s3ray.results.collect import Results
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.formatting import accuracies_over_seeds
from s3ray.results.statistics import CONFIGURATION, best_ratios


def _tables(results: Results) -> dict[str, Table]:
    return {"present": Table(present_table(results.rows))}


def present_table(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per (dataset, batch size, method, χ, p = 1 and p*) of data that lack something: test, `mean (std)`."""
    if "accuracy_lacking" not in rows:  # written before there were samples that lack a modality
        return pd.DataFrame()
    test = rows[(rows["split"] == "test") & rows["accuracy_lacking"].notna()]
    stars = best_ratios(rows)[[*CONFIGURATION, "p_star"]]
    test = test.merge(stars, how="left") if len(stars) else test.assign(p_star=1.0)
    ratio = test["preservation_ratio"]
    lines = []
    for place, own in test[(ratio == 1.0) | (ratio == test["p_star"])].groupby(
        [*CONFIGURATION, "preservation_ratio"], sort=False
    ):
        named = dict(zip([*CONFIGURATION, "p"], place, strict=True))
        lacking = pd.DataFrame([json.loads(text) for text in own["accuracy_lacking"]])
        line = {
            "dataset": f"{named['dataset']} ({named['kind']} data)",
            "batch size": named["batch_size"],
            "method": labels.title(str(named["method"]), str(named["branch"])),
            "χ": named["granularity"],
            "p": "1" if named["p"] == 1.0 else f"p* {named['p']:g}",
            "all (%)": accuracies_over_seeds(own["accuracy"]),
            "samples": own["samples"].iloc[0],
            "complete (%)": accuracies_over_seeds(own["accuracy_complete"].astype(float)),
            "complete samples": own["samples_complete"].iloc[0],
        }
        for name, told in lacking.items():
            line[f"without {name} (%)"] = accuracies_over_seeds(pd.Series([one["accuracy"] for one in told]))
            line[f"samples without {name}"] = told.iloc[0]["samples"]
        lines.append(line | {"n": own["seed"].nunique()})
    return pd.DataFrame(lines)


EXHIBIT = Exhibit(
    name="present",
    title="Accuracy by what is present",
    note="Test accuracy of all samples, of those that lack no modality, and of those that lack one, at p = 1 and at p* "
    "(chosen on validation, of all samples). Means over seeds (sample standard deviation), beside each accuracy the "
    "samples that it is of. Complete samples and those that lack something are different samples: the difference of "
    "their accuracies is not the price of lacking it, which the sweep of missing modalities measures.",
    tables=_tables,
    everywhere=True,
)
