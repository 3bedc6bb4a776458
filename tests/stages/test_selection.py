"""Selection: it trains the routers alone, and what its variants ask of them."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recorder import identical
from s3ray.configuration import document
from s3ray.data.dataset import Dataset
from s3ray.model import ModelConfig, S3Model, build_model
from s3ray.objectives.selection import minimality_loss, sufficiency_loss
from s3ray.stages.selection import SELECTION, SelectionConfig
from s3ray.stages.stage import Context, Inputs, Outcome
from s3ray.stages.training import OptimizerConfig
from s3ray.stages.variants import VARIANTS, SelectionSettings

BATCH = 8  # of 26 samples: three steps an epoch
ONCE = OptimizerConfig(epochs=1, learning_rate=1e-2)
# Per variant of the paper that trains: its terms, each with its weight.
TERMS = {
    "suff+min": {"suff": "lambda_suff", "min": "lambda_min"},
    "suff": {"suff": "lambda_suff"},
    "min": {"min": "lambda_min"},
}
every_variant = pytest.mark.parametrize("variant", [name for name, v in VARIANTS.items() if v.config is not None])
each_of_the_paper = pytest.mark.parametrize("variant", TERMS)


def _config(variant: str, batch_size: int = BATCH, **settings: Any) -> SelectionConfig:
    configure = VARIANTS[variant].configure
    assert configure is not None
    loss = configure(SelectionSettings(**settings))
    return SelectionConfig(variant=variant, version=1, loss=loss, optimizer=ONCE, batch_size=batch_size, seed=0)


@pytest.fixture
def model(tiny_model: ModelConfig, tiny_dataset: Dataset) -> S3Model:
    """It stands for a specialised one."""
    return build_model(tiny_model, tiny_dataset.features, seed=0)


def _run(config: SelectionConfig, data: Dataset, model: S3Model) -> Outcome:
    return SELECTION.run(config, data, model, Context())


def _weights(outcome: Outcome) -> dict[str, Tensor]:
    assert outcome.weights is not None
    return dict(outcome.weights)


def test_variants_of_the_paper_and_their_order() -> None:
    assert VARIANTS["none"].config is None
    assert all(VARIANTS[name].config is not None for name in TERMS)
    # Lines of a table and curves of a panel stand in a given order, in colours of their own.
    assert sorted(variant.order for variant in VARIANTS.values()) == list(range(len(VARIANTS)))
    assert len({variant.color for variant in VARIANTS.values()}) == len(VARIANTS)
    assert len({variant.title for variant in VARIANTS.values()}) == len(VARIANTS)


@every_variant
def test_it_changes_routers_alone(variant: str, model: S3Model, tiny_dataset: Dataset) -> None:
    before = copy.deepcopy(model.state_dict())
    outcome = _run(_config(variant), tiny_dataset, model)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if ".router.project." in key or ".router.mix." in key}
    assert len(changed) == 8  # two encoders, two layers, two maps
    assert {key for key, p in model.named_parameters() if p.grad is not None} == changed
    assert _weights(outcome).keys() == changed


@every_variant
def test_it_is_restored_from_the_routers_and_the_specialised_model(
    variant: str, model: S3Model, tiny_dataset: Dataset
) -> None:
    parent = copy.deepcopy(model)
    config = _config(variant)
    weights = _weights(_run(config, tiny_dataset, model))
    assert SELECTION.restore is not None
    restored = SELECTION.restore(config, Inputs.of(tiny_dataset), parent, weights)
    assert identical(restored.state_dict(), model.state_dict())


@each_of_the_paper
def test_the_loss_is_the_weighted_sum_of_the_variants_own_terms(
    variant: str, model: S3Model, tiny_dataset: Dataset
) -> None:
    weights = {"lambda_suff": 2.0, "lambda_min": 3.0}
    for row in _run(_config(variant, **weights), tiny_dataset, model).rows:
        assert {"suff", "min"} & row.keys() == TERMS[variant].keys()
        expected = sum(weights[weight] * row[term] for term, weight in TERMS[variant].items())
        assert row["loss"] == pytest.approx(expected, rel=1e-5)


@each_of_the_paper
def test_what_a_variant_does_not_read_is_no_part_of_its_identity(variant: str) -> None:
    plain = document(_config(variant))
    for field in ("temperature", "lambda_suff", "lambda_min"):
        read = field in TERMS[variant].values() or (field == "temperature" and "suff" in TERMS[variant])
        assert (document(_config(variant, **{field: 0.7})) != plain) == read


@each_of_the_paper
def test_it_is_deterministic_and_without_noise(variant: str, tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    """Its first loss is that of the plain forward pass, in whichever order the batch comes."""
    data = tiny_dataset.train
    model = build_model(dataclasses.replace(tiny_model, dropout=0.5), tiny_dataset.features, seed=0)
    with torch.no_grad():
        z = [encoded.z_BD for encoded in model(data.batch(np.arange(len(data))))[0].values()]
    labels = torch.from_numpy(data.labels)
    (row,) = _run(_config(variant, batch_size=len(data), temperature=0.3), tiny_dataset, model).rows
    expected = {"suff": sufficiency_loss(z, labels, 0.3).item(), "min": minimality_loss(z, labels).item()}
    for term in TERMS[variant]:
        assert row[term] == pytest.approx(expected[term], rel=1e-5)


def test_noise_that_stays_on_is_of_the_seed(tiny_dataset: Dataset, tiny_model: ModelConfig) -> None:
    def run(noise: bool, seed: int = 0) -> dict[str, Tensor]:
        model = build_model(tiny_model, tiny_dataset.features, seed=0)
        config = dataclasses.replace(_config("suff+min"), noise=noise, seed=seed)
        return _weights(_run(config, tiny_dataset, model))

    assert identical(run(True), run(True))
    assert not identical(run(True), run(False))
    assert not identical(run(True), run(True, seed=1))


def test_entropy_metrics_against_softmax_of_the_routers(model: S3Model, tiny_dataset: Dataset) -> None:
    """One batch that is the whole split: the first row is about the untrained routers and all tokens."""
    data = tiny_dataset.train
    probabilities: list[Tensor] = []  # per layer of the modality `right`, (T, N)
    for layer in model.encoders["right"].layers:
        layer.router.register_forward_hook(
            lambda module, inputs, routing: probabilities.append(routing.clean_logits_TN.detach().softmax(1))
        )
    (row,) = _run(_config("suff+min", batch_size=len(data)), tiny_dataset, model).rows
    assert all(len(p_TN) == data.modalities["right"].lengths.sum() for p_TN in probabilities)
    local = [-(p_TN * p_TN.log()).sum(1).mean().item() for p_TN in probabilities]
    overall = [-(p_TN.mean(0) * p_TN.mean(0).log()).sum().item() for p_TN in probabilities]
    assert row["local_entropy/right"] == pytest.approx(sum(local) / 2, rel=1e-5)
    assert row["global_entropy/right"] == pytest.approx(sum(overall) / 2, rel=1e-5)


def test_expert_shares_against_the_experts_own_outputs(model: S3Model, tiny_dataset: Dataset) -> None:
    """In float64, of one batch that is the whole split: tokens' variances over features, summed over tokens."""
    data = tiny_dataset.train
    streams: dict[tuple[str, int], list[Tensor]] = {}  # what a layer's experts add, and what goes on from there
    for name, encoder in model.double().encoders.items():
        following = [*(layer.attention for layer in encoder.layers[1:]), encoder.norm]
        for number, (layer, then) in enumerate(zip(encoder.layers, following, strict=True)):
            seen = streams[name, number] = []
            layer.experts.register_forward_hook(lambda _, inputs, outputs, seen=seen: seen.append(outputs[0].detach()))
            then.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].detach()))
    (row,) = _run(_config("suff+min", batch_size=len(data)), tiny_dataset, model).rows
    for (name, number), (added_TD, stream_TD) in streams.items():
        assert len(added_TD) == data.modalities[name].lengths.sum()  # no padding among them
        variances = [sum(np.var(token) for token in x_TD.numpy()) for x_TD in (added_TD, stream_TD)]
        assert 0.0 < row[f"expert_share/{name}/{number}"] == pytest.approx(variances[0] / variances[1], rel=1e-9)
    assert sum(name.startswith("expert_share/") for name in row) == len(streams) == 4


