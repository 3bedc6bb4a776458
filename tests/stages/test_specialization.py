"""Specialization: what it trains, and its loss."""

from __future__ import annotations

import dataclasses
import importlib
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recorder import identical
from s3ray.data.dataset import Dataset, Split
from s3ray.model import ModelConfig, S3Model, build_model
from s3ray.stages.specialization import (
    SPECIALIZATION,
    SpecializationConfig,
    SpecializationSettings,
    specialization_loss,
)
from s3ray.stages.stage import Context, Inputs, Outcome
from s3ray.stages.training import Objective, OptimizerConfig, train

BATCH = 8  # of 26 samples: three steps an epoch
ONCE = OptimizerConfig(epochs=1, learning_rate=1e-2)


def _config(model: ModelConfig, settings: SpecializationSettings) -> SpecializationConfig:
    return SpecializationConfig(model=model, training=settings, batch_size=BATCH, seed=0)


def _run(model: ModelConfig, data: Dataset, settings: SpecializationSettings) -> Outcome:
    return SPECIALIZATION.run(_config(model, settings), data, None, Context())


def _weights(outcome: Outcome) -> dict[str, Tensor]:
    assert outcome.weights is not None
    return dict(outcome.weights)


def test_every_parameter_of_a_new_model_is_trained(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    before = build_model(tiny_model, tiny_dataset.features, seed=0).state_dict()
    after = _weights(_run(tiny_model, tiny_dataset, SpecializationSettings(optimizer=ONCE)))
    assert before.keys() == after.keys()
    assert [key for key in before if torch.equal(before[key], after[key])] == []


def test_it_is_restored_from_its_weights(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    settings = SpecializationSettings(optimizer=ONCE)
    weights = _weights(_run(tiny_model, tiny_dataset, settings))
    assert SPECIALIZATION.restore is not None
    config, inputs = _config(tiny_model, settings), Inputs.of(tiny_dataset)
    model = SPECIALIZATION.restore(config, inputs, None, weights)
    assert isinstance(model, S3Model)
    assert identical(model.state_dict(), weights)
    # It is the model itself, whose every parameter the next stage may train.
    assert all(p.requires_grad for p in model.parameters())


def test_the_loss_is_the_weighted_sum_of_its_terms(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    settings = SpecializationSettings(
        optimizer=ONCE, lambda_rep=2, lambda_dsc=3, lambda_aux=5, lambda_imp=7, lambda_load=11,
        lambda_local=13, lambda_global=17,
    )  # fmt: skip
    for row in _run(tiny_model, tiny_dataset, settings).rows:
        auxiliary = 7 * row["imp"] + 11 * row["load"] + 13 * row["local"] + 17 * row["global"]
        assert row["loss"] == pytest.approx(2 * row["rep"] + 3 * row["dsc"] + 5 * auxiliary, rel=1e-5)
        # Summed over modalities, the monitored entropies are the entropy terms.
        assert row["local"] == pytest.approx(row["local_entropy/left"] + row["local_entropy/right"], rel=1e-5)
        assert row["global"] == pytest.approx(-row["global_entropy/left"] - row["global_entropy/right"], rel=1e-5)


def test_dropout_views_compare_two_stochastic_passes(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    dropping = dataclasses.replace(tiny_model, dropout=0.1)
    same = _run(dropping, tiny_dataset, SpecializationSettings(optimizer=ONCE, views="same")).rows[0]
    dropout = _run(dropping, tiny_dataset, SpecializationSettings(optimizer=ONCE, views="dropout")).rows[0]
    assert dropout["dsc"] == same["dsc"]  # of the first pass, which draws the same
    assert dropout["rep"] > same["rep"]  # a second pass is less similar than the first is to itself


def test_an_expert_that_died_does_not_end_the_run(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    """The routers' logits are so far apart that probabilities are exactly 0, in every layer and for every token."""
    model = build_model(tiny_model, tiny_dataset.features, seed=0)
    with torch.no_grad():
        for parameter in model.router_parameters().values():
            parameter.mul_(1e4)
    settings = SpecializationSettings(optimizer=dataclasses.replace(ONCE, epochs=3))
    objective = Objective(dict(model.named_parameters()), specialization_loss(settings))
    rows = train(model, [objective], tiny_dataset.train, settings.optimizer, batch_size=BATCH, seed=0)
    assert rows[0]["local"] < 1e-3  # one expert a token
    assert all(math.isfinite(number) for row in rows for number in row.values())


@pytest.mark.parametrize(
    ("field", "function"),
    [
        ("lambda_rep", "representation_loss"),
        ("lambda_dsc", "coherence_loss"),
        ("lambda_imp", "importance_loss"),
        ("lambda_load", "load_loss"),
        ("lambda_local", "local_entropy_loss"),
        ("lambda_global", "global_entropy_loss"),
    ],
)
def test_a_term_of_weight_0_is_recorded_and_has_no_part_in_the_run(
    field: str, function: str, tiny_model: ModelConfig, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SpecializationSettings(optimizer=ONCE), **{field: 0.0})
    first = _run(tiny_model, tiny_dataset, settings)
    module = importlib.import_module("s3ray.stages.specialization")
    monkeypatch.setattr(module, function, lambda *_: torch.tensor(math.nan))
    without = _run(tiny_model, tiny_dataset, settings)
    assert identical(_weights(first), _weights(without))
    term = field.removeprefix("lambda_")
    for row, other in zip(first.rows, without.rows, strict=True):
        assert math.isfinite(row.pop(term))
        assert math.isnan(other.pop(term))
        assert row == other


def test_without_any_weight_every_parameter_still_has_a_gradient(
    tiny_model: ModelConfig, tiny_dataset: Dataset
) -> None:
    """Of 0: weight decay alone moves what no term trains."""
    model = build_model(tiny_model, tiny_dataset.features, seed=0)
    settings = SpecializationSettings(optimizer=ONCE, lambda_rep=0.0, lambda_dsc=0.0, lambda_aux=0.0)
    objective = Objective(dict(model.named_parameters()), specialization_loss(settings))
    train(model, [objective], tiny_dataset.train, ONCE, batch_size=BATCH, seed=0)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def _with(data: Dataset, names: list[str]) -> Dataset:
    """The dataset seen through these modalities: `left`, `right`, and `left` squared."""

    def split(split: Split) -> Split:
        left = split.modalities["left"]
        squared = dataclasses.replace(left, values=np.square(left.values))
        every = {**split.modalities, "squared": squared}
        return dataclasses.replace(split, modalities={name: every[name] for name in names})

    return dataclasses.replace(data, **{name: split(s) for name, s in data.splits.items()})


@pytest.mark.parametrize("names", [["left"], ["left", "right", "squared"]])
def test_any_number_of_modalities_is_trained_together(
    names: list[str], tiny_model: ModelConfig, tiny_dataset: Dataset
) -> None:
    outcome = _run(tiny_model, _with(tiny_dataset, names), SpecializationSettings(optimizer=ONCE))
    for row in outcome.rows:
        assert row["local"] == pytest.approx(sum(row[f"local_entropy/{name}"] for name in names), rel=1e-5)
        assert row["global"] == pytest.approx(-sum(row[f"global_entropy/{name}"] for name in names), rel=1e-5)
    assert {key.split(".")[1] for key in _weights(outcome)} == set(names)


def test_of_one_modality_there_is_no_coherence(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    """Neither trained, whatever its weight, nor recorded; with no other weight either, gradients are 0 as ever."""
    alone = _with(tiny_dataset, ["left"])
    settings = SpecializationSettings(optimizer=ONCE, lambda_rep=2, lambda_aux=0.0)
    first = _run(tiny_model, alone, settings)
    assert all("dsc" not in row and row["loss"] == pytest.approx(2 * row["rep"], rel=1e-6) for row in first.rows)
    assert identical(_weights(first), _weights(_run(tiny_model, alone, dataclasses.replace(settings, lambda_dsc=9.0))))
    model = build_model(tiny_model, alone.features, seed=0)
    nothing = dataclasses.replace(settings, lambda_rep=0.0)
    objective = Objective(dict(model.named_parameters()), specialization_loss(nothing))
    train(model, [objective], alone.train, ONCE, batch_size=BATCH, seed=0)
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
