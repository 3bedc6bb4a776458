"""What changes with a reading of what the paper leaves open. The rules, written before results.

- A reading is named `choice: value`, or several such joined by " + "; the usual one has no name. All that is said of
  S3 is of the paper's Selection (`suff+min`).
- Five effects, in points of accuracy. `selection`: after Selection over Specialization, at p = 1. `pruning`: p* over
  p = 1, after Selection. `smallest`: the smallest p over p = 1. `router`: at p* over as many pairs kept at random.
  `granularity`: the largest χ over the smallest, at p = 1 after Selection. All but the last are means over χ. p* is
  chosen on validation, of every reading and χ its own.
- A reading's *change* of an effect is the effect under it minus the usual effect, over the χ and the seeds that both
  have. Of a dataset, seeds and samples are random (`crossed.py`); datasets are not: the mean over them is said of these
  datasets, and its squared error is the sum of theirs over their number squared (Satterthwaite's degrees of freedom).
- What is reported is of test. What is chosen (the second round's readings) is chosen on validation.
- Which choices matter most (`matter_most`): for each reading of the first round the smaller two-sided p of its changes
  of `pruning` and `router` on validation, the two that the method stands on; for each choice its surest reading. The
  three choices with the smallest p are combined, each at its default or at that reading. Of some forty such p-values
  two lie below .05 by chance: the second round asks how choices act together, it proves none of them.
- Shapes. `drawn`, as a reader of a figure says it, of the mean curve on test: `rising` if the best ratio is the
  smallest, `falling` if it is 1, else `peak inside`. That chooses on test, as the paper's own table of best p does, and
  flat curves are drawn `rising` and, at another χ, `peak inside` as often as `like_the_paper` says, with noise that
  is independent between ratios and with noise that wanders. Readings of one encoder are near copies, so how many are
  drawn so scatters more than as many independent ones would. Beside it stands what is tested (`statistics.verdicts`).
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
_PLACE = ["reading", "dataset", "granularity", "batch_size", "branch"]


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
        effect and its `change` from the usual reading's with `low` and `high` (95 %), shares; `p` of the change
        (two-sided); `seeds`, `samples`, and of a mean `datasets`. The usual reading's changes are missing.
    """
    columns = ["reading", "effect", "dataset", "value", "change", "low", "high", "p", "seeds", "samples", "datasets"]
    lines: list[dict[str, Any]] = []
    for effect in EFFECTS if len(rows) else ():
        measured = _measured(at_one_batch_size(rows), controls, split, effect)
        for reading, found in measured.items():
            changed = dict[str, _Change]()
            for dataset, own in found.items():
                usual = measured.get(USUAL, {}).get(dataset)
                change = _change(own, usual) if usual and reading != USUAL else None
                lines.append(_line(reading, effect, dataset, _value(own), change))
                if change:
                    changed[dataset] = change
            # The usual reading's mean is over all datasets, a change's over those that have both.
            values = [_value(own) for dataset, own in found.items() if dataset in changed or not changed]
            together = _mean(list(changed.values()))
            lines.append(
                _line(reading, effect, "", float(np.mean(values)), together) | {"datasets": len(changed) or len(found)}
            )
    return pd.DataFrame(lines, columns=columns)


class _Change(NamedTuple):
    difference: Difference
    seeds: int
    samples: int


# Which samples are right on both sides of an effect, seeds × samples each: what is counted for it, and against it.
_Sides = tuple[pd.DataFrame, pd.DataFrame]
_ByGranularity = dict[Any, _Sides]


def _change(own: _ByGranularity, usual: _ByGranularity) -> _Change | None:
    """Of an effect, over the values of χ and the seeds that both readings have; None without any."""
    common = [granularity for granularity in own if granularity in usual]
    sides = [[*own[granularity], *usual[granularity]] for granularity in common]
    if not sides:
        return None
    seeds = sorted(set.intersection(*(set(side.index) for four in sides for side in four)))
    if not seeds:
        return None
    sums = [_sum([four[place] for four in sides], seeds) for place in range(4)]
    crossed, count = Crossed.interaction(*sums), len(common)
    summed = crossed.difference
    mean = Difference(summed.mean / count, summed.error / count, summed.freedom)
    return _Change(mean, crossed.seeds, crossed.samples)


def _sum(parts: Sequence[pd.DataFrame], seeds: list[Any]) -> pd.DataFrame:
    stacked = np.stack([part.loc[seeds].to_numpy(np.int8) for part in parts])
    return pd.DataFrame(np.asarray(stacked.sum(axis=0, dtype=np.int8)), index=pd.Index(seeds))


def _value(own: _ByGranularity) -> float:
    """Over the seeds that both sides have."""
    means = []
    for plus, minus in own.values():
        seeds = plus.index.intersection(minus.index)
        means.append(plus.loc[seeds].to_numpy(float).mean() - minus.loc[seeds].to_numpy(float).mean())
    return float(np.mean(means))


