"""One table of everything measured: a row per cell, branch, preservation ratio and split."""

from __future__ import annotations

import io
from dataclasses import asdict

import pandas as pd

from s3ray.store import Store
from s3ray.sweep import BranchPlan, CellPlan, Plan


def collect(plan: Plan, store: Store) -> pd.DataFrame:
    """The committed rows of a plan's cells.

    Columns: the cell (`dataset` … `scale`) and its data's `kind`; `branch`; what the stage measured
    (`CurvePoint`, active parameters); `majority_accuracy`; seconds per stage; provenance: identities, data
    fingerprint, time, code revision, versions, hardware, workers. A cell that has not finished has no rows.
    """
    tasks = [
        (cell, branch) for cell in plan.cells for branch in cell.branches if branch.curve.identity in plan.committed
    ]
    frames = store.parallel(lambda task: _rows(plan, store, *task), tasks)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _rows(plan: Plan, store: Store, cell: CellPlan, branch: BranchPlan) -> pd.DataFrame:
    marker = plan.committed[branch.curve.identity]
    measured = store.read("artifacts", branch.curve.stage, branch.curve.identity, marker.attempt, "rows.parquet")
    rows = pd.read_parquet(io.BytesIO(measured))
    labels = {"sweep": plan.sweep.name, **asdict(cell.cell), "kind": cell.facts.kind, "branch": branch.branch}
    for position, (name, value) in enumerate(labels.items()):
        rows.insert(position, name, value)
    rows["majority_accuracy"] = rows["split"].map(dict(cell.facts.majority))
    specialization = plan.committed.get(cell.specialization.identity)
    selection = plan.committed.get(branch.selection.identity) if branch.selection else None
    provenance = {
        "specialization_seconds": specialization.seconds if specialization else None,
        "selection_seconds": selection.seconds if selection else None,
        "curve_seconds": marker.seconds,
        "identity": branch.curve.identity,
        "specialization_identity": cell.specialization.identity,
        "data_fingerprint": cell.facts.fingerprint,
        "committed_at": marker.committed_at,
        **marker.provenance,
    }
    return rows.assign(**provenance)
