"""Stacked experts against one naive expert per (token, expert) pair."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from s3ray.model import experts as experts_module
from s3ray.model.config import ModelConfig
from s3ray.model.experts import Experts, grouped_matmul
from s3ray.model.pruning import Keep, Rule

# d = 8, N = 6 experts of width 8, top-3.
CONFIG = ModelConfig(width=8, heads=1, granularity=3, expansion=2, ffn_multiple=3)
T, K = 10, 3


def _standardised(x_TD: Tensor) -> Tensor:
    return F.layer_norm(x_TD, x_TD.shape[1:])


@pytest.fixture
def experts() -> Experts:
    """Every parameter random, norms included; expert 5 is never routed below."""
    torch.manual_seed(0)
    module = Experts(CONFIG).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return module


@pytest.fixture
def routed() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, distinct routing weights and three different experts per token."""
    torch.manual_seed(1)
    x_TD = torch.randn(T, CONFIG.width, dtype=torch.float64)
    weights_TK = torch.rand(T, K, dtype=torch.float64)
    experts_TK = torch.stack([torch.randperm(5)[:K] for _ in range(T)])
    return x_TD, weights_TK, experts_TK


def _naive(experts: Experts, x_TD: Tensor, weights_TK: Tensor, experts_TK: Tensor, kept: set[int]) -> Tensor:
    """Σ_k g_k e_k(x): LayerNorm with the expert's own weight and bias, W1, GELU, W2, pair by pair."""
    rows = []
    T, K = experts_TK.shape
    for t in range(T):
        y_D = torch.zeros(CONFIG.width, dtype=torch.float64)
        for k in range(K):
            if t * K + k not in kept:
                continue
            i = int(experts_TK[t, k])
            centred = x_TD[t] - x_TD[t].mean()
            n_D = centred / torch.sqrt(centred.square().mean() + 1e-5)
            n_D = n_D * experts.norm_weight_ND[i] + experts.norm_bias_ND[i]
            pre_E = n_D @ experts.w1_NDE[i] + experts.b1_NE[i]
            h_E = pre_E * 0.5 * (1.0 + torch.erf(pre_E / math.sqrt(2.0)))
            y_D = y_D + weights_TK[t, k] * (h_E @ experts.w2_NED[i] + experts.b2_ND[i])
        rows.append(y_D)
    return torch.stack(rows)


