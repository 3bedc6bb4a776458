"""A stage run's files, and how far two results of it are apart: what a second writer, or an audit, finds."""

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
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from safetensors import numpy as safetensors
from safetensors.torch import save as save_tensors

from s3ray.stages.stage import Outcome
from s3ray.store import Marker, Store

ROWS, WEIGHTS = "rows.parquet", "weights.safetensors"  # an artifact's files


@dataclass(frozen=True, slots=True)
class Difference:
    """Of two results; 0 if they are equal, infinite where a number stands beside none, or columns or shapes differ.

    Attributes:
        rows: largest absolute difference of two numbers in the same place of the rows; seconds are left out.
        column: where that is.
        share: the same, of numbers above 1 as a share of them.
        weights: largest absolute difference of two weights.
        unlike: columns of anything but numbers that differ, and those that only one of them has.
    """

    rows: float = 0.0
    column: str = ""
    share: float = 0.0
    weights: float = 0.0
    unlike: tuple[str, ...] = ()

    @property
    def is_none(self) -> bool:
        return self == Difference()

    @classmethod
    def of(cls, ours: Mapping[str, bytes | pa.Table], theirs: Mapping[str, bytes | pa.Table]) -> Difference:
        """Of two artifacts' files."""
        first, second = (_columns(files.get(ROWS)) for files in (ours, theirs))
        apart = {name: _apart(first[name], second[name]) for name in first.keys() & second.keys()}
        numbers = {name: both for name, both in apart.items() if both is not None}
        column = max(sorted(numbers), key=lambda name: numbers[name][0], default="")
        unlike = sorted({name for name, both in apart.items() if both is None} | (first.keys() ^ second.keys()))
        weights = [safetensors.load(files[WEIGHTS]) if WEIGHTS in files else {} for files in (ours, theirs)]
        largest = 0.0 if weights[0].keys() == weights[1].keys() else math.inf
        for name in weights[0].keys() & weights[1].keys():
            largest = max(largest, _distances(weights[0][name], weights[1][name])[0])
        rows, share = (max((both[i] for both in numbers.values()), default=0.0) for i in range(2))
        if first.keys() != second.keys():
            rows = share = math.inf
        return cls(rows, column if rows else "", share, largest, tuple(unlike))


def artifact_files(outcome: Outcome) -> dict[str, bytes]:
    """What a stage run leaves behind, as files."""
    # All columns of all rows: where objectives take turns, a training's first rows lack those of the last.
    columns = dict.fromkeys(name for row in outcome.rows for name in row)
    table, buffer = pa.table({name: [row.get(name) for row in outcome.rows] for name in columns}), io.BytesIO()
    pq.write_table(table, buffer)
    files = {ROWS: buffer.getvalue()}
    if outcome.weights is not None:
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in outcome.weights.items()}
        files[WEIGHTS] = save_tensors(contiguous)
    return files


def rows_of(content: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(content))


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


def _columns(rows: bytes | pa.Table | None) -> dict[str, list[Any]]:
    if rows is None:
        return {}
    columns: dict[str, list[Any]] = (rows_of(rows) if isinstance(rows, bytes) else rows).to_pydict()
    return {name: values for name, values in columns.items() if not name.endswith("seconds")}


def _apart(first: list[Any], second: list[Any]) -> tuple[float, float] | None:
    """`_distances` of two columns; None if they differ and are not of numbers."""
    if first == second:
        return 0.0, 0.0
    if any(isinstance(value, (str, bytes, bool, list, dict)) for value in (*first, *second)):
        return None
    one, other = (np.array([math.nan if v is None else v for v in side], np.float64) for side in (first, second))
    return _distances(one, other)


def _distances(first: NDArray[Any], second: NDArray[Any]) -> tuple[float, float]:
    """Largest difference, and largest as a share of numbers above 1.

    What is no number in both is equal, in one of them infinitely far.
    """
    if first.shape != second.shape:
        return math.inf, math.inf
    one, other = first.astype(np.float64).ravel(), second.astype(np.float64).ravel()
    differ = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(one - other)[differ]
        shares = apart / np.maximum(1.0, np.abs(one[differ]))
    apart[np.isnan(apart)], shares[np.isnan(shares)] = math.inf, math.inf
    return float(apart.max(initial=0.0)), float(shares.max(initial=0.0))
