"""`latent_factors`: what is known beforehand about the simulation, checked on what it draws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from s3ray.data.dataset import Dataset
from s3ray.data.embedded import EMBEDDED
from s3ray.data.embedded.latent_factors import LatentFactorsConfig, best_accuracy, latent_factors

COUNTS = LatentFactorsConfig(
    shared=4, unique=4, nuisance=8, relevant_shared=2, relevant_unique=2, label_strength=1.5, valid=20, test=20
)
# Small tokens, many samples: the labels are what is checked.
CONFIG = replace(COUNTS, features=4, train=6000)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return latent_factors(CONFIG)


def test_best_accuracy_by_hand() -> None:
    # One factor and log-odds ± log 3: the label follows the factor with probability ¾.
    one = LatentFactorsConfig(relevant_shared=1, relevant_unique=0, label_strength=math.log(3))
    assert best_accuracy(one) == pytest.approx(0.75)
    # One unique factor per modality: they agree half of the time, log-odds ± 2 log 3 (9 to 1), else even.
    two = LatentFactorsConfig(relevant_shared=0, relevant_unique=1, label_strength=math.log(3))
    assert best_accuracy(two) == pytest.approx(0.5 * 0.9 + 0.5 * 0.5)
    # One factor per pair of three modalities: in a quarter of the cases all agree, ± 3 log 3, else ± log 3.
    three = replace(two, modalities=3, by_two=1, relevant_by_two=1, relevant_unique=0)
    assert best_accuracy(three) == pytest.approx(0.25 * 27 / 28 + 0.75 * 0.75)


@pytest.mark.parametrize(("shared", "unique"), [(2, 2), (1, 2), (3, 0)])
def test_best_accuracy_against_monte_carlo(shared: int, unique: int) -> None:
    config = replace(COUNTS, relevant_shared=shared, relevant_unique=unique)
    rng = np.random.default_rng(0)
    n = 50_000
    score = rng.choice([-1, 1], size=(n, shared + 2 * unique)).sum(axis=1)
    labels = rng.random(n) < 1 / (1 + np.exp(-1.5 * score))
    accuracy = np.mean(labels == (score > 0))
    p = best_accuracy(config)
    assert abs(accuracy - p) < 4.5 * math.sqrt(p * (1 - p) / n)


def test_truth_columns(data: Dataset) -> None:
    assert len(data.truth_names) == 4 + 2 * (4 + 8)
    assert data.truth_names[:5] == ("shared_0", "shared_1", "shared_2", "shared_3", "first_unique_0")
    assert data.truth_names[8] == "first_nuisance_0"
    assert data.truth_names[16] == "second_unique_0"
    assert data.relevant_factors == (
        "shared_0",
        "shared_1",
        "first_unique_0",
        "first_unique_1",
        "second_unique_0",
        "second_unique_1",
    )
    for split in data.splits.values():
        assert split.truth is not None
        assert split.truth.shape == (len(split), 28)
        assert set(np.unique(split.truth)) == {-1.0, 1.0}


def _truth(data: Dataset, names: list[str]) -> np.ndarray:
    assert data.train.truth is not None
    return data.train.truth[:, [data.truth_names.index(name) for name in names]]


def test_three_modalities_have_factors_of_all_of_each_two_and_of_each_alone() -> None:
    data = EMBEDDED["three_modalities"].load()
    assert (data.name, data.kind, list(data.features)) == (
        "three_modalities",
        "simulated",
        ["first", "second", "third"],
    )
    pairs = ["first_and_second", "first_and_third", "second_and_third"]
    assert data.truth_names[:9] == (
        "shared_0",
        "shared_1",
        *(f"{p}_{i}" for p in pairs for i in (0, 1)),
        "first_unique_0",
    )
    assert len(data.truth_names) == 2 + 3 * 2 + 3 * (2 + 4)
    alone = [f"{name}_unique_0" for name in data.features]
    assert data.relevant_factors == ("shared_0", *(f"{pair}_0" for pair in pairs), *alone)
    assert [len(split) for split in data.splits.values()] == [1000, 300, 300]
    # k of seven relevant factors are on the label's side, log-odds 4 (2k - 7).
    odds = [math.comb(7, k) / 2**7 / (1 + math.exp(-4 * abs(2 * k - 7))) for k in range(8)]
    assert data.facts["best_accuracy"] == pytest.approx(sum(odds))
    assert not EMBEDDED["three_modalities"].usual


def test_labels_depend_on_the_relevant_factors_alone(data: Dataset) -> None:
    n = len(data.train)
    labels = data.train.labels
    for name in data.truth_names:
        column = _truth(data, [name])[:, 0]
        effect = labels[column > 0].mean() - labels[column < 0].mean()
        if name in data.relevant_factors:
            # Six factors of log-odds 1.5: a single one moves the label's rate by about 0.3.
            assert effect > 0.2, name
        else:
            # A difference of two means of n/2 fair coins has deviation 1/√n.
            assert abs(effect) < 4.5 / math.sqrt(n), name


def test_an_oracle_on_the_labels_reaches_the_best_accuracy_and_one_modality_does_not(data: Dataset) -> None:
    relevant = list(data.relevant_factors)
    n, labels = len(data.train), data.train.labels

    def accuracy(names: list[str]) -> float:
        return float(np.mean(labels == (_truth(data, names).sum(axis=1) > 0)))

    best = data.facts["best_accuracy"]
    assert best == best_accuracy(CONFIG)
    deviation = math.sqrt(best * (1 - best) / n)
    assert abs(accuracy(relevant) - best) < 4.5 * deviation
    for other in ("first", "second"):
        assert accuracy([name for name in relevant if not name.startswith(other)]) < best - 9 * deviation


def test_a_token_is_the_prototype_of_a_factors_value() -> None:
    config = replace(COUNTS, token_noise=0.0, train=200)
    data = latent_factors(config)
    for name, sequences in data.train.modalities.items():
        # 4 + 4 + 8 factors with two values each; without noise there are no other tokens.
        tokens, which = np.unique(sequences.values, axis=0, return_inverse=True)
        assert len(tokens) == 32
        # Whether a sample holds a token of a shared factor tells the factor's value.
        samples = np.repeat(np.arange(200), sequences.lengths)
        present = np.zeros((200, 32), dtype=bool)
        present[samples, which] = True
        for factor in [f"shared_{i}" for i in range(4)] + [f"{name}_unique_{i}" for i in range(4)]:
            positive = _truth(data, [factor])[:, 0] > 0
            assert (present == positive[:, None]).all(axis=0).sum() == 1, factor


@pytest.mark.parametrize(
    ("config", "factors"),
    [
        (COUNTS, 16),
        (replace(COUNTS, modalities=3, shared=2, by_two=2, relevant_by_two=1), 18),
        (replace(COUNTS, modalities=1), 16),
    ],
)
def test_a_tokens_factor_is_the_one_whose_prototype_it_is(config: LatentFactorsConfig, factors: int) -> None:
    data = latent_factors(replace(config, token_noise=0.0, train=200))
    for split in data.splits.values():
        assert split.truth is not None
        for name, sequences in split.modalities.items():
            columns = split.expressed[name]
            samples = np.repeat(np.arange(len(split)), sequences.lengths)
            # Tokens of one factor and value are the same token, and no other's.
            said = np.stack([columns, split.truth[samples, columns]], axis=1)
            _, which = np.unique(sequences.values, axis=0, return_inverse=True)
            pairs = np.unique(np.column_stack([said, which]), axis=0)
            assert len(pairs) == len(np.unique(said, axis=0)) == len(np.unique(which)) == 2 * factors
            # A sample expresses a factor once at most, none of another modality, and all but nuisance.
            assert len(np.unique(np.stack([samples, columns]), axis=1).T) == len(columns)
            own = {i for i, f in enumerate(data.truth_names) if f.startswith("shared") or name in f.split("_")}
            assert set(columns) == own
            lasting = [i for i in own if "nuisance" not in data.truth_names[i]]
            assert all((columns == column).sum() == len(split) for column in lasting)


def test_the_data_are_those_of_earlier_versions() -> None:
    """What training sees: results that were stored for it still count."""
    assert latent_factors().fingerprint() == "f00568e2a94915897213477193372d79a8ab4a418201bf190524adb2224eb588"


def test_lengths_are_ragged_because_nuisance_may_be_missing(data: Dataset) -> None:
    for sequences in data.train.modalities.values():
        assert sequences.lengths.min() >= 8  # shared and unique are always there
        assert sequences.lengths.max() <= 16
        # Eight nuisance tokens kept with probability ¾: mean 8 + 6, deviation √(8 · ¾ · ¼ / n).
        assert abs(sequences.lengths.mean() - 14) < 4.5 * math.sqrt(1.5 / CONFIG.train)


def test_half_of_uneven_samples_are_short_whatever_their_class() -> None:
    data = EMBEDDED["uneven_factors"].load()
    for sequences in data.train.modalities.values():
        short = sequences.lengths == 6
        assert sequences.lengths[~short].min() > 6
        assert sequences.lengths.max() == 20
        assert abs(short.mean() - 0.5) < 4.5 * 0.5 / math.sqrt(len(short))
        share = [short[data.train.labels == label].mean() for label in (0, 1)]
        assert abs(share[0] - share[1]) < 4.5 / math.sqrt(len(short))


def test_deterministic_in_its_seed() -> None:
    small = LatentFactorsConfig(train=30, valid=10, test=10)
    other = LatentFactorsConfig(train=30, valid=10, test=10, seed=1)
    assert latent_factors(small).fingerprint() == latent_factors(small).fingerprint()
    assert latent_factors(small).fingerprint() != latent_factors(other).fingerprint()
