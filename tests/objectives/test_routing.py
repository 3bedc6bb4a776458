"""The auxiliary losses (Appendix F) against loops over layers, tokens and experts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from s3ray.objectives.routing import (
    RoutingStatistics,
    global_entropy_loss,
    importance_loss,
    load_loss,
    local_entropy_loss,
    routing_statistics,
)

LAYERS, T, N, K = 2, 7, 4, 2


@pytest.fixture(name="clean_LTN")
def _clean() -> Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.randn(LAYERS, T, N, dtype=torch.float64, generator=source)


@pytest.fixture(name="noise_LTN")
def _noise() -> Tensor:
    """Of deviation 1/N, as Specialization adds it."""
    source = torch.Generator().manual_seed(1)
    return torch.randn(LAYERS, T, N, dtype=torch.float64, generator=source) / N


def _thresholds(noisy_LTN: Tensor) -> Tensor:
    return noisy_LTN.sort(dim=-1).values[..., -K]


def _statistics(clean_LTN: Tensor, noise_LTN: Tensor) -> RoutingStatistics:
    threshold_LT = _thresholds(clean_LTN + noise_LTN)
    return RoutingStatistics.stack([routing_statistics(c, t) for c, t in zip(clean_LTN, threshold_LT, strict=True)])


def _softmax(logits: list[float]) -> list[float]:
    total = sum(math.exp(x) for x in logits)
    return [math.exp(x) / total for x in logits]


def _entropy(probabilities: list[float]) -> float:
    return -sum(p * math.log(p) for p in probabilities)


def _squared_variation(totals: list[float]) -> float:
    mean = sum(totals) / len(totals)
    return sum((x - mean) ** 2 for x in totals) / len(totals) / mean**2  # population variance


def _naive_importance(clean: list[list[float]], _: list[list[float]]) -> float:
    """(std / mean)² over experts of Σ_x softmax(logits)_i."""
    return _squared_variation([sum(_softmax(x)[i] for x in clean) for i in range(N)])


def _naive_load(clean: list[list[float]], noisy: list[list[float]]) -> float:
    """(std / mean)² over experts of Σ_x 1 - Φ((threshold_k(x) - logit_i) · N), Φ by the error function."""
    loads = [0.0] * N
    for logits, perturbed in zip(clean, noisy, strict=True):
        threshold = sorted(perturbed, reverse=True)[K - 1]
        for i in range(N):
            below = 0.5 * (1.0 + math.erf((threshold - logits[i]) * N / math.sqrt(2.0)))
            loads[i] += 1.0 - below
    return _squared_variation(loads)


def _naive_local(clean: list[list[float]], _: list[list[float]]) -> float:
    return sum(_entropy(_softmax(x)) for x in clean) / len(clean)


def _naive_global(clean: list[list[float]], _: list[list[float]]) -> float:
    return -_entropy([sum(_softmax(x)[i] for x in clean) / len(clean) for i in range(N)])


LOSSES = [
    (importance_loss, _naive_importance),
    (load_loss, _naive_load),
    (local_entropy_loss, _naive_local),
    (global_entropy_loss, _naive_global),
]
NAMES = [loss.__name__ for loss, _ in LOSSES]


@pytest.mark.parametrize(("loss", "naive"), LOSSES, ids=NAMES)
def test_loss_is_the_loops_mean_over_layers(
    loss: Callable[[RoutingStatistics], Tensor],
    naive: Callable[..., float],
    clean_LTN: Tensor,
    noise_LTN: Tensor,
) -> None:
    noisy_LTN = clean_LTN + noise_LTN
    layers = [naive(clean_LTN[layer].tolist(), noisy_LTN[layer].tolist()) for layer in range(LAYERS)]
    assert loss(_statistics(clean_LTN, noise_LTN)).item() == pytest.approx(sum(layers) / LAYERS, rel=1e-10)


@pytest.mark.parametrize(("loss", "naive"), LOSSES, ids=NAMES)
def test_gradients(
    loss: Callable[[RoutingStatistics], Tensor], naive: object, clean_LTN: Tensor, noise_LTN: Tensor
) -> None:
    clean_LTN = clean_LTN.requires_grad_()
    assert torch.autograd.gradcheck(lambda clean: loss(_statistics(clean, noise_LTN)), (clean_LTN,))


def test_two_tokens_by_hand() -> None:
    # Softmax (¾, ¼) and (¼, ¾): importance (1, 1), each token's entropy H(¼), the mean distribution even.
    clean_TN = torch.log(torch.tensor([[3.0, 1.0], [1.0, 3.0]], dtype=torch.float64))
    statistics = RoutingStatistics.stack([routing_statistics(clean_TN, clean_TN.max(dim=1).values)])
    h_quarter = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert statistics.importance.tolist() == [pytest.approx([1.0, 1.0])]
    assert importance_loss(statistics).item() == pytest.approx(0.0)
    assert local_entropy_loss(statistics).item() == pytest.approx(h_quarter)
    assert global_entropy_loss(statistics).item() == pytest.approx(-math.log(2))
    # The chosen expert's logit is the threshold itself: Φ(0) = ½; the other lies 2 log 3 deviations below.
    other = 0.5 * (1.0 + math.erf(-2 * math.log(3) / math.sqrt(2)))
    assert statistics.load.tolist() == [pytest.approx([0.5 + other] * 2)]


def test_one_expert_takes_all() -> None:
    # Importance (2, 0): mean 1, population variance 1, so the squared coefficient of variation is 1.
    clean_TN = torch.tensor([[80.0, 0.0], [80.0, 0.0]], dtype=torch.float64)
    statistics = RoutingStatistics.stack([routing_statistics(clean_TN, torch.full((2,), 40.0).double())])
    assert importance_loss(statistics).item() == pytest.approx(1.0)
    assert load_loss(statistics).item() == pytest.approx(1.0)
    assert local_entropy_loss(statistics).item() == pytest.approx(0.0, abs=1e-12)


def test_far_logits_keep_finite_gradients_in_float32() -> None:
    clean_TN = torch.tensor([[1e4, -1e4, 0.0, 50.0]], requires_grad=True)
    statistics = routing_statistics(clean_TN, torch.tensor([50.0]))
    (statistics.load.sum() + statistics.entropy).backward()
    assert clean_TN.grad is not None
    assert clean_TN.grad.isfinite().all()


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_statistics_of_shards_add_up(clean_LTN: Tensor, noise_LTN: Tensor, cut: int) -> None:
    whole = _statistics(clean_LTN, noise_LTN)
    first = _statistics(clean_LTN[:, :cut], noise_LTN[:, :cut])
    second = _statistics(clean_LTN[:, cut:], noise_LTN[:, cut:])
    torch.testing.assert_close(first.pack() + second.pack(), whole.pack(), rtol=1e-12, atol=1e-12)
    # Losses are functions of those sums, so they need no more than the sums of other workers.
    merged = RoutingStatistics.unpack(first.pack() + second.pack())
    for loss, _ in LOSSES:
        torch.testing.assert_close(loss(merged), loss(whole), rtol=1e-12, atol=1e-12)


def test_pack_keeps_every_field_apart(clean_LTN: Tensor, noise_LTN: Tensor) -> None:
    statistics = _statistics(clean_LTN, noise_LTN)
    back = RoutingStatistics.unpack(statistics.pack())
    for name in ("importance", "load", "entropy", "tokens"):
        assert torch.equal(getattr(back, name), getattr(statistics, name)), name
    assert statistics.tokens.tolist() == [float(T)] * LAYERS
