"""`s3ray export` and what reads it: a folder that holds a model, needs two packages, and is not believed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import torch as safetensors
from torch import Tensor

import s3ray
from command_line import assert_one_sentence
from command_line import s3ray as s3ray_command
from lacking import lacking
from s3ray import Dataset, ExportedModel, FinishedStore
from s3ray.digests import signed
from s3ray.errors import UserError
from s3ray.model import Pruning, S3Model
from s3ray.stages.encode import SAMPLES_AT_ONCE, encode_split, with_thresholds
from short_sweep import SHORT, fill

CELL = {"dataset": "tiny", "granularity": 2, "seed": 0, "branch": "suff+min"}


def cells(study: s3ray.Study) -> list[s3ray.Cell]:
    return [study.cell("tiny", 2, 8, 0), *(study.prior("tiny", name, 8, 0) for name in ("factorcl", "clip"))]


@pytest.fixture(scope="module")
def finished(tiny_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> FinishedStore:
    """S3 with two branches, FactorCL and CLIP."""
    store = s3ray.open_store(tmp_path_factory.mktemp("store"))
    overrides = {**SHORT, "sparsification": {"ratios": [1.0, 0.8, 0.4], "batch_size": 8}}
    fill(store, s3ray.Sweep("short", cells, ("none", "suff+min")), tiny_dataset, overrides)
    return store


@pytest.fixture(scope="module")
def folder(finished: FinishedStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export at p = 0.4."""
    place = tmp_path_factory.mktemp("export")
    assert finished.export(place, 0.4, **CELL) == str(place / "README.md")
    return place


def samples(split: s3ray.Split) -> dict[str, list[Tensor]]:
    """A split's samples as tensors (steps, features)."""
    return {
        name: [torch.from_numpy(x) for x in np.split(s.values, s.offsets[1:-1])] for name, s in split.modalities.items()
    }


def encoded(model: ExportedModel, batch: Mapping[str, Any], *, ranked: bool = False) -> Tensor:
    with torch.inference_mode():
        return model(batch, ranked=ranked)


def one_by_one(model: ExportedModel, batch: Mapping[str, list[Tensor]], *, ranked: bool = False) -> Tensor:
    count = len(next(iter(batch.values())))
    alone = [{name: own[i : i + 1] for name, own in batch.items()} for i in range(count)]
    return torch.cat([encoded(model, one, ranked=ranked) for one in alone])


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("ratio", [1.0, 0.4, 0.0])
def test_ranked_it_encodes_as_the_sweeps_own_model(
    finished: FinishedStore, tiny_dataset: Dataset, tmp_path: Path, ratio: float, dtype: torch.dtype, rounding: float
) -> None:
    own, split = finished.model(**CELL).module.to(dtype), tiny_dataset.test
    batch = {name: ragged.to(torch.device("cpu"), dtype) for name, ragged in split.batch(np.arange(9)).items()}
    pruning = Pruning(ratio=ratio, pool=9) if ratio < 1.0 else None
    with torch.inference_mode():
        expected = own.encode(batch, "none", pruning).joined(on_sphere=True)
    finished.export(tmp_path, ratio, **CELL)
    model = s3ray.load_model(tmp_path).to(dtype)
    got = encoded(model, samples(split), ranked=True)
    assert got.dtype == dtype
    torch.testing.assert_close(got, expected, atol=rounding, rtol=0.0)
    assert torch.equal(got, encoded(model, split.batch(np.arange(9)), ranked=True))  # Ragged


def test_a_sample_alone_is_the_same_as_among_others(folder: Path, tiny_dataset: Dataset) -> None:
    model, batch = s3ray.load_model(folder), samples(tiny_dataset.train)
    together = encoded(model, batch)
    torch.testing.assert_close(one_by_one(model, batch), together, atol=1e-6, rtol=0.0)
    ranked = encoded(model, batch, ranked=True)
    assert (one_by_one(model, batch, ranked=True) - ranked).abs().max() > 1e-3  # as the sweep's is not


