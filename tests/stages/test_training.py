"""Specialization and Selection in one process: what they train, determinism, resuming, divergence."""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from s3ray.config import ModelConfig, OptimizerConfig, SelectionConfig, SpecializationConfig
from torch import Tensor

from recorder import Recorder, StoppedError, identical
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
    terms = "suff, min" if name == "select" else "rep, dsc, imp, load, local, global"
    cause = "features of right are not finite: replace them in the data"
    with pytest.raises(DivergedError, match=rf"^the loss became nan at step \d of 9 \({terms}\); {cause}$"):
        _run(name, tiny_model, data)


def _scaled(split: Split, factor: float) -> Split:
    """The split with `right` times `factor`."""
    right = split.modalities["right"]
    return dataclasses.replace(
        split, modalities={**split.modalities, "right": Sequences(right.values * np.float32(factor), right.offsets)}
    )


def _diverges(model: ModelConfig, data: Dataset, train: Split | None = None, **settings: Any) -> str:
    """What the error says of a Specialization with these settings."""
    config = dataclasses.replace(STAGES["specialize"][1], **settings)
    trained = build_model(model, data.features, seed=0)
    with pytest.raises(DivergedError) as raised:
        specialize(trained, train or data.train, config, batch_size=BATCH, seed=0)
    return str(raised.value)


def test_a_run_that_blows_up_blames_the_learning_rate(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    said = _diverges(tiny_model, tiny_dataset, optimizer=dataclasses.replace(OPTIMIZER, learning_rate=1e30))
    assert "at step 2 of 9" in said
    assert said.endswith("; lower the learning rate or raise the temperature")
    said = _diverges(tiny_model, tiny_dataset, optimizer=dataclasses.replace(OPTIMIZER, learning_rate=1e39))
    assert "at step 2 of 9" in said
    assert said.endswith("; the step before made the parameters infinite: lower the learning rate")


def test_before_any_step_the_learning_rate_is_not_to_blame(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    said = _diverges(tiny_model, tiny_dataset, temperature=1e-45)
    assert said.startswith(
        "the loss became nan at step 1 of 9 (rep, dsc); no step was taken yet, so it is not the learning rate: "
    )
    # Finite, but too long for float32: the gradient's own step, not the one after.
    said = _diverges(tiny_model, tiny_dataset, temperature=1e-30)
    assert said.startswith("the gradient became inf at step 1 of 9 (gradient of dsc); no step was taken yet")
    said = _diverges(tiny_model, tiny_dataset, _scaled(tiny_dataset.train, 1e30))
    assert said.endswith("; features of right reach 5.7e+30: scale the data")


def test_a_gradient_that_is_not_finite_stops_its_own_step_and_names_its_term(
    tiny_model: ModelConfig, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("s3ray.stages.specialize")
    calls = itertools.count()

    def steep(statistics: Any) -> Tensor:
        """√ of 0 from the fourth step on (two modalities a step): 0, with an infinite slope."""
        return (0.0 * statistics.importance.sum() + (1.0 if next(calls) < 6 else 0.0)).sqrt()

    monkeypatch.setattr(module, "load_loss", steep)
    said = _diverges(tiny_model, tiny_dataset)
    assert said.startswith("the gradient became nan at step 4 of 9 (gradient of load); lower the learning rate")
    # With weight 0 it does no harm.
    config = dataclasses.replace(STAGES["specialize"][1], lambda_load=0.0)
    model = build_model(tiny_model, tiny_dataset.features, seed=0)
    assert len(specialize(model, tiny_dataset.train, config, batch_size=BATCH, seed=0)) == STEPS


def test_an_expert_that_died_does_not_end_the_run(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    """The routers' logits are so far apart that probabilities are exactly 0, in every layer and for every token."""
    model = build_model(tiny_model, tiny_dataset.features, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".router." in name:
                parameter.mul_(1e4)
    config = STAGES["specialize"][1]
    rows = specialize(model, tiny_dataset.train, config, batch_size=BATCH, seed=0)
    assert rows[0]["local"] < 1e-3  # one expert a token
    assert all(math.isfinite(number) for row in rows for number in row.values())


@pytest.mark.parametrize(
    ("stage", "field", "function"),
    [
        ("specialize", "lambda_rep", "representation_loss"),
        ("specialize", "lambda_dsc", "coherence_loss"),
        ("specialize", "lambda_imp", "importance_loss"),
        ("specialize", "lambda_load", "load_loss"),
        ("specialize", "lambda_local", "local_entropy_loss"),
        ("specialize", "lambda_global", "global_entropy_loss"),
        ("select", "lambda_suff", "sufficiency_loss"),
        ("select", "lambda_min", "minimality_loss"),
    ],
)
def test_a_term_of_weight_0_is_recorded_and_has_no_part_in_the_run(
    stage: str, field: str, function: str, tiny_model: ModelConfig, tiny_dataset: Dataset,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    train, config, _ = STAGES[stage]
    config = dataclasses.replace(config, optimizer=dataclasses.replace(OPTIMIZER, epochs=1), **{field: 0.0})

    def run() -> tuple[dict[str, Tensor], Metrics]:
        model = build_model(tiny_model, tiny_dataset.features, seed=0)
        return model.state_dict(), train(model, tiny_dataset.train, config, batch_size=BATCH, seed=0)

    state, metrics = run()
    monkeypatch.setattr(importlib.import_module(f"s3ray.stages.{stage}"), function, lambda *_: torch.tensor(math.nan))
    without, others = run()
    assert identical(state, without)
    term = field.removeprefix("lambda_")
    for row, other in zip(metrics, others, strict=True):
        assert math.isfinite(row.pop(term))
        assert math.isnan(other.pop(term))
        assert row == other


def test_without_any_weight_every_parameter_still_has_a_gradient(
    tiny_model: ModelConfig, tiny_dataset: Dataset
) -> None:
    """Of 0: weight decay alone moves what no term trains."""
    for stage, weights in (("specialize", ("rep", "dsc", "aux")), ("select", ("suff", "min"))):
        train, config, _ = STAGES[stage]
        once = dataclasses.replace(OPTIMIZER, epochs=1)
        config = dataclasses.replace(config, optimizer=once, **{f"lambda_{weight}": 0.0 for weight in weights})
        model = build_model(tiny_model, tiny_dataset.features, seed=0)
        train(model, tiny_dataset.train, config, batch_size=BATCH, seed=0)
        gradients = [p.grad for p in model.parameters() if p.requires_grad]
        assert all(gradient is not None and not gradient.any() for gradient in gradients)


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
