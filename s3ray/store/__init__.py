"""Artifacts, checkpoints, claims and datasets on any `pyarrow.fs` URI."""

from s3ray.store.claims import Claims, HeldError, LeaseLostError
from s3ray.store.store import Marker, Store

__all__ = ["Claims", "HeldError", "LeaseLostError", "Marker", "Store"]
