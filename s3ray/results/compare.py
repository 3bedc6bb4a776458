"""Results beside the paper's printed ones, cell by cell. The rules, written before results.

- Only MultiBench data are compared; anything else is refused before a number is looked at.
- Published means and deviations are over three seeds. A printed deviation of 0.00 is taken as half a unit of its
  last digit, 0.005: the most that rounds to it. Ours is not taken for less than that of a value known to one test
  sample, 1 / (samples · √12): equal accuracies of some seeds are a coincidence.
- The difference of the two means has Welch's standard error and Satterthwaite's degrees of freedom (Welch 1947,
  Satterthwaite 1946), from summary statistics, since no more was published. The degrees are never more than
  2 (n - 1) of the smaller n, which is 4 beside three published seeds and changes nothing where we have three.
  Why: a published deviation that is small by chance makes the error small and lends it the degrees of our many seeds;
  in the far tail, where one of 184 cells is judged, such cells were said to differ. All cells equal in truth, some
  cell differed in 25 of 100 simulated studies at 10 of our seeds without that bound, in 68 at 20. With it in fewer
  than 5 at 2 to 20 seeds, whether our true deviation is that of the published, or half or twice as large; but for half
  at 20 seeds, 8 (at 50, 29). What it costs, where a tenth of the cells is 5 points off: of those 47 instead of 54 in
  100 are found at 6 seeds, 41 instead of 48 at 20, at 3 as before 21.
- The verdict of a cell, tests at level 0.05:
  1. `reproduced`: equivalent within the margin by two one-sided tests (Schuirmann 1987), which is to say that the
     90 % interval of the difference, `low` to `high`, lies inside it;
  2. `differs`: not that, and the difference is significant (two-sided) with the false discovery rate over all
     accuracies compared held at 0.05 (Benjamini and Hochberg 1995): where all agree in truth, the chance that even
     one is said to differ is 0.05; where many differ, single cells lose little power;
  3. `underpowered`: neither; the seeds on both sides cannot tell. One seed of ours never can.
  4. `not run`: there are no rows for the cell.
- Beside these, if results with other settings are given (what a search has found, say): `reproduced with other
  settings`, where the cell differs or is underpowered with ours, is reproduced by rule 1 with the others, and
  settings that it depends on are not the same. The note names the place of the others and each setting that differs.
  It is a second try, so that a cell that lies on the margin is called reproduced in up to 10 instead of 5 of 100
  cases; and it says nothing unless the others were chosen without a look at test, as the searches do.
- With three seeds on both sides and equal deviations, not even equal means are `reproduced` within 1.5 points
  unless the deviation is below 0.86: 1.5 / (t(0.95, 4) · √(2/3)). More seeds of ours help only so far.
- Tables 4 and 5 are exact: `reproduced` if every printed digit agrees, else `differs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import false_discovery_control

from s3ray.data.multibench import FILES
from s3ray.errors import UserError
from s3ray.methods import S3
from s3ray.results import labels
from s3ray.results.collect import Results
from s3ray.results.exhibit import Table
from s3ray.results.formatting import mean_std
from s3ray.results.parameter_tables import parameter_table
from s3ray.results.published import GRANULARITY, SEEDS, is_mean_of_seeds, published_table
from s3ray.results.statistics import ALPHA, Difference, best_ratios
from s3ray.settings import flattened

Values = NDArray[np.float64]

OTHERWISE = "reproduced with other settings"
VERDICTS = ("reproduced", OTHERWISE, "differs", "underpowered", "not run")
_UNSETTLED = ("differs", "underpowered")  # where other settings are tried
DENSE = 1  # granularity of prior methods' cells
_HALF_UNIT = 0.005  # of the last digit printed, in points

_COLUMNS = ["table", "dataset", "granularity", "entry", "preservation_ratio", "mean", "std", "n"]
_COLUMNS += ["published_mean", "published_std", "published_n", "difference", "low", "high"]
_COLUMNS += ["p_equivalent", "p_different", "verdict", "note"]


def compare(
    rows: pd.DataFrame,
    margin: float = 1.5,
    *,
    batch_sizes: Mapping[str, int] | None = None,
    parameters: bool = True,
) -> pd.DataFrame:
    """A line per cell of Tables 1 to 5: ours, the printed one, their difference and the verdict, in percent.

    Args:
        rows: as collected.
        margin: of equivalence, in points.
        batch_sizes: per dataset, the batch size of the paper's tables; may be left out where there is but one.
        parameters: include Tables 4 and 5, which take no rows but models counted (2 s the first time).

    Raises:
        UserError: rows of other than MultiBench data, of several scales, or of several batch sizes with none named.
    """
    curves: dict[Any, pd.DataFrame] = {}
    if not rows.empty:
        chosen = _comparable(rows, batch_sizes or {})
        curves = dict(iter(chosen.groupby(["dataset", "method", "branch", "granularity"])))
    lines = [_line(number, printed, meaning, curves, margin) for number, printed, meaning in _printed()]
    tested = [line for line in lines if not math.isnan(line["p_different"])]
    adjusted: Values = np.empty(0)
    if tested:
        adjusted = false_discovery_control([line["p_different"] for line in tested])
    for line, p_value in zip(tested, adjusted, strict=True):
        if line["verdict"] == "underpowered" and p_value < ALPHA:
            line["verdict"] = "differs"
    if parameters:
        lines += [*_exact(4, "router_parameters_percent"), *_exact(5, "active_parameters_percent")]
    return pd.DataFrame(lines, columns=_COLUMNS)


def compare_results(results: Results, others: Results | None = None, where: str = "") -> pd.DataFrame:
    """`compare` with the batch sizes and the margin that the sweep's configuration declared.

    Args:
        others: results with other settings, tried where `results` do not reproduce a number.
        where: what they are called in the notes.
    """
    datasets = results.info["datasets"]
    margins = {facts["margin"] for facts in datasets.values()}
    if len(margins) > 1:
        raise UserError(f"compare: datasets declare margins {sorted(margins)}; declare one in --config")
    (margin,) = margins
    comparison = compare(results.usual.rows, margin, batch_sizes=_batch_sizes(results))
    if others is None:
        return comparison
    tried = compare(others.usual.rows, margin, batch_sizes=_batch_sizes(others), parameters=False)
    for place, (_, printed, meaning) in enumerate(_printed()):
        if tried["verdict"].iloc[place] != "reproduced" or comparison["verdict"].iloc[place] not in _UNSETTLED:
            continue
        ours, other = (
            _settings(r.info["datasets"][printed["dataset"]]["settings"], meaning) for r in (results, others)
        )
        changed = ", ".join(f"{name} {other[name]}" for name in other if other[name] != ours.get(name))
        if changed:
            found = f"{mean_std(tried['mean'].iloc[place], tried['std'].iloc[place])} with {changed} ({where})"
            notes = [str(comparison["note"].iloc[place]), found]
            comparison.loc[place, "verdict"] = OTHERWISE
            comparison.loc[place, "note"] = "; ".join(filter(None, notes))
    return comparison


def _settings(settings: Mapping[str, Any], meaning: _Meaning) -> dict[str, Any]:
    """Of a dataset's settings those that a cell's number depends on, by paths such as `selection.temperature`."""
    # A prior method trains as Specialization does where its own table says nothing.
    tables = ["model", "probe", "specialization.optimizer", f"method.{meaning.method}"]
    if meaning.method == S3:
        tables = [
            "model",
            "probe",
            "sparsification",
            "specialization",
            *(["selection"] if meaning.branch != "none" else []),
        ]
    flat = flattened(settings)
    return {path: flat[path] for path in flat if path.startswith(("batch_size", *(f"{table}." for table in tables)))}


def _batch_sizes(results: Results) -> dict[str, int]:
    return {name: facts["batch_size"] for name, facts in results.info["datasets"].items()}


def comparison_table(results: Results) -> Table:
    """The comparison as the report shows it; its CSV file holds all of it."""
    comparison = compare_results(results)
    return Table(
        comparison,
        title="Each printed number beside ours",
        note="Ours, the printed number and their difference in percent with its 90 % interval. Rules: "
        "s3ray/results/compare.py.",
        readable=_readable(comparison),
        pinned=("table", "χ", "entry", "p", "ours", "paper", "difference [90 %]", "verdict"),
    )


def summary(comparison: pd.DataFrame) -> str:
    """A line per table: how many of its cells have which verdict."""
    lines = []
    for table, verdicts in comparison.groupby("table")["verdict"]:
        counts = {verdict: int(verdicts.eq(verdict).sum()) for verdict in VERDICTS}
        lines.append(f"Table {table}: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count))
    return "\n".join(lines)


def differs(comparison: pd.DataFrame) -> bool:
    """Whether any cell differs from the paper."""
    return bool(comparison["verdict"].eq("differs").any())


def _comparable(rows: pd.DataFrame, batch_sizes: Mapping[str, int]) -> pd.DataFrame:
    """The rows that stand for the paper's: MultiBench, one scale and one batch size per dataset."""
    refused = rows.loc[rows["kind"] != "multibench", ["dataset", "kind"]].drop_duplicates()
    if len(refused):
        named = ", ".join(f"{row['dataset']} is {row['kind']} data" for _, row in refused.iterrows())
        raise UserError(f"compare: {named}, and only MultiBench data can be compared with the paper; leave it out")
    size = rows["dataset"].map(batch_sizes)
    chosen = rows[size.isna() | (rows["batch_size"] == size)]
    for dataset, own in chosen.groupby("dataset"):
        for column in ("scale", "batch_size"):
            present = sorted(own[column].unique())
            if len(present) > 1:
                raise UserError(
                    f"compare: {dataset!s} has rows of {column} {', '.join(map(str, present))}; choose the one that "
                    f"stands for the paper's"
                )
    return chosen


