"""Every loss at the edges of its formula: value and gradient are finite, and what the limit or symmetry demands.

Edges: representations that are 0, or all the same; one class, one sample, one expert; experts without any share;
logits so large that probabilities are exactly 0; a temperature so small that softmax is a maximum.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from s3ray.objectives.contrastive import coherence_loss, info_nce, representation_loss
from s3ray.objectives.prior import club_bound, cross_correlation, mean_cosine, mean_positive_cosine, nce_bound
from s3ray.objectives.routing import (
    RoutingStatistics,
    global_entropy_loss,
    importance_loss,
    load_loss,
    local_entropy_loss,
    routing_statistics,
)
from s3ray.objectives.selection import compactness, minimality_loss, sufficiency_loss, sup_con
from s3ray.objectives.sphere import normalize

B, D = 6, 4
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
TEMPERATURES = (1.0, 0.1, 1e-3, 1e-6)


def _z(dtype: torch.dtype, seed: int = 0, rows: int = B) -> Tensor:
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def _value_and_slopes(loss: Callable[..., Tensor], *inputs: Tensor) -> tuple[float, list[Tensor]]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    value = loss(*leaves)
    slopes = torch.autograd.grad(value, leaves)
    assert value.isfinite()
    assert all(slope.isfinite().all() for slope in slopes)
    return value.item(), list(slopes)


def _differences(loss: Callable[[Tensor], Tensor], x: Tensor, step: float = 1e-5) -> Tensor:
    """Central differences in float64."""
    slopes = torch.zeros_like(x)
    for place in itertools.product(*map(range, x.shape)):
        moved = [x.clone(), x.clone()]
        moved[0][place] -= step
        moved[1][place] += step
        slopes[place] = (loss(moved[1]) - loss(moved[0])) / (2 * step)
    return slopes


# Of representations: a name, the loss of two modalities, and its value where both are 0 throughout.
LABELS = torch.tensor([0, 1, 0, 1, 0, 1])
PAIRS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float]] = {
    "info_nce": (lambda a, b: info_nce(a, b, 0.1), math.log(B)),
    "representation": (lambda a, b: representation_loss([a, b], [a, b], 0.1), math.log(B)),
    "coherence": (lambda a, b: coherence_loss([a, b], 0.1), math.log(B)),
    "sup_con": (lambda a, b: sup_con(a, b, LABELS, 0.1), math.log(B)),
    "sufficiency": (lambda a, b: sufficiency_loss([a, b], LABELS, 0.1), math.log(B)),
    "compactness": (lambda a, b: compactness(a, b, LABELS), 0.0),
    "minimality": (lambda a, b: minimality_loss([a, b], LABELS), 0.0),
    "mean_cosine": (mean_cosine, 0.0),
    "mean_positive_cosine": (mean_positive_cosine, 0.0),
    "cross_correlation": (cross_correlation, 0.0),
}
every_pair = pytest.mark.parametrize("name", PAIRS)


@DTYPES
@every_pair
def test_representations_without_length_are_like_nothing_and_get_no_gradient(name: str, dtype: torch.dtype) -> None:
    loss, at_zero = PAIRS[name]
    nothing = torch.zeros(B, D, dtype=dtype)
    value, slopes = _value_and_slopes(loss, nothing, nothing)
    assert value == pytest.approx(at_zero, abs=1e-6)
    assert all((slope == 0.0).all() for slope in slopes)
    # One such row among others: they keep the gradient that they have if the row is a constant.
    a, b = _z(dtype), _z(dtype, 1)
    a[2] = 0.0
    _, (slope, _) = _value_and_slopes(loss, a, b)
    assert (slope[2] == 0.0).all()
    others = [0, 1, 3, 4, 5]

    def of_others(rows: Tensor) -> Tensor:
        whole = torch.zeros(B, D, dtype=torch.float64)
        whole[others] = rows
        return loss(whole, b.double())

    expected = _differences(of_others, a[others].double())
    torch.testing.assert_close(slope[others].double(), expected, rtol=1e-3, atol=1e-4)


@DTYPES
@every_pair
def test_identical_rows(name: str, dtype: torch.dtype) -> None:
    loss, _ = PAIRS[name]
    same = _z(dtype, rows=1).expand(B, D)
    value, (slope, _) = _value_and_slopes(loss, same, same)
    # All logits are alike: log B; every cosine is 1, every class mean the row itself; ‖Σ ẑẑᵀ‖ = B.
    expected = {"compactness": -1.0, "minimality": -1.0, "cross_correlation": float(B)}
    expected |= {"mean_cosine": 1.0, "mean_positive_cosine": 1.0}
    assert value == pytest.approx(expected.get(name, math.log(B)), rel=1e-5)
    if name != "representation":  # whose own view stands still in the differences
        moved = _differences(lambda x: loss(x, same.double()), same.double().clone())
        torch.testing.assert_close(slope.double(), moved, rtol=1e-3, atol=1e-4)


@DTYPES
@every_pair
def test_one_sample_and_one_class(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    loss, _ = PAIRS[name]
    for rows in (1, B):
        monkeypatch.setattr(f"{__name__}.LABELS", torch.zeros(rows, dtype=torch.int64))
        a, b = _z(dtype, rows=rows), _z(dtype, 1, rows)
        _, (slope, _) = _value_and_slopes(loss, a, b)
        moved = _differences(lambda x, b=b: loss(x, b.double()), a.double())
        torch.testing.assert_close(slope.double(), moved, rtol=1e-3, atol=1e-4)


@DTYPES
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_temperature_that_makes_softmax_a_maximum(temperature: float, dtype: torch.dtype) -> None:
    # Each sample is its own nearest one: the loss tends to 0. Against the sample opposite: 2 / τ.
    a = torch.eye(D, dtype=dtype)
    a = torch.cat([a, -a])
    near, (slope, _) = _value_and_slopes(lambda x, y: info_nce(x, y, temperature), a, a)
    expected = math.log1p(6 * math.exp(-1 / temperature) + math.exp(-2 / temperature))
    assert near == pytest.approx(expected, abs=1e-6)
    far, _ = _value_and_slopes(lambda x, y: info_nce(x, y, temperature), a, -a)
    assert far == pytest.approx(2 / temperature + expected, rel=1e-5)
    if temperature < 0.01:
        assert slope.abs().max() < 1e-6
    _value_and_slopes(lambda x, y: sup_con(x, y, LABELS, temperature), _z(dtype), _z(dtype, 1))
    _value_and_slopes(lambda x, y: sufficiency_loss([x, y], LABELS, temperature), _z(dtype), _z(dtype, 1))


@DTYPES
def test_a_class_whose_members_cancel_has_no_centre(dtype: torch.dtype) -> None:
    a, b = _z(dtype, rows=2), _z(dtype, 1, 1)
    value, slopes = _value_and_slopes(lambda x, y: compactness(x, y, torch.zeros(2)), a, torch.cat([b, -b]))
    assert value == 0.0
    assert all((slope == 0.0).all() for slope in slopes)


@DTYPES
def test_normalize_is_the_usual_one_for_rows_with_a_length(dtype: torch.dtype) -> None:
    x = _z(dtype).requires_grad_()
    weights = _z(dtype, 1)
    for power in (-10, 0, 10):
        ours, usual = (f(x * 10.0**power) for f in (normalize, lambda z: F.normalize(z, dim=1)))
        assert torch.equal(ours, usual)
        slopes = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, usual)]
        assert torch.equal(*slopes)


@DTYPES
@pytest.mark.parametrize("height", [0.0, 1e4, -1e4])
def test_bounds_of_scores_however_high(height: float, dtype: torch.dtype) -> None:
    # Nothing told: both bounds are 0; f = height for pairs and 0 else tells log B of nce, height (1 - 1/B) of club.
    for bound in (nce_bound, club_bound):
        value, (slope,) = _value_and_slopes(bound, torch.full((B, B), height, dtype=dtype))
        assert value == pytest.approx(0.0, abs=1e-5 * max(1.0, abs(height)))
        # logsumexp knows its value to a digit of the scores' own, and the slope is e to the difference.
        torch.testing.assert_close(slope, (torch.eye(B, dtype=dtype) - 1 / B) / B, rtol=2e-3, atol=1e-6)
    for rows in (1, B):
        scores = height * torch.eye(rows, dtype=dtype)
        nce, _ = _value_and_slopes(nce_bound, scores)
        expected = math.log(rows) if height > 1 else 0.0 if rows == 1 or height == 0 else height + math.log(B / (B - 1))
        assert nce == pytest.approx(expected, abs=1e-5 * max(1.0, abs(height)))
        club, _ = _value_and_slopes(club_bound, scores)
        assert club == pytest.approx(height * (1 - 1 / rows), rel=1e-6)


# Of routing: the loss of clean logits (T, N) with the threshold of the second largest, or of the only one.
ROUTING = {"importance": importance_loss, "load": load_loss, "local": local_entropy_loss, "global": global_entropy_loss}
every_routing = pytest.mark.parametrize("name", ROUTING)


def _of_logits(name: str, clean_TN: Tensor) -> Tensor:
    threshold_T = clean_TN.detach().sort(dim=1).values[:, -min(2, clean_TN.shape[1])]
    return ROUTING[name](RoutingStatistics.stack([routing_statistics(clean_TN, threshold_T)]))


def _independent(name: str, clean_TN: Tensor) -> float:
    """The same in Python's floats, 0 log 0 being 0."""
    tokens = clean_TN.double().tolist()
    N = len(tokens[0])

    def softmax(x: list[float]) -> list[float]:
        weights = [math.exp(v - max(x)) for v in x]
        return [w / sum(weights) for w in weights]

    def entropy(p: list[float]) -> float:
        return -sum(q * math.log(q) for q in p if q > 0)

    def variation(x: list[float]) -> float:
        mean = sum(x) / N
        return sum((v - mean) ** 2 for v in x) / N / mean**2

    routed = [softmax(x) for x in tokens]
    totals = [sum(p[i] for p in routed) for i in range(N)]
    if name == "importance":
        return variation(totals)
    if name == "load":
        reached = [sorted(x)[-min(2, N)] for x in tokens]
        above = [[0.5 * math.erfc((t - v) * N / math.sqrt(2)) for v in x] for x, t in zip(tokens, reached, strict=True)]
        return variation([sum(x[i] for x in above) for i in range(N)])
    if name == "local":
        return sum(map(entropy, routed)) / len(routed)
    return -entropy([total / len(tokens) for total in totals])


