"""Training of the prior methods: what stays frozen, determinism, resuming, and that every method learns."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import Tensor

from recorder import Recorder, StoppedError, identical
from s3ray.baselines import BASELINES, USES_LABELS, Baseline, build_baseline, train_baseline
from s3ray.config import BaselineConfig, Branch, Method, ModelConfig, OptimizerConfig, Settings, settings_for
from s3ray.data.dataset import Dataset, Split
from s3ray.data.embedded.latent_factors import LatentFactorsConfig, latent_factors
from s3ray.stages import Metrics, Snapshot, probe

# 26 samples in batches of 8: three steps an epoch; six in all, of which DisentangledSSL gives three to each half.
BATCH, STEPS, HALF = 8, 6, 3
OPTIMIZER = OptimizerConfig(epochs=2, learning_rate=1e-2)
CONFIG = BaselineConfig(temperature=0.2, critic_width=16)
every_method = pytest.mark.parametrize("method", BASELINES)


def _dense(model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(model, granularity=1, expansion=1)


@pytest.fixture(scope="module")
def dense(tiny_model: ModelConfig) -> ModelConfig:
    return dataclasses.replace(_dense(tiny_model), layers=1, dropout=0.1)


def _run(
    method: Method, model: ModelConfig, data: Dataset, seed: int = 0, monitor: Recorder | None = None
) -> tuple[dict[str, Tensor], Metrics]:
    baseline = build_baseline(method, model, CONFIG, data.features, data.classes, seed=0)
    metrics = train_baseline(baseline, data.train, OPTIMIZER, batch_size=BATCH, seed=seed, monitor=monitor)
    return baseline.state_dict(), metrics


Undisturbed = Callable[[Method], tuple[dict[str, Tensor], Metrics]]


@pytest.fixture(scope="module")
def undisturbed(dense: ModelConfig, tiny_dataset: Dataset) -> Undisturbed:
    """A method's run from start to end with seed 0, computed once."""
    return functools.cache(lambda method: _run(method, dense, tiny_dataset))


