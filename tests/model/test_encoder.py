"""Encoders: what a sample's representation may and may not depend on."""

from __future__ import annotations

import dataclasses
from typing import get_args

import pytest
import torch

from s3ray.model import Draws, Keep, Layout, ModelConfig, Pruning, Ragged, S3Model, Scope, Source, build_model
from s3ray.model.config import Pooling, RouterInput
from s3ray.model.draws import seed_of

FEATURES = {"left": 5, "right": 3}


def _batch(lengths: list[int], seed: int = 0) -> dict[str, Ragged]:
    """Random tokens of the given lengths; `right` has the lengths reversed."""
    source = torch.Generator().manual_seed(seed)
    return {
        name: Ragged(torch.randn(sum(lengths), width, generator=source), torch.tensor(order))
        for (name, width), order in zip(FEATURES.items(), (lengths, lengths[::-1]), strict=True)
    }


def _sample(batch: dict[str, Ragged], index: int) -> dict[str, Ragged]:
    alone = {}
    for name, ragged in batch.items():
        values = ragged.values_TF.split(ragged.lengths_B.tolist())[index]
        alone[name] = Ragged(values, ragged.lengths_B[index : index + 1])
    return alone


def _z(model: S3Model, batch: dict[str, Ragged], **kwargs: object) -> dict[str, torch.Tensor]:
    return {name: encoded.z_BD for name, encoded in model(batch, **kwargs)[0].items()}


def _keep(ratio: float) -> dict[str, Keep]:
    return {name: Keep(ratio) for name in FEATURES}


@pytest.mark.parametrize("positions", ["none", "sinusoidal"])
@pytest.mark.parametrize("lengths", [[4, 4, 4], [1, 7, 3, 2], [9, 1]])
def test_a_sample_does_not_depend_on_its_batch(tiny_model: ModelConfig, positions: str, lengths: list[int]) -> None:
    model = build_model(dataclasses.replace(tiny_model, positions=positions), FEATURES, seed=0)
    batch = _batch(lengths)
    together = _z(model, batch)
    for index in range(len(lengths)):
        for name, alone_BD in _z(model, _sample(batch, index)).items():
            torch.testing.assert_close(together[name][index], alone_BD[0], rtol=0, atol=1e-6)


def test_order_of_tokens_counts_only_with_positions(tiny_model: ModelConfig) -> None:
    batch = _batch([5, 5])
    turned = {
        name: Ragged(ragged.values_TF.view(2, 5, -1).flip(1).flatten(0, 1), ragged.lengths_B)
        for name, ragged in batch.items()
    }
    for positions, differs in (("none", False), ("sinusoidal", True)):
        model = build_model(dataclasses.replace(tiny_model, positions=positions), FEATURES, seed=0)
        gap = (_z(model, batch)["left"] - _z(model, turned)["left"]).abs().max().item()
        assert (gap > 1e-2) == differs
        assert differs or gap < 1e-5


@pytest.mark.parametrize("reads", get_args(RouterInput))
def test_the_router_reads_the_standardised_token_or_the_stream(reads: RouterInput, tiny_model: ModelConfig) -> None:
    encoder = build_model(dataclasses.replace(tiny_model, router_input=reads), FEATURES, seed=0).encoders["left"]
    routed = encoder.begin(_batch([3, 2])["left"])
    read_TD = {"standardized": routed.n_TD, "raw": routed.x_TD}[reads]
    assert torch.equal(routed.routing.clean_logits_TN, encoder.layers[0].router(read_TD, None).clean_logits_TN)
    assert not torch.equal(routed.n_TD, routed.x_TD)


@pytest.mark.parametrize("pooling", get_args(Pooling))
def test_z_is_of_the_normalised_tokens(pooling: Pooling, tiny_model: ModelConfig) -> None:
    """Of one token, mean, first and last are the same; of more they are not."""
    model = build_model(dataclasses.replace(tiny_model, pooling=pooling), FEATURES, seed=0)
    mean = build_model(tiny_model, FEATURES, seed=0)
    for length, same in ((1, True), (4, pooling == "mean")):
        batch = _batch([length])
        assert torch.equal(_z(model, batch)["left"], _z(mean, batch)["left"]) == same