@DTYPES
@every_routing
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e2, 1e4, 1e6])
@pytest.mark.parametrize(("tokens", "experts"), [(5, 4), (1, 4), (5, 1), (1, 1)])
def test_routing_losses_however_sharp(name: str, scale: float, tokens: int, experts: int, dtype: torch.dtype) -> None:
    source = torch.Generator().manual_seed(tokens)
    clean = (scale * torch.randn(tokens, experts, generator=source, dtype=torch.float64)).to(dtype)
    value, (slope,) = _value_and_slopes(lambda x: _of_logits(name, x), clean)
    assert value == pytest.approx(_independent(name, clean), rel=1e-4, abs=1e-6)
    if experts == 1:
        assert (slope == 0.0).all()  # one expert takes all, whatever its logit
    elif scale <= 1e2 and name != "load":  # load's threshold is a logit itself: moved along, it is not smooth
        moved = _differences(lambda x: _of_logits(name, x), clean.double(), 1e-6)
        torch.testing.assert_close(slope.double(), moved, rtol=1e-2, atol=1e-4)


@DTYPES
def test_an_expert_that_no_token_has_any_probability_for_gets_no_gradient(dtype: torch.dtype) -> None:
    """d (p log p) / d logit = (log p + 1) · p · …, which tends to 0 with p; as a product of floats it is ∞ · 0."""
    slopes = []
    for low in (-10.0, -20.0, -40.0, -80.0, -1e3, -1e30):
        clean = torch.tensor([[0.0, 1.0, low], [1.0, 0.5, low]], dtype=dtype)
        _, (slope,) = _value_and_slopes(lambda x: _of_logits("global", x), clean)
        slopes.append(slope[:, 2].abs().max().item())
        p = math.exp(low) if low > -700 else 0.0
        assert slopes[-1] <= 3 * p * (abs(low) + 3)
    assert slopes == sorted(slopes, reverse=True)
    assert slopes[-1] == 0.0


@DTYPES
@every_routing
@pytest.mark.parametrize("zeros", [1, 4])
def test_experts_without_any_share(name: str, zeros: int, dtype: torch.dtype) -> None:
    """Sums over tokens as such: `zeros` of four experts got nothing, in importance as in load."""
    share = torch.ones(1, 4, dtype=dtype)
    share[0, :zeros] = 0.0
    one = torch.ones(1, dtype=dtype)

    def loss(importance: Tensor, load: Tensor) -> Tensor:
        statistics = RoutingStatistics(importance, load, 0.0 * importance.sum() + one, 3 * one)
        return ROUTING[name](statistics) + 0.0 * (importance + load).sum()

    value, slopes = _value_and_slopes(loss, share, share)
    if zeros == 4:
        # Equal among all, if nothing each.
        assert value == {"local": pytest.approx(1 / 3)}.get(name, 0.0)
        assert all((slope == 0.0).all() for slope in slopes)
    else:
        # (0, 1, 1, 1): mean ¾, variance 3/16; each third has p log p = log(1/3) / 3.
        expected = {"importance": 1 / 3, "load": 1 / 3, "local": 1 / 3, "global": math.log(1 / 3)}
        assert value == pytest.approx(expected[name], rel=1e-6)
