"""A training stage's progress in the store, and its curve."""

from __future__ import annotations

import io
import math
import pickle
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from s3ray.execution.ranks import from_rank_zero
from s3ray.execution.tensorboard import Curve
from s3ray.stages.collective import rank
from s3ray.stages.stage import StageRun
from s3ray.stages.training import Metrics, Snapshot
from s3ray.store import LeaseLostError, Store

CLAIM_INTERVAL = 1.0  # seconds after which it is asked again whether the claim on the stage is still ours
# Asked at these steps, since all ranks must ask at the same one; clouds give 30 to 120 seconds of notice.
LEAVING_STEPS = 10
LEAVING_INTERVAL = 5.0  # seconds between checkpoints on a node that will be taken away


class StageMonitor:
    """Saves a stage's progress and its curve every `interval` seconds, and reports `reports` times, evenly spread.

    Once `leaving` says that a node is about to be taken away, it saves at once and then often. Once `holds` says that
    the claim on the stage is lost, it ends the stage on every rank.
    """

    def __init__(
        self,
        store: Store,
        run: StageRun,
        parent: str | None,
        curve: Curve,
        interval: float,
        report: Callable[[int, int, Mapping[str, float]], None],
        reports: int,
        leaving: Callable[[], bool] | None = None,
        holds: Callable[[], bool] | None = None,
        damaged: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """`parent`: the attempt of the parent's result that the stage starts from; a checkpoint that another led to is
        none. `leaving` is asked on every rank at once, `holds` on rank 0 alone; `damaged` is told on every rank of
        checkpoints that are.
        """
        self._store, self._run, self._curve, self._interval = store, run, curve, interval
        self._parent = parent
        self._report, self._reports = report, reports
        self._leaving, self._damaged = leaving, damaged
        self._holds, self._steps, self._due, self._asked = holds, 0, 1, time.monotonic()
        self._began = self._saved = time.monotonic()
        self._earlier = 0.0  # seconds that led to the checkpoint it was resumed from
        self._step, self._total = 0, 0
        self._metrics: Callable[[], Metrics] = list  # its rows so far

    @property
    def seconds(self) -> float:
        """Seconds that the stage has taken, those before it was resumed included."""
        return self._earlier + time.monotonic() - self._began

    def resume(self, fits: Callable[[Snapshot], bool]) -> Snapshot | None:
        content, told = from_rank_zero(lambda: self._latest(fits))
        for sentence in told:
            self._damaged(sentence)
        checkpoint = _loaded(content) if content is not None else None
        snapshot: Snapshot | None = None
        if checkpoint is not None:
            snapshot, self._earlier = checkpoint["snapshot"], checkpoint["seconds"]
        if snapshot is not None:
            rows: Metrics = snapshot["metrics"]
            self._step, self._metrics = snapshot["step"], lambda: rows
        if rank() == 0:
            self._curve.begin(self._step)
        return snapshot

    def _latest(self, fits: Callable[[Snapshot], bool]) -> tuple[bytes | None, list[str]]:
        """The latest checkpoint that can be taken up; those that cannot are none, and in nobody's way from now on.

        And a sentence for each that is damaged.
        """
        told: list[str] = []
        for name, content in self._store.checkpoints(self._run, told.append):
            checkpoint = _loaded(content)
            if checkpoint is not None and checkpoint.get("parent") == self._parent and fits(checkpoint["snapshot"]):
                return content, told
            self._store.drop_checkpoint(self._run, name)
        return None, told

    def stepped(self, step: int, total: int, snapshot: Callable[[], Snapshot]) -> None:
        self._curve.stepped()
        self._step, self._total, self._metrics = step, total, lambda: snapshot()["metrics"]
        self._check_claim()
        if self._reports and step % max(total // (self._reports + 1), 1) == 0 and step < total:
            self._report(step, total, snapshot()["metrics"][-1])
        if self._leaving and step % LEAVING_STEPS == 0 and self._leaving():
            self._leaving = None
            self._interval = min(self._interval, LEAVING_INTERVAL)
            self._saved = -math.inf
        if rank() == 0 and step < total and time.monotonic() - self._saved >= self._interval:
            progress, buffer = snapshot(), io.BytesIO()
            self._curve.write(progress["metrics"])  # first: what no checkpoint covers is written again
            torch.save({"snapshot": progress, "seconds": self.seconds, "parent": self._parent}, buffer)
            self._store.save_checkpoint(self._run, step, buffer.getvalue())
            self._saved = time.monotonic()

    def _check_claim(self) -> None:
        """LeaseLostError on every rank once the claim is lost. Rank 0 says after how many steps all ask again."""
        self._steps += 1
        if (holds := self._holds) is None or self._steps < self._due:
            return

        def ask() -> tuple[bool, int]:
            pace = self._steps / (time.monotonic() - self._asked)
            return holds(), max(1, min(int(CLAIM_INTERVAL * pace), 2 * self._steps))

        ours, self._due = from_rank_zero(ask)
        self._steps, self._asked = 0, time.monotonic()
        if not ours:
            raise LeaseLostError

    @property
    def reached(self) -> str:
        """How far the stage is, in words."""
        return f"step {self._step}" + (f" of {self._total}" if self._total else "")

    def finished(self, metrics: Metrics) -> None:
        """Write what is left of the curve."""
        if rank() == 0:
            self._curve.write(metrics)

    def ended_early(self) -> None:
        """Write what is left of the curve of a stage that an error ended."""
        self.finished(self._metrics())


def _loaded(content: bytes) -> dict[str, Any] | None:
    """A checkpoint as it was saved; None if it is none, such as another program's file."""
    try:
        checkpoint = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
        seconds = float(checkpoint["seconds"])
    except (
        EOFError,
        RuntimeError,
        pickle.UnpicklingError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
    ):
        return None
    return checkpoint if isinstance(checkpoint.get("snapshot"), dict) and 0 <= seconds < math.inf else None
