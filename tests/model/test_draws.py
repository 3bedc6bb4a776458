"""Draws: functions of a key and a position, of which a rank sees its rows of what one worker would see."""

from __future__ import annotations

import math

import pytest
import scipy.stats
import torch
from torch import Tensor

from s3ray.model.draws import Draws, Source, generator, seed_of

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
MANY = 10_000
LAST = 2**64 - 1  # the largest number of 64 bits
RARE = 7e-6  # the probability of 4.5 deviations or more, which bound everything here


def _draws(rows: slice, key: tuple[int | str, ...] = ("step", 3, 7, "text"), tokens: int = 10) -> Draws:
    return Draws(Source(seed_of(*key)), tokens, rows)


def _seed_whose_first_bits_are(bits: int) -> int:
    """SplitMix64 backwards: each of its steps can be undone."""

    def unshifted(z: int, by: int) -> int:
        found = z
        for _ in range(64 // by):
            found = z ^ (found >> by)
        return found

    z = unshifted(bits, 31) * pow(0x94D049BB133111EB, -1, 2**64) % 2**64
    z = unshifted(z, 27) * pow(0xBF58476D1CE4E5B9, -1, 2**64) % 2**64
    z = unshifted(z, 30)
    return z - 2**64 if z >= 2**63 else z


def test_the_numbers_are_those_of_splitmix64() -> None:
    # The outputs after seed 1234567, as other implementations of it check theirs; the first is of the seed itself.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    drawn = Source(1234567).uniform(5, 1)[1:, 0]
    assert drawn.tolist() == [(bits >> 11) / 2**53 for bits in published]


@DTYPES
@pytest.mark.parametrize("columns", [1, 3, 4])
def test_rows_of_a_shard_are_rows_of_the_whole_on_every_call(columns: int, dtype: torch.dtype) -> None:
    whole = _draws(slice(0, 10))
    shards = {(first, last): _draws(slice(first, last)) for first, last in ((0, 4), (4, 9), (9, 10), (5, 5))}
    for _ in range(2):  # after other draws, too
        normal, uniform = whole.normal(columns, dtype), whole.uniform(columns)
        dropout = whole.dropout(columns + 2, 0.5, dtype)
        assert normal.shape == uniform.shape == (10, columns)
        for (first, last), shard in shards.items():
            assert torch.equal(shard.normal(columns, dtype), normal[first:last])
            assert torch.equal(shard.uniform(columns), uniform[first:last])
            assert torch.equal(shard.dropout(columns + 2, 0.5, dtype), dropout[first:last])


def test_successive_draws_differ() -> None:
    draws = _draws(slice(0, 10))
    drawn = torch.cat([draws.normal(3, torch.float64) for _ in range(4)])
    assert len(drawn.unique()) == drawn.numel()
    drawn = torch.cat([draws.uniform(3) for _ in range(4)])
    assert len(drawn.unique()) == drawn.numel()


@pytest.mark.parametrize(
    "other", [("step", 4, 7, "text"), ("step", 3, 8, "text"), ("step", 3, 7, "vision"), ("step", 37, "text")]
)
def test_every_part_of_the_key_counts(other: tuple[int | str, ...]) -> None:
    first = _draws(slice(0, 10)).normal(3, torch.float64)
    assert torch.equal(first, _draws(slice(0, 10)).normal(3, torch.float64))
    assert not torch.equal(first, _draws(slice(0, 10), other).normal(3, torch.float64))
    permutations = [torch.randperm(100, generator=generator(*key)) for key in (("step", 3, 7, "text"), other)]
    assert not torch.equal(*permutations)


def test_a_seed_is_any_integer_of_64_bits() -> None:
    seeds = [seed_of("step", step) for step in range(1000)]
    assert len(set(seeds)) == 1000
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)
    # Half of them negative: 500 ± √250, at 4.5 deviations.
    assert abs(sum(seed < 0 for seed in seeds) - 500) < 4.5 * math.sqrt(250)


