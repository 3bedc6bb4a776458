"""The public API, as notebooks and programs use it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

import s3ray
from s3ray import Dataset, FinishedStore, Model
from s3ray.api.certificate import certify
from s3ray.data.standardize import Standardizer, standardized
from s3ray.errors import UserError
from s3ray.execution import gc
from s3ray.execution.stored import stored
from s3ray.model import Encoding
from s3ray.stages.encode import encode_split
from s3ray.store import Store
from s3ray.sweep import STAGES, make_plan
from short_sweep import SHORT, fill
from toy_runs import commit, overwrite, toy_run

NAME = "weights.safetensors"


def cells(study: s3ray.Study) -> list[s3ray.Cell]:
    (name,) = study.datasets
    return [*(study.cell(name, 2, 8, seed) for seed in study.seeds(name)), study.prior(name, "factorcl", 8, 0)]


SWEEP = s3ray.Sweep("short", cells, ("none", "suff+min"), modalities=True, missing=True)


@pytest.fixture(scope="module")
def finished(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> FinishedStore:
    """Two seeds of S3 with two branches, and FactorCL with its outputs."""
    store = s3ray.open_store(str(tmp_path_factory.mktemp("store")))
    fill(store, SWEEP, tiny_dataset, SHORT)
    return store


def selected(store: FinishedStore) -> Model:
    return store.model(dataset="tiny", granularity=2, seed=0, branch="suff+min")


def batch_of(split: s3ray.Split) -> dict[str, Any]:
    """A split's samples as arrays (steps, features)."""
    return {name: np.split(s.values, s.offsets[1:-1]) for name, s in split.modalities.items()}


WITHOUT_RAY = """
import sys
class NoRay:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise ImportError("no ray here")
sys.meta_path.insert(0, NoRay())

import s3ray
assert not {"torch", "ray", "pandas", "numpy"} & sys.modules.keys()
import numpy as np
store = s3ray.open_store(sys.argv[1])
assert [study.rpartition("-")[0] for study in store.studies()] == ["short"]
assert set(store.rows().columns) == s3ray.COLUMNS["rows"].keys()
model = store.model(seed=0, branch="suff+min")
rng = np.random.default_rng(0)
assert model.encode({"left": rng.normal(size=(3, 5)), "right": rng.normal(size=(3, 3))}, 0.4).shape == (3, 32)
def samples(n):
    y = np.arange(n) % 2
    return {"a": rng.normal(size=(n, 4, 3)) + y[:, None, None], "b": rng.normal(size=(n, 2))}, y
data = s3ray.dataset("mine", train=samples(64), valid=samples(8), test=samples(8))
sweep = s3ray.Sweep("mine", lambda study: [study.cell("mine", 2, 64, 0)], ("none",))
plan = s3ray.plan(sweep, s3ray.study({"mine": data}, scale="smoke"), store)
assert plan.summary()["cells"] == {"total": 1, "cached": 0, "to_run": 1}
try:
    s3ray.run(plan, store)
except ImportError as error:
    print(error)
assert "ray" not in sys.modules
"""


def test_only_running_needs_ray(finished: FinishedStore) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_RAY, finished.store.uri], capture_output=True, text=True, timeout=120
    )
    assert (ended.stdout, ended.returncode) == ("no ray here\n", 0), ended.stderr


def test_every_name_of_the_api_is_there() -> None:
    assert set(s3ray.__all__) <= set(dir(s3ray))
    assert all(getattr(s3ray, name) is not None for name in s3ray.__all__)
    with pytest.raises(AttributeError, match="no attribute 'opne_store'"):
        s3ray.opne_store  # noqa: B018  # asked for, not called


