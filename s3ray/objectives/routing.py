"""The four auxiliary losses of Appendix F, as functions of sums over tokens.

The losses are defined on the global batch. Written on sums, they need nothing but those sums from other
workers: `routing_statistics` of each shard add up to those of the whole batch.

Shape suffixes: T tokens, N experts, L layers (statistics of several layers are stacked in front).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class RoutingStatistics:
    """Sums over tokens: routing distributions, selection probabilities, entropies, and the count."""

    importance: Tensor  # (…, N)
    load: Tensor  # (…, N)
    entropy: Tensor  # (…,) nats
    tokens: Tensor  # (…,)

    @staticmethod
    def stack(layers: Sequence[RoutingStatistics]) -> RoutingStatistics:
        return RoutingStatistics(
            torch.stack([s.importance for s in layers]),
            torch.stack([s.load for s in layers]),
            torch.stack([s.entropy for s in layers]),
            torch.stack([s.tokens for s in layers]),
        )

    def pack(self) -> Tensor:
        """One tensor (…, 2N + 2), for one reduction over workers."""
        return torch.cat([self.importance, self.load, self.entropy[..., None], self.tokens[..., None]], dim=-1)

    @staticmethod
    def unpack(packed: Tensor) -> RoutingStatistics:
        experts = (packed.shape[-1] - 2) // 2
        importance, load, entropy, tokens = packed.split([experts, experts, 1, 1], dim=-1)
        return RoutingStatistics(importance, load, entropy[..., 0], tokens[..., 0])


def routing_statistics(clean_logits_TN: Tensor, threshold_T: Tensor) -> RoutingStatistics:
    """A layer's sums over its tokens.

    The load of an expert is the probability that its clean logit, with fresh noise of deviation 1/N, reaches
    `threshold_T`, the token's k-th largest noisy logit (Eqs. 96–99): Φ((logit - threshold) · N).
    """
    experts = clean_logits_TN.shape[1]
    log_probs_TN = F.log_softmax(clean_logits_TN, dim=1)
    probs_TN = log_probs_TN.exp()
    # Beyond 13 deviations Φ and its slope vanish in float32, where exp would take its slow underflow path.
    deviations_TN = ((clean_logits_TN - threshold_T[:, None]) * experts).clamp(-13.0, 13.0)
    selected_TN = torch.special.ndtr(deviations_TN)
    return RoutingStatistics(
        importance=probs_TN.sum(0),
        load=selected_TN.sum(0),
        entropy=-(probs_TN * log_probs_TN).sum(),
        tokens=probs_TN.new_tensor(float(len(probs_TN))),
    )


def squared_variation(total_N: Tensor) -> Tensor:
    """Squared coefficient of variation over experts, (std / mean)² with the population deviation.

    Totals that are all 0 vary by 0, with gradient 0: no expert is favoured, and scaling never changes the value.
    """
    tiny = torch.finfo(total_N.dtype).tiny
    return total_N.var(dim=-1, correction=0) / total_N.mean(dim=-1).square().clamp_min(tiny)


def importance_loss(statistics: RoutingStatistics) -> Tensor:
    """Eq. 95, averaged over layers (ours)."""
    return squared_variation(statistics.importance).mean()


def load_loss(statistics: RoutingStatistics) -> Tensor:
    """Eq. 101, averaged over layers (ours)."""
    return squared_variation(statistics.load).mean()


def local_entropy_loss(statistics: RoutingStatistics) -> Tensor:
    """Eq. 103: mean Shannon entropy (nats) of the tokens' routing distributions, averaged over layers.

    0 without tokens, where no sample of a batch has the modality; all four losses are.
    """
    return (statistics.entropy / statistics.tokens.clamp_min(1.0)).mean()


def global_entropy_loss(statistics: RoutingStatistics) -> Tensor:
    """Eq. 105: minus the entropy (nats) of the mean routing distribution, averaged over layers.

    An expert whose mean probability p underflows to 0 gets gradient 0. The slope of p log p is infinite there, but
    softmax passes on p times a slope: p log p, which tends to 0 with p. In floating point it would be 0 · ∞, NaN.
    """
    mean_N = statistics.importance / statistics.tokens.clamp_min(1.0)[..., None]
    # 1 log 1 is 0 as well, and `where` lets no gradient through to what it leaves out.
    entropy: Tensor = torch.special.entr(torch.where(mean_N == 0, 1.0, mean_N)).sum(-1).mean()
    return -entropy
