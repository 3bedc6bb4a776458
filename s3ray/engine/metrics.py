"""A running sweep as Prometheus metrics, exported by Ray under these names with `ray_` before them.

The driver sets them all, since it hears of every event: one series per set of tags, however many workers there are,
and no tag names a single cell. Ray exports what a gauge was set to once and forgets it after two report intervals
(20 s): gauges are set again and again while the sweep runs, and vanish after it; counters stay.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from ray.util.metrics import Counter, Gauge, Histogram

from s3ray.engine.progress import States
from s3ray.execution import Event
from s3ray.sweep import Plan

_REFRESH = 5.0  # seconds after which gauges are set again although nothing happened; below the report interval of 10
_STAGE = ("sweep", "dataset", "stage")
# Seconds; from a smoke stage to a stage of hours.
_BOUNDARIES = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0]


class SweepMetrics:
    """Called by `Progress` with events and with where the cells stand; often, with no events if there are none."""

    def __init__(self, plan: Plan) -> None:
        self._sweep = plan.sweep.name
        self._latest: dict[tuple[Gauge, tuple[tuple[str, str], ...]], float] = {}  # value by gauge and tags
        self._set_at = 0.0
        self._granularity = {str(cell.cell): str(cell.cell.granularity) for cell in plan.pending}
        self._cells = Gauge("s3ray_cells", "Cells of the sweep by state.", tag_keys=("sweep", "dataset", "state"))
        # Two for one thing: Ray rebuilds a histogram's sum from its buckets, so only the counter's seconds are right.
        self._seconds = Counter("s3ray_stage_seconds", "Seconds that finished stages took.", tag_keys=_STAGE)
        self._durations = Histogram(
            "s3ray_stage_duration_seconds", "Finished stages by their seconds.", _BOUNDARIES, tag_keys=_STAGE
        )
        latest = "of the cell that reported last."
        self._loss = Gauge("s3ray_training_loss", f"Loss {latest}", tag_keys=(*_STAGE, "granularity"))
        self._entropy = Gauge(
            "s3ray_router_entropy_nats",
            f"Local (per token) and global (over tokens) router entropy {latest}",
            tag_keys=(*_STAGE, "granularity", "modality", "kind"),
        )

    def __call__(self, events: Sequence[Event], states: States) -> None:
        if not events and time.monotonic() - self._set_at < _REFRESH:
            return
        for event in events:
            self._stage(event)
        for dataset, cells in states.items():
            for state, number in cells.items():
                self._note(self._cells, number, {"sweep": self._sweep, "dataset": dataset, "state": state})
        for (gauge, tags), value in self._latest.items():
            gauge.set(value, dict(tags))
        self._set_at = time.monotonic()

    def _note(self, gauge: Gauge, value: float, tags: dict[str, str]) -> None:
        self._latest[gauge, tuple(tags.items())] = value

    def _stage(self, event: Event) -> None:
        tags = {"sweep": self._sweep, "dataset": event.dataset, "stage": event.stage}
        if event.state == "finished":
            self._seconds.inc(event.seconds, tags)
            self._durations.observe(event.seconds, tags)
        tags["granularity"] = self._granularity[event.cell]
        for name, value in event.metrics.items():
            kind, _, modality = name.partition("_entropy/")
            if modality:
                self._note(self._entropy, value, tags | {"modality": modality, "kind": kind})
            elif name == "loss":
                self._note(self._loss, value, tags)
