"""Run what a cell misses, on every rank of a worker group or alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Literal

import pyarrow as pa
import torch
from safetensors import torch as safetensors
from torch import Tensor

from s3ray.data.dataset import Dataset
from s3ray.execution.checkpoints import StageMonitor
from s3ray.execution.drift import WEIGHTS, artifact_files, record_drift
from s3ray.execution.provenance import environment, environment_digest, provenance
from s3ray.execution.ranks import from_rank_zero
from s3ray.execution.tensorboard import Curve
from s3ray.model import TrainedModel
from s3ray.stages.encode import Begun
from s3ray.stages.stage import Context, Inputs, Outcome, StageRun
from s3ray.store import Claims, DamagedError, LeaseLostError, Marker, Store
from s3ray.sweep import CellPlan

ATTEMPTS = 3  # at a cell of which something turns out damaged


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a cell; `stage` reads like `selection suff+min`."""

    cell: str
    dataset: str
    state: Literal["started", "step", "finished", "damaged", "cell_finished", "cell_failed"]
    stage: str = ""
    step: int = 0
    total: int = 0
    seconds: float = 0.0
    cause: str = ""
    # A training stage's at its latest step; of a curve its best accuracy on validation, `valid_accuracy`.
    metrics: Mapping[str, float] = field(default_factory=dict)


Report = Callable[[Event], None]


def run_cell(
    plan: CellPlan,
    data: Dataset,
    store: Store,
    report: Report,
    committed: Collection[str] | None = None,
    *,
    device: torch.device,
    checkpoint_interval: float,
    leaving: Callable[[], bool] | None = None,
    claims: Claims | None = None,
) -> bool:
    """Compute and commit every stage run of `plan` that the store lacks, and nobody else is at work on.

    What turns out damaged, or was replaced by another writer meanwhile, is computed again with all that stands on it.

    Args:
        report: called on every rank with each event.
        committed: identities of the runs that the store has, the same on every rank; None: they are looked up.
        checkpoint_interval: seconds between checkpoints of a stage that trains.
        leaving: whether a node of this worker group is about to be taken away; called on every rank at once.
        claims: rank 0 claims with them what is computed; None: nobody else is at work.

    Returns:
        Whether all is committed: False if something is left to another sweep, which works on it.

    Raises:
        DivergedError: a loss became NaN or infinite. What was committed before stays.
        DamagedError: the storage damages what it is given, again and again.
        LeaseLostError: a claim was lost, on every rank. What was committed before stays, as do checkpoints.
    """
    attempts = 0
    while True:
        attempts += 1
        if committed is None:
            committed = from_rank_zero(lambda: set(store.markers(plan.runs)))
        try:
            return _CellRunner(plan, data, store, report, device, checkpoint_interval, leaving, claims).run(committed)
        except DamagedError as error:  # the same on every rank
            if attempts == ATTEMPTS:
                raise
            report(Event(str(plan.cell), plan.cell.dataset, "damaged", cause=str(error)))
            committed = None


