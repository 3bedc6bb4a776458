"""Sweeps as files declare them, over the datasets and scale that a command line chooses."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.data.standardize import standardized
from s3ray.data.subsample import subsampled
from s3ray.errors import UserError, nearest
from s3ray.methods import METHODS, S3
from s3ray.paths import local_path, project_folder
from s3ray.settings import Settings, override, settings_of
from s3ray.stages.metrics import check_metric
from s3ray.stages.training import MOST_STEPS
from s3ray.stages.variants import VARIANTS
from s3ray.sweep.cell import Cell

JOINED = " + "  # between the readings of one cell


@dataclass(frozen=True)
class StudyDataset:
    """A dataset in a study: its facts, the scale it runs at and the settings that follow."""

    facts: DataFacts
    scale: str
    settings: Settings


@dataclass(frozen=True)
class Study:
    """The datasets that a sweep fans out over.

    Attributes:
        every_batch_size: the usual batch sizes are all of them.
        data: the datasets themselves; planning needs none.
        given: (scale, overrides, what complaints call these) that the settings were made of.
        chosen: per dataset whose settings were calibrated, the candidate that was best.
        tried: of these per candidate its accuracy on validation; None: it diverged.
    """

    entries: Mapping[str, StudyDataset]
    every_batch_size: bool = False
    data: Mapping[str, Dataset] = field(default_factory=dict, compare=False)
    given: tuple[str | None, Mapping[str, Any], str] = field(default_factory=lambda: (None, {}, ""), compare=False)
    chosen: Mapping[str, str] = field(default_factory=dict)
    tried: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, data: Mapping[str, Dataset], scale: str | None, overrides: Mapping[str, Any], source: str = "--config"
    ) -> Study:
        """A study of datasets, ready to run; those of the user's subsampled and standardised, as their settings say.

        Args:
            scale, overrides, source: as of `s3ray.settings.settings_of`.

        Raises:
            UserError: of `settings_of`; or a whole split lacks a modality, a sample lacks all.
        """
        settings = settings_of(data, scale, overrides, source)
        ready = {
            name: _ready(dataset, settings[name][1]) if dataset.kind == "user" else dataset
            for name, dataset in data.items()
        }
        for name, dataset in ready.items():
            dataset.check_missing(name)  # one made by `replace` has passed no check yet
        entries = {name: StudyDataset(DataFacts.of(dataset), *settings[name]) for name, dataset in ready.items()}
        return cls(entries, data=ready, given=(scale, overrides, source))

    def with_settings(self, chosen: Mapping[str, Mapping[str, Any]]) -> Mapping[str, StudyDataset]:
        """The entries of these datasets, with other settings than the scale's own.

        Args:
            chosen: per dataset tables of settings; what the user changed goes before them.
        """
        scale, overrides, source = self.given
        settings = settings_of(self.data, scale, overrides, source, chosen)
        return {name: replace(self.entries[name], settings=settings[name][1]) for name in chosen}

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

    def ends(self, dataset: str) -> list[int]:
        """The smallest and the largest χ of a dataset's settings; once, where they are one."""
        return sorted({min(self.granularities(dataset)), max(self.granularities(dataset))})

    def usual_batch_sizes(self, dataset: str) -> tuple[int, ...]:
        """The batch size of the exhibits that do not vary it; in the full grid, all."""
        return self.batch_sizes(dataset) if self.every_batch_size else self.batch_sizes(dataset)[:1]

    def cell(self, dataset: str, granularity: int, batch_size: int, seed: int, reading: str = "") -> Cell:
        return Cell(
            dataset=dataset,
            granularity=granularity,
            batch_size=batch_size,
            seed=seed,
            scale=self.entries[dataset].scale,
            reading=reading,
        )

    def prior(self, dataset: str, method: str, batch_size: int, seed: int) -> Cell:
        """A prior method's cell."""
        return replace(self.cell(dataset, 1, batch_size, seed), method=method)

    def check(self, cell: Cell) -> None:
        """UserError if a cell cannot work: its method is unknown, or its data or batches do not fit."""
        entry = self.entries[cell.dataset]
        if cell.method != S3 and cell.method not in METHODS:
            raise UserError(f"{cell.dataset}: unknown method {cell.method!r}; {nearest(cell.method, METHODS)}")
        samples = entry.facts.samples["train"]
        if not 2 <= cell.batch_size <= samples:
            raise UserError(
                f"{cell.dataset}: batch size {cell.batch_size} must lie between 2 and the training split's "
                f"{samples} samples; set batch_sizes under [dataset.{cell.dataset}] in --config"
            )
        steps = samples // cell.batch_size
        settings = entry.settings
        given = {
            "specialization.optimizer.epochs": settings.specialization.optimizer.epochs,
            "selection.optimizer.epochs": settings.selection.optimizer.epochs,
        }
        if cell.method != S3:
            given[f"method.{cell.method}.epochs"] = settings.optimizer_of(cell.method).epochs
        for path, epochs in given.items():
            if epochs * steps >= MOST_STEPS:
                raise UserError(
                    f"{cell.dataset}: {path} {epochs} make {epochs * steps:.1e} steps at batch size "
                    f"{cell.batch_size}, and a stage has less than {MOST_STEPS:.0e}; lower it in --config"
                )

    def undefined(self, cell: Cell) -> str:
        """What of its dataset a cell's method is not defined for, and the remedy; nothing of S3, which is for all."""
        if cell.method == S3:
            return ""
        facts, (fewest, most) = self.entries[cell.dataset].facts, METHODS[cell.method].modalities
        named = list(facts.features)
        if not fewest <= len(named) <= most:
            count = f"{len(named)} {'modalities' if named[1:] else 'modality'} ({', '.join(named)})"
            return f"{count} and left out; give two, of your own and prepared data with --modalities A,B"
        if facts.missing and not _takes_missing(cell.method):
            lacking = f"samples that lack a modality ({', '.join(facts.missing)})"
            return f"{lacking} and left out; take modalities that all samples have with --modalities"
        return ""


