"""von Mises-Fisher noise: the law of its cosine, its uniform tangent, and the gradient through the rotation."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import ive
from scipy.stats import chi2
from torch.nn import functional as F

from s3ray.methods.noise import sample_vmf
from s3ray.model import Source
from s3ray.model.draws import generator, seed_of

COUNT = 10_000


def _mean_cosine(width: int, concentration: float) -> float:
    """A_D(κ) = I_{D/2}(κ) / I_{D/2-1}(κ)."""
    return float(ive(width / 2, concentration) / ive(width / 2 - 1, concentration))


@pytest.mark.parametrize(
    ("width", "concentration"), [(2, 0.5), (3, 2.0), (8, 5.0), (16, 1000.0), (256, 1000.0), (64, 0.01)]
)
def test_mean_direction_and_mean_cosine(width: int, concentration: float) -> None:
    mean = F.normalize(torch.randn(width, dtype=torch.float64, generator=generator("mean")), dim=0)
    z = sample_vmf(3.0 * mean.expand(COUNT, -1), concentration, Source(seed_of("vmf")))
    assert z.square().sum(1).sub(1).abs().max() < 1e-12
    a = _mean_cosine(width, concentration)
    # Var cos = 1 - A² - (D-1) A / κ, so the mean of n cosines has that over n; five deviations.
    deviation = math.sqrt((1 - a**2 - (width - 1) * a / concentration) / COUNT)
    assert abs((z @ mean).mean().item() - a) < 5 * deviation
    # Across the mean direction, each of D-1 coordinates has mean 0 and variance (1 - E cos²) / (D-1) = A / κ.
    across = z.mean(0) - (z.mean(0) @ mean) * mean
    assert across.square().sum() * COUNT * concentration / a < chi2.ppf(1 - 1e-6, width - 1)


def test_the_tangent_is_isotropic() -> None:
    """The covariance across the mean is A/κ times the identity."""
    z = sample_vmf(
        torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64).expand(COUNT, -1), 2.0, Source(seed_of("vmf"))
    )
    across = z[:, :3]
    variance = _mean_cosine(4, 2.0) / 2.0
    # A squared coordinate lies in [0, 1], a product of two in [-½, ½]: deviations of at most ½ per sample.
    assert (across.T @ across / COUNT - variance * torch.eye(3)).abs().max() < 5 * 0.5 / math.sqrt(COUNT)


def test_the_pole_itself() -> None:
    pole = torch.eye(4)[:1].clone().requires_grad_()
    z = sample_vmf(pole, 10.0, Source(seed_of("vmf")))
    z.sum().backward()
    assert z.isfinite().all()
    assert pole.grad is not None
    assert pole.grad.isfinite().all()


def test_gradients_reach_the_mean() -> None:
    mean = torch.randn(5, 4, dtype=torch.float64, generator=generator("mean")).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: sample_vmf(m, 20.0, Source(seed_of("vmf"))), (mean,))
    # Almost without noise, z is the mean direction and turns with it.
    z = sample_vmf(mean, 1e12, Source(seed_of("vmf")))
    target = torch.randn(5, 4, dtype=torch.float64, generator=generator("target"))
    (through_noise,) = torch.autograd.grad((z * target).sum(), mean)
    (direct,) = torch.autograd.grad((F.normalize(mean, dim=1) * target).sum(), mean)
    assert through_noise.allclose(direct, atol=1e-4)


def test_draws_are_a_function_of_the_source() -> None:
    mean = torch.ones(6, 5)
    first, second = (sample_vmf(mean, 10.0, Source(seed_of("vmf"))) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.float32
    assert not torch.equal(first[0], first[1])
    # The same draw in another precision, so that precisions can be compared.
    assert sample_vmf(mean.double(), 10.0, Source(seed_of("vmf"))).float().allclose(first, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mean_without_direction_gets_a_draw_and_no_gradient(dtype: torch.dtype) -> None:
    mean = torch.randn(4, 8, dtype=dtype)
    mean[1] = 0.0
    mean[2] = torch.eye(8, dtype=dtype)[0]  # the pole, which has no reflection
    mean.requires_grad_()
    z = sample_vmf(mean, 10.0, Source(seed_of("vmf")))
    assert z.square().sum(1).sub(1).abs().max() < 1e-5
    (slope,) = torch.autograd.grad((z * torch.randn(4, 8, dtype=dtype)).sum(), mean)
    assert slope.isfinite().all()
    assert (slope[1] == 0.0).all()
