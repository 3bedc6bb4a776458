"""`latent_factors`: the paper's Definition 2.2 as a generator with known ground truth.

Binary factors are shared by all modalities, of three also by each two, unique to one, or nuisance of one; some
shared and some unique ones are relevant to the label. Every token expresses one factor: it is the prototype of that
factor's value in that modality, plus noise. Tokens come in random order, and nuisance tokens may be missing, so
lengths differ: by four at most, or, where a share of the samples is short, by much.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.data.embedded.declaration import Embedded

MODALITIES = ("first", "second", "third")


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentFactorsConfig:
    """Counts are per modality, save `shared`, which all express, and `by_two`, which are per pair of modalities."""

    modalities: int = 2  # the first of `MODALITIES`
    shared: int = 4
    by_two: int = 0
    unique: int = 2
    nuisance: int = 4
    relevant_shared: int = 1
    relevant_by_two: int = 0
    relevant_unique: int = 1  # an odd total leaves no ties
    features: int = 24  # width of a token
    token_noise: float = 0.5  # standard deviation; prototypes have unit variance per feature
    nuisance_kept: float = 0.75  # probability that a nuisance token is there
    short: float = 0.0  # share of a modality's sequences without any nuisance token, whatever the label
    label_strength: float = 4.0  # log-odds of the label per relevant factor
    train: int = 1000
    valid: int = 300
    test: int = 300
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return MODALITIES[: self.modalities]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Whose factors `by_two` are."""
        return list(itertools.combinations(range(self.modalities), 2)) if self.by_two else []


def best_accuracy(config: LatentFactorsConfig) -> float:
    """What a predictor reaches that reads every relevant factor without error: E max_y P(y | factors).

    An upper bound for predictors that see noisy tokens; enumerated over all values of the relevant factors.
    """
    relevant = config.relevant_shared + len(config.pairs) * config.relevant_by_two
    relevant += config.modalities * config.relevant_unique
    values = np.array(list(itertools.product([-1.0, 1.0], repeat=relevant)))
    probability = 1.0 / (1.0 + np.exp(-config.label_strength * values.sum(axis=1)))
    return float(np.maximum(probability, 1.0 - probability).mean())


def latent_factors(config: LatentFactorsConfig = LatentFactorsConfig()) -> Dataset:
    """Two classes; `truth` columns are the factors' values (±1) and `facts` holds the best accuracy."""
    rng = np.random.default_rng(config.seed)
    per_modality = config.shared + (config.modalities - 1) * config.by_two + config.unique + config.nuisance
    # prototypes[m, factor, value]: what a token looks like that says "factor has this value".
    prototypes = rng.normal(size=(config.modalities, per_modality, 2, config.features)).astype(np.float32)
    sizes = {"train": config.train, "valid": config.valid, "test": config.test}
    splits = {name: _split(config, prototypes, size, rng) for name, size in sizes.items()}
    names = [f"shared_{i}" for i in range(config.shared)]
    pairs = [f"{MODALITIES[a]}_and_{MODALITIES[b]}" for a, b in config.pairs]
    names += [f"{pair}_{i}" for pair in pairs for i in range(config.by_two)]
    for modality in config.names:
        names += [f"{modality}_unique_{i}" for i in range(config.unique)]
        names += [f"{modality}_nuisance_{i}" for i in range(config.nuisance)]
    relevant = [f"shared_{i}" for i in range(config.relevant_shared)]
    relevant += [f"{pair}_{i}" for pair in pairs for i in range(config.relevant_by_two)]
    relevant += [f"{m}_unique_{i}" for m in config.names for i in range(config.relevant_unique)]
    return Dataset(
        "latent_factors",
        "simulated",
        splits["train"],
        splits["valid"],
        splits["test"],
        truth_names=tuple(names),
        relevant_factors=tuple(relevant),
        facts={"best_accuracy": best_accuracy(config), "config": asdict(config)},
    )


def _split(config: LatentFactorsConfig, prototypes: NDArray[np.float32], size: int, rng: np.random.Generator) -> Split:
    shared = rng.integers(0, 2, size=(size, config.shared))
    own = rng.integers(0, 2, size=(config.modalities, size, config.unique + config.nuisance))
    by_two = [rng.integers(0, 2, size=(size, config.by_two)) for _ in config.pairs]

    def signed(bits: NDArray[np.int64]) -> NDArray[np.floating]:
        return 2.0 * bits - 1.0

    score = signed(shared[:, : config.relevant_shared]).sum(axis=1)
    score += signed(own[:, :, : config.relevant_unique]).sum(axis=(0, 2))
    for bits in by_two:
        score += signed(bits[:, : config.relevant_by_two]).sum(axis=1)
    labels = (rng.random(size) < 1.0 / (1.0 + np.exp(-config.label_strength * score))).astype(np.int64)

    known = [shared, *by_two, *own]  # as the columns of `truth` are ordered
    starts = np.cumsum([0, *(bits.shape[1] for bits in known)])
    columns_of = [np.arange(start, stop) for start, stop in itertools.pairwise(starts)]
    modalities, expressed = {}, {}
    for index, name in enumerate(config.names):
        # A modality's factors: those of all, those of the pairs that it is in, its own.
        parts = [0, *(1 + place for place, pair in enumerate(config.pairs) if index in pair), 1 + len(by_two) + index]
        bits = np.concatenate([known[part] for part in parts], axis=1)
        column = np.concatenate([columns_of[part] for part in parts])
        factors = bits.shape[1]
        present = np.ones((size, factors), dtype=bool)
        present[:, factors - config.nuisance :] = rng.random((size, config.nuisance)) < config.nuisance_kept
        if config.short:
            present[rng.random(size) < config.short, factors - config.nuisance :] = False
        # A random order, the missing tokens last: they become the right padding that is cut off.
        order = np.argsort(rng.random((size, factors)) + ~present, axis=1)
        tokens = prototypes[index, order, np.take_along_axis(bits, order, axis=1)]
        tokens = tokens + rng.normal(0.0, config.token_noise, tokens.shape).astype(np.float32)
        modalities[name] = Sequences.from_padded(tokens, present.sum(axis=1))
        expressed[name] = column[order][np.take_along_axis(present, order, axis=1)]
    truth = np.concatenate([signed(bits) for bits in known], axis=1).astype(np.float32)
    return Split(modalities, labels, truth, expressed)


DATASET = Embedded(
    name="latent_factors",
    load=latent_factors,
    scales={
        "paper": {"model": {"positions": "sinusoidal"}},
        "smoke": {
            "specialization": {"optimizer": {"epochs": 10}, "lambda_local": 2.0},
            "selection": {"optimizer": {"epochs": 7}},
        },
    },
)
