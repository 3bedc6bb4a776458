"""Ragged batches: only valid tokens exist, so padding can never be routed, counted or pooled.

A sample without any token lacks the modality: it is no part of what its encoder computes.

Shape suffixes: B samples, T valid tokens of the batch, S longest sequence, F input features, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from s3ray.model.config import Pooling


class Layout:
    """Where each of a batch's T valid tokens stands: its sample and its position in it.

    Padded are the P samples that have tokens, in their order; where none is missing, P = B.
    """

    def __init__(self, lengths_B: Tensor) -> None:
        self.lengths_B = lengths_B
        # One transfer for all numbers.
        shortest, self.longest, self.tokens = torch.stack([*lengths_B.aminmax(), lengths_B.sum()]).tolist()
        self._present_P = None if shortest else lengths_B.nonzero()[:, 0]
        self._lengths_P: Tensor = lengths_B if self._present_P is None else lengths_B[self._present_P]
        # Without padding, (T, ·) views as (P, S, ·) and nothing needs to be copied.
        self.uniform: bool = self.tokens == len(self._lengths_P) * self.longest

    @cached_property
    def sample_T(self) -> Tensor:
        return torch.repeat_interleave(self.lengths_B)

    @cached_property
    def position_T(self) -> Tensor:
        starts_B = self.lengths_B.cumsum(0) - self.lengths_B
        return torch.arange(self.tokens, device=self.lengths_B.device) - starts_B[self.sample_T]

    @cached_property
    def _slot_T(self) -> Tensor:
        slot_T: Tensor = torch.repeat_interleave(self._lengths_P) * self.longest + self.position_T
        return slot_T

    @cached_property
    def valid_PS(self) -> Tensor:
        return torch.arange(self.longest, device=self.lengths_B.device) < self._lengths_P[:, None]

    def pad(self, x_TD: Tensor) -> Tensor:
        """(T, D) → (P, S, D), zeros where a sequence has ended."""
        samples, width = len(self._lengths_P), x_TD.shape[1]
        if not self.uniform:
            x_TD = x_TD.new_zeros(samples * self.longest, width).index_copy(0, self._slot_T, x_TD)
        return x_TD.view(samples, self.longest, width)

    def unpad(self, x_PSD: Tensor) -> Tensor:
        """(P, S, D) → (T, D)."""
        x_TD = x_PSD.reshape(len(self._lengths_P) * self.longest, x_PSD.shape[2])
        return x_TD if self.uniform else x_TD.index_select(0, self._slot_T)

    def pool(self, x_TD: Tensor, pooling: Pooling) -> Tensor:
        """(T, D) → (B, D): of each sample's valid tokens the mean, the first or the last; 0 where there are none."""
        if pooling == "mean":
            z_PD = self.pad(x_TD).sum(1) / self._lengths_P[:, None].to(x_TD.dtype)
        else:
            ends_P = self._lengths_P.cumsum(0)
            z_PD = x_TD.index_select(0, ends_P - (self._lengths_P if pooling == "first" else 1))
        if self._present_P is None:
            return z_PD
        return z_PD.new_zeros(len(self.lengths_B), z_PD.shape[1]).index_copy(0, self._present_P, z_PD)


@dataclass(frozen=True, slots=True)
class Ragged:
    """One modality of a batch: the samples' tokens one after another, and their lengths; 0 where it is missing."""

    values_TF: Tensor
    lengths_B: Tensor

    @property
    def nbytes(self) -> int:
        return self.values_TF.nbytes + self.lengths_B.nbytes

    def to(self, device: torch.device, dtype: torch.dtype) -> Ragged:
        return Ragged(self.values_TF.to(device, dtype), self.lengths_B.to(device))
