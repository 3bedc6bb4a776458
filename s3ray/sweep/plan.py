"""The plan: sweep × store → what is cached, what must run, at what estimated cost."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from s3ray.data.facts import DataFacts
from s3ray.errors import UserError
from s3ray.methods import METHODS, S3, MethodConfig
from s3ray.model import Pruning
from s3ray.settings import Settings
from s3ray.stages.factors import FACTORS, FactorsConfig
from s3ray.stages.metrics import METRICS
from s3ray.stages.missing import MISSING, SHARES, MissingConfig
from s3ray.stages.modalities import MODALITIES, ModalitiesConfig
from s3ray.stages.probe import PROBE, ProbeConfig, ProbeSettings
from s3ray.stages.reference import REFERENCE
from s3ray.stages.selection import SELECTION, SelectionConfig
from s3ray.stages.sentiment import SENTIMENT, SentimentConfig
from s3ray.stages.sparsification import SPARSIFICATION, SparsificationConfig
from s3ray.stages.specialization import SPECIALIZATION, SpecializationConfig
from s3ray.stages.stage import Stage, StageRun
from s3ray.stages.untrained import UNTRAINED, UntrainedConfig
from s3ray.stages.variants import VARIANTS
from s3ray.store import Marker, Store
from s3ray.sweep import timing
from s3ray.sweep.cell import Cell
from s3ray.sweep.grid import Asked, Request, Study, Sweep
from s3ray.sweep.packs import make_packs

# Every stage that a plan can ask for, by name, in the order in which a cell runs them.
_ORDER: tuple[Stage[Any], ...] = (
    SPECIALIZATION,
    *(method.stage for method in METHODS.values()),
    SELECTION,
    PROBE,
    SPARSIFICATION,
    FACTORS,
    SENTIMENT,
    MODALITIES,
    MISSING,
    UNTRAINED,
    REFERENCE,
)
STAGES: Mapping[str, Stage[Any]] = {stage.name: stage for stage in _ORDER}
assert len(STAGES) == len(_ORDER), "two stages have one name; a method's is its stage's"
assert S3 not in METHODS, f"{S3} is S3's own name"


@dataclass(frozen=True)
class BranchPlan:
    """A branch's stage runs.

    Attributes:
        trained: the run whose model is probed: Selection's or, without it, the training itself.
        curve: the probe and, of S3, Sparsification at every ratio below 1.
        controls: per rule, Sparsification that keeps other pairs than the router's first, at the same ratios.
        factors: what is measured of a simulation's factors, at every ratio; empty if nothing is.
        sentiment: the regressions of sentiment scores, one per point of the curve and in its order; empty likewise.
        modalities: what each modality carries, at every ratio; empty likewise.
        lacking: what is left where samples lack modalities, at every ratio; empty likewise.
    """

    branch: str
    trained: StageRun
    curve: tuple[StageRun, ...]
    controls: Mapping[str, tuple[StageRun, ...]] = field(default_factory=dict)
    factors: tuple[StageRun, ...] = ()
    sentiment: tuple[StageRun, ...] = ()
    modalities: tuple[StageRun, ...] = ()
    lacking: tuple[StageRun, ...] = ()

    @property
    def selection(self) -> StageRun | None:
        return self.trained if self.trained.parent else None

    @property
    def groups(self) -> list[tuple[StageRun, ...]]:
        """What belongs together and is run, and said, together; parents first."""
        selection = (self.selection,) if self.selection else ()
        measured = [self.factors, self.sentiment, self.modalities, self.lacking]
        return [selection, self.curve, *self.controls.values(), *measured]

    @property
    def runs(self) -> list[StageRun]:
        return [run for group in self.groups for run in group]


@dataclass(frozen=True)
class CellPlan:
    """A cell with everything that a worker needs to run it."""

    cell: Cell
    facts: DataFacts
    training: StageRun  # Specialization, or a prior method's
    branches: tuple[BranchPlan, ...]
    floors: Mapping[str, StageRun]  # of S3: what the cell's model gives with no expert, and untrained
    reference: StageRun  # the same for all cells of a dataset

    @cached_property
    def runs(self) -> list[StageRun]:
        """Every stage run, parents first."""
        measured = [run for branch in self.branches for run in branch.runs]
        return [self.training, *measured, *self.floors.values(), self.reference]

    @cached_property
    def identity(self) -> str:
        """sha256 over the identities of all runs: equal cells are the same computation."""
        return hashlib.sha256("".join(run.identity for run in self.runs).encode()).hexdigest()

    @cached_property
    def seconds(self) -> Mapping[str, float]:
        """Estimated seconds per identity."""
        return {run.identity: run.estimate(self.facts) for run in self.runs}

    def missing(self, committed: Collection[str]) -> list[StageRun]:
        """The runs whose identities are not among those committed."""
        return [run for run in self.runs if run.identity not in committed]

    def ready(self, committed: Collection[str]) -> set[str]:
        """Claims of what can be done next: of the training until it is there, since little does not stand on it."""
        missing = self.missing(committed)
        if self.training in missing:
            return {self.training.claim}
        return {run.claim for run in missing if run.parent is None or run.parent.identity in committed}


@dataclass(frozen=True)
class Plan:
    """A sweep over a study, reconciled with a store.

    Attributes:
        naive: stage runs if nothing were shared: every curve with all that leads to it.
        machine: the kind of machine that will run it, as in provenance; None: not known, taken for the one that
            worked last.
        experience: of that kind of machine.
    """

    sweep: Sweep
    study: Study
    cells: tuple[CellPlan, ...]
    committed: Mapping[str, Marker]
    naive: Mapping[str, int]
    machine: str | None = None
    experience: timing.Experience = field(default_factory=timing.Experience)

    @cached_property
    def undefined(self) -> list[str]:
        """What of the sweep is left out, one sentence per dataset (`Sweep.undefined`)."""
        return self.sweep.undefined(self.study)

    @cached_property
    def pending(self) -> tuple[CellPlan, ...]:
        """Cells with something to run; of cells that are the same computation, the first."""
        first = {cell.identity: cell for cell in reversed(self.cells)}
        return tuple(c for c in self.cells if first[c.identity] is c and c.missing(self.committed))

    @cached_property
    def speeds(self) -> Mapping[str, float]:
        """Per stage, how many times longer it took on this kind of machine than its estimates say.

        A stage that was never measured there borrows from those that work as it does (train, or encode and probe),
        and where there are none from the others. Other kinds of machine say nothing: a GPU that trains ten times
        faster fits no probe any faster.
        """
        measured = self._measured

        def known(stages: Iterable[str], prior: float) -> float:
            return sum((measured[stage] for stage in stages), timing.Took()).corrected(prior)

        training = {name for name, stage in STAGES.items() if stage.trains}
        speeds = {}
        for stage in STAGES:
            alike = training if stage in training else STAGES.keys() - training
            speeds[stage] = known([stage], known(alike - {stage}, known(STAGES.keys() - alike, 1.0)))
        return speeds

    @cached_property
    def _measured(self) -> Mapping[str, timing.Took]:
        """Per stage, of the plan's own runs on this kind of machine; where these are few, with what others took."""
        own = dict.fromkeys(STAGES, timing.Took())
        for identity, estimate in self.estimates.items():
            marker = self.committed.get(identity)
            if marker is not None and marker.machine == self.runs_on:
                own[marker.stage] += timing.Took(marker.seconds * marker.workers, estimate)
        known = self.experience.stages
        return {stage: took if took.is_known else took + known.get(stage, timing.Took()) for stage, took in own.items()}

    @cached_property
    def estimates(self) -> Mapping[str, float]:
        """Seconds of every run by identity, before anything is corrected."""
        return {identity: seconds for cell in self.cells for identity, seconds in cell.seconds.items()}

    @cached_property
    def runs_on(self) -> str | None:
        """The kind of machine whose measurements count."""
        return self.machine or worked_last(self.committed.values())

    def seconds(self, cell: CellPlan) -> float:
        """Estimated seconds of what a cell still misses."""
        return sum(self.speeds[run.stage.name] * cell.seconds[run.identity] for run in cell.missing(self.committed))

    @cached_property
    def shares(self) -> list[float]:
        """Estimated seconds of every pending cell; what cells share, such as references, is the first one's."""
        counted: set[str] = set()
        shares = []
        for cell in self.pending:
            missing = {run.identity: run for run in cell.missing(self.committed) if run.identity not in counted}
            counted |= missing.keys()
            shares.append(sum(self.speeds[run.stage.name] * cell.seconds[name] for name, run in missing.items()))
        return shares

    def wall_seconds(self, slots: int, workers: int = 1) -> float:
        """Estimated seconds until a run ends that starts Ray and has `slots` worker groups of `workers` at a time."""
        if not self.pending:
            return 0.0
        slower, packs = self.experience.starts.corrected(), make_packs(self.shares, self.shares, slots=slots)
        return slower * timing.RAY_SECONDS + schedule(packs, slots, workers, slower * timing.GROUP_SECONDS)

    def wall_range(self, slots: int, workers: int = 1) -> tuple[float, float]:
        """Seconds at least and at most, by what is known of this kind of machine."""
        seconds = self.wall_seconds(slots, workers)
        return seconds / self.margin, seconds * self.margin

    @cached_property
    def margin(self) -> float:
        """A run takes from 1 / margin to margin times what is said; a stage that takes little of it may be unknown."""
        left: Counter[str] = Counter()
        for cell in self.pending:
            left.update({run.stage.name: cell.seconds[run.identity] for run in cell.missing(self.committed)})
        known = sum(seconds for stage, seconds in left.items() if self._measured[stage].is_known)
        is_known = self.experience.starts.is_known and known >= 0.9 * left.total()
        return timing.KNOWN_MARGIN if is_known else timing.UNKNOWN_MARGIN

    def summary(self) -> dict[str, Any]:
        """Counts per stage and the estimated cost, for `s3ray plan`."""
        stages: dict[str, dict[str, int]] = {}
        for stage in STAGES:
            runs = {run.identity for cell in self.cells for run in cell.runs if run.stage.name == stage}
            cached = len(runs & set(self.committed))
            if runs:
                stages[stage] = {
                    "naive": self.naive.get(stage, 0),
                    "unique": len(runs),
                    "cached": cached,
                    "to_run": len(runs) - cached,
                }
        waiting = sum(bool(cell.missing(self.committed)) for cell in self.cells)
        return {
            "sweep": self.sweep.name,
            "cells": {"total": len(self.cells), "cached": len(self.cells) - waiting, "to_run": waiting},
            "undefined": self.undefined,
            "stages": stages,
            "estimated_worker_seconds": round(sum(self.shares), 1),
            "datasets": {
                name: {
                    "kind": entry.facts.kind,
                    "scale": entry.scale,
                    "classes": entry.facts.classes,
                    "samples": dict(entry.facts.samples),
                    "subsampled": dict(entry.facts.subsampled),
                    "fingerprint": entry.facts.fingerprint,
                    "warnings": list(entry.facts.warnings),
                    "calibrated": self.study.chosen.get(name),
                    "tried": dict(self.study.tried.get(name, {})),
                }
                for name, entry in self.study.entries.items()
            },
        }


