"""How far two results of one stage run are apart: what a second writer, or an audit, finds."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import numpy as safetensors

from s3ray.store import Marker, Store

ROWS, WEIGHTS = "rows.parquet", "weights.safetensors"  # an artifact's files


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two results; 0 if they are equal, infinite where a number stands beside none, or shapes differ.

    Attributes:
        rows: largest absolute difference of two numbers in the same place of the rows; seconds are left out.
        column: where that is.
        weights: largest absolute difference of two weights.
        unlike: columns of anything but numbers that differ, and those that only one of them has.
    """

    rows: float = 0.0
    column: str = ""
    weights: float = 0.0
    unlike: tuple[str, ...] = ()

    @property
    def is_none(self) -> bool:
        return self == Difference()

    @classmethod
    def of(cls, ours: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> Difference:
        """Of two artifacts' files."""
        first, second = (_columns(files.get(ROWS)) for files in (ours, theirs))
        apart = {name: _apart(first[name], second[name]) for name in first.keys() & second.keys()}
        numbers = {name: distance for name, distance in apart.items() if distance is not None}
        column = max(sorted(numbers), key=lambda name: numbers[name], default="")
        unlike = sorted({name for name, distance in apart.items() if distance is None} | (first.keys() ^ second.keys()))
        weights = [safetensors.load(files[WEIGHTS]) if WEIGHTS in files else {} for files in (ours, theirs)]
        largest = 0.0 if weights[0].keys() == weights[1].keys() else math.inf
        for name in weights[0].keys() & weights[1].keys():
            largest = max(largest, _distance(weights[0][name], weights[1][name]))
        rows = numbers.get(column, 0.0)
        return cls(rows, column if rows else "", largest, tuple(unlike))


def record_drift(
    store: Store,
    marker: Marker,
    kept: Mapping[str, bytes],
    left: Mapping[str, bytes],
    provenance: Mapping[str, Any],
) -> None:
    """Write beside a result how far a later one was from it: two machines have computed the same.

    Args:
        kept: the files that `marker` names.
        left: those of the other result, computed where `provenance` says.
    """
    drift = {
        **asdict(Difference.of(kept, left)),
        "attempt": marker.attempt,
        "kept": dict(marker.provenance),
        "left": dict(provenance),
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    name = f"drift-{uuid.uuid4().hex[:12]}.json"
    store.write(json.dumps(drift, indent=1), "artifacts", marker.stage, marker.identity, name)


def _columns(rows: bytes | None) -> dict[str, list[Any]]:
    if rows is None:
        return {}
    columns: dict[str, list[Any]] = pq.read_table(io.BytesIO(rows)).to_pydict()
    return {name: values for name, values in columns.items() if not name.endswith("seconds")}


def _apart(first: list[Any], second: list[Any]) -> float | None:
    """Largest difference of two columns; None if they differ and are not of numbers."""
    if first == second:
        return 0.0
    if any(isinstance(value, (str, bytes, bool, list, dict)) for value in (*first, *second)):
        return None
    return _distance(*(np.array([math.nan if v is None else v for v in side], np.float64) for side in (first, second)))


def _distance(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Largest absolute difference in float64; what is no number in both is equal, and in one of them infinitely far."""
    if first.shape != second.shape:
        return math.inf
    one, other = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.nan_to_num(np.abs(one - other)[~same], nan=math.inf)
    return float(apart.max(initial=0.0))
