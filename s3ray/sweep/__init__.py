"""Sweep → cells → plan → packs. Pure: no Ray."""

from s3ray.sweep.cell import Cell
from s3ray.sweep.grid import Study, StudyDataset, Sweep, curves, load_sweep, union
from s3ray.sweep.packs import make_packs
from s3ray.sweep.plan import STAGES, BranchPlan, CellPlan, Plan, make_plan, packed, plan_cell

__all__ = [
    "STAGES",
    "BranchPlan",
    "Cell",
    "CellPlan",
    "Plan",
    "Study",
    "StudyDataset",
    "Sweep",
    "curves",
    "load_sweep",
    "make_packs",
    "make_plan",
    "packed",
    "plan_cell",
    "union",
]