def schedule(packs: Iterable[Sequence[float]], slots: int, workers: int = 1, start: float = 0.0) -> float:
    """When the last pack ends, of these seconds of one worker each, `slots` of them at a time in this order.

    Args:
        start: seconds of a worker group's start.
    """
    free = [0.0] * slots
    for pack in packs:
        heapq.heapreplace(free, free[0] + start + sum(pack) / workers)
    return max(free)


def worked_last(markers: Iterable[Marker]) -> str | None:
    """The kind of machine of the latest result."""
    latest = max(markers, key=lambda marker: marker.committed_at, default=None)
    return latest.machine if latest else None


def packed(plan: Plan, slots: int) -> list[list[CellPlan]]:
    """The pending cells in packs; those that share a training stand in one, so that it is trained once."""
    sharing: dict[str, list[tuple[CellPlan, float]]] = {}
    for cell, seconds in zip(plan.pending, plan.shares, strict=True):
        sharing.setdefault(cell.training.identity, []).append((cell, seconds))
    groups = [[cell for cell, _ in group] for group in sharing.values()]
    totals = [sum(seconds for _, seconds in group) for group in sharing.values()]
    return [[cell for group in pack for cell in group] for pack in make_packs(groups, totals, slots=slots)]


def training_run(cell: Cell, settings: Settings, facts: DataFacts) -> StageRun:
    """What trains a cell's encoders: Specialization, or a prior method on dense encoders.

    Raises:
        UserError: χ does not fit the encoder's width.
    """
    if cell.method == S3:
        try:
            model = dataclasses.replace(settings.model, granularity=cell.granularity)
        except UserError as error:
            raise UserError(f"{cell.dataset}: {error}") from None
        trained = SpecializationConfig(
            model=model, training=settings.specialization, batch_size=cell.batch_size, seed=cell.seed
        )
        return SPECIALIZATION.planned(trained, facts)
    config = MethodConfig(
        model=settings.model.dense(),
        optimizer=settings.optimizer_of(cell.method),
        loss=settings.loss_of(cell.method),
        batch_size=cell.batch_size,
        seed=cell.seed,
    )
    return METHODS[cell.method].stage.planned(config, facts)


