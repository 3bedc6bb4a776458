"""Sparsification: encoding at a preservation ratio, and the curve."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from s3ray.config import ModelConfig, ProbeConfig
from s3ray.data.dataset import Dataset
from s3ray.model import S3Model, build_model
from s3ray.stages import encode_split, probe, pruning_curve, s3_representation

LAYERS, TOP_K = 2, 2


@pytest.fixture
def model(tiny_model: ModelConfig, tiny_dataset: Dataset) -> S3Model:
    return build_model(tiny_model, tiny_dataset.features, seed=0)


@pytest.mark.parametrize("on_sphere", [True, False])
def test_p_one_is_the_unpruned_model_bit_for_bit(model: S3Model, tiny_dataset: Dataset, on_sphere: bool) -> None:
    split = tiny_dataset.test  # nine samples: batches of 4, 4 and 1
    expected = []
    with torch.no_grad():
        for indices in (np.arange(4), np.arange(4, 8), np.arange(8, 9)):
            encoded = model(split.batch(indices))[0]
            z = [encoded[name].z_BD for name in ("left", "right")]
            expected.append(torch.cat([F.normalize(x, dim=1) if on_sphere else x for x in z], dim=1))
    got = encode_split(s3_representation(model, on_sphere=on_sphere), split, batch_size=4, keep=1.0)
    assert np.array_equal(got.z, torch.cat(expected).numpy())
    assert got.z.dtype == np.float32


def test_on_sphere_each_modality_has_unit_length(model: S3Model, tiny_dataset: Dataset) -> None:
    z = encode_split(s3_representation(model), tiny_dataset.test, batch_size=4, keep=0.5).z
    assert z.shape == (9, 32)
    for half in (z[:, :16], z[:, 16:]):
        assert np.linalg.norm(half, axis=1) == pytest.approx(np.ones(9), abs=1e-6)


@pytest.mark.parametrize("tenths", range(11))
@pytest.mark.parametrize("batch_size", [4, 100])
def test_pairs_kept_is_the_ceiling_per_batch_layer_and_modality(
    model: S3Model, tiny_dataset: Dataset, tenths: int, batch_size: int
) -> None:
    split = tiny_dataset.valid
    kept = routed = 0
    for sequences in split.modalities.values():
        for start in range(0, len(split), batch_size):
            pairs = int(sequences.lengths[start : start + batch_size].sum()) * TOP_K
            kept += LAYERS * -(-pairs * tenths // 10)  # ⌈pairs · p⌉ in whole numbers
            routed += LAYERS * pairs
    encoded = encode_split(s3_representation(model), split, batch_size=batch_size, keep=tenths / 10)
    assert (encoded.pairs_kept, encoded.pairs_routed) == (kept, routed)


def test_the_pool_is_the_batch(model: S3Model, tiny_dataset: Dataset) -> None:
    """At p = 1 the batch size changes nothing but rounding; below, it defines which pairs compete."""
    split = tiny_dataset.valid
    small, large = (encode_split(s3_representation(model), split, batch_size=b, keep=1.0).z for b in (2, 10))
    assert small == pytest.approx(large, abs=1e-6)
    small, large = (encode_split(s3_representation(model), split, batch_size=b, keep=0.3).z for b in (2, 10))
    assert np.abs(small - large).max() > 1e-3


def test_curve_has_every_ratio_on_valid_and_test(model: S3Model, tiny_dataset: Dataset) -> None:
    points = pruning_curve(s3_representation(model), tiny_dataset, (1.0, 0.5, 0.1), ProbeConfig(), batch_size=4)
    assert [(p.preservation_ratio, p.split, p.samples) for p in points] == [
        (ratio, split, samples) for ratio in (1.0, 0.5, 0.1) for split, samples in (("valid", 10), ("test", 9))
    ]
    assert all(p.pairs_kept == p.pairs_routed for p in points[:2])
    assert all(p.pairs_kept < p.pairs_routed for p in points[2:])
    assert all(p.encode_seconds > 0 and p.probe_seconds > 0 for p in points)


def test_the_probe_is_fitted_on_train_pruned_alike(model: S3Model, tiny_dataset: Dataset) -> None:
    points = pruning_curve(s3_representation(model), tiny_dataset, (1.0, 0.2), ProbeConfig(), batch_size=4)
    features = {
        name: encode_split(s3_representation(model), split, batch_size=4, keep=0.2).z
        for name, split in tiny_dataset.splits.items()
    }
    labels = {name: split.labels for name, split in tiny_dataset.splits.items()}
    score = probe(features, labels, ProbeConfig())
    assert {p.split: p.accuracy for p in points if p.preservation_ratio == 0.2} == score.accuracy


def test_sparsification_trains_nothing(model: S3Model, tiny_dataset: Dataset) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruning_curve(s3_representation(model), tiny_dataset, (1.0, 0.5), ProbeConfig(), batch_size=256)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_dropout_is_off(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    model = build_model(dataclasses.replace(tiny_model, dropout=0.5), tiny_dataset.features, seed=0).train()
    first, second = (
        encode_split(s3_representation(model), tiny_dataset.test, batch_size=4, keep=1.0).z for _ in range(2)
    )
    assert np.array_equal(first, second)
