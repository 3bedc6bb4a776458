"""Which reading of what the paper leaves open makes the reverse U? Beyond the paper."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from s3ray.results import labels
from s3ray.results.chart import Axis, Chart, Curve, Panel
from s3ray.results.collect import Results
from s3ray.results.exhibit import Exhibit, Table
from s3ray.results.published import published_table
from s3ray.results.readings import (
    EFFECTS,
    USUAL,
    best_drawn,
    choice_of,
    chosen_elsewhere,
    distances,
    drawn_shape,
    like_the_paper,
)
from s3ray.sweep.grid import JOINED

_SHAPE = ["granularity", "best_p", "drawn", "tested", "no_expert"]
_SHOWN, _HIDDEN = labels.SELECTED, "#9a9a9a"
_NAMES = {name: title.replace("\n", " ") for name, title in EFFECTS.items()}
_USUAL = "as usual"
_NOTE = (
    "One choice at a time, and the three that matter most together (chosen on validation). Each line is what a reading "
    "changes of an effect, in points of test accuracy, minus what it is as usual: means over datasets with 95 % "
    "intervals, seeds and samples random; blue where 0 is outside. With so many intervals one in twenty excludes 0 by "
    "chance. Rules: s3ray/results/readings.py."
)
_SHAPES_NOTE = (
    "The shape of every curve after Selection, from p = 1 to the smallest p. Drawn: where the mean curve on test is "
    "highest, which chooses on test as the paper's figures do. Tested: the verdict of the rules for curves. Last: by "
    "how many points no expert at all (p = 0) is above p = 1; a curve that rises towards that says that experts hurt."
)
_DISTANCE_NOTE = (
    "How far each reading's curves after Selection are from the printed ones, as the root mean square over p and χ in "
    "units of their noise: 1 is what noise alone gives."
)
_ELSEWHERE_NOTE = (
    "The best of many readings is best by luck too. So for each dataset the reading is taken that is nearest on all "
    "others; its distance is told here, its place among all readings, and the share of them that is as near: what one "
    "taken at random reaches."
)


def _tables(results: Results) -> dict[str, Table]:
    found, away = results.shapes, distances(results.rows)
    return {
        "open_choices": Table(change_table(results.changed)),
        "open_choices_shapes": Table(
            shape_table(found), "Shapes by reading", f"{_SHAPES_NOTE} {sentence(found)}".strip()
        ),
        "open_choices_distances": Table(distance_table(away), "Distance from the printed curves", _DISTANCE_NOTE),
        "open_choices_elsewhere": Table(
            elsewhere_table(chosen_elsewhere(away)), "The reading that other datasets choose", _ELSEWHERE_NOTE
        ),
    }


def change_table(found: pd.DataFrame) -> pd.DataFrame:
    """A line per reading and dataset, all together first: each effect's change with its interval, in points.

    Of the usual reading the effects themselves.
    """
    lines = []
    datasets = found["dataset"].nunique() - 1  # beside the means over them
    for (reading, dataset), own in found.groupby(["reading", "dataset"], sort=False):
        if datasets == 1 and not dataset:
            continue
        mean = "mean of all" if own["datasets"].max() == datasets else f"mean of {own['datasets'].max():.0f}"
        line = {"reading": str(reading) or _USUAL, "dataset": str(dataset) or mean}
        for _, change in own.iterrows():
            told = f"{100 * change['value']:+z.1f}" if reading == USUAL else _points(change)
            line[_NAMES[change["effect"]]] = told
        lines.append(line)
    order = {reading or _USUAL: place for place, reading in enumerate(_by_size(found))}
    lines.sort(key=lambda line: (order[line["reading"]], not line["dataset"].startswith("mean of")))
    return pd.DataFrame(lines, columns=["reading", "dataset", *_NAMES.values()], dtype=object).fillna("")


def _by_size(found: pd.DataFrame) -> list[str]:
    """Readings by their largest mean change of any effect, the usual one first."""
    together = found[found["dataset"] == ""]
    size = together["change"].abs().groupby(together["reading"], sort=False).max().fillna(math.inf)
    return [str(reading) for reading in size.sort_values(ascending=False, kind="stable").index]


def _points(change: pd.Series) -> str:
    if pd.isna(change["change"]):
        return ""
    interval = f" [{100 * change['low']:+z.1f}, {100 * change['high']:+z.1f}]" if pd.notna(change["low"]) else ""
    return f"{100 * change['change']:+z.1f}{interval}"


def shape_table(found: pd.DataFrame) -> pd.DataFrame:
    """A line per reading and dataset; those that the paper prints first."""
    printed = [{"reading": "the paper, as printed", "dataset": name, **drawn} for name, drawn in _printed().items()]
    lines = [
        {
            "reading": reading or _USUAL,
            "dataset": dataset,
            **{
                f"χ {g}": f"{drawn} (best p {p:g}); {tested}" + ("" if pd.isna(floor) else f"; {100 * floor:+z.1f}")
                for g, p, drawn, tested, floor in own[_SHAPE].itertuples(index=False)
            },
        }
        for (reading, dataset), own in found.groupby(["reading", "dataset"], sort=False)
    ]
    columns = sorted({name for line in lines for name in line if name.startswith("χ")}, key=lambda name: int(name[2:]))
    return pd.DataFrame(
        [*printed, *lines] if lines else [], columns=["reading", "dataset", *columns], dtype=object
    ).fillna("")


def _printed() -> dict[str, dict[str, str]]:
    """Per dataset of the paper and χ the shape of its printed curve after Selection."""
    table = published_table(1)
    table = table[table["stage"] != "specialization"]
    found: dict[str, dict[str, str]] = {}
    for (dataset, granularity), curve in table.groupby(["dataset", "granularity"], sort=False):
        means = dict(zip(curve["preservation_ratio"].astype(float), curve["accuracy_mean"].astype(float), strict=True))
        drawn = f"{drawn_shape(means)} (best p {best_drawn(means):g})"
        found.setdefault(str(dataset), {})[f"χ {granularity}"] = drawn
    return found


def sentence(found: pd.DataFrame) -> str:
    """How many readings have the paper's shapes at both ends of χ; empty where one χ alone was run."""
    judged = like_the_paper(found)
    if judged.empty:
        return ""
    told = []
    for dataset, own in judged.groupby("dataset", sort=False):
        by_chance = f"{own['chance'].sum():.1f} to {own['chance_walk'].sum():.1f}"
        told.append(
            f"{dataset}: of {len(own)} readings {own['drawn'].sum()} draw rising at the smallest χ and a peak inside "
            f"at the largest ({by_chance} of flat curves would); tests show it of {own['tested'].sum()}"
        )
    by_reading = judged.groupby("reading", sort=False)
    whole = by_reading["dataset"].nunique() == judged["dataset"].nunique()
    names = [str(reading) for reading in by_reading["drawn"].all()[whole].loc[lambda drawn: drawn].index]
    low, high = sorted(by_reading[chance].prod()[whole].sum() for chance in ("chance", "chance_walk"))
    told.append(
        f"on every dataset {', '.join(name or _USUAL for name in names) or 'none'} ({low:.2f} to {high:.2f} of "
        f"{whole.sum()} flat ones would){_shared(names)}{_floors(found[found['reading'].isin(names)])}"
    )
    return ". ".join(told) + "."


