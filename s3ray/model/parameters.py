"""Parameter accounting (Tables 4 and 5), counted on the instantiated module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from s3ray.model.config import ModelConfig
from s3ray.model.encoder import Encoder, Layer, S3Model

Accounting = Literal["paper", "all_layers"]


def _size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Numbers of parameters of all that a model encodes with."""

    total: int
    routers: int
    experts: int
    routed_one_layer: int  # the top-k experts of one layer, all encoders
    routed_all_layers: int  # the top-k experts of every layer, all encoders

    @classmethod
    def of(cls, *modules: nn.Module) -> ParameterCount:
        """Count `modules` together; all their encoders are equally deep."""
        every = [module for root in modules for module in root.modules()]
        layers = [module for module in every if isinstance(module, Layer)]
        routed = [_size(layer.experts) * layer.router.top_k // layer.router.experts for layer in layers]
        depth = len(layers) // sum(isinstance(module, Encoder) for module in every)
        return cls(
            total=sum(_size(root) for root in modules),
            routers=sum(_size(layer.router) for layer in layers),
            experts=sum(_size(layer.experts) for layer in layers),
            routed_one_layer=sum(routed) // depth,
            routed_all_layers=sum(routed),
        )

    @property
    def router_share(self) -> float:
        """Table 4: all routers over all parameters."""
        return self.routers / self.total

    def active(self, ratio: float, accounting: Accounting) -> float:
        """Expected active parameters per token at preservation ratio p: all but routers, p · top-k experts.

        `paper` counts the experts of one layer beside the attention of all layers, as Table 5 does;
        `all_layers` is the honest count.
        """
        routed = self.routed_one_layer if accounting == "paper" else self.routed_all_layers
        return self.total - self.routers - self.experts + ratio * routed

    def active_share(self, ratio: float, accounting: Accounting) -> float:
        """Table 5: active parameters at p over those at p = 1."""
        return self.active(ratio, accounting) / self.active(1.0, accounting)


def count_parameters(config: ModelConfig, features: Mapping[str, int]) -> ParameterCount:
    """Instantiate the model without memory (meta device) and count it."""
    with torch.device("meta"):
        return ParameterCount.of(S3Model(config, features))