def test_keep_one_equals_no_pruning_bit_for_bit(tiny_model: ModelConfig) -> None:
    model = build_model(tiny_model, FEATURES, seed=0)
    batch = _batch([3, 6, 2])
    unpruned, kept = _z(model, batch), _z(model, batch, keep=_keep(1.0))
    assert all(torch.equal(unpruned[name], kept[name]) for name in FEATURES)


def test_keep_zero_leaves_the_residual_path(tiny_model: ModelConfig) -> None:
    # Without its experts the network equals one whose experts answer nothing: W2 and b2 zero.
    model = build_model(tiny_model, FEATURES, seed=0)
    batch = _batch([3, 6, 2])
    pruned = _z(model, batch, keep=_keep(0.0))
    with torch.no_grad():
        for encoder in model.encoders.values():
            for layer in encoder.layers:
                layer.experts.w2_NED.zero_()
                layer.experts.b2_ND.zero_()
    silent = _z(model, batch)
    assert all(torch.equal(pruned[name], silent[name]) for name in FEATURES)


def test_without_experts_the_routers_do_not_count(tiny_model: ModelConfig) -> None:
    """So that one run at p = 0 stands below the curves of all branches, which differ in their routers."""
    model = build_model(tiny_model, FEATURES, seed=0)
    batch = _batch([3, 6, 2])
    before = _z(model, batch, keep=_keep(0.0))
    with torch.no_grad():
        for parameter in model.router_parameters().values():
            parameter.copy_(torch.randn_like(parameter))
    after = _z(model, batch, keep=_keep(0.0))
    assert all(torch.equal(before[name], after[name]) for name in FEATURES)


def test_added_variance_sums_over_samples_of_any_length_and_is_of_training_alone(tiny_model: ModelConfig) -> None:
    """A batch pads its samples; alone, none is padded."""
    model = build_model(tiny_model, FEATURES, seed=0).double()
    lengths = [3, 6, 2]
    batch = {name: ragged.to("cpu", torch.float64) for name, ragged in _batch(lengths).items()}
    together = model(batch)[0]
    alone = [model(_sample(batch, index))[0] for index in range(len(lengths))]
    for name in FEATURES:
        assert together[name].added_L2.shape == (2, 2)  # layers
        torch.testing.assert_close(together[name].added_L2, sum(one[name].added_L2 for one in alone))
    assert model.eval()(batch)[0]["left"].added_L2.shape == (0, 2)


def test_pair_counts_sum_over_layers(tiny_model: ModelConfig) -> None:
    # 11 tokens, top-2, two layers: 44 pairs; at p = 0.3 ⌈6.6⌉ = 7 of 22 per layer.
    encoded = build_model(tiny_model, FEATURES, seed=0)(_batch([3, 6, 2]), keep=_keep(0.3))[0]
    for one in encoded.values():
        assert (one.pairs_computed, one.pairs_routed) == (14, 44)
        assert one.statistics().importance.shape == (2, 4)  # layers, experts
        assert one.statistics().tokens.tolist() == [11.0, 11.0]


def test_draws_decide_noise_and_dropout(tiny_model: ModelConfig) -> None:
    model = build_model(dataclasses.replace(tiny_model, dropout=0.5), FEATURES, seed=0)
    batch = _batch([3, 6, 2])

    def draws(key: int) -> dict[str, Draws]:
        return {name: Draws(Source(seed_of(key, name)), 11, slice(0, 11)) for name in FEATURES}

    first, second = model(batch, draws(0), passes=2)
    again = model(batch, draws(0), passes=2)
    other = model(batch, draws(1))[0]
    for name in FEATURES:
        assert not torch.equal(first[name].z_BD, second[name].z_BD)
        assert torch.equal(first[name].z_BD, again[0][name].z_BD)
        assert torch.equal(second[name].z_BD, again[1][name].z_BD)
        assert not torch.equal(first[name].z_BD, other[name].z_BD)


