"""The shape of an encoder."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from s3ray.configuration import added, check_whole
from s3ray.errors import UserError

Positions = Literal["none", "sinusoidal"]
Activation = Literal["identity", "gelu", "tanh"]
ExpertScale = Literal["variance", "one"]
Pooling = Literal["mean", "first", "last"]
Padding = Literal["masked", "routed"]
RouterInput = Literal["standardized", "raw"]
Weights = Literal["softmax", "renormalized"]

_MOST_PARAMETERS = 10**11


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """One encoder per modality; the parameter counts of the paper's Tables 4 and 5 fix this shape.

    On `expert_scale`: routing weights are softmax values over N = ρχ, of which the χ largest are kept: near 1/N each,
    so that χ independent experts add up to √χ/(ρχ) of one expert's output.

    Attributes:
        width: of tokens and representations, d.
        layers: per encoder.
        granularity: χ = FFN width / expert width (Eq. 21); top-k = χ; a cell has its own.
        expansion: ρ (Eq. 22); there are ρχ experts.
        ffn_multiple: FFN width / width.
        heads: of attention; one is implied: there is no output projection, which the ViT block drops for one head of
            full width.
        positions: (ours) parameter-free, added after the input projection.
        router_activation: (ours) between the router's two linear maps.
        dropout: (ours) on the residual branches; needed by views = "dropout".
        expert_scale: (ours) of W2 and b2 at initialisation: "variance" multiplies by ρ√χ, which gives the MoE the
            variance of the dense FFN that it stands for; "one" leaves them.
        pooling: (ours) what of a sequence is its representation: the mean over its tokens, or one of them.
        padding: (ours) "routed": sequences are padded with zeros to the longest of their modality, and padding goes
            through attention, routing, statistics, pruning and pooling as any token does; "masked": there is none.
        router_input: (ours) what the router reads of a token: it standardised over its features, as experts do, or
            the residual stream.
        weights: (ours) of the experts that are routed to: their softmax values, as Eq. 20 leaves them after the cut,
            or these divided by their sum.
    """

    width: int = 256
    layers: int = 5
    granularity: int = 8
    expansion: int = 8
    ffn_multiple: int = 4
    heads: int = 1
    positions: Positions = "none"
    router_activation: Activation = "identity"
    dropout: float = 0.0
    expert_scale: ExpertScale = added("variance", neutral="one")
    pooling: Pooling = added("mean", neutral="mean")
    padding: Padding = added("masked", neutral="masked")
    router_input: RouterInput = added("standardized", neutral="standardized")
    weights: Weights = added("softmax", neutral="softmax")

    def __post_init__(self) -> None:
        check_whole(self, "width", "layers", "granularity", "expansion", "ffn_multiple", "heads")
        if self.ffn_width % self.granularity:
            raise UserError(
                f"granularity {self.granularity} does not divide the FFN width {self.ffn_width}; "
                f"choose a divisor such as 2, 4 or 8"
            )
        if self.width % 4 or self.expert_width % 4:
            raise UserError(
                f"width {self.width} and expert width {self.expert_width} must be multiples of 4 "
                f"for the grouped matrix product; raise width or lower granularity"
            )
        if self.width % self.heads:
            raise UserError(f"heads {self.heads} does not divide width {self.width}; choose a divisor")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"dropout {self.dropout} is outside [0, 1); choose a fraction")
        if (parameters := 2 * self.layers * self.expansion * self.width * self.ffn_width) > _MOST_PARAMETERS:
            raise UserError(
                f"width {self.width}, layers {self.layers}, expansion {self.expansion} and ffn_multiple "
                f"{self.ffn_multiple} make {parameters:.0e} parameters per encoder, more than a worker holds; "
                f"lower them"
            )

    @property
    def ffn_width(self) -> int:
        return self.ffn_multiple * self.width

    @property
    def expert_width(self) -> int:
        return self.ffn_width // self.granularity

    @property
    def experts(self) -> int:
        return self.expansion * self.granularity

    @property
    def top_k(self) -> int:
        return self.granularity

    @property
    def expert_gain(self) -> float:
        """What `expert_scale` multiplies W2 and b2 by at initialisation: ρ√χ, and √χ where χ weights sum to 1."""
        if self.expert_scale == "one":
            return 1.0
        return (self.expansion if self.weights == "softmax" else 1) * math.sqrt(self.granularity)

    def dense(self) -> ModelConfig:
        """As many active parameters without routing: one expert of the full FFN width, which is a dense FFN.

        A router's choice of one from one has no effect, and neither has its activation; nothing is scaled.
        """
        return dataclasses.replace(
            self,
            granularity=1,
            expansion=1,
            router_activation="identity",
            router_input="standardized",
            weights="softmax",
            expert_scale="one",
        )
