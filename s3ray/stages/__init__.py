"""The stages as functions of (config, data, parent): torch and scikit-learn only, no Ray, no files.

They run alone or on every rank of an initialised `torch.distributed` group; losses and statistics are those
of the global batch either way.
"""

from s3ray.stages.kept import KeptPoint, kept_points
from s3ray.stages.probe import ProbeScore, probe
from s3ray.stages.reference import ReferencePoint, reference_points
from s3ray.stages.select import select
from s3ray.stages.sparsify import CurvePoint, Representation, encode_split, pruning_curve, s3_representation
from s3ray.stages.specialize import specialize
from s3ray.stages.training import DivergedError, Metrics, Monitor, Snapshot

# Raised when a stage's computation changes meaning: results of the old version no longer count.
VERSIONS = {
    "specialization": 1,
    "selection": 1,
    "sparsification": 1,
    "baseline": 1,
    "probe": 1,
    "kept": 1,
    "reference": 1,
}

__all__ = [
    "VERSIONS",
    "CurvePoint",
    "DivergedError",
    "KeptPoint",
    "Metrics",
    "Monitor",
    "ProbeScore",
    "ReferencePoint",
    "Representation",
    "Snapshot",
    "encode_split",
    "kept_points",
    "probe",
    "pruning_curve",
    "reference_points",
    "s3_representation",
    "select",
    "specialize",
]
