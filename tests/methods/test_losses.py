"""Every method's loss against float64 loops written from its formula, and which parameters a loss trains."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from prior_methods import configured
from s3ray.data.dataset import Dataset
from s3ray.methods import METHODS
from s3ray.methods.factorcl import Critic, FactorCL
from s3ray.methods.method import build
from s3ray.methods.prior import PriorModel
from s3ray.model import Draws, Encoded, ModelConfig, Pruning, Source
from s3ray.model.draws import generator, seed_of
from s3ray.stages.stage import Inputs
from s3ray.stages.training import Batch, OptimizerConfig

SHAPE = ModelConfig(width=8, layers=1, granularity=2, ffn_multiple=2, heads=2)
VALUES = {
    "temperature": 0.3,
    "critic_width": 6,
    "orthogonality": 0.7,
    "private_weight": 1.9,
    "alignment": 0.6,
    "concentration": 50.0,
}
INPUTS = Inputs({"left": 5, "right": 3}, 3)  # of tiny_dataset
SAMPLES = 6
LABELS = torch.arange(SAMPLES) % 3  # of tiny_dataset

Vectors = list[list[float]]
every_method = pytest.mark.parametrize("method", METHODS)


def _model(method: str, seed: int = 0, inputs: Inputs = INPUTS) -> Any:
    optimizer = OptimizerConfig(epochs=1, learning_rate=1e-3)
    config = configured(method, SHAPE, optimizer, VALUES, batch_size=SAMPLES, seed=seed)
    return build(METHODS[method].model, config, inputs).double()


def _batch(data: Dataset) -> Batch:
    shard = {
        name: ragged.to(torch.device("cpu"), torch.float64)
        for name, ragged in data.train.batch(torch.arange(SAMPLES).numpy()).items()
    }
    draws = {
        name: Draws(Source(seed_of("draws", name)), len(x.values_TF), slice(0, len(x.values_TF)))
        for name, x in shard.items()
    }
    return Batch(shard, torch.from_numpy(data.train.labels[:SAMPLES]), draws)


def _z(count: int, modalities: int = 2) -> list[Tensor]:
    """The modalities' z for each of `count` encodings, one after another."""
    source = torch.Generator().manual_seed(0)
    number = modalities * count
    return [torch.randn(SAMPLES, SHAPE.width, dtype=torch.float64, generator=source) for _ in range(number)]


def _loss(
    model: PriorModel, data: Dataset, z: Sequence[Tensor], loss: str = "loss", modalities: int = 2
) -> tuple[float, dict[str, float]]:
    """A method's loss if its encoders say `z`."""

    def forward(views: Any, draws: Any, **_: Any) -> list[dict[str, Encoded]]:
        encodings = [z[start : start + modalities] for start in range(0, len(z), modalities)]
        return [
            {str(m): Encoded(z_BD, (), torch.empty(0, 2), 0, 0) for m, z_BD in enumerate(encoding)}
            for encoding in encodings
        ]

    value, terms = getattr(model, loss)(forward, _batch(data))
    return value.item(), {name: term.item() for name, term in terms.items()}


def _cos(a: list[float], b: list[float]) -> float:
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths


def _info_nce(a: Vectors, b: Vectors) -> float:
    """½ of both directions of -E_i log( exp(cos(a_i, b_i)/τ) / Σ_j exp(cos(a_i, b_j)/τ) )."""
    total = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(len(x)):
            exponentials = [math.exp(_cos(x[i], other) / VALUES["temperature"]) for other in y]
            total -= math.log(exponentials[i] / sum(exponentials)) / len(x)
    return total / 2


def _sup_con(a: Vectors, b: Vectors) -> float:
    total = 0.0
    for i in range(len(a)):
        exponentials = [math.exp(_cos(a[i], other) / VALUES["temperature"]) for other in b]
        positives = [s for s in range(len(b)) if LABELS[s] == LABELS[i]]
        total -= sum(math.log(exponentials[s] / sum(exponentials)) for s in positives) / len(positives)
    return total / len(a)


def _mean_cosine(a: Vectors, b: Vectors) -> float:
    return sum(_cos(x, y) for x, y in zip(a, b, strict=True)) / len(a)


