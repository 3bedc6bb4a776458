"""Identities, artifacts, checkpoints and datasets on any `pyarrow.fs` URI."""

from s3ray.store.claims import Claims, HeldError
from s3ray.store.identity import UNHASHED, StageRun
from s3ray.store.store import Marker, Store

__all__ = ["UNHASHED", "Claims", "HeldError", "Marker", "StageRun", "Store"]