def _shared(names: list[str]) -> str:
    """The choices that all of several readings make other than usual."""
    choices = [{choice_of(part) for part in name.split(JOINED)} for name in names]
    shared = sorted(set.intersection(*choices)) if len(names) > 1 else []
    return f"; they share the choice of {', '.join(shared)}" if shared else ""


def _floors(found: pd.DataFrame) -> str:
    floors = found["no_expert"].dropna()
    return (
        f"; no expert at all is above p = 1 in {(floors > 0).sum()} of their {len(floors)} curves"
        if len(floors)
        else ""
    )


def distance_table(found: pd.DataFrame) -> pd.DataFrame:
    """A line per reading, the nearest first; a column per dataset."""
    if found.empty:
        return found
    table = found.pivot_table(index="reading", columns="dataset", values="distance", sort=False)
    table = table.assign(mean=table.mean(axis=1)).sort_values("mean", kind="stable")
    shown = table.map(lambda distance: "" if pd.isna(distance) else f"{distance:.2f}").reset_index()
    return shown.assign(reading=shown["reading"].replace(USUAL, _USUAL))


def elsewhere_table(found: pd.DataFrame) -> pd.DataFrame:
    lines = [
        {
            "dataset": line["dataset"],
            "nearest on the others": line["reading"] or _USUAL,
            "distance there": f"{line['elsewhere']:.2f}",
            "distance here": f"{line['distance']:.2f}",
            "place here": f"{line['place']} of {line['readings']}",
            "as near by chance": f"{line['place'] / line['readings']:.2f}",
        }
        for _, line in found.iterrows()
    ]
    return pd.DataFrame(lines)


