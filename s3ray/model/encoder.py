"""One encoder per modality, and all of them together.

Shape suffixes: B samples, T valid tokens, S longest sequence, F input features, D width, H heads, L layers,
N experts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3ray.model.batch import Layout, Ragged
from s3ray.model.config import ModelConfig
from s3ray.model.draws import Draws
from s3ray.model.experts import Experts
from s3ray.model.pruning import Keep, Pruning
from s3ray.model.router import Router, Routing
from s3ray.model.trained import Encoding, TrainedModel
from s3ray.objectives.routing import RoutingStatistics, routing_statistics


@dataclass(frozen=True, slots=True)
class Encoded:
    """What an encoder says of a batch: z is pooled but not yet on the sphere (the losses normalise)."""

    z_BD: Tensor
    routings: tuple[Routing, ...]  # per layer
    added_L2: Tensor  # per layer the variance that the MoE adds and that of the stream behind it; empty but in training
    pairs_computed: int  # over all layers
    pairs_routed: int

    def statistics(self) -> RoutingStatistics:
        """The layers' routing statistics, stacked (L, …); made on demand, since evaluation needs none."""
        return RoutingStatistics.stack([routing_statistics(r.clean_logits_TN, r.threshold_T) for r in self.routings])


class Attention(nn.Module):
    """Pre-norm self-attention: query, key and value without bias, no output projection (3·d² parameters)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)

    def forward(self, x_TD: Tensor, layout: Layout) -> Tensor:
        qkv = layout.pad(self.qkv(self.norm(x_TD)))
        q_BHSC, k_BHSC, v_BHSC = qkv.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if layout.uniform else layout.valid_PS[:, None, None, :]
        out_BHSC = F.scaled_dot_product_attention(q_BHSC, k_BHSC, v_BHSC, attn_mask=mask)
        return layout.unpad(out_BHSC.transpose(1, 2).flatten(2))


@dataclass(frozen=True, slots=True)
class Routed:
    """A batch before a layer's experts; before the first layer's, all that pruning does not change."""

    layout: Layout
    x_TD: Tensor  # the residual stream
    n_TD: Tensor  # standardised
    routing: Routing

    @property
    def nbytes(self) -> int:
        routing = self.routing
        tensors = (self.x_TD, self.n_TD, routing.weights_TK, routing.experts_TK, routing.clean_logits_TN)
        return sum(tensor.nbytes for tensor in tensors)


class Layer(nn.Module):
    """x + attention(x), then x + MoE(x)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.routes_raw = config.router_input == "raw"
        self.attention = Attention(config)
        self.router = Router(config)
        self.experts = Experts(config)

    def route(self, x_TD: Tensor, layout: Layout, draws: Draws | None) -> Routed:
        """What comes before the experts."""
        x_TD = x_TD + self._drop(self.attention(x_TD, layout), draws)
        n_TD = F.layer_norm(x_TD, x_TD.shape[1:])
        return Routed(layout, x_TD, n_TD, self.router(x_TD if self.routes_raw else n_TD, draws))

    def add(self, routed: Routed, draws: Draws | None, keep: Keep | None) -> tuple[Tensor, int, Tensor | None]:
        """The stream behind the experts, pairs computed, and in training the variances of both."""
        weights_TK, experts_TK = routed.routing.weights_TK, routed.routing.experts_TK
        y_TD, pairs = self.experts(routed.n_TD, weights_TK, experts_TK, keep)
        x_TD = routed.x_TD + self._drop(y_TD, draws)
        return x_TD, pairs, _variances(y_TD, x_TD) if self.training else None

    def _drop(self, y_TD: Tensor, draws: Draws | None) -> Tensor:
        if draws is None or self.dropout == 0.0:
            return y_TD
        return y_TD * draws.dropout(y_TD.shape[1], self.dropout, y_TD.dtype)


class Encoder(nn.Module):
    """Input projection, L layers, final LayerNorm, and of the tokens their mean, the first or the last."""

    def __init__(self, config: ModelConfig, features: int) -> None:
        super().__init__()
        self.positions = config.positions
        self.pooling, self.routes_padding = config.pooling, config.padding == "routed"
        self.top_k = config.top_k
        self.project = nn.Linear(features, config.width, bias=False)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def begin(self, x: Ragged, draws: Draws | None = None) -> Routed:
        """A batch up to the first layer's experts."""
        layout = Layout(x.lengths_B)
        assert layout.uniform or not self.routes_padding, "a batch whose padding is routed comes padded"
        x_TD = self.project(x.values_TF)
        if self.positions == "sinusoidal":
            x_TD = x_TD + sinusoids(layout.longest, x_TD)[layout.position_T]
        return self._layers[0].route(x_TD, layout, draws)

    def forward(self, x: Ragged | Routed, draws: Draws | None = None, keep: Keep | None = None) -> Encoded:
        """Encode a batch.

        Args:
            x: values (T, F) and lengths (B,), or what `begin` made of them.
            draws: noise and dropout of a Specialization step; None: deterministic.
            keep: the share of each layer's pairs that is computed; None: all.

        Returns:
            z (B, D), the layers' routing decisions, and pair counts summed over layers.
        """
        routed = self.begin(x, draws) if isinstance(x, Ragged) else x
        routings, variances, layout = list[Routing](), list[Tensor](), routed.layout
        computed = 0
        for layer, following in itertools.zip_longest(self._layers, self._layers[1:]):
            x_TD, pairs, added_2 = layer.add(routed, draws, keep)
            routings.append(routed.routing)
            if added_2 is not None:
                variances.append(added_2)
            computed += pairs
            if following is not None:
                routed = following.route(x_TD, layout, draws)
        z_BD = layout.pool(self.norm(x_TD), self.pooling)
        added_L2 = torch.stack(variances) if variances else z_BD.new_empty(0, 2)
        return Encoded(z_BD, tuple(routings), added_L2, computed, len(self.layers) * layout.tokens * self.top_k)

    @property
    def _layers(self) -> list[Layer]:
        return cast(list[Layer], list(self.layers))


