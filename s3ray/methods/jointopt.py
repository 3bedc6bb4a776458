"""JointOpt (Wang et al. 2025): shared and private encoders at once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from s3ray.configuration import check_not_negative, check_positive
from s3ray.methods.method import Method
from s3ray.methods.prior import two_views
from s3ray.methods.shared_private import SharedPrivate, orthogonality, source_of, split_views
from s3ray.stages.training import Batch, Forward, weighted_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class JointOptSettings:
    """What JointOpt's loss reads.

    Attributes:
        temperature: τ.
        private_weight: weight a of the private parts' loss.
        orthogonality: weight λ; what it does grows with the batch size.
        concentration: κ of the von Mises-Fisher noise.
    """

    temperature: float = 0.07
    private_weight: float = 1.0
    orthogonality: float = 1.0
    concentration: float = 1000.0

    def __post_init__(self) -> None:
        check_positive(self, temperature=0.07, concentration=1000.0)
        check_not_negative(self, "private_weight", "orthogonality")


class JointOpt(SharedPrivate):
    """Both steps of DisentangledSSL at once, without its alignment term."""

    def loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(2·L_shared + a·L_specific) / (1 + a) + λ·L_orth; L_shared is the mean over both views."""
        shared, private = split_views(forward(two_views(batch), batch.draws))
        terms = {
            "shared": torch.stack([self.coherence(view, source_of(batch)) for view in shared]).mean(),
            "specific": self.specific(shared, private),
            "orthogonality": orthogonality(shared, private),
        }
        a = self.settings.private_weight
        trained = weighted_sum((2.0, terms["shared"]), (a, terms["specific"]), outputs=itertools.chain(*private))
        total = trained / (1 + a)
        return weighted_sum((1.0, total), (self.settings.orthogonality, terms["orthogonality"])), terms


METHOD = Method(
    name="jointopt",
    version=1,
    outputs={"none": "JointOpt"},
    model=JointOpt,
    settings=JointOptSettings,
    scales={"smoke": {"temperature": 0.2, "orthogonality": 0.01}},
    search={"temperature": 5, "private_weight": 10, "orthogonality": 30},
    modalities=(2, 2),
    passes=4.0,
)
