"""Missing: what is dropped of samples, and that what is measured is the usual probe on what is left."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lacking import lacking
from s3ray.data.dataset import Dataset
from s3ray.data.embedded.three_modalities import three_modalities
from s3ray.data.facts import DataFacts
from s3ray.model import ModelConfig, Pruning, build_model
from s3ray.stages.cost import encoding_seconds, probe_seconds
from s3ray.stages.encode import SAMPLES_AT_ONCE
from s3ray.stages.missing import MISSING, SHARES, MissingConfig, dropped
from s3ray.stages.probe import ClassifierConfig, probed
from s3ray.stages.specialization import SPECIALIZATION, SpecializationConfig, SpecializationSettings
from s3ray.stages.stage import Context

CLASSIFIER = ClassifierConfig(inverse_regularization=1.0, max_iterations=1000, standardize=True)


@pytest.fixture(scope="module")
def three() -> Dataset:
    return three_modalities()


def _missing(data: Dataset, split: str = "train") -> np.ndarray:
    return np.stack([sequences.missing for sequences in data.splits[split].modalities.values()], axis=1)


def test_a_share_is_dropped_and_one_modality_stays(three: Dataset) -> None:
    """Of three, each dropped with probability q: q - q³ / 3 are, since one of all three stays."""
    before = np.zeros((1000, 3), dtype=bool)
    for share in SHARES:
        missing = _missing(dropped(three, share, 0))
        assert not missing.all(axis=1).any()
        assert (missing | ~before).all()  # a larger share drops what a smaller one does
        expected = share - share**3 / 3
        assert missing.mean(axis=0) == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 1000))
        before = missing
    assert not _missing(dropped(three, 0.0, 0)).any()


def test_an_estimate_probes_as_often_as_there_are_shares(three: Dataset) -> None:
    """What is missing is not encoded; the columns of a probe are there all the same."""
    model = ModelConfig(width=16, layers=2, granularity=2, expansion=2, ffn_multiple=2, heads=2)
    training = SpecializationConfig(model=model, training=SpecializationSettings(), batch_size=8, seed=0)
    facts = DataFacts.of(three)
    parent = SPECIALIZATION.planned(training, facts)

    def seconds(*shares: float) -> float:
        config = MissingConfig(
            output="none", on_sphere=True, classifier=CLASSIFIER, pruning=None, shares=shares, seed=0
        )
        return MISSING.planned(config, facts, parent).estimate(facts)

    encoding, probing = encoding_seconds(model, facts, SAMPLES_AT_ONCE), probe_seconds(facts, 16 * 3)
    assert seconds(0.0) == pytest.approx(encoding + probing)
    assert seconds(0.0, 0.75) == pytest.approx(encoding * (2 - 0.75 + 0.75**3 / 3) + 2 * probing)
    assert seconds() == 0.0


def test_draws_follow_from_the_seed_and_the_split(three: Dataset) -> None:
    one = dropped(three, 0.5, 0)
    assert one.fingerprint() == dropped(three, 0.5, 0).fingerprint()
    assert (_missing(one) != _missing(dropped(three, 0.5, 1))).any()
    assert (_missing(one, "valid") != _missing(one, "test")).any()


def test_what_is_missing_already_stays_so_and_is_not_what_stays(tiny_dataset: Dataset) -> None:
    data = lacking(tiny_dataset, train={"right": range(0, 26, 2)}, test={"left": [0, 1, 2]})
    gone = dropped(data, 0.75, 0)
    for split in ("train", "test"):
        assert (_missing(gone, split) | ~_missing(data, split)).all()
        assert not _missing(gone, split).all(axis=1).any()
    assert not gone.train.modalities["left"].missing[::2].any()  # all that these have


@pytest.mark.parametrize("pruning", [None, Pruning(ratio=0.5, pool=4)])
def test_it_is_the_usual_probe_of_what_is_left(
    tiny_model: ModelConfig, tiny_dataset: Dataset, pruning: Pruning | None
) -> None:
    model = build_model(tiny_model, tiny_dataset.features, 0)
    config = MissingConfig(
        output="none", on_sphere=True, classifier=CLASSIFIER, pruning=pruning, shares=(0.0, 0.5), seed=3
    )
    rows = MISSING.run(config, tiny_dataset, model, Context()).rows
    assert [(row["missing"], row["split"]) for row in rows] == [
        (share, split) for share in (0.0, 0.5) for split in ("valid", "test")
    ]
    for share, own in ((0.0, rows[:2]), (0.5, rows[2:])):
        left = dropped(tiny_dataset, share, 3)
        expected = probed(model, left, CLASSIFIER, output="none", on_sphere=True, pruning=pruning).rows
        assert [row["accuracy"] for row in own] == [row["accuracy"] for row in expected]
        assert {row["preservation_ratio"] for row in own} == {pruning.ratio if pruning else 1.0}
        for row, probe in zip(own, expected, strict=True):
            assert row["share_missing"] == _missing(left, row["split"]).mean()
            assert row["probe_converged"] == probe["probe_converged"]
    usual = probed(model, tiny_dataset, CLASSIFIER, output="none", on_sphere=True, pruning=pruning).rows
    assert [row["accuracy"] for row in rows[:2]] == [row["accuracy"] for row in usual]
    assert MISSING.run(dataclasses.replace(config, shares=()), tiny_dataset, model, Context()).rows == []
