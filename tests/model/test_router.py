"""The router (Eq. 20) on logits small enough to follow by hand."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from s3ray.model.config import ModelConfig
from s3ray.model.router import Router

# d = 4, N = 4 experts, top-2.
CONFIG = ModelConfig(width=4, heads=1, granularity=2, expansion=2, ffn_multiple=2)


@dataclass
class FixedNoise:
    """Stands in for Draws: the standard normal values are given."""

    values: Tensor

    def normal(self, columns: int, dtype: torch.dtype) -> Tensor:
        assert self.values.shape[1] == columns
        return self.values.to(dtype)


def _router(mix: Tensor, config: ModelConfig = CONFIG) -> Router:
    """A router whose first map is twice the identity."""
    router = Router(config).double()
    with torch.no_grad():
        router.project.weight.copy_(2.0 * torch.eye(4))
        router.mix.weight.copy_(mix)
    return router


def test_weights_are_softmax_values_that_are_not_renormalised() -> None:
    # Half of x doubles back to log 1 … log 4, whose softmax is 0.1, 0.2, 0.3, 0.4.
    x_TD = torch.log(torch.tensor([[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]], dtype=torch.float64)) / 2
    routing = _router(torch.eye(4))(x_TD, None)
    assert routing.experts_TK.tolist() == [[3, 2], [0, 1]]
    torch.testing.assert_close(routing.weights_TK, torch.tensor([[0.4, 0.3], [0.4, 0.3]]).double())
    assert routing.threshold_T.tolist() == pytest.approx([math.log(3)] * 2)  # the second largest logit


def test_renormalised_weights_sum_to_one() -> None:
    x_TD = torch.log(torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)) / 2
    routing = _router(torch.eye(4), dataclasses.replace(CONFIG, weights="renormalized"))(x_TD, None)
    torch.testing.assert_close(routing.weights_TK, torch.tensor([[4 / 7, 3 / 7]]).double())


def test_second_map_mixes_the_experts() -> None:
    # mix row i reads column 3 - i: the logits come out in reverse.
    x_TD = torch.tensor([[0.5, 1.0, 1.5, 2.0]], dtype=torch.float64)
    routing = _router(torch.eye(4).flip(0))(x_TD, None)
    assert routing.clean_logits_TN.tolist() == [[4.0, 3.0, 2.0, 1.0]]
    assert routing.experts_TK.tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("activation", "expected"), [("identity", 2.0), ("tanh", math.tanh(2.0)), ("gelu", 1.9544997361036416)]
)
def test_activation_stands_between_the_two_maps(activation: str, expected: float) -> None:
    # GELU(2) = 2 · Φ(2) = 2 · 0.97724986805…
    config = ModelConfig(width=4, heads=1, granularity=2, expansion=2, ffn_multiple=2, router_activation=activation)
    routing = _router(torch.eye(4), config)(torch.ones(1, 4, dtype=torch.float64), None)
    assert routing.clean_logits_TN[0].tolist() == pytest.approx([expected] * 4)


def test_noise_has_deviation_one_over_n_and_decides_the_routing() -> None:
    # Clean logits 0; noise 4, 8, 0, 12 over N = 4 makes 1, 2, 0, 3.
    noise = FixedNoise(torch.tensor([[4.0, 8.0, 0.0, 12.0]]))
    routing = _router(torch.eye(4))(torch.zeros(1, 4, dtype=torch.float64), noise)
    total = math.e**0 + math.e**1 + math.e**2 + math.e**3
    assert routing.clean_logits_TN.tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert routing.experts_TK.tolist() == [[3, 1]]
    assert routing.weights_TK[0].tolist() == pytest.approx([math.e**3 / total, math.e**2 / total])
    assert routing.threshold_T.tolist() == [2.0]


def test_two_maps_without_bias() -> None:
    assert sum(p.numel() for p in Router(CONFIG).parameters()) == 4 * 4 + 4 * 4  # d·N + N²
