"""DisentangledSSL and JointOpt (Wang et al. 2025): shared and private encoders, in two steps or at once.

Shape suffixes: B samples, T valid tokens, F input features, D width.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from s3ray.baselines.base import Baseline, Views, gather, two_views
from s3ray.baselines.noise import sample_vmf
from s3ray.config import BaselineConfig, Branch, ModelConfig
from s3ray.model import Draws, Encoded, Layout, Ragged, S3Model
from s3ray.objectives.contrastive import coherence_loss
from s3ray.objectives.prior import cross_correlation, mean_cosine
from s3ray.stages.training import Batch, Forward, Objective, weighted_sum

View = list[Tensor]  # one z (B, D) per modality


class _SharedPrivate(Baseline):
    """`encoders` are the shared ones; a private encoder takes [x, z_shared], z_shared beside every step's x (ours).

    There and in the joint representation, z_shared is the mean, without noise, as in the authors' code.
    """

    def __init__(self, model: ModelConfig, config: BaselineConfig, features: Mapping[str, int], classes: int) -> None:
        super().__init__(model, config, features, classes)
        self.private = S3Model(model, {name: width + model.width for name, width in features.items()})

    def forward(
        self, views: Views, draws: Mapping[str, Draws] | None = None, *, private: bool = True
    ) -> list[dict[str, Encoded]]:
        """The shared encodings of every view, then, if asked for, the private ones of every view."""
        shared = super().forward(views, draws)
        if not private:
            return shared
        inputs = [
            {name: _beside(view[name], encoded.z_BD) for name, encoded in encodings.items()}
            for view, encodings in zip(views, shared, strict=True)
        ]
        return shared + [self.private(beside, draws)[0] for beside in inputs]

    def parts(self, batch: Mapping[str, Ragged], branch: Branch) -> list[Tensor]:
        shared, private = self([batch])
        return [encodings[name].z_BD for name in shared for encodings in (shared, private)]

    def used(self, branch: Branch) -> list[nn.Module]:
        return [self.encoders, self.private]

    def coherence(self, view: View, source: torch.Generator) -> Tensor:
        """InfoNCE(z1, z2) of noisy z ~ vMF(shared z, κ)."""
        z1_BD, z2_BD = (sample_vmf(mean_BD, self.config.concentration, source) for mean_BD in view)
        return coherence_loss(z1_BD, z2_BD, self.config.temperature)

    def specific(self, shared: list[View], private: list[View]) -> Tensor:
        """Σ_m InfoNCE(joint_m, joint_m of the other view), joint_m = [z_m, z_shared of the other modality]."""
        joint, joint_view = (
            [torch.cat(parts, dim=1) for parts in zip(own, reversed(common), strict=True)]
            for own, common in zip(private, shared, strict=True)
        )
        pairs = zip(joint, joint_view, strict=True)
        return torch.stack([coherence_loss(a, b, self.config.temperature) for a, b in pairs]).sum()


def _orthogonality(shared: list[View], private: list[View]) -> Tensor:
    """½ Σ ‖Z_mᵀ Z_s‖_F over modalities and both views."""
    norms = [
        cross_correlation(own_m, common_m)
        for own, common in zip(private, shared, strict=True)
        for own_m, common_m in zip(own, common, strict=True)
    ]
    return torch.stack(norms).sum() / 2


def _beside(x: Ragged, z_BD: Tensor) -> Ragged:
    z_TD = z_BD[Layout(x.lengths_B).sample_T]
    return Ragged(torch.cat([x.values_TF, z_TD], dim=1), x.lengths_B)


class DisentangledSSL(_SharedPrivate):
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
        terms = {"coherence": self.coherence(mu, _source(batch)), "alignment": mean_cosine(*mu)}
        return weighted_sum((1.0, terms["coherence"]), (-self.config.alignment, terms["alignment"])), terms

    def private_loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Σ_m InfoNCE(joint_m, joint_m of an augmented view) + λ·½ Σ‖Z_mᵀZ_s‖_F."""
        shared, private = _split(forward(two_views(batch), batch.draws))
        terms = {"specific": self.specific(shared, private), "orthogonality": _orthogonality(shared, private)}
        weighted = (1.0, terms["specific"]), (self.config.orthogonality, terms["orthogonality"])
        return weighted_sum(*weighted), terms


class JointOpt(_SharedPrivate):
    """Both steps of DisentangledSSL at once, without its alignment term."""

    def loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """(2·L_shared + a·L_specific) / (1 + a) + λ·L_orth; L_shared is the mean over both views."""
        shared, private = _split(forward(two_views(batch), batch.draws))
        terms = {
            "shared": torch.stack([self.coherence(view, _source(batch)) for view in shared]).mean(),
            "specific": self.specific(shared, private),
            "orthogonality": _orthogonality(shared, private),
        }
        a = self.config.private_weight
        trained = weighted_sum((2.0, terms["shared"]), (a, terms["specific"]), outputs=itertools.chain(*private))
        total = trained / (1 + a)
        return weighted_sum((1.0, total), (self.config.orthogonality, terms["orthogonality"])), terms


def _split(encodings: list[dict[str, Encoded]]) -> tuple[list[View], list[View]]:
    """Shared and private z of the global batch, of both views."""
    gathered = gather(encodings)
    return gathered[:2], gathered[2:]


def _source(batch: Batch) -> torch.Generator:
    """A generator that every rank has in the same state, since all draws are the global batch's."""
    return next(iter(batch.draws.values())).source