@pytest.mark.parametrize("scope", ["layer", "modality", "model"])
def test_thresholds_keep_their_share_of_training_pairs(
    finished: FinishedStore, tiny_dataset: Dataset, scope: Any
) -> None:
    """Of a layer's pairs exactly; beyond a layer about, since the share is that of a pass that computes every pair."""
    module = finished.model(**CELL).module
    pruning = Pruning(ratio=0.4, pool=8, scope=scope)
    assert isinstance(module, S3Model)
    fixed = with_thresholds(module, tiny_dataset.train, pruning)
    got = encode_split(module, tiny_dataset.train, output="none", on_sphere=True, pruning=fixed)
    pairs = [2 * int(s.lengths.sum()) for s in tiny_dataset.train.modalities.values()]  # top-2; two layers each
    assert got.pairs_routed == 2 * sum(pairs)
    if scope == "layer":
        assert got.pairs_kept == 2 * sum(-(-4 * count // 10) for count in pairs)
        assert len({value for own in fixed.least.values() for value in own}) == 4
        # All as one pool is what the thresholds were taken of.
        whole = dataclasses.replace(pruning, pool=SAMPLES_AT_ONCE)
        ranked = encode_split(module, tiny_dataset.train, output="none", on_sphere=True, pruning=whole)
        np.testing.assert_allclose(got.z, ranked.z, atol=1e-6)
    else:
        assert got.pairs_kept / got.pairs_routed == pytest.approx(0.4, abs=0.1)
        values = [set(own) for own in fixed.least.values()]
        assert [len(own) for own in values] == [1, 1]
        assert (values[0] == values[1]) == (scope == "model")


def test_the_card_says_what_both_ways_of_pruning_reach(finished: FinishedStore, folder: Path) -> None:
    """The ranked accuracies are the sweep's rows; of the fixed ones those of a probe fitted on such representations."""
    config = json.loads((folder / "config.json").read_text())
    rows = finished.rows().query("method == 's3' and branch == 'suff+min' and preservation_ratio == 0.4")
    scores = config["accuracies"]
    ranked = {one["split"]: one["accuracy"] for one in scores if one["pruning"] == "ranked within a batch"}
    assert ranked == dict(zip(rows["split"], rows["accuracy"], strict=True))
    assert [(one["split"], one["samples"]) for one in scores] == [("valid", 10), ("test", 9)] * 2
    assert all(0 <= one["low"] <= one["accuracy"] <= one["high"] <= 1 for one in scores)
    assert config["source"]["identity"] == rows["trained_identity"].iloc[0]
    marker = finished.store.marker_of("selection", config["source"]["identity"])
    assert marker is not None
    assert (config["source"]["attempt"], config["source"]["data"]) == (marker.attempt, marker.document["data"])
    card = (folder / "README.md").read_text()
    assert "**simulated data**, 3 classes" in card
    assert "| fixed thresholds | test |" in card
    assert "depends on its companions" in card
    assert f"{finished.model(**CELL).parameters.total} parameters" in card


def test_by_default_p_is_chosen_on_validation(finished: FinishedStore, tmp_path: Path) -> None:
    finished.export(tmp_path, **CELL)
    rows = finished.rows().query("method == 's3' and branch == 'suff+min' and split == 'valid'")
    below = rows[rows["preservation_ratio"] < 1.0].sort_values("preservation_ratio", ascending=False)
    assert s3ray.load_model(tmp_path).ratio == below.loc[below["accuracy"].idxmax(), "preservation_ratio"]
    assert "chosen on validation" in (tmp_path / "README.md").read_text()
    card = finished.export(tmp_path, 0.37, **CELL)  # no point of the curve: measured now, and written over the other
    assert Path(card).read_text().count("| ranked within a batch |") == 2


@pytest.mark.parametrize(("method", "branch"), [("factorcl", "emb"), ("clip", "none")])
def test_a_prior_method_of_one_encoder_per_modality(
    finished: FinishedStore, tiny_dataset: Dataset, tmp_path: Path, method: str, branch: str
) -> None:
    finished.export(tmp_path, method=method, branch=branch)
    model = s3ray.load_model(tmp_path)
    assert model.ratio == 1.0  # it has no curve
    expected = finished.model(method=method, branch=branch).encode(tiny_dataset.test)
    np.testing.assert_allclose(encoded(model, samples(tiny_dataset.test)).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"branch": "suff"}, "export: none has branch='suff' among those of method='s3'; did you mean 'suff+min'? "),
        ({}, "export: 2 fit method='s3'; choose of branch: none, suff+min"),
        ({**CELL, "preservation_ratio": 1.4}, "preservation ratio 1.4 is outside [0, 1]; choose a share"),
        (
            {"method": "factorcl", "branch": "proj"},
            "export: tiny factorcl batch=8 seed=0: what is probed of factorcl's proj is more than an encoder per",
        ),
        (
            {"method": "clip", "preservation_ratio": 0.4},
            "export: tiny clip batch=8 seed=0: a prior method's encoders are dense and are not pruned",
        ),
    ],
)
def test_what_cannot_be_exported(finished: FinishedStore, tmp_path: Path, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        finished.export(tmp_path, **asked)
    assert str(caught.value).startswith(says)
    assert list(tmp_path.iterdir()) == []


def test_where_the_data_are_gone_only_what_needs_none_is_exported(finished: FinishedStore, tmp_path: Path) -> None:
    store = s3ray.open_store(shutil.copytree(finished.store.base, tmp_path / "store"))
    shutil.rmtree(tmp_path / "store" / "data")
    with pytest.raises(UserError, match="the published dataset is not whole; run the sweep again, which publishes"):
        store.export(tmp_path / "export", 0.4, **CELL)
    store.export(tmp_path / "export", 1.0, **CELL)
    assert s3ray.load_model(tmp_path / "export").ratio == 1.0


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_somebodys_own_files_stay(finished: FinishedStore, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"model_type": "other"}')
    with pytest.raises(UserError, match=rf"/{name}: is somebody's own; choose another folder for the export$"):
        finished.export(tmp_path, 0.4, **CELL)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == '{"model_type": "other"}'


ALONE = """
import sys
BLOCKED = {"numpy", "pandas", "pyarrow", "ray", "sklearn", "scipy", "optuna", "obstore", "typer", "rich", "matplotlib"}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())

import s3ray
model = s3ray.load_model(sys.argv[1])
import torch
batch = {name: [torch.tensor(x) for x in own] for name, own in eval(sys.argv[2]).items()}
with torch.inference_mode():
    print(model(batch).tolist())
assert not BLOCKED & sys.modules.keys()
"""


def test_reading_needs_torch_and_safetensors_alone(folder: Path, tiny_dataset: Dataset) -> None:
    batch = {name: own[:3] for name, own in samples(tiny_dataset.test).items()}
    plain = {name: [x.tolist() for x in own] for name, own in batch.items()}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE, str(folder), repr(plain)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    torch.testing.assert_close(
        torch.tensor(json.loads(ended.stdout)), encoded(s3ray.load_model(folder), batch), atol=1e-6, rtol=0.0
    )


def _own(data: Dataset, folder: Path, overrides: dict[str, Any]) -> tuple[FinishedStore, Dataset]:
    """A store with one cell of own data, as the sweep takes them."""
    store = s3ray.open_store(folder)
    study = s3ray.study([data], overrides=overrides)
    (name,) = study.datasets
    fill(store, s3ray.Sweep("own", lambda s: [s.cell(name, 2, 8, 0)], ("none",)), study.data[name], overrides)
    return store, study.data[name]


@pytest.mark.parametrize("padding", ["masked", "routed"])
def test_it_takes_samples_as_they_were_before_the_sweep(tmp_path: Path, padding: str) -> None:
    """Standardised, subsampled, padded, of three modalities, of which samples lack some (zeros): as `Model.encode`."""
    rng = np.random.default_rng(0)

    def drawn(n: int) -> tuple[dict[str, Any], Any]:
        y = np.arange(n) % 2
        x = {"a": 1e3 * rng.normal(size=(n, 5, 3)) + y[:, None, None], "b": rng.normal(size=(n, 2))}
        x["c"] = [rng.normal(size=(1 + i % 4, 2)) for i in range(n)]
        x["a"][::3], x["b"][1::5] = 0.0, 0.0
        return x, y

    raw = s3ray.dataset("own", train=drawn(16), valid=drawn(8), test=drawn(8), missing="zeros")
    overrides = {**SHORT, "max_steps": 3, "model": {"width": 16, "heads": 2, "padding": padding}}
    store, _ = _own(raw, tmp_path / "store", overrides)
    store.export(tmp_path / "export", 0.4, dataset="own")
    model, own = s3ray.load_model(tmp_path / "export"), store.model(dataset="own")
    assert model.modalities == ("a", "b", "c")
    new, _ = drawn(6)
    for split in (raw.test, None):
        batch = new if split is None else samples(split)
        got = encoded(model, batch, ranked=True).numpy()
        np.testing.assert_allclose(got, own.encode(batch, 0.4), atol=1e-5)
    listed = {name: [torch.as_tensor(x, dtype=torch.float32) for x in values] for name, values in new.items()}
    listed["b"] = [x[None] for x in listed["b"]]
    torch.testing.assert_close(one_by_one(model, listed), encoded(model, new), atol=1e-6, rtol=0.0)
    assert "counts as one that lacks it" in (tmp_path / "export" / "README.md").read_text()


def test_samples_may_lack_modalities(tiny_dataset: Dataset, tmp_path: Path) -> None:
    data = lacking(tiny_dataset, train={"left": [0, 3]}, valid={"right": [1]}, test={"left": [0]})
    store, known = _own(data, tmp_path / "store", SHORT)
    store.export(tmp_path / "export", 0.4)
    model, batch = s3ray.load_model(tmp_path / "export"), samples(known.test)
    assert encoded(model, batch)[0, :16].abs().max() == 0
    np.testing.assert_allclose(encoded(model, batch, ranked=True), store.model().encode(batch, 0.4), atol=1e-5)
    torch.testing.assert_close(one_by_one(model, batch), encoded(model, batch), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ({"left": torch.ones(2, 5)}, "batch: lacks modality 'right', which the model encodes; known: left"),
        ({"left": torch.ones(2, 5), "right": torch.ones(2, 4)}, "batch: a sample of right has the shape (1, 4), the"),
        ({"left": torch.ones(2, 5), "right": torch.ones(1, 3)}, "batch: holds 2 of left, 1 of right; give every"),
        ({"left": torch.ones(0, 5), "right": torch.ones(0, 3)}, "batch: holds 0 of left, 0 of right; give every"),
        ({"left": torch.ones(1, 0, 5), "right": torch.ones(1, 0, 3)}, "batch: sample 0 has none of left, right; drop"),
        ({"left": torch.full((2, 5), torch.nan), "right": torch.ones(2, 3)}, "batch: left has values that are not"),
    ],
)
def test_a_batch_that_does_not_fit(folder: Path, batch: Mapping[str, Tensor], says: str) -> None:
    with pytest.raises(UserError) as caught:
        s3ray.load_model(folder)(batch)
    assert str(caught.value).startswith(says)


