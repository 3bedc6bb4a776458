"""Sparsification: a point of the curve per ratio, and the probe at p = 1."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from s3ray.data.dataset import Dataset
from s3ray.errors import UserError
from s3ray.model import Control, ModelConfig, Pruning, S3Model, build_model
from s3ray.model.parameters import ParameterCount
from s3ray.stages.encode import encode_splits
from s3ray.stages.probe import PROBE, CurvePoint, ProbeConfig, ProbeSettings, probe, probed
from s3ray.stages.sparsification import SPARSIFICATION, SparsificationConfig, SparsificationSettings
from s3ray.stages.stage import Context

CLASSIFIER = ProbeSettings(inverse_regularization=0.5).classifier


@pytest.fixture
def model(tiny_model: ModelConfig, tiny_dataset: Dataset) -> S3Model:
    return build_model(tiny_model, tiny_dataset.features, seed=0)


def _points(model: S3Model, data: Dataset, ratio: float | None) -> list[CurvePoint]:
    pruning = None if ratio is None else Pruning(ratio=ratio, pool=4)
    rows = probed(model, data, CLASSIFIER, output="none", on_sphere=True, pruning=pruning).rows
    return [CurvePoint(**row) for row in rows]


def _untimed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.endswith("_seconds")}


@pytest.mark.parametrize("ratio", [None, 1.0, 0.5, 0.1, 0.0])
def test_a_point_on_valid_and_test(model: S3Model, tiny_dataset: Dataset, ratio: float | None) -> None:
    points = _points(model, tiny_dataset, ratio)
    written = 1.0 if ratio is None else ratio
    assert [(p.preservation_ratio, p.split, p.samples) for p in points] == [
        (written, "valid", 10),
        (written, "test", 9),
    ]
    for point in points:
        assert (point.pairs_kept < point.pairs_routed) == (written < 1.0)
        assert point.encode_seconds > 0
        assert point.probe_seconds > 0
        assert point.probe_converged


def test_active_parameters_are_those_of_the_pairs_that_were_kept(model: S3Model, tiny_dataset: Dataset) -> None:
    count = ParameterCount.of(model)
    for point in _points(model, tiny_dataset, 0.3):
        share = point.pairs_kept / point.pairs_routed  # a little above 0.3, being rounded up
        assert point.active_parameters == count.active(share, "all_layers")
        assert point.active_parameters_paper == count.active(share, "paper")


def test_the_probe_is_fitted_on_train_pruned_alike(model: S3Model, tiny_dataset: Dataset) -> None:
    pruning = Pruning(ratio=0.2, pool=4)
    encoded = encode_splits(model, tiny_dataset, output="none", on_sphere=True, pruning=pruning)
    labels = {name: split.labels for name, split in tiny_dataset.splits.items()}
    score = probe({name: e.z for name, e in encoded.items()}, labels, CLASSIFIER)
    for point in _points(model, tiny_dataset, 0.2):
        correct = score.correct[point.split]
        assert point.accuracy == correct.mean()
        assert np.array_equal(np.unpackbits(np.frombuffer(point.correct, np.uint8), count=point.samples), correct)


@pytest.mark.parametrize("on_sphere", [True, False])
def test_the_stage_is_a_point_of_its_ratio(model: S3Model, tiny_dataset: Dataset, on_sphere: bool) -> None:
    pruning = Pruning(ratio=0.4, pool=4)
    config = SparsificationConfig(pruning=pruning, on_sphere=on_sphere, classifier=CLASSIFIER)
    outcome = SPARSIFICATION.run(config, tiny_dataset, model, Context())
    expected = probed(model, tiny_dataset, CLASSIFIER, output="none", on_sphere=on_sphere, pruning=pruning)
    assert [_untimed(row) for row in outcome.rows] == [_untimed(row) for row in expected.rows]
    assert outcome.weights is None


@pytest.mark.parametrize("on_sphere", [True, False])
def test_the_probe_is_the_point_at_p_one(model: S3Model, tiny_dataset: Dataset, on_sphere: bool) -> None:
    config = ProbeConfig(output="none", on_sphere=on_sphere, classifier=CLASSIFIER)
    outcome = PROBE.run(config, tiny_dataset, model, Context())
    expected = probed(model, tiny_dataset, CLASSIFIER, output="none", on_sphere=on_sphere)
    assert [_untimed(row) for row in outcome.rows] == [_untimed(row) for row in expected.rows]
    assert [row["preservation_ratio"] for row in outcome.rows] == [1.0, 1.0]
    assert outcome.weights is None


def test_measuring_trains_nothing(model: S3Model, tiny_dataset: Dataset) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _points(model, tiny_dataset, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_settings_give_a_pruning_per_ratio_below_one() -> None:
    settings = SparsificationSettings(ratios=(1.0, 0.5, 0.1), batch_size=64)
    assert settings.prunings == [Pruning(ratio=0.5, pool=64), Pruning(ratio=0.1, pool=64)]
    assert len(SparsificationSettings().prunings) == 9


@pytest.mark.parametrize("controls", [(), ("smallest",), ("random", "contribution")])
def test_a_control_prunes_at_the_curves_ratios(controls: tuple[Control, ...]) -> None:
    settings = SparsificationSettings(ratios=(1.0, 0.5, 0.1), batch_size=64, controls=controls)
    assert settings.controlled(3) == {
        rule: [Pruning(ratio=ratio, pool=64, rule=rule, seed=3 if rule == "random" else None) for ratio in (0.5, 0.1)]
        for rule in controls
    }
    assert settings.no_expert == Pruning(ratio=0.0, pool=64)
    assert SparsificationSettings().controls == ("random",)


def test_a_control_stands_once() -> None:
    with pytest.raises(UserError) as error:
        SparsificationSettings(controls=("random", "smallest", "random"))
    assert str(error.value) == "controls ['random', 'smallest', 'random'] has random more than once; give each once"


def test_p_0_is_no_ratio_of_a_curve() -> None:
    with pytest.raises(UserError) as error:
        SparsificationSettings(ratios=(1.0, 0.5, 0.0))
    assert str(error.value) == (
        "ratios [1.0, 0.5, 0.0] must lie in (0, 1], and hold 1.0 and at least one smaller; try 1.0 … 0.1 "
        "(0, no expert at all, is measured beside them)"
    )


@pytest.mark.parametrize("ratios", [(), (1.0,), (0.5, 0.1), (1.0, 1.5), (1.0, 0.5, 0.5), (1.0, 0.5, 0.0)])
def test_ratios_that_are_no_curve_are_refused(ratios: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"^ratios"):
        SparsificationSettings(ratios=ratios)
