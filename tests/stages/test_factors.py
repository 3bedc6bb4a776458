"""Factors: expected values by hand, by loops from the equations, or by permutation."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
from numpy.typing import NDArray

from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.data.embedded.latent_factors import LatentFactorsConfig, latent_factors
from s3ray.data.padding import padded
from s3ray.model import ModelConfig, Pruning, build_model
from s3ray.stages.encode import encode_splits
from s3ray.stages.factors import (
    FACTORS,
    TOGETHER,
    FactorsConfig,
    energy_distance,
    factor_kind,
    factor_points,
    factor_scores,
    information_bounds,
    mean_resultant_length,
    routing_points,
    semantic_coherence,
    variance_shares,
)
from s3ray.stages.stage import Context

Array = NDArray[Any]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("shared_0", "shared relevant"),
        ("shared_1", "shared other"),
        ("first_unique_0", "unique relevant"),
        ("second_unique_0", "unique other"),
        ("second_nuisance_3", "nuisance"),
        ("first_and_second_0", "shared by two relevant"),
        ("first_and_third_0", "shared by two other"),
    ],
)
def test_kind_of_a_factor(name: str, kind: str) -> None:
    assert factor_kind(name, ["shared_0", "first_unique_0", "first_and_second_0"]) == kind


def _signs(rng: np.random.Generator, *shape: int) -> Array:
    return 2.0 * rng.integers(0, 2, shape) - 1.0


def test_r2_of_a_linear_a_noisy_and_an_absent_factor() -> None:
    rng = np.random.default_rng(0)
    truth = {"train": _signs(rng, 4000, 3), "test": _signs(rng, 4000, 3)}

    def represent(factors: Array) -> Array:
        linear = factors[:, :1] @ np.array([[0.3, -2.0]]) + 5.0
        return np.concatenate([linear, factors[:, 1:2] + rng.normal(size=(len(factors), 1))], axis=1)

    scores = factor_scores({s: represent(t) for s, t in truth.items()}, truth, ["linear", "noisy", "absent"])
    assert set(scores) == {"test"}
    assert scores["test"]["linear"] == pytest.approx(1.0, abs=1e-6)
    # ±1 under noise of variance 1: the best line is half of what is seen, it leaves half of the variance. A
    # squared residual ((±1 - noise) / 2)² has variance 3/8, so 4000 of them scatter by 0.0097: four of that.
    assert scores["test"]["noisy"] == pytest.approx(0.5, abs=0.04)
    assert scores["test"]["absent"] == pytest.approx(0.0, abs=0.01)


def test_r2_is_not_clipped() -> None:
    # A factor that says the opposite on test: the residual is twice the factor, 1 - 2² / 1² = -3.
    train = np.tile([-1.0, 1.0], 500)[:, None]
    scores = factor_scores({"train": train, "test": train}, {"train": train, "test": -train}, ["turned"])
    assert scores["test"]["turned"] == pytest.approx(-3.0, abs=1e-3)


def test_an_absent_factor_costs_nothing_in_a_wide_representation() -> None:
    # Least squares on 200 features of noise and 400 samples would give R² = -200 / (400 - 200) or so.
    rng = np.random.default_rng(0)
    features = {split: rng.normal(size=(400, 200)) for split in ("train", "test")}
    truth = {split: np.stack([_signs(rng, 400), x[:, 0]], axis=1) for split, x in features.items()}
    scores = factor_scores(features, truth, ["absent", "present"])["test"]
    assert scores["absent"] > -0.05
    assert scores["present"] > 0.99  # whose penalty is another


def test_r2_does_not_depend_on_the_order_of_samples() -> None:
    rng = np.random.default_rng(0)
    truth = {split: _signs(rng, 60, 2) for split in ("train", "test")}
    features = {split: t @ rng.normal(size=(2, 4)) + rng.normal(size=(60, 4)) for split, t in truth.items()}
    order = {split: rng.permutation(60) for split in truth}
    turned = factor_scores(
        {s: x[order[s]] for s, x in features.items()}, {s: t[order[s]] for s, t in truth.items()}, "ab"
    )
    assert turned["test"] == pytest.approx(factor_scores(features, truth, "ab")["test"], abs=1e-9)


def test_shares_of_variance_by_hand() -> None:
    a, b = np.tile([[1, 1], [1, -1], [-1, 1], [-1, -1]], (250, 1)).T.astype(float)
    z = np.stack([a + 7.0, 2 * b, np.zeros(1000)], axis=1)
    # Variances 1 and 4 of 5; with 1000 samples what is unexplained counts 999 / 998 fold.
    expected = [1 - 0.8 * 999 / 998, 1 - 0.2 * 999 / 998]
    assert variance_shares(z, np.stack([a, b], axis=1)) == pytest.approx(expected)


def test_an_absent_factor_has_no_share_in_expectation() -> None:
    rng = np.random.default_rng(0)
    shares = variance_shares(rng.normal(size=(50, 4)), rng.normal(size=(50, 2000)))
    # Unadjusted the mean would be 1 / 49 = 0.02.
    assert abs(shares.mean()) < 4 * shares.std() / math.sqrt(2000) < 0.002


def test_energy_distance_by_hand() -> None:
    # Across 3 2 2 3, within 1 and 5: 2 · 2.5 - 1 - 5. Paired, 0 with 3 and 1 with -2 are left out: 2 · 2 - 6.
    a, b = np.array([[0.0], [1.0]]), np.array([[3.0], [-2.0]])
    assert energy_distance(a, b) == pytest.approx(-1.0)
    assert energy_distance(a, b, paired=True) == pytest.approx(-2.0)


def _loop(a: Array, b: Array, skip: bool) -> float:
    pairs = [(x, y) for i, x in enumerate(a) for j, y in enumerate(b) if not (skip and i == j)]
    return sum(math.dist(x, y) for x, y in pairs) / len(pairs)


@pytest.mark.parametrize("paired", [False, True])
def test_energy_distance_equals_the_loop(paired: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 3)), rng.normal(0.5, 2.0, size=(9 if paired else 6, 3))
    expected = 2 * _loop(a, b, paired) - _loop(a, a, True) - _loop(b, b, True)
    assert energy_distance(a, b, paired=paired) == pytest.approx(expected, rel=1e-12)


def test_energy_distance_in_one_dimension_is_scipys_squared_and_unbiased() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=7), rng.normal(1.0, size=5)
    # scipy takes the root, and means over all pairs: with n of them at distance 0 these are (n - 1) / n of ours.
    bias = [np.abs(x[:, None] - x).mean() / (len(x) - 1) for x in (a, b)]
    expected = scipy.stats.energy_distance(a, b) ** 2 - sum(bias)
    assert energy_distance(a[:, None], b[:, None]) == pytest.approx(expected, rel=1e-12)


def test_energy_distance_is_unbiased() -> None:
    # Over all ways to cut a pool in two, every pair of samples is equally often across and within: the mean is 0.
    pool = np.random.default_rng(0).normal(size=(8, 3))
    values = []
    for chosen in itertools.combinations(range(8), 4):
        inside = np.isin(np.arange(8), chosen)
        values.append(energy_distance(pool[inside], pool[~inside]))
    assert np.mean(values) == pytest.approx(0.0, abs=1e-12)
    assert np.std(values) > 0.1


@pytest.mark.parametrize(("shift", "equal"), [(0.0, True), (1.0, False)])
def test_energy_distance_within_and_above_its_permutations(shift: float, equal: bool) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(60, 4)), rng.normal(size=(50, 4)) + shift
    pool = np.concatenate([a, b])
    orders = (rng.permutation(110) for _ in range(400))
    permuted = [energy_distance(pool[order[:60]], pool[order[60:]]) for order in orders]
    observed = energy_distance(a, b)
    low, high = np.quantile(permuted, [0.025, 0.975])
    assert (low < observed < high) if equal else (observed > max(permuted))


def test_energy_distance_knows_no_order_and_no_axes() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 3)), rng.normal(1.0, size=(6, 3))
    expected = energy_distance(a, b)
    assert energy_distance(a[rng.permutation(9)], b[rng.permutation(6)]) == pytest.approx(expected)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    assert energy_distance(a @ rotation, b @ rotation) == pytest.approx(expected)
    assert energy_distance(b, a) == pytest.approx(expected)
    assert energy_distance(5 * a, 5 * b) == pytest.approx(5 * expected)


def test_coherence_of_equal_representations_is_zero() -> None:
    rng = np.random.default_rng(0)
    factor = _signs(rng, 40)
    z = rng.normal(size=(40, 5)) + 2 * factor[:, None]
    coherence = semantic_coherence([z, 3 * z], factor)  # lengths don't count on the sphere
    assert coherence.distance == pytest.approx(0.0, abs=1e-12)
    assert coherence.coefficient == pytest.approx(0.0, abs=1e-12)
    assert coherence.between_values > 0.5


def test_coherence_of_concepts_at_points_by_hand() -> None:
    # Four axes, one per (modality, value): every two of them are √2 apart, so each energy distance is 2√2, the
    # most that such an E|A - B| allows.
    factor = np.tile([-1.0, 1.0], 5)
    axes = np.eye(4)
    z1, z2 = axes[(factor > 0).astype(int)], 9 * axes[2 + (factor > 0).astype(int)]
    coherence = semantic_coherence([z1, z2], factor)
    assert coherence.distance == pytest.approx(2 * math.sqrt(2))
    assert coherence.between_values == pytest.approx(2 * math.sqrt(2))
    assert coherence.coefficient == pytest.approx(1.0)


def test_coherence_of_a_collapsed_representation_is_zero_and_so_is_what_it_tells_apart() -> None:
    coherence = semantic_coherence([np.ones((8, 3)), np.ones((8, 3))], np.tile([-1.0, 1.0], 4))
    assert (coherence.distance, coherence.coefficient, coherence.between_values) == (0.0, 0.0, 0.0)


def test_coherence_of_three_modalities_is_the_mean_over_their_pairs() -> None:
    rng = np.random.default_rng(0)
    factor = _signs(rng, 30)
    z = [rng.normal(shift, size=(30, 4)) + factor[:, None] for shift in (0.0, 0.5, 2.0)]
    pairs = [semantic_coherence([a, b], factor) for a, b in itertools.combinations(z, 2)]
    whole = semantic_coherence(z, factor)
    assert whole.distance == pytest.approx(np.mean([pair.distance for pair in pairs]))
    assert whole.coefficient == pytest.approx(np.mean([pair.coefficient for pair in pairs]))
    # Every modality stands in two of the three pairs.
    assert whole.between_values == pytest.approx(np.mean([pair.between_values for pair in pairs]))


def test_of_one_modality_there_is_no_distance_between_and_no_bound_from_another() -> None:
    z1, _, y = _sample()
    alone = semantic_coherence([z1], y)
    assert math.isnan(alone.distance)
    assert math.isnan(alone.coefficient)
    assert alone.between_values == pytest.approx(semantic_coherence([z1, z1], y).between_values)
    bounds = information_bounds([z1], y, 0.4, 12, 0, concentration=3.0)
    assert math.isnan(bounds.input)
    assert bounds.label == pytest.approx(information_bounds([z1, z1], y, 0.4, 12, 0, concentration=3.0).label)


def test_a_factor_of_two_modalities_is_compared_between_these_alone() -> None:
    config = LatentFactorsConfig(modalities=3, shared=1, by_two=1, train=200, valid=60, test=60)
    data = latent_factors(config)
    held = {name: ["shared_0", "first_and_second_0"] for name in data.features}
    held["third"] = ["shared_0", "third_unique_0"]
    z = _holding(data, held)
    found = {(p.quantity, p.factor): p.value for p in factor_points(z, data) if p.split == "test"}
    for a, b in itertools.combinations(data.features, 2):
        (column,) = _holding(data, {a: [f"{a}_and_{b}_0"]})["test"].values()
        of_pair = semantic_coherence([z["test"][a], z["test"][b]], column[:, 0])
        assert found["energy distance", f"{a}_and_{b}_0"] == of_pair.distance


def _sample(count: int = 12, width: int = 3) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count)
    z1 = rng.normal(size=(count, width)) + labels[:, None]
    return z1, z1 + rng.normal(size=(count, width)), labels


def test_bounds_equal_the_equations_loops() -> None:
    tau, kappa = 0.4, 3.0
    z1, z2, y = _sample()
    u = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in (z1, z2)]
    count = len(y)

    def log_softmax(a: Array, b: Array, i: int, j: int) -> float:
        return float(a[i] @ b[j] / tau - math.log(sum(math.exp(a[i] @ b[k] / tau) for k in range(count))))

    def sup_con(a: Array, b: Array) -> float:
        positives = [[s for s in range(count) if y[s] == y[i]] for i in range(count)]
        return -float(np.mean([np.mean([log_softmax(a, b, i, s) for s in positives[i]]) for i in range(count)]))

    def spread(a: Array, b: Array) -> float:
        means = {label: b[y == label].mean(axis=0) for label in np.unique(y)}
        return float(np.mean([1 - a[i] @ means[y[i]] / np.linalg.norm(means[y[i]]) for i in range(count)]))

    cross = [(u[0], u[1]), (u[1], u[0])]
    pairs = [(u[0], u[0]), (u[1], u[1]), *cross]
    info_nce = -np.mean([log_softmax(a, b, i, i) for a, b in cross for i in range(count)])
    bounds = information_bounds([z1, z2], y, tau, 100, 0, concentration=kappa)
    assert bounds.batch_size == count  # fewer than asked for
    assert bounds.input == pytest.approx(math.log(count) - info_nce, rel=1e-9)
    assert bounds.label == pytest.approx(math.log(count) - np.mean([sup_con(a, b) for a, b in pairs]), rel=1e-9)
    assert bounds.spread == pytest.approx(np.mean([spread(a, b) for a, b in pairs]), rel=1e-9)
    # In three dimensions A(κ) = coth κ - 1 / κ.
    assert bounds.excess == pytest.approx((kappa / math.tanh(kappa) - 1) * bounds.spread, rel=1e-9)


@pytest.mark.parametrize("batch_size", [4, 10])
def test_the_input_bound_ends_at_log_b(batch_size: int) -> None:
    z = np.eye(10)
    bounds = information_bounds([z, z], np.arange(10), 0.01, batch_size, 0, concentration=1.0)
    assert bounds.input == pytest.approx(math.log(batch_size))
    assert bounds.batch_size == batch_size


def test_the_label_bound_ends_at_the_labels_entropy() -> None:
    y = np.repeat([0, 1], [6, 2])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    collapsed = information_bounds([np.eye(2)[y], np.eye(2)[y]], y, 0.01, 8, 0, concentration=1.0)
    assert collapsed.label == pytest.approx(entropy)
    assert collapsed.spread == pytest.approx(0.0, abs=1e-12)
    rng = np.random.default_rng(0)
    for temperature in (0.05, 0.5, 5.0):
        z = rng.normal(size=(8, 3)) + 3 * y[:, None]
        assert information_bounds([z, z], y, temperature, 8, 0, concentration=1.0).label < entropy


def test_bounds_are_those_of_the_seeds_batches() -> None:
    z1, z2, y = _sample(50)

    def bounds(seed: int, batch_size: int = 20) -> Any:
        return information_bounds([z1, z2], y, 0.5, batch_size, seed, concentration=1.0)

    assert bounds(0) == bounds(0)
    assert bounds(0) != bounds(1)
    order = np.random.default_rng(1).permutation(50)
    turned = information_bounds([z1[order], z2[order]], y[order], 0.5, 50, 0, concentration=1.0)
    assert turned.input == pytest.approx(bounds(0, 50).input)  # in one batch the order does not count
    assert turned.label == pytest.approx(bounds(0, 50).label)


def test_bounds_of_three_modalities_are_means_over_their_ordered_pairs() -> None:
    z1, z2, y = _sample()
    z3 = z2[:, ::-1] + 0.3 * z1

    def bounds(*z: Array) -> Any:
        return information_bounds(list(z), y, 0.4, 12, 0, concentration=3.0)

    whole, pairs = bounds(z1, z2, z3), [bounds(*pair) for pair in itertools.combinations((z1, z2, z3), 2)]
    # Both directions of each pair of different ones.
    assert whole.input == pytest.approx(np.mean([pair.input for pair in pairs]))
    # Of a pair's four the two with themselves come twice among three pairs, but once among the nine of three. A
    # modality twice is a pair of which all four are with itself.
    for name in ("label", "spread", "excess"):
        of_pairs = 4 * sum(getattr(pair, name) for pair in pairs)
        of_own = sum(getattr(bounds(z, z), name) for z in (z1, z2, z3))
        assert getattr(whole, name) == pytest.approx((of_pairs - of_own) / 9)


def test_mean_resultant_length() -> None:
    for kappa in (0.1, 1.0, 30.0, 1000.0):
        assert mean_resultant_length(kappa, 3) == pytest.approx(1 / math.tanh(kappa) - 1 / kappa, rel=1e-12)
        expected = scipy.special.ive(8, kappa) / scipy.special.ive(7, kappa)
        assert mean_resultant_length(kappa, 16) == pytest.approx(expected, rel=1e-9)
    # Both Bessel functions underflow here. For κ ≪ d the ratio is κ/d · (1 - κ² / (d (d + 2)) …).
    assert mean_resultant_length(10.0, 1024) == pytest.approx(10 / 1024 * (1 - 100 / (1024 * 1026)), rel=1e-6)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return latent_factors(LatentFactorsConfig(train=400, valid=120, test=200))


def _holding(data: Dataset, held: dict[str, list[str]]) -> dict[str, dict[str, Array]]:
    """A representation per modality that literally is the named factors."""
    columns = {modality: [data.truth_names.index(name) for name in names] for modality, names in held.items()}
    return {
        name: {modality: np.asarray(split.truth)[:, chosen] for modality, chosen in columns.items()}
        for name, split in data.splits.items()
    }


def test_a_representation_of_shared_factors_keeps_these_alone(data: Dataset) -> None:
    shared = [f"shared_{i}" for i in range(4)]
    points = factor_points(_holding(data, {"first": shared, "second": shared}), data)
    r2 = [p for p in points if p.quantity == "R2"]
    assert {p.split for p in r2} == {"valid", "test"}
    for point in r2:
        kept = point.factor_kind.startswith("shared")
        assert point.value == pytest.approx(1.0 if kept else 0.0, abs=1e-6 if kept else 0.06), point
    for point in (p for p in points if p.quantity == "share of variance"):
        # Four factors of equal variance; chance correlations are of the order of 1 / √120, shares of its square.
        assert point.value == pytest.approx(0.25 if point.factor_kind.startswith("shared") else 0.0, abs=0.07), point
    # Both modalities are equal given a value, and the values lie apart.
    distances = {p.value for p in points if p.quantity == "energy distance"}
    assert max(map(abs, distances)) < 1e-6
    assert min(p.value for p in points if p.quantity == "energy distance between values") > 0.2
    # I(X;Z) is at most the entropy of the four factors; batches of 120 and 128 could show more.
    assert 2.0 < max(p.value for p in points if p.quantity == "I(X;Z) bound") < 4 * math.log(2)


def test_a_factor_is_read_from_its_own_modality(data: Dataset) -> None:
    names = {m: ["shared_0", f"{m}_unique_0"] for m in ("first", "second")}
    points = factor_points(_holding(data, names), data)
    r2 = {(p.modality, p.factor): p.value for p in points if p.quantity == "R2" and p.split == "test"}
    for modality in (TOGETHER, "first", "second"):
        assert r2[modality, "shared_0"] == pytest.approx(1.0, abs=1e-6)
        for owner in ("first", "second"):
            read = modality in (TOGETHER, owner)
            assert r2[modality, f"{owner}_unique_0"] == pytest.approx(float(read), abs=1e-6 if read else 0.06)


def test_points_are_tidy_and_bounds_are_the_tightest_on_valid(data: Dataset) -> None:
    representations = {
        name: {modality: sequences.means() for modality, sequences in split.modalities.items()}
        for name, split in data.splits.items()
    }
    # On valid, and there alone, the representation is the label: the lowest temperature is the best, elsewhere not.
    representations["valid"] = dict.fromkeys(representations["valid"], np.eye(24)[data.valid.labels])
    temperatures = (0.1, 0.5, 2.0)
    points = factor_points(representations, data, temperatures=temperatures, batch_size=150, concentration=4.0)
    keys = [(p.quantity, p.factor, p.modality, p.split) for p in points]
    assert len(set(keys)) == len(keys)
    # Two readings of 16 factors from 3 representations, 3 distances of 4 shared factors, 4 estimates; two splits.
    assert len(points) == 2 * (2 * 16 * 3 + 3 * 4 + 4)
    assert all(math.isfinite(p.value) for p in points)
    relevant = {p.factor for p in points if p.factor_kind.endswith("relevant")}
    assert relevant == {"shared_0", "first_unique_0", "second_unique_0"}

    def bounds(split: str, temperature: float) -> Any:
        z1, z2 = representations[split].values()
        labels = data.splits[split].labels
        return information_bounds([z1, z2], labels, temperature, 150, 0, concentration=4.0)

    best = 0.1
    assert max(temperatures, key=lambda temperature: bounds("valid", temperature).label) == best
    assert bounds("test", best).label < bounds("test", 2.0).label
    found = {(p.quantity, p.split): p for p in points if not p.factor}
    for split, size in (("valid", 120), ("test", 150)):
        expected = bounds(split, best)
        assert found["I(Z;Y) bound", split].value == expected.label
        assert found["I(Z;X|Y) surrogate", split].value == expected.excess
        assert found["I(Z;Y) bound", split].samples == size


@pytest.mark.parametrize("pruning", [None, Pruning(ratio=0.3, pool=50)])
def test_the_stage_measures_each_modality_of_what_is_encoded(
    tiny_model: ModelConfig, data: Dataset, pruning: Pruning | None
) -> None:
    model = build_model(tiny_model, data.features, seed=0)
    config = FactorsConfig(output="none", on_sphere=True, pruning=pruning)
    outcome = FACTORS.run(config, data, model, Context())
    encoded = encode_splits(model, data, output="none", on_sphere=True, pruning=pruning, tokens=True)
    representations = {name: {"first": e.z[:, :16], "second": e.z[:, 16:]} for name, e in encoded.items()}
    ratio = 0.3 if pruning else 1.0
    points = factor_points(representations, data) + routing_points({n: e.tokens for n, e in encoded.items()}, data)
    assert outcome.rows == [{"preservation_ratio": ratio, **asdict(point)} for point in points]
    assert outcome.weights is None


def _expressing(first: list[int], second: list[int]) -> Dataset:
    """One sample per split, whose tokens express these of the factors shared_0, first_nuisance_0, second_unique_0."""

    def sequences(count: int) -> Sequences:
        return Sequences.from_padded(np.zeros((1, count, 2), np.float32))

    modalities = {"first": sequences(len(first)), "second": sequences(len(second))}
    expressed = {"first": np.array(first), "second": np.array(second)}
    split = Split(modalities, np.zeros(1, np.int64), np.ones((1, 3), np.float32), expressed)
    names = ("shared_0", "first_nuisance_0", "second_unique_0")
    return Dataset("d", "simulated", split, split, split, truth_names=names, relevant_factors=("shared_0",))


def test_routing_is_averaged_over_the_tokens_that_express_a_factor() -> None:
    data = _expressing([0, 1, 1], [2, 0])
    # Two layers; a token's weight and share per layer.
    first = np.array([[[0.1, 1.0], [0.2, 0.0]], [[0.3, 0.5], [0.4, 0.5]], [[0.5, 0.0], [0.8, 1.0]]], np.float32)
    second = np.array([[[0.6, 1.0], [0.6, 1.0]], [[0.3, 0.5], [0.0, 1.0]]], np.float32)
    points = routing_points({split: {"first": first, "second": second} for split in data.splits}, data)
    keys = [(p.split, p.modality, p.factor, p.layer, p.quantity) for p in points]
    assert len(set(keys)) == len(keys) == 2 * (3 + 2 + 2) * 2 * 2  # of 3, 2 and 2 factors; train is left out
    assert {p.split for p in points} == {"valid", "test"}
    of_test = [p for p in points if p.split == "test"]
    found = {(p.modality, p.factor, p.layer, p.quantity): p.value for p in of_test}
    weight, share = "routing weight", "share of pairs kept"
    assert found["first", "first_nuisance_0", 0, weight] == pytest.approx((0.3 + 0.5) / 2)
    assert found["first", "first_nuisance_0", 1, weight] == pytest.approx((0.4 + 0.8) / 2)
    assert found["first", "first_nuisance_0", 0, share] == pytest.approx(0.25)
    assert found["first", "shared_0", 1, share] == 0.0
    assert found["second", "second_unique_0", 1, share] == 1.0
    # A shared factor has tokens in both modalities; each counts once.
    assert found[TOGETHER, "shared_0", 0, weight] == pytest.approx((0.1 + 0.3) / 2)
    assert found[TOGETHER, "shared_0", 1, share] == pytest.approx(0.5)
    assert found[TOGETHER, "first_nuisance_0", 1, weight] == found["first", "first_nuisance_0", 1, weight]
    assert {(p.factor, p.factor_kind, p.samples) for p in of_test if p.modality == TOGETHER} == {
        ("shared_0", "shared relevant", 2),
        ("first_nuisance_0", "nuisance", 2),
        ("second_unique_0", "unique other", 1),
    }


def test_padding_that_is_routed_is_told_of_as_a_factor() -> None:
    data = padded(dataclasses.replace(_expressing([0, 1], [2]), train=_expressing([0, 0, 0], [2]).train))
    first = np.array([[[0.1, 1.0]], [[0.2, 0.0]], [[0.4, 0.5]]], np.float32)
    tokens = {split: {"first": first, "second": first[:1]} for split in data.splits}
    told = {(p.modality, p.quantity): p for p in routing_points(tokens, data) if p.factor_kind == "padding"}
    assert told.keys() == {(m, q) for m in (TOGETHER, "first") for q in ("routing weight", "share of pairs kept")}
    assert (told["first", "share of pairs kept"].value, told["first", "share of pairs kept"].samples) == (0.5, 1)


def test_routing_is_not_told_without_experts_or_tokens_factors() -> None:
    data = _expressing([0], [2])
    assert routing_points({split: {} for split in data.splits}, data) == []  # a prior method's encoder
    unknown = dataclasses.replace(data.test, expressed={})
    blind = dataclasses.replace(data, valid=unknown, test=unknown)
    routed = np.ones((1, 2, 2), np.float32)
    tokens = {split: {"first": routed, "second": routed} for split in data.splits}
    assert routing_points(tokens, blind) == []
    # Known of one modality alone.
    half = dataclasses.replace(data.test, expressed={"second": np.array([2])})
    points = routing_points(tokens, dataclasses.replace(data, valid=half, test=half))
    assert {(p.modality, p.factor) for p in points} == {(TOGETHER, "second_unique_0"), ("second", "second_unique_0")}


@pytest.mark.filterwarnings("error")
def test_what_does_not_vary_has_no_share_and_no_distance() -> None:
    rng = np.random.default_rng(0)
    z, factor = rng.normal(size=(8, 3)), np.tile([-1.0, 1.0], 4)
    both = variance_shares(z, np.stack([factor, np.ones(8)], axis=1))
    assert math.isfinite(both[0])
    assert math.isnan(both[1])
    assert np.isnan(variance_shares(np.ones((8, 3)), factor[:, None])).all()
    assert np.isnan(variance_shares(z[:2], factor[:2, None])).all()
    one_value = semantic_coherence([z, z[::-1]], np.ones(8))
    assert math.isfinite(one_value.distance)
    assert math.isnan(one_value.between_values)
    # A value that a single sample has is left out.
    lonely = np.array([*factor, 5.0])
    grown = semantic_coherence([np.vstack([z, z[:1]]), np.vstack([z[::-1], z[:1]])], lonely)
    assert grown == semantic_coherence([z, z[::-1]], factor)
    assert math.isnan(semantic_coherence([z[:2], z[:2]], factor[:2]).distance)