def _positive_cosine(a: Vectors, b: Vectors) -> float:
    return sum(max(0.0, _cos(x, y)) for x, y in zip(a, b, strict=True)) / len(a)


def _frobenius(a: Vectors, b: Vectors) -> float:
    """‖AᵀB‖_F of unit rows, which is also sqrt( Σ_ij cos(a_i, a_j) cos(b_i, b_j) )."""
    pairs = itertools.product(range(len(a)), repeat=2)
    return math.sqrt(sum(_cos(a[i], a[j]) * _cos(b[i], b[j]) for i, j in pairs))


def _nce(scores: Vectors) -> float:
    count = len(scores)
    ratios = [math.exp(row[i]) / (sum(map(math.exp, row)) / count) for i, row in enumerate(scores)]
    return sum(map(math.log, ratios)) / count


def _club(scores: Vectors) -> float:
    count = len(scores)
    return sum(scores[i][i] for i in range(count)) / count - sum(map(sum, scores)) / count**2


def test_clip(tiny_dataset: Dataset) -> None:
    z1, z2 = _z(1)
    value, _ = _loss(_model("clip"), tiny_dataset, (z1, z2))
    assert value == pytest.approx(_info_nce(z1.tolist(), z2.tolist()), rel=1e-12)


def test_supcon(tiny_dataset: Dataset) -> None:
    z = _z(1)
    value, _ = _loss(_model("supcon"), tiny_dataset, z)
    pairs = itertools.product([z[0].tolist(), z[1].tolist()], repeat=2)
    assert value == pytest.approx(sum(_sup_con(a, b) for a, b in pairs) / 4, rel=1e-12)


def test_cross_entropy(tiny_dataset: Dataset) -> None:
    model, (z1, z2) = _model("cross_entropy"), _z(1)
    value, _ = _loss(model, tiny_dataset, (z1, z2))
    weight, bias = model.classifier.weight.tolist(), model.classifier.bias.tolist()
    expected = 0.0
    for x, label in zip(torch.cat([z1, z2], dim=1).tolist(), LABELS.tolist(), strict=True):
        scores = [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]
        expected -= math.log(math.exp(scores[label]) / sum(map(math.exp, scores))) / SAMPLES
    assert value == pytest.approx(expected, rel=1e-12)


def test_focal(tiny_dataset: Dataset) -> None:
    z = _z(2)
    value, terms = _loss(_model("focal"), tiny_dataset, z)
    # The first half of a z is shared, the second private.
    s1, s2, s1_view, s2_view = (x[:, :4].tolist() for x in z)
    p1, p2, p1_view, p2_view = (x[:, 4:].tolist() for x in z)
    shared = _info_nce(s1, s2) + _info_nce(s1_view, s2_view)
    private = _info_nce(p1, p1_view) + _info_nce(p2, p2_view)
    orthogonality = _positive_cosine(s1, p1) + _positive_cosine(s2, p2) + _positive_cosine(p1, p2)
    orthogonality += _positive_cosine(s1_view, p1_view) + _positive_cosine(s2_view, p2_view)
    orthogonality += _positive_cosine(p1_view, p2_view)
    expected = {"shared": shared, "private": private, "orthogonality": orthogonality}
    assert terms == pytest.approx(expected, rel=1e-12)
    assert value == pytest.approx(shared + 1.9 * private + 0.7 * orthogonality, rel=1e-12)


def test_clip_and_focal_take_every_pair_of_three_modalities(tiny_dataset: Dataset) -> None:
    z = _z(1, modalities=3)
    value, _ = _loss(_model("clip"), tiny_dataset, z, modalities=3)
    pairs = list(itertools.combinations([x.tolist() for x in z], 2))
    assert value == pytest.approx(sum(_info_nce(a, b) for a, b in pairs) / 3, rel=1e-12)

    z = _z(2, modalities=3)
    _, terms = _loss(_model("focal"), tiny_dataset, z, modalities=3)
    shared, private = ([x.tolist() for x in half] for half in zip(*(x.chunk(2, dim=1) for x in z), strict=True))
    within = [*itertools.combinations(range(3), 2), *itertools.combinations(range(3, 6), 2)]  # each view by itself
    orthogonality = sum(_positive_cosine(s, p) for s, p in zip(shared, private, strict=True))
    orthogonality += sum(_positive_cosine(private[a], private[b]) for a, b in within)
    expected = {
        "shared": sum(_info_nce(shared[a], shared[b]) for a, b in within),
        "private": sum(_info_nce(private[m], private[m + 3]) for m in range(3)),
        "orthogonality": orthogonality,
    }
    assert terms == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("modalities", [1, 3])
