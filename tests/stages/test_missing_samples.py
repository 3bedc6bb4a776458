"""Training and measuring where samples lack modalities: two gloo workers do what one worker does, too.

The workers are this file, run as a script.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gloo_workers import be_worker, gap, run_workers
from lacking import lacking
from s3ray.data.dataset import Dataset, Split
from s3ray.methods import METHODS, MethodConfig
from s3ray.model import ModelConfig, Pruning, build_model
from s3ray.model.draws import generator
from s3ray.stages.encode import encode_split, encode_splits
from s3ray.stages.factors import FACTORS, FactorsConfig
from s3ray.stages.modalities import MODALITIES, ModalitiesConfig
from s3ray.stages.probe import ClassifierConfig, ProbeSettings, probe, probed
from s3ray.stages.reference import reference_points
from s3ray.stages.selection import SELECTION, SelectionConfig
from s3ray.stages.specialization import SPECIALIZATION, SpecializationConfig, SpecializationSettings
from s3ray.stages.stage import Context, Outcome
from s3ray.stages.training import OptimizerConfig
from s3ray.stages.variants import VARIANTS, SelectionSettings

BATCH = 12  # of 26 samples: two steps an epoch
MODEL = ModelConfig(width=16, layers=2, granularity=2, expansion=2, ffn_multiple=2, heads=2, dropout=0.1)
OPTIMIZER = OptimizerConfig(epochs=3, learning_rate=1e-3)
CLASSIFIER = ClassifierConfig(inverse_regularization=1.0, max_iterations=1000, standardize=True)
TAKING_PART = tuple(name for name, method in METHODS.items() if method.takes_missing)
JOBS = ("specialization", "specialization, dropout views", "selection", *TAKING_PART)
PRUNINGS = (None, Pruning(ratio=0.4, pool=3), Pruning(ratio=0.4, pool=3, scope="model"))


@contextlib.contextmanager
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def incomplete(data: Dataset) -> Dataset:
    """In the first step rank 0's samples lack `right`; in the second nobody has it; two have it alone."""
    first = torch.randperm(26, generator=generator("order", 0, 0)).tolist()
    train = {"right": [*first[:6], *first[12:24]], "left": first[6:8]}
    return lacking(data, train=train, valid={"right": [0, 4, 5]}, test={"left": [1], "right": [2, 3]})


def _run(job: str, data: Dataset) -> Outcome:
    if job in METHODS:
        method = METHODS[job]
        config = MethodConfig(
            model=dataclasses.replace(MODEL, granularity=1, expansion=1, expert_scale="one"),
            optimizer=OPTIMIZER,
            loss=method.settings(),
            batch_size=BATCH,
            seed=0,
        )
        return method.stage.run(config, data, None, Context())
    if job == "selection":
        loss = VARIANTS["suff+min"].configure(SelectionSettings(positives="others"))
        selection = SelectionConfig(
            variant="suff+min", version=1, loss=loss, optimizer=OPTIMIZER, batch_size=BATCH, seed=0
        )
        return SELECTION.run(selection, data, build_model(MODEL, data.features, seed=0), Context())
    settings = SpecializationSettings(optimizer=OPTIMIZER, views="dropout" if job.endswith("views") else "same")
    return SPECIALIZATION.run(
        SpecializationConfig(model=MODEL, training=settings, batch_size=BATCH, seed=0), data, None, Context()
    )


def run_jobs(data: Dataset) -> dict[str, Any]:
    """On one worker, or on every rank of a group."""
    results: dict[str, Any] = {}
    for job in JOBS:
        with _double():
            outcome = _run(job, data)
        assert outcome.weights is not None
        results[job] = {"weights": dict(outcome.weights), "metrics": outcome.rows}
    model = build_model(MODEL, data.features, seed=0)
    results["curve"] = [
        tuple(value for name, value in row.items() if not name.endswith("_seconds"))
        for pruning in PRUNINGS
        for row in probed(model, data, ProbeSettings().classifier, output="none", on_sphere=True, pruning=pruning).rows
    ]
    return results


@pytest.fixture(scope="module")
def data(tiny_dataset: Dataset) -> Dataset:
    return incomplete(tiny_dataset)


@pytest.fixture(scope="module")
def alone(data: Dataset) -> dict[str, Any]:
    return run_jobs(data)


@pytest.mark.slow
def test_workers_whose_shard_lacks_a_modality_do_what_one_worker_does(
    alone: dict[str, Any], data: Dataset, tmp_path: Path
) -> None:
    ranks = run_workers(__file__, data, tmp_path)
    for job in JOBS:
        expected = alone[job]["weights"]
        assert gap(ranks[0][job]["weights"], expected) < 1e-9
        assert gap(ranks[1][job]["weights"], ranks[0][job]["weights"]) == 0.0
        for row, wanted in zip(ranks[0][job]["metrics"], alone[job]["metrics"], strict=True):
            assert row == pytest.approx(wanted, rel=1e-8, abs=1e-8, nan_ok=True)
    assert ranks[0]["curve"] == alone["curve"]