def _config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    """What makes another config.json of it, signed anew."""

    def apply(folder: Path) -> None:
        plain = json.loads((folder / "config.json").read_text())
        change(plain)
        del plain["digest"]
        (folder / "config.json").write_text(json.dumps(signed(plain)))

    return apply


def _flip(name: str) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-20] ^= 1
        (folder / name).write_bytes(content)

    return apply


FOREIGN, CHANGED = "is none that s3ray export wrote; name a folder", "is damaged or was changed by hand; export the"
UNLIKE = "model.safetensors is not what was exported with its config.json; export the model again"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "config.json").unlink(), "has no config.json; name a folder that s3ray export wrote"),
        (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors; name a folder"),
        (lambda f: (f / "config.json").write_text("{"), FOREIGN),
        (lambda f: (f / "config.json").write_text("[" * 100_000), FOREIGN),
        (lambda f: (f / "config.json").write_text('{"model_type": "bert"}'), FOREIGN),
        (lambda f: (f / "config.json").write_bytes(b"\xff\xfe"), FOREIGN),
        (_config(lambda c: c.update(version=2)), "is of version 2 of exported models, and this s3ray reads version 1"),
        (_flip("config.json"), CHANGED),
        (_flip("model.safetensors"), UNLIKE),
        (_config(lambda c: c["model"].update(layers=10**9, width=4, expansion=1, ffn_multiple=1)), UNLIKE),
        (_config(lambda c: c["model"].update(width=32)), UNLIKE),
        (_config(lambda c: c["model"].update(another=1)), UNLIKE),
        (_config(lambda c: c["model"].pop("layers")), UNLIKE),
        (_config(lambda c: c["modalities"].clear()), UNLIKE),
        (_config(lambda c: c["modalities"].append(c["modalities"][0])), UNLIKE),
        (_config(lambda c: c["modalities"][0].update(features=2.5)), UNLIKE),
        (_config(lambda c: c["modalities"][0].update(mean=[0.0], deviation=[1.0])), UNLIKE),
        (_config(lambda c: c["pruning"].update(ratio="0.4")), UNLIKE),
        (_config(lambda c: c["pruning"].update(ratio=4)), UNLIKE),
        (_config(lambda c: c["pruning"].update(thresholds={})), UNLIKE),
        (_config(lambda c: c["pruning"]["thresholds"].update(left=[0.1, "x"])), UNLIKE),
        (_config(lambda c: c["pruning"].update(scope="world")), UNLIKE),
        (_config(lambda c: c.pop("pruning")), UNLIKE),
    ],
)
def test_a_folder_that_is_damaged_foreign_or_of_another_version(
    folder: Path, tmp_path: Path, damage: Callable[[Path], object], says: str
) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    damage(tmp_path)
    with pytest.raises(UserError, match=rf"^{tmp_path}: .*{says}"):
        s3ray.load_model(tmp_path)


