"""What a run costs beside its stages, and how measured seconds correct estimated ones."""

from __future__ import annotations

# What a run takes before and beside its stages: Ray's start and end; a worker group's start, its imports included.
RAY_SECONDS, GROUP_SECONDS = 20.0, 20.0
# Seconds of estimated work that a correction needs to count as much as what was known before: the first stages of a
# worker group also import and warm up, some three seconds.
_PRIOR_SECONDS = 10.0


def corrected(measured: float, estimated: float, prior: float = 1.0) -> float:
    """How many times longer stages take than estimated: `prior` until some seconds of estimates have been measured.

    The mean is geometric: what was estimated at a tenth of a second counts for little, however long it took.
    """
    if not estimated or not measured:
        return prior
    weight = estimated / (estimated + _PRIOR_SECONDS)
    ratio: float = (measured / estimated) ** weight * prior ** (1 - weight)
    return ratio


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
