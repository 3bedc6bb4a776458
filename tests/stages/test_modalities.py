"""Modalities: probes of each alone and of all but each, and the pairs that pruning leaves it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from s3ray.data.dataset import Dataset, Split
from s3ray.model import ModelConfig, Pruning, build_model
from s3ray.stages.encode import encode_splits
from s3ray.stages.modalities import MODALITIES, ModalitiesConfig
from s3ray.stages.probe import ClassifierConfig, probe
from s3ray.stages.stage import Context

CLASSIFIER = ClassifierConfig(inverse_regularization=1.0, max_iterations=1000, standardize=True)


def _with(data: Dataset, names: list[str]) -> Dataset:
    """The dataset seen through these modalities: `left`, `right`, and `noise`, which knows no class."""
    rng = np.random.default_rng(0)

    def split(split: Split) -> Split:
        left = split.modalities["left"]
        noise = dataclasses.replace(left, values=rng.normal(size=left.values.shape).astype(np.float32))
        every = {**split.modalities, "noise": noise}
        return dataclasses.replace(split, modalities={name: every[name] for name in names})

    return dataclasses.replace(data, **{name: split(s) for name, s in data.splits.items()})


@pytest.mark.parametrize("names", [["left"], ["left", "right"], ["left", "right", "noise"]])
def test_accuracies_are_those_of_probes_of_the_parts(
    names: list[str], tiny_model: ModelConfig, tiny_dataset: Dataset
) -> None:
    data = _with(tiny_dataset, names)
    model = build_model(tiny_model, data.features, 0)
    config = ModalitiesConfig(output="none", on_sphere=True, classifier=CLASSIFIER, pruning=None)
    rows = MODALITIES.run(config, data, model, Context()).rows
    assert [(row["split"], row["modality"]) for row in rows] == [(s, m) for s in ("valid", "test") for m in names]
    encoded = encode_splits(model, data, output="none", on_sphere=True)
    labels = {name: split.labels for name, split in data.splits.items()}

    def accuracy(split: str, *parts: str) -> float:
        width = tiny_model.width
        columns = np.concatenate([np.arange(width) + width * names.index(part) for part in parts])
        score = probe({name: e.z[:, columns] for name, e in encoded.items()}, labels, CLASSIFIER)
        return float(score.correct[split].mean())

    for row in rows:
        others = [name for name in names if name != row["modality"]]
        assert row["alone"] == accuracy(row["split"], row["modality"])
        assert row["without"] == accuracy(row["split"], *others) if others else math.isnan(row["without"])
        assert (row["samples"], row["preservation_ratio"], row["pairs_kept"]) == (len(labels[row["split"]]), 1.0, 1.0)


def test_pairs_are_kept_evenly_unless_ranked_among_all(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    model = build_model(tiny_model, tiny_dataset.features, 0)

    def kept(pruning: Pruning) -> dict[str, float]:
        config = ModalitiesConfig(output="none", on_sphere=True, classifier=CLASSIFIER, pruning=pruning)
        rows = MODALITIES.run(config, tiny_dataset, model, Context()).rows
        assert {row["preservation_ratio"] for row in rows} == {pruning.ratio}
        return {row["modality"]: row["pairs_kept"] for row in rows if row["split"] == "test"}

    even = kept(Pruning(ratio=0.5, pool=100))
    assert even["left"] == pytest.approx(0.5, abs=0.02) == even["right"]
    uneven = kept(Pruning(ratio=0.5, pool=100, scope="model"))
    tokens = {name: len(s.values) for name, s in tiny_dataset.test.modalities.items()}
    together = sum(uneven[name] * count for name, count in tokens.items()) / sum(tokens.values())
    assert together == pytest.approx(0.5, abs=0.02)
    assert abs(uneven["left"] - uneven["right"]) > 0.05