def test_a_stores_tables(finished: FinishedStore, tmp_path: Path) -> None:
    rows = finished.rows()
    assert len(rows) == (2 * 2 * 2 + 2) * 2  # seeds, branches, ratios, FactorCL's outputs; splits
    assert set(finished.references("short")["reference"]) == {
        "majority class",
        "raw features",
        "raw left",
        "raw right",
        "raw means and deviations",
    }
    assert set(finished.entropies()["modality"]) == {"left", "right"}
    assert finished.factors().empty
    empty = s3ray.open_store(str(tmp_path / "empty"))
    assert empty.studies() == []
    with pytest.raises(UserError, match=r"^open_store .*/empty: holds no results of any sweep; run a sweep first$"):
        empty.rows()
    with pytest.raises(UserError, match="holds no results of 'long'; known: short, short-"):
        finished.rows("long")


def test_a_stores_controls_and_contributions(finished: FinishedStore, tmp_path: Path) -> None:
    controls = finished.controls()
    assert set(controls.columns) == s3ray.COLUMNS["controls"].keys()
    # Seeds, branches and splits: at random at p = 0.4, no expert, untrained; none of FactorCL.
    assert len(controls) == 2 * 2 * 2 * 3
    assert set(zip(controls["control"], controls["preservation_ratio"], strict=True)) == {
        ("random", 0.4),
        ("no expert", 0.0),
        ("untrained", 1.0),
    }
    contributions = finished.contributions("short")
    assert set(contributions.columns) == s3ray.COLUMNS["contributions"].keys()
    assert set(contributions["after"]) == {"initialisation", "Specialization", "Selection"}
    assert set(contributions["modality"]) == {"left", "right"}
    empty = s3ray.open_store(str(tmp_path / "empty"))
    for table in (empty.controls, empty.contributions):
        with pytest.raises(UserError, match="holds no results of any sweep"):
            table()


def test_sweeps_begin_with_the_one_written_last(finished: FinishedStore, tiny_dataset: Dataset, tmp_path: Path) -> None:
    store = s3ray.open_store(shutil.copytree(finished.store.base, tmp_path / "copy"))
    for name in ("b", "a"):
        fill(store, s3ray.Sweep(name, lambda study: [study.cell("tiny", 2, 8, 0)], ("none",)), tiny_dataset, SHORT)
    assert [study.rpartition("-")[0] for study in store.studies()] == ["a", "b", "short"]
    assert set(store.rows()["sweep"]) == {"a"}
    assert store.model(sweep="short", seed=1, branch="none").modalities == ("left", "right")
    found = store.diff("short-", "a-", also=store)
    assert list(map(str, found.changes)) == ['sweep "short" → "a"']
    # Without Selection at two ratios, and without any expert.
    assert found.rows["verdict"].tolist() == ["same runs"] * 3
    (alone,) = found.notes
    assert alone.startswith("A alone has ")
    assert "method factorcl; branch suff+min; seed 1." in alone


