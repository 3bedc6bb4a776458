"""The reverse U, tested: a verdict per curve."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from s3ray.results.collect import Results
from s3ray.results.controlled import conclusion
from s3ray.results.crossed import SAMPLES, SEEDS, seeds_can_decide
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.formatting import gain, percent
from s3ray.results.statistics import ALPHA, CONFIGURATION, verdicts

_PINNED = ("χ", "batch size", "Selection loss", "n", "p*", "test at p*", "gain over p 1", "verdict")
_NOTE = (
    "Shapes are tested over seeds, paired, on test. 'peak inside': p*, chosen on validation, is above p = 1 and above "
    "the smallest p; 'falling' and 'rising', towards the smallest p: the ends differ and no step against it is shown; "
    "'flat': equal within the margin. Experts matter: p = 1 is above p = 0, where none is computed; where they do not, "
    "or hurt, a curve says nothing, and the verdict begins with that. The router's doing: at p* as many pairs kept at "
    "random do worse. These two take seeds and test samples as random. Rises and falls are the mean curve's largest "
    "steps, in points. p is the preservation ratio, never a test's p-value. Needed: more test samples, where no number "
    "of seeds could show the claim on these. Rules: s3ray/results/statistics.py, controlled.py, crossed.py."
)


def _tables(results: Results) -> dict[str, Table]:
    frame = verdict_table(results.rows, results.controlled)
    return {"verdicts": Table(frame, note=f"{_NOTE} {_by_chance(results.rows)}", pinned=_PINNED)}


def _by_chance(rows: pd.DataFrame) -> str:
    """What luck alone may do to so many curves, each of which is judged by itself."""
    curves = len(rows.loc[rows["preservation_ratio"] < 1.0, CONFIGURATION].drop_duplicates())
    return (
        f"Each curve is judged by itself, so of {curves} without any effect up to {ALPHA * curves:.1f} would be called "
        f"'peak inside' by chance, and up to {ALPHA * curves:.1f} 'falling' or 'rising'."
    )


def verdict_table(rows: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """A line per curve: p*, its gains on test in points with their p-values, the ends, the steps,
    and the verdict. One seed has no test.

    Before the verdict stands whether experts matter and whether it is the router's doing, blank where no control was
    measured. The verdict begins with what makes a shape meaningless.

    Args:
        judged: of `controlled`.
    """
    answers = judged.set_index(CONFIGURATION)
    lines = []
    for _, curve in verdicts(rows).iterrows():
        lines.append(
            {
                "dataset": f"{curve['dataset']} ({curve['kind']} data)",
                "χ": curve["granularity"],
                "batch size": curve["batch_size"],
                "Selection loss": curve["branch"],
                "n": curve["n"],
                "p*": f"{curve['p_star']:g}",
                "test at p*": percent(curve["test"]),
                "gain over p 1": _tested(curve["gain_full"], curve["p_full"]),
                "over the smallest p": _tested(curve["gain_smallest"], curve["p_smallest"]),
                "smallest p over p 1": _tested(curve["ends"], curve["p_ends"]),
                "largest rise": percent(curve["rise"]),
                "largest fall": percent(curve["fall"]),
                **_answers(answers, curve),
                "needed": _needed(rows, curve),
                "oracle p": f"{curve['oracle_p']:g}",
            }
        )
    return pd.DataFrame(lines)


def _answers(answers: pd.DataFrame, curve: pd.Series[Any]) -> dict[str, str]:
    place, before = tuple(curve[CONFIGURATION]), dict.fromkeys(("experts", "router"), "")
    words = [curve["verdict"]]
    if place in answers.index:
        before = answers.loc[place]
        words = [conclusion(before, "experts"), conclusion(before, "training"), *words]
    return {
        "experts matter": before["experts"],
        "router's doing": before["router"],
        "verdict": "; ".join(filter(None, words)),
    }


def _needed(rows: pd.DataFrame, curve: pd.Series[Any]) -> str:
    """What would decide, as far as it is known: more seeds, or more test samples where no number of seeds would."""
    if curve["verdict"] != "undecided":
        return ""
    if curve["n"] < 2:
        return f"{SEEDS}: {'one tests' if curve['n'] else 'none test'} no shape"
    if not curve["claim"]:
        return "no shape is in sight"
    own = rows[(rows[CONFIGURATION] == curve[CONFIGURATION]).all(axis=1)]
    if not seeds_can_decide(own, curve):
        return f"{SAMPLES} for {curve['claim']}"
    more = curve["more_seeds"]
    return f"{'more than 100' if math.isinf(more) else f'{more:.0f}'} {SEEDS} for {curve['claim']}"


def _tested(points: float, p_value: float) -> str:
    told = f"p-value {p_value:.2g}" if pd.notna(p_value) else "no test"  # p alone is the preservation ratio
    return f"{gain(points)} ({told})" if pd.notna(points) else ""


EXHIBIT = Exhibit(name="verdicts", title="The reverse U, tested", tables=_tables, everywhere=True)
