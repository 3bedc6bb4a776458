"""A curve beside its controls: do the experts matter at all, and is the peak the router's doing? The rules.

Written before results, as all of this project's statistical rules.

- Every difference is one of test accuracies. Where the rows of both sides say which samples are right (`correct`), of
  every seed that both have, seeds *and* samples are random: the crossed analysis of `s3ray.results.crossed`, of two
  differences (the interaction) its own. Where they do not, the test is the paired one over seeds of
  `s3ray.results.statistics`, which answers for these test samples only and can see little in two or three seeds.
  Which of the two is a matter of what rows carry, never of what they show. The level is 0.05.
- One seed in common: its interval is of samples alone (none without `correct`), and says nothing of other seeds. Where
  training differs by seed a test over samples alone rejects far too often, so the answers are `one seed`.
- p* is chosen on validation (`statistics`). Controls are reference rows: no p is chosen among them, and p = 0 is no
  end of a curve.
- `experts`: whether they matter. `yes`: p = 1 is above p = 0, where none is computed (one-sided). `hurt`: it is below
  (one-sided). `no`: it is shown to be less than the margin above p = 0 (one-sided). In the last two cases a pruning
  curve says nothing, since what it prunes is worth nothing. Else `undecided`.
- `training`: whether it was of use. The same answers by the same tests, of p = 1 against the untrained encoder.
- `router`: whether it matters which pairs are kept. `yes`: at p* the ranked curve is above the one that keeps as many
  pairs at random (one-sided). `no`: it is below (one-sided), or equivalent within the margin (two one-sided tests).
  Else `undecided`. It is asked at p*, not where the two lie furthest apart, and it is not corrected: one curve, one
  question. A `peak inside` is the router's doing only where this says `yes`.
- That a difference is less than the margin must, in the crossed analysis, also hold with the error that a true
  difference of the margin would have: few samples without any discordance prove nothing.
- The interaction with Selection: how much more ranked pruning gains over random pruning after Selection than before,
  at the p* of the curve after Selection. A mean with its 95 % interval; nothing is decided by it.
- In words (`conclusion`): what is said of a curve before anything else is. Where `experts` or `training` is `hurt` or
  `no`, that; where nothing is shown and the mean at p = 1 is not above the floor's, that it is not so far, and whether
  this is undecided or of one seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import pandas as pd

from s3ray.results.crossed import Crossed, right
from s3ray.results.statistics import ALPHA, CONFIGURATION, Difference, best_ratios, resolution

_DIFFERENCES = ["over_random", "over_smallest", "over_contribution", "over_no_expert", "full_over_no_expert"]
_DIFFERENCES += ["over_untrained", "full_over_untrained", "interaction"]
_TOLD = ["", "_low", "_high", "_p", "_seeds", "_samples"]
ONE_SEED = "one seed"
UNDECIDED = "undecided"


class _Floor(NamedTuple):
    """What p = 1 is held against, and what is said where it is not above it."""

    difference: str
    mean: str
    reaches: str
    trained: str
    said: Mapping[str, str]  # by answer


_IDLE = "a pruning curve says nothing"
Question = Literal["experts", "training"]
_FLOORS: Mapping[Question, _Floor] = {
    "experts": _Floor(
        difference="full_over_no_expert",
        mean="no_expert",
        reaches="no expert at all reaches",
        trained="all of them",
        said={
            "hurt": f"experts hurt here; {_IDLE}",
            "no": f"experts do not matter here; {_IDLE}",
            UNDECIDED: f"experts are not shown to help ({UNDECIDED})",
            ONE_SEED: f"experts are not shown to help ({ONE_SEED})",
        },
    ),
    "training": _Floor(
        difference="full_over_untrained",
        mean="untrained",
        reaches="untrained encoders reach",
        trained="the trained",
        said={
            "hurt": "training hurt here",
            "no": "training gained nothing here",
            UNDECIDED: f"training is not shown to help ({UNDECIDED})",
            ONE_SEED: f"training is not shown to help ({ONE_SEED})",
        },
    ),
}


def controlled(rows: pd.DataFrame, controls: pd.DataFrame, margin: float = 1.0) -> pd.DataFrame:
    """Per configuration that has a p* and controls: the curve's differences from them on test, as shares.

    Args:
        rows, controls: as collected (`Results`).
        margin: of equivalence, in points of accuracy.

    Returns:
        Columns: `n`, `p_star`, `test` and `test_full` (means at p* and 1), `no_expert` and `untrained` (means); of
        each difference its mean, `…_low` and `…_high` (95 %), `…_p` (two-sided), and the `…_seeds` and `…_samples`
        that are random in it (samples NaN: seeds alone): `over_random`, `over_smallest`, `over_contribution` (at p*),
        `over_no_expert` and `over_untrained` (p* over them), `full_over_no_expert` and `full_over_untrained` (p = 1
        over them), `interaction`; `experts`, `training` and `router`. What was not measured is NaN, and its answer is
        empty.
    """
    measured = best_ratios(rows).iterrows() if len(rows) and len(controls) else ()
    curves, others = _on_test(rows), _on_test(controls)
    lines = [_line(best, curves, others, margin / 100) for _, best in measured]
    means = ["n", "p_star", "test", "test_full", "no_expert", "untrained"]
    told = [f"{difference}{suffix}" for difference in _DIFFERENCES for suffix in _TOLD]
    columns = [*CONFIGURATION, *means, *told, "experts", "training", "router"]
    return pd.DataFrame([line for line in lines if line], columns=columns)


_Curves = Mapping[tuple[Any, ...], pd.DataFrame]  # test rows by configuration


def _on_test(frame: pd.DataFrame) -> _Curves:
    if frame.empty:
        return {}
    known = frame[(frame["split"] == "test") & frame["accuracy"].notna()]
    return {tuple(place): own for place, own in known.groupby(CONFIGURATION, sort=False)}


class Compared(NamedTuple):
    """A difference, and what is random in it."""

    difference: Difference
    seeds: int  # that both sides have
    samples: float  # NaN: seeds alone are random
    p_less: float  # of the difference being below the margin, one-sided
    p_equal: float  # within the margin

    def told(self, name: str) -> dict[str, float]:
        low, high = self.difference.interval(0.95, largest=2.0 if name == "interaction" else 1.0)
        values = (self.difference.mean, low, high, self.difference.p_nonzero(), self.seeds, self.samples)
        return {f"{name}{suffix}": value for suffix, value in zip(_TOLD, values, strict=True)}

    def worth(self) -> str:
        """Of p = 1 over a floor: `yes`, `hurt`, `no`, or that nothing is shown."""
        difference = self.difference
        return self.answer(("yes", difference.p_above()), ("hurt", difference.p_below()), ("no", self.p_less))

    def answer(self, *answers: tuple[str, float]) -> str:
        """The first that is shown; a missing difference has no answer."""
        if math.isnan(self.difference.mean):
            return ""
        if self.seeds == 1:
            return ONE_SEED
        return next((answer for answer, p in answers if p < ALPHA), UNDECIDED)


def _line(best: pd.Series[Any], rows: _Curves, controls: _Curves, margin: float) -> dict[str, Any]:
    """Of one configuration; empty if it has no controls."""
    configuration = {name: best[name] for name in CONFIGURATION}
    place = tuple(configuration.values())
    if place not in controls:
        return {}
    ranked, own, p = rows[place], controls[place], float(best["p_star"])
    star, full = _at(ranked, p), _at(ranked, 1.0)

    def of(control: str, at: float) -> pd.DataFrame:
        return _at(own[own["control"] == control], at)

    no_expert, untrained = of("no expert", 0.0), of("untrained", 1.0)
    pairs = {f"over_{rule}": (star, of(rule, p)) for rule in ("random", "smallest", "contribution")}
    pairs |= {"over_no_expert": (star, no_expert), "full_over_no_expert": (full, no_expert)}
    pairs |= {"over_untrained": (star, untrained), "full_over_untrained": (full, untrained)}
    differences = {name: compared(margin, *pair) for name, pair in pairs.items()}
    before = (*place[:-1], "none")
    nothing = ranked[:0]
    earlier, chance = rows.get(before, nothing), controls.get(before, own[:0])
    gains = (star, of("random", p), _at(earlier, p), _at(chance[chance["control"] == "random"], p))
    differences["interaction"] = compared(margin, *(gains if place != before else [nothing] * 4))
    random = differences["over_random"]
    is_no = min(random.difference.p_below(), random.p_equal)
    return (
        configuration
        | {name: best[name] for name in ("n", "p_star", "test", "test_full")}
        | {"no_expert": no_expert["accuracy"].mean(), "untrained": untrained["accuracy"].mean()}
        | {name: value for d, each in differences.items() for name, value in each.told(d).items()}
        | {
            "experts": differences["full_over_no_expert"].worth(),
            "training": differences["full_over_untrained"].worth(),
        }
        | {"router": random.answer(("yes", random.difference.p_above()), ("no", is_no))}
    )


def _at(frame: pd.DataFrame, ratio: float) -> pd.DataFrame:
    return frame[frame["preservation_ratio"] == ratio]


def compared(margin: float, *sides: pd.DataFrame) -> Compared:
    """First minus second, or (first - second) - (third - fourth): rows of one accuracy a seed each."""
    accuracies = [side.set_index("seed")["accuracy"] for side in sides]
    seeds = set.intersection(*(set(own.index) for own in accuracies))
    bits = [right(side[side["seed"].isin(seeds)]) for side in sides]
    if seeds and all(len(own) == len(seeds) for own in bits):
        crossed = Crossed.between(*bits) if len(bits) == 2 else Crossed.interaction(*bits)
        p_less, p_equal = crossed.p_below(margin), crossed.p_within(margin)
        return Compared(crossed.difference, crossed.seeds, crossed.samples, p_less, p_equal)
    first, second = accuracies[:2] if len(sides) == 2 else (a - b for a, b in zip(*[iter(accuracies)] * 2, strict=True))
    # Of an interaction two gains, each a difference of two accuracies: √2 times a difference's own step.
    difference = Difference.paired(first, second, resolution(sides[0]) * math.sqrt(len(sides) / 2))
    return Compared(difference, len(seeds), math.nan, difference.p_below(margin), difference.p_within(margin))


def conclusion(curve: pd.Series[Any], question: Question) -> str:
    """In a few words, where p = 1 of a line of `controlled` is no better than its floor; else empty."""
    floor, answer = _FLOORS[question], curve[question]
    is_open = answer in (UNDECIDED, ONE_SEED)
    return "" if is_open and curve[floor.difference] > 0 else floor.said.get(answer, "")


def warnings(judged: pd.DataFrame) -> str:
    """A sentence per line of `controlled` and question whose `conclusion` is not empty, with its numbers."""
    told = []
    for _, curve in judged.iterrows():
        for question, floor in _FLOORS.items():
            if said := conclusion(curve, question):
                where = (
                    f"{curve['dataset']}, χ {curve['granularity']}, batch size {curve['batch_size']}, {curve['branch']}"
                )
                numbers = (
                    f"{floor.reaches} {100 * curve[floor.mean]:.1f} and {floor.trained} {100 * curve['test_full']:.1f}"
                )
                told.append(f"{where}: {numbers} ({evidence(curve, floor.difference)}): {said}.")
    return " ".join(told)


def evidence(curve: pd.Series[Any], name: str) -> str:
    """A difference in points with its interval, and the seeds and samples that it is of."""
    seeds, samples = curve[f"{name}_seeds"], curve[f"{name}_samples"]
    of = ONE_SEED if seeds == 1 else f"n = {seeds:.0f} seeds"
    return ", ".join([points(curve, name), of, *([f"{samples:.0f} samples"] if samples > 0 else [])])


def points(curve: pd.Series[Any], name: str) -> str:
    """A difference in points with its interval; empty if it was not measured."""
    if pd.isna(curve[name]):
        return ""
    low, high = curve[f"{name}_low"], curve[f"{name}_high"]
    interval = f" [{100 * low:+z.1f}, {100 * high:+z.1f}]" if pd.notna(low) else ""
    return f"{100 * curve[name]:+z.1f}{interval}"  # z: no -0.0