class _Meaning(NamedTuple):
    """What a printed cell is called and which rows belong to it."""

    entry: str
    method: str
    branch: str
    granularity: int
    preservation_ratio: float | None  # None: the best on test


def _stage(printed: pd.Series[str]) -> _Meaning:
    stage, ratio = printed["stage"], float(printed["preservation_ratio"])
    entry = f"p {ratio:g}" if stage == "sparsification" else stage
    branch = "none" if stage == "specialization" else "suff+min"
    return _Meaning(entry, "s3", branch, int(printed["granularity"]), ratio)


def _method(printed: pd.Series[str]) -> _Meaning:
    name = printed["method"]
    prior = {labels.title(*output): output for output in labels.prior_methods()}
    if name in prior:
        return _Meaning(name, *prior[name], DENSE, 1.0)
    branch = "none" if name == "Specialization" else "suff+min"
    return _Meaning(name, "s3", branch, GRANULARITY, None if name == "+ Sparsification" else 1.0)


def _selection_loss(printed: pd.Series[str]) -> _Meaning:
    return _Meaning(printed["selection_loss"], "s3", printed["selection_loss"], GRANULARITY, 1.0)


_MEANINGS: Mapping[int, Callable[[pd.Series[str]], _Meaning]] = {1: _stage, 2: _method, 3: _selection_loss}