@pytest.mark.parametrize(
    ("field", "function"), [("lambda_suff", "sufficiency_loss"), ("lambda_min", "minimality_loss")]
)
def test_a_term_of_weight_0_is_recorded_and_has_no_part_in_the_run(
    field: str, function: str, model: S3Model, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, twin = _config("suff+min", **{field: 0.0}), copy.deepcopy(model)
    first = _run(config, tiny_dataset, model)
    module = importlib.import_module("s3ray.stages.variants.suff_min")
    monkeypatch.setattr(module, function, lambda *_, **__: torch.tensor(math.nan))
    without = _run(config, tiny_dataset, twin)
    assert identical(_weights(first), _weights(without))
    term = field.removeprefix("lambda_")
    for row, other in zip(first.rows, without.rows, strict=True):
        assert math.isfinite(row.pop(term))
        assert math.isnan(other.pop(term))
        assert row == other


@every_variant
def test_without_any_weight_every_router_still_has_a_gradient(
    variant: str, model: S3Model, tiny_dataset: Dataset
) -> None:
    """Of 0: weight decay alone moves what no term trains."""
    _run(_config(variant, lambda_suff=0.0, lambda_min=0.0), tiny_dataset, model)
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert len(gradients) == 8
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_suff_and_min_alone_are_the_sum_without_the_others_weight(model: S3Model, tiny_dataset: Dataset) -> None:
    for variant, left_out in (("suff", "lambda_min"), ("min", "lambda_suff")):
        alone = _run(_config(variant), tiny_dataset, copy.deepcopy(model))
        within = _run(_config("suff+min", **{left_out: 0.0}), tiny_dataset, copy.deepcopy(model))
        assert identical(_weights(alone), _weights(within))