@pytest.mark.parametrize(("keep", "expected_pairs"), [(None, 30), (1.0, 30), (0.5, 15), (0.11, 4)])
def test_equals_the_naive_loop_forward_and_backward(
    experts: Experts, routed: tuple[Tensor, Tensor, Tensor], keep: float | None, expected_pairs: int
) -> None:
    x_TD, weights_TK, experts_TK = routed
    x_TD, weights_TK = x_TD.requires_grad_(), weights_TK.requires_grad_()
    # The kept pairs are those of the largest weights, found here by Python's own sort.
    flat = weights_TK.detach().reshape(-1).tolist()
    kept = set(sorted(range(T * K), key=lambda pair: -flat[pair])[:expected_pairs])

    fast, pairs = experts(_standardised(x_TD), weights_TK, experts_TK, None if keep is None else Keep(keep))
    slow = _naive(experts, x_TD, weights_TK, experts_TK, kept)
    assert pairs == expected_pairs
    torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)

    inputs = [x_TD, weights_TK, *experts.parameters()]
    direction = torch.randn_like(slow)
    for got, wanted in zip(
        torch.autograd.grad((fast * direction).sum(), inputs),
        torch.autograd.grad((slow * direction).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keep_one_is_the_unpruned_model_bit_for_bit(
    experts: Experts, routed: tuple[Tensor, Tensor, Tensor], dtype: torch.dtype
) -> None:
    x_TD, weights_TK, experts_TK = routed
    arguments = (_standardised(x_TD.to(dtype)), weights_TK.to(dtype), experts_TK)
    unpruned, _ = experts.to(dtype)(*arguments)
    kept, _ = experts(*arguments, Keep(1.0))
    assert torch.equal(kept, unpruned)


@pytest.mark.parametrize(
    ("keep", "tokens", "pairs"),
    [
        (0.5, 10, 15),
        (0.51, 10, 16),  # ⌈15.3⌉
        (0.001, 10, 1),
        (0.1, 10, 3),  # 0.1 · 10 · 3 = 3, though 0.1 · 3 is above 0.3 in floats
        (0.9, 10, 27),
        (0.55, 100, 165),  # 0.55 · 300 = 165, though 165.00000000000003 in floats
        (0.0, 10, 0),
    ],
)
def test_exactly_the_ceiling_is_kept(experts: Experts, keep: float, tokens: int, pairs: int) -> None:
    n_TD = torch.randn(tokens, CONFIG.width, dtype=torch.float64)
    weights_TK = torch.rand(tokens, K, dtype=torch.float64)
    assert experts(n_TD, weights_TK, torch.arange(K).repeat(tokens, 1), Keep(keep))[1] == pairs


def test_keep_zero_gives_zeros(experts: Experts, routed: tuple[Tensor, Tensor, Tensor]) -> None:
    x_TD, weights_TK, experts_TK = routed
    y_TD, pairs = experts(_standardised(x_TD), weights_TK, experts_TK, Keep(0.0))
    assert pairs == 0
    assert torch.equal(y_TD, torch.zeros_like(x_TD))


def test_ties_keep_the_earlier_pair(experts: Experts, routed: tuple[Tensor, Tensor, Tensor]) -> None:
    x_TD, _, experts_TK = routed
    weights_TK = torch.full((T, K), 0.25, dtype=torch.float64)
    weights_TK[9, 2] = 0.5  # the last pair is the only one that stands out
    y_TD, pairs = experts(_standardised(x_TD), weights_TK, experts_TK, Keep(0.2))
    assert pairs == 6  # the last pair and pairs 0 … 4 of the 29 tied ones
    slow = _naive(experts, x_TD, weights_TK, experts_TK, {29, 0, 1, 2, 3, 4})
    torch.testing.assert_close(y_TD, slow, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("keep", "rows"), [(None, 30), (0.5, 15), (0.1, 3)])
def test_dropped_pairs_are_not_computed(
    experts: Experts,
    routed: tuple[Tensor, Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    keep: float | None,
    rows: int,
) -> None:
    products: list[int] = []

    def counted(a_PD: Tensor, b_NDE: Tensor, ends_N: Tensor) -> Tensor:
        products.append(len(a_PD))
        return grouped_matmul(a_PD, b_NDE, ends_N)

    monkeypatch.setattr(experts_module, "grouped_matmul", counted)
    x_TD, weights_TK, experts_TK = routed
    experts(_standardised(x_TD), weights_TK, experts_TK, None if keep is None else Keep(keep))
    assert products == [rows, rows]  # W1 and W2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("lost", "computed"), [(0, 15), (10, 5), (15, 0), (30, 0)])
def test_pairs_are_those_that_were_computed_where_weights_are_nan(
    experts: Experts,
    routed: tuple[Tensor, Tensor, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    lost: int,
    computed: int,
    dtype: torch.dtype,
) -> None:
    """A weight that is no number ranks first and is larger than none: what it displaces is not computed, nor is it."""
    products: list[int] = []

    def counted(a_PD: Tensor, b_NDE: Tensor, ends_N: Tensor) -> Tensor:
        products.append(len(a_PD))
        return grouped_matmul(a_PD, b_NDE, ends_N)

    monkeypatch.setattr(experts_module, "grouped_matmul", counted)
    x_TD, weights_TK, experts_TK = routed
    weights_TK.view(-1)[:lost] = math.nan
    _, pairs = experts.to(dtype)(_standardised(x_TD.to(dtype)), weights_TK.to(dtype), experts_TK, Keep(0.5))
    assert products == ([pairs, pairs] if pairs else [])
    assert pairs == computed


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("tokens", [1, 10])
@pytest.mark.parametrize("expansion", [1, 2])  # of 1: every expert is routed, N = K
@pytest.mark.parametrize("rule", ["ranked", "smallest", "contribution"])
def test_every_rule_against_the_naive_loop(ratio: float, tokens: int, expansion: int, rule: Rule) -> None:
    torch.manual_seed(3)
    experts = Experts(dataclasses.replace(CONFIG, expansion=expansion)).double()
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x_TD = torch.randn(tokens, CONFIG.width, dtype=torch.float64)
    weights_TK = torch.rand(tokens, K, dtype=torch.float64)
    experts_TK = torch.stack([torch.randperm(3 * expansion)[:K] for _ in range(tokens)])
    # A pair's contribution: the norm of weight times output, W2's bias included, as it is added to the stream.
    alone = [_naive(experts, x_TD, weights_TK, experts_TK, {pair}).norm().item() for pair in range(tokens * K)]
    weights = weights_TK.flatten().tolist()
    value = {"ranked": weights, "smallest": [-w for w in weights], "contribution": alone}[rule]
    count = math.ceil(round(tokens * K * ratio, 9))
    kept = set(sorted(range(tokens * K), key=lambda pair: -value[pair])[:count])
    y_TD, pairs = experts(_standardised(x_TD), weights_TK, experts_TK, Keep(ratio, rule))
    assert pairs == count
    torch.testing.assert_close(y_TD, _naive(experts, x_TD, weights_TK, experts_TK, kept), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("granularity", [2, 8])
def test_at_initialisation_the_moe_has_the_variance_of_one_expert(granularity: int) -> None:
    """Near-uniform routing gives K of N experts the weight 1/N each; the scale ρ√χ makes up for it."""
    config = ModelConfig(width=128, heads=1, granularity=granularity, expansion=2, ffn_multiple=2)
    torch.manual_seed(0)
    scaled = Experts(config)
    torch.manual_seed(0)
    plain = Experts(dataclasses.replace(config, expert_scale="one"))
    assert config.expert_gain == pytest.approx(2 * math.sqrt(granularity))
    # Weights that sum to 1 are ρ times as large.
    assert dataclasses.replace(config, weights="renormalized").expert_gain == pytest.approx(math.sqrt(granularity))
    torch.testing.assert_close(scaled.w2_NED, plain.w2_NED * config.expert_gain)
    torch.testing.assert_close(scaled.b2_ND, plain.b2_ND * config.expert_gain)
    assert torch.equal(scaled.w1_NDE, plain.w1_NDE)

    tokens, N = 1000, config.experts
    n_TD = _standardised(torch.randn(tokens, config.width))
    experts_TK = torch.rand(tokens, N).argsort(1)[:, : config.top_k]
    with torch.no_grad():
        moe, unscaled = (e(n_TD, torch.full(experts_TK.shape, 1.0 / N), experts_TK)[0] for e in (scaled, plain))
        one = torch.stack([plain(n_TD, torch.ones(tokens, 1), torch.full((tokens, 1), i))[0] for i in range(N)])
    assert moe.var().item() == pytest.approx(one.var().item(), rel=0.1)
    assert unscaled.var().item() == pytest.approx(one.var().item() / config.expert_gain**2, rel=0.1)


def test_a_dense_ffn_is_not_scaled() -> None:
    assert ModelConfig().expert_scale == "variance"
    assert (ModelConfig().dense().expert_scale, ModelConfig().dense().expert_gain) == ("one", 1.0)


def test_grouped_matmul_agrees_between_dtypes_with_empty_groups() -> None:
    torch.manual_seed(2)
    a_PD = torch.randn(7, 8, dtype=torch.float64)
    b_NDE = torch.randn(5, 8, 4, dtype=torch.float64)
    ends_N = torch.tensor([0, 3, 3, 7, 7], dtype=torch.int32)  # groups 0, 2 and 4 are empty
    expected = torch.cat([a_PD[:3] @ b_NDE[1], a_PD[3:] @ b_NDE[3]])
    torch.testing.assert_close(grouped_matmul(a_PD, b_NDE, ends_N), expected, rtol=0, atol=1e-14)
    single = grouped_matmul(a_PD.float(), b_NDE.float(), ends_N)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-5)


def test_float32_gradients_agree_with_float64(experts: Experts, routed: tuple[Tensor, Tensor, Tensor]) -> None:
    x_TD, weights_TK, experts_TK = routed

    def gradients(dtype: torch.dtype) -> list[Tensor]:
        module = experts.to(dtype)
        y_TD, _ = module(_standardised(x_TD.to(dtype)), weights_TK.to(dtype), experts_TK)
        return [g.double() for g in torch.autograd.grad(y_TD.square().mean(), list(module.parameters()))]

    for single, double in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        torch.testing.assert_close(single, double, rtol=1e-4, atol=1e-4 * double.abs().max().item())
