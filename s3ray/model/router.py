"""The router (Eq. 20) and the statistics of its decisions.

Shape suffixes: T tokens, N experts, K top-k, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from s3ray.model.config import ModelConfig
from s3ray.model.draws import Draws

_ACTIVATIONS = {"identity": nn.Identity, "gelu": nn.GELU, "tanh": nn.Tanh}


@dataclass(frozen=True, slots=True)
class Routing:
    """A layer's decisions: `weights_TK` are softmax values, of all experts (Eq. 20) or, renormalised, of the top k."""

    weights_TK: Tensor
    experts_TK: Tensor
    clean_logits_TN: Tensor
    threshold_T: Tensor  # the k-th largest noisy logit


class Router(nn.Module):
    """g(x) = TOP_k(softmax(router(x))), the router being two linear maps d → N → N without bias."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.experts = config.experts
        self.top_k = config.top_k
        self.renormalizes = config.weights == "renormalized"
        self.project = nn.Linear(config.width, config.experts, bias=False)
        self.activation = _ACTIVATIONS[config.router_activation]()
        self.mix = nn.Linear(config.experts, config.experts, bias=False)

    def forward(self, x_TD: Tensor, draws: Draws | None) -> Routing:
        """Route tokens; with `draws`, Gaussian noise of deviation 1/N is added to the logits (F.2)."""
        clean_TN = self.mix(self.activation(self.project(x_TD)))
        noisy_TN = clean_TN
        if draws is not None:
            noisy_TN = clean_TN + draws.normal(self.experts, clean_TN.dtype) / self.experts
        top_TK, experts_TK = noisy_TN.topk(self.top_k, dim=1)
        among_TE = top_TK if self.renormalizes else noisy_TN
        weights_TK = (top_TK - among_TE.logsumexp(dim=1, keepdim=True)).exp()
        return Routing(weights_TK, experts_TK, clean_TN, top_TK[:, -1])