@pytest.mark.slow
def test_training_goes_on_where_nobody_has_a_modality(alone: dict[str, Any]) -> None:
    for job in JOBS:
        rows = alone[job]["metrics"]
        assert len(rows) == 6
        measured = ("local_entropy/", "global_entropy/", "expert_share/")
        assert all(math.isfinite(v) for row in rows for name, v in row.items() if not name.startswith(measured))
    # The second step is that in which nobody has `right`: nothing is across, no token is routed, and
    # what is told of its routers is not known.
    first, second = alone["specialization"]["metrics"][:2]
    assert first["dsc"] > 0.0
    assert second["dsc"] == 0.0
    for name in ("local_entropy/right", "global_entropy/right", "expert_share/right/0"):
        assert math.isnan(second[name])
        assert math.isfinite(first[name])
        assert math.isfinite(second[name.replace("right", "left")])


@pytest.mark.parametrize("variant", [name for name, variant in VARIANTS.items() if variant.config])
def test_every_variant_trains_on(variant: str, data: Dataset) -> None:
    loss = VARIANTS[variant].configure(SelectionSettings())
    version = VARIANTS[variant].version
    config = SelectionConfig(variant=variant, version=version, loss=loss, optimizer=OPTIMIZER, batch_size=BATCH, seed=0)
    outcome = SELECTION.run(config, data, build_model(MODEL, data.features, seed=0), Context())
    assert all(math.isfinite(row["loss"]) for row in outcome.rows)


