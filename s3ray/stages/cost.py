"""What stages will take, in seconds of one worker.

A rough model of the operations, with constants measured on one core of a 2-core cloud machine with all cores busy, as
in a sweep (benchmarks/RESULTS.md). A plan corrects it by what stages in the store took.
"""

from __future__ import annotations

import math

from s3ray.data.facts import DataFacts
from s3ray.model.config import ModelConfig

# Per step, per expert of a layer in a step, per token and layer, per (token, expert) pair and feature, per operation,
# per pair of tokens and head, and its feature, per parameter that AdamW updates.
_PER_STEP = 24e-3
_PER_EXPERT = 40e-6
_PER_TOKEN = 3.2e-6
_PER_PAIR_FEATURE = 0.039e-6
_PER_FLOP = 7.9e-12
_PER_SQUARE_HEAD, _PER_SQUARE_FEATURE = 2.6e-9, 0.082e-9
_PER_PARAMETER = 2e-9
_FORWARD = 0.4  # share of a full training step
_PER_BATCH = 6e-3  # encoded
_PER_PROBE = 0.06


def training_seconds(model: ModelConfig, facts: DataFacts, batch_size: int, epochs: int) -> float:
    """Train every parameter."""
    steps = facts.samples["train"] // batch_size
    layers = model.layers * len(facts.features)
    step = _PER_STEP + layers * (
        _PER_EXPERT * model.experts + _PER_PARAMETER * model.expansion * 2 * model.ffn_width * model.width
    )
    return epochs * (steps * step + _pass_seconds(model, facts.tokens["train"], facts.squares["train"]))


def encoding_seconds(model: ModelConfig, facts: DataFacts, samples_at_once: int, ratio: float = 1.0) -> float:
    """Encode every split; pruned pairs cost little."""
    batches = sum(math.ceil(samples / samples_at_once) for samples in facts.samples.values())
    tokens, squares = sum(facts.tokens.values()), sum(facts.squares.values())
    return batches * _PER_BATCH + _FORWARD * _pass_seconds(model, tokens, squares, 0.3 + 0.7 * ratio)


def _pass_seconds(model: ModelConfig, tokens: float, squares: float, kept: float = 1.0) -> float:
    """One forward and backward pass over `tokens` tokens, a share `kept` of whose pairs are computed."""
    experts = _PER_PAIR_FEATURE * model.top_k * model.width + _PER_FLOP * 12 * model.ffn_multiple * model.width**2
    attention = _PER_TOKEN + _PER_FLOP * 18 * model.width**2
    square = _PER_SQUARE_HEAD * model.heads + _PER_SQUARE_FEATURE * model.width
    return model.layers * (tokens * (attention + kept * experts) + squares * square)


def probe_seconds(facts: DataFacts, features: int) -> float:
    """Fit a probe on as many features."""
    iterations = 60  # of L-BFGS, typical for standardised features
    return _PER_PROBE + iterations * 4 * facts.samples["train"] * features * max(facts.classes, 2) / 15e9
