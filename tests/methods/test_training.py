"""Training of the prior methods: what stays frozen, determinism, resuming, and that every method learns."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from prior_methods import configured
from recorder import Recorder, StoppedError, identical
from s3ray.data.dataset import Dataset, Split
from s3ray.data.embedded.latent_factors import LatentFactorsConfig, latent_factors
from s3ray.methods import METHODS, MethodConfig
from s3ray.methods.method import build
from s3ray.methods.prior import PriorModel
from s3ray.model import ModelConfig, TrainedModel
from s3ray.settings import Settings, settings_for
from s3ray.stages.probe import probed
from s3ray.stages.stage import Context, Inputs
from s3ray.stages.training import Metrics, OptimizerConfig, Snapshot, train

pytestmark = pytest.mark.slow  # each prior method is trained several times

# 26 samples in batches of 8: three steps an epoch; six in all, of which DisentangledSSL gives three to each half.
BATCH, STEPS, HALF = 8, 6, 3
OPTIMIZER = OptimizerConfig(epochs=2, learning_rate=1e-2)
VALUES = {
    "temperature": 0.2,
    "critic_width": 16,
    "private_weight": 1.0,
    "orthogonality": 1.0,
    "alignment": 1.0,
    "concentration": 1000.0,
}
every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def shape(tiny_model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(tiny_model, layers=1, dropout=0.1)


def _config(method: str, shape: ModelConfig, seed: int = 0, **changes: Any) -> MethodConfig:
    return configured(method, shape, OPTIMIZER, VALUES | changes, batch_size=BATCH, seed=seed)


def _built(method: str, shape: ModelConfig, data: Dataset, **changes: Any) -> PriorModel:
    return build(METHODS[method].model, _config(method, shape, **changes), Inputs.of(data))


Weights = dict[str, Tensor]


def _run(
    method: str, shape: ModelConfig, data: Dataset, monitor: Recorder | None = None, seed: int = 0
) -> tuple[Weights, Metrics]:
    config = _config(method, shape, seed)
    outcome = METHODS[method].stage.run(config, data, None, Context(monitor=monitor))
    assert outcome.weights is not None
    return dict(outcome.weights), outcome.rows


def _trained(model: PriorModel, data: Dataset, seed: int = 0) -> Metrics:
    """Train a model in place, as the stage does, on classes that count up from 0."""
    return train(model, model.objectives(), data.train, OPTIMIZER, batch_size=BATCH, seed=seed)


Undisturbed = Callable[[str], tuple[Weights, Metrics]]


@pytest.fixture(scope="module")
def undisturbed(shape: ModelConfig, tiny_dataset: Dataset) -> Undisturbed:
    """A method's run from start to end with seed 0, computed once."""
    return functools.cache(lambda method: _run(method, shape, tiny_dataset))


