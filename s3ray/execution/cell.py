"""Run what a cell misses, on every rank of a worker group or alone. No Ray here: tests call it directly.

Only rank 0 touches artifacts; what it reads it broadcasts, so that ranks cannot disagree.
"""

from __future__ import annotations

import dataclasses
import io
import math
import pickle
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from safetensors import torch as safetensors
from torch import Tensor

from s3ray.baselines import Baseline, build_baseline, train_baseline
from s3ray.config import Branch
from s3ray.data.dataset import Dataset
from s3ray.engine.provenance import provenance
from s3ray.engine.tensorboard import Curve
from s3ray.model import S3Model, build_model
from s3ray.model.parameters import ParameterCount
from s3ray.stages import (
    Metrics,
    Representation,
    Snapshot,
    encode_split,
    kept_points,
    pruning_curve,
    reference_points,
    s3_representation,
    select,
    specialize,
)
from s3ray.stages.collective import rank, workers
from s3ray.store import StageRun, Store
from s3ray.sweep import CellPlan

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a cell; `stage` reads like `selection suff+min`."""

    cell: str
    dataset: str
    state: Literal["started", "step", "finished", "cell_finished", "cell_failed"]
    stage: str = ""
    step: int = 0
    total: int = 0
    seconds: float = 0.0
    cause: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)  # a training stage's, at its latest step


Report = Callable[[Event], None]


def from_rank_zero(read: Callable[[], _T]) -> _T:
    """`read()` on rank 0, its result (or its exception) on every rank."""
    if workers() == 1:
        return read()
    outcome: list[Any] = [None]
    if rank() == 0:
        try:
            outcome = [(read(), None)]
        except Exception as error:  # raised again on every rank, below
            outcome = [(None, error)]
    dist.broadcast_object_list(outcome)
    value, failure = outcome[0]
    if failure is not None:
        raise failure
    result: _T = value
    return result


# Asked at these steps, since all ranks must ask at the same one; clouds give 30 to 120 seconds of notice.
LEAVING_STEPS = 10
LEAVING_INTERVAL = 5.0  # seconds between checkpoints on a node that will be taken away


class StageMonitor:
    """Saves a stage's progress and its curve every `interval` seconds, and reports `reports` times, evenly spread.

    Once `leaving` says that a node is about to be taken away, it saves at once and then often.
    """

    def __init__(
        self,
        store: Store,
        run: StageRun,
        curve: Curve,
        interval: float,
        report: Callable[[int, int, Mapping[str, float]], None],
        reports: int,
        leaving: Callable[[], bool] | None = None,
    ) -> None:
        self._store, self._run, self._curve, self._interval = store, run, curve, interval
        self._report, self._reports = report, reports
        self._leaving = leaving
        self._saved = time.monotonic()

    def resume(self) -> Snapshot | None:
        content = from_rank_zero(lambda: self._store.latest_checkpoint(self._run))
        snapshot: Snapshot | None = None
        if content is not None:
            # One that was cut short, by a power failure perhaps, is none.
            with suppress(EOFError, RuntimeError, pickle.UnpicklingError):
                snapshot = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        if rank() == 0:
            self._curve.begin(snapshot["step"] if snapshot else 0)
        return snapshot

    def stepped(self, step: int, total: int, snapshot: Callable[[], Snapshot]) -> None:
        self._curve.stepped()
        if self._reports and step % max(total // (self._reports + 1), 1) == 0 and step < total:
            self._report(step, total, snapshot()["metrics"][-1])
        if self._leaving and step % LEAVING_STEPS == 0 and self._leaving():
            self._leaving = None
            self._interval = min(self._interval, LEAVING_INTERVAL)
            self._saved = -math.inf
        if rank() == 0 and step < total and time.monotonic() - self._saved >= self._interval:
            progress, buffer = snapshot(), io.BytesIO()
            self._curve.write(progress["metrics"])  # first: what no checkpoint covers is written again
            torch.save(progress, buffer)
            self._store.save_checkpoint(self._run, step, buffer.getvalue())
            self._saved = time.monotonic()

    def finished(self, metrics: Metrics) -> None:
        """Write what is left of the curve."""
        if rank() == 0:
            self._curve.write(metrics)


def run_cell(
    plan: CellPlan,
    data: Dataset,
    store: Store,
    report: Report,
    *,
    device: torch.device,
    checkpoint_interval: float,
    leaving: Callable[[], bool] | None = None,
) -> None:
    """Compute and commit every stage of `plan` that the store lacks.

    Args:
        report: called on every rank with each event.
        checkpoint_interval: seconds between checkpoints of a stage that trains.
        leaving: whether a node of this worker group is about to be taken away; called on every rank at once.

    Raises:
        DivergedError: a loss became NaN or infinite. What was committed before stays.
    """
    _CellRunner(plan, data, store, report, device, checkpoint_interval, leaving).run()


@dataclass
class _CellRunner:
    plan: CellPlan
    data: Dataset
    store: Store
    report: Report
    device: torch.device
    checkpoint_interval: float
    leaving: Callable[[], bool] | None

    def run(self) -> None:
        plan = self.plan
        committed = from_rank_zero(lambda: set(self.store.markers(plan.runs)))
        missing = [run for run in plan.runs if run.identity not in committed]
        if any(run is not plan.reference for run in missing):
            self._branches(committed)
        if plan.reference in missing:
            self._reference(plan.reference)

    def _branches(self, committed: set[str]) -> None:
        trained = self._trained(self.plan.training.identity in committed)
        # A model of its own for the branches: Selection must start from the Specialization every time.
        for branch in self.plan.branches:
            if all(run.identity in committed for run in branch.runs):
                continue
            model = self._model(trained)
            if branch.selection is not None:
                self._selected(model, branch.selection, branch.branch, branch.selection.identity in committed)
            representation = self._representation(model, branch.branch)
            if branch.curve.identity not in committed:
                self._curve(model, representation, branch.curve, branch.branch)
            if branch.kept is not None and branch.kept.identity not in committed:
                self._kept(representation, branch.kept, branch.branch)

    def _model(self, weights: Mapping[str, Tensor] | None = None) -> S3Model | Baseline:
        cell, settings, data = self.plan.cell, self.plan.settings, self.data
        model: S3Model | Baseline
        if cell.method == "s3":
            model = build_model(settings.model, data.features, cell.seed)
        else:
            classes = data.classes
            model = build_baseline(cell.method, settings.model, settings.baseline, data.features, classes, cell.seed)
        if weights is not None:
            model.load_state_dict(dict(weights))
        return model.to(self.device)

    def _representation(self, model: S3Model | Baseline, branch: Branch) -> Representation:
        on_sphere = self.plan.settings.probe.on_sphere
        if isinstance(model, Baseline):
            return Representation(model, lambda batch, keep: (model.represent(batch, branch, on_sphere), 0, 0))
        return s3_representation(model, on_sphere=on_sphere)

    def _trained(self, committed: bool) -> dict[str, Tensor]:
        run, settings = self.plan.training, self.plan.settings
        if committed:
            return self._weights(run)
        model, monitor, started = self._model(), self._monitor(run, run.stage), self._started(run)
        options: dict[str, Any] = {
            "batch_size": self.plan.cell.batch_size,
            "seed": self.plan.cell.seed,
            "monitor": monitor,
        }
        if isinstance(model, Baseline):
            metrics = train_baseline(model, self.data.train, settings.specialization.optimizer, **options)
        else:
            metrics = specialize(model, self.data.train, settings.specialization, **options)
        weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
        monitor.finished(metrics)
        self._commit(run, run.stage, _trained(weights, metrics), started, metrics[-1])
        return weights

    def _selected(self, model: S3Model | Baseline, run: StageRun, branch: Branch, committed: bool) -> None:
        assert isinstance(model, S3Model)
        routers = model.router_parameters()
        if committed:
            with torch.no_grad():
                for name, tensor in self._weights(run).items():
                    routers[name].copy_(tensor)
            return
        label = f"{run.stage} {branch}"
        monitor, started = self._monitor(run, label), self._started(run, branch)
        metrics = select(
            model,
            self.data.train,
            self.plan.settings.selection.for_branch(branch),
            batch_size=self.plan.cell.batch_size,
            seed=self.plan.cell.seed,
            monitor=monitor,
        )
        weights = {name: tensor.detach().cpu() for name, tensor in routers.items()}
        monitor.finished(metrics)
        self._commit(run, label, _trained(weights, metrics), started, metrics[-1])

    def _curve(self, model: S3Model | Baseline, representation: Representation, run: StageRun, branch: Branch) -> None:
        settings, started = self.plan.settings, self._started(run, branch)
        points = pruning_curve(
            representation,
            self.data,
            run.config["ratios"],
            settings.probe,
            batch_size=settings.sparsification.batch_size,
        )
        count = ParameterCount.of(*([model] if isinstance(model, S3Model) else model.used(branch)))
        rows = []
        for point in points:
            share = point.pairs_kept / point.pairs_routed if point.pairs_routed else 1.0
            active = {
                "active_parameters": count.active(share, "all_layers"),
                "active_parameters_paper": count.active(share, "paper"),
            }
            rows.append(dataclasses.asdict(point) | active)
        self._commit(run, f"{run.stage} {branch}", {"rows.parquet": _parquet(rows)}, started)

    def _kept(self, representation: Representation, run: StageRun, branch: Branch) -> None:
        started = self._started(run, branch)
        rows: list[dict[str, Any]] = []
        for ratio in run.config["ratios"]:
            encoded = {
                name: encode_split(
                    representation, split, batch_size=self.plan.settings.sparsification.batch_size, keep=ratio
                ).z
                for name, split in self.data.splits.items()
            }
            if rank() == 0:
                by_modality = {
                    name: dict(zip(self.data.features, np.split(z, len(self.data.features), axis=1), strict=True))
                    for name, z in encoded.items()
                }
                points = kept_points(by_modality, self.data)
                rows += [{"preservation_ratio": ratio, **dataclasses.asdict(point)} for point in points]
        self._commit(run, f"{run.stage} {branch}", {"rows.parquet": _parquet(rows)}, started)

    def _reference(self, run: StageRun) -> None:
        # Shared by all cells of the dataset: another one may have been here by now.
        if from_rank_zero(lambda: self.store.marker(run)) is not None:
            return
        started = self._started(run)
        points = reference_points(self.data, self.plan.settings.probe) if rank() == 0 else []
        self._commit(run, run.stage, {"rows.parquet": _parquet([dataclasses.asdict(p) for p in points])}, started)

    def _weights(self, run: StageRun) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = safetensors.load(
            from_rank_zero(lambda: self.store.artifact(run, "weights.safetensors"))
        )
        return weights

    def _event(self, state: Any, stage: str, **more: Any) -> None:
        self.report(Event(str(self.plan.cell), self.plan.cell.dataset, state, stage, **more))

    def _started(self, run: StageRun, branch: Branch | None = None) -> float:
        self._event("started", f"{run.stage} {branch}" if branch else run.stage)
        return time.perf_counter()

    def _monitor(self, run: StageRun, label: str) -> StageMonitor:
        def report(step: int, total: int, metrics: Mapping[str, float]) -> None:
            self._event("step", label, step=step, total=total, metrics=metrics)

        # A sign of life about twice a minute, at steps on which all ranks agree.
        reports = int(self.plan.seconds[run.identity] // 30)
        curve = Curve(self.store, self.plan.cell, run, label)
        return StageMonitor(self.store, run, curve, self.checkpoint_interval, report, reports, self.leaving)

    def _commit(
        self,
        run: StageRun,
        label: str,
        files: Mapping[str, bytes],
        started: float,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        seconds = time.perf_counter() - started
        if rank() == 0:
            self.store.commit(run, files, seconds=seconds, provenance=provenance(self.device))
        self._event("finished", label, seconds=seconds, metrics=metrics or {})


def _trained(weights: Mapping[str, Tensor], metrics: Metrics) -> dict[str, bytes]:
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    return {"weights.safetensors": safetensors.save(contiguous), "metrics.parquet": _parquet(metrics)}


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()
