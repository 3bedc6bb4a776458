"""A point of the grid."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from s3ray.errors import UserError
from s3ray.methods import S3


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """One point of the grid. Its encoders are trained once; its branches share them.

    A prior method's encoders are dense: granularity 1. A reading is what of the settings is other than usual, by the
    name that the sweep gives it (`Sweep.readings`); empty: nothing is.
    """

    dataset: str
    method: str = S3
    granularity: int
    batch_size: int
    seed: int
    scale: str
    reading: str = ""

    def __post_init__(self) -> None:
        # Of whatever kind the integers are that a sweep file yields: equal cells are one computation.
        for name in ("granularity", "batch_size", "seed"):
            try:
                object.__setattr__(self, name, int(operator.index(getattr(self, name))))
            except TypeError:
                raise UserError(
                    f"{self.dataset}: {name} {getattr(self, name)!r} of a cell is no integer; correct the sweep"
                ) from None

    def __str__(self) -> str:
        kind = f"χ={self.granularity}" if self.method == S3 else self.method
        reading = f" {self.reading}" if self.reading else ""
        return f"{self.dataset} {kind} batch={self.batch_size} seed={self.seed}{reading}"