def _branch_plan(
    branch: str, cell: Cell, settings: Settings, facts: DataFacts, training: StageRun, asked: Asked
) -> BranchPlan:
    probe = settings.probe
    trained, output, prunings, controlled = training, branch, list[Pruning](), dict[str, list[Pruning]]()
    if cell.method == S3:
        output = "none"
        if asked.curve:
            prunings = settings.sparsification.prunings
            controlled = settings.sparsification.controlled(cell.seed)
        variant = VARIANTS[branch]
        if variant.config is not None:
            selection = SelectionConfig(
                variant=branch,
                version=variant.version,
                loss=variant.configure(settings.selection),
                optimizer=settings.selection.optimizer,
                batch_size=cell.batch_size,
                seed=cell.seed,
                noise=settings.selection.noise,
            )
            trained = SELECTION.planned(selection, facts, training)
    unpruned = ProbeConfig(output=output, on_sphere=probe.on_sphere, classifier=probe.classifier)
    pruned = functools.partial(_pruned, probe=probe, facts=facts, trained=trained)
    curve = [PROBE.planned(unpruned, facts, trained), *map(pruned, prunings)]
    controls = {rule: tuple(map(pruned, others)) for rule, others in controlled.items()}
    measured = [
        FACTORS.planned(FactorsConfig(output=output, on_sphere=probe.on_sphere, pruning=pruning), facts, trained)
        for pruning in ([None, *prunings] if asked.factors else [])
    ]
    regressed = [
        SENTIMENT.planned(SentimentConfig(output=output, on_sphere=probe.on_sphere, pruning=pruning), facts, trained)
        for pruning in ([None, *prunings] if asked.sentiment else [])
    ]
    carried = [
        MODALITIES.planned(
            ModalitiesConfig(output=output, on_sphere=probe.on_sphere, classifier=probe.classifier, pruning=pruning),
            facts,
            trained,
        )
        for pruning in ([None, *prunings] if asked.modalities else [])
    ]
    lacking = [
        MISSING.planned(
            MissingConfig(
                output=output,
                on_sphere=probe.on_sphere,
                classifier=probe.classifier,
                pruning=pruning,
                shares=SHARES,
                seed=cell.seed,
            ),
            facts,
            trained,
        )
        for pruning in ([None, *prunings] if asked.missing else [])
    ]
    groups = map(tuple, (measured, regressed, carried, lacking))
    return BranchPlan(branch, trained, tuple(curve), controls, *groups)


