"""What a stage will cost, in seconds of one worker.

A rough model of the operations, with constants measured on one core of a 2-core cloud machine
(benchmarks/RESULTS.md), corrected by what the store has measured for the same kind of stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from s3ray.config import Cell, Method, Settings
from s3ray.sweep.grid import DataFacts

# Seconds per step, per token and layer, per (token, expert) pair and feature, per multiply-add.
_PER_STEP = 9.5e-3
_PER_TOKEN = 1.6e-6
_PER_PAIR_FEATURE = 0.037e-6
_PER_FLOP = 1 / 30e9
# Share of a full training step: forward alone; Selection needs no weight gradients.
_FORWARD, _SELECTION = 0.3, 0.65


def _pass_seconds(settings: Settings, tokens: float) -> float:
    """One forward and backward pass over `tokens` tokens."""
    model = settings.model
    flops = 6 * model.width**2 * (3 + 2 * model.ffn_multiple)
    per_token_layer = _PER_TOKEN + _PER_PAIR_FEATURE * model.top_k * model.width + _PER_FLOP * flops
    return tokens * model.layers * per_token_layer


def _training_seconds(settings: Settings, facts: DataFacts, batch_size: int, epochs: int) -> float:
    steps = facts.samples["train"] // batch_size
    parameters = settings.model.layers * settings.model.expansion * 8 * settings.model.width**2 * 2
    optimizer = parameters * 2e-9
    return epochs * (steps * (_PER_STEP + optimizer) + _pass_seconds(settings, facts.tokens["train"]))


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
    """Encode every split at every ratio (the pruned pairs cost nothing) and fit a probe each time."""
    features = settings.model.width * len(facts.features)
    encode = _FORWARD * _pass_seconds(settings, sum(facts.tokens.values()))
    probe = _probe_seconds(facts, features)
    kept = [0.3 + 0.7 * ratio for ratio in ratios]
    return encode * math.fsum(kept) + len(kept) * (probe + 0.05)


def reference_seconds(facts: DataFacts) -> float:
    """Mean-pool the raw features and fit a probe."""
    features = sum(facts.features.values())
    return 0.05 + _probe_seconds(facts, features) + sum(facts.tokens.values()) * features / len(facts.features) * 2e-9


def _probe_seconds(facts: DataFacts, features: int) -> float:
    iterations = 60  # of L-BFGS, typical for standardised features
    return iterations * 4 * facts.samples["train"] * features * max(facts.classes, 2) / 5e9


def duration(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