def test_supcon_on_other_numbers_of_modalities(modalities: int, tiny_dataset: Dataset) -> None:
    z = _z(1, modalities)
    value, _ = _loss(_model("supcon"), tiny_dataset, z, modalities=modalities)
    pairs = itertools.product([x.tolist() for x in z], repeat=2)
    assert value == pytest.approx(sum(_sup_con(a, b) for a, b in pairs) / modalities**2, rel=1e-12)


def test_a_critic_scores_concatenations() -> None:
    critic = Critic(3, 5).double()
    x, y = (torch.randn(4, 3, dtype=torch.float64, generator=generator(name)) for name in "xy")
    scores = critic(x, y)
    for i, j in itertools.product(range(4), repeat=2):
        expected = critic.rest(critic.enter(torch.cat([x[i], y[j]])))
        assert scores[i, j].item() == pytest.approx(expected.item(), rel=1e-12)


def _scores(model: FactorCL, term: str, x: Sequence[Tensor], y: Sequence[Tensor]) -> Vectors:
    """f of every pair: the term's critic on [head(x_i), head(x_i'), head(y_j), head(y_j')]."""
    parts = model.terms[term]
    left, right, critic = parts.heads[0], parts.heads[-1], parts.critic
    result = []
    for i in range(SAMPLES):
        row = []
        for j in range(SAMPLES):
            inputs = torch.cat([*(left(part[i]) for part in x), *(right(part[j]) for part in y)])
            row.append(critic.rest(critic.enter(inputs)).item())
        result.append(row)
    return result


def test_factorcl(tiny_dataset: Dataset) -> None:
    model, (x1, x2, view1, view2) = _model("factorcl"), _z(2)
    z = (x1, x2, view1, view2)
    lower = {
        "nce": _nce(_scores(model, "nce", [x1], [x2])),
        "nce_first": _nce(_scores(model, "nce_first", [x1], [view1])),
        "nce_second": _nce(_scores(model, "nce_second", [x2], [view2])),
        "nce_given_views": _nce(_scores(model, "nce_given_views", [x1, view1], [x2, view2])),
    }
    club = _scores(model, "club", [x1], [x2])
    club_given_views = _scores(model, "club_given_views", [x1, view1], [x2, view2])
    upper = {"club": _club(club), "club_given_views": _club(club_given_views)}
    value, terms = _loss(model, tiny_dataset, z)
    assert terms == pytest.approx(lower | upper, rel=1e-9, abs=1e-12)
    assert value == pytest.approx(sum(upper.values()) - sum(lower.values()), rel=1e-9, abs=1e-12)

    value, terms = _loss(model, tiny_dataset, z, "critic_loss")
    expected = {"nce_of_club": _nce(club), "nce_of_club_given_views": _nce(club_given_views)}
    assert terms == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert value == pytest.approx(-sum(expected.values()), rel=1e-9, abs=1e-12)


def test_factorcl_has_a_head_per_modality_and_term() -> None:
    model = _model("factorcl")
    heads = [head for term in model.terms.values() for head in term.heads]
    # Four terms between the modalities with two heads, two terms within one with one.
    assert len(heads) == len(set(heads)) == 10
    assert [[type(layer).__name__ for layer in head] for head in heads] == [["Linear", "ReLU", "Linear"]] * 10


