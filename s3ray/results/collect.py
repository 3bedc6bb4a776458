"""One table of everything measured: a row per cell, branch, preservation ratio and split."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from s3ray.store import Marker, StageRun, Store
from s3ray.sweep import BranchPlan, CellPlan, Plan


def collect(plan: Plan, store: Store) -> pd.DataFrame:
    """The committed rows of a plan's cells.

    Columns: the cell (`dataset` … `scale`) and its data's `kind`, `modalities` and `label_rule`; `branch`; what
    the stage measured (`CurvePoint`, active parameters); seconds per stage; provenance: identities, data
    fingerprint, time, code revision, versions, hardware, workers. A cell that has not finished has no rows.
    """
    tasks = [
        (cell, branch) for cell in plan.cells for branch in cell.branches if branch.curve.identity in plan.committed
    ]
    frames = store.parallel(lambda task: _rows(plan, store, *task), tasks)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def references(plan: Plan, store: Store) -> pd.DataFrame:
    """The committed reference accuracies: a row per dataset, reference and split.

    Columns: `dataset`, its data's labels and `scale`; what the stage measured (`ReferencePoint`); seconds and
    provenance.
    """
    cells = {cell.cell.dataset: cell for cell in plan.cells if cell.reference.identity in plan.committed}
    frames = store.parallel(lambda cell: _references(plan, store, cell), cells.values())
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _references(plan: Plan, store: Store, cell: CellPlan) -> pd.DataFrame:
    marker = plan.committed[cell.reference.identity]
    labels = {"dataset": cell.cell.dataset, "scale": cell.cell.scale, **_data_labels(cell)}
    rows = _measured(store, cell.reference, marker, labels)
    return rows.assign(seconds=marker.seconds, **_provenance(cell.reference, cell, marker))


def _rows(plan: Plan, store: Store, cell: CellPlan, branch: BranchPlan) -> pd.DataFrame:
    marker = plan.committed[branch.curve.identity]
    labels = {"sweep": plan.sweep.name, **asdict(cell.cell), **_data_labels(cell), "branch": branch.branch}
    rows = _measured(store, branch.curve, marker, labels)
    specialization = plan.committed.get(cell.specialization.identity)
    selection = plan.committed.get(branch.selection.identity) if branch.selection else None
    return rows.assign(
        specialization_seconds=specialization.seconds if specialization else None,
        selection_seconds=selection.seconds if selection else None,
        curve_seconds=marker.seconds,
        specialization_identity=cell.specialization.identity,
        **_provenance(branch.curve, cell, marker),
    )


def _data_labels(cell: CellPlan) -> dict[str, Any]:
    facts = cell.facts
    return {"kind": facts.kind, "modalities": "+".join(facts.features), "label_rule": facts.label_rule}


def _measured(store: Store, run: StageRun, marker: Marker, labels: Mapping[str, Any]) -> pd.DataFrame:
    content = store.read("artifacts", run.stage, run.identity, marker.attempt, "rows.parquet")
    rows = pd.read_parquet(io.BytesIO(content))
    for position, (name, value) in enumerate(labels.items()):
        rows.insert(position, name, value)
    return rows


def _provenance(run: StageRun, cell: CellPlan, marker: Marker) -> dict[str, Any]:
    return {
        "identity": run.identity,
        "data_fingerprint": cell.facts.fingerprint,
        "committed_at": marker.committed_at,
        **marker.provenance,
    }
