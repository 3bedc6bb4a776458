"""Artifacts, checkpoints, claims and datasets on any `pyarrow.fs` URI."""

from s3ray.store.claims import Claims, HeldError
from s3ray.store.store import Committed, DamagedError, Marker, Store

__all__ = ["Claims", "Committed", "DamagedError", "HeldError", "Marker", "Store"]
