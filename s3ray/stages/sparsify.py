"""Sparsification (5.3): prune at inference, probe what is left, for every preservation ratio."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from s3ray.config import ProbeConfig
from s3ray.data.dataset import Dataset, Split
from s3ray.model import Ragged, S3Model
from s3ray.stages.collective import rank, workers
from s3ray.stages.probe import probe


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One measured point of a pruning curve: a preservation ratio on a split."""

    preservation_ratio: float
    split: str
    accuracy: float
    samples: int
    pairs_kept: int  # (token, expert) pairs computed, over layers and modalities
    pairs_routed: int  # top-k pairs before pruning
    encode_seconds: float
    probe_seconds: float
    probe_converged: bool


@dataclass(frozen=True, slots=True)
class EncodedSplit:
    z: NDArray[np.float32]  # (n, modalities · width): both representations side by side
    pairs_kept: int
    pairs_routed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Representation:
    """A trained model and what is probed of it.

    Attributes:
        encode: a batch on the model's device and a preservation ratio → (z (B, D): the modalities' equally wide
            parts side by side, pairs computed, pairs routed).
    """

    model: nn.Module
    encode: Callable[[dict[str, Ragged], float], tuple[Tensor, int, int]]


def s3_representation(model: S3Model, *, on_sphere: bool = True) -> Representation:
    """What S3 probes: both modalities' z, each on the sphere."""

    def encode(batch: dict[str, Ragged], keep: float) -> tuple[Tensor, int, int]:
        encoded = model(batch, keep=keep)[0].values()
        z = torch.cat([F.normalize(e.z_BD, dim=1) if on_sphere else e.z_BD for e in encoded], dim=1)
        return z, sum(e.pairs_computed for e in encoded), sum(e.pairs_routed for e in encoded)

    return Representation(model, encode)


@torch.inference_mode()
def encode_split(representation: Representation, split: Split, *, batch_size: int, keep: float) -> EncodedSplit:
    """Representations of a split at preservation ratio `keep`, in sample order, on every rank.

    The pool that is ranked is one batch of `batch_size` samples, per layer and modality. Ranks share the
    batches, not the pools, so the result does not depend on the number of workers.
    """
    started = time.perf_counter()
    parameter = next(representation.model.parameters())
    representation.model.eval()
    own: dict[int, NDArray[np.float32]] = {}
    kept = routed = 0
    starts = range(0, len(split), batch_size)
    for start in starts[rank() :: workers()]:
        indices = np.arange(start, min(start + batch_size, len(split)))
        batch = {n: r.to(parameter.device, parameter.dtype) for n, r in split.batch(indices).items()}
        z_BD, computed, before = representation.encode(batch, keep)
        own[start] = z_BD.float().cpu().numpy()
        kept += computed
        routed += before
    shares: list[Any] = [(own, kept, routed)]
    if workers() > 1:
        shares = [None] * workers()
        dist.all_gather_object(shares, (own, kept, routed))
    pieces = {start: z for share, _, _ in shares for start, z in share.items()}
    return EncodedSplit(
        np.concatenate([pieces[start] for start in starts]),
        sum(share[1] for share in shares),
        sum(share[2] for share in shares),
        time.perf_counter() - started,
    )


def pruning_curve(
    representation: Representation,
    data: Dataset,
    ratios: Sequence[float],
    probe_config: ProbeConfig,
    *,
    batch_size: int,
) -> list[CurvePoint]:
    """Probe the representations at every preservation ratio; no training of the model.

    The probe is fitted on the training split pruned at the same ratio, and scored on valid and test. Every
    rank encodes; rank 0 probes and returns the points, the others return none.
    """
    points: list[CurvePoint] = []
    for ratio in ratios:
        encoded = {
            name: encode_split(representation, split, batch_size=batch_size, keep=ratio)
            for name, split in data.splits.items()
        }
        if rank() != 0:
            continue
        started = time.perf_counter()
        score = probe(
            {name: e.z for name, e in encoded.items()},
            {name: split.labels for name, split in data.splits.items()},
            probe_config,
        )
        seconds = time.perf_counter() - started
        points += [
            CurvePoint(
                preservation_ratio=ratio,
                split=name,
                accuracy=accuracy,
                samples=len(data.splits[name]),
                pairs_kept=encoded[name].pairs_kept,
                pairs_routed=encoded[name].pairs_routed,
                encode_seconds=encoded[name].seconds,
                probe_seconds=seconds,
                probe_converged=score.converged,
            )
            for name, accuracy in score.accuracy.items()
        ]
    return points