@torch.no_grad()
def _variances(y_TD: Tensor, x_TD: Tensor) -> Tensor:
    """Of each tensor the tokens' variances over D, summed over tokens: (2,)."""
    if not len(y_TD):  # `var` warns
        return y_TD.new_zeros(2)
    return torch.stack([tensor_TD.var(dim=1, correction=0).sum() for tensor_TD in (y_TD, x_TD)])


def _of_tokens(routings: Sequence[Routing], kept: Sequence[Tensor]) -> Tensor:
    """Mean weight of each token's pairs and the share of them that was computed, per layer: (T, L, 2).

    Args:
        kept: per layer the computed pairs' positions; empty if all were.
    """
    weights_LT = [routing.weights_TK.mean(dim=1) for routing in routings]
    shares_LT = [torch.ones_like(weights_T) for weights_T in weights_LT]
    for layer, kept_P in enumerate(kept):
        tokens, top_k = routings[layer].weights_TK.shape
        shares_LT[layer] = torch.bincount(kept_P // top_k, minlength=tokens).to(weights_LT[layer]) / top_k
    return torch.stack([torch.stack(weights_LT, dim=1), torch.stack(shares_LT, dim=1)], dim=2)


def _pairs(routings: Sequence[Routing], kept: Sequence[Tensor]) -> Tensor:
    """Expert, weight and whether it was computed (1 or 0) of each token's pairs, per layer: (T, L, K, 3).

    Args:
        kept: per layer the computed pairs' positions; empty if all were.
    """
    layers = []
    for layer, routing in enumerate(routings):
        weights_TK = routing.weights_TK
        computed_TK = torch.ones_like(weights_TK)
        if kept:
            computed_TK = torch.zeros_like(weights_TK)
            computed_TK.view(-1)[kept[layer]] = 1.0
        layers.append(torch.stack([routing.experts_TK.to(weights_TK.dtype), weights_TK, computed_TK], dim=2))
    return torch.stack(layers, dim=1)


class S3Model(TrainedModel):
    """One encoder per modality; they share nothing but their losses."""

    def __init__(self, config: ModelConfig, features: Mapping[str, int]) -> None:
        super().__init__()
        self.depth = config.layers  # of each encoder
        self.encoders = nn.ModuleDict({name: Encoder(config, width) for name, width in features.items()})

    def forward(
        self,
        batch: Mapping[str, Ragged] | Mapping[str, Routed],
        draws: Mapping[str, Draws] | None = None,
        keep: Mapping[str, Keep] | None = None,
        passes: int = 1,
    ) -> list[dict[str, Encoded]]:
        """Encode all modalities, `passes` times (two stochastic views draw different dropout)."""
        return [
            {
                name: encoder(batch[name], draws[name] if draws else None, keep[name] if keep else None)
                for name, encoder in self.encoders.items()
            }
            for _ in range(passes)
        ]

    def begin(self, batch: Mapping[str, Ragged]) -> dict[str, Routed]:
        return {name: cast(Encoder, encoder).begin(batch[name]) for name, encoder in self.encoders.items()}

    def encode(
        self,
        batch: Mapping[str, Ragged] | Mapping[str, Routed],
        output: str = "none",
        pruning: Pruning | None = None,
        sample: int = 0,
    ) -> Encoding:
        """All modalities' z, pruned."""
        keep = None
        if pruning is not None:
            device = next(self.parameters()).device
            keep = {name: pruning.keep(name, sample, device) for name in self.encoders}
            if pruning.across_layers:
                whole = self(batch)[0]
                weights = {name: [routing.weights_TK for routing in e.routings] for name, e in whole.items()}
                for name, threshold in pruning.thresholds(weights).items():
                    keep[name].thresholds = [threshold] * self.depth
        by_modality = self(batch, keep=keep)[0]
        encoded = by_modality.values()

        def tokens() -> dict[str, Tensor]:
            return {name: _of_tokens(e.routings, keep[name].kept if keep else []) for name, e in by_modality.items()}

        def pairs() -> dict[str, Tensor]:
            return {name: _pairs(e.routings, keep[name].kept if keep else []) for name, e in by_modality.items()}

        return Encoding(
            [e.z_BD for e in encoded],
            sum(e.pairs_computed for e in encoded),
            sum(e.pairs_routed for e in encoded),
            tokens,
            pairs,
        )

    def used(self, output: str) -> Sequence[nn.Module]:
        return [self]

    def encoders_alone(self, output: str) -> S3Model:
        return self

    def router_parameters(self) -> dict[str, nn.Parameter]:
        """What Selection trains."""
        # encoders.MODALITY.layers.INDEX.router.…: a modality may be called "router" itself.
        return {name: p for name, p in self.named_parameters() if name.split(".")[4:5] == ["router"]}


def sinusoids(length: int, like: Tensor) -> Tensor:
    """Position codes (length, D) in the dtype and on the device of `like` (·, D)."""
    half = like.shape[1] // 2
    rates = torch.exp(torch.arange(half, device=like.device) * (-math.log(10_000.0) / max(half - 1, 1)))
    angles = torch.arange(length, device=like.device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).to(like.dtype)


def build_model(config: ModelConfig, features: Mapping[str, int], seed: int) -> S3Model:
    """A model initialised from `seed` alone; the caller's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return S3Model(config, features)
