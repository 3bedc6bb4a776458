"""Specialization and Selection in one process: what they train, determinism, resuming, divergence."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recorder import Recorder, StoppedError, identical
from s3ray.config import ModelConfig, OptimizerConfig, SelectionConfig, SpecializationConfig
from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.model import S3Model, build_model
from s3ray.objectives.selection import minimality_loss, sufficiency_loss
from s3ray.stages import DivergedError, Metrics, Snapshot, select, specialize

# 26 samples in batches of 8: three steps an epoch, two samples left out; nine steps in all.
BATCH, STEPS_PER_EPOCH, STEPS = 8, 3, 9
OPTIMIZER = OptimizerConfig(epochs=3, learning_rate=1e-2)
STAGES: dict[str, tuple[Callable[..., Metrics], Any, float]] = {
    "specialize": (specialize, SpecializationConfig(optimizer=OPTIMIZER), 0.0),
    "specialize, dropout views": (
        specialize,
        SpecializationConfig(optimizer=OPTIMIZER, views="dropout"),
        0.1,
    ),
    "select": (select, SelectionConfig(optimizer=OPTIMIZER), 0.0),
}
every_stage = pytest.mark.parametrize("name", STAGES)


def _run(
    name: str, model: ModelConfig, data: Dataset, seed: int = 0, monitor: Recorder | None = None
) -> tuple[dict[str, Tensor], Metrics]:
    stage, config, dropout = STAGES[name]
    trained = build_model(dataclasses.replace(model, dropout=dropout), data.features, seed=0)
    metrics = stage(trained, data.train, config, batch_size=BATCH, seed=seed, monitor=monitor)
    return trained.state_dict(), metrics


Undisturbed = Callable[[str], tuple[dict[str, Tensor], Metrics]]


@pytest.fixture(scope="module")
def undisturbed(tiny_model: ModelConfig, tiny_dataset: Dataset) -> Undisturbed:
    """A stage's run from start to end with seed 0, computed once."""
    return functools.cache(lambda name: _run(name, tiny_model, tiny_dataset))