def test_weights_of_another_type_are_refused(folder: Path, tmp_path: Path) -> None:
    """Their digest is right: somebody has made them up."""
    weights = safetensors.load((folder / "model.safetensors").read_bytes())
    for content in (safetensors.save({name: w.long() for name, w in weights.items()}), b"no tensors"):
        (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
        (tmp_path / "model.safetensors").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        _config(operator.methodcaller("update", files={"model.safetensors": digest}))(tmp_path)
        with pytest.raises(UserError, match=UNLIKE):
            s3ray.load_model(tmp_path)


def test_at_the_terminal(finished: FinishedStore, tmp_path: Path) -> None:
    at = ("--storage", finished.store.base, "--output", tmp_path / "model")
    result = s3ray_command("export", "χ=2", "--branch", "none", "--ratio", "0.8", *at)
    assert (result.exit_code, result.output) == (0, f"{tmp_path}/model/README.md\n")
    assert s3ray.load_model(tmp_path / "model").ratio == 0.8
    assert_one_sentence(s3ray_command("export", "χ=2", *at), "export: 2 fit .*; choose of branch: none, suff")
    assert_one_sentence(s3ray_command("export", "χ=16", *at), "χ=16: is no name of a cell of short-")
    nothing = s3ray_command("export", "χ=2", "--storage", tmp_path / "no", "--output", tmp_path / "model")
    assert_one_sentence(nothing, "--storage .*: holds no results of any sweep")