@contextmanager
def recorded_pairs(model: Model, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Pairs computed, per batch that the model's encoders were given."""
    pairs: list[int] = []
    encode = model.module.encode

    def recording(*arguments: Any) -> Encoding:
        encoding = encode(*arguments)
        pairs.append(encoding.pairs_computed)
        return encoding

    with monkeypatch.context() as patch:
        patch.setattr(model.module, "encode", recording)
        yield pairs


@pytest.mark.parametrize("ratio", [1.0, 0.4])
@pytest.mark.parametrize("branch", ["none", "suff+min"])
def test_a_model_encodes_what_its_sweep_probed(
    finished: FinishedStore, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, ratio: float, branch: str
) -> None:
    """Bit for bit what the stage encodes, and as many pairs as its rows say."""
    model = finished.model(seed=0, branch=branch)
    assert model.pool == 8  # the sweep's
    plan = s3ray.plan(SWEEP, s3ray.study([tiny_dataset], overrides=SHORT), finished)
    (measured,) = [run for b in plan.cells[0].branches if b.branch == branch for run in b.curve][ratio < 1 :][:1]
    pruning = None if ratio == 1.0 else measured.config.pruning
    expected = encode_split(model.module, tiny_dataset.test, output="none", on_sphere=True, pruning=pruning).z
    with recorded_pairs(model, monkeypatch) as pairs:
        got = model.encode(tiny_dataset.test, ratio)
    assert np.array_equal(got, expected)
    rows = finished.rows().query("method == 's3' and seed == 0 and split == 'test'")
    (row,) = rows[(rows["branch"] == branch) & (rows["preservation_ratio"] == ratio)].to_dict("records")
    assert sum(pairs) == row["pairs_kept"]
    assert (row["pairs_kept"] < row["pairs_routed"]) == (ratio < 1.0)
    assert np.array_equal(model.encode(tiny_dataset, ratio)["test"], got)
    assert model.parameters.active(1.0, "paper") == pytest.approx(
        rows[rows["preservation_ratio"] == 1.0]["active_parameters_paper"].iloc[0]
    )


def test_routing_tells_every_pair_that_the_model_computes(finished: FinishedStore, tiny_dataset: Dataset) -> None:
    """As many pairs as the rows say; without those that pruning takes, the largest weights are left."""
    model, split = selected(finished), tiny_dataset.test
    whole, pruned = model.routing(split), model.routing(split, 0.4)
    rows = finished.rows().query("method == 's3' and seed == 0 and branch == 'suff+min' and split == 'test'")
    for frame, ratio in ((whole, 1.0), (pruned, 0.4)):
        (row,) = rows[rows["preservation_ratio"] == ratio].to_dict("records")
        assert (len(frame), frame["kept"].sum()) == (row["pairs_routed"], row["pairs_kept"])
    for name, sequences in split.modalities.items():
        own = whole[whole["modality"] == name]
        steps = own.groupby("sample")["step"].nunique()
        assert steps.tolist() == sequences.lengths.tolist()
        pairs = own.groupby(["sample", "step", "layer"])
        assert set(pairs.size()) == {2}  # top-2 of 16 experts, each once
        assert set(pairs["expert"].nunique()) == {2}
        assert own["expert"].between(0, 15).all()
        assert all(pairs["weight"].apply(lambda weights: weights.is_monotonic_decreasing))
    pools = pruned.assign(pool=pruned["sample"] // model.pool).groupby(["modality", "layer", "pool"])
    for _, pool in pools:
        assert pool["kept"].sum() == -(-4 * len(pool) // 10)
        assert pool[pool["kept"]]["weight"].min() >= pool[~pool["kept"]]["weight"].max()
    assert not model.routing(split, 0.0)["kept"].any()


def test_routing_of_one_sample_and_of_one_that_lacks_a_modality(finished: FinishedStore) -> None:
    model = selected(finished)
    batch = {"left": [np.ones((3, 5)), np.ones((0, 5))], "right": [np.ones((1, 3)), np.ones((2, 3))]}
    found = model.routing(batch, 0.4)  # a batch is one pool
    tokens = found[["modality", "sample", "step"]].drop_duplicates()
    expected = [("left", 0, 0), ("left", 0, 1), ("left", 0, 2), ("right", 0, 0), ("right", 1, 0), ("right", 1, 1)]
    assert list(tokens.itertuples(index=False, name=None)) == expected
    alone = model.routing({name: values[:1] for name, values in batch.items()})
    assert alone.groupby("modality")["step"].nunique().to_dict() == {"left": 3, "right": 1}
    assert alone["kept"].all()
    with pytest.raises(UserError, match="lacks modality 'right'"):
        model.routing({"left": batch["left"]})
    prior = finished.model(method="factorcl", branch="emb")
    with pytest.raises(UserError, match=r"^routing: a prior method's encoders are dense and have no router"):
        prior.routing(batch)


def test_a_store_gives_the_data_of_a_sweep(finished: FinishedStore, tiny_dataset: Dataset, tmp_path: Path) -> None:
    assert finished.dataset().content() == finished.dataset("tiny", "short").content() == tiny_dataset.content()
    with pytest.raises(UserError, match=r"^dataset: 'tony' is none of the sweep's; did you mean 'tiny'\? known: tiny$"):
        finished.dataset("tony")
    store = s3ray.open_store(shutil.copytree(finished.store.base, tmp_path / "copy"))
    shutil.rmtree(tmp_path / "copy" / "data")
    with pytest.raises(UserError, match="published dataset is not whole; run the sweep again"):
        store.dataset()
    other = dataclasses.replace(tiny_dataset, name="other")
    two = s3ray.Sweep("two", lambda study: [study.cell(name, 2, 8, 0) for name in study.datasets], ("none",))
    fill(store, two, [tiny_dataset, other], SHORT)
    with pytest.raises(UserError, match=r"^dataset: which one is not said; known: other, tiny$"):
        store.dataset()


def test_a_model_of_own_data_takes_samples_as_they_are(tmp_path: Path) -> None:
    """Through the store: the sweep's data are standardised and subsampled, what a user gives is not."""
    overrides = {**SHORT, "max_steps": 3}
    rng = np.random.default_rng(0)

    def samples(n: int) -> tuple[dict[str, Any], Any]:
        y = np.arange(n) % 2
        return {"left": 1e6 * rng.normal(size=(n, 5, 3)) + y[:, None, None], "right": rng.normal(size=(n, 2))}, y

    raw = s3ray.dataset("own", train=samples(16), valid=samples(8), test=samples(8))
    store = s3ray.open_store(str(tmp_path))
    sweep = s3ray.Sweep("own", lambda study: [study.cell("own", 2, 8, 0)], ("none",))
    study = s3ray.study([raw], overrides=overrides)
    fill(store, sweep, study.data["own"], overrides)
    model = store.model(dataset="own")
    assert model.max_steps == {"left": 3}
    expected = encode_split(model.module, study.data["own"].test, output="none", on_sphere=True).z
    assert np.array_equal(model.encode(batch_of(raw.test)), expected)
    assert np.array_equal(model.encode(raw)["test"], expected)
    assert np.array_equal(model.encode(study.data["own"])["test"], expected)
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(UserError, match=r"dataset is not whole|no prepared dataset"):
        store.model(dataset="own")


def test_new_samples_are_standardised_as_those_of_its_sweep_were(
    finished: s3ray.FinishedStore, tiny_dataset: Dataset
) -> None:
    data = standardized(tiny_dataset)
    how = {name: Standardizer.restored(plain) for name, plain in data.facts["standardized"].items()}
    model = selected(finished)
    own = dataclasses.replace(model, standardizers=how)
    expected = model.encode(data.test)
    assert not np.array_equal(model.encode(tiny_dataset.test), expected)
    assert np.array_equal(own.encode(tiny_dataset.test), expected)
    assert np.array_equal(own.encode(data)["test"], expected)  # once is enough
    assert np.array_equal(own.encode(batch_of(tiny_dataset.test)), expected)


def test_a_probe_of_what_the_model_encodes_scores_what_the_row_says(
    finished: FinishedStore, tiny_dataset: Dataset
) -> None:
    """The weights are those that were probed: a row's accuracy comes out again."""
    from s3ray.stages.probe import probe

    model = selected(finished)
    labels = {name: split.labels for name, split in tiny_dataset.splits.items()}
    score = probe(model.encode(tiny_dataset, 0.4), labels, model.probe.classifier)
    rows = finished.rows().query("branch == 'suff+min' and seed == 0 and preservation_ratio == 0.4")
    assert {split: correct.mean() for split, correct in score.correct.items()} == dict(
        zip(rows["split"], rows["accuracy"], strict=True)
    )


def test_a_batch_is_one_pool_and_may_be_arrays_or_ragged(finished: FinishedStore, tiny_dataset: Dataset) -> None:
    model, split = selected(finished), tiny_dataset.test
    whole = model.encode(split, 0.4, pool=len(split))
    assert np.array_equal(model.encode(batch_of(split), 0.4), whole)
    assert np.array_equal(model.encode(split.batch(np.arange(len(split))), 0.4), whole)
    assert not np.array_equal(model.encode(batch_of(split), 0.4, pool=3), whole)
    backwards = dict(reversed(batch_of(split).items())) | {"unheard": np.zeros((len(split), 2))}
    assert np.array_equal(model.encode(backwards, 0.4), whole)


def test_on_the_sphere_unless_told_otherwise(finished: FinishedStore, tiny_dataset: Dataset) -> None:
    model = selected(finished)
    z, flat = (model.encode(tiny_dataset.valid, on_sphere=sphere) for sphere in (None, False))
    assert z.shape == (10, 32)
    assert np.linalg.norm(z[:, :16], axis=1) == pytest.approx(np.ones(10), abs=1e-6)
    assert not np.allclose(np.linalg.norm(flat[:, :16], axis=1), 1.0, atol=1e-2)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"left": np.zeros((2, 3)), "right": np.zeros((2, 5))}, "batch: left has 3 features, the model was trained"),
        ({"left": np.zeros((2, 5))}, "batch: lacks modality 'right', which the model encodes; known: left"),
        ({}, "batch: lacks modality 'left'"),
        ({"left": np.zeros((2, 5)), "right": np.zeros((3, 3))}, "batch: holds 2 of left, 3 of right; give every"),
        ({"left": np.zeros((0, 5)), "right": np.zeros((0, 3))}, "batch: holds 0 of left, 0 of right; give every"),
        ({"left": np.full((2, 5), np.nan), "right": np.zeros((2, 3))}, "batch: batch_left has 10 values that are NaN"),
        ({"left": np.zeros(2), "right": np.zeros((2, 3))}, "batch: batch_left must be numbers of shape"),
    ],
)
def test_a_batch_that_does_not_fit(finished: FinishedStore, batch: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        selected(finished).encode(batch)
    assert str(caught.value).startswith(says)


def test_a_dataset_that_does_not_fit(finished: FinishedStore, tiny_dataset: Dataset) -> None:
    x, y = batch_of(tiny_dataset.train), tiny_dataset.train.labels
    swapped = {"left": x["right"], "right": x["left"]}
    other = s3ray.dataset("other", train=(swapped, y), valid=(swapped, y), test=(swapped, y))
    with pytest.raises(UserError, match=r"^other, train: left has 3 features, the model was trained with 5; "):
        selected(finished).encode(other)


def test_a_ratio_outside_its_range(finished: FinishedStore, tiny_dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"preservation ratio 1.4 is outside \[0, 1\]"):
        selected(finished).encode(tiny_dataset.test, 1.4)


def test_a_prior_method_is_not_pruned(finished: FinishedStore, tiny_dataset: Dataset) -> None:
    branches = finished.rows().query("method == 'factorcl'")["branch"].unique()
    z = [finished.model(method="factorcl", branch=b).encode(tiny_dataset.test) for b in branches]
    assert len(z) == 2
    assert z[0].shape != z[1].shape or not np.array_equal(*z)
    with pytest.raises(UserError, match="a prior method's encoders are dense; leave it at 1"):
        finished.model(method="factorcl", branch=branches[0]).encode(tiny_dataset.test, 0.4)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"seed": 7}, "model: none has seed=7 among those of method='s3'; known: 0, 1"),
        ({"dataset": "tny"}, "model: none has dataset='tny'; did you mean 'tiny'? known: tiny"),
        ({"granularity": 16, "seed": 0}, "model: none has granularity=16 among those of method='s3'; known: 2"),
        ({"method": "clip"}, "model: none has method='clip'; known: factorcl, s3"),
        ({"seed": 0}, "model: 2 fit method='s3', seed=0; choose of branch: none, suff+min"),
        ({"method": None, "branch": "none"}, "model: 2 fit branch='none'; choose of seed: 0, 1"),
        ({}, "model: 4 fit method='s3'; choose of seed: 0, 1; branch: none, suff+min"),
    ],
)
def test_none_fits_or_several_do(finished: FinishedStore, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        finished.model(**asked)
    assert str(caught.value) == says


@pytest.mark.parametrize("stage", ["specialization", "selection"])
def test_damage_is_found(finished: FinishedStore, tmp_path: Path, stage: str) -> None:
    store = s3ray.open_store(shutil.copytree(finished.store.base, tmp_path / "copy"))
    for file in Path(store.store.base, "artifacts", stage).rglob(NAME):
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    with pytest.raises(UserError, match=rf"/artifacts/{stage}/.*/{NAME}: damaged, and set aside as"):
        selected(store)
    with pytest.raises(UserError, match=r"/artifacts/selection/\w+: not there, or not whole; run the sweep again"):
        selected(store)


def test_another_versions_model_is_refused(finished: FinishedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "selection", dataclasses.replace(STAGES["selection"], version=99))
    with pytest.raises(UserError, match="of version 1 of selection, which this s3ray does not have"):
        selected(finished)


def test_a_studys_settings(tiny_dataset: Dataset) -> None:
    study = s3ray.study({"mine": tiny_dataset}, scale="paper", overrides={"dataset": {"mine": {"seeds": [5]}}})
    assert study.seeds("mine") == (5,)
    assert study.entries["mine"].scale == "paper"
    assert study.data == {"mine": tiny_dataset}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"overrides": {"sedes": [5]}}, "overrides: unknown field 'sedes'; did you mean 'seeds'?"),
        ({"overrides": {"dataset": {"tyny": {}}}}, "overrides: table [dataset.tyny] fits no dataset; did you mean"),
        ({"scale": "huge"}, "--scale: unknown scale 'huge'; known: paper, smoke"),
    ],
)
def test_a_study_that_cannot_be(tiny_dataset: Dataset, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        s3ray.study([tiny_dataset], **arguments)
    assert str(caught.value).startswith(says)


@pytest.mark.parametrize("count", [0, 2])
def test_a_study_has_each_dataset_once(tiny_dataset: Dataset, count: int) -> None:
    with pytest.raises(UserError, match=r"^study: 'digits' is no dataset; give what s3ray.dataset or "):
        s3ray.study(cast("Any", ["digits"]))
    with pytest.raises(UserError, match="give one or more, each name once"):
        s3ray.study([tiny_dataset] * count)


def test_a_plan_without_its_data_is_not_run(tiny_dataset: Dataset, tmp_path: Path) -> None:
    store = s3ray.open_store(str(tmp_path))
    study = s3ray.study([tiny_dataset], overrides=SHORT)
    plan = s3ray.plan(SWEEP, s3ray.Study(study.entries), store)
    with pytest.raises(UserError, match=r"the study has no data of tiny; make it with s3ray\.study"):
        s3ray.run(plan, store)


@pytest.mark.slow
def test_what_a_run_asks_for_is_named_for_good(finished: FinishedStore, tiny_dataset: Dataset, tmp_path: Path) -> None:
    store = s3ray.open_store(str(shutil.copytree(finished.store.base, tmp_path / "copy")))
    assert gc.find(store.store).unknown  # its tables were saved without a run
    commit(store.store, toy_run())
    plan = s3ray.plan(SWEEP, s3ray.study([tiny_dataset], overrides=SHORT), store)
    ran = s3ray.run(plan, store)
    (study,) = stored(store.store).studies
    assert (study.name, study.results.things) == (ran.study, len(plan.committed))
    (garbage,) = gc.delete(store.store).garbage
    assert toy_run().identity in garbage.path
    assert store.store.folders("runs") == []
    again = s3ray.plan(SWEEP, plan.study, store)
    assert not again.pending
    assert s3ray.run(plan, store).study == ran.study  # looked up anew, since gc has been there


PROGRAM = """
import sys
import s3ray
from tiny_data import tiny_dataset

data, overrides = tiny_dataset(), {overrides!r}
sweep = s3ray.Sweep("short", lambda study: [study.cell("tiny", 2, 8, 0)], ("none", "suff+min"))
store = s3ray.open_store(sys.argv[1])
plan = s3ray.plan(sweep, s3ray.study([data], overrides=overrides), store)
ran = s3ray.run(plan, store)
assert ran.failures == {{}} and ran.study == store.studies()[0], ran
import ray
assert not ray.is_initialized()
again = s3ray.run(plan, store)  # the plan is as old as it was; nothing is left to do
assert again.failures == {{}} and again.study == ran.study
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_from_python_is_the_command_lines(finished: FinishedStore, ray_folder: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(overrides=SHORT), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("starting worker groups") == 1
    assert ended.stdout.count(f"report: {tmp_path}/results/short-") == 2
    measured = ["branch", "preservation_ratio", "split", "accuracy", "pairs_kept"]
    plain = finished.rows().query("method == 's3' and seed == 0")[measured].reset_index(drop=True)
    pd.testing.assert_frame_equal(s3ray.open_store(str(tmp_path)).rows()[measured], plain)


def test_a_certificate_leads_from_a_number_to_what_it_is_of(
    finished: FinishedStore, tiny_dataset: Dataset, tmp_path: Path
) -> None:
    """Followed with nothing but hashlib, json and a Parquet reader, as its README says."""
    readme, found = certify(finished, Store(str(tmp_path)))
    assert readme == str(tmp_path / "README.md")
    assert found.holds
    assert [sample.like for sample in found.samples] == ["bit for bit"] * 3

    def plain(*parts: str) -> Any:
        return json.loads(tmp_path.joinpath(*parts).read_text())

    files = plain("certificate.json")["files"]
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {*files, "certificate.json"}
    assert {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in files} == files
    numbers = plain("numbers.json")
    assert {number["table"] for number in numbers} == {"rows", "controls", "references"}
    for number in numbers:
        accuracies = []
        for identity in number["runs"]:
            (folder,) = tmp_path.glob(f"runs/*/{identity}")
            content, marker = (folder / "rows.parquet").read_bytes(), json.loads((folder / "commit.json").read_text())
            assert marker["files"]["rows.parquet"] == [len(content), hashlib.sha256(content).hexdigest()]
            rows = pd.read_parquet(folder / "rows.parquet")
            same = rows[rows["split"] == number["split"]]
            same = same[same["reference"] == number["reference"]] if number["table"] == "references" else same
            accuracies.append(same["accuracy"].item())
            while True:
                document = json.dumps(marker["document"], sort_keys=True, separators=(",", ":"))
                assert hashlib.sha256(document.encode()).hexdigest() == marker["identity"]
                environment = (tmp_path / "environments" / f"{marker['provenance']['environment']}.txt").read_text()
                assert f"torch=={marker['provenance']['torch']}\n" in environment
                if (parent := marker["document"]["parent"]) is None:
                    assert f"data/{marker['document']['data']}.json" in files
                    break
                attempt = marker["parent_attempt"]
                marker = plain("runs", marker["parent_stage"], parent, "commit.json")
                assert marker["attempt"] == attempt
        assert number["mean_accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-15)
        assert number["n"] == len(accuracies)
    values = {"modalities": "alone", "missing": "accuracy", "entropies": "entropy", "contributions": "share"}
    for table, column in values.items():
        lines = pd.read_parquet(tmp_path / "tables" / f"{table}.parquet")
        assert len(lines)
        for _, line in lines.iterrows():
            (folder,) = tmp_path.glob(f"runs/*/{line['identity']}")
            assert (pd.read_parquet(folder / "rows.parquet") == line[column]).any(axis=None)
    card = next((tmp_path / "models").glob("*.md")).read_text()
    assert "| p |" in card
    crate = {entry["@id"] for entry in plain("ro-crate-metadata.json")["@graph"]}
    assert crate >= files.keys()
    assert "Not in the store any more" not in (tmp_path / "README.md").read_text()
    readme_again, _ = certify(finished, Store(str(tmp_path)), sample=0)  # takes the place of an earlier one
    assert readme_again == readme


@pytest.mark.parametrize(
    ("table", "stage", "column"), [("rows", "probe", "accuracy"), ("modalities", "modalities", "alone")]
)
def test_tables_that_are_not_what_the_store_has_are_not_certified(
    finished: FinishedStore, tmp_path: Path, table: str, stage: str, column: str
) -> None:
    """A run was lost, and computed again on another machine, since the tables were written."""
    shutil.copytree(finished.store.base, tmp_path / "copy")
    store = s3ray.open_store(tmp_path / "copy")
    marker = store.store.marker_of(stage, store.results().frames[table].iloc[0]["identity"])
    assert marker is not None
    rows = pd.read_parquet(io.BytesIO(store.store.payload(marker, "rows.parquet")))
    rows.assign(**{column: 0.123}).to_parquet(other := io.BytesIO())
    overwrite(store.store, marker, "rows.parquet", other.getvalue())
    with pytest.raises(UserError, match=rf"{table} of run \w+ are not what the store has of it now; run the sweep"):
        certify(store, Store(str(tmp_path / "out")), sample=0)


def test_a_certificate_of_nothing_or_in_somebodys_folder(finished: FinishedStore, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no results of any sweep"):
        certify(s3ray.open_store(tmp_path), Store(str(tmp_path / "out")))
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match="is somebody's own; choose another folder"):
        certify(finished, Store(str(tmp_path)), sample=0)
    assert (tmp_path / "README.md").read_text() == "mine"


def budgeted(data: Dataset, store: FinishedStore, **more: Any) -> s3ray.Ran:
    """A sweep of one cell, and of another one that follows from it, within a second, which no cell takes."""
    sweep = s3ray.Sweep("two", lambda study: [study.cell("tiny", 2, 8, 0)], ("none",), **more)
    return s3ray.run(make_plan(sweep, s3ray.study([data], overrides=SHORT), store.store), store, budget=ONE_SECOND)


ONE_SECOND = s3ray.Budget.of("1s")


@pytest.mark.ray
def test_a_sweep_that_is_refused_leaves_nothing_that_names_results(tiny_dataset: Dataset, tmp_path: Path) -> None:
    store = s3ray.open_store(str(tmp_path / "storage"))
    with pytest.raises(UserError, match="--budget 1s: has no room for one cell, tiny χ=2 batch=8 seed=0, "):
        budgeted(tiny_dataset, store)
    assert not list((tmp_path / "storage").glob("*"))


@pytest.mark.ray
def test_a_second_round_for_which_there_is_no_room_costs_the_first_nothing(
    tiny_dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = s3ray.open_store(str(tmp_path))
    alone = s3ray.Sweep("one", lambda study: [study.cell("tiny", 2, 8, 0)], ("none",))
    fill(store, alone, tiny_dataset, SHORT)
    ran = budgeted(tiny_dataset, store, then=lambda study, results: [study.cell("tiny", 2, 8, 1)])
    told = capsys.readouterr().out
    assert "second round: 1 cells that follow from the first" in told
    assert "has no room for one cell, tiny χ=2 batch=8 seed=1, " in told
    assert ran.failures == {}
    assert ran.study is not None
    assert ran.study.startswith("two-")
    assert set(store.rows("two")["seed"]) == {0}
