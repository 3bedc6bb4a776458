"""Sweeps as files declare them, over the datasets and scale that a command line chooses."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from s3ray.config import Branch, Cell, Settings, UserError
from s3ray.data.dataset import DataKind, Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What planning needs to know of a dataset."""

    fingerprint: str
    kind: DataKind
    features: Mapping[str, int]
    classes: int
    samples: Mapping[str, int]  # per split
    tokens: Mapping[str, int]  # per split, both modalities
    label_rule: str | None = None  # how classes follow from stored labels, where that is a choice
    best_accuracy: float | None = None  # the best achievable, where a simulation knows it

    @classmethod
    def of(cls, data: Dataset) -> DataFacts:
        splits = data.splits
        return cls(
            fingerprint=data.fingerprint(),
            kind=data.kind,
            features=data.features,
            classes=data.classes,
            samples={name: len(split) for name, split in splits.items()},
            tokens={
                name: int(np.sum([s.offsets[-1] for s in split.modalities.values()])) for name, split in splits.items()
            },
            label_rule=data.facts.get("label_rule"),
            best_accuracy=data.facts.get("best_accuracy"),
        )


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

    @property
    def datasets(self) -> tuple[str, ...]:
        return tuple(self.entries)

    def batch_sizes(self, dataset: str) -> tuple[int, ...]:
        return self.entries[dataset].settings.batch_sizes

    def cell(self, dataset: str, granularity: int, batch_size: int, seed: int) -> Cell:
        return Cell(
            dataset=dataset,
            granularity=granularity,
            batch_size=batch_size,
            seed=seed,
            scale=self.entries[dataset].scale,
        )

    def settings(self, cell: Cell) -> Settings:
        """The cell's settings.

        Raises:
            UserError: χ does not divide the FFN width, or the batch size does not fit the training split.
        """
        entry = self.entries[cell.dataset]
        samples = entry.facts.samples["train"]
        if not 2 <= cell.batch_size <= samples:
            raise UserError(
                f"{cell.dataset}: batch size {cell.batch_size} must lie between 2 and the training split's "
                f"{samples} samples; set batch_sizes in --config"
            )
        return entry.settings.for_cell(cell)


@dataclass(frozen=True)
class Sweep:
    """One file of `sweeps/`: which cells, with which branches."""

    name: str
    cells: Callable[[Study], Iterable[Cell]]
    branches: tuple[Branch, ...]

    @cached_property
    def title(self) -> str:
        return self.name.replace("_", " ")


def load_sweep(path: Path) -> Sweep:
    """The `SWEEP` of a sweep file.

    Raises:
        UserError: no such file, or one that defines no `SWEEP`.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"{path}: no such sweep file; give the path of a .py file such as sweeps/full_grid.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sweep = getattr(module, "SWEEP", None)
    if not isinstance(sweep, Sweep):
        raise UserError(f"{path}: defines no SWEEP = Sweep(…); see sweeps/full_grid.py")
    return sweep
