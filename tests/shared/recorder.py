"""A monitor that stops a run and lets another resume it, and what tells whether the two agree."""

from __future__ import annotations

import io
from collections.abc import Callable

import torch
from torch import Tensor

from s3ray.stages.training import Snapshot


class StoppedError(Exception):
    """A worker that goes away."""


class Recorder:
    """A Monitor that keeps the bytes of the snapshot after step `at`, as a store on disk would."""

    def __init__(self, at: int | None = None, stored: bytes | None = None, stop: bool = False) -> None:
        self.at, self.stored, self.stop = at, stored, stop
        self.seen: list[tuple[int, int]] = []

    def resume(self, fits: Callable[[Snapshot], bool]) -> Snapshot | None:
        snapshot = torch.load(io.BytesIO(self.stored), weights_only=True) if self.stored else None
        assert snapshot is None or fits(snapshot)
        return snapshot

    def stepped(self, step: int, total: int, snapshot: Callable[[], Snapshot]) -> None:
        self.seen.append((step, total))
        if step == self.at:
            buffer = io.BytesIO()
            torch.save(snapshot(), buffer)
            self.stored = buffer.getvalue()
            if self.stop:
                raise StoppedError


def identical(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Whether two states are equal bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
