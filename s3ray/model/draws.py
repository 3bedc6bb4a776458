"""Random numbers of a *global* batch, of which a rank draws its own rows.

A number is a function of (key, position): what is drawn for a sample depends neither on how many workers share the
batch nor on what was drawn before on another device. W workers see the noise that one worker would, a resumed run
needs no generator state, and CPU and GPU draw alike, up to the rounding of log and cos.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor


def seed_of(*key: int | str) -> int:
    """A 64-bit seed from any sequence of labels and numbers."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little", signed=True)


def generator(*key: int | str) -> torch.Generator:
    """torch's own generator on the CPU, for permutations."""
    return torch.Generator().manual_seed(seed_of(*key))


# SplitMix64 (Steele, Lea and Flood 2014): every output is a hash of seed + position · golden, so that any can be had
# by itself. Constants as signed integers, which wrap alike on every device.
_GOLDEN, _MIX_1, _MIX_2 = (c - 2**64 for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(slots=True)
class Source:
    """A stream of random numbers; each call takes the next of them.

    Attributes:
        seed: of the stream.
        device: where the numbers are made.
    """

    seed: int
    device: torch.device | str = "cpu"
    _drawn: int = 0

    def uniform(self, rows: int, columns: int, own: slice = slice(None)) -> Tensor:
        """Uniform in [0, 1), float64: `own` of `rows`, each of `columns` numbers of 53 random bits."""
        return _right(self._bits(rows, columns, own), 11).to(torch.float64) * 2.0**-53

    def normal(self, rows: int, columns: int, dtype: torch.dtype, own: slice = slice(None)) -> Tensor:
        """Standard normal: `own` of `rows`, each of `columns` numbers (Box and Muller 1958)."""
        pairs = (columns + 1) // 2
        bits = self._bits(rows, pairs, own)
        # 32 bits each. The radius' numbers lie in (0, 1], whose logarithm is finite.
        radius = (_right(bits, 32) + 1).to(dtype).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
        angle = (bits & 0xFFFFFFFF).to(dtype).mul_(2.0 * math.pi * 2.0**-32)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :columns]

    def _bits(self, rows: int, columns: int, own: slice) -> Tensor:
        first, last, _ = own.indices(rows)
        begin = self._drawn + first * columns
        self._drawn += rows * columns
        z = torch.arange(begin, begin + (last - first) * columns, dtype=torch.int64, device=self.device)
        z.mul_(_GOLDEN).add_(self.seed)
        z = (z ^ _right(z, 30)).mul_(_MIX_1)
        z = (z ^ _right(z, 27)).mul_(_MIX_2)
        return (z ^ _right(z, 31)).view(last - first, columns)


def _right(z: Tensor, by: int) -> Tensor:
    """A logical shift: int64's own copies the sign."""
    return (z >> by) & ((1 << (64 - by)) - 1)


@dataclass(frozen=True, slots=True)
class Draws:
    """Noise for `rows`, this rank's contiguous block among the `tokens` tokens of a global batch."""

    source: Source
    tokens: int
    rows: slice

    def normal(self, columns: int, dtype: torch.dtype) -> Tensor:
        """Standard normal draws (rows, columns)."""
        return self.source.normal(self.tokens, columns, dtype, self.rows)

    def uniform(self, columns: int) -> Tensor:
        """Uniform draws in [0, 1), float64: (rows, columns)."""
        return self.source.uniform(self.tokens, columns, self.rows)

    def dropout(self, columns: int, rate: float, dtype: torch.dtype) -> Tensor:
        """Inverted-dropout multipliers (rows, columns): 0, or 1 / (1 - rate)."""
        return (self.uniform(columns) >= rate).to(dtype) / (1.0 - rate)
