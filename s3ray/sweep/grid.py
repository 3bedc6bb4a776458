"""Sweeps as files declare them, over the datasets and scale that a command line chooses."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from s3ray.config import Branch, Cell, Method, Settings, method_branches
from s3ray.data.facts import DataFacts as DataFacts  # the planner and its costs take it from here
from s3ray.errors import UserError

# What results make of a sweep's rows; `results/artefacts.py` knows how.
Artefact = Literal[
    "table1", "table2", "table3", "tables4_5", "figure3", "figure5", "figure6", "figures7_10", "what_is_kept"
]


MOST_STEPS = 10**9  # of a training stage: checkpoints are named by their step, in nine digits


@dataclass(frozen=True)
class StudyDataset:
    """A dataset in a study: its facts, the scale it runs at and the settings that follow."""

    facts: DataFacts
    scale: str
    settings: Settings


@dataclass(frozen=True)
class Study:
    """The datasets that a sweep fans out over."""

    entries: Mapping[str, StudyDataset]
    every_batch_size: bool = False  # the usual batch sizes are all of them

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(self.entries)

    def granularities(self, dataset: str) -> tuple[int, ...]:
        return self.entries[dataset].settings.granularities

    def seeds(self, dataset: str) -> tuple[int, ...]:
        return self.entries[dataset].settings.seeds

    def batch_sizes(self, dataset: str) -> tuple[int, ...]:
        """All batch sizes of a dataset's settings, those of Figure 3."""
        return self.entries[dataset].settings.batch_sizes

    def usual_batch_sizes(self, dataset: str) -> tuple[int, ...]:
        """The batch size of the artefacts that do not vary it; in the full grid, all."""
        return self.batch_sizes(dataset) if self.every_batch_size else self.batch_sizes(dataset)[:1]

    def cell(self, dataset: str, granularity: int, batch_size: int, seed: int) -> Cell:
        return Cell(
            dataset=dataset,
            granularity=granularity,
            batch_size=batch_size,
            seed=seed,
            scale=self.entries[dataset].scale,
        )

    def baseline(self, dataset: str, method: Method, batch_size: int, seed: int) -> Cell:
        return dataclasses.replace(self.cell(dataset, 1, batch_size, seed), method=method)

    def settings(self, cell: Cell) -> Settings:
        """The cell's settings.

        Raises:
            UserError: χ does not divide the FFN width, the batch size does not fit the training split, or the data
                have another number of modalities than the losses compare.
        """
        entry = self.entries[cell.dataset]
        # The one place that counts modalities: every loss contrasts the first's view of a sample with the second's.
        if (count := len(entry.facts.features)) != 2:
            raise UserError(
                f"{cell.dataset}: has {count} {'modality' if count == 1 else 'modalities'} "
                f"({', '.join(entry.facts.features)}), and the losses compare two; give two, of prepared data with "
                f"--modalities A,B"
            )
        samples = entry.facts.samples["train"]
        if not 2 <= cell.batch_size <= samples:
            raise UserError(
                f"{cell.dataset}: batch size {cell.batch_size} must lie between 2 and the training split's "
                f"{samples} samples; set batch_sizes under [dataset.{cell.dataset}] in --config"
            )
        steps = samples // cell.batch_size
        for stage in ("specialization", "selection"):
            epochs = getattr(entry.settings, stage).optimizer.epochs
            if epochs * steps >= MOST_STEPS:
                raise UserError(
                    f"{cell.dataset}: {stage}.optimizer.epochs {epochs} make {epochs * steps:.1e} steps at batch size "
                    f"{cell.batch_size}, and a stage has less than {MOST_STEPS:.0e}; lower it in --config"
                )
        try:
            return entry.settings.for_cell(cell)
        except UserError as error:
            raise UserError(f"{cell.dataset}: {error}") from None


@dataclass(frozen=True)
class Sweep:
    """One file of `sweeps/`: which cells, with which branches, for which artefacts.

    Attributes:
        branches: of S3's cells; prior methods have their own.
        kept: also measure what representations keep of a simulation's factors.
        parts: sweeps that this one unites, at every batch size.

    Raises:
        UserError: something stands twice, or the name is none that a folder can have.
    """

    name: str
    cells: Callable[[Study], Iterable[Cell]] = lambda study: ()
    branches: tuple[Branch, ...] = ()
    artefacts: tuple[Artefact, ...] = ()
    kept: bool = False
    parts: tuple[Sweep, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-][\w.-]*", self.name):
            raise UserError(f"sweep {self.name!r}: its results' folder has this name; use letters, digits, _ and -")
        names = {"branches": self.branches, "artefacts": self.artefacts, "parts": [part.name for part in self.parts]}
        for field, values in names.items():
            for value in values:
                if values.count(value) > 1:
                    raise UserError(f"sweep {self.name}: {field} has {value!r} more than once; name it once")

    @cached_property
    def title(self) -> str:
        return self.name.replace("_", " ")

    def requests(self, study: Study) -> Iterator[tuple[Cell, tuple[Branch, ...], bool]]:
        """Cells with their branches and whether to measure what is kept; parts may ask for the same cell.

        Raises:
            UserError: the sweep itself asks for a cell twice.
        """
        asked: set[Cell] = set()
        for cell in self.cells(study):
            if cell in asked:
                raise UserError(f"sweep {self.name}: yields {cell} more than once; yield each cell once")
            asked.add(cell)
            branches = self.branches if cell.method == "s3" else method_branches(cell.method)
            yield cell, branches, self.kept and study.entries[cell.dataset].facts.truth is not None
        everywhere = dataclasses.replace(study, every_batch_size=True)
        for part in self.parts:
            yield from part.requests(everywhere)


def union(name: str, parts: Sequence[Sweep]) -> Sweep:
    """Everything that `parts` ask for, at every batch size, and all of their artefacts."""
    artefacts = dict.fromkeys(artefact for part in parts for artefact in part.artefacts)
    return Sweep(name, artefacts=tuple(artefacts), parts=tuple(parts))


def load_sweep(path: Path) -> Sweep:
    """The `SWEEP` of a sweep file.

    Raises:
        UserError: no such file, one that defines no `SWEEP`, or one whose `SWEEP` has the name of the file beside it.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"{path}: no such sweep file; give the path of a .py file such as sweeps/full_grid.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sweep = getattr(module, "SWEEP", None)
    if not isinstance(sweep, Sweep):
        raise UserError(f"{path}: defines no SWEEP = Sweep(…); see sweeps/full_grid.py")
    check_name(sweep, path)
    return sweep


def check_name(sweep: Sweep, path: Path) -> None:
    """UserError if a sweep's name is that of another file beside its own: one's results would replace the other's."""
    other = path.with_name(f"{sweep.name}.py")
    if other.exists() and other.resolve() != path.resolve():
        raise UserError(
            f"{path}: its SWEEP is named {sweep.name!r} as {other.name} is, whose results it would replace; rename it"
        )