@pytest.fixture
def known_noise(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Noise that a loop can follow: the k-th mean z is shifted by k + 1 in its first feature. Its κ's."""
    concentrations: list[float] = []

    def shifted(mean_BD: Tensor, concentration: float, source: Source) -> Tensor:
        concentrations.append(concentration)
        shift = torch.zeros_like(mean_BD)
        shift[:, 0] = len(concentrations)
        return mean_BD + shift

    monkeypatch.setattr("s3ray.methods.shared_private.sample_vmf", shifted)
    return concentrations


def _noisy(z: Tensor, k: int) -> Vectors:
    return [[row[0] + k + 1, *row[1:]] for row in z.tolist()]


def test_disentangledssl_shared(tiny_dataset: Dataset, known_noise: list[float]) -> None:
    z1, z2 = _z(1)
    value, terms = _loss(_model("disentangledssl"), tiny_dataset, (z1, z2), "shared_loss")
    coherence = _info_nce(_noisy(z1, 0), _noisy(z2, 1))
    alignment = _mean_cosine(z1.tolist(), z2.tolist())  # of the means, without noise
    assert terms == pytest.approx({"coherence": coherence, "alignment": alignment}, rel=1e-12)
    assert value == pytest.approx(coherence - 0.6 * alignment, rel=1e-12)
    assert known_noise == [50.0, 50.0]


def _joint(private: Tensor, shared_of_other: Tensor) -> Vectors:
    return torch.cat([private, shared_of_other], dim=1).tolist()


def _specific(z: Sequence[Tensor]) -> float:
    s1, s2, s1_view, s2_view, p1, p2, p1_view, p2_view = z
    first = _info_nce(_joint(p1, s2), _joint(p1_view, s2_view))
    return first + _info_nce(_joint(p2, s1), _joint(p2_view, s1_view))


def _orthogonality(z: Sequence[Tensor]) -> float:
    s1, s2, s1_view, s2_view, p1, p2, p1_view, p2_view = (x.tolist() for x in z)
    own = _frobenius(p1, s1) + _frobenius(p2, s2)
    return (own + _frobenius(p1_view, s1_view) + _frobenius(p2_view, s2_view)) / 2


def test_disentangledssl_private(tiny_dataset: Dataset, known_noise: list[float]) -> None:
    z = _z(4)
    value, terms = _loss(_model("disentangledssl"), tiny_dataset, z, "private_loss")
    assert terms == pytest.approx({"specific": _specific(z), "orthogonality": _orthogonality(z)}, rel=1e-12)
    assert value == pytest.approx(_specific(z) + 0.7 * _orthogonality(z), rel=1e-12)
    assert known_noise == []


def test_jointopt(tiny_dataset: Dataset, known_noise: list[float]) -> None:
    z = _z(4)
    value, terms = _loss(_model("jointopt"), tiny_dataset, z)
    shared = (_info_nce(_noisy(z[0], 0), _noisy(z[1], 1)) + _info_nce(_noisy(z[2], 2), _noisy(z[3], 3))) / 2
    expected = {"shared": shared, "specific": _specific(z), "orthogonality": _orthogonality(z)}
    assert terms == pytest.approx(expected, rel=1e-12)
    weighted = (2 * shared + 1.9 * expected["specific"]) / 2.9
    assert value == pytest.approx(weighted + 0.7 * expected["orthogonality"], rel=1e-12)
    assert known_noise == [50.0] * 4


def test_private_encoders_take_the_features_and_the_shared_z(tiny_dataset: Dataset) -> None:
    model, batch = _model("jointopt"), _batch(tiny_dataset).shard
    shared, private = model([batch])
    for name, x in batch.items():
        for i in range(SAMPLES):
            start, length = int(x.lengths_B[:i].sum()), int(x.lengths_B[i])
            steps = x.values_TF[start : start + length]
            inputs = torch.cat([steps, shared[name].z_BD[i].expand(length, -1)], dim=1)
            alone = type(x)(inputs, x.lengths_B[i : i + 1])
            assert model.private.encoders[name](alone).z_BD.allclose(private[name].z_BD[i])


@every_method
def test_the_objectives_train_every_parameter_once_and_only_their_own(method: str, tiny_dataset: Dataset) -> None:
    model = _model(method)
    objectives = model.objectives()
    names = [name for objective in objectives for name in objective.parameters]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    for objective in objectives:
        model.zero_grad(set_to_none=True)
        for name, parameter in model.named_parameters():  # as the training loop does
            parameter.requires_grad_(name in objective.parameters)
        value, _ = objective.loss(model, _batch(tiny_dataset))
        value.backward()
        reached = {name for name, p in model.named_parameters() if p.grad is not None}
        assert reached == set(objective.parameters)
        # A dense FFN's router has nothing to decide; all else moves.
        still = {name for name in reached if model.get_parameter(name).grad.abs().max() == 0}
        assert {name for name in still if ".router." not in name} == set()


def test_objectives_split_the_work() -> None:
    model = _model("factorcl")
    both = model.objectives()
    critics = {p for term in ("club", "club_given_views") for p in model.terms[term].critic.parameters()}
    assert set(both[1].parameters.values()) == critics
    assert [(o.begin, o.end) for o in both] == [(0.0, 1.0)] * 2
    shared, private = _model("disentangledssl").objectives()
    assert {name.split(".")[0] for name in shared.parameters} == {"encoders"}
    assert {name.split(".")[0] for name in private.parameters} == {"private"}
    assert [(o.begin, o.end) for o in (shared, private)] == [(0.0, 0.5), (0.5, 1.0)]


@every_method
def test_representations(method: str, tiny_dataset: Dataset) -> None:
    """Parts of unit length side by side, the modalities equally wide; `parts` per modality and output."""
    expected = {"factorcl": {"emb": [8] * 2, "proj": [8] * 10}, "focal": {"none": [4] * 4}}
    two_encoders = {"jointopt", "disentangledssl"}
    model, batch = _model(method), _batch(tiny_dataset).shard
    widths = expected.get(method, {"none": [8] * (4 if method in two_encoders else 2)})
    assert tuple(METHODS[method].outputs) == tuple(widths)
    for output, parts in widths.items():
        encoding = model.encode(batch, output)
        assert [part.shape[1] for part in encoding.parts] == parts
        assert (encoding.pairs_computed, encoding.pairs_routed) == (0, 0)
        raw, z = encoding.joined(on_sphere=False), encoding.joined(on_sphere=True)
        assert z.shape == (SAMPLES, sum(parts))
        for part, unscaled in zip(z.split(parts, dim=1), raw.split(parts, dim=1), strict=True):
            assert part.norm(dim=1).allclose(torch.ones(SAMPLES, dtype=torch.float64))
            assert (part * unscaled.norm(dim=1, keepdim=True)).allclose(unscaled)
        # The first half hangs on the first modality alone.
        other = {**batch, "right": type(batch["right"])(batch["right"].values_TF + 1.0, batch["right"].lengths_B)}
        changed = (model.encode(other, output).joined(on_sphere=True) - z).abs().amax(dim=0) > 0
        assert not changed[: sum(parts) // 2].any()
        assert changed[sum(parts) // 2 :].any()


@every_method
def test_initialised_from_the_seed_alone(method: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = _model(method).state_dict(), _model(method).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(next(iter(first.values())), next(_model(method, seed=1).parameters()))


@pytest.mark.parametrize("sparse", [ModelConfig(granularity=2, expansion=1), ModelConfig(granularity=1, expansion=8)])
def test_encoders_must_be_dense(sparse: ModelConfig) -> None:
    with pytest.raises(AssertionError):
        METHODS["clip"].model(sparse, METHODS["clip"].settings(), INPUTS.features, INPUTS.classes)


@every_method
def test_dense_encoders_are_not_pruned(method: str, tiny_dataset: Dataset) -> None:
    with pytest.raises(AssertionError, match="not pruned"):
        _model(method).encode(
            _batch(tiny_dataset).shard, next(iter(METHODS[method].outputs)), Pruning(ratio=0.5, pool=4)
        )


def test_one_expert_of_full_width_is_a_dense_ffn(tiny_dataset: Dataset) -> None:
    """Its routing weight is 1 for every token, with or without the router's noise."""
    model, batch = _model("clip"), _batch(tiny_dataset)
    for draws in (None, batch.draws):
        for encoded in model([batch.shard], draws)[0].values():
            assert all(torch.equal(r.weights_TK, torch.ones_like(r.weights_TK)) for r in encoded.routings)
            assert encoded.pairs_computed == encoded.pairs_routed
