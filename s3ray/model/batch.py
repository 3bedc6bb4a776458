"""Ragged batches: only valid tokens exist, so padding can never be routed, counted or pooled.

Shape suffixes: B samples, T valid tokens of the batch, S longest sequence, F input features, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from s3ray.model.config import Pooling


class Layout:
    """Where each of a batch's T valid tokens stands: its sample and its position in it."""

    def __init__(self, lengths_B: Tensor) -> None:
        self.lengths_B = lengths_B
        self.samples = len(lengths_B)
        self.longest = int(lengths_B.max())
        self.tokens = int(lengths_B.sum())
        # Without padding, (T, ·) views as (B, S, ·) and nothing needs to be copied.
        self.uniform = self.tokens == self.samples * self.longest

    @cached_property
    def sample_T(self) -> Tensor:
        return torch.repeat_interleave(self.lengths_B)

    @cached_property
    def position_T(self) -> Tensor:
        starts_B = self.lengths_B.cumsum(0) - self.lengths_B
        return torch.arange(self.tokens, device=self.lengths_B.device) - starts_B[self.sample_T]

    @cached_property
    def _slot_T(self) -> Tensor:
        return self.sample_T * self.longest + self.position_T

    @cached_property
    def valid_BS(self) -> Tensor:
        return torch.arange(self.longest, device=self.lengths_B.device) < self.lengths_B[:, None]

    def pad(self, x_TD: Tensor) -> Tensor:
        """(T, D) → (B, S, D), zeros where a sequence has ended."""
        if not self.uniform:
            x_TD = x_TD.new_zeros(self.samples * self.longest, x_TD.shape[1]).index_copy(0, self._slot_T, x_TD)
        return x_TD.view(self.samples, self.longest, -1)

    def unpad(self, x_BSD: Tensor) -> Tensor:
        """(B, S, D) → (T, D)."""
        x_TD = x_BSD.reshape(self.samples * self.longest, -1)
        return x_TD if self.uniform else x_TD.index_select(0, self._slot_T)

    def pool(self, x_TD: Tensor, pooling: Pooling) -> Tensor:
        """(T, D) → (B, D): of each sample's valid tokens the mean, the first or the last."""
        if pooling == "mean":
            return self.pad(x_TD).sum(1) / self.lengths_B[:, None].to(x_TD.dtype)
        ends_B = self.lengths_B.cumsum(0)
        return x_TD.index_select(0, ends_B - (self.lengths_B if pooling == "first" else 1))


@dataclass(frozen=True, slots=True)
class Ragged:
    """One modality of a batch: the samples' tokens one after another, and their lengths (all ≥ 1)."""

    values_TF: Tensor
    lengths_B: Tensor

    @property
    def nbytes(self) -> int:
        return self.values_TF.nbytes + self.lengths_B.nbytes

    def to(self, device: torch.device, dtype: torch.dtype) -> Ragged:
        return Ragged(self.values_TF.to(device, dtype), self.lengths_B.to(device))
