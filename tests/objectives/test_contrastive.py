"""InfoNCE (Eqs. 24-26) against loops written from the equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from s3ray.objectives.contrastive import coherence_loss, info_nce, representation_loss

TAU = 0.2


def _cosine(a: Tensor, b: Tensor) -> float:
    dot = sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True))
    return dot / math.sqrt(sum(x * x for x in a.tolist()) * sum(y * y for y in b.tolist()))


def _naive_info_nce(a: Tensor, b: Tensor, tau: float) -> float:
    """-E_i log( exp(⟨a_i, b_i⟩/τ) / Σ_j exp(⟨a_i, b_j⟩/τ) )."""
    total = 0.0
    for i in range(len(a)):
        denominator = sum(math.exp(_cosine(a[i], b[j]) / tau) for j in range(len(b)))
        total -= math.log(math.exp(_cosine(a[i], b[i]) / tau) / denominator)
    return total / len(a)


@pytest.fixture
def z() -> list[Tensor]:
    """Four sets of five representations: modality 1, its second view, modality 2, its second view."""
    source = torch.Generator().manual_seed(0)
    return [torch.randn(5, 3, dtype=torch.float64, generator=source, requires_grad=True) for _ in range(4)]


def test_two_orthogonal_pairs_by_hand() -> None:
    # Positive cosine 1, negative 0, τ = ½: -log(e² / (e² + 1)). The lengths 3 and 5 do not count.
    a = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    b = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert info_nce(a, b, 0.5).item() == pytest.approx(math.log(1 + math.exp(-2)))


def test_info_nce_equals_the_loop_in_both_directions(z: list[Tensor]) -> None:
    forth, back = _naive_info_nce(z[0], z[2], TAU), _naive_info_nce(z[2], z[0], TAU)
    assert info_nce(z[0], z[2], TAU).item() == pytest.approx(forth, rel=1e-12)
    assert info_nce(z[2], z[0], TAU).item() == pytest.approx(back, rel=1e-12)
    assert forth != pytest.approx(back, rel=1e-3)  # it is not symmetric, so the order matters


def test_representation_loss_pairs_each_modality_with_its_own_view(z: list[Tensor]) -> None:
    expected = (_naive_info_nce(z[0], z[1], TAU) + _naive_info_nce(z[2], z[3], TAU)) / 2
    assert representation_loss([z[0], z[2]], [z[1], z[3]], TAU).item() == pytest.approx(expected, rel=1e-12)


def test_coherence_loss_averages_both_directions(z: list[Tensor]) -> None:
    expected = (_naive_info_nce(z[0], z[2], TAU) + _naive_info_nce(z[2], z[0], TAU)) / 2
    assert coherence_loss([z[0], z[2]], TAU).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_of_any_number_of_modalities_they_are_means_over_directions(count: int, z: list[Tensor]) -> None:
    own, views = z[:count], [z[(i + 1) % 4] for i in range(count)]
    representation = coherence = 0.0
    for i, a in enumerate(own):
        representation += _naive_info_nce(a, views[i], TAU) / count
        for j, b in enumerate(own):
            if i != j:
                coherence += _naive_info_nce(a, b, TAU) / (count * (count - 1))
    assert representation_loss(own, views, TAU).item() == pytest.approx(representation, rel=1e-12)
    if count > 1:  # one has no other
        assert coherence_loss(own, TAU).item() == pytest.approx(coherence, rel=1e-12)


def test_a_view_for_each_modality(z: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="zip"):
        representation_loss(z[:2], z[2:3], TAU)


def test_same_views_have_a_constant_positive_term(z: list[Tensor]) -> None:
    # Eq. 25 as printed: the numerator is exp(1/τ) whatever z, so only the spread is trained.
    spread = 0.0
    for i in range(5):
        spread += math.log(sum(math.exp(_cosine(z[0][i], z[0][j]) / TAU) for j in range(5))) / 5
    same = representation_loss([z[0], z[0]], [z[0], z[0]], TAU)
    assert same.item() == pytest.approx(spread - 1 / TAU, rel=1e-12)


def test_gradients(z: list[Tensor]) -> None:
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, TAU), (z[0], z[2]))
    assert torch.autograd.gradcheck(lambda a, v, b, w: representation_loss([a, b], [v, w], TAU), tuple(z))
    assert torch.autograd.gradcheck(lambda a: representation_loss([a, a], [a, a], TAU), (z[0],))
    assert torch.autograd.gradcheck(lambda a, b: coherence_loss([a, b], TAU), (z[0], z[2]))