def _seeds() -> list[int]:
    return [seed_of("a seed"), 0, 1, -1, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("columns", [4, 3, 1])  # of an odd count the last sine is left out
@pytest.mark.parametrize("seed", _seeds())
def test_normal_is_standard_normal(seed: int, columns: int) -> None:
    drawn = Source(seed).normal(MANY, columns, torch.float64)
    assert drawn.shape == (MANY, columns)
    n = drawn.numel()
    # Moments 0, 1, 0, 3 of variances 1, 2, 15, 96 over n; bounds at 4.5 deviations.
    for power, (moment, variance) in enumerate([(0, 1), (1, 2), (0, 15), (3, 96)], start=1):
        assert drawn.pow(power).mean().item() == pytest.approx(moment, abs=4.5 * math.sqrt(variance / n))
    assert scipy.stats.kstest(drawn.flatten().numpy(), "norm").pvalue > RARE
    _check_independent(drawn)


@pytest.mark.parametrize("columns", [4, 1])
@pytest.mark.parametrize("seed", _seeds())
def test_uniform_is_uniform(seed: int, columns: int) -> None:
    drawn = Source(seed).uniform(MANY, columns)
    assert drawn.shape == (MANY, columns)
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0
    # Mean ½ and variance 1/12, whose variances are 1/12 and 1/180 over n; bounds at 4.5 deviations.
    n = drawn.numel()
    assert drawn.mean().item() == pytest.approx(1 / 2, abs=4.5 * math.sqrt(1 / 12 / n))
    assert (drawn - 1 / 2).square().mean().item() == pytest.approx(1 / 12, abs=4.5 * math.sqrt(1 / 180 / n))
    assert scipy.stats.kstest(drawn.flatten().numpy(), "uniform").pvalue > RARE
    _check_independent(drawn)


def _check_independent(drawn: Tensor) -> None:
    """No column goes with another, nor a row with the next one: correlations of deviation 1/√n, bounds at 4.5."""
    bound = 4.5 / math.sqrt(MANY - 1)
    columns = drawn.shape[1]
    if columns > 1:
        assert (torch.corrcoef(drawn.T) - torch.eye(columns)).abs().max() < bound
    both = torch.cat([drawn[:-1], drawn[1:]], dim=1)
    assert torch.corrcoef(both.T)[:columns, columns:].abs().max() < bound


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 2, -(2**63), seed_of("a seed")])
def test_seeds_that_differ_by_one_are_independent(seed: int) -> None:
    sources = [Source(s) for s in (seed, seed + 1)]
    normal = [source.normal(MANY, 1, torch.float64)[:, 0] for source in sources]
    uniform = [source.uniform(MANY, 1)[:, 0] for source in sources]
    for first, second in (normal, uniform):
        for moved in (0, 1):  # nor is the one the other a position later
            a, b = first[moved:], second[: MANY - moved]
            assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1].item()) < 4.5 / math.sqrt(MANY - 1)
            assert not torch.isin(a, b).any()


def test_precisions_draw_alike() -> None:
    single, double = (Source(5).normal(MANY, 3, dtype) for dtype in (torch.float32, torch.float64))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)
    # Where the radius' uniform number rounds to 1, single precision has 0 for what is 2^-12 at most.
    seed = _seed_whose_first_bits_are(0xFFFFFF7F << 32)
    single, double = (Source(seed).normal(1, 2, dtype) for dtype in (torch.float32, torch.float64))
    assert double[0, 0].item() == pytest.approx(2**-12, rel=1e-6)
    assert single[0, 0].item() == 0.0


@DTYPES
@pytest.mark.parametrize("bits", [0, LAST, LAST << 32 & LAST, LAST >> 32])
def test_no_draw_is_infinite(bits: int, dtype: torch.dtype) -> None:
    drawn = Source(_seed_whose_first_bits_are(bits)).normal(1, 2, dtype)
    assert drawn.isfinite().all()
    # The radius is that of a number between 2^-32 and 1.
    assert drawn.norm().item() <= math.sqrt(64 * math.log(2)) * (1 + 1e-6)


def test_a_uniform_number_never_reaches_one() -> None:
    assert Source(_seed_whose_first_bits_are(0)).uniform(1, 1).item() == 0.0
    assert Source(_seed_whose_first_bits_are(LAST)).uniform(1, 1).item() < 1.0


def test_dropout_multipliers_are_zero_or_scaled_and_keep_the_mean() -> None:
    drawn = _draws(slice(0, MANY), tokens=MANY).dropout(4, 0.2, torch.float64)
    assert drawn.unique().tolist() == [0.0, 1.25]  # 1 / (1 - 0.2)
    # The share of zeros has deviation √(0.2 · 0.8 / 40,000) = 0.002; bound at 4.5 deviations.
    assert abs((drawn == 0).double().mean().item() - 0.2) < 0.009


def test_dropout_decides_alike_in_all_precisions() -> None:
    single, double = (
        _draws(slice(0, 100), tokens=100).dropout(4, 0.3, dtype) for dtype in (torch.float32, torch.float64)
    )
    assert torch.equal(single == 0, double == 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_what_a_cpu_draws() -> None:
    here, there = Source(7), Source(7, "cuda")
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.float64, 1e-9)):
        first, second = here.normal(1000, 64, dtype), there.normal(1000, 64, dtype)
        torch.testing.assert_close(second.cpu(), first, rtol=0, atol=tolerance)
    assert torch.equal(there.uniform(1000, 3).cpu(), here.uniform(1000, 3))
