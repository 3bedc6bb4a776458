"""Factors: what representations still hold of the factors that a simulation's inputs were made of.

- R² per factor, and the share of the representation's variance that it makes up: does contrastive training drop
  unique factors (Proposition 2.5), does Selection keep the relevant ones, does pruning drop nuisance first?
  Both are needed: what a linear read-out with its own scaling still finds may have all but faded.
- Energy distances: are the modalities' representations distributed alike given a shared concept (Eq. 16)?
- The paper's own estimates of mutual information (Eqs. 61, 75, 91), of representations that no loss has seen.
- Routing weights, and shares of pairs kept, of the tokens that express a factor: which tokens does pruning take?

Where samples lack modalities, what is read of one modality is of those that have it, a distance of those that have all
that are compared, a bound of those that lack nothing.

Shape suffixes: N, M samples, B samples of a batch, D width, F factors, T tokens, L layers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.data.padding import PADDING
from s3ray.model import Pruning, TrainedModel
from s3ray.objectives.contrastive import coherence_loss
from s3ray.objectives.selection import minimality_loss, sufficiency_loss
from s3ray.stages.encode import at_once_and_ratio, encode_measured
from s3ray.stages.probe import NOTHING, probing_seconds
from s3ray.stages.sentiment import ridge
from s3ray.stages.stage import Context, Outcome, Stage, StageRun

Quantity = Literal[
    "R2",
    "share of variance",
    "energy distance",
    "energy coefficient",
    "energy distance between values",
    "I(X;Z) bound",
    "I(Z;Y) bound",
    "I(Z;X|Y) surrogate",
    "1 - cosine to class mean",
    "routing weight",
    "share of pairs kept",
]
FactorKind = Literal[
    "shared relevant",
    "shared other",
    "shared by two relevant",
    "shared by two other",
    "unique relevant",
    "unique other",
    "nuisance",
    "padding",
]

# The modality of what is read from all representations side by side. Rows call it so since there were two.
TOGETHER = "both"
TEMPERATURES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorsConfig:
    """All that is read beside the data, their factors and the trained model."""

    output: str  # what is measured of the model
    on_sphere: bool
    pruning: Pruning | None


@dataclass(frozen=True, slots=True)
class FactorPoint:
    """One measured value; `factor` and `factor_kind` are empty where a quantity belongs to no factor.

    A routing weight and a share of pairs kept are of the tokens that express the factor.
    """

    quantity: Quantity
    factor: str
    factor_kind: FactorKind | Literal[""]
    modality: str  # TOGETHER, or the modality whose own representation was read
    split: str
    value: float
    samples: int  # of the split; of a bound and its surrogate: B, the samples per batch; of routing: tokens
    layer: int | None = None  # from 0, of routing


@dataclass(frozen=True, slots=True)
class Coherence:
    """Eq. 16 for the values of one shared factor, averaged over them and over pairs of modalities."""

    distance: float  # energy distance between the modalities, given the value; 0 where Eq. 16 holds
    coefficient: float  # the same, free of scale: 0 for equal distributions, 1 for the farthest apart
    between_values: float  # energy distance between two values within a modality: how far concepts lie apart


@dataclass(frozen=True, slots=True)
class InformationBounds:
    """In nats, averaged over batches. Values of different `batch_size` are not comparable."""

    batch_size: int  # B as used
    input: float  # log B - L_InfoNCE (Eq. 61)
    label: float  # log B - L_SupCon (Eq. 75)
    excess: float  # κ A_d(κ) (1 - μᵀμ̂) (Eq. 91)
    spread: float  # 1 - μᵀμ̂


def factor_points(
    representations: Mapping[str, Mapping[str, NDArray[Any]]],
    data: Dataset,
    *,
    batch_size: int = 128,
    temperatures: Sequence[float] = TEMPERATURES,
    concentration: float = 10.0,
    seed: int = 0,
) -> list[FactorPoint]:
    """All quantities on valid and test; regressions are fitted on train.

    Args:
        representations: per split and modality (n, width), in sample order; the modalities equally wide.
        data: with known `truth`.
        batch_size: of the bounds. Like all that follows the same for whatever is to be compared, however it was
            trained: the cell's own batch size or temperature would be compared instead.
        temperatures: candidates for the bounds. Each bound takes the one that makes it tightest on valid: Eq. 61
            holds for any, and far from the best a bound says more about the temperature than about z.
        concentration: κ of the surrogate.
    """
    names, relevant = data.truth_names, data.relevant_factors
    kinds = {name: factor_kind(name, relevant) for name in names}
    truth: dict[str, NDArray[Any]] = {}
    for split in representations:
        factors = data.splits[split].truth
        assert factors is not None, f"{data.name}: truth of {split} is unknown"
        truth[split] = factors
    present = {split: {m: ~s.missing for m, s in data.splits[split].modalities.items()} for split in representations}
    reads = {TOGETHER: {split: np.concatenate(list(z.values()), axis=1) for split, z in representations.items()}}
    known = {TOGETHER: truth}
    for modality in representations["train"]:
        has = {split: of[modality] for split, of in present.items()}
        reads[modality] = {split: z[modality][has[split]] for split, z in representations.items()}
        known[modality] = {split: factors[has[split]] for split, factors in truth.items()}

    def bounds(split: str, temperature: float) -> InformationBounds:
        # Of those that lack nothing: else the losses would be of fewer samples than the bounds' B.
        whole = np.all(list(present[split].values()), axis=0)
        z, labels = [z_ND[whole] for z_ND in representations[split].values()], data.splits[split].labels[whole]
        return information_bounds(z, labels, temperature, batch_size, seed, concentration=concentration)

    on_valid = {temperature: bounds("valid", temperature) for temperature in temperatures}
    tightest_input = max(temperatures, key=lambda temperature: on_valid[temperature].input)
    tightest_label = max(temperatures, key=lambda temperature: on_valid[temperature].label)

    points: list[FactorPoint] = []
    for modality, features in reads.items():
        own = known[modality]
        # What is read from all side by side is told which are missing, as the probe is.
        told = data.indicators() if modality == TOGETHER else NOTHING
        for split, scores in factor_scores(features, own, names, told).items():
            shares = dict(zip(names, variance_shares(features[split], own[split]).tolist(), strict=True))
            measured: dict[Quantity, dict[str, float]] = {"R2": scores, "share of variance": shares}
            points += [
                FactorPoint(quantity, name, kinds[name], modality, split, value, len(own[split]))
                for quantity, values in measured.items()
                for name, value in values.items()
            ]
    for split in ("valid", "test"):
        z = representations[split]
        for column, name in enumerate(names):
            if not kinds[name].startswith("shared"):
                continue
            sharing = {m: z_ND for m, z_ND in z.items() if expresses(m, name)}
            # Pairs are formed among those that have every modality that expresses it.
            has = np.all([present[split][m] for m in sharing], axis=0)
            coherence = semantic_coherence([z_ND[has] for z_ND in sharing.values()], truth[split][has, column])
            distances: dict[Quantity, float] = {
                "energy distance": coherence.distance,
                "energy coefficient": coherence.coefficient,
                "energy distance between values": coherence.between_values,
            }
            points += [
                FactorPoint(q, name, kinds[name], TOGETHER, split, v, int(has.sum())) for q, v in distances.items()
            ]
        of_input, of_label = bounds(split, tightest_input), bounds(split, tightest_label)
        estimates: dict[Quantity, float] = {
            "I(X;Z) bound": of_input.input,
            "I(Z;Y) bound": of_label.label,
            "I(Z;X|Y) surrogate": of_label.excess,
            "1 - cosine to class mean": of_label.spread,
        }
        points += [FactorPoint(q, "", "", TOGETHER, split, v, of_label.batch_size) for q, v in estimates.items()]
    return points


def routing_points(tokens: Mapping[str, Mapping[str, NDArray[Any]]], data: Dataset) -> list[FactorPoint]:
    """How the tokens that express a factor were routed: means over them, per layer, on valid and test.

    A token's weight is the mean over its top-k pairs, computed or not. Every token has as many pairs, so the mean of
    all tokens' shares is the preservation ratio, up to the rounding of pools.

    Args:
        tokens: per split and modality weight and share (T, L, 2), in the order of the tokens; empty without routing.
        data: with known `truth`; of tokens whose factor is not known there is nothing to tell. Padding, where it is
            routed, is told of as if it were a factor.
    """
    points: list[FactorPoint] = []
    for split in ("valid", "test"):
        expressed = data.splits[split].expressed
        known = [name for name in tokens[split] if name in expressed]
        for modality, read in [(TOGETHER, known), *((name, [name]) for name in known)] if known else []:
            columns_T = np.concatenate([expressed[name] for name in read])
            routed_TL2 = np.concatenate([tokens[split][name] for name in read])
            for column, name in [*enumerate(data.truth_names), (PADDING, "padding")]:
                own_TL2 = routed_TL2[columns_T == column]
                kind = factor_kind(name, data.relevant_factors)
                for layer, (weight, share) in enumerate(own_TL2.mean(axis=0, dtype=np.float64) if len(own_TL2) else []):
                    measured: dict[Quantity, float] = {"routing weight": weight, "share of pairs kept": share}
                    points += [
                        FactorPoint(quantity, name, kind, modality, split, float(value), len(own_TL2), layer)
                        for quantity, value in measured.items()
                    ]
    return points


def factor_kind(name: str, relevant: Collection[str]) -> FactorKind:
    """What a factor of `latent_factors` is, by its name and the names of the relevant ones."""
    if name == "padding":
        return "padding"
    if "_nuisance_" in name:
        return "nuisance"
    if name.startswith("shared_"):
        return "shared relevant" if name in relevant else "shared other"
    if "_and_" in name:
        return "shared by two relevant" if name in relevant else "shared by two other"
    return "unique relevant" if name in relevant else "unique other"


def expresses(modality: str, name: str) -> bool:
    """Whether a modality has a part in a shared factor of `latent_factors`: in one that is not of two, every one."""
    pair, _, _ = name.rpartition("_")
    return "_and_" not in pair or modality in pair.split("_and_")


def factor_scores(
    features: Mapping[str, NDArray[Any]],
    truth: Mapping[str, NDArray[Any]],
    names: Sequence[str],
    indicators: Mapping[str, NDArray[np.bool_]] = NOTHING,
) -> dict[str, dict[str, float]]:
    """R² of every factor, regressed linearly on the representation: fitted on `train`, per other split.

    Ridge regression on features standardised by train's statistics. Each factor has a penalty of its own, chosen
    by leave-one-out error on train: a fixed one would fit noise for a factor that is not there (R² ≈ -width / n). NaN
    of a split below two samples.

    How to read it: nothing is clipped, and a factor that is not there scatters about 0, below it too. Where a
    factor's token may be missing, even the input allows less than 1. The label depends on the relevant factors,
    so these can be told in part from a representation that holds the label alone.

    Args:
        features: (n, width) per split, `train` among them.
        truth: (n, factors) per split.
        names: of the columns of `truth`.
        indicators: as of `s3ray.stages.probe.scaled`.
    """
    # Imported here for the same reason as in `probe`: most processes of a worker group never come here.
    from sklearn.metrics import r2_score

    unknown = dict.fromkeys(names, math.nan)
    scores = {split: unknown for split in features if split != "train"}
    # What one sample varies by is not defined, and without two nothing can be fitted.
    read = {split: x for split, x in features.items() if len(x) > 1}
    if "train" not in read:
        return scores
    told = {split: indicators[split] for split in read} if indicators else NOTHING
    for split, predicted_NF in ridge(read, truth["train"], told, alpha_per_target=True).items():
        r2_F = r2_score(truth[split], predicted_NF, multioutput="raw_values", force_finite=False)
        scores[split] = dict(zip(names, r2_F.tolist(), strict=True))
    return scores


def variance_shares(z_ND: NDArray[Any], truth_NF: NDArray[Any]) -> NDArray[np.float64]:
    """The share of the variance of z, summed over its width, that each factor explains by itself: (F,).

    Independent factors share out at most 1; what is left is noise and what factors do together. Unlike R², which
    asks whether a factor can be read, this asks how much room it takes. A factor that is not there has share 0 in
    expectation (adjusted R², one predictor), and scatters about it. NaN where nothing varies: a factor that has one
    value, a representation that is one point; and below three samples.
    """
    n = len(z_ND)
    if n < 3:
        return np.full(truth_NF.shape[1], np.nan)
    z_ND = np.asarray(z_ND, dtype=np.float64) - z_ND.mean(axis=0, dtype=np.float64)
    truth_NF = np.asarray(truth_NF, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # 0 / 0
        standard_NF = (truth_NF - truth_NF.mean(axis=0)) / truth_NF.std(axis=0)
        explained_F = ((standard_NF.T @ z_ND / n) ** 2).sum(axis=1) / z_ND.var(axis=0).sum()
    shares_F: NDArray[np.float64] = 1 - (1 - explained_F) * (n - 1) / (n - 2)
    return shares_F


def energy_distance(a_ND: NDArray[Any], b_MD: NDArray[Any], *, paired: bool = False) -> float:
    """Székely and Rizzo's energy distance of two samples: 2 E|A - B| - E|A - A'| - E|B - B'|.

    It is 0 for equal distributions and positive for all others. This is the unbiased estimate (U-statistic), no
    pair of a sample with itself: the mean over all pairs would have a floor that falls with the sample size, and
    small groups would seem less coherent. The estimate is therefore negative about as often as positive where
    the distributions are equal. It is a squared distance: `scipy.stats.energy_distance` gives the root.

    Args:
        paired: row i of both comes from one sample, so that the two are dependent; their distance is left out too.
    """
    return _energy(a_ND, b_MD, paired)[0]


def _energy(a_ND: NDArray[Any], b_MD: NDArray[Any], paired: bool) -> tuple[float, float]:
    """The energy distance and 2 E|A - B|, the most it can be for that."""
    from scipy.spatial.distance import cdist

    def mean(x_ND: NDArray[Any], y_MD: NDArray[Any], without_diagonal: bool) -> float:
        distances_NM = cdist(x_ND, y_MD)
        if not without_diagonal:
            return float(distances_NM.mean())
        n = len(distances_NM)
        return float((distances_NM.sum() - distances_NM.trace()) / (n * (n - 1)))

    across = 2 * mean(a_ND, b_MD, paired)
    return across - mean(a_ND, a_ND, True) - mean(b_MD, b_MD, True), across


def semantic_coherence(z: Sequence[NDArray[Any]], factor_N: NDArray[Any]) -> Coherence:
    """Distributional Semantic Coherence (Eq. 16) for a shared factor, each of whose values is a concept.

    For every value v the energy distance between p(Z¹ | v) and p(Z² | v) on the sphere, of several modalities the mean
    over their pairs. Eq. 16 speaks of the
    projections π_c(Z) onto a concept's subspace, which a trained model does not name; here stands all of z. That
    asks for more: z also holds what is unique to a modality, and a distance of 0 is sufficient, not necessary.

    Args:
        z: (N, D) per modality that expresses the factor; distances between modalities are NaN where that is one.
        factor_N: its value per sample; one that a single sample has is left out. NaN where too few are left.
    """
    from sklearn.preprocessing import normalize

    members = [factor_N == value for value in np.unique(factor_N) if np.count_nonzero(factor_N == value) > 1]
    if not members:
        return Coherence(math.nan, math.nan, math.nan)
    z = [normalize(np.asarray(z_ND, dtype=np.float64)) for z_ND in z]
    pairs = itertools.combinations(z, 2)
    given = [_energy(a_ND[member], b_ND[member], True) for a_ND, b_ND in pairs for member in members]
    between = [
        energy_distance(z_ND[first], z_ND[second])
        for z_ND in z
        for index, first in enumerate(members)
        for second in members[:index]
    ]
    return Coherence(
        distance=float(np.mean([distance for distance, _ in given])) if given else math.nan,
        # A representation that is one point throughout is the same in all modalities: 0, not 0 / 0.
        coefficient=(
            float(np.mean([distance / across if across else 0.0 for distance, across in given])) if given else math.nan
        ),
        between_values=float(np.mean(between)) if between else math.nan,
    )


def information_bounds(
    z: Sequence[NDArray[Any]],
    labels_N: NDArray[np.int64],
    temperature: float,
    batch_size: int,
    seed: int,
    *,
    concentration: float,
    rounds: int = 4,
) -> InformationBounds:
    """The paper's estimates of I(X;Z), I(Z;Y) and I(Z;X|Y), averaged over random batches.

    - Eq. 61 of all cross-modal directions: log B - L_dsc; NaN of one modality. Of two it bounds I(Z¹;Z²), hence I(X;Z)
      of either modality, from below, of more the mean over their pairs. It can exceed neither log B nor, of two,
      I(X¹;X²), the entropy of the shared factors (Eq. 6).
    - Eq. 75 of all ordered pairs of modalities: log B - L_suff. Besides log B its cap is the entropy of the batch's
      labels, as Σ_s softmax_s ≤ 1 over an anchor's |S_y| positives makes its loss at least log |S_y|. With the
      expectation outside the logarithm it can lie far below zero.
    - Eq. 91 of all ordered pairs, without claim to be a bound: it assumes von Mises-Fisher distributions of one
      concentration. A sample counts in its own class mean, so small batches seem compact.

    Args:
        z: (N, D) per modality.
        batch_size: with fewer samples than that, all of them are one batch; incomplete batches are left out.
        concentration: κ of Eq. 91.
        rounds: passes over the samples, each in another order.
    """
    if not len(labels_N):
        return InformationBounds(0, math.nan, math.nan, math.nan, math.nan)
    z = [np.asarray(z_ND, dtype=np.float64) for z_ND in z]
    size = min(batch_size, len(labels_N))
    losses = []
    for batch in _batches(len(labels_N), size, rounds, seed):
        *z_B, labels_B = (torch.from_numpy(array[batch]) for array in (*z, labels_N))
        losses.append(
            (
                coherence_loss(z_B, temperature).item() if len(z_B) > 1 else math.nan,
                sufficiency_loss(z_B, labels_B, temperature).item(),
                1 + minimality_loss(z_B, labels_B).item(),
            )
        )
    info_nce, sup_con, spread = np.mean(losses, axis=0).tolist()
    excess = concentration * mean_resultant_length(concentration, z[0].shape[1]) * spread
    return InformationBounds(size, math.log(size) - info_nce, math.log(size) - sup_con, excess, spread)


def _batches(count: int, size: int, rounds: int, seed: int) -> Iterator[NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        order = rng.permutation(count)
        for start in range(0, count - size + 1, size):
            yield order[start : start + size]


def mean_resultant_length(concentration: float, width: int) -> float:
    """A_d(κ) = I_{d/2}(κ) / I_{d/2-1}(κ) of Eq. 87: the length of the mean of a von Mises-Fisher distribution.

    By its continued fraction: in hundreds of dimensions both Bessel functions underflow, their ratio does not.
    """
    ratio = 0.0
    # Backwards from an order so high that a start at 0 does no harm: beyond κ each step shrinks the error fivefold.
    for step in reversed(range(int(concentration) + 50)):
        ratio = 1 / ((width + 2 * step) / concentration + ratio)
    return ratio


def _run(config: FactorsConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    encoded = encode_measured(config, parent, data, context.begun, tokens=True)
    if not encoded:
        return Outcome([])
    by_modality = {
        name: dict(zip(data.features, np.split(e.z, len(data.features), axis=1), strict=True))
        for name, e in encoded.items()
    }
    points = factor_points(by_modality, data) + routing_points({name: e.tokens for name, e in encoded.items()}, data)
    _, ratio = at_once_and_ratio(config.pruning)
    return Outcome([{"preservation_ratio": ratio, **asdict(point)} for point in points])


def _estimate(run: StageRun, facts: DataFacts) -> float:
    at_once, ratio = at_once_and_ratio(run.config.pruning)
    return probing_seconds(run, facts, at_once, ratio) + _SECONDS


_SECONDS = 0.35  # beside what a probe takes
FACTORS = Stage("factors", 2, FactorsConfig, _run, _estimate, reads_truth=True)
