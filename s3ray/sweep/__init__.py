"""Sweep → cells → plan → packs. Pure: no Ray."""

from s3ray.sweep.grid import DataFacts, Study, StudyDataset, Sweep, load_sweep, union
from s3ray.sweep.packs import make_packs
from s3ray.sweep.plan import BranchPlan, CellPlan, Plan, make_plan

__all__ = [
    "BranchPlan",
    "CellPlan",
    "DataFacts",
    "Plan",
    "Study",
    "StudyDataset",
    "Sweep",
    "load_sweep",
    "make_packs",
    "make_plan",
    "union",
]