def test_attention_against_a_loop_over_heads_and_tokens(tiny_model: ModelConfig) -> None:
    """softmax(q·k / √c) v over a sample's own tokens, head by head."""
    attention = build_model(tiny_model, FEATURES, seed=0).double().encoders["left"].layers[0].attention
    lengths = [2, 3]
    x_TD = torch.randn(5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    got = attention(x_TD, Layout(torch.tensor(lengths)))
    q_TD, k_TD, v_TD = (attention.norm(x_TD) @ attention.qkv.weight.T).split(16, dim=1)
    expected = torch.zeros_like(x_TD)
    for tokens in ([0, 1], [2, 3, 4]):
        for head in (slice(0, 8), slice(8, 16)):
            for t in tokens:
                scores = torch.stack([q_TD[t, head] @ k_TD[s, head] / 8**0.5 for s in tokens])
                for weight, s in zip(scores.softmax(0), tokens, strict=True):
                    expected[t, head] += weight * v_TD[s, head]
    torch.testing.assert_close(got, expected)


def test_build_model_depends_on_the_seed_alone(tiny_model: ModelConfig) -> None:
    before = torch.get_rng_state()
    first = build_model(tiny_model, FEATURES, seed=0).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    second = build_model(tiny_model, FEATURES, seed=0).state_dict()
    other = build_model(tiny_model, FEATURES, seed=1).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["encoders.left.project.weight"], other["encoders.left.project.weight"])


@pytest.mark.parametrize("features", [FEATURES, {"router": 5, "experts": 3}])
def test_router_parameters_are_the_routers_whatever_the_modalities_are_called(
    tiny_model: ModelConfig, features: dict[str, int]
) -> None:
    parameters = build_model(tiny_model, features, seed=0).router_parameters()
    # Two encoders, two layers, two maps each: d·N + N² = 16·4 + 4² = 80 per router.
    assert len(parameters) == 8
    assert sum(p.numel() for p in parameters.values()) == 4 * 80


@pytest.mark.parametrize("pooling", get_args(Pooling))
@pytest.mark.parametrize("missing", [(), (1,), (0, 2, 3), (0, 1, 2, 3)])
def test_samples_that_lack_a_modality_are_not_there(
    tiny_model: ModelConfig, pooling: Pooling, missing: tuple[int, ...]
) -> None:
    """In double precision the others' z, statistics and pairs equal those of a batch without them."""
    model = build_model(dataclasses.replace(tiny_model, pooling=pooling), FEATURES, seed=0).double()
    whole = {name: ragged.to(torch.device("cpu"), torch.float64) for name, ragged in _batch([3, 1, 4, 2]).items()}
    lengths = whole["left"].lengths_B
    has_B = torch.tensor([i not in missing for i in range(4)])
    has_T = has_B.repeat_interleave(lengths)
    values = whole["left"].values_TF[has_T]
    batch = {"left": Ragged(values, torch.where(has_B, lengths, 0)), "right": whole["right"]}
    got = model(batch)[0]
    assert not got["left"].z_BD[~has_B].any()
    assert torch.equal(got["right"].z_BD, model(whole)[0]["right"].z_BD)
    if has_B.any():
        rest = model({"left": Ragged(values, lengths[has_B]), "right": whole["right"]})[0]["left"]
        assert torch.equal(got["left"].z_BD[has_B], rest.z_BD)
        assert torch.equal(got["left"].statistics().pack(), rest.statistics().pack())
        assert got["left"].pairs_routed == rest.pairs_routed
        pruned = model(batch, keep=_keep(0.5))[0]["left"]
        assert (
            pruned.pairs_computed
            == model({"left": Ragged(values, lengths[has_B]), "right": whole["right"]}, keep=_keep(0.5))[0][
                "left"
            ].pairs_computed
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scope", get_args(Scope))
def test_where_nobody_has_a_modality_every_parameter_still_has_a_gradient(
    tiny_model: ModelConfig, dtype: torch.dtype, scope: Scope
) -> None:
    model = build_model(tiny_model, FEATURES, seed=0).to(dtype)
    batch = {name: ragged.to(torch.device("cpu"), dtype) for name, ragged in _batch([2, 3]).items()}
    batch["left"] = Ragged(batch["left"].values_TF[:0], torch.zeros(2, dtype=torch.int64))
    z = model.train()(batch, {name: Draws(Source(0), int(r.lengths_B.sum()), slice(None)) for name, r in batch.items()})
    torch.stack([encoded.z_BD.square().sum() for encoded in z[0].values()]).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients.values())
    assert not any(g.any() for name, g in gradients.items() if g is not None and ".left." in name)
    pruned = model.eval().encode(batch, pruning=Pruning(ratio=0.5, pool=2, scope=scope))
    assert not pruned.joined(on_sphere=True)[:, : tiny_model.width].any()
    assert len(pruned.tokens()["left"]) == 0
