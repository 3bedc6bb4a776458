"""The prior methods of Table 2, and two that use labels throughout: one file each.

All of them train dense encoders of the S3 encoders' depth and FFN width on the same data, with Specialization's
optimizer and steps unless their table says otherwise, and are probed alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from s3ray.methods.method import TRAINING, Method, MethodConfig
from s3ray.registry import declared

METHODS: Mapping[str, Method] = MappingProxyType(declared(__name__, "METHOD"))
S3 = "s3"  # the name of S3 itself, whose stages stand in s3ray/stages

__all__ = ["METHODS", "S3", "TRAINING", "Method", "MethodConfig"]
