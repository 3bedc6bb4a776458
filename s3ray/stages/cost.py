"""What stages will take, in seconds of one worker, and what memory a worker needs for them.

A rough model of the operations, with constants measured on one core of a 2-core cloud machine with all cores busy, as
in a sweep (benchmarks/RESULTS.md). A plan corrects it by what stages in the store took.

The memory is that of the largest tensors which are held at once, in single precision, on the CPU; at 1 to 1,250 steps,
100 to 10,000 features, widths 32 and 64 it is 0.8 to 1.35 times what was measured. Attention's matrix of all pairs of
steps is never written out there, so that memory grows with the length, not with its square; only the mask of a batch
whose sequences differ in length has the square. Sequences count with their mean length: batches are drawn.
"""

from __future__ import annotations

import math

from s3ray.data.facts import DataFacts
from s3ray.model.config import ModelConfig

# Per step, per expert of a layer in a step, per token and layer, per (token, expert) pair and feature, per operation,
# per pair of tokens and head, and its feature, per parameter that AdamW updates, per value of a feature that is read.
_PER_STEP = 24e-3
_PER_EXPERT = 40e-6
_PER_TOKEN = 3.2e-6
_PER_PAIR_FEATURE = 0.039e-6
_PER_FLOP = 7.9e-12
_PER_SQUARE_HEAD, _PER_SQUARE_FEATURE = 2.6e-9, 0.082e-9
_PER_PARAMETER = 2e-9
_PER_VALUE, _PER_VALUE_AT_ONCE = 1.4e-9, 4e-9  # the second of hundreds of samples, which no cache holds
_FORWARD = 0.4  # share of a full training step
_PER_BATCH = 6e-3  # encoded
_PER_PROBE = 0.06
_PER_MEAN, _PER_DEVIATION = 12e-9, 20e-9
_PER_UNCACHED, _CACHE = 1.2e-9, 2**22


def training_seconds(model: ModelConfig, facts: DataFacts, batch_size: int, epochs: int) -> float:
    """Train every parameter."""
    steps = facts.samples["train"] // batch_size
    layers = model.layers * len(facts.features)
    step = _PER_STEP + layers * (
        _PER_EXPERT * model.experts + _PER_PARAMETER * model.expansion * 2 * model.ffn_width * model.width
    )
    step += _PER_PARAMETER * model.width * sum(facts.features.values())
    projected = (_PER_VALUE + 4 * _PER_FLOP * model.width) * _values(facts) * steps * batch_size
    return epochs * (steps * step + projected + _pass_seconds(model, facts.tokens["train"], facts.squares["train"]))


def encoding_seconds(model: ModelConfig, facts: DataFacts, samples_at_once: int, ratio: float = 1.0) -> float:
    """Encode every split; pruned pairs cost little."""
    batches = sum(math.ceil(samples / samples_at_once) for samples in facts.samples.values())
    tokens, squares = sum(facts.tokens.values()), sum(facts.squares.values())
    projected = (_PER_VALUE_AT_ONCE + 2 * _PER_FLOP * model.width) * _values(facts) * sum(facts.samples.values())
    return batches * _PER_BATCH + projected + _FORWARD * _pass_seconds(model, tokens, squares, 0.3 + 0.7 * ratio)


def _pass_seconds(model: ModelConfig, tokens: float, squares: float, kept: float = 1.0) -> float:
    """One forward and backward pass over `tokens` tokens, a share `kept` of whose pairs are computed."""
    experts = _PER_PAIR_FEATURE * model.top_k * model.width + _PER_FLOP * 12 * model.ffn_multiple * model.width**2
    attention = _PER_TOKEN + _PER_FLOP * 18 * model.width**2
    square = _PER_SQUARE_HEAD * model.heads + _PER_SQUARE_FEATURE * model.width
    return model.layers * (tokens * (attention + kept * experts) + squares * square)


def _values(facts: DataFacts) -> float:
    """Numbers that a sample has, on average."""
    return sum(facts.mean_steps[m] * width for m, width in facts.features.items())


def probe_seconds(facts: DataFacts, features: int) -> float:
    """Fit a probe on as many features."""
    iterations = 60  # of L-BFGS, typical for standardised features
    values = facts.samples["train"] * features
    read = _PER_UNCACHED if 8 * values > _CACHE else 0.0  # twice an iteration, from memory where they exceed the cache
    return _PER_PROBE + iterations * values * (4 * max(facts.classes, 2) / 15e9 + read)


def pooling_seconds(facts: DataFacts, deviations: bool) -> float:
    """Means of every split's features over steps, and deviations."""
    return sum(facts.samples.values()) * _values(facts) * (_PER_MEAN + deviations * _PER_DEVIATION)


# Bytes of a worker that has loaded all libraries and holds no data.
_WORKER = 5e8
_FLOAT = 4
_SOLVER = 25  # vectors of the size of the weights that L-BFGS holds


def training_bytes(model: ModelConfig, facts: DataFacts, batch_size: int, passes: float = 1) -> float:
    """Train every parameter: what the backward pass keeps of every token, the batch, parameters and optimizer.

    Args:
        batch_size: samples of this worker's share of a batch.
        passes: of a batch through the encoders per step, such as two stochastic views.
    """
    kept = model.layers * (2 * model.top_k * model.width + 4 * model.ffn_width + 14 * model.width + 8 * model.experts)
    tokens = batch_size * sum(facts.mean_steps.values())
    # Those without any step are not there: only others of different lengths are padded.
    unequal = [
        most for m, most in facts.most_steps.items() if facts.mean_steps[m] < most * facts.share_present(m) - 1e-9
    ]
    squares = batch_size * max(unequal, default=0) ** 2  # of one modality at a time
    per_layer = 2 * model.expansion * model.ffn_width * model.width + 3 * model.width**2
    per_layer += model.experts * (model.width + model.experts)
    parameters = len(facts.features) * model.layers * per_layer + model.width * sum(facts.features.values())
    # Of a parameter itself, its gradient and AdamW's two, and three of them once more in a checkpoint.
    return _WORKER + _FLOAT * (passes * tokens * kept + squares + batch_size * _values(facts) + 7 * parameters)


def encoding_bytes(model: ModelConfig, facts: DataFacts, samples_at_once: int, kept: float) -> float:
    """Encode samples without training: their features, what comes before the first experts, one layer's experts.

    Args:
        kept: bytes at most of what is kept between preservation ratios.
    """
    samples = min(samples_at_once, max(facts.samples.values()))
    before = sum(facts.mean_steps.values()) * (2 * model.width + model.experts + 3 * model.top_k)
    experts = max(facts.mean_steps.values()) * (2 * model.top_k * model.width + 3 * model.ffn_width + 3 * model.width)
    of_all = _FLOAT * before * sum(facts.samples.values())
    return _WORKER + _FLOAT * samples * (_values(facts) + before + experts) + min(kept, of_all)


def reference_bytes(facts: DataFacts) -> float:
    """Probe raw features: means and deviations over steps, joined and standardised, in double precision."""
    both = 1 + any(most > 1 for most in facts.most_steps.values())
    width = both * sum(facts.features.values())
    copies = 4  # of each modality, joined, standardised, and the solver's
    return _WORKER + 8 * width * (copies * sum(facts.samples.values()) + _SOLVER * max(facts.classes, 2))
