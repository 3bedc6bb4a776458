"""What changes with a reading of what the paper leaves open. The rules, written before results.

- A reading is named `choice: value`, or several such joined by " + "; the usual one has no name. All that is said of
  S3 is of the paper's Selection (`suff+min`).
- Five effects, in points of accuracy. `selection`: after Selection over Specialization, at p = 1. `pruning`: p* over
  p = 1, after Selection. `smallest`: the smallest p over p = 1. `router`: at p* over as many pairs kept at random.
  `granularity`: the largest χ over the smallest, at p = 1 after Selection. Those of one χ are means over the χ that
  were run. p* is chosen on validation, of every reading and χ its own.
- A reading *changes* an effect by what the effect is with it minus what it is as usual, over the seeds that both have.
  Of a dataset, seeds and samples are random (`crossed.py`); datasets are not: the mean over them is said of these
  datasets, and its squared error is the sum of theirs over their number squared (Satterthwaite's degrees of freedom).
- What is reported is of test. What is chosen (the second round's readings) is chosen on validation.
- Which choices matter most (`matter_most`): for each reading of the first round the larger of |t| of its change of
  `pruning` and of `router` on validation, the two that the method stands on; for each choice its best reading. The
  three choices with the largest are combined, each at its default or at that reading. With some twenty readings a
  largest |t| of 2 to 3 is what chance gives: the second round asks how choices act together, it proves none of them.
- Shapes. `drawn`, as a reader of a figure says it, of the mean curve on test: `rising` if the best ratio is the
  smallest, `falling` if it is 1, else `peak inside`. That chooses on test, as the paper's own table of best p does, and
  of a flat curve of k ratios noise alone draws each as best once in k: `rising` and, at another χ, `peak inside` by
  (k - 2) / k² of readings. Beside it stands what is tested (`statistics.verdicts`).
- Distance from printed curves (real data): the root of the mean over p and χ of the squared differences of means, each
  over its standard error, √((s² + s'²) / n) with both sides' deviations over seeds: 1 is what noise alone gives. A
  deviation over so few seeds is uncertain itself, so each curve's is that of all its ratios together.
- The best of N readings is an oracle's choice: for each dataset the reading is chosen that is nearest on the others,
  and its distance on the dataset left out is what is reported.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from s3ray.methods import S3
from s3ray.results.crossed import Crossed, right
from s3ray.results.published import SEEDS, published_table
from s3ray.results.statistics import Difference, best_ratios, verdicts
from s3ray.sweep.grid import JOINED

USUAL = ""
SELECTED = "suff+min"  # the paper's Selection
EFFECTS: Mapping[str, str] = {
    "selection": "Selection\nover Specialization",
    "pruning": "p*\nover p 1",
    "smallest": "smallest p\nover p 1",
    "router": "ranked over\nrandom, at p*",
    "granularity": "largest χ\nover smallest",
}
_JUDGED = ("pruning", "router")  # by which choices are taken to matter
_COMBINED = 3  # choices of the second round


def choice_of(reading: str) -> str:
    """What is chosen: heads, pooling, …"""
    return reading.partition(":")[0]


def changes(rows: pd.DataFrame, controls: pd.DataFrame, split: str = "test") -> pd.DataFrame:
    """What every reading changes.

    Args:
        rows, controls: as collected (`Results`), of all readings.
        split: on which; p* is chosen on validation.

    Returns:
        Columns: `reading`, `effect`; `dataset`, empty where it is the mean over those that have it; `value` of the
        effect and its `change` from the usual reading's with `low` and `high` (95 %), shares; `t` of the change;
        `seeds`, `samples`. The usual reading's changes are missing.
    """
    columns = ["reading", "effect", "dataset", "value", "change", "low", "high", "t", "seeds", "samples"]
    lines: list[dict[str, Any]] = []
    if rows.empty:
        return pd.DataFrame(columns=columns)
    for effect in EFFECTS:
        measured = _by_reading(rows, controls, split, effect)
        for reading in dict.fromkeys(reading for reading, _ in measured):
            found = {dataset: own for (at, dataset), own in measured.items() if at == reading}
            values = {dataset: own.mean for dataset, own in found.items()}
            differences = {
                dataset: (own.minus(usual), own.curves)
                for dataset, own in found.items()
                if reading != USUAL and (usual := measured.get((USUAL, dataset))) and usual.curves == own.curves
            }
            for dataset, value in values.items():
                crossed, curves = differences.get(dataset, (None, 1))
                difference = crossed.difference if crossed else Difference(math.nan, math.nan, math.nan)
                counted = {"seeds": crossed.seeds, "samples": crossed.samples} if crossed else {}
                scaled = Difference(difference.mean / curves, difference.error / curves, difference.freedom)
                lines.append(_line(reading, effect, dataset, value, scaled) | counted)
            lines.append(_line(reading, effect, "", float(np.mean(list(values.values()))), _mean(differences.values())))
    return pd.DataFrame(lines, columns=columns)


class _Measured(NamedTuple):
    """An effect of one reading on one dataset: seeds × samples of differences, added up over `curves` values of χ."""

    plus: pd.DataFrame  # what is counted for it
    minus_: pd.DataFrame  # and against it
    curves: int

    @property
    def mean(self) -> float:
        return float((self.plus.to_numpy(float).mean() - self.minus_.to_numpy(float).mean()) / self.curves)

    def minus(self, other: _Measured) -> Crossed:
        return Crossed.interaction(self.plus, self.minus_, other.plus, other.minus_)


def _by_reading(
    rows: pd.DataFrame, controls: pd.DataFrame, split: str, effect: str
) -> dict[tuple[str, str], _Measured]:
    """The effect of each reading and dataset that has it, at every χ that the reading was run at."""
    s3 = rows[rows["method"] == S3]
    stars = best_ratios_of(s3)
    measured = {}
    for (reading, dataset), own in _groups(s3, "reading", "dataset"):
        parts = [
            part
            for (granularity,), curve in _groups(own, "granularity", sort=True)
            if (part := _sides(curve, controls, split, effect, stars.get((reading, dataset, granularity))))
        ]
        if effect == "granularity":
            parts = [(parts[-1][0], parts[0][0])] if len(parts) > 1 else []
        if parts:
            plus, minus = (_sum([part[side] for part in parts]) for side in (0, 1))
            if not plus.empty and plus.shape == minus.shape:
                measured[reading, dataset] = _Measured(plus, minus, len(parts))
    return measured


def _groups(frame: pd.DataFrame, *names: str, sort: bool = False) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Of a frame, which may have no lines and then no columns."""
    if len(frame):
        yield from frame.groupby(list(names), sort=sort)