@every_method
def test_every_parameter_is_trained(
    method: str, shape: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    before = _built(method, shape, tiny_dataset).state_dict()
    after, metrics = undisturbed(method)
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert len(metrics) == STEPS
    assert all(math.isfinite(number) for row in metrics for number in row.values())


@every_method
def test_two_runs_are_bit_identical_and_seeds_differ(
    method: str, shape: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    torch.rand(7)  # the caller's random state is none of the method's concern
    second, metrics = _run(method, shape, tiny_dataset)
    assert identical(second, undisturbed(method)[0])
    assert metrics == undisturbed(method)[1]
    other, _ = _run(method, shape, tiny_dataset, seed=1)
    assert not identical(second, other)


@every_method
def test_the_seed_is_that_of_the_initialisation_and_of_the_batches(
    method: str, shape: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    same, other = (_built(method, shape, tiny_dataset) for _ in range(2))
    assert _trained(same, tiny_dataset) == undisturbed(method)[1]
    assert identical(same.state_dict(), undisturbed(method)[0])
    _trained(other, tiny_dataset, seed=1)
    assert not identical(other.state_dict(), undisturbed(method)[0])


@every_method
def test_a_trained_model_is_restored_from_its_weights(
    method: str, shape: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    trained, stage = _built(method, shape, tiny_dataset), METHODS[method].stage
    _trained(trained, tiny_dataset)
    assert stage.restore is not None
    # The configured seed builds another model, of which nothing remains.
    config = _config(method, shape, seed=1)
    restored = stage.restore(config, Inputs.of(tiny_dataset), None, undisturbed(method)[0])
    batch = tiny_dataset.valid.batch(np.arange(4))
    for output in METHODS[method].outputs:
        parts = zip(restored.encode(batch, output).parts, trained.encode(batch, output).parts, strict=True)
        assert all(torch.equal(part, expected) for part, expected in parts)


@every_method
@pytest.mark.parametrize("at", [2, HALF + 1])
def test_a_resumed_run_ends_bit_identical(
    method: str, at: int, shape: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    killed = Recorder(at, stop=True)
    with pytest.raises(StoppedError):
        _run(method, shape, tiny_dataset, killed)
    resumed = Recorder(stored=killed.stored)
    state, metrics = _run(method, shape, tiny_dataset, resumed)
    assert resumed.seen == [(step, STEPS) for step in range(at + 1, STEPS + 1)]
    assert identical(state, undisturbed(method)[0])
    assert metrics == undisturbed(method)[1]


@pytest.mark.parametrize(("method", "output"), [(name, o) for name, method in METHODS.items() for o in method.outputs])
def test_active_parameters_are_those_the_representation_depends_on(
    method: str, output: str, shape: ModelConfig, tiny_dataset: Dataset
) -> None:
    model = _built(method, shape, tiny_dataset)
    batch = tiny_dataset.train.batch(np.arange(4))
    model.encode(batch, output).joined(on_sphere=True).square().sum().backward()
    used = {id(p) for module in model.used(output) for p in module.parameters()}
    assert {id(p) for p in model.parameters() if p.grad is not None} == used


def test_encoders_that_give_all_of_a_representation_alone(shape: ModelConfig, tiny_dataset: Dataset) -> None:
    """What can be exported as an encoder per modality; of the other methods more is computed."""
    batch, alone = tiny_dataset.train.batch(np.arange(4)), set()
    for name, method in METHODS.items():
        model = _built(name, shape, tiny_dataset).eval()
        for output in method.outputs:
            if (encoders := model.encoders_alone(output)) is not None:
                alone.add((name, output))
                got, expected = encoders.encode(batch, "none").parts, model.encode(batch, output).parts
                assert all(torch.equal(*pair) for pair in zip(got, expected, strict=True))
    assert alone == {("clip", "none"), ("cross_entropy", "none"), ("factorcl", "emb"), ("supcon", "none")}


class _Watch(Recorder):
    """Keeps the parameters after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[dict[str, Tensor]] = []

    def stepped(self, step: int, total: int, snapshot: Callable[[], Snapshot]) -> None:
        self.states.append({name: p.clone() for name, p in snapshot()["parameters"].items()})


def test_disentangledssl_freezes_the_shared_encoders_in_its_second_half(
    shape: ModelConfig, tiny_dataset: Dataset
) -> None:
    watch = _Watch()
    _, metrics = _run("disentangledssl", shape, tiny_dataset, watch)
    assert ["coherence" in row for row in metrics] == [True] * HALF + [False] * HALF
    assert ["specific" in row for row in metrics] == [False] * HALF + [True] * HALF
    for before, after, step in zip(watch.states, watch.states[1:], range(1, STEPS), strict=False):
        changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        # The cosine schedules end just above a rate of 0, so each half's last step still moves something.
        assert changed == ({"encoders"} if step < HALF else {"private"})


def test_the_club_critics_step_after_the_others(shape: ModelConfig, tiny_dataset: Dataset) -> None:
    """Both steps of a batch see the same augmentation: its CLUB critics score what the first step's encoders say."""
    _, metrics = _run("factorcl", shape, tiny_dataset)
    assert all({"club", "nce_of_club"} <= row.keys() for row in metrics)
    for row in metrics:
        bounds = row["nce"] + row["nce_first"] + row["nce_second"] + row["nce_given_views"]
        assert row["loss"] == pytest.approx(row["club"] + row["club_given_views"] - bounds, rel=1e-4, abs=1e-5)


@every_method
def test_labels_are_used_by_those_that_say_so(
    method: str, shape: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    other = np.roll(tiny_dataset.train.labels, 1)
    data = dataclasses.replace(tiny_dataset, train=dataclasses.replace(tiny_dataset.train, labels=other))
    state, _ = _run(method, shape, data)
    assert identical(state, undisturbed(method)[0]) == (not METHODS[method].uses_labels)


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.uses_labels])
def test_classes_need_not_count_up_from_0(
    method: str, shape: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    labels = np.array([-3, 7, 40])[tiny_dataset.train.labels]
    data = dataclasses.replace(tiny_dataset, train=dataclasses.replace(tiny_dataset.train, labels=labels))
    assert identical(_run(method, shape, data)[0], undisturbed(method)[0])


# Three shared factors decide the label. With 400 features to a token, 32 random directions lose much of them.
LEARNABLE = LatentFactorsConfig(
    relevant_shared=3, relevant_unique=0, features=400, token_noise=1.0, train=600, valid=2000, test=1
)


@pytest.fixture(scope="module")
def learnable() -> Dataset:
    return latent_factors(LEARNABLE)


def _accuracy(model: TrainedModel, data: Dataset, output: str, settings: Settings) -> float:
    rows = probed(model, data, settings.probe.classifier, output=output, on_sphere=True).rows
    return next(float(row["accuracy"]) for row in rows if row["split"] == "valid")


@every_method
def test_every_method_learns(method: str, learnable: Dataset) -> None:
    """The trained representation beats the untrained one's validation accuracy by more than sampling explains.

    Two accuracies on n samples differ with a variance of at most (p q + p' q') / n if, as here, being right on a
    sample is not negatively correlated; 3.1 deviations are passed by chance once in a thousand.
    """
    settings = settings_for("latent_factors", "smoke")
    one_layer, samples = dataclasses.replace(settings.model.dense(), layers=1), len(learnable.valid)
    optimizer = settings.specialization.optimizer
    # FactorCL's critics are networks that have to learn first: the smoke scale's own epochs do not suffice for it.
    if method == "factorcl":
        optimizer = dataclasses.replace(optimizer, epochs=2 * optimizer.epochs)
    own = getattr(settings.method, method)
    config = MethodConfig(model=one_layer, optimizer=optimizer, loss=own, batch_size=64, seed=0)
    stage, inputs = METHODS[method].stage, Inputs.of(learnable)
    untrained = build(METHODS[method].model, config, inputs)
    before = {output: _accuracy(untrained, learnable, output, settings) for output in METHODS[method].outputs}
    outcome = stage.run(config, learnable, None, Context())
    assert stage.restore is not None
    assert outcome.weights is not None
    model = stage.restore(config, inputs, None, outcome.weights)
    for output, p in before.items():
        trained = _accuracy(model, learnable, output, settings)
        deviation = math.sqrt((p * (1 - p) + trained * (1 - trained)) / samples)
        assert trained - p > NormalDist().inv_cdf(0.999) * deviation, (output, p, trained)


@pytest.mark.parametrize("method", ["focal", "jointopt", "disentangledssl"])
def test_terms_of_weight_0_leave_every_parameter_a_gradient(
    method: str, shape: ModelConfig, tiny_dataset: Dataset
) -> None:
    model = _built(method, shape, tiny_dataset, private_weight=0.0, orthogonality=0.0, alignment=0.0)
    metrics = _trained(model, tiny_dataset)
    assert all(math.isfinite(number) for row in metrics for number in row.values())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def _of_modalities(data: Dataset, count: int) -> Dataset:
    """The first `count` modalities; the third is the first under another name."""

    def seen(split: Split) -> Split:
        every = {**split.modalities, "third": split.modalities["left"]}
        return dataclasses.replace(split, modalities=dict(list(every.items())[:count]))

    return dataclasses.replace(data, train=seen(data.train), valid=seen(data.valid), test=seen(data.test))


@pytest.mark.parametrize(
    ("method", "count"),
    [
        # DisentangledSSL, FactorCL and JointOpt are defined for pairs; CLIP and FOCAL have no loss without one.
        *((name, 3) for name in ("clip", "focal", "supcon", "cross_entropy")),
        ("supcon", 1),
        ("cross_entropy", 1),
    ],
)
def test_other_numbers_of_modalities(method: str, count: int, shape: ModelConfig, tiny_dataset: Dataset) -> None:
    data = _of_modalities(tiny_dataset, count)
    model = _built(method, shape, data)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights, metrics = _run(method, shape, data)
    assert [name for name in before if torch.equal(before[name], weights[name])] == []
    assert len(metrics) == STEPS
    assert all(math.isfinite(number) for row in metrics for number in row.values())
    encoding = model.encode(data.valid.batch(np.arange(4)), "none")
    assert encoding.joined(on_sphere=True).shape == (4, count * shape.width)
    assert len(encoding.parts) % count == 0
