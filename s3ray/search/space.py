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
from statistics import fmean
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import tomli_w
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from s3ray.errors import UserError, nearest
from s3ray.execution.cell import ROWS
from s3ray.settings import merged, override
from s3ray.stages.sparsification import SPARSIFICATION
from s3ray.store import Store
from s3ray.sweep.grid import StudyDataset
from s3ray.sweep.plan import CellPlan, Plan, plan_cell

# Per setting, as a dotted path in Settings: the factor by which it may leave the scale's own value either way.
# Logarithmic, relative to the scale: one declaration serves `paper`, `smoke` and your own `--config`.
Space = Mapping[str, float]


class Score(NamedTuple):
    accuracy: float  # validation, mean over seeds, in [0, 1]
    p: float  # the preservation ratio below 1 that gives it


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search over one dataset.

    Attributes:
        entry: the dataset and the settings around which is searched.
        cells: what a configuration is tried on, in this order, planned with those settings.
    """

    dataset: str
    entry: StudyDataset
    cells: tuple[CellPlan, ...]
    space: Space

    @classmethod
    def of(cls, plan: Plan, dataset: str, space: Space) -> Search:
        """The search around the settings of a plan, over its cells of one dataset.

        Raises:
            UserError: a path of `space` is no setting, its value is 0, of which there are no multiples, or an end of
                its range is no value for it.
        """
        cells = tuple(cell for cell in plan.cells if cell.cell.dataset == dataset)
        search = cls(dataset=dataset, entry=plan.study.entries[dataset], cells=cells, space=space)
        for path, distribution in search.distributions().items():
            for end in (distribution.low, distribution.high):  # type: ignore[attr-defined]  # all are ranges
                search.plans({path: end})
        return search

    @property
    def seeds(self) -> int:
        return len(self.cells)

    @cached_property
    def name(self) -> str:
        """The study's: a search for anything else (data, settings, cells, space) has another."""
        content = [*(cell.identity for cell in self.cells), json.dumps(sorted(self.space.items()))]
        return f"{self.dataset}-{hashlib.sha256(''.join(content).encode()).hexdigest()[:8]}"

    @property
    def attributes(self) -> dict[str, Any]:
        """What the study is about, for whoever opens its journal."""
        cell = self.cells[0].cell
        return {
            "dataset": self.dataset,
            "kind": self.entry.facts.kind,
            "scale": self.entry.scale,
            "granularity": cell.granularity,
            "batch_size": cell.batch_size,
            "seeds": [cell.cell.seed for cell in self.cells],
            "objective": "validation accuracy at the p below 1 where its mean over seeds is highest",
        }

    def defaults(self) -> dict[str, float]:
        """The scale's own configuration."""
        return {path: _value(self.entry.settings, path) for path in self.space}

    def stability(self, stage: str) -> dict[str, float]:
        """The settings that decide whether a stage diverges, at the scale's own values."""
        paths = (f"{stage}.optimizer.learning_rate", f"{stage}.temperature")
        return {path: _value(self.entry.settings, path) for path in paths}

    def distributions(self) -> dict[str, BaseDistribution]:
        """The space as Optuna takes it."""
        return {path: _around(path, value, self.space[path]) for path, value in self.defaults().items()}

    def plans(self, parameters: Mapping[str, float]) -> list[CellPlan]:
        """The cells of a configuration, one per seed."""
        settings = override(self.entry.settings, nested(parameters), "search")
        return [plan_cell(c.cell, settings, c.facts, [branch.branch for branch in c.branches]) for c in self.cells]


def _value(settings: Any, path: str) -> float:
    value = settings
    for name in path.split("."):
        if not hasattr(value, name):
            raise UserError(f"search space: {path!r} is no setting; {nearest(name, getattr(value, '__slots__', ()))}")
        value = getattr(value, name)
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
        overrides: the `--config` that the search itself ran with; what it says of the dataset is in the file too.
    """
    own = merged(
        {k: v for k, v in overrides.items() if k != "dataset"}, overrides.get("dataset", {}).get(search.dataset, {})
    )
    notes = [
        *comments,
        f"study {search.name}; for --scale {search.entry.scale}, found with {search.cells[0].cell}".replace(
            f" seed={search.cells[0].cell.seed}", ""
        ),
        "Prior methods train as Specialization does: this file gives them its epochs and learning rate too.",
    ]
    tables = {"dataset": {search.dataset: merged(own, nested(parameters))}}
    return "".join(f"# {note}\n" for note in notes) + "\n" + tomli_w.dumps(tables)


def validation_curve(store: Store, cell: CellPlan) -> dict[float, float]:
    """Validation accuracy of a committed cell per preservation ratio below 1; rows of test are not read."""
    (branch,) = cell.branches
    curve = {}
    for run in branch.curve:
        if run.stage.name == SPARSIFICATION.name:
            content = pa.BufferReader(store.artifact(run, ROWS))
            table = pq.read_table(content, columns=["accuracy"], filters=[("split", "==", "valid")])
            (curve[run.config.pruning.ratio],) = table.column("accuracy").to_pylist()
    return curve


def score(curves: Sequence[Mapping[float, float]]) -> Score:
    """What a configuration is judged by, from its seeds' validation curves: p* by the rule of all results."""
    means = {p: fmean(curve[p] for curve in curves) for p in sorted(curves[0], reverse=True)}
    best = max(means, key=lambda p: round(means[p], 9))
    return Score(means[best], best)
