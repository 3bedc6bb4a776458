"""Selection's variants: one file each, which says how the routers are trained and how it is shown.

A variant is also the *branch* of a cell under which its pruning curve stands in results.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from s3ray.registry import declared
from s3ray.stages.variants.variant import SelectionSettings, Variant

VARIANTS: Mapping[str, Variant] = MappingProxyType(declared(__name__, "VARIANT"))

__all__ = ["VARIANTS", "SelectionSettings", "Variant"]
