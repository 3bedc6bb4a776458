"""The prior methods' losses against loops written from their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from s3ray.objectives.prior import club_bound, cross_correlation, mean_cosine, mean_positive_cosine, nce_bound

Matrix = list[list[float]]


def _random(*shape: int, seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=source).requires_grad_()


def _unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in vector))
    return [x / length for x in vector]


def _naive_nce(scores: Matrix) -> float:
    """mean f(x_i, y_i) - ( mean_i log Σ_j exp f(x_i, y_j) - log B )."""
    count = len(scores)
    positive = sum(scores[i][i] for i in range(count)) / count
    return positive - (sum(math.log(sum(math.exp(s) for s in row)) for row in scores) / count - math.log(count))


def _naive_club(scores: Matrix) -> float:
    """mean f(x_i, y_i) - mean over all i, j of f(x_i, y_j), the pairs i = j included."""
    count = len(scores)
    return sum(scores[i][i] for i in range(count)) / count - sum(sum(row) for row in scores) / count**2


def _naive_cross_correlation(a: Matrix, b: Matrix) -> float:
    """sqrt( Σ_d Σ_e ( Σ_i â_id b̂_ie )² )."""
    a, b = [_unit(row) for row in a], [_unit(row) for row in b]
    squares = 0.0
    for d in range(len(a[0])):
        for e in range(len(b[0])):
            squares += sum(a[i][d] * b[i][e] for i in range(len(a))) ** 2
    return math.sqrt(squares)


def test_bounds_by_hand() -> None:
    # Scores that tell nothing: both bounds are 0. Perfect ones, f = ln 3 for pairs and 0 else, of B = 2:
    # nce = ln 3 - (ln(3 + 1) - ln 2) = ln 1.5, club = ln 3 - ½ ln 3.
    assert nce_bound(torch.full((4, 4), 7.0)).item() == pytest.approx(0.0, abs=1e-6)
    assert club_bound(torch.full((4, 4), 7.0)).item() == 0.0
    scores = math.log(3) * torch.eye(2)
    assert nce_bound(scores).item() == pytest.approx(math.log(1.5))
    assert club_bound(scores).item() == pytest.approx(math.log(3) / 2)


def test_the_lower_bound_cannot_exceed_log_b() -> None:
    assert nce_bound(1e4 * torch.eye(8, dtype=torch.float64)).item() == pytest.approx(math.log(8))


def test_bounds_equal_the_loops() -> None:
    scores = _random(6, 6)
    assert nce_bound(scores).item() == pytest.approx(_naive_nce(scores.tolist()), rel=1e-12)
    assert club_bound(scores).item() == pytest.approx(_naive_club(scores.tolist()), rel=1e-12)
    # Not symmetric in x and y: the negatives of x_i are all y_j.
    assert nce_bound(scores).item() != pytest.approx(nce_bound(scores.T).item(), abs=1e-3)


def test_orthogonality_by_hand() -> None:
    # Lengths do not count. cos = 1 and 0: their mean is ½; AᵀB of (e1, e2) with (e1, e1) has two ones.
    a, b = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[5.0, 0.0], [1.0, 0.0]])
    assert mean_cosine(a, b).item() == pytest.approx(0.5)
    assert cross_correlation(a, b).item() == pytest.approx(math.sqrt(2))
    # Every row the same direction in both: the norm is B.
    assert cross_correlation(torch.ones(7, 3), torch.ones(7, 5)).item() == pytest.approx(7.0)


def test_orthogonality_equals_the_loops() -> None:
    a, b = _random(6, 3), _random(6, 3, seed=1)
    rows = zip(a.tolist(), b.tolist(), strict=True)
    cosines = [sum(x * y for x, y in zip(_unit(p), _unit(q), strict=True)) for p, q in rows]
    assert mean_cosine(a, b).item() == pytest.approx(sum(cosines) / 6, rel=1e-12)
    wide = _random(6, 4, seed=2)
    assert cross_correlation(a, wide).item() == pytest.approx(
        _naive_cross_correlation(a.tolist(), wide.tolist()), rel=1e-12
    )


def test_what_points_apart_is_orthogonal_enough() -> None:
    # cos = -1, 0, 1 and -0.6: only the third row counts, and only it is moved.
    a = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[-2.0, 0.0], [0.0, 2.0], [3.0, 0.0], [-3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    assert mean_positive_cosine(a, b).item() == 0.25
    (slopes,) = torch.autograd.grad(mean_positive_cosine(a[[0, 1, 3]], b[[0, 1, 3]]), b)
    assert slopes.abs().max() == 0.0
    tilted = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    value = mean_positive_cosine(a[:1], tilted)
    (slopes,) = torch.autograd.grad(value, tilted)
    assert value.item() == pytest.approx(0.6)
    assert slopes[0, 0] > 0.0  # a step down turns it away from a


def test_the_positive_cosine_is_what_torch_calls_a_cosine_embedding_loss() -> None:
    """FOCAL's authors take it with target -1."""
    for a, b in ((_random(64, 5), _random(64, 5, seed=1)), (_random(1, 1), _random(1, 1, seed=1))):
        expected = torch.nn.CosineEmbeddingLoss()(a, b, -torch.ones(len(a)))
        value = mean_positive_cosine(a, b)
        assert value.item() == pytest.approx(expected.item(), rel=1e-11)  # torch adds 1e-12 to squared lengths
        slopes, wanted = torch.autograd.grad(value, (a, b)), torch.autograd.grad(expected, (a, b))
        for slope, expected_slope in zip(slopes, wanted, strict=True):
            torch.testing.assert_close(slope, expected_slope, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("width", [8, 128])
@pytest.mark.parametrize("batch_size", [64, 512])
def test_the_cross_correlation_of_independent_rows_is_the_root_of_the_batch(batch_size: int, width: int) -> None:
    """At any width, √B; of representations that are one and spread out, B / √D."""
    pairs = [(_random(batch_size, width, seed=i), _random(batch_size, width, seed=-i)) for i in range(1, 31)]
    mean_square = sum(cross_correlation(*pair).item() ** 2 for pair in pairs) / len(pairs)
    assert mean_square == pytest.approx(batch_size, rel=0.1)
    axes_BD = torch.eye(width, dtype=torch.float64).repeat(batch_size, 1)
    assert cross_correlation(axes_BD, axes_BD).item() == pytest.approx(batch_size * math.sqrt(width), rel=1e-9)


def test_gradients() -> None:
    scores, a, b = _random(4, 4), _random(4, 3), _random(4, 3, seed=1)
    assert torch.autograd.gradcheck(nce_bound, (scores,))
    assert torch.autograd.gradcheck(club_bound, (scores,))
    assert torch.autograd.gradcheck(mean_cosine, (a, b))
    assert torch.autograd.gradcheck(mean_positive_cosine, (a, b))
    assert torch.autograd.gradcheck(cross_correlation, (a, b))