def _pruned(pruning: Pruning, *, probe: ProbeSettings, facts: DataFacts, trained: StageRun) -> StageRun:
    config = SparsificationConfig(pruning=pruning, on_sphere=probe.on_sphere, classifier=probe.classifier)
    return SPARSIFICATION.planned(config, facts, trained)


def _floors(cell: Cell, settings: Settings, facts: DataFacts, training: StageRun) -> dict[str, StageRun]:
    """What stands below a cell's curves: without any expert all its branches are one, since Selection trains routers.

    A prior method has no experts, and its untrained encoder is not S3's.
    """
    if cell.method != S3:
        return {}
    probe = settings.probe
    untrained = UntrainedConfig(
        model=training.config.model, seed=cell.seed, on_sphere=probe.on_sphere, classifier=probe.classifier
    )
    return {
        "no expert": _pruned(settings.sparsification.no_expert, probe=probe, facts=facts, trained=training),
        "untrained": UNTRAINED.planned(untrained, facts),
    }


def plan_cell(cell: Cell, settings: Settings, facts: DataFacts, branches: Mapping[str, Asked]) -> CellPlan:
    """Derive a cell's stage runs.

    Args:
        settings: what each stage reads of them becomes its configuration.
        branches: what is asked of each.

    Raises:
        UserError: χ does not fit the encoder's width.
    """
    training = training_run(cell, settings, facts)
    plans = [_branch_plan(branch, cell, settings, facts, training, asked) for branch, asked in branches.items()]
    reference = REFERENCE.planned(settings.probe.classifier, facts)
    return CellPlan(cell, facts, training, tuple(plans), _floors(cell, settings, facts, training), reference)


