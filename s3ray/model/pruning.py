"""Which (token, expert) pairs are computed where experts are left out.

Shape suffixes: P pairs, T tokens, K top-k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

import torch
from torch import Tensor

from s3ray.configuration import added, check_whole
from s3ray.errors import UserError
from s3ray.model.draws import Source, seed_of

Rule = Literal["ranked", "random", "smallest", "contribution"]
Control = Literal["random", "smallest", "contribution"]
Scope = Literal["layer", "modality", "model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruning:
    """Sparsification (5.3): of the pairs of a pool of samples, per layer and modality, the share `ratio` is kept.

    The pool is one evaluation batch. Which pairs are kept:

    - `ranked`, the paper's: those with the largest routing weights.
    - `random`: any, whatever the router says. What ranked pruning gains over it is the router's doing.
    - `smallest`: those with the smallest weights.
    - `contribution`: those that add most to the residual stream, weight times norm of the expert's output. It computes
      every expert first, so it is a control and saves nothing.
    """

    ratio: float
    pool: int  # samples
    rule: Rule = added("ranked", neutral="ranked")
    seed: int | None = added(None, neutral=None)  # of the random rule's draws
    # Among which pairs ranked pruning ranks (ours; the paper: "for all input-expert pairs"): those of a layer, of all
    # layers of a modality, or of the model. Beyond a layer the weights of a pass that computes every pair set a
    # threshold, and what reaches it in a second pass is kept: about the share `ratio`, since what earlier layers lose
    # changes the weights of later ones.
    scope: Scope = added("layer", neutral="layer")

    def __post_init__(self) -> None:
        if not 0.0 <= self.ratio <= 1.0:
            raise UserError(f"preservation ratio {self.ratio} is outside [0, 1]; choose a share")
        check_whole(self, "pool")
        assert (self.rule == "random") == (self.seed is not None), "the random rule has a seed, no other has"
        assert self.scope == "layer" or self.rule == "ranked", "a control keeps its share of every layer"

    def keep(self, modality: str, sample: int, device: torch.device) -> Keep:
        """What a modality's layers are told of the pool that begins with a sample; the same on every device."""
        drawn = None if self.seed is None else Source(seed_of("pruning", self.seed, modality, sample), device)
        return Keep(self.ratio, self.rule, drawn)

    @property
    def across_layers(self) -> bool:
        """Whether a pass that computes every pair comes first, for `thresholds`; not where all or none is kept."""
        return self.scope != "layer" and 0.0 < self.ratio < 1.0

    def thresholds(self, weights: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        """The least weight that is kept, per modality that has any pair.

        Args:
            weights: per modality the routing weights (T, K) of each layer, where every pair was computed.
        """
        pools = self._pools(weights)
        return {name: _least(own_P, _share(self.ratio, len(own_P))) for name, own_P in pools.items()}

    def fixed_thresholds(self, weights: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
        """`thresholds` to keep for other samples: halfway to the largest weight that is not kept.

        So none of these pairs lies on it, and how many samples are multiplied at once, which moves weights by rounding,
        moves none of them over it. Of equal weights all are kept.
        """
        pools = self._pools(weights)
        return {name: _below(own_P, _share(self.ratio, len(own_P))) for name, own_P in pools.items()}

    def _pools(self, weights: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        """Per modality that has any pair the weights of those that it is ranked with."""
        by_modality = {name: torch.cat([own_TK.reshape(-1) for own_TK in layers]) for name, layers in weights.items()}
        if self.scope == "model":
            by_modality = dict.fromkeys(by_modality, torch.cat(list(by_modality.values())))
        return {name: own_P for name, own_P in by_modality.items() if len(own_P)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdPruning(Pruning):
    """Pruning by weights that were fixed before: which pairs of a sample are kept does not depend on its companions.

    Attributes:
        least: per modality and layer the least weight that is kept, if 0 < ratio < 1. `ratio` is the share that they
            keep where they were taken.
    """

    least: Mapping[str, Sequence[float]]

    def keep(self, modality: str, sample: int, device: torch.device) -> Keep:
        return Keep(self.ratio, thresholds=self.least.get(modality, ()))

    @property
    def across_layers(self) -> bool:
        return False


@dataclass(slots=True)
class Keep:
    """A pruning on its way through a pool's layers, which draw one after another.

    Attributes:
        ratio: share of a layer's pairs, of which ⌈ratio · T · K⌉ are kept.
        rule: which they are.
        drawn: the random rule's numbers.
        thresholds: per layer the least weight that is kept, where that is known beforehand; else empty.
        kept: what `pairs` said, layer after layer.
    """

    ratio: float
    rule: Rule = "ranked"
    drawn: Source | None = None
    thresholds: Sequence[Tensor | float] = ()
    kept: list[Tensor] = field(default_factory=list)

    @property
    def everything(self) -> bool:
        return self.ratio == 1.0

    def pairs(self, weights_TK: Tensor, norms_P: Callable[[], Tensor]) -> Tensor:
        """Positions among the T·K pairs, in order, of those kept; of equal ones the earlier.

        Args:
            weights_TK: routing weights.
            norms_P: every pair's norm of the expert's output (T·K,), computed when called.
        """
        self.kept.append(self._pairs(weights_TK, norms_P))
        return self.kept[-1]

    def _pairs(self, weights_TK: Tensor, norms_P: Callable[[], Tensor]) -> Tensor:
        tokens, top_k = weights_TK.shape
        count, weights_P = _share(self.ratio, tokens * top_k), weights_TK.reshape(-1)
        if count == 0:
            return torch.empty(0, dtype=torch.int64, device=weights_TK.device)
        if self.thresholds:
            return (weights_P >= self.thresholds[len(self.kept)]).nonzero()[:, 0]
        if self.drawn is not None:
            return _largest(self.drawn.uniform(tokens, top_k).reshape(-1), count)
        if self.rule == "smallest":
            return _largest(-weights_P, count)
        return _largest(weights_P * norms_P() if self.rule == "contribution" else weights_P, count)


def _share(ratio: float, pairs: int) -> int:
    """⌈ratio · pairs⌉, exact on the decimal that was written: in floats, 0.1 * 3 * 10 is above 3, which would be 4."""
    return math.ceil(Fraction(str(ratio)) * pairs)


def _least(values_P: Tensor, count: int) -> Tensor:
    """The smallest of the `count` largest values."""
    return values_P.kthvalue(len(values_P) - count + 1).values


def _below(values_P: Tensor, count: int) -> float:
    """Halfway from the smallest of the `count` largest values to the next smaller one, or 0; none is negative."""
    least = _least(values_P, count)
    smaller_P = values_P[values_P < least]
    return (least.item() + (smaller_P.max().item() if len(smaller_P) else 0.0)) / 2


def _largest(values_P: Tensor, count: int) -> Tensor:
    """Positions, in order, of the `count` largest values; of equal ones the earlier."""
    threshold = _least(values_P, count)
    above_P, equal_P = values_P > threshold, values_P == threshold
    return (above_P | (equal_P & (equal_P.cumsum(0) <= count - above_P.sum()))).nonzero()[:, 0]