@pytest.mark.parametrize("scope", ["layer", "modality", "model"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_pools_of_the_others_are_as_if_it_were_not_there(scope: Any, pooling: Any, data: Dataset) -> None:
    """What is pruned of one pool with `right` missing is what is pruned of the samples that have it."""
    model = build_model(dataclasses.replace(MODEL, pooling=pooling), data.features, seed=0).double()
    split = data.test
    has_N = ~split.modalities["right"].missing
    pruning = Pruning(ratio=0.5, pool=100, scope=scope)
    batch = {n: r.to(torch.device("cpu"), torch.float64) for n, r in split.batch(np.arange(len(split))).items()}
    encoded = model.eval().encode(batch, pruning=pruning)
    rest = split.modalities["right"].batch(np.flatnonzero(has_N)).to(torch.device("cpu"), torch.float64)
    fewer = model.encode({"left": batch["left"], "right": rest}, pruning=pruning)
    for (ours, theirs), rows in zip(zip(encoded.parts, fewer.parts, strict=True), (slice(None), has_N), strict=True):
        assert torch.equal(ours[rows], theirs)
    assert encoded.pairs_computed == fewer.pairs_computed
    assert encoded.pairs_routed == fewer.pairs_routed


def test_the_probe_is_told_what_is_missing(data: Dataset) -> None:
    model = build_model(MODEL, data.features, seed=0)
    encoded = encode_splits(model, data, output="none", on_sphere=True)
    labels = {name: split.labels for name, split in data.splits.items()}
    width = MODEL.width
    features = {}
    for name, split in data.splits.items():
        missing = [split.modalities[m].missing for m in ("left", "right")]
        z = encoded[name].z
        assert not z[missing[0], :width].any()
        assert not z[missing[1], width:].any()
        assert np.linalg.norm(z[~missing[0], :width], axis=1) == pytest.approx(1.0)
        features[name] = z
    told = {
        name: np.column_stack([split.modalities[m].missing for m in ("left", "right")])
        for name, split in data.splits.items()
    }
    expected = probe(features, labels, CLASSIFIER, told)
    rows = probed(model, data, CLASSIFIER, output="none", on_sphere=True).rows
    assert [row["accuracy"] for row in rows] == [expected.correct[s].mean() for s in ("valid", "test")]
    for name, columns in data.indicators().items():  # as many in every split
        assert np.array_equal(columns, told[name])
    left = {name: columns[:, :1] for name, columns in told.items()}
    alone = probe({s: x[:, :width] for s, x in features.items()}, labels, CLASSIFIER, left)
    config = ModalitiesConfig(output="none", on_sphere=True, classifier=CLASSIFIER, pruning=None)
    (row,) = (
        row
        for row in MODALITIES.run(config, data, model, Context()).rows
        if (row["split"], row["modality"]) == ("test", "left")
    )
    assert row["alone"] == alone.correct["test"].mean()
    assert math.isfinite(row["pairs_kept"])


def test_of_complete_data_there_are_no_indicators(tiny_dataset: Dataset) -> None:
    assert tiny_dataset.indicators() == {}
    assert tiny_dataset.lacking == {}


@pytest.mark.parametrize("gone", [0, 1, 30])
def test_the_few_that_lack_a_modality_do_not_decide_for_the_others_that_do(gone: int) -> None:
    """Half of test lacks what none, one or more of 300 training samples lack, and is told by the other modality."""
    rng = np.random.default_rng(0)
    labels = {"train": np.arange(300) % 3, "test": np.arange(600) % 3}
    features = {s: 2.0 * np.eye(3)[y] + rng.normal(size=(len(y), 3)) for s, y in labels.items()}
    told = {"train": (np.arange(300) < gone)[:, None], "test": (np.arange(600) < 300)[:, None]}
    half = told["test"][:, 0]
    without = probe(features, labels, CLASSIFIER).correct["test"]
    with_them = probe(features, labels, CLASSIFIER, told).correct["test"]
    assert with_them[half].mean() == pytest.approx(without[half].mean(), abs=0.02)


def test_raw_features_of_what_is_missing_are_0_and_told(data: Dataset) -> None:
    points = {(p.reference, p.split): p.accuracy for p in reference_points(data, CLASSIFIER)}
    labels = {name: split.labels for name, split in data.splits.items()}
    features = {
        name: np.array([step.mean(axis=0) if len(step) else np.zeros(3) for step in _steps(split)])
        for name, split in data.splits.items()
    }
    assert not features["valid"][[0, 4, 5]].any()
    told = {name: split.modalities["right"].missing[:, None] for name, split in data.splits.items()}
    scores = [
        probe(features, labels, dataclasses.replace(CLASSIFIER, inverse_regularization=c), told).correct
        for c in (1.0, 0.1, 10.0)
    ]
    best = max(scores, key=lambda correct: correct["valid"].mean())  # of equals the first
    assert points["raw right", "test"] == best["test"].mean()


def _steps(split: Split) -> list[np.ndarray]:
    right = split.modalities["right"]
    return np.split(right.values.astype(np.float64), right.offsets[1:-1])


def test_a_sample_is_encoded_without_what_it_lacks(data: Dataset) -> None:
    """Padding is routed: what is missing is not padded."""
    config = dataclasses.replace(MODEL, padding="routed")
    run = SPECIALIZATION.planned(
        SpecializationConfig(model=config, training=SpecializationSettings(), batch_size=BATCH, seed=0),
        _facts(data),
    )
    seen = run.visible(data)
    assert set(seen.train.modalities["right"].lengths.tolist()) == {0, 6}
    z = encode_split(build_model(config, data.features, 0), seen.valid, output="none", on_sphere=True).z
    assert not z[[0, 4, 5], MODEL.width :].any()


def _facts(data: Dataset) -> Any:
    from s3ray.data.facts import DataFacts

    return DataFacts.of(data)


def _factor_rows(data: Dataset) -> list[dict[str, Any]]:
    def known(split: Any) -> Any:
        return dataclasses.replace(split, truth=(2.0 * (split.labels[:, None] % 2) - 1.0).astype(np.float32))

    splits = {name: known(split) for name, split in data.splits.items()}
    simulated = dataclasses.replace(data, **splits, truth_names=("shared_0",), relevant_factors=("shared_0",))
    config = FactorsConfig(output="none", on_sphere=True, pruning=None)
    return FACTORS.run(config, simulated, build_model(MODEL, data.features, 0), Context()).rows


@pytest.mark.parametrize("both", [0, 1])
def test_factors_of_too_few_samples_are_not_known(both: int, tiny_dataset: Dataset) -> None:
    """One sample of test has `right`; nobody, or that one, has both."""
    few = lacking(tiny_dataset, test={"right": range(1, 9), "left": [] if both else [0]})
    rows = [row for row in _factor_rows(few) if row["split"] == "test"]
    told = {(row["quantity"], row["modality"]): (row["value"], row["samples"]) for row in rows}
    for quantity, modality, samples in (
        ("R2", "right", 1), ("share of variance", "right", 1), ("energy distance", "both", both)
    ):  # fmt: skip
        value, found = told[quantity, modality]
        assert math.isnan(value)
        assert found == samples
    assert math.isfinite(told["R2", "both"][0])


def test_factors_are_read_of_those_that_have_the_modality(data: Dataset) -> None:
    rows = _factor_rows(data)
    samples = {row["modality"]: row["samples"] for row in rows if row["split"] == "test" and row["quantity"] == "R2"}
    assert samples == {"both": 9, "left": 8, "right": 7}
    (distance,) = (row for row in rows if row["split"] == "test" and row["quantity"] == "energy distance")
    assert distance["samples"] == 6


if __name__ == "__main__":
    be_worker(run_jobs)