def make_plan(sweep: Sweep, study: Study, store: Store, machine: str | None = None) -> Plan:
    """Expand a sweep and look up what the store has; a cell that several parts ask for stands there once.

    Args:
        machine: the kind of machine that will run it (`s3ray.execution.provenance.machine_kind`), if known.

    Raises:
        UserError: a cell whose settings or data cannot work, a sweep without cells, or a metric of sentiment scores
            where no dataset has any.
    """
    source = METRICS[sweep.metric].source
    if source != "probe" and sweep.computes and not any(entry.facts.scores for entry in study.entries.values()):
        raise UserError(
            f"metric {sweep.metric!r}: needs sentiment scores, which none of {', '.join(study.entries)} has; prepare "
            f"mosi or mosei with this version, or choose another metric"
        )
    wanted: dict[Cell, Request] = {}
    naive: Counter[str] = Counter()

    def planned(request: Request) -> CellPlan:
        facts = study.entries[request.cell.dataset].facts
        sentiment = source == "regression" and facts.scores is not None
        branches = {name: asked._replace(sentiment=sentiment) for name, asked in request.branches.items()}
        return plan_cell(request.cell, request.settings, facts, branches)

    for request in sweep.requests(study):
        known = wanted.setdefault(request.cell, request).branches
        together = {name: asked | known.get(name, asked) for name, asked in request.branches.items()}
        wanted[request.cell] = request._replace(branches={**known, **together})
        alone = planned(request)
        naive.update(run.stage.name for branch in alone.branches for run in [alone.training, *branch.runs])
        naive.update(run.stage.name for run in [*alone.floors.values(), alone.reference])
    cells = tuple(map(planned, wanted.values()))
    if not cells and sweep.computes:
        left_out = sweep.undefined(study)
        raise UserError(left_out[0] if left_out else f"sweep {sweep.name}: yields no cell; give it datasets")
    committed = store.markers(run for cell in cells for run in cell.runs)
    experience = timing.Experience.load(store, machine or worked_last(committed.values()))
    return Plan(sweep, study, cells, committed, naive, machine, experience)
