"""A split through a trained model, on every rank.

Shape suffixes: T tokens, L layers, K top-k.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from s3ray.data.dataset import Dataset, Split
from s3ray.model import Pruning, S3Model, ThresholdPruning, TrainedModel
from s3ray.stages.collective import rank, workers

_Told = dict[str, NDArray[np.float32]]  # per modality

SAMPLES_AT_ONCE = 256  # where nothing is pruned: how many are encoded together changes nothing


@dataclass(frozen=True, slots=True)
class EncodedSplit:
    z: NDArray[np.float32]  # (n, modalities · width): all representations side by side
    pairs_kept: int
    pairs_routed: int
    seconds: float
    # Per modality, of every token and layer the mean weight of its pairs and the share of them computed (T, L, 2).
    tokens: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    # Where they are asked for: expert, weight and whether it was computed of every pair (T, L, K, 3).
    pairs: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


class Begun:
    """What of a model's encoding is the same at every preservation ratio and by every rule, kept between them.

    Of one model only, and no more than `room` bytes: what does not fit is computed again.
    """

    ROOM = 2**28

    def __init__(self, room: int = ROOM) -> None:
        self._room, self._kept = room, dict[tuple[str, int, int], Mapping[str, Any]]()

    def of(self, key: tuple[str, int, int], begin: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """What belongs to a split's name, first sample and number of samples."""
        if key in self._kept:
            return self._kept[key]
        begun = begin()
        size = sum(part.nbytes for part in begun.values())
        if size <= self._room:
            self._room -= size
            self._kept[key] = begun
        return begun


@torch.inference_mode()
def encode_split(
    model: TrainedModel,
    split: Split,
    *,
    output: str,
    on_sphere: bool,
    pruning: Pruning | None = None,
    name: str = "",
    begun: Begun | None = None,
    tokens: bool = False,
    pairs: bool = False,
) -> EncodedSplit:
    """Representations of a split, in sample order, on every rank.

    Ranks share the batches, not the pools, so the result does not depend on the number of workers.

    Args:
        name: of the split in `begun`.
        begun: of this model and these splits; a call that has it leaves it what it can use again.
        tokens: also tell how every token was routed.
        pairs: also tell each of a token's pairs, which takes as much memory.
    """
    started = time.perf_counter()
    parameter = next(model.parameters())
    model.eval()
    at_once = pruning.pool if pruning else SAMPLES_AT_ONCE
    own: dict[int, tuple[NDArray[np.float32], _Told, _Told]] = {}
    kept = routed = 0
    starts = range(0, len(split), at_once)
    for start in starts[rank() :: workers()]:

        def begin(start: int = start) -> Mapping[str, Any]:
            indices = np.arange(start, min(start + at_once, len(split)))
            batch = {n: r.to(parameter.device, parameter.dtype) for n, r in split.batch(indices).items()}
            return model.begin(batch)

        batch = begun.of((name, start, at_once), begin) if begun else begin()
        encoding = model.encode(batch, output, pruning, start)
        own[start] = (
            encoding.joined(on_sphere).float().cpu().numpy(),
            _on_cpu(encoding.tokens() if tokens else {}),
            _on_cpu(encoding.pairs() if pairs else {}),
        )
        kept += encoding.pairs_computed
        routed += encoding.pairs_routed
    shares: list[Any] = [(own, kept, routed)]
    if workers() > 1:
        shares = [None] * workers()
        dist.all_gather_object(shares, (own, kept, routed))
    by_start = {start: piece for share, _, _ in shares for start, piece in share.items()}
    pieces = [by_start[start] for start in starts]
    return EncodedSplit(
        np.concatenate([z for z, _, _ in pieces]),
        sum(share[1] for share in shares),
        sum(share[2] for share in shares),
        time.perf_counter() - started,
        _joined([tokens for _, tokens, _ in pieces]),
        _joined([pairs for _, _, pairs in pieces]),
    )


def _joined(told: Sequence[_Told]) -> _Told:
    return {modality: np.concatenate([own[modality] for own in told]) for modality in told[0]}


def _on_cpu(told: Mapping[str, Tensor]) -> _Told:
    return {modality: tensor.float().cpu().numpy() for modality, tensor in told.items()}


def encode_splits(
    model: TrainedModel,
    data: Dataset,
    *,
    output: str,
    on_sphere: bool,
    pruning: Pruning | None = None,
    begun: Begun | None = None,
    tokens: bool = False,
) -> dict[str, EncodedSplit]:
    """All splits of a dataset."""
    return {
        name: encode_split(
            model, split, output=output, on_sphere=on_sphere, pruning=pruning, name=name, begun=begun, tokens=tokens
        )
        for name, split in data.splits.items()
    }


@torch.inference_mode()
def with_thresholds(model: S3Model, train: Split, pruning: Pruning) -> ThresholdPruning:
    """A ranked pruning as fixed weights, which keep its share of a training split's pairs.

    A layer's are taken where the layers before it are pruned by theirs, since what these lose changes its weights.
    Pairs that the scope ranks over several layers have one, of a pass that computes every pair, as in
    `Pruning.thresholds`.
    """
    parameter = next(model.parameters())
    model.eval()
    least = {name: [0.0] * model.depth for name in model.encoders}

    def weights(layers: slice) -> dict[str, list[Tensor]]:
        """Of every batch and these layers, pruned by what is known; 0 keeps all."""
        found: dict[str, list[Tensor]] = {name: [] for name in least}
        known = ThresholdPruning(ratio=pruning.ratio, pool=pruning.pool, least=least)
        for start in range(0, len(train), SAMPLES_AT_ONCE):
            indices = np.arange(start, min(start + SAMPLES_AT_ONCE, len(train)))
            batch = {n: r.to(parameter.device, parameter.dtype) for n, r in train.batch(indices).items()}
            keep = {name: known.keep(name, start, parameter.device) for name in least}
            for name, encoded in model(batch, keep=keep)[0].items():
                found[name] += [routing.weights_TK for routing in encoded.routings[layers]]
        return found

    if pruning.across_layers:
        least = {name: [own] * model.depth for name, own in pruning.fixed_thresholds(weights(slice(None))).items()}
    else:
        for layer in range(model.depth):
            for name, own in pruning.fixed_thresholds(weights(slice(layer, layer + 1))).items():
                least[name][layer] = own
    return ThresholdPruning(ratio=pruning.ratio, pool=SAMPLES_AT_ONCE, least=least)


class Measured(Protocol):
    """What a stage reads that measures representations of its parent's model."""

    @property
    def output(self) -> str: ...

    @property
    def on_sphere(self) -> bool: ...

    @property
    def pruning(self) -> Pruning | None: ...


def encode_measured(
    config: Measured, model: TrainedModel | None, data: Dataset, begun: Begun | None, *, tokens: bool = False
) -> dict[str, EncodedSplit]:
    """All splits as a configuration asks for them; nothing on other ranks than 0, which measure nothing."""
    assert model is not None
    encoded = encode_splits(
        model,
        data,
        output=config.output,
        on_sphere=config.on_sphere,
        pruning=config.pruning,
        begun=begun,
        tokens=tokens,
    )
    return encoded if rank() == 0 else {}


def at_once_and_ratio(pruning: Pruning | None) -> tuple[int, float]:
    """How many samples are encoded together, and the share of pairs that is computed."""
    return (pruning.pool, pruning.ratio) if pruning else (SAMPLES_AT_ONCE, 1.0)
