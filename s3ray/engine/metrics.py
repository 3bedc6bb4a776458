"""A running sweep as Prometheus metrics, exported by Ray under these names with `ray_` before them.

The driver sets them all, since it hears of every event: one series per set of tags, however many workers there are,
and no tag names a single cell. When the driver ends, Ray drops its gauges within seconds; counters stay.
"""

from __future__ import annotations

from collections.abc import Iterable

from ray.util.metrics import Counter, Gauge, Histogram

from s3ray.engine.cell import Event
from s3ray.engine.progress import States
from s3ray.sweep import Plan

_STAGE = ("sweep", "dataset", "stage")
# Seconds; from a smoke stage to a stage of hours.
_BOUNDARIES = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0]


class SweepMetrics:
    """Called by `Progress` with events and with where the cells stand."""

    def __init__(self, plan: Plan) -> None:
        self._sweep = plan.sweep.name
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

    def __call__(self, events: Iterable[Event], states: States) -> None:
        for event in events:
            self._stage(event)
        for dataset, cells in states.items():
            for state, number in cells.items():
                self._cells.set(number, {"sweep": self._sweep, "dataset": dataset, "state": state})

    def _stage(self, event: Event) -> None:
        tags = {"sweep": self._sweep, "dataset": event.dataset, "stage": event.stage}
        if event.state == "finished":
            self._seconds.inc(event.seconds, tags)
            self._durations.observe(event.seconds, tags)
        tags["granularity"] = self._granularity[event.cell]
        for name, value in event.metrics.items():
            kind, _, modality = name.partition("_entropy/")
            if modality:
                self._entropy.set(value, tags | {"modality": modality, "kind": kind})
            elif name == "loss":
                self._loss.set(value, tags)