def _figures(results: Results) -> dict[str, Chart]:
    return {"open_choices": change_chart(results.changed)}


def change_chart(found: pd.DataFrame) -> Chart:
    """A row per reading, a panel per effect: the mean change over datasets with its 95 % interval.

    The reading with the largest change stands on top.
    """
    together = found[(found["dataset"] == "") & (found["reading"] != USUAL) & found["change"].notna()]
    readings = [reading for reading in reversed(_by_size(found)) if reading in set(together["reading"])]
    places = {reading: float(place) for place, reading in enumerate(readings)}
    panels = [
        Panel(title=title, curves=list(_changes(together[together["effect"] == effect], places)))
        for effect, title in EFFECTS.items()
    ]
    seeds = found["seeds"].max()
    datasets = ", ".join(dict.fromkeys(name for name in found["dataset"] if name))
    return Chart(
        title=f"What each reading changes, in points of test accuracy\n{datasets}; "
        f"{f'n = {seeds:.0f} seeds' if pd.notna(seeds) else 'no seed'}, 95 % intervals",
        panels=[panels],
        columns=[Axis(title="change (points)")] * len(panels),
        rows=[Axis(ticks={place: reading for reading, place in places.items()}, limits=(-0.7, len(places) - 0.3))],
        shared_y="all",
        panel_size=(2.0, 0.5 + 0.2 * len(places)),
    )


def _changes(own: pd.DataFrame, places: dict[str, float]) -> Iterator[Curve]:
    if own.empty:
        return
    yield Curve(x=[0.0, 0.0], y=[-0.7, len(places) - 0.3], color="black", width=0.6)
    shown = ~own["low"].le(0) | ~own["high"].ge(0)
    for excludes, label in ((True, "0 outside its interval"), (False, "0 inside")):
        part = own[(shown & own["low"].notna()) == excludes]
        if part.empty:
            continue
        color = _SHOWN if excludes else _HIDDEN
        at = [places[reading] for reading in part["reading"]]
        ends = [(100 * low, 100 * high) for low, high in zip(part["low"], part["high"], strict=True)]
        # An interval each, the line interrupted between them.
        yield Curve(
            x=[value for low, high in ends for value in (low, high, low)],
            y=[value for place in at for value in (place, place, math.nan)],
            color=color,
        )
        yield Curve(
            x=[100 * change for change in part["change"]],
            y=at,
            color=color,
            width=0.0,
            marker="circle",
            label=label,
            hover=[f"{line['reading']}: {_points(line)}" for _, line in part.iterrows()],
        )


EXHIBIT = Exhibit(
    name="open_choices",
    title="Which reading makes the reverse U?",
    note=_NOTE,
    tables=_tables,
    figures=_figures,
    finding=lambda results: sentence(results.shapes),
    readings=True,
)
