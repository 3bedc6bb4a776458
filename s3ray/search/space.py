"""Search: which settings are best on validation. No Ray here, and never the test split.

A *configuration* is tried on a few cells of the ordinary plan: one point of the grid at every seed. Its settings
are overrides, so each result has its ordinary identity, and a sweep with the same settings finds it in the store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any

import tomli_w
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from s3ray.errors import UserError, nearest
from s3ray.methods import METHODS, S3
from s3ray.search.judge import Point
from s3ray.settings import merged, override
from s3ray.sweep.grid import StudyDataset, curves
from s3ray.sweep.plan import CellPlan, Plan, plan_cell

# Per setting, as a dotted path in Settings: the factor by which it may leave the scale's own value either way.
# Logarithmic, relative to the scale: one declaration serves `paper`, `smoke` and your own `--config`.
Space = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search over one dataset, for S3 or a prior method.

    Attributes:
        entry: the dataset and the settings around which is searched.
        cells: what a configuration is tried on, in this order, planned with those settings.
    """

    dataset: str
    method: str
    entry: StudyDataset
    cells: tuple[CellPlan, ...]
    space: Space

    @classmethod
    def of(cls, plan: Plan, dataset: str, space: Space, method: str = S3) -> Search:
        """The search around the settings of a plan, over its cells of one dataset and method.

        Raises:
            UserError: a path of `space` is no setting, its value is 0, of which there are no multiples, or an end of
                its range is no value for it.
        """
        cells = tuple(cell for cell in plan.cells if (cell.cell.dataset, cell.cell.method) == (dataset, method))
        search = cls(dataset=dataset, method=method, entry=plan.study.entries[dataset], cells=cells, space=space)
        for path, distribution in search.distributions().items():
            for end in (distribution.low, distribution.high):  # type: ignore[attr-defined]  # all are ranges
                search.plans({path: end})
        return search

    @property
    def seeds(self) -> int:
        return len(self.cells)

    @cached_property
    def name(self) -> str:
        """The study's: a search for anything else (data, method, settings, cells, space) has another."""
        content = [*(cell.identity for cell in self.cells), json.dumps(sorted(self.space.items()))]
        about = self.dataset if self.method == S3 else f"{self.dataset}-{self.method}"
        return f"{about}-{hashlib.sha256(''.join(content).encode()).hexdigest()[:8]}"

    @property
    def attributes(self) -> dict[str, Any]:
        """What the study is about, for whoever opens its journal."""
        cell = self.cells[0].cell
        return {
            "dataset": self.dataset,
            "method": self.method,
            "kind": self.entry.facts.kind,
            "scale": self.entry.scale,
            "granularity": cell.granularity,
            "batch_size": cell.batch_size,
            "seeds": [cell.cell.seed for cell in self.cells],
            "objective": self._objective,
        }

    @property
    def _objective(self) -> str:
        if self.method == S3:
            return "validation accuracy at the p below 1 where its mean over seeds is highest"
        outputs = METHODS[self.method].outputs
        if len(outputs) == 1:
            return "validation accuracy, mean over seeds"
        return f"validation accuracy of that output ({', '.join(outputs)}) whose mean over seeds is highest"

    def defaults(self) -> dict[str, float]:
        """The scale's own configuration."""
        return {path: _value(self.entry.settings, path) for path in self.space}

    def stability(self, stage: str) -> dict[str, float]:
        """The settings that decide whether a stage diverges, at the scale's own values."""
        paths = [f"{stage}.optimizer.learning_rate", f"{stage}.temperature"]
        if stage in METHODS:
            paths = [f"method.{stage}.{name}" for name in ("learning_rate", "temperature")]
            paths = [path for path in paths if path in self.space]  # not every method has a temperature
        return {path: _value(self.entry.settings, path) for path in paths}

    def distributions(self) -> dict[str, BaseDistribution]:
        """The space as Optuna takes it."""
        return {path: _around(path, value, self.space[path]) for path, value in self.defaults().items()}

    def plans(self, parameters: Mapping[str, float]) -> list[CellPlan]:
        """The cells of a configuration, one per seed."""
        settings = override(self.entry.settings, nested(parameters), "search")
        return [plan_cell(c.cell, settings, c.facts, curves(own.branch for own in c.branches)) for c in self.cells]


def _value(settings: Any, path: str) -> float:
    value = settings
    *tables, last = path.split(".")
    for name in (*tables, last):
        if not hasattr(value, name):
            raise UserError(f"search space: {path!r} is no setting; {nearest(name, getattr(value, '__slots__', ()))}")
        value = getattr(value, name)
    if value is None:  # a prior method's that is Specialization's
        value = getattr(settings.optimizer_of(tables[-1]), last)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"search space: {path!r} is {value!r}, and only numbers can be searched; leave it out")
    return value


def _around(path: str, value: float, factor: float) -> BaseDistribution:
    if value <= 0 or factor <= 1:
        raise UserError(
            f"search space: {path!r} is {value:g} and would be searched within a factor of {factor:g}; the value "
            f"must be positive and the factor above 1"
        )
    if isinstance(value, int):
        return IntDistribution(max(1, round(value / factor)), round(value * factor), log=True)
    return FloatDistribution(value / factor, value * factor, log=True)


def nested(parameters: Mapping[str, float]) -> dict[str, Any]:
    """Dotted paths as the tables of a `--config` file, the values `readable`: people read and copy them."""
    tables: dict[str, Any] = {}
    for path, value in parameters.items():
        *outer, name = path.split(".")
        table = reduce(lambda t, part: t.setdefault(part, {}), outer, tables)
        table[name] = readable(value)
    return tables


def readable(value: float) -> float:
    """An integer as it is, anything else to three significant digits."""
    return value if isinstance(value, int) else float(f"{value:.3g}")


def best_configuration(
    search: Search, parameters: Mapping[str, float], overrides: Mapping[str, Any], comments: Sequence[str]
) -> str:
    """A `--config` file that gives the search's dataset these parameters.

    Args:
        overrides: the `--config` that the search itself ran with; what it says of the dataset is in S3's file too. A
            prior method's holds its own table alone, so that those of several methods fit together. What was found on
            own data was found without calibration, and is run so.
    """
    own: dict[str, Any] = {}
    if search.method == S3:
        everywhere = {name: table for name, table in overrides.items() if name != "dataset"}
        own = merged(everywhere, overrides.get("dataset", {}).get(search.dataset, {}))
    notes = [
        *comments,
        f"study {search.name}; for --scale {search.entry.scale}, found with {search.cells[0].cell}".replace(
            f" seed={search.cells[0].cell.seed}", ""
        ),
    ]
    if search.method == S3:
        notes += [
            "A prior method without epochs and learning rate of its own trains with those of Specialization here."
        ]
    if search.entry.facts.kind == "user":
        own["calibrate"] = False
    tables = {"dataset": {search.dataset: merged(own, nested(parameters))}}
    return "".join(f"# {note}\n" for note in notes) + "\n" + tomli_w.dumps(tables)


def noted(at: Point) -> dict[str, Point]:
    """Where a trial is best, as its study keeps it: `p`, or the `output` of several."""
    return {} if at == "none" else {"output" if isinstance(at, str) else "p": at}


def shown(attributes: Mapping[str, Any]) -> str:
    """What `noted` has kept, behind an accuracy."""
    return (
        f" at p={attributes['p']:g}" if "p" in attributes else f" ({out})" if (out := attributes.get("output")) else ""
    )