def _takes_missing(method: str) -> bool:
    return method == S3 or METHODS[method].takes_missing


def _ready(data: Dataset, settings: Settings) -> Dataset:
    if settings.max_steps is not None:
        data = subsampled(data, settings.max_steps)
    return standardized(data) if settings.standardize else data


def _no_cells(study: Study) -> Iterable[Cell]:
    return ()


class Asked(NamedTuple):
    """What is measured of a branch beside its accuracy at p = 1."""

    curve: bool = True  # the ratios below 1, and their controls
    factors: bool = False  # what it holds of a simulation's factors, at every ratio
    sentiment: bool = False  # how well sentiment scores can be regressed on it, at every ratio
    modalities: bool = False  # what each modality carries, at every ratio
    missing: bool = False  # what is lost where samples lack modalities, at every ratio

    def __or__(self, other: Asked) -> Asked:
        return Asked(*(one or another for one, another in zip(self, other, strict=True)))


def curves(branches: Iterable[str]) -> dict[str, Asked]:
    """Of each branch its curve and controls, and nothing beside."""
    return dict.fromkeys(branches, Asked())


class Request(NamedTuple):
    """A cell, what its stages read, and what is asked of its branches."""

    cell: Cell
    settings: Settings
    branches: Mapping[str, Asked]


