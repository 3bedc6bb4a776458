"""Missing: what accuracy is left where samples lack modalities that the encoders were trained with.

The rule, written before results: of every sample, valid and test and train alike, each modality that it has is dropped
with the same probability, one share after another; where all would be, the one stays whose draw was the highest. Draws
follow from the cell's seed and do not depend on the share, so that a larger one drops what a smaller one does, and
more. Since one stays, fewer are missing than were drawn: of M modalities and a probability q on average a share of
q - q^M / M of all (sample, modality) pairs; the share that is missing in truth stands beside it. What is dropped is not
there: the samples are encoded again without it. The probe is fitted on the training split that lacks as much, so that
it has seen what it is asked; the encoders stay as they were trained. No p is chosen here: p* is that of the usual
curve, on validation data as they are.

What training itself lacks stays missing: a share of 0 is of the data as they are.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from s3ray.data.dataset import Dataset, Split
from s3ray.data.facts import DataFacts
from s3ray.model import Pruning, TrainedModel
from s3ray.model.draws import Source, seed_of
from s3ray.stages.cost import encoding_seconds, probe_seconds
from s3ray.stages.encode import at_once_and_ratio
from s3ray.stages.probe import ClassifierConfig, probed
from s3ray.stages.stage import Context, Outcome, Stage, StageRun

SHARES = (0.0, 0.1, 0.25, 0.5, 0.75)


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingConfig:
    """All that is read beside the data and the trained model."""

    output: str  # what is probed of the model
    on_sphere: bool
    classifier: ClassifierConfig
    pruning: Pruning | None
    shares: tuple[float, ...]  # of each modality that is dropped, one after another
    seed: int  # of the draws


@dataclass(frozen=True, slots=True)
class MissingPoint:
    """Accuracy on a split at a preservation ratio, where samples lack modalities."""

    preservation_ratio: float
    missing: float  # probability with which each modality of a sample was dropped, but for one
    share_missing: float  # of the split's (sample, modality) pairs, those that the data lacked before among them
    split: str
    accuracy: float
    samples: int
    probe_converged: bool


def dropped(data: Dataset, share: float, seed: int) -> Dataset:
    """A dataset of which each modality of a sample is missing with a probability; at least one that it has stays."""
    train, valid, test = (_dropped(split, share, seed, name) for name, split in data.splits.items())
    return dataclasses.replace(data, train=train, valid=valid, test=test)


def _dropped(split: Split, share: float, seed: int, name: str) -> Split:
    """Draws are of (seed, split); a sample's are in the order of the modalities."""
    present_NM = np.stack([~sequences.missing for sequences in split.modalities.values()], axis=1)
    drawn_NM = Source(seed_of("missing", seed, name)).uniform(*present_NM.shape).numpy()
    drawn_NM[~present_NM] = -1.0
    stays_NM = drawn_NM >= share
    stays_NM[np.arange(len(split)), drawn_NM.argmax(axis=1)] = True
    kept_NM = stays_NM & present_NM
    modalities = {
        m: sequences.where(kept_N) for (m, sequences), kept_N in zip(split.modalities.items(), kept_NM.T, strict=True)
    }
    return dataclasses.replace(split, modalities=modalities)


def _run(config: MissingConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    assert parent is not None
    points = []
    for share in config.shares:
        left = dropped(data, share, config.seed)
        measured = probed(
            parent,
            left,
            config.classifier,
            output=config.output,
            on_sphere=config.on_sphere,
            pruning=config.pruning,
        )
        points += [
            MissingPoint(
                preservation_ratio=row["preservation_ratio"],
                missing=share,
                share_missing=_share_missing(left.splits[row["split"]]),
                split=row["split"],
                accuracy=row["accuracy"],
                samples=row["samples"],
                probe_converged=row["probe_converged"],
            )
            for row in measured.rows
        ]
    return Outcome([dataclasses.asdict(point) for point in points])


def _share_missing(split: Split) -> float:
    return float(np.mean([sequences.missing for sequences in split.modalities.values()]))


def _estimate(run: StageRun, facts: DataFacts) -> float:
    """Encode what is left, one share after another; a probe has as many columns whatever is missing."""
    at_once, ratio = at_once_and_ratio(run.config.pruning)
    model, count, shares = run.root.config.model, len(facts.features), run.config.shares
    left: float = sum(1 - share + share**count / count for share in shares)
    probing = len(shares) * probe_seconds(facts, model.width * count)
    return left * encoding_seconds(model, facts, at_once, ratio) + probing


MISSING = Stage("missing", 2, MissingConfig, _run, _estimate)
