"""Stage runs that nobody runs, for what only stores their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from s3ray.stages.stage import Outcome, Stage, StageRun


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    seed: int = 0


def _run(*_: Any) -> Outcome:
    return Outcome([])


def _estimate(*_: Any) -> float:
    return 1.0


def toy_run(seed: int = 0) -> StageRun:
    return StageRun(Stage("selection", 1, ToyConfig, _run, _estimate), ToyConfig(seed=seed), None, "data")
