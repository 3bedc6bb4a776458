"""Shared and private encoders, which DisentangledSSL and JointOpt (Wang et al. 2025) train in two steps or at once.

Shape suffixes: B samples, T valid tokens, F input features, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from s3ray.methods.noise import sample_vmf
from s3ray.methods.prior import PriorModel, Views, gather
from s3ray.model import Draws, Encoded, Layout, ModelConfig, Ragged, S3Model, Source
from s3ray.objectives.contrastive import coherence_loss
from s3ray.objectives.prior import cross_correlation
from s3ray.stages.training import Batch

View = list[Tensor]  # one z (B, D) per modality


class SharedPrivate(PriorModel):
    """`encoders` are the shared ones; a private encoder takes [x, z_shared], z_shared beside every step's x (ours).

    There and in the joint representation, z_shared is the mean, without noise, as in the authors' code.
    """

    def __init__(self, model: ModelConfig, settings: Any, features: Mapping[str, int], classes: int) -> None:
        super().__init__(model, settings, features, classes)
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

    def parts(self, batch: Mapping[str, Ragged], output: str) -> list[Tensor]:
        shared, private = self([batch])
        return [encodings[name].z_BD for name in shared for encodings in (shared, private)]

    def used(self, output: str) -> list[nn.Module]:
        return [self.encoders, self.private]

    def coherence(self, view: View, source: Source) -> Tensor:
        """InfoNCE(z1, z2) of noisy z ~ vMF(shared z, κ)."""
        noisy = [sample_vmf(mean_BD, self.settings.concentration, source) for mean_BD in view]
        return coherence_loss(noisy, self.settings.temperature)

    def specific(self, shared: list[View], private: list[View]) -> Tensor:
        """Σ_m InfoNCE(joint_m, joint_m of the other view), joint_m = [z_m, z_shared of the other modality]."""
        assert len(shared[0]) == 2, "there is one other modality"
        joint, joint_view = (
            [torch.cat(parts, dim=1) for parts in zip(own, reversed(common), strict=True)]
            for own, common in zip(private, shared, strict=True)
        )
        pairs = zip(joint, joint_view, strict=True)
        return torch.stack([coherence_loss([a, b], self.settings.temperature) for a, b in pairs]).sum()


def orthogonality(shared: list[View], private: list[View]) -> Tensor:
    """½ Σ ‖Z_mᵀ Z_s‖_F over modalities and both views, not divided by the batch size B, as in the authors' code.

    So λ hangs on B: the term's gradient of one sample does not fall with B as that of InfoNCE, a mean, does. What λ
    does at one batch size, λ·B/B' does at B'. The value has a floor of √B, which independent rows have.
    """
    norms = [
        cross_correlation(own_m, common_m)
        for own, common in zip(private, shared, strict=True)
        for own_m, common_m in zip(own, common, strict=True)
    ]
    return torch.stack(norms).sum() / 2


def _beside(x: Ragged, z_BD: Tensor) -> Ragged:
    z_TD = z_BD[Layout(x.lengths_B).sample_T]
    return Ragged(torch.cat([x.values_TF, z_TD], dim=1), x.lengths_B)


def split_views(encodings: list[dict[str, Encoded]]) -> tuple[list[View], list[View]]:
    """Shared and private z of the global batch, of both views."""
    gathered = gather(encodings)
    return gathered[:2], gathered[2:]


def source_of(batch: Batch) -> Source:
    """A source that every rank has in the same state, since all draws are the global batch's."""
    return next(iter(batch.draws.values())).source