@every_method
def test_every_parameter_is_trained(
    method: Method, dense: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    before = build_baseline(method, dense, CONFIG, tiny_dataset.features, 3, seed=0).state_dict()
    after, metrics = undisturbed(method)
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert len(metrics) == STEPS
    assert all(math.isfinite(number) for row in metrics for number in row.values())


@every_method
def test_two_runs_are_bit_identical_and_seeds_differ(
    method: Method, dense: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    torch.rand(7)  # the caller's random state is none of the method's concern
    second, metrics = _run(method, dense, tiny_dataset)
    other, _ = _run(method, dense, tiny_dataset, seed=1)
    assert identical(second, undisturbed(method)[0])
    assert metrics == undisturbed(method)[1]
    assert not identical(second, other)


@every_method
@pytest.mark.parametrize("at", [2, HALF + 1])
def test_a_resumed_run_ends_bit_identical(
    method: Method, at: int, dense: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    killed = Recorder(at, stop=True)
    with pytest.raises(StoppedError):
        _run(method, dense, tiny_dataset, monitor=killed)
    resumed = Recorder(stored=killed.stored)
    state, metrics = _run(method, dense, tiny_dataset, monitor=resumed)
    assert resumed.seen == [(step, STEPS) for step in range(at + 1, STEPS + 1)]
    assert identical(state, undisturbed(method)[0])
    assert metrics == undisturbed(method)[1]


@pytest.mark.parametrize(("method", "branch"), [(m, b) for m, kind in BASELINES.items() for b in kind.branches])
def test_active_parameters_are_those_the_representation_depends_on(
    method: Method, branch: Branch, dense: ModelConfig, tiny_dataset: Dataset
) -> None:
    baseline = build_baseline(method, dense, CONFIG, tiny_dataset.features, 3, seed=0)
    batch = tiny_dataset.train.batch(np.arange(4))
    baseline.represent(batch, branch).square().sum().backward()
    used = {id(p) for module in baseline.used(branch) for p in module.parameters()}
    assert {id(p) for p in baseline.parameters() if p.grad is not None} == used


class _Watch(Recorder):
    """Keeps the parameters after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[dict[str, Tensor]] = []

    def stepped(self, step: int, total: int, snapshot: Callable[[], Snapshot]) -> None:
        self.states.append({name: p.clone() for name, p in snapshot()["parameters"].items()})


def test_disentangledssl_freezes_the_shared_encoders_in_its_second_half(
    dense: ModelConfig, tiny_dataset: Dataset
) -> None:
    watch = _Watch()
    _, metrics = _run("disentangledssl", dense, tiny_dataset, monitor=watch)
    assert ["coherence" in row for row in metrics] == [True] * HALF + [False] * HALF
    assert ["specific" in row for row in metrics] == [False] * HALF + [True] * HALF
    for before, after, step in zip(watch.states, watch.states[1:], range(1, STEPS), strict=False):
        changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        # The cosine schedules end just above a rate of 0, so each half's last step still moves something.
        assert changed == ({"encoders"} if step < HALF else {"private"})


def test_the_club_critics_step_after_the_others(dense: ModelConfig, tiny_dataset: Dataset) -> None:
    """Both steps of a batch see the same augmentation: its CLUB critics score what the first step's encoders say."""
    _, metrics = _run("factorcl", dense, tiny_dataset)
    assert all({"club", "nce_of_club"} <= row.keys() for row in metrics)
    for row in metrics:
        bounds = row["nce"] + row["nce_first"] + row["nce_second"] + row["nce_given_views"]
        assert row["loss"] == pytest.approx(row["club"] + row["club_given_views"] - bounds, rel=1e-4, abs=1e-5)


@every_method
def test_labels_are_used_by_those_that_say_so(
    method: Method, dense: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    other = np.roll(tiny_dataset.train.labels, 1)
    data = dataclasses.replace(tiny_dataset, train=dataclasses.replace(tiny_dataset.train, labels=other))
    state, _ = _run(method, dense, data)
    assert identical(state, undisturbed(method)[0]) == (method not in USES_LABELS)


@pytest.mark.parametrize("method", sorted(USES_LABELS))
def test_classes_need_not_count_up_from_0(
    method: Method, dense: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    labels = np.array([-3, 7, 40])[tiny_dataset.train.labels]
    data = dataclasses.replace(tiny_dataset, train=dataclasses.replace(tiny_dataset.train, labels=labels))
    assert identical(_run(method, dense, data)[0], undisturbed(method)[0])


# Three shared factors decide the label. With 400 features to a token, 32 random directions lose much of them.
LEARNABLE = LatentFactorsConfig(
    relevant_shared=3, relevant_unique=0, features=400, token_noise=1.0, train=600, valid=2000, test=1
)


@pytest.fixture(scope="module")
def learnable() -> Dataset:
    return latent_factors(LEARNABLE)


@torch.inference_mode()
def _encoded(model: Baseline, split: Split, branch: Branch) -> np.ndarray:
    starts = range(0, len(split), 250)
    batches = [split.batch(np.arange(start, min(start + 250, len(split)))) for start in starts]
    return np.concatenate([model.represent(batch, branch).numpy() for batch in batches])


def _accuracy(model: Baseline, data: Dataset, branch: Branch, settings: Settings) -> float:
    splits = {"train": data.train, "valid": data.valid}
    features = {name: _encoded(model, split, branch) for name, split in splits.items()}
    return probe(features, {name: split.labels for name, split in splits.items()}, settings.probe).accuracy["valid"]


@pytest.mark.slow
@every_method
def test_every_method_learns(method: Method, learnable: Dataset) -> None:
    """The trained representation beats the untrained one's validation accuracy by more than sampling explains.

    Two accuracies on n samples differ with a variance of at most (p q + p' q') / n if, as here, being right on a
    sample is not negatively correlated; 3.1 deviations are passed by chance once in a thousand.
    """
    settings = settings_for("latent_factors", "smoke")
    one_layer, samples = dataclasses.replace(_dense(settings.model), layers=1), len(learnable.valid)
    optimizer = settings.specialization.optimizer
    # FactorCL's critics are networks that have to learn first: the smoke scale's own epochs do not suffice for it.
    if method == "factorcl":
        optimizer = dataclasses.replace(optimizer, epochs=2 * optimizer.epochs)
    model = build_baseline(method, one_layer, settings.baseline, learnable.features, learnable.classes, seed=0)
    before = {branch: _accuracy(model, learnable, branch, settings) for branch in model.branches}
    train_baseline(model, learnable.train, optimizer, batch_size=64, seed=0)
    for branch, p in before.items():
        trained = _accuracy(model, learnable, branch, settings)
        deviation = math.sqrt((p * (1 - p) + trained * (1 - trained)) / samples)
        assert trained - p > NormalDist().inv_cdf(0.999) * deviation, (branch, p, trained)


@pytest.mark.parametrize("method", ["focal", "jointopt", "disentangledssl"])
def test_terms_of_weight_0_leave_every_parameter_a_gradient(
    method: Method, dense: ModelConfig, tiny_dataset: Dataset
) -> None:
    config = dataclasses.replace(CONFIG, private_weight=0.0, orthogonality=0.0, alignment=0.0)
    baseline = build_baseline(method, dense, config, tiny_dataset.features, tiny_dataset.classes, seed=0)
    metrics = train_baseline(baseline, tiny_dataset.train, OPTIMIZER, batch_size=BATCH, seed=0)
    assert all(math.isfinite(number) for row in metrics for number in row.values())
    assert all(p.grad is not None for p in baseline.parameters() if p.requires_grad)
