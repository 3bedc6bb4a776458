"""Sufficiency and minimality (Eqs. 29-32) against loops written from the equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from s3ray.objectives.selection import compactness, minimality_loss, sufficiency_loss, sup_con

TAU = 0.3
# Class 7 once, class 2 three times, class 0 twice: labels need not count up from 0.
LABELS = torch.tensor([2, 7, 0, 2, 0, 2])


def _unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def _dot(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _naive_sup_con(a: Tensor, b: Tensor, tau: float) -> float:
    """-E_i E_{s: y_s = y_i} log( exp(⟨a_i, b_s⟩/τ) / Σ_j exp(⟨a_i, b_j⟩/τ) ), s = i included."""
    anchors, others = [_unit(row) for row in a.tolist()], [_unit(row) for row in b.tolist()]
    total = 0.0
    for i, anchor in enumerate(anchors):
        denominator = sum(math.exp(_dot(anchor, other) / tau) for other in others)
        positives = [s for s in range(len(others)) if LABELS[s] == LABELS[i]]
        logs = [math.log(math.exp(_dot(anchor, others[s]) / tau) / denominator) for s in positives]
        total -= sum(logs) / len(positives)
    return total / len(anchors)


def _naive_compactness(a: Tensor, b: Tensor) -> float:
    """-E_i ⟨a_i, μ̂_{y_i}⟩, μ̂_y the normalised mean of b's representations of class y."""
    anchors, others = [_unit(row) for row in a.tolist()], [_unit(row) for row in b.tolist()]
    total = 0.0
    for i, anchor in enumerate(anchors):
        members = [others[s] for s in range(len(others)) if LABELS[s] == LABELS[i]]
        mean = [sum(member[d] for member in members) / len(members) for d in range(len(anchor))]
        total -= _dot(anchor, _unit(mean))
    return total / len(anchors)


@pytest.fixture
def z() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    first, second = (torch.randn(6, 3, dtype=torch.float64, generator=source, requires_grad=True) for _ in range(2))
    return first, second


def test_sup_con_by_hand() -> None:
    # Two samples of one class, orthogonal, τ = 1: both are positives of both anchors, own index included.
    # Each anchor: -½ (log(e / (e + 1)) + log(1 / (e + 1))) = log(e + 1) - ½.
    eye = torch.eye(2)
    same = sup_con(eye, eye, torch.tensor([4, 4]), 1.0)
    assert same.item() == pytest.approx(math.log(math.e + 1) - 0.5)
    # Two classes: only the own index is positive, as in InfoNCE.
    other = sup_con(eye, eye, torch.tensor([4, 5]), 1.0)
    assert other.item() == pytest.approx(math.log(math.e + 1) - 1.0)


def test_compactness_by_hand() -> None:
    # One class, two orthogonal samples: μ̂ = (1, 1)/√2, each cosine 1/√2. Lengths do not count.
    z = torch.tensor([[2.0, 0.0], [0.0, 9.0]])
    assert compactness(z, z, torch.tensor([1, 1])).item() == pytest.approx(-1 / math.sqrt(2))
    assert compactness(z, z, torch.tensor([1, 3])).item() == pytest.approx(-1.0)


def test_sup_con_equals_the_loop(z: tuple[Tensor, Tensor]) -> None:
    for a, b in (z, z[::-1], (z[0], z[0])):
        assert sup_con(a, b, LABELS, TAU).item() == pytest.approx(_naive_sup_con(a, b, TAU), rel=1e-12)


def test_sup_con_without_itself_equals_the_loop(z: tuple[Tensor, Tensor]) -> None:
    """Neither s nor j is i; class 7 has one sample, which is no anchor then."""
    losses = []
    points = [_unit(row) for row in z[0].tolist()]
    for i, anchor in enumerate(points):
        others = [j for j in range(len(points)) if j != i]
        denominator = sum(math.exp(_dot(anchor, points[j]) / TAU) for j in others)
        logs = [
            math.log(math.exp(_dot(anchor, points[s]) / TAU) / denominator) for s in others if LABELS[s] == LABELS[i]
        ]
        losses += [-sum(logs) / len(logs)] if logs else []
    assert len(losses) == 5
    assert sup_con(z[0], z[0], LABELS, TAU, without_itself=True).item() == pytest.approx(sum(losses) / 5, rel=1e-12)


@pytest.mark.parametrize("samples", [1, 6])
def test_where_every_label_stands_once_there_are_no_other_positives(samples: int, z: tuple[Tensor, Tensor]) -> None:
    loss = sup_con(z[0][:samples], z[0][:samples], torch.arange(samples), TAU, without_itself=True)
    loss.backward()
    assert loss.item() == 0.0
    assert z[0].grad is not None
    assert not z[0].grad.any()


def test_positives_are_others_within_a_modality_alone(z: tuple[Tensor, Tensor]) -> None:
    """The same sample in the other modality is the view that it is drawn to."""
    first, second = z
    terms = [
        sup_con(first, first, LABELS, TAU, without_itself=True),
        sup_con(first, second, LABELS, TAU),
        sup_con(second, first, LABELS, TAU),
        sup_con(second, second, LABELS, TAU, without_itself=True),
    ]
    assert sufficiency_loss(z, LABELS, TAU, positives="others").item() == pytest.approx(
        sum(t.item() for t in terms) / 4
    )
    assert sufficiency_loss(z, LABELS, TAU) != sufficiency_loss(z, LABELS, TAU, positives="others")


def test_compactness_equals_the_loop(z: tuple[Tensor, Tensor]) -> None:
    for a, b in (z, z[::-1], (z[0], z[0])):
        assert compactness(a, b, LABELS).item() == pytest.approx(_naive_compactness(a, b), rel=1e-12)


def test_both_losses_are_means_over_the_four_ordered_pairs(z: tuple[Tensor, Tensor]) -> None:
    pairs = [(a, b) for a in z for b in z]
    sufficiency = sum(_naive_sup_con(a, b, TAU) for a, b in pairs) / 4
    minimality = sum(_naive_compactness(a, b) for a, b in pairs) / 4
    assert sufficiency_loss(z, LABELS, TAU).item() == pytest.approx(sufficiency, rel=1e-12)
    assert minimality_loss(z, LABELS).item() == pytest.approx(minimality, rel=1e-12)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_of_any_number_of_modalities_they_are_means_over_all_ordered_pairs(count: int) -> None:
    source = torch.Generator().manual_seed(3)
    z = [torch.randn(6, 3, dtype=torch.float64, generator=source) for _ in range(count)]
    sufficiency = minimality = 0.0
    for a in z:
        for b in z:
            sufficiency += _naive_sup_con(a, b, TAU) / count**2
            minimality += _naive_compactness(a, b) / count**2
    assert sufficiency_loss(z, LABELS, TAU).item() == pytest.approx(sufficiency, rel=1e-12)
    assert minimality_loss(z, LABELS).item() == pytest.approx(minimality, rel=1e-12)


def test_gradients(z: tuple[Tensor, Tensor]) -> None:
    assert torch.autograd.gradcheck(lambda a, b: sup_con(a, b, LABELS, TAU), z)
    assert torch.autograd.gradcheck(lambda a, b: compactness(a, b, LABELS), z)
    assert torch.autograd.gradcheck(lambda *z: sufficiency_loss(z, LABELS, TAU), z)
    assert torch.autograd.gradcheck(lambda *z: minimality_loss(z, LABELS), z)