def _mean(parts: Sequence[_Change]) -> _Change | None:
    """Over datasets, each of whose errors is independent of the others'."""
    if not parts:
        return None
    differences = [part.difference for part in parts]
    squares = [difference.error**2 for difference in differences]
    mean, total = sum(difference.mean for difference in differences) / len(parts), sum(squares)
    uncertain = sum(square**2 / d.freedom for square, d in zip(squares, differences, strict=True) if square)
    freedom = total**2 / uncertain if uncertain else math.inf
    together = Difference(mean, math.sqrt(total) / len(parts), freedom)
    return _Change(together, min(part.seeds for part in parts), sum(part.samples for part in parts))


def _line(reading: str, effect: str, dataset: str, value: float, change: _Change | None) -> dict[str, Any]:
    line = {"reading": reading, "effect": effect, "dataset": dataset, "value": value}
    if change is None:
        return line
    low, high = change.difference.interval(0.95)
    told = {"change": change.difference.mean, "low": low, "high": high, "p": change.difference.p_nonzero()}
    return line | told | {"seeds": change.seeds, "samples": change.samples}


def _measured(
    rows: pd.DataFrame, controls: pd.DataFrame, split: str, effect: str
) -> dict[str, dict[str, _ByGranularity]]:
    """Both sides of an effect, by reading, dataset, and χ; of `granularity` by the two χ that are compared."""
    s3 = rows[rows["method"] == S3]
    stars = _best_ratios(s3)
    measured: dict[str, dict[str, _ByGranularity]] = {}
    for (reading, dataset), own in _groups(s3, "reading", "dataset"):
        sides = {
            granularity: found
            for (granularity,), curve in _groups(own, "granularity", sort=True)
            if (found := _sides(curve, controls, split, effect, stars.get((reading, dataset, granularity))))
        }
        if effect == "granularity":
            ends = (min(sides, default=0), max(sides, default=0))
            sides = {ends: (sides[ends[1]][0], sides[ends[0]][0])} if len(sides) > 1 else {}
        paired = {at: (plus, minus) for at, (plus, minus) in sides.items() if set(plus.index) & set(minus.index)}
        if paired:
            measured.setdefault(reading, {})[dataset] = paired
    return measured


