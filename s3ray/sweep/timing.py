"""What a run costs beside its stages, and how measured seconds correct estimated ones.

    timing/<machine>.json    what stages and starts took on a kind of machine, the latest runs counting most

Written at the end of every run, read by every plan. It enters no result: one that is damaged or lost is none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from s3ray.digests import digest_of, signed
from s3ray.store import Store

# What a run takes before and beside its stages: Ray's start and end; a worker group's start, its imports included.
RAY_SECONDS, GROUP_SECONDS = 20.0, 20.0
# Seconds of estimated work that a correction needs to count as much as what was known before: the first stages of a
# worker group also import and warm up, some three seconds.
_PRIOR_SECONDS = 10.0
# `Plan.margin` on machines that had done nothing yet, whose estimates were made on another one, and on those that had.
UNKNOWN_MARGIN, KNOWN_MARGIN = 2.0, 1.25
# Starts that take more times what was estimated waited for machines or for others' work: they say nothing of the next.
MOST_STARTS = 3.0


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds that were measured, and that had been estimated for the same."""

    measured: float = 0.0
    estimated: float = 0.0

    def __add__(self, other: Took) -> Took:
        return Took(self.measured + other.measured, self.estimated + other.estimated)

    def times(self, weight: float) -> Took:
        return Took(weight * self.measured, weight * self.estimated)

    def corrected(self, prior: float = 1.0) -> float:
        """How many times longer it takes than estimated."""
        return corrected(self.measured, self.estimated, prior)

    @property
    def is_known(self) -> bool:
        """Whether enough was measured to go by."""
        return self.estimated >= _PRIOR_SECONDS


@dataclass(frozen=True)
class Experience:
    """What runs have taken on a kind of machine.

    Attributes:
        stages: of one worker, by stage.
        starts: of all that no stage uses: Ray, worker groups, idling at the end.
    """

    stages: Mapping[str, Took] = field(default_factory=dict)
    starts: Took = Took()

    @classmethod
    def load(cls, store: Store, machine: str | None) -> Experience:
        if machine is None:
            return cls()
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            plain = json.loads(store.read("timing", _file(machine)))
            if plain["digest"] == digest_of(plain):
                return cls({name: Took(**took) for name, took in plain["stages"].items()}, Took(**plain["starts"]))
        return cls()

    def with_run(self, stages: Iterable[tuple[str, Took]], starts: Took) -> Experience:
        """What is known after another run: what was known of the same before counts half as much as it did."""
        fresh: dict[str, Took] = {}
        for stage, took in stages:
            fresh[stage] = fresh.get(stage, Took()) + took
        known = {stage: took + self.stages.get(stage, Took()).times(0.5) for stage, took in fresh.items()}
        if starts.measured > MOST_STARTS * starts.estimated:
            return Experience({**self.stages, **known}, self.starts)
        return Experience({**self.stages, **known}, self.starts.times(0.5) + starts)

    def save(self, store: Store, machine: str) -> None:
        store.write(json.dumps(signed({"machine": machine, **asdict(self)}), indent=1), "timing", _file(machine))


def _file(machine: str) -> str:
    return f"{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"


def corrected(measured: float, estimated: float, prior: float = 1.0) -> float:
    """How many times longer stages take than estimated: `prior` until some seconds of estimates have been measured.

    The mean is geometric: what was estimated at a tenth of a second counts for little, however long it took.
    """
    if not estimated or not measured:
        return prior
    weight = estimated / (estimated + _PRIOR_SECONDS)
    ratio: float = (measured / estimated) ** weight * prior ** (1 - weight)
    return ratio


def between(low: float, high: float) -> str:
    """`3 min 05 s to 5 min 00 s`; once, if both read alike."""
    ends = duration(low), duration(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