def test_specialize_trains_every_parameter(
    tiny_model: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    before = build_model(tiny_model, tiny_dataset.features, seed=0).state_dict()
    after, _ = undisturbed("specialize")
    assert [key for key in before if torch.equal(before[key], after[key])] == []


def test_select_changes_routers_alone(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    model = build_model(tiny_model, tiny_dataset.features, seed=0)
    before = copy.deepcopy(model.state_dict())
    select(model, tiny_dataset.train, STAGES["select"][1], batch_size=BATCH, seed=0)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if ".router.project." in key or ".router.mix." in key}
    assert len(changed) == 8  # two encoders, two layers, two maps
    assert {key for key, p in model.named_parameters() if p.grad is not None} == changed


@every_stage
def test_two_runs_are_bit_identical_and_seeds_differ(
    name: str, tiny_model: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    first, first_metrics = undisturbed(name)
    torch.rand(7)  # the caller's random state is none of the stage's concern
    second, second_metrics = _run(name, tiny_model, tiny_dataset)
    other, other_metrics = _run(name, tiny_model, tiny_dataset, seed=1)
    assert identical(first, second)
    assert first_metrics == second_metrics
    assert not identical(first, other)
    assert first_metrics != other_metrics


@every_stage
@pytest.mark.parametrize("at", [1, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 2, STEPS])
def test_a_resumed_run_ends_bit_identical(
    name: str, at: int, tiny_model: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    expected, expected_metrics = undisturbed(name)
    killed = Recorder(at, stop=True)
    with pytest.raises(StoppedError):
        _run(name, tiny_model, tiny_dataset, monitor=killed)
    resumed = Recorder(stored=killed.stored)
    state, metrics = _run(name, tiny_model, tiny_dataset, monitor=resumed)
    assert resumed.seen == [(step, STEPS) for step in range(at + 1, STEPS + 1)]  # nothing is done twice
    assert identical(state, expected)
    assert metrics == expected_metrics


@every_stage
def test_taking_snapshots_does_not_disturb_the_run(
    name: str, tiny_model: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    recorder = Recorder(at=4)
    watched, watched_metrics = _run(name, tiny_model, tiny_dataset, monitor=recorder)
    plain, plain_metrics = undisturbed(name)
    assert recorder.seen == [(step, STEPS) for step in range(1, STEPS + 1)]
    assert identical(watched, plain)
    assert watched_metrics == plain_metrics


@every_stage
def test_metrics_have_a_row_per_step_and_entropies_per_modality(name: str, undisturbed: Undisturbed) -> None:
    _, metrics = undisturbed(name)
    assert [row["step"] for row in metrics] == list(range(STEPS))
    terms = {"suff", "min"} if name == "select" else {"rep", "dsc", "imp", "load", "local", "global"}
    entropies = {f"{kind}_entropy/{m}" for kind in ("local", "global") for m in ("left", "right")}
    for row in metrics:
        assert row.keys() == {"step", "loss"} | terms | entropies
        for modality in ("left", "right"):
            # Entropy is concave: the mean of entropies is at most the entropy of the mean, at most log N.
            local, overall = row[f"local_entropy/{modality}"], row[f"global_entropy/{modality}"]
            assert 0.0 < local <= overall + 1e-6 <= math.log(4) + 2e-6


def test_losses_are_the_weighted_sums_of_their_terms(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    once = OptimizerConfig(epochs=1, learning_rate=1e-3)
    special = SpecializationConfig(
        optimizer=once, lambda_rep=2, lambda_dsc=3, lambda_aux=5, lambda_imp=7, lambda_load=11,
        lambda_local=13, lambda_global=17,
    )  # fmt: skip
    model = build_model(tiny_model, tiny_dataset.features, seed=0)
    for row in specialize(model, tiny_dataset.train, special, batch_size=BATCH, seed=0):
        auxiliary = 7 * row["imp"] + 11 * row["load"] + 13 * row["local"] + 17 * row["global"]
        assert row["loss"] == pytest.approx(2 * row["rep"] + 3 * row["dsc"] + 5 * auxiliary, rel=1e-5)
        # Summed over modalities, the monitored entropies are the entropy terms.
        assert row["local"] == pytest.approx(row["local_entropy/left"] + row["local_entropy/right"], rel=1e-5)
        assert row["global"] == pytest.approx(-row["global_entropy/left"] - row["global_entropy/right"], rel=1e-5)
    selection = SelectionConfig(optimizer=once, lambda_suff=2, lambda_min=3)
    for row in select(model, tiny_dataset.train, selection, batch_size=BATCH, seed=0):
        assert row["loss"] == pytest.approx(2 * row["suff"] + 3 * row["min"], rel=1e-5)


def test_entropy_metrics_against_softmax_of_the_routers(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    """One batch that is the whole split: the first row is about the untrained routers and all tokens."""
    data = tiny_dataset.train
    model = build_model(tiny_model, tiny_dataset.features, seed=0)
    probabilities: list[Tensor] = []  # per layer of the modality `right`, (T, N)
    for layer in model.encoders["right"].layers:
        layer.router.register_forward_hook(
            lambda module, inputs, routing: probabilities.append(routing.clean_logits_TN.detach().softmax(1))
        )
    config = SelectionConfig(optimizer=OptimizerConfig(epochs=1, learning_rate=1e-3))
    (row,) = select(model, data, config, batch_size=len(data), seed=0)
    assert all(len(p_TN) == data.modalities["right"].lengths.sum() for p_TN in probabilities)
    local = [-(p_TN * p_TN.log()).sum(1).mean() for p_TN in probabilities]
    overall = [-(p_TN.mean(0) * p_TN.mean(0).log()).sum() for p_TN in probabilities]
    assert row["local_entropy/right"] == pytest.approx(sum(local).item() / 2, rel=1e-5)
    assert row["global_entropy/right"] == pytest.approx(sum(overall).item() / 2, rel=1e-5)


def test_dropout_views_compare_two_stochastic_passes(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    first_rows = []
    for views in ("same", "dropout"):
        model = build_model(dataclasses.replace(tiny_model, dropout=0.1), tiny_dataset.features, seed=0)
        config = SpecializationConfig(optimizer=OPTIMIZER, views=views)
        first_rows.append(specialize(model, tiny_dataset.train, config, batch_size=BATCH, seed=0)[0])
    same, dropout = first_rows
    assert dropout["dsc"] == same["dsc"]  # of the first pass, which draws the same
    assert dropout["rep"] > same["rep"]  # a second pass is less similar than the first is to itself


def test_selection_is_deterministic_and_without_noise(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    """Its first loss is that of the plain forward pass, in whichever order the batch comes."""
    data = tiny_dataset.train
    model = build_model(dataclasses.replace(tiny_model, dropout=0.5), tiny_dataset.features, seed=0)
    with torch.no_grad():
        z = [encoded.z_BD for encoded in model(data.batch(np.arange(len(data))))[0].values()]
    labels = torch.from_numpy(data.labels)
    config = SelectionConfig(optimizer=OptimizerConfig(epochs=1, learning_rate=1e-3))
    (row,) = select(model, data, config, batch_size=len(data), seed=0)
    assert row["suff"] == pytest.approx(sufficiency_loss(*z, labels, config.temperature).item(), rel=1e-5)
    assert row["min"] == pytest.approx(minimality_loss(*z, labels).item(), rel=1e-5)


@pytest.mark.parametrize("stage", ["specialize", "select"])
def test_training_lowers_the_loss(stage: str, tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    train, config, _ = STAGES[stage]
    config = dataclasses.replace(config, optimizer=dataclasses.replace(OPTIMIZER, epochs=15))
    model = build_model(tiny_model, tiny_dataset.features, seed=0)
    losses = [row["loss"] for row in train(model, tiny_dataset.train, config, batch_size=BATCH, seed=0)]
    assert sum(losses[-3:]) < sum(losses[:3])


def _poisoned(split: Split) -> Split:
    """The split with one value of `right` infinite."""
    right = split.modalities["right"]
    values = right.values.copy()
    values[0, 0] = np.inf
    return dataclasses.replace(split, modalities={**split.modalities, "right": Sequences(values, right.offsets)})


@every_stage
def test_a_diverging_loss_raises(name: str, tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    data = dataclasses.replace(tiny_dataset, train=_poisoned(tiny_dataset.train))
    with pytest.raises(DivergedError, match=r"nan at step \d of 9; lower the learning rate"):
        _run(name, tiny_model, data)


def test_a_run_that_blows_up_raises(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    optimizer = OptimizerConfig(epochs=3, learning_rate=1e30, gradient_clip=1e30)
    model = build_model(tiny_model, tiny_dataset.features, seed=0)
    config = SpecializationConfig(optimizer=optimizer)
    with pytest.raises(DivergedError):
        specialize(model, tiny_dataset.train, config, batch_size=BATCH, seed=0)


def test_an_epoch_visits_its_samples_once_and_in_a_new_order(
    tiny_model: ModelConfig, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    visited: list[list[int]] = []
    original = Split.batch

    def recorded(self: Split, indices: np.ndarray) -> dict[str, Any]:
        visited.append(indices.tolist())
        return original(self, indices)

    monkeypatch.setattr(Split, "batch", recorded)
    _run("specialize", tiny_model, tiny_dataset)
    starts = range(0, STEPS, STEPS_PER_EPOCH)
    epochs = [list(itertools.chain(*visited[start : start + STEPS_PER_EPOCH])) for start in starts]
    assert all(len(set(epoch)) == STEPS_PER_EPOCH * BATCH for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_learning_rate_warms_up_and_decays_to_zero(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    rates: list[float] = []

    class Rates(Recorder):
        def stepped(self, step: int, total: int, snapshot: Callable[[], Snapshot]) -> None:
            rates.append(snapshot()["solvers"][0]["schedule"]["_last_lr"][0])

    config = SpecializationConfig(
        optimizer=OptimizerConfig(epochs=4, learning_rate=1.0e-3, warmup=0.25)
    )  # 12 steps, 3 of them warm-up
    model = build_model(tiny_model, tiny_dataset.features, seed=0)
    specialize(model, tiny_dataset.train, config, batch_size=BATCH, seed=0, monitor=Rates())
    # Rates of steps 1, 2, …: 2/4 and 3/4 of the warm-up, the peak, then ½ (1 + cos(π n / 9)).
    assert rates[:3] == pytest.approx([0.5e-3, 0.75e-3, 1.0e-3])
    assert rates[3] == pytest.approx(0.5e-3 * (1 + math.cos(math.pi / 9)))
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == 0.0


@pytest.mark.parametrize("batch_size", [27, 64])
def test_a_batch_larger_than_the_split_is_an_error_not_an_untrained_model(
    batch_size: int, tiny_model: ModelConfig, tiny_dataset: Dataset
) -> None:
    model: S3Model = build_model(tiny_model, tiny_dataset.features, seed=0)
    with pytest.raises(AssertionError):
        specialize(model, tiny_dataset.train, SpecializationConfig(), batch_size=batch_size, seed=0)
