"""Random draws of a *global* batch, of which a rank keeps its own rows.

A draw is a function of (seed, step, modality) alone. W workers therefore see the noise that one worker
would, and a resumed run needs no generator state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator seeded from any sequence of labels and numbers."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little", signed=True))


@dataclass(frozen=True, slots=True)
class Draws:
    """Noise for `rows`, this rank's contiguous block among the `tokens` tokens of a global batch."""

    source: torch.Generator
    tokens: int
    rows: slice

    def normal(self, columns: int, dtype: torch.dtype) -> Tensor:
        """Standard normal draws (rows, columns)."""
        drawn = torch.randn(self.tokens, columns, generator=self.source, dtype=dtype, device=self.source.device)
        return drawn[self.rows]

    def dropout(self, columns: int, rate: float, dtype: torch.dtype) -> Tensor:
        """Inverted-dropout multipliers (rows, columns): 0, or 1 / (1 - rate)."""
        drawn = torch.rand(self.tokens, columns, generator=self.source, dtype=dtype, device=self.source.device)
        return (drawn[self.rows] >= rate).to(dtype) / (1.0 - rate)
