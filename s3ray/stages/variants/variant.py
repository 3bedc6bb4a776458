"""What a Selection variant declares.

Shape suffixes: B samples, D width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from s3ray.configuration import added, check_not_negative, check_positive
from s3ray.objectives.present import Present
from s3ray.objectives.selection import Positives
from s3ray.stages.training import OptimizerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSettings:
    """Weights of Eq. 33, for all variants.

    Attributes:
        optimizer: (ours) what trains the routers.
        temperature: τ of L_suff.
        lambda_suff: weight of L_suff (Eq. 30).
        lambda_min: weight of L_min (Eq. 32).
        positives: (ours) of L_suff: "all", as Eq. 29 has them; "others": within a modality a sample is none of its
            own.
        noise: (ours) the routers' noise stays on, as in Specialization; dropout with it.
    """

    optimizer: OptimizerConfig = OptimizerConfig(epochs=50, learning_rate=1e-3)
    temperature: float = 0.1
    lambda_suff: float = 1.0
    lambda_min: float = 1.0
    positives: Positives = added("all", neutral="all")
    noise: bool = added(False, neutral=False)

    def __post_init__(self) -> None:
        check_positive(self, temperature=0.1)
        check_not_negative(self, "lambda_suff", "lambda_min")


SelectionLoss = Callable[[Any, Sequence[Tensor], Tensor, Present], tuple[Tensor, dict[str, Tensor]]]


def _no_loss(config: Any, z: Sequence[Tensor], labels_B: Tensor, present: Present) -> tuple[Tensor, dict[str, Tensor]]:
    raise AssertionError("without Selection there is no loss")


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to train the routers, or not to.

    Attributes:
        name: as sweeps and rows have it.
        version: raised when what its loss computes changes meaning; the other variants' results stay.
        title: of its curve.
        color: of its curve.
        order: among the lines of a table and the curves of a panel.
        config: type of what the loss reads, a frozen dataclass: fields that SelectionSettings has too are taken from
            there, others have defaults. None: the routers stay as Specialization left them.
        loss: (config, z (B, D) per modality of the global batch, labels (B,), which samples have which modality) →
            loss, and its terms to record.
    """

    name: str
    version: int
    title: str
    color: str
    order: int
    config: type[Any] | None = None
    loss: SelectionLoss = _no_loss

    def configure(self, settings: SelectionSettings) -> Any:
        """What the loss reads, of these settings."""
        assert self.config is not None
        own = {field.name for field in dataclasses.fields(self.config)}
        shared = [field.name for field in dataclasses.fields(settings) if field.name in own]
        return self.config(**{name: getattr(settings, name) for name in shared})
