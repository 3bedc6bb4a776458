"""The floors of a cell: its model before training, and without any expert."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from s3ray.data.dataset import Dataset
from s3ray.model import ModelConfig, build_model
from s3ray.stages.probe import ProbeSettings, probed
from s3ray.stages.sparsification import SPARSIFICATION, SparsificationConfig, SparsificationSettings
from s3ray.stages.stage import Context, Outcome
from s3ray.stages.untrained import UNTRAINED, UntrainedConfig

CLASSIFIER = ProbeSettings(inverse_regularization=0.5).classifier


def _measured(outcome: Outcome) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.endswith("_seconds")} for row in outcome.rows]


@pytest.mark.parametrize("seed", [0, 1])
def test_untrained_is_the_probe_of_the_model_that_training_starts_from(
    tiny_model: ModelConfig, tiny_dataset: Dataset, seed: int
) -> None:
    config = UntrainedConfig(model=tiny_model, seed=seed, on_sphere=True, classifier=CLASSIFIER)
    outcome = UNTRAINED.run(config, tiny_dataset, None, Context())
    model = build_model(tiny_model, tiny_dataset.features, seed)
    assert _measured(outcome) == _measured(probed(model, tiny_dataset, CLASSIFIER, output="none", on_sphere=True))
    assert [row["preservation_ratio"] for row in outcome.rows] == [1.0, 1.0]
    assert outcome.weights is None


def test_without_experts_it_is_the_model_whose_experts_answer_nothing(
    tiny_model: ModelConfig, tiny_dataset: Dataset
) -> None:
    model = build_model(tiny_model, tiny_dataset.features, seed=0)
    pruning = SparsificationSettings(batch_size=4).no_expert
    config = SparsificationConfig(pruning=pruning, on_sphere=True, classifier=CLASSIFIER)
    rows = _measured(SPARSIFICATION.run(config, tiny_dataset, model, Context()))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("w2_NED", "b2_ND")):
                parameter.zero_()
    silent = _measured(probed(model, tiny_dataset, CLASSIFIER, output="none", on_sphere=True))
    for row, expected in zip(rows, silent, strict=True):
        assert (row["accuracy"], row["correct"]) == (expected["accuracy"], expected["correct"])
        assert (row["preservation_ratio"], row["pairs_kept"]) == (0.0, 0)
