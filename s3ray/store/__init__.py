"""Artifacts, checkpoints, claims and datasets on any `pyarrow.fs` URI."""

from s3ray.errors import DamagedError
from s3ray.store.claims import Claim, Claims, HeldError, LeaseLostError, standing
from s3ray.store.marker import Marker
from s3ray.store.store import Committed, Store, holds_credentials

__all__ = [
    "Claim",
    "Claims",
    "Committed",
    "DamagedError",
    "HeldError",
    "LeaseLostError",
    "Marker",
    "Store",
    "holds_credentials",
    "standing",
]
