"""What a module of this package declares of its dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from s3ray.data.dataset import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A dataset that needs no files.

    Attributes:
        load: makes it, the same one every time.
        scales: per scale (`paper`, `smoke`) the settings in which it differs from the scale's own.
        usual: a call that names no dataset takes it.
    """

    name: str
    load: Callable[[], Dataset]
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    usual: bool = True
