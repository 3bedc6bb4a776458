"""Artifacts, checkpoints, claims and datasets on any `pyarrow.fs` URI."""

from s3ray.store.claims import Claims, HeldError, LeaseLostError
from s3ray.store.store import Committed, DamagedError, Marker, Store

__all__ = ["Claims", "Committed", "DamagedError", "HeldError", "LeaseLostError", "Marker", "Store"]
