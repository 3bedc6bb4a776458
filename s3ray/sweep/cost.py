"""What a stage will cost, in seconds of one worker, and a plan until it ends.

A rough model of the operations, with constants measured on one core of a 2-core cloud machine
(benchmarks/RESULTS.md), corrected by what the stages of the same plan took that the store already has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from s3ray.config import Cell, Method, Settings
from s3ray.sweep.grid import DataFacts

# Seconds with all cores busy, as in a sweep: per step, per expert of a layer in a step, per token and layer, per
# (token, expert) pair and feature, per operation, per pair of tokens and head, and its feature, per parameter that
# AdamW updates.
_PER_STEP = 24e-3
_PER_EXPERT = 40e-6
_PER_TOKEN = 3.2e-6
_PER_PAIR_FEATURE = 0.039e-6
_PER_FLOP = 7.9e-12
_PER_SQUARE_HEAD, _PER_SQUARE_FEATURE = 2.6e-9, 0.082e-9
_PER_PARAMETER = 2e-9
# Share of a full training step: forward alone; Selection needs no weight gradients.
_FORWARD, _SELECTION = 0.4, 0.65
_PER_BATCH = 6e-3  # encoded
_PER_PROBE = 0.06
_PER_KEPT = 0.35

# What a run takes before and beside its stages: Ray's start and end; a worker group's start, its imports included.
RAY_SECONDS, GROUP_SECONDS = 20.0, 20.0
# Seconds of estimated work that a correction needs to count as much as what was known before: the first stages of a
# worker group also import and warm up, some three seconds.
_PRIOR_SECONDS = 10.0


def corrected(measured: float, estimated: float, prior: float = 1.0) -> float:
    """How many times longer stages take than estimated: `prior` until some seconds of estimates have been measured.

    The mean is geometric: what was estimated at a tenth of a second counts for little, however long it took.
    """
    if not estimated or not measured:
        return prior
    weight = estimated / (estimated + _PRIOR_SECONDS)
    ratio: float = (measured / estimated) ** weight * prior ** (1 - weight)
    return ratio


def _pass_seconds(settings: Settings, tokens: float, squares: float, kept: float = 1.0) -> float:
    """One forward and backward pass over `tokens` tokens, a share `kept` of whose pairs are computed."""
    model = settings.model
    experts = _PER_PAIR_FEATURE * model.top_k * model.width + _PER_FLOP * 12 * model.ffn_multiple * model.width**2
    attention = _PER_TOKEN + _PER_FLOP * 18 * model.width**2
    square = _PER_SQUARE_HEAD * model.heads + _PER_SQUARE_FEATURE * model.width
    return model.layers * (tokens * (attention + kept * experts) + squares * square)


def _training_seconds(settings: Settings, facts: DataFacts, batch_size: int, epochs: int) -> float:
    steps = facts.samples["train"] // batch_size
    model = settings.model
    layers = model.layers * len(facts.features)
    step = _PER_STEP + layers * (
        _PER_EXPERT * model.experts + _PER_PARAMETER * model.expansion * 2 * model.ffn_width * model.width
    )
    once = _pass_seconds(settings, facts.tokens["train"], facts.squares["train"])
    return epochs * (steps * step + once)


def specialization_seconds(settings: Settings, facts: DataFacts, batch_size: int) -> float:
    views = 2 if settings.specialization.views == "dropout" else 1
    return views * _training_seconds(settings, facts, batch_size, settings.specialization.optimizer.epochs)


def selection_seconds(settings: Settings, facts: DataFacts, batch_size: int) -> float:
    return _SELECTION * _training_seconds(settings, facts, batch_size, settings.selection.optimizer.epochs)


# Passes over the training split in units of Specialization's: views, and objectives that take turns.
_PASSES: Mapping[Method, float] = {"factorcl": 4.0, "focal": 2.0, "jointopt": 4.0, "disentangledssl": 2.0}


def baseline_seconds(settings: Settings, facts: DataFacts, cell: Cell) -> float:
    epochs = settings.specialization.optimizer.epochs
    return _PASSES.get(cell.method, 1.0) * _training_seconds(settings, facts, cell.batch_size, epochs)


def curve_seconds(settings: Settings, facts: DataFacts, ratios: Sequence[float]) -> float:
    """Encode every split at every ratio (the pruned pairs cost little) and fit a probe each time."""
    probe = _probe_seconds(facts, settings.model.width * len(facts.features))
    batches = sum(math.ceil(samples / settings.sparsification.batch_size) for samples in facts.samples.values())
    tokens, squares = sum(facts.tokens.values()), sum(facts.squares.values())
    return math.fsum(
        batches * _PER_BATCH + _FORWARD * _pass_seconds(settings, tokens, squares, 0.3 + 0.7 * ratio) + probe
        for ratio in ratios
    )


def kept_seconds(settings: Settings, facts: DataFacts, ratios: Sequence[float]) -> float:
    """A curve whose representations are asked for a simulation's factors too."""
    return curve_seconds(settings, facts, ratios) + _PER_KEPT * len(ratios)


def reference_seconds(facts: DataFacts) -> float:
    """Mean-pool the raw features and fit a probe."""
    features = sum(facts.features.values())
    return _probe_seconds(facts, features) + sum(facts.tokens.values()) * features / len(facts.features) * 2e-9


def _probe_seconds(facts: DataFacts, features: int) -> float:
    iterations = 60  # of L-BFGS, typical for standardised features
    return _PER_PROBE + iterations * 4 * facts.samples["train"] * features * max(facts.classes, 2) / 15e9


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
