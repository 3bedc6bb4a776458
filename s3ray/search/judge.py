"""How a trained cell is judged: by its validation accuracy. Test is never read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from s3ray.execution.drift import ROWS
from s3ray.methods import S3
from s3ray.stages.sparsification import SPARSIFICATION
from s3ray.stages.stage import StageRun
from s3ray.store import Store
from s3ray.sweep.plan import CellPlan

# Where a trained cell is judged, chosen on validation: of S3 a preservation ratio below 1, of a prior method an output.
Point = float | str


class Score(NamedTuple):
    accuracy: float  # validation, mean over seeds, in [0, 1]
    at: Point  # where it is highest


def validation_curve(store: Store, cell: CellPlan) -> dict[Point, float]:
    """Validation accuracy of a committed cell per point, which of equal ones is taken first; test is not read."""
    if cell.cell.method == S3:
        (branch,) = cell.branches
        pruned = [run for run in branch.curve if run.stage.name == SPARSIFICATION.name]
        points: dict[Point, StageRun] = {run.config.pruning.ratio: run for run in pruned}
        points = {p: points[p] for p in sorted(points, reverse=True)}
    else:
        points = {branch.branch: branch.curve[0] for branch in cell.branches}
    curve = {}
    for at, run in points.items():
        content = pa.BufferReader(store.artifact(run, ROWS))
        table = pq.read_table(content, columns=["accuracy"], filters=[("split", "==", "valid")])
        (curve[at],) = table.column("accuracy").to_pylist()
    return curve


def score(curves: Sequence[Mapping[Point, float]]) -> Score:
    """What a configuration is judged by, from its seeds' validation curves: p* by the rule of all results."""
    means = {at: fmean(curve[at] for curve in curves) for at in curves[0]}
    best = max(means, key=lambda at: round(means[at], 9))
    return Score(means[best], best)