def at_one_batch_size(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each dataset the batch size that its first row has; readings are all of one."""
    return rows[rows["batch_size"] == rows.groupby("dataset")["batch_size"].transform("first")] if len(rows) else rows


def _groups(frame: pd.DataFrame, *names: str, sort: bool = False) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Of a frame, which may have no lines and then no columns."""
    if len(frame):
        yield from frame.groupby(list(names), sort=sort)


def _best_ratios(rows: pd.DataFrame) -> dict[tuple[str, str, int], float]:
    """p* after Selection per reading, dataset and χ."""
    best = best_ratios(rows[rows["branch"] == SELECTED]).dropna(subset=["p_star"])
    names = best[["reading", "dataset", "granularity", "p_star"]].itertuples(index=False, name=None)
    return {(reading, dataset, granularity): star for reading, dataset, granularity, star in names}


def _sides(curve: pd.DataFrame, controls: pd.DataFrame, split: str, effect: str, star: float | None) -> _Sides | None:
    """Of one χ; None if either side was not measured."""

    def at(rows: pd.DataFrame, ratio: float) -> pd.DataFrame:
        return right(rows[(rows["split"] == split) & (rows["preservation_ratio"] == ratio)])

    selected = curve[curve["branch"] == SELECTED]
    if selected.empty:
        return None
    full = at(selected, 1.0)
    if effect == "granularity":
        sides = full, full
    elif effect == "selection":
        sides = full, at(curve[curve["branch"] == "none"], 1.0)
    elif effect == "smallest":
        sides = at(selected, selected["preservation_ratio"].min()), full
    elif star is None:
        return None
    elif effect == "pruning":
        sides = at(selected, star), full
    else:
        sides = at(selected, star), at(_random_beside(selected, controls), star)
    return None if any(side.empty for side in sides) else sides


def _random_beside(selected: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    if controls.empty:
        return selected[:0]
    own = (controls[_PLACE] == selected.iloc[0][_PLACE]).all(axis=1)
    return controls[own & (controls["control"] == "random")]


def matter_most(rows: pd.DataFrame, controls: pd.DataFrame) -> list[str]:
    """The readings that the second round combines, the choice that matters most first."""
    found = changes(rows, controls, "valid")
    single = found[(found["dataset"] == "") & found["effect"].isin(_JUDGED) & (found["reading"] != USUAL)]
    single = single[~single["reading"].str.contains(JOINED, regex=False)].dropna(subset=["p"])
    surest = single.assign(size=-single["change"].abs()).sort_values(["p", "size"], kind="stable")
    best: dict[str, str] = {}
    for reading in surest["reading"]:
        best.setdefault(choice_of(reading), reading)
    return list(best.values())[:_COMBINED]


def combinations(readings: Sequence[str]) -> Iterator[str]:
    """All that combine two or more of them."""
    for count in range(2, len(readings) + 1):
        yield from (JOINED.join(chosen) for chosen in itertools.combinations(readings, count))


def best_drawn(curve: Mapping[float, float]) -> float:
    """The ratio at which a mean curve is highest; of equally high ones the larger."""
    return max(sorted(curve, reverse=True), key=lambda p: round(curve[p], 9))


def drawn_shape(curve: Mapping[float, float]) -> str:
    """Of the mean curve, by preservation ratio."""
    best = best_drawn(curve)
    return "rising" if best == min(curve) else "falling" if best == 1.0 else "peak inside"


def shapes(rows: pd.DataFrame, controls: pd.DataFrame) -> pd.DataFrame:
    """The shape of every curve after Selection, `drawn` and `tested`, with the `ratios` and seeds (`n`) behind it.

    `no_expert` says by how much p = 0, where no expert is computed, is above p = 1 (test; NaN if not measured): where
    it is, a curve that rises towards it says that experts hurt.
    """
    names = ["reading", "dataset", "granularity"]
    selected = rows[(rows["method"] == S3) & (rows["branch"] == SELECTED)] if len(rows) else rows
    selected = at_one_batch_size(selected)
    tested: Any = verdicts(selected).set_index(names)["verdict"] if len(selected) else {}
    lines = []
    for place, curve in _groups(selected[selected["split"] == "test"] if len(selected) else selected, *names):
        known = curve[curve["accuracy"].notna()]
        drawn = {p: points["accuracy"].mean() for (p,), points in _groups(known, "preservation_ratio")}
        if len(drawn) > 1:
            found = {"best_p": best_drawn(drawn), "drawn": drawn_shape(drawn), "tested": tested[place]}
            found["no_expert"] = _no_expert(controls, known.iloc[0]) - drawn.get(1.0, math.nan)
            lines.append(
                dict(zip(names, place, strict=True)) | found | {"ratios": len(drawn), "n": known["seed"].nunique()}
            )
    return pd.DataFrame(lines, columns=[*names, "best_p", "drawn", "tested", "no_expert", "ratios", "n"])


def _no_expert(controls: pd.DataFrame, curve: pd.Series[Any]) -> float:
    """Mean test accuracy without any."""
    if controls.empty:
        return math.nan
    own = controls[(controls[_PLACE] == curve[_PLACE]).all(axis=1) & (controls["control"] == "no expert")]
    return float(own.loc[own["split"] == "test", "accuracy"].mean())


def like_the_paper(found: pd.DataFrame) -> pd.DataFrame:
    """Per reading and dataset, as `drawn` and as `tested`: rising at the smallest χ and a peak inside at the largest.

    Args:
        found: of `shapes`. Where one χ alone was run there is nothing to say.

    Returns:
        Columns: `reading`, `dataset`, `drawn`, `tested`; `chance`, how likely flat curves are drawn so whose ratios
        have noise of their own, and `chance_walk`, where their noise is a random walk along p.
    """
    lines = []
    for (reading, dataset), own in _groups(found, "reading", "dataset"):
        if own["granularity"].nunique() < 2:
            continue
        ordered = own.sort_values("granularity")
        ends = [ordered.iloc[0], ordered.iloc[-1]]
        says = {how: (ends[0][how], ends[1][how]) == ("rising", "peak inside") for how in ("drawn", "tested")}
        chances = _by_chance(min(end["ratios"] for end in ends))
        lines.append({"reading": reading, "dataset": dataset, **says, "chance": chances[0], "chance_walk": chances[1]})
    return pd.DataFrame(lines, columns=["reading", "dataset", "drawn", "tested", "chance", "chance_walk"])


def _by_chance(ratios: int) -> tuple[float, float]:
    """That of two flat curves one is highest at the smallest ratio and the other at neither end.

    With independent noise each of k ratios is the best one equally often. A random walk of k - 1 steps is highest at a
    given end with probability C(2k - 2, k - 1) / 4^(k - 1) (Feller 1968, chapter III).
    """
    walk = math.comb(2 * ratios - 2, ratios - 1) / 4 ** (ratios - 1)
    return (ratios - 2) / ratios**2, walk * max(1 - 2 * walk, 0.0)


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
    rows = at_one_batch_size(rows)
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
            # One deviation for a curve: that of a single ratio, over three seeds, may be 0 by chance. One seed has
            # none, and is taken to scatter as the printed ones do.
            printed_variance = (both["std"] ** 2).mean()
            variance = both["var"].mean() if both["var"].notna().any() else printed_variance
            error = variance / both["count"].mean() + printed_variance / SEEDS
            if len(both) and error > 0:
                squares += ((both["mean"] - both["mean_printed"]) ** 2 / error).tolist()
        if squares:
            distance = math.sqrt(sum(squares) / len(squares))
            lines.append({"reading": reading, "dataset": dataset, "distance": distance, "points": len(squares)})
    found = pd.DataFrame(lines, columns=["reading", "dataset", "distance", "points"])
    # A reading that lacks a curve, since a cell failed, is compared with none that has it.
    return found[found["points"] == found.groupby("dataset")["points"].transform("max")]


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
