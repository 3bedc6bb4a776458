"""DisentangledSSL (Wang et al. 2025): shared encoders first, then private ones beside them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from s3ray.configuration import check_not_negative, check_positive
from s3ray.methods.method import Method
from s3ray.methods.prior import gather, two_views
from s3ray.methods.shared_private import SharedPrivate, orthogonality, source_of, split_views
from s3ray.objectives.prior import mean_cosine
from s3ray.stages.training import Batch, Forward, Objective, weighted_sum


@dataclass(frozen=True, slots=True, kw_only=True)
class DisentangledSettings:
    """What DisentangledSSL's losses read.

    Attributes:
        temperature: τ.
        alignment: weight β of the shared parts' cosine.
        orthogonality: weight λ; what it does grows with the batch size.
        concentration: κ of the von Mises-Fisher noise.
    """

    temperature: float = 0.07
    alignment: float = 1.0
    orthogonality: float = 1.0
    concentration: float = 1000.0

    def __post_init__(self) -> None:
        check_positive(self, temperature=0.07, concentration=1000.0)
        check_not_negative(self, "alignment", "orthogonality")


class DisentangledSSL(SharedPrivate):
    """Half of the steps train the shared encoders, the other half the private ones beside them, frozen (ours).

    So its budget is that of the other methods; the authors give each step one of its own.
    """

    def objectives(self) -> list[Objective]:
        shared = {name: p for name, p in self.named_parameters() if name.startswith("encoders.")}
        private = {name: p for name, p in self.named_parameters() if name not in shared}
        return [
            Objective(shared, self.shared_loss, end=0.5),
            Objective(private, self.private_loss, begin=0.5),
        ]

    def shared_loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """InfoNCE(z1, z2) - β·cos(μ1, μ2), on the batch as it is (ours)."""
        (mu,) = gather(forward([batch.shard], batch.draws, private=False))
        terms = {"coherence": self.coherence(mu, source_of(batch)), "alignment": mean_cosine(*mu)}
        return weighted_sum((1.0, terms["coherence"]), (-self.settings.alignment, terms["alignment"])), terms

    def private_loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Σ_m InfoNCE(joint_m, joint_m of an augmented view) + λ·½ Σ‖Z_mᵀZ_s‖_F."""
        shared, private = split_views(forward(two_views(batch), batch.draws))
        terms = {"specific": self.specific(shared, private), "orthogonality": orthogonality(shared, private)}
        weighted = (1.0, terms["specific"]), (self.settings.orthogonality, terms["orthogonality"])
        return weighted_sum(*weighted), terms


METHOD = Method(
    name="disentangledssl",
    version=1,
    outputs={"none": "DisentangledSSL"},
    model=DisentangledSSL,
    settings=DisentangledSettings,
    scales={"smoke": {"temperature": 0.2, "orthogonality": 0.01}},
    search={"temperature": 5, "alignment": 10, "orthogonality": 30},
    modalities=(2, 2),
    passes=2.0,
)