@dataclass
class _CellRunner:
    plan: CellPlan
    data: Dataset
    store: Store
    report: Report
    device: torch.device
    checkpoint_interval: float
    leaving: Callable[[], bool] | None
    claims: Claims | None

    def __post_init__(self) -> None:
        self._weights: dict[str, Mapping[str, Tensor]] = {}  # of the cell's trained models, by identity
        self._markers: dict[str, Marker] = {}  # of the results that these weights are
        self._loaded: tuple[str, TrainedModel] | None = None  # the model at hand, and the identity of its run
        self._begun = Begun()  # of that model
        self._seen: dict[tuple[bool, bool, bool], Dataset] = {}  # the data as kinds of runs see them
        self._is_noted = False  # whether the store knows the packages that this process runs with
        self._holds: Callable[[], bool] | None = None  # on rank 0: whether what is claimed is still ours
        self._training: StageMonitor | None = None  # of the training stage at work

    def run(self, committed: Collection[str]) -> bool:
        missing = {run.identity for run in self.plan.missing(committed)}
        lacking = [(label, run) for label, run in labelled(self.plan) if run.identity in missing]
        # What belongs together is said together: a curve of ten ratios is one line, not ten.
        together = [(label, [run for _, run in group]) for label, group in groupby(lacking, key=lambda entry: entry[0])]
        # One claim at a time: two sweeps that meet in another order cannot wait for each other.
        for claim, claimed in groupby(together, key=lambda entry: entry[1][0].claim):
            groups = list(claimed)
            runs = [run for _, group in groups for run in group]
            others = missing - {run.identity for run in runs}
            if any(run.parent and run.parent.identity in others for run in runs):
                continue  # another sweep is at work on what these stand on
            with self._claimed(claim, brief=not (runs[0].stage.trains or runs[0].parent)) as ours:
                if not ours:
                    continue
                for label, group in groups:
                    # Asked only now: another cell may have done it, or we slept while others did.
                    done = from_rank_zero(partial(self.store.markers, group))
                    if left := [run for run in group if run.identity not in done]:
                        self._together(label, left)
            missing -= {run.identity for run in runs}
        return not missing

    @contextmanager
    def _claimed(self, claim: str, *, brief: bool) -> Iterator[bool]:
        """Whether this worker group may do what is claimed so, the same on every rank; rank 0 holds the claim.

        What is brief is awaited: many cells share it, and doing it themselves would take them as long.
        """
        if self.claims is None:
            yield True
            return
        claims = self.claims
        with ExitStack() as held:

            def take() -> bool:
                while (holds := held.enter_context(claims.take(claim))) is None and brief:
                    time.sleep(0.5)
                self._holds = holds
                return holds is not None

            yield from_rank_zero(take)

    def _still_ours(self) -> bool:
        """On rank 0: whether the claim is."""
        return self._holds is not None and self._holds()

    def _together(self, label: str, runs: Sequence[StageRun]) -> None:
        self._event("started", label)
        curve = {run.identity for branch in self.plan.branches for run in branch.curve}
        seconds, reached, rows = 0.0, list[float](), list[dict[str, Any]]()
        for run in runs:
            try:
                taken, rows = self._one(run, label)
            except Exception as error:
                error.add_note(f"in {label}{self._reached(error)}")
                raise
            seconds += taken
            if run.identity in curve:  # not of controls, floors and the reference
                found = [row.get("accuracy") for row in rows if row.get("split") == "valid"]
                reached += [accuracy for accuracy in found if accuracy is not None]
        metrics = rows[-1] if runs[-1].stage.trains else {"valid_accuracy": max(reached)} if reached else {}
        self._event("finished", label, seconds=seconds, metrics=metrics)

    def _one(self, run: StageRun, label: str) -> tuple[float, list[dict[str, Any]]]:
        """Compute and commit a stage run; its seconds and rows."""
        self._training = None
        if self.claims is not None and not from_rank_zero(self._still_ours):
            raise LeaseLostError
        parent = self._model(run.parent) if run.parent else None
        started = time.monotonic()
        monitor = self._training = self._monitor(run, label) if run.stage.trains else None
        if run.stage.trains:
            self._loaded = None  # the parent's model is about to become another
        outcome = run.stage.run(run.config, self._visible(run), parent, Context(self.device, monitor, self._begun))
        seconds = time.monotonic() - started
        if monitor is not None:
            monitor.finished(outcome.rows)
            seconds = monitor.seconds
        marker, theirs = from_rank_zero(lambda: self._committed(run, outcome, seconds))
        if run.parent is not None and marker.parent_attempt != self._markers[run.parent.identity].attempt:
            raise _replaced(run.parent)
        if outcome.weights is not None:
            self._markers[run.identity] = marker
            self._weights[run.identity] = outcome.weights if theirs is None else safetensors.load(theirs)
        return seconds, outcome.rows

    def _reached(self, error: Exception) -> str:
        """How far the training was that an error ended; its curve goes to the store, for whoever asks why."""
        if self._training is None:
            return ""
        if not isinstance(error, LeaseLostError):  # then the curve is another's
            with suppress(OSError, pa.ArrowException):  # whatever its curve meets, the error is what counts
                self._training.ended_early()
        return f", after {self._training.reached}"

    def _committed(self, run: StageRun, outcome: Outcome, seconds: float) -> tuple[Marker, bytes | None]:
        """Commit a result; the marker that counts, and, where another writer was first, its weights."""
        self._note_environment()
        files = artifact_files(outcome)
        committed = self.store.commit(
            run,
            files,
            seconds=seconds,
            provenance=provenance(self.device),
            inputs=run.inputs(self.data) if run.stage.trains else None,
            parent=self._markers[run.parent.identity] if run.parent else None,
        )
        if committed.is_first:
            return committed.marker, None
        record_drift(self.store, committed.marker, committed.files, files, provenance(self.device))
        return committed.marker, committed.files.get(WEIGHTS)

    def _note_environment(self) -> None:
        """Keep what the markers' provenance names by its digest, once per store."""
        file = f"{environment_digest()}.txt"
        if not self._is_noted and file not in self.store.names("environments"):
            self.store.write(environment(), "environments", file)
        self._is_noted = True

    def _visible(self, run: StageRun) -> Dataset:
        """What the run is given of the data; kept for those of its kind, since padding copies all of them."""
        kind = (run.stage.reads_truth, run.stage.reads_scores, run.routes_padding)
        if kind not in self._seen:
            self._seen[kind] = run.visible(self.data)
        return self._seen[kind]

    def _model(self, run: StageRun) -> TrainedModel:
        """The trained model of a run, built anew unless it is at hand."""
        if self._loaded is not None and self._loaded[0] == run.identity:
            return self._loaded[1]
        parent = self._model(run.parent) if run.parent else None
        assert run.stage.restore is not None
        model = run.stage.restore(run.config, Inputs.of(self.data), parent, self._weights_of(run)).to(self.device)
        self._loaded, self._begun = (run.identity, model), Begun()
        return model

    def _weights_of(self, run: StageRun) -> Mapping[str, Tensor]:
        if run.identity not in self._weights:
            marker, content = from_rank_zero(lambda: self._stored(run))
            self._markers[run.identity], self._weights[run.identity] = marker, safetensors.load(content)
        return self._weights[run.identity]

    def _stored(self, run: StageRun) -> tuple[Marker, bytes]:
        """A committed run's marker and weights; they fit those of its parent that are at hand."""
        marker = self.store.marker(run)
        at_hand = self._markers.get(run.parent.identity) if run.parent else None
        if marker is None or (at_hand and at_hand.attempt != marker.parent_attempt):
            raise _replaced(run)
        return marker, self.store.payload(marker, WEIGHTS)

    def _event(self, state: Any, stage: str, **more: Any) -> None:
        self.report(Event(str(self.plan.cell), self.plan.cell.dataset, state, stage, **more))

    def _monitor(self, run: StageRun, label: str) -> StageMonitor:
        def report(step: int, total: int, metrics: Mapping[str, float]) -> None:
            self._event("step", label, step=step, total=total, metrics=metrics)

        def damaged(sentence: str) -> None:
            self._event("damaged", label, cause=sentence)

        holds = self._still_ours if self.claims is not None else None
        # A sign of life about twice a minute, at steps on which all ranks agree.
        reports = int(self.plan.seconds[run.identity] // 30)
        curve = Curve(self.store, self.plan.cell, run, label)
        parent, interval = self._markers[run.parent.identity].attempt if run.parent else None, self.checkpoint_interval
        return StageMonitor(self.store, run, parent, curve, interval, report, reports, self.leaving, holds, damaged)


def _replaced(run: StageRun) -> DamagedError:
    return DamagedError(
        f"{run.stage.name} {run.identity[:12]}: was replaced meanwhile; run again to compute what follows"
    )


def labelled(plan: CellPlan) -> list[tuple[str, StageRun]]:
    """A cell's runs in order, each with what it is called: its stage, or, of a curve, the curve's last, and branch.

    What is called the same has one claim.
    """
    labelled = [(plan.training.stage.name, plan.training)]
    for branch in plan.branches:
        for group in branch.groups:
            labelled += [(f"{group[-1].stage.name} {branch.branch}", run) for run in group]
    labelled += [("controls" if run.parent else run.stage.name, run) for run in plan.floors.values()]
    return [*labelled, (plan.reference.stage.name, plan.reference)]