def _printed() -> Iterator[tuple[int, pd.Series[str], _Meaning]]:
    """Number of the table, line and meaning of every printed accuracy."""
    for number, meaning in _MEANINGS.items():
        for _, printed in published_table(number).iterrows():
            yield number, printed, meaning(printed)


def _line(
    number: int, printed: pd.Series[str], meaning: _Meaning, curves: Mapping[Any, pd.DataFrame], margin: float
) -> dict[str, Any]:
    notes = _notes(number, printed, meaning)
    accuracies, ratio = pd.Series(dtype=float), meaning.preservation_ratio
    own = curves.get((printed["dataset"], meaning.method, meaning.branch, meaning.granularity))
    if own is not None:
        if ratio is None and len(best := best_ratios(own)):
            choice = best.iloc[0]
            ratio = float(choice["oracle_p"])
            notes.append(f"p* {choice['p_star']:g}, chosen on validation, gives {100 * choice['test']:.2f}")
        notes += [f"{scale} scale" for scale in own["scale"].unique() if scale != "paper"]
        accuracies = 100 * own.loc[(own["split"] == "test") & (own["preservation_ratio"] == ratio), "accuracy"].dropna()
    mean, std = float(printed["accuracy_mean"]), float(printed["accuracy_std"])
    known = 100 / FILES[printed["dataset"]].samples["test"] / math.sqrt(12)
    deviation = max(accuracies.std(ddof=1), known)
    difference = _difference(accuracies.mean(), deviation, len(accuracies), mean, max(std, _HALF_UNIT))
    low, high = difference.interval(1 - 2 * ALPHA, largest=100.0)
    verdict = "reproduced" if difference.p_within(margin) < ALPHA else "underpowered"
    return {
        "table": number,
        "dataset": printed["dataset"],
        "granularity": meaning.granularity,
        "entry": meaning.entry,
        "preservation_ratio": ratio,
        "mean": accuracies.mean(),
        "std": accuracies.std(ddof=1),
        "n": len(accuracies),
        "published_mean": mean,
        "published_std": std,
        "published_n": SEEDS,
        "difference": difference.mean,
        "low": low,
        "high": high,
        "p_equivalent": difference.p_within(margin),
        "p_different": difference.p_nonzero(),
        "verdict": verdict if len(accuracies) else "not run",
        "note": "; ".join(notes),
    }


