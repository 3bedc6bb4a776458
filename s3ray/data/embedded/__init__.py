"""Datasets that need no files: one module each, whose `DATASET` says its name, its settings and how it is made."""

from __future__ import annotations

from collections.abc import Mapping

from s3ray.data.embedded.declaration import Embedded
from s3ray.registry import declared

EMBEDDED: Mapping[str, Embedded] = declared(__name__, "DATASET")

__all__ = ["EMBEDDED", "Embedded"]
