"""What every trained model can do, however it was trained.

Shape suffixes: B samples, D width, T tokens, L layers, K top-k.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3ray.model.batch import Ragged
from s3ray.model.pruning import Pruning


@dataclass(frozen=True, slots=True)
class Encoding:
    """A batch's representation: parts, the modalities' equally many and equally wide, one modality after another."""

    parts: list[Tensor]  # (B, ·) each
    pairs_computed: int  # (token, expert) pairs, over layers and modalities; 0 without routing
    pairs_routed: int
    # Per modality, of every token and layer the mean weight of its pairs and the share of them computed (T, L, 2);
    # none without routing. Made on demand: no probe needs them.
    tokens: Callable[[], Mapping[str, Tensor]] = dict
    # The same of every pair: its expert, its weight, and 1 if it was computed, else 0 (T, L, K, 3).
    pairs: Callable[[], Mapping[str, Tensor]] = dict

    def joined(self, on_sphere: bool) -> Tensor:
        """The parts side by side (B, D); `on_sphere`: each l2-normalised."""
        return torch.cat([F.normalize(part, dim=1) if on_sphere else part for part in self.parts], dim=1)


class TrainedModel(nn.Module):
    """Encoders, one per modality or more, that a stage has trained or will."""

    def begin(self, batch: Mapping[str, Ragged]) -> Mapping[str, Any]:
        """What of a batch's encoding is the same however it is pruned, for `encode`. Each part has `nbytes`."""
        return batch

    def encode(
        self, batch: Mapping[str, Any], output: str, pruning: Pruning | None = None, sample: int = 0
    ) -> Encoding:
        """Represent a batch, without noise or dropout.

        Args:
            batch: per modality, as it is or as `begin` left it.
            output: which of its representations, where there are several (`Method.outputs`).
            pruning: of the batch, which is one pool; None: all. Only S3's experts can be left out.
            sample: the batch's first one, of its split: what is drawn at random differs between pools.
        """
        raise NotImplementedError

    def used(self, output: str) -> Sequence[nn.Module]:
        """The modules that `encode` runs: their parameters are the active ones."""
        raise NotImplementedError

    def encoders_alone(self, output: str) -> TrainedModel | None:
        """The `S3Model` whose z, a part per modality, is all that `encode` gives; None: there is more to it."""
        return None