def error_of_difference(std: ArrayLike, n: int, other_std: ArrayLike, other_n: int) -> tuple[Values, Values]:
    """Standard error and degrees of freedom of the difference of two independent means, of 2 values or more each.

    Welch's error with Satterthwaite's degrees, bounded by those of two groups of the smaller size.
    """
    own, other = np.asarray(std, float) ** 2 / n, np.asarray(other_std, float) ** 2 / other_n
    freedom = (own + other) ** 2 / (own**2 / (n - 1) + other**2 / (other_n - 1))
    return np.sqrt(own + other), np.minimum(freedom, 2 * (min(n, other_n) - 1))


def _difference(mean: float, std: float, n: int, other_mean: float, other_std: float) -> Difference:
    """Ours minus the printed one; its error is unknown below two seeds."""
    if n < 2:
        return Difference(mean - other_mean, math.nan, math.nan)
    error, freedom = error_of_difference(std, n, other_std, SEEDS)
    return Difference(mean - other_mean, float(error), float(freedom))


def _notes(number: int, printed: pd.Series[str], meaning: _Meaning) -> list[str]:
    """What a reader must know of a printed number."""
    notes = []
    if number == 2 and meaning.method == "s3" and meaning.branch != "none":
        notes.append("uses labels, the prior methods do not")
    if meaning.preservation_ratio is None:
        notes.append("oracle, as in the paper: the p that is best on test")
    samples = FILES[printed["dataset"]].samples["test"]
    if not is_mean_of_seeds(printed["accuracy_mean"], samples):
        notes.append(f"the printed mean is no mean of {SEEDS} seeds on {samples} test samples")
    # The same cell in two tables: MOSEI, χ = 8, p = 0.5.
    same = printed["dataset"] == "mosei" and meaning.granularity == 8
    if same and meaning.preservation_ratio in (0.5, None):
        notes.append("its printed deviation is 0.59 in Table 1 and 0.95 in Table 2")
    return notes


def _exact(number: int, column: str) -> Iterator[dict[str, Any]]:
    printed, counted = published_table(number), parameter_table(number, all_layers=True)
    keys = [name for name in printed.columns if name != column]
    for _, row in printed.merge(counted, on=keys, suffixes=("_printed", ""), validate="one_to_one").iterrows():
        yield {
            "table": number,
            "dataset": row["dataset"],
            "granularity": int(row["granularity"]),
            "entry": column.removesuffix("_percent").replace("_", " "),
            "preservation_ratio": float(row.get("preservation_ratio", "1")),
            "mean": float(row[column]),
            "published_mean": float(row[f"{column}_printed"]),
            "difference": float(row[column]) - float(row[f"{column}_printed"]),
            "verdict": "reproduced" if row[column] == row[f"{column}_printed"] else "differs",
            "note": f"experts of one layer; of all: {row['all_layers_percent']} %" if number == 5 else "",
        }


def _signed(points: float, digits: int = 2) -> str:
    return f"{round(points, digits) + 0.0:+.{digits}f}"  # no -0.00


def _readable(comparison: pd.DataFrame) -> pd.DataFrame:
    """A line per printed number: ours, the paper's, the difference with its 90 % interval, the verdict."""
    lines = []
    for _, line in comparison.iterrows():
        digits = 4 if line["table"] == 4 else 2
        interval = f" [{_signed(line['low'])}, {_signed(line['high'])}]" if pd.notna(line["low"]) else ""
        difference = _signed(line["difference"], digits) + interval if pd.notna(line["difference"]) else ""
        lines.append(
            {
                "table": line["table"],
                "dataset": line["dataset"],
                "χ": line["granularity"],
                "entry": line["entry"],
                "p": f"{line['preservation_ratio']:g}" if pd.notna(line["preservation_ratio"]) else "",
                "ours": "" if pd.isna(line["mean"]) else mean_std(line["mean"], line["std"], digits),
                "n": f"{line['n']:.0f}" if pd.notna(line["n"]) else "",
                "paper": mean_std(line["published_mean"], line["published_std"], digits),
                "difference [90 %]": difference,
                "verdict": line["verdict"],
                "note": line["note"],
            }
        )
    return pd.DataFrame(lines)