def best_ratios_of(rows: pd.DataFrame) -> dict[tuple[str, str, int], float]:
    """p* after Selection per reading, dataset and χ."""
    stars = {}
    for (reading,), own in _groups(rows[rows["branch"] == SELECTED], "reading"):
        for _, best in best_ratios(own).dropna(subset=["p_star"]).iterrows():
            stars[reading, best["dataset"], best["granularity"]] = float(best["p_star"])
    return stars


def _sides(
    curve: pd.DataFrame, controls: pd.DataFrame, split: str, effect: str, star: float | None
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Which samples are right on both sides of an effect, seeds × samples; None if either was not measured."""

    def at(rows: pd.DataFrame, ratio: float) -> pd.DataFrame:
        return right(rows[(rows["split"] == split) & (rows["preservation_ratio"] == ratio)])

    selected = curve[curve["branch"] == SELECTED]
    if selected.empty or (star is None and effect in ("pruning", "router")):
        return None
    full = at(selected, 1.0)
    if effect == "granularity":
        return full, full
    if effect == "selection":
        sides = full, at(curve[curve["branch"] == "none"], 1.0)
    elif effect == "smallest":
        sides = at(selected, selected["preservation_ratio"].min()), full
    elif effect == "pruning":
        sides = at(selected, star or 1.0), full
    else:
        sides = at(selected, star or 1.0), at(_random_beside(selected, controls), star or 1.0)
    return None if any(side.empty for side in sides) else sides


def _random_beside(selected: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    place = selected.iloc[0][["reading", "dataset", "granularity", "branch"]]
    if controls.empty:
        return selected[:0]
    return controls[(controls[place.index] == place).all(axis=1) & (controls["control"] == "random")]


def _sum(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Over the seeds that all have."""
    common = sorted(set.intersection(*(set(part.index) for part in parts)))
    stacked = np.stack([part.loc[common].to_numpy(np.int8) for part in parts])
    return pd.DataFrame(np.asarray(stacked.sum(axis=0, dtype=np.int8)), index=common)


def _mean(differences: Any) -> Difference:
    """Over datasets, each of whose errors is independent of the others'."""
    parts = [(d.difference, curves) for d, curves in differences]
    if not parts:
        return Difference(math.nan, math.nan, math.nan)
    squares = [(d.error / curves) ** 2 for d, curves in parts]
    mean = sum(d.mean / curves for d, curves in parts) / len(parts)
    total = sum(squares)
    uncertain = sum(s**2 / d.freedom for s, (d, _) in zip(squares, parts, strict=True) if s)
    return Difference(mean, math.sqrt(total) / len(parts), total**2 / uncertain if uncertain else math.inf)


def _line(reading: str, effect: str, dataset: str, value: float, change: Difference) -> dict[str, Any]:
    low, high = change.interval(0.95)
    t = change.mean / change.error if change.error else 0.0
    named = {"reading": reading, "effect": effect, "dataset": dataset}
    return named | {"value": value, "change": change.mean, "low": low, "high": high, "t": t}


def matter_most(rows: pd.DataFrame, controls: pd.DataFrame) -> list[str]:
    """The readings that the second round combines, the choice that matters most first."""
    found = changes(rows, controls, "valid")
    single = found[(found["dataset"] == "") & found["effect"].isin(_JUDGED) & (found["reading"] != USUAL)]
    single = single[~single["reading"].str.contains(JOINED, regex=False)]
    strength = single["t"].abs().groupby(single["reading"]).max().dropna().sort_values(ascending=False, kind="stable")
    best: dict[str, str] = {}
    for reading in strength.index:
        best.setdefault(choice_of(str(reading)), str(reading))
    return list(best.values())[:_COMBINED]


def combinations(readings: Sequence[str]) -> Iterator[str]:
    """All that combine two or more of them."""
    for count in range(2, len(readings) + 1):
        yield from (JOINED.join(chosen) for chosen in itertools.combinations(readings, count))


def drawn_shape(curve: Mapping[float, float]) -> str:
    """Of the mean curve, by preservation ratio; of equally high ratios the larger is the best."""
    best = max(sorted(curve, reverse=True), key=lambda p: round(curve[p], 9))
    return "rising" if best == min(curve) else "falling" if best == 1.0 else "peak inside"


def shapes(rows: pd.DataFrame) -> pd.DataFrame:
    """The shape of every curve after Selection, `drawn` and `tested`, with the `ratios` and seeds (`n`) behind it."""
    lines = []
    selected = rows[(rows["method"] == S3) & (rows["branch"] == SELECTED)] if len(rows) else rows
    for (reading,), own in _groups(selected, "reading"):
        tested = verdicts(own).set_index(["dataset", "granularity"])
        test = own[(own["split"] == "test") & own["accuracy"].notna()]
        for (dataset, granularity), curve in _groups(test, "dataset", "granularity"):
            drawn = {p: points["accuracy"].mean() for (p,), points in _groups(curve, "preservation_ratio")}
            if len(drawn) < 2:
                continue
            lines.append(
                {
                    "reading": reading,
                    "dataset": dataset,
                    "granularity": granularity,
                    "best_p": max(sorted(drawn, reverse=True), key=lambda p: round(drawn[p], 9)),
                    "drawn": drawn_shape(drawn),
                    "tested": tested["verdict"][dataset, granularity],
                    "ratios": len(drawn),
                    "n": curve["seed"].nunique(),
                }
            )
    columns = ["reading", "dataset", "granularity", "best_p", "drawn", "tested", "ratios", "n"]
    return pd.DataFrame(lines, columns=columns)


def like_the_paper(found: pd.DataFrame) -> pd.DataFrame:
    """Per reading and dataset, as `drawn` and as `tested`: rising at the smallest χ and a peak inside at the largest.

    Args:
        found: of `shapes`. Where one χ alone was run there is nothing to say.
    """
    lines = []
    for (reading, dataset), own in _groups(found, "reading", "dataset"):
        if own["granularity"].nunique() < 2:
            continue
        ordered = own.sort_values("granularity")
        ends = [ordered.iloc[0], ordered.iloc[-1]]
        says = {how: (ends[0][how], ends[1][how]) == ("rising", "peak inside") for how in ("drawn", "tested")}
        ratios = min(end["ratios"] for end in ends)
        lines.append({"reading": reading, "dataset": dataset, **says, "chance": (ratios - 2) / ratios**2})
    return pd.DataFrame(lines, columns=["reading", "dataset", "drawn", "tested", "chance"])


def distances(rows: pd.DataFrame) -> pd.DataFrame:
    """Per reading and dataset of the paper how far its curves after Selection are from the printed ones, in noise.

    Returns:
        Columns: `reading`, `dataset`, `distance`, and `points` (how many were compared); no line without the paper's
        own data.
    """
    table = published_table(1)
    printed = table[table["stage"] != "specialization"].assign(
        granularity=table["granularity"].astype(int),
        preservation_ratio=table["preservation_ratio"].astype(float),
        mean=table["accuracy_mean"].astype(float),
        std=table["accuracy_std"].astype(float),
    )
    real = {"kind": "multibench", "method": S3, "branch": SELECTED, "split": "test"}
    mine = rows[(rows[list(real)] == pd.Series(real)).all(axis=1)] if len(rows) else rows
    lines = []
    for (reading, dataset), own in _groups(mine, "reading", "dataset"):
        squares: list[float] = []
        for (granularity,), curve in _groups(own, "granularity"):
            theirs = printed[(printed["dataset"] == dataset) & (printed["granularity"] == granularity)]
            by_ratio = (100 * curve["accuracy"]).groupby(curve["preservation_ratio"]).agg(["mean", "var", "count"])
            both = by_ratio.merge(
                theirs[["preservation_ratio", "mean", "std"]], on="preservation_ratio", suffixes=("", "_printed")
            )
            # One deviation for a curve: that of a single ratio, over three seeds, may be 0 by chance.
            error = both["var"].mean() / both["count"].mean() + (both["std"] ** 2).mean() / SEEDS
            if len(both) and error > 0:
                squares += ((both["mean"] - both["mean_printed"]) ** 2 / error).tolist()
        if squares:
            distance = math.sqrt(sum(squares) / len(squares))
            lines.append({"reading": reading, "dataset": dataset, "distance": distance, "points": len(squares)})
    return pd.DataFrame(lines, columns=["reading", "dataset", "distance", "points"])


def chosen_elsewhere(found: pd.DataFrame) -> pd.DataFrame:
    """Per dataset the reading that is nearest, on average, on all the others, and how far it is on this one.

    Args:
        found: of `distances`; readings that a dataset lacks are no choice. Nothing of fewer than two datasets.
    """
    table = found.pivot_table(index="reading", columns="dataset", values="distance").dropna() if len(found) else found
    lines = []
    for dataset in table.columns if len(table.columns) > 1 and len(table) else ():
        others = table.drop(columns=dataset).mean(axis=1)
        reading = str(others.idxmin())
        place = int((table[dataset] < table.loc[reading, dataset]).sum()) + 1
        lines.append(
            {
                "dataset": dataset,
                "reading": reading,
                "elsewhere": others.min(),
                "distance": table.loc[reading, dataset],
                "place": place,
                "readings": len(table),
            }
        )
    return pd.DataFrame(lines, columns=["dataset", "reading", "elsewhere", "distance", "place", "readings"])
