"""Encoding a split, pruned to a preservation ratio or not."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.data.padding import padded
from s3ray.errors import UserError
from s3ray.model import ModelConfig, Pruning, S3Model, Scope, build_model
from s3ray.stages.encode import Begun, EncodedSplit, encode_split, encode_splits

LAYERS, TOP_K = 2, 2
Vectors = NDArray[np.float32]


@pytest.fixture
def model(tiny_model: ModelConfig, tiny_dataset: Dataset) -> S3Model:
    return build_model(tiny_model, tiny_dataset.features, seed=0)


def _pruned(model: S3Model, data: Dataset, ratio: float, pool: int, split: str = "valid") -> EncodedSplit:
    pruning = Pruning(ratio=ratio, pool=pool)
    return encode_split(model, data.splits[split], output="none", on_sphere=True, pruning=pruning)


@pytest.mark.parametrize("on_sphere", [True, False])
def test_unpruned_is_the_plain_forward_pass_bit_for_bit(model: S3Model, tiny_dataset: Dataset, on_sphere: bool) -> None:
    split = tiny_dataset.test
    with torch.no_grad():
        z = [encoded.z_BD for encoded in model(split.batch(np.arange(len(split))))[0].values()]
    expected = torch.cat([F.normalize(x, dim=1) if on_sphere else x for x in z], dim=1)
    got = encode_split(model, split, output="none", on_sphere=on_sphere)
    assert np.array_equal(got.z, expected.numpy())
    assert got.z.dtype == np.float32
    assert got.pairs_kept == got.pairs_routed == LAYERS * TOP_K * sum(len(m.values) for m in split.modalities.values())


@pytest.mark.parametrize("on_sphere", [True, False])
def test_p_one_is_the_unpruned_model_bit_for_bit(model: S3Model, tiny_dataset: Dataset, on_sphere: bool) -> None:
    split = tiny_dataset.test  # nine samples: pools of 4, 4 and 1
    expected = []
    with torch.no_grad():
        for indices in (np.arange(4), np.arange(4, 8), np.arange(8, 9)):
            encoded = model(split.batch(indices))[0]
            z = [encoded[name].z_BD for name in ("left", "right")]
            expected.append(torch.cat([F.normalize(x, dim=1) if on_sphere else x for x in z], dim=1))
    got = encode_split(model, split, output="none", on_sphere=on_sphere, pruning=Pruning(ratio=1.0, pool=4))
    assert np.array_equal(got.z, torch.cat(expected).numpy())


def test_on_sphere_each_modality_has_unit_length(model: S3Model, tiny_dataset: Dataset) -> None:
    z = _pruned(model, tiny_dataset, 0.5, 4, "test").z
    assert z.shape == (9, 32)
    for half in (z[:, :16], z[:, 16:]):
        assert np.linalg.norm(half, axis=1) == pytest.approx(np.ones(9), abs=1e-6)


@pytest.mark.parametrize("tenths", range(11))
@pytest.mark.parametrize("pool", [4, 100])
def test_pairs_kept_is_the_ceiling_per_pool_layer_and_modality(
    model: S3Model, tiny_dataset: Dataset, tenths: int, pool: int
) -> None:
    split = tiny_dataset.valid
    kept = routed = 0
    for sequences in split.modalities.values():
        for start in range(0, len(split), pool):
            pairs = int(sequences.lengths[start : start + pool].sum()) * TOP_K
            kept += LAYERS * -(-pairs * tenths // 10)  # ⌈pairs · p⌉ in whole numbers
            routed += LAYERS * pairs
    encoded = _pruned(model, tiny_dataset, tenths / 10, pool)
    assert (encoded.pairs_kept, encoded.pairs_routed) == (kept, routed)


@pytest.mark.parametrize("scope", ["modality", "model"])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_pairs_of_several_layers_are_ranked_together(
    scope: Scope, ratio: float, model: S3Model, tiny_dataset: Dataset
) -> None:
    """What the first layers keep is what reaches the threshold of an unpruned pass; later ones see less of a stream."""
    split = tiny_dataset.valid
    with torch.no_grad():
        whole = model(split.batch(np.arange(len(split))))[0]
    weights = {name: [r.weights_TK.flatten() for r in encoded.routings] for name, encoded in whole.items()}
    together = {name: torch.cat(layers) for name, layers in weights.items()}
    if scope == "model":
        together = dict.fromkeys(together, torch.cat(list(together.values())))
    pruning = Pruning(ratio=ratio, pool=100, scope=scope)
    got = encode_split(model, split, output="none", on_sphere=True, pruning=pruning, tokens=True)
    for name, layers in weights.items():
        ranked = sorted(together[name].tolist(), reverse=True)
        threshold = ranked[math.ceil(round(ratio * len(ranked), 9)) - 1]
        kept_T = (layers[0] >= threshold).view(-1, TOP_K).sum(1) / TOP_K
        assert got.tokens[name][:, 0, 1].tolist() == kept_T.tolist()
    assert got.pairs_kept / got.pairs_routed == pytest.approx(ratio, abs=0.1)
    by_layer = _pruned(model, tiny_dataset, ratio, 100)
    assert not np.array_equal(got.z, by_layer.z)


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_where_all_or_nothing_is_kept_nothing_is_ranked(ratio: float, model: S3Model, tiny_dataset: Dataset) -> None:
    pruning = Pruning(ratio=ratio, pool=4, scope="model")
    got = encode_split(model, tiny_dataset.valid, output="none", on_sphere=True, pruning=pruning)
    assert np.array_equal(got.z, _pruned(model, tiny_dataset, ratio, 4).z)


def test_masked_padding_is_invisible_and_routed_padding_is_not(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    """Whatever stands behind the end of a sequence; routed, it is zeros, which are tokens as all others."""
    data = tiny_dataset.test
    z = {}
    for rest in (0.0, 7.0):
        modalities = {}
        for name, own in data.modalities.items():
            values = own.padded(9)
            values[np.arange(9) >= own.lengths[:, None]] = rest
            modalities[name] = Sequences.from_padded(values, own.lengths)
        z[rest] = _z(tiny_model, tiny_dataset, dataclasses.replace(data, modalities=modalities))
    masked = _z(tiny_model, tiny_dataset, data)
    assert all(np.array_equal(masked, other) for other in z.values())
    routes = dataclasses.replace(tiny_model, padding="routed")
    seen = padded(tiny_dataset)
    assert seen.features == tiny_dataset.features
    assert {len(s.values) for s in seen.test.modalities.values()} == {9 * 6}
    assert np.abs(_z(routes, tiny_dataset, seen.test) - masked).max() > 1e-3
    with pytest.raises(AssertionError, match="comes padded"):
        _z(routes, tiny_dataset, data)


def _z(config: ModelConfig, data: Dataset, split: Split) -> Vectors:
    return encode_split(build_model(config, data.features, seed=0), split, output="none", on_sphere=True).z


def test_the_pool_counts_only_where_something_is_pruned(model: S3Model, tiny_dataset: Dataset) -> None:
    """At p = 1 it changes nothing but rounding; below, it says which pairs compete."""
    small, large = (_pruned(model, tiny_dataset, 1.0, pool).z for pool in (2, 10))
    assert small == pytest.approx(large, abs=1e-6)
    small, large = (_pruned(model, tiny_dataset, 0.3, pool).z for pool in (2, 10))
    assert np.abs(small - large).max() > 1e-3


def test_all_splits_are_encoded_alike(model: S3Model, tiny_dataset: Dataset) -> None:
    encoded = encode_splits(model, tiny_dataset, output="none", on_sphere=True, pruning=Pruning(ratio=0.5, pool=4))
    assert list(encoded) == ["train", "valid", "test"]
    for name, split in encoded.items():
        alone = _pruned(model, tiny_dataset, 0.5, 4, name)
        assert np.array_equal(split.z, alone.z)
        assert (split.pairs_kept, split.pairs_routed) == (alone.pairs_kept, alone.pairs_routed)
        assert split.seconds > 0.0


def test_encoding_trains_nothing(model: S3Model, tiny_dataset: Dataset) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    encode_splits(model, tiny_dataset, output="none", on_sphere=True, pruning=Pruning(ratio=0.5, pool=256))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_dropout_is_off(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    model = build_model(dataclasses.replace(tiny_model, dropout=0.5), tiny_dataset.features, seed=0).train()
    first, second = (encode_split(model, tiny_dataset.test, output="none", on_sphere=True).z for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_is_a_share(ratio: float) -> None:
    with pytest.raises(UserError, match=r"is outside \[0, 1\]; choose a share"):
        Pruning(ratio=ratio, pool=4)


def test_a_pool_holds_samples() -> None:
    with pytest.raises(UserError, match="pool 0 must lie between 1 and"):
        Pruning(ratio=0.5, pool=0)


@pytest.mark.parametrize("room", [0, 2_000, 2**28], ids=["nothing fits", "some fits", "all fits"])
def test_what_was_begun_is_used_again_and_changes_no_bit(
    model: S3Model, tiny_dataset: Dataset, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prunings = [None, Pruning(ratio=0.5, pool=4), Pruning(ratio=0.5, pool=4, rule="random", seed=0)]
    prunings += [
        Pruning(ratio=0.0, pool=4),
        Pruning(ratio=0.5, pool=4, rule="contribution"),
        Pruning(ratio=0.5, pool=7),
    ]
    plain = [encode_splits(model, tiny_dataset, output="none", on_sphere=True, pruning=p) for p in prunings]
    begin, calls, begun = model.begin, [0], Begun(room)

    def counted(batch: Any) -> Any:
        calls[0] += 1
        return begin(batch)

    monkeypatch.setattr(model, "begin", counted)
    for pruning, expected in zip(prunings, plain, strict=True):
        got = encode_splits(model, tiny_dataset, output="none", on_sphere=True, pruning=pruning, begun=begun)
        for name in expected:
            assert np.array_equal(got[name].z, expected[name].z)
            assert (got[name].pairs_kept, got[name].pairs_routed) == (
                expected[name].pairs_kept,
                expected[name].pairs_routed,
            )
    batches = {at: sum(-(-len(s) // at) for s in tiny_dataset.splits.values()) for at in (256, 4, 7)}
    once, always = batches[256] + batches[4] + batches[7], batches[256] + 4 * batches[4] + batches[7]
    if room == 2_000:
        assert once < calls[0] < always
    else:
        assert calls[0] == (always if room == 0 else once)


@pytest.mark.parametrize("ratio", [1.0, 0.4, 0.0])
def test_tokens_tell_their_mean_weight_and_the_share_of_their_pairs_that_was_kept(
    model: S3Model, tiny_dataset: Dataset, ratio: float
) -> None:
    split = tiny_dataset.test  # nine samples: pools of 4, 4 and 1
    pruning = Pruning(ratio=ratio, pool=4)
    got = encode_split(model, split, output="none", on_sphere=True, pruning=pruning, tokens=True)
    assert set(got.tokens) == set(split.modalities)
    kept = 0
    for name, sequences in split.modalities.items():
        weights, shares = np.split(got.tokens[name], 2, axis=2)
        assert weights.shape == shares.shape == (len(sequences.values), LAYERS, 1)
        kept += round(float(shares.sum()) * TOP_K)
        for start in (0, 4, 8):
            with torch.no_grad():
                # Routing before the first layer's experts does not depend on pruning.
                routing = model(split.batch(np.arange(start, min(start + 4, 9))))[0][name].routings[0]
            here = slice(sequences.offsets[start], sequences.offsets[min(start + 4, 9)])
            assert weights[here, 0, 0] == pytest.approx(routing.weights_TK.mean(dim=1).numpy(), rel=1e-5)
            # The kept pairs are those of the largest weights, found here by Python's own sort.
            flat = routing.weights_TK.reshape(-1).tolist()
            largest = sorted(range(len(flat)), key=lambda pair: -flat[pair])[: math.ceil(round(ratio * len(flat), 9))]
            expected = np.bincount(np.array(largest, dtype=int) // TOP_K, minlength=len(flat) // TOP_K) / TOP_K
            assert np.array_equal(shares[here, 0, 0], expected)
    assert kept == got.pairs_kept
    assert encode_split(model, split, output="none", on_sphere=True, pruning=pruning).tokens == {}