@dataclass(frozen=True)
class Sweep:
    """One file of `sweeps/`: which cells, with which branches, for which exhibits.

    Attributes:
        cells: what is computed, each cell once; nothing if left out.
        branches: of S3's cells, Selection variants; prior methods have their own.
        exhibits: the tables and figures that results make of its rows, by name.
        factors: also measure what representations hold of a simulation's factors.
        modalities: also probe each modality alone, and all but each.
        missing: also probe where samples lack more and more modalities.
        probed: of the branches those that are probed at p = 1 alone; the others have pruning curves.
        readings: tables of settings, as `--config` has them, by the name under which cells ask for them; they go before
            what `--config` says. A cell may ask for several at once, joined by " + ".
        datasets: embedded ones that a call takes which names no data; by default the usual ones.
        then: (study, results) → further cells, once all of `cells` are there: what they ask depends on what came out.
        parts: sweeps that this one unites, at every batch size.
        metric: a key of METRICS; of another one than accuracy Tables 1 and 2 stand in the results, too. One of the
            regression of sentiment scores is measured where a dataset has these; parts follow the whole.

    Raises:
        UserError: something stands twice, the name is none that a folder can have, or the metric is not known.
    """

    name: str
    cells: Callable[[Study], Iterable[Cell]] = _no_cells
    branches: tuple[str, ...] = ()
    exhibits: tuple[str, ...] = ()
    factors: bool = False
    modalities: bool = False
    missing: bool = False
    probed: tuple[str, ...] = ()
    readings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    then: Callable[[Study, Any], Iterable[Cell]] | None = None
    parts: tuple[Sweep, ...] = ()
    metric: str = "accuracy"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w-][\w.-]*", self.name):
            raise UserError(f"sweep {self.name!r}: its results' folder has this name; use letters, digits, _ and -")
        names = {"branches": self.branches, "exhibits": self.exhibits, "parts": [part.name for part in self.parts]}
        for name, values in names.items():
            for value in values:
                if values.count(value) > 1:
                    raise UserError(f"sweep {self.name}: {name} has {value!r} more than once; name it once")
        check_metric(self.metric)
        for branch in self.branches:
            if branch not in VARIANTS:
                raise UserError(f"sweep {self.name}: unknown branch {branch!r}; {nearest(branch, VARIANTS)}")

    @cached_property
    def title(self) -> str:
        return self.name.replace("_", " ")

    @property
    def computes(self) -> bool:
        """Whether it asks for cells, or a part does; the tables of what can be counted need none."""
        return self.cells is not _no_cells or any(part.computes for part in self.parts)

    def settings(self, study: Study, cell: Cell) -> Settings:
        """What a cell's stages read, of its dataset's settings as its reading has them.

        Raises:
            UserError: a reading that there is not, or one that does not fit the dataset's settings.
        """
        settings = study.entries[cell.dataset].settings
        for name in cell.reading.split(JOINED) if cell.reading else ():
            if name not in self.readings:
                raise UserError(f"sweep {self.name}: unknown reading {name!r}; {nearest(name, self.readings)}")
            settings = override(settings, self.readings[name], f"{cell.dataset}, reading {name!r}")
        return settings

    def requests(self, study: Study) -> Iterator[Request]:
        """Cells with what is asked of them, without those of `undefined`; parts may ask for the same cell.

        Raises:
            UserError: the sweep itself asks for a cell twice.
        """
        asked: set[Cell] = set()
        for cell in self.cells(study):
            if cell in asked:
                raise UserError(f"sweep {self.name}: yields {cell} more than once; yield each cell once")
            asked.add(cell)
            study.check(cell)
            if study.undefined(cell):
                continue
            branches = self.branches if cell.method == S3 else tuple(METHODS[cell.method].outputs)
            facts = study.entries[cell.dataset].facts
            factors = self.factors and facts.truth is not None
            asked_of = {
                name: Asked(
                    curve=name not in self.probed,
                    factors=factors,
                    modalities=self.modalities,
                    # Of one modality none can be lost, and not every prior method is defined where some are.
                    missing=self.missing and len(facts.features) > 1 and _takes_missing(cell.method),
                )
                for name in branches
            }
            yield Request(cell, self.settings(study, cell), asked_of)
        everywhere = replace(study, every_batch_size=True)
        for part in self.parts:
            yield from part.requests(everywhere)

    def undefined(self, study: Study) -> list[str]:
        """A sentence per dataset, and what of it some methods are not defined for.

        It has more or fewer modalities than they are for, or samples that lack one. Their cells are left out: the
        others are no worse for it, and a figure of three modalities is worth having.
        """

        def cells(sweep: Sweep) -> Iterator[Cell]:
            yield from sweep.cells(study)
            for part in sweep.parts:
                yield from cells(part)

        lacking: dict[tuple[str, str], list[str]] = {}
        for cell in cells(self):
            if what := study.undefined(cell):
                lacking.setdefault((cell.dataset, what), []).append(cell.method)
        sentences = []
        for (dataset, what), methods in lacking.items():
            which = f"{', '.join(dict.fromkeys(methods))} {'are' if len(set(methods)) > 1 else 'is'}"
            sentences.append(f"{dataset}: {which} not defined for {what}")
        return sentences


def union(name: str, parts: Sequence[Sweep]) -> Sweep:
    """Everything that `parts` ask for, at every batch size, and all of their exhibits.

    Raises:
        UserError: a part has readings, which stand at one batch size, or a second round.
    """
    for part in parts:
        if part.readings or part.then:
            raise UserError(f"sweep {name}: part {part.name} has readings of its own; run it by itself")
    exhibits = dict.fromkeys(exhibit for part in parts for exhibit in part.exhibits)
    return Sweep(name, exhibits=tuple(exhibits), parts=tuple(parts))


def known_sweeps() -> dict[str, Path]:
    """The sweep files that come with s3ray, by their names."""
    return {file.stem: file for file in sorted(project_folder("sweeps").glob("*.py"))}


def sweep_file(told: Path | str) -> Path:
    """A sweep file by its path or, of one that comes with s3ray, by its name.

    Raises:
        UserError: there is none.
    """
    path = local_path(told, "SWEEP")
    if path.is_file() and path.suffix == ".py":
        return path
    known = known_sweeps()
    if str(told) not in known:
        raise UserError(f"{path}: no such sweep file; {nearest(path.stem, known)}; or give the path of a .py file")
    return known[str(told)]


def load_sweep(path: Path | str) -> Sweep:
    """The `SWEEP` of a sweep file, which `sweep_file` finds.

    Raises:
        UserError: no such file, one that defines no `SWEEP`, or one whose `SWEEP` has the name of the file beside it.
    """
    path = sweep_file(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
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
