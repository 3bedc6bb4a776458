"""Samples that lack a modality: how they are declared, what takes zeros for it, what is refused, what is told."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from lacking import lacking
from s3ray.api.model import Model
from s3ray.cli import app
from s3ray.data import Dataset, from_arrays
from s3ray.data.dataset import Sequences, Split
from s3ray.data.facts import DataFacts, told_missing
from s3ray.data.importing import Wanted, import_files
from s3ray.data.multibench.prepare import PrepareOptions, prepare
from s3ray.data.multibench.simulate import simulate
from s3ray.data.npz import read_npz, save_npz
from s3ray.data.padding import padded
from s3ray.data.standardize import standardized
from s3ray.data.subsample import subsampled
from s3ray.errors import UserError
from s3ray.model import ModelConfig, Ragged, build_model
from s3ray.results.formatting import best_raw
from s3ray.stages.cost import training_bytes
from s3ray.stages.probe import ClassifierConfig, ProbeConfig
from s3ray.stages.reference import reference_points
from s3ray.stages.stage import Inputs
from s3ray.sweep import Study

SIZES = {"train": 6, "valid": 3, "test": 4}


def _arrays() -> dict[str, Any]:
    """6 / 3 / 4 samples of audio, 3 steps, and text, one; train's second sample and test's first have zeros for audio,
    train's fourth zeros for text."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, size in SIZES.items():
        arrays[f"{split}_audio"] = rng.normal(size=(size, 3, 2))
        arrays[f"{split}_text"] = rng.normal(size=(size, 4))
        arrays[f"{split}_label"] = np.arange(size) % 2
    arrays["train_audio"][1] = arrays["test_audio"][0] = arrays["train_text"][3] = 0.0
    return arrays


def _declared(**lengths: Any) -> dict[str, Any]:
    every = {f"{split}_{name}": np.full(n, s) for split, n in SIZES.items() for name, s in (("audio", 3), ("text", 1))}
    return _arrays() | {f"{key}_length": lengths.get(key, value) for key, value in every.items()}


LENGTHS = {"train_audio": [3, 0, 3, 3, 3, 3], "test_audio": [0, 3, 3, 3], "train_text": [1, 1, 1, 0, 1, 1]}


def _read(arrays: dict[str, Any], folder: Path, **options: Any) -> Dataset:
    np.savez(folder / "mine.npz", **arrays)
    return read_npz("mine", folder / "mine.npz", **options)


def _splits(arrays: dict[str, Any]) -> dict[str, Any]:
    return {s: ({m: arrays[f"{s}_{m}"] for m in ("audio", "text")}, arrays[f"{s}_label"]) for s in SIZES}


def test_a_length_of_0_declares_it(tmp_path: Path) -> None:
    data = _read(_declared(**{k: np.array(v) for k, v in LENGTHS.items()}), tmp_path)
    assert data.train.modalities["audio"].lengths.tolist() == LENGTHS["train_audio"]
    assert data.train.modalities["text"].missing.tolist() == [False, False, False, True, False, False]
    assert data.lacking == {
        "audio": {"train": 1, "valid": 0, "test": 1},
        "text": {"train": 1, "valid": 0, "test": 0},
    }
    assert not any("zeros" in warning for warning in data.warnings)  # what stands behind is no value
    save_npz(data, tmp_path / "again.npz")
    assert read_npz("mine", tmp_path / "again.npz").fingerprint() == data.fingerprint()
    data.save(tmp_path / "saved")
    assert Dataset.open(tmp_path / "saved").fingerprint() == data.fingerprint()


def test_zeros_stand_for_it_where_that_is_asked(tmp_path: Path) -> None:
    declared = _read(_declared(**{k: np.array(v) for k, v in LENGTHS.items()}), tmp_path)
    zeros = from_arrays("mine", **_splits(_arrays()), missing="zeros")
    assert zeros.fingerprint() == declared.fingerprint()
    taken = from_arrays("mine", **_splits(_arrays()))
    assert taken.lacking == {}
    assert any("audio is all zeros in 1 of 6 samples of train" in warning for warning in taken.warnings)
    assert taken.fingerprint() != zeros.fingerprint()
    with pytest.raises(UserError, match="missing zero: is not known; did you mean 'zeros'"):
        from_arrays("mine", **_splits(_arrays()), missing=cast("Any", "zero"))


def test_where_nothing_is_zero_the_rule_changes_nothing() -> None:
    full = {key: value + (0 if key.endswith("label") else 5) for key, value in _arrays().items()}
    one, other = (from_arrays("mine", **_splits(full), missing=rule) for rule in ("declared", "zeros"))
    assert one.fingerprint() == other.fingerprint()
    assert {**one.facts, "missing": "zeros"} == other.facts


def test_lists_declare_it_by_arrays_without_steps() -> None:
    splits = _splits(_arrays())
    for split, (modalities, _) in splits.items():
        modalities["audio"] = [x[: 0 if split != "valid" and not x.any() else 3] for x in modalities["audio"]]
    data = from_arrays("mine", **splits)
    assert data.train.modalities["audio"].lengths.tolist() == LENGTHS["train_audio"]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a split without": (
        {"valid_audio": np.zeros(3, int)},
        "audio is missing in every sample of valid (length 0); leave it out, or give samples that have it",
    ),
    "a sample of nothing": (
        {"train_audio": np.array([3, 0, 3, 3, 3, 3]), "train_text": np.array([1, 0, 1, 1, 1, 1])},
        "1 of 6 samples of train have none of audio, text (first sample 1); drop them, or take more modalities",
    ),
    "a negative length": ({"test_text": np.array([1, -1, 1, 1])}, "test_text_length must be 4 integers from 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_nobody_can_use_is_refused(case: str, tmp_path: Path) -> None:
    lengths, message = BAD[case]
    with pytest.raises(UserError) as error:
        _read(_declared(**lengths), tmp_path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'mine.npz'}: ")
    assert "\n" not in str(error.value)


def test_of_chosen_modalities_a_sample_has_one(tmp_path: Path) -> None:
    arrays = _declared(train_audio=np.array([3, 0, 3, 3, 3, 3]))
    assert len(_read(arrays, tmp_path, modalities=["text"]).features) == 1
    with pytest.raises(UserError, match=r"1 of 6 samples of train have none of audio .first sample 1."):
        _read(arrays, tmp_path, modalities=["audio"])
    _read(arrays, tmp_path).save(tmp_path / "saved")
    with pytest.raises(UserError, match="samples of train have none of audio"):
        Dataset.open(tmp_path / "saved", ["audio"])


@pytest.mark.parametrize("lengths", [[2, 0, 3], [0, 0, 1], [0, 2, 0], [1, 1, 1]])
def test_means_and_deviations_of_no_steps_are_0(lengths: list[int]) -> None:
    rows = np.random.default_rng(0).normal(size=(sum(lengths), 2))
    sequences = Sequences.from_rows(rows, np.array(lengths))
    samples = np.split(rows.astype(np.float32).astype(np.float64), np.cumsum(lengths)[:-1])
    means = [sample.mean(axis=0) if len(sample) else np.zeros(2) for sample in samples]
    deviations = [sample.std(axis=0) if len(sample) else np.zeros(2) for sample in samples]
    np.testing.assert_allclose(sequences.means(), means, atol=1e-12)
    np.testing.assert_allclose(sequences.deviations(), deviations, atol=1e-12)


def test_standardising_subsampling_and_padding_leave_it_missing(tiny_dataset: Dataset) -> None:
    data = lacking(tiny_dataset, train={"right": [0, 7]}, test={"left": [3]})
    rest = np.concatenate([s for i, s in enumerate(_samples(data)) if i not in (0, 7)])
    np.testing.assert_allclose(standardized(data).facts["standardized"]["right"]["mean"], rest.mean(axis=0), rtol=1e-5)
    for changed in (standardized(data), subsampled(data, 2), padded(data)):
        assert changed.lacking == data.lacking
    assert set(padded(data).train.modalities["right"].lengths.tolist()) == {0, 6}


def _samples(data: Dataset) -> list[Any]:
    right = data.train.modalities["right"]
    return np.split(right.values, right.offsets[1:-1])


def test_facts_count_what_is_there(tiny_dataset: Dataset) -> None:
    data = lacking(tiny_dataset, train={"right": [0, 7]}, test={"left": [3]})
    facts, whole = DataFacts.of(data), DataFacts.of(tiny_dataset)
    assert facts.missing == {
        "left": {"train": 0, "valid": 0, "test": 1},
        "right": {"train": 2, "valid": 0, "test": 0},
    }
    assert told_missing(facts.missing, facts.samples) == (
        "left is missing in 0.0% of train, 0.0% of valid, 11.1% of test; "
        "right is missing in 7.7% of train, 0.0% of valid, 0.0% of test"
    )
    gone = int(tiny_dataset.train.modalities["right"].lengths[[0, 7]].sum())
    assert facts.tokens["train"] == whole.tokens["train"] - gone
    assert facts.padded.tokens["train"] == 6 * (26 + 24)
    assert facts.padded.mean_steps["right"] == pytest.approx(6 * 24 / 26)
    assert whole.missing == {}
    assert whole.padded.tokens["train"] == 6 * 52
    assert facts.fingerprint != whole.fingerprint
    # Sequences of one length, some missing, need no mask of all pairs of steps.
    even = DataFacts.of(padded(data))
    model = ModelConfig(width=16, heads=2, granularity=2)
    assert training_bytes(model, even, 8) <= training_bytes(model, DataFacts.of(padded(tiny_dataset)), 8)


def _saved(data: Dataset, folder: Path) -> Path:
    data.save(folder)
    return folder


def _s3ray(*arguments: object) -> Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, ["data", *map(str, arguments)], env=environment)


def test_an_import_takes_zeros_for_it_and_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "raw.npz", **_arrays())
    result = _s3ray("import", tmp_path / "raw.npz", "--output", tmp_path / "out.npz", "--missing", "zeros")
    assert result.exit_code == 0, result.output
    told = "audio is missing in 16.7% of train, 0.0% of valid, 25.0% of test"
    assert told in result.output
    data = read_npz("out", tmp_path / "out.npz")
    assert data.lacking["audio"] == {"train": 1, "valid": 0, "test": 1}
    assert data.facts["imported"]["options"] == {"missing": "zeros"}
    assert Inputs.of(data).missing == "zeros"  # by which new samples of its models are taken
    for saved in (Dataset.open(_saved(data, tmp_path / "saved")), standardized(subsampled(data, 2))):
        assert Inputs.of(saved).missing == "zeros"
    shown = _s3ray("show", tmp_path / "out.npz").output
    assert told in " ".join(shown.split())
    again = _s3ray("import", tmp_path / "raw.npz", "--output", tmp_path / "plain.npz")
    assert "audio is missing" not in again.output
    plain = read_npz("plain", tmp_path / "plain.npz")
    assert plain.lacking == {}
    assert Inputs.of(plain).missing == "declared"


def _by_class(lacks: dict[int, float], size: int = 200) -> Dataset:
    """Two classes, of which these shares lack `right` in every split."""
    rng = np.random.default_rng(0)
    splits = {}
    for split in SIZES:
        labels = np.arange(size) % 2
        rank = np.arange(size) // 2 / (size / 2)
        gone = np.select([labels == k for k in lacks], [rank < share for share in lacks.values()])
        right = [rng.normal(size=(0 if out else 1, 2)) for out in gone]
        splits[split] = ({"left": rng.normal(size=(size, 2)), "right": right}, labels)
    return from_arrays("own", **splits)


@pytest.mark.parametrize(
    ("lacks", "size", "said"),
    [
        ({0: 0.0, 1: 0.3}, 200, "who lacks right tells of the class: 0% of class 0 and 30% of class 1 in train do"),
        ({0: 0.3, 1: 0.3}, 200, ""),
        ({0: 0.0, 1: 0.0}, 200, ""),
        ({0: 0.0, 1: 1.0}, 200, "0% of class 0 and 100% of class 1"),
        ({0: 0.0, 1: 0.3}, 12, ""),  # too few to say
    ],
)
def test_that_who_lacks_a_modality_tells_the_class_is_said(lacks: dict[int, float], size: int, said: str) -> None:
    warnings = [w for w in DataFacts.of(_by_class(lacks, size)).warnings if "who lacks" in w]
    assert len(warnings) == bool(said)
    assert all(said in warning for warning in warnings)


def test_what_is_missing_is_a_reference_of_its_own() -> None:
    probed = ClassifierConfig(inverse_regularization=1.0, max_iterations=1000, standardize=True)
    points = reference_points(_by_class({0: 0.0, 1: 0.5}), probed)
    found = {point.split: point.accuracy for point in points if point.reference == "what is missing"}
    assert found == {"valid": 0.75, "test": 0.75}
    assert best_raw(pd.DataFrame([dataclasses.asdict(point) for point in points])) != "what is missing"
    whole = reference_points(_by_class({0: 0.0, 1: 0.0}), probed)
    assert "what is missing" not in {point.reference for point in whole}


@pytest.mark.parametrize("split", [None, "valid"])
def test_a_modality_that_nobody_or_a_whole_split_lacks_is_told_of(split: str | None, tmp_path: Path) -> None:
    """Not as a shape that cannot be."""
    rng = np.random.default_rng(0)
    samples = {
        s: [
            ({"a": torch.zeros(0 if s == split else 2, 3), "b": torch.from_numpy(rng.normal(size=2))}, i % 2)
            for i in range(n)
        ]
        for s, n in {"train": 8, "valid": 4, "test": 4}.items()
    }
    if split is None:
        assert Dataset.from_torch("own", **samples).lacking == {}
        return
    with pytest.raises(UserError, match=r"^own: a is missing in every sample of valid \(length 0\); leave it out"):
        Dataset.from_torch("own", **samples)


def test_features_that_tell_the_class_do_so_where_a_class_lacks_them(tmp_path: Path) -> None:
    """Of three classes one lacks `a`, whose value is the class of the other two."""
    labels = np.arange(60) % 3
    samples = [
        ({"a": torch.full((0 if label == 2 else 1, 1), float(label)), "b": torch.tensor([float(i), i % 7])}, int(label))
        for i, label in enumerate(labels)
    ]
    with pytest.raises(UserError, match="modality a: feature 0 tells the class of every sample"):
        Dataset.from_torch("own", samples)
    alone = [({**x, "a": torch.zeros(0 if y else 1, 1)}, y) for x, y in samples]  # one class has it: nothing to compare
    assert Dataset.from_torch("own", alone).lacking


def test_frames_and_torch_datasets_take_it_too() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(20, 4)), columns=["a_0", "a_1", "b_0", "b_1"]).assign(label=np.arange(20) % 2)
    frame.loc[3, ["a_0", "a_1"]] = 0.0
    assert sum(Dataset.from_frame("own", frame, missing="zeros").lacking["a"].values()) == 1
    assert Dataset.from_frame("own", frame).lacking == {}
    with pytest.raises(UserError, match="missing nothing: is not known"):
        Dataset.from_frame("own", frame, missing=cast("Any", "nothing"))

    class Samples(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 20

        def __getitem__(self, i: int) -> Any:
            if i >= 20:
                raise IndexError
            return {"a": torch.randn(0 if i == 3 else 1 + i % 2, 3), "b": torch.randn(2)}, i % 2

    assert sum(Dataset.from_torch("own", Samples()).lacking["a"].values()) == 1


@pytest.mark.parametrize("gone", [(), (3,), (3, 4, 9)])
@pytest.mark.parametrize("nothing", [None, "left out", torch.zeros(0, 3), torch.zeros(0)])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_a_torch_sample_lacks_what_it_has_no_value_for(
    gone: tuple[int, ...], nothing: Any, shape: tuple[int, ...]
) -> None:
    def sample(i: int) -> Any:
        values = {"a": nothing if i in gone else torch.full(shape, float(i)), "b": torch.tensor([float(i), -i])}
        return {key: value for key, value in values.items() if not isinstance(value, str)}, i % 2

    data = Dataset.from_torch("own", [sample(i) for i in range(20)])
    assert sum(data.lacking.get("a", {}).values()) == len(gone)
    kept = [split.modalities["a"].values[:, 0] for split in data.splits.values()]
    steps = 2 if len(shape) == 2 else 1
    assert sorted(np.concatenate(kept)) == sorted([float(i) for i in range(20) if i not in gone] * steps)


def test_a_width_of_its_own_is_refused_beside_samples_that_lack_it() -> None:
    samples = [{"a": torch.ones(6 if i == 2 else 3), "b": torch.ones(2) * i, "label": i % 2} for i in range(12)]
    samples[5]["a"] = None
    with pytest.raises(UserError, match=r"own: a has shape \(6,\) in sample 2 of train"):
        Dataset.from_torch("own", samples)


def test_a_torch_sample_has_a_label() -> None:
    with pytest.raises(UserError, match="own: sample 1 of train: has no label; give all samples one"):
        Dataset.from_torch("own", [{"a": torch.ones(2), "label": 0}, {"a": torch.ones(2), "label": None}])


@pytest.mark.parametrize("gone", [(), (3,), (3, 4, 9)])
def test_a_row_of_a_frame_lacks_what_is_nan_throughout(gone: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(20, 4)), columns=["a_0", "a_1", "b_0", "b_1"]).assign(label=np.arange(20) % 2)
    frame.loc[list(gone), ["a_0", "a_1"]] = np.nan
    data = Dataset.from_frame("own", frame)
    assert sum(data.lacking.get("a", {}).values()) == len(gone)
    frame.loc[5, "a_0"] = np.nan  # a value that is missing of those it has
    with pytest.raises(UserError, match=r"a: 1 of .* values are NaN or infinite, in 1 samples"):
        Dataset.from_frame("own", frame)


@pytest.mark.parametrize("gone", [(), (3,), (3, 4, 9)])
def test_a_sample_without_a_row_in_a_table_of_steps_lacks_the_modality(gone: tuple[int, ...], tmp_path: Path) -> None:
    labels = pd.DataFrame({"id": range(20), "text_0": np.arange(20.0) ** 2, "kind": ["a", "b"] * 10})
    steps = pd.DataFrame({"id": np.repeat(range(20), 2), "audio_0": np.arange(40.0), "audio_1": np.arange(40.0) % 7})
    labels[::-1].to_csv(tmp_path / "labels.csv", index=False)
    steps[~steps["id"].isin(gone)].to_csv(tmp_path / "steps.csv", index=False)
    wanted = Wanted(sample="id", label="kind", modalities={"text": "text_*", "audio": "audio_*"})
    files = [tmp_path / "labels.csv", tmp_path / "steps.csv"]
    data = import_files(files, tmp_path / "out.npz", wanted)
    assert sum(data.lacking.get("audio", {}).values()) == len(gone)
    for split in data.splits.values():
        audio = split.modalities["audio"]
        had = split.modalities["text"].values[~audio.missing, 0]
        assert audio.values[::2, 0].tolist() == (2 * np.sqrt(had)).tolist()
    for own in (steps[steps["id"] > 99], steps.assign(id=steps["id"] + 1)):  # nobody is there; somebody else is
        own.to_csv(tmp_path / "steps.csv", index=False)
        with pytest.raises(UserError):
            import_files(files, tmp_path / "none.npz", wanted)


def test_what_is_as_usual_is_not_told_of_an_import(tmp_path: Path) -> None:
    """A column may be called as a default is."""
    frame = pd.DataFrame({"a_0": np.arange(20) % 7, "a_1": np.arange(20.0), "declared": ["x", "y"] * 10})
    frame.to_csv(tmp_path / "t.csv", index=False)
    wanted = Wanted(label="declared", missing="declared", modalities={"a": "a_*"})
    data = import_files([tmp_path / "t.csv"], tmp_path / "out.npz", wanted)
    assert data.facts["imported"]["options"] == {"label": "declared", "modalities": {"a": "a_*"}}


def test_a_study_refuses_what_workers_could_not_use(tiny_dataset: Dataset) -> None:
    """A dataset that `replace` made has passed no check."""
    for gone, sentence in (
        (lacking(tiny_dataset, valid={"left": range(10)}), "tiny: left is missing in every sample of valid"),
        (lacking(tiny_dataset, test={"left": [2], "right": [2]}), "tiny: 1 of 9 samples of test have none of"),
    ):
        with pytest.raises(UserError, match=sentence):
            Study.of({"tiny": gone}, "smoke", {})
    assert Study.of({"tiny": lacking(tiny_dataset, test={"left": [2]})}, "smoke", {}).datasets == ("tiny",)


def test_a_sample_of_nan_throughout_lacks_the_modality(tmp_path: Path) -> None:
    arrays = _arrays()
    arrays["train_audio"][1] = arrays["test_audio"][0] = np.nan
    arrays["train_audio"][2, 2] = np.nan  # padding
    np.savez(tmp_path / "raw.npz", **arrays)
    result = _s3ray("import", tmp_path / "raw.npz", "--output", tmp_path / "out.npz")
    assert result.exit_code == 0, result.output
    data = read_npz("out", tmp_path / "out.npz")
    assert data.train.modalities["audio"].lengths.tolist() == [3, 0, 2, 3, 3, 3]
    assert data.test.modalities["audio"].lengths.tolist() == [0, 3, 3, 3]


@pytest.fixture(scope="module")
def mosi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated file; vision of train's third sample is all zeros, and of all of test's in a second file."""
    folder = tmp_path_factory.mktemp("mosi")
    path = simulate("mosi", 30, folder, seed=0, progress=lambda what, done, total: None)
    content = pickle.loads(path.read_bytes())
    content["train"]["vision"][2] = 0
    path.write_bytes(pickle.dumps(content))
    content["test"]["vision"][:] = 0
    (folder / "blind").mkdir()
    (folder / "blind" / path.name).write_bytes(pickle.dumps(content))
    return path


def test_prepared_zeros_are_missing_where_that_is_asked(mosi: Path, tmp_path: Path) -> None:
    declared = Dataset.open(prepare("mosi", mosi, tmp_path / "declared").directory)
    assert declared.lacking == {}
    zeros = Dataset.open(prepare("mosi", mosi, tmp_path / "zeros", PrepareOptions(missing="zeros")).directory)
    assert zeros.lacking == {"vision": {"train": 1, "valid": 0, "test": 0}}
    assert [Inputs.of(data).missing for data in (declared, zeros)] == ["declared", "zeros"]
    assert zeros.train.modalities["vision"].missing.tolist().index(True) == 1  # one before it has no text
    for name in ("audio", "text"):
        np.testing.assert_array_equal(zeros.train.modalities[name].values, declared.train.modalities[name].values)
    assert zeros.fingerprint() != declared.fingerprint()
    assert "vision is missing in " in _s3ray("show", tmp_path / "zeros").output
    # Prepared once, whatever version wrote what was asked.
    assert prepare("mosi", mosi, tmp_path / "zeros", PrepareOptions(missing="zeros")).reused
    assert not prepare("mosi", mosi, tmp_path / "zeros").reused
    manifest = tmp_path / "declared" / "mosi" / "manifest.json"
    written = json.loads(manifest.read_text())
    del written["facts"]["options"]["missing"], written["digest"]
    manifest.write_text(json.dumps(written))
    assert prepare("mosi", mosi, tmp_path / "declared").reused


def test_a_prepared_split_without_a_modality_is_refused(mosi: Path, tmp_path: Path) -> None:
    blind = mosi.parent / "blind" / mosi.name
    with pytest.raises(UserError, match="vision is all zeros in every sample of test, so missing in all; prepare it"):
        prepare("mosi", blind, tmp_path, PrepareOptions(missing="zeros"))
    assert not (tmp_path / "mosi").exists()
    assert Dataset.open(prepare("mosi", blind, tmp_path).directory).lacking == {}


def test_z_normalised_zeros_are_missing_by_what_they_were(mosi: Path, tmp_path: Path) -> None:
    options = PrepareOptions(missing="zeros", z_norm=True)
    data = Dataset.open(prepare("mosi", mosi, tmp_path, options).directory)
    assert data.lacking == {"vision": {"train": 1, "valid": 0, "test": 0}}


def test_dropping_and_keeping(tiny_dataset: Dataset) -> None:
    left = dataclasses.replace(tiny_dataset.test.modalities["left"], standardized=True)
    kept = np.arange(9) != 4
    fewer = left.where(kept)
    assert fewer.standardized
    assert fewer.missing.tolist() == [not keep for keep in kept]
    assert torch.equal(fewer.batch(np.flatnonzero(kept)).values_TF, left.batch(np.flatnonzero(kept)).values_TF)


@pytest.mark.parametrize("missing", [(), (1,), (0, 1)])
def test_a_model_represents_new_samples_without_what_they_lack(
    missing: tuple[int, ...], tiny_model: ModelConfig
) -> None:
    """A batch may lack a modality throughout; the other's representation is what it was."""
    module = build_model(tiny_model, {"left": 5, "right": 3}, 0)
    classifier = ClassifierConfig(inverse_regularization=1.0, max_iterations=10, standardize=True)
    probe = ProbeConfig(output="none", on_sphere=True, classifier=classifier)
    model = Model(module, {"left": 5, "right": 3}, probe, pool=8, scope="layer")
    rng = np.random.default_rng(0)
    left, right = [rng.normal(size=(4, 5))] * 2, [rng.normal(size=(0 if i in missing else 2, 3)) for i in range(2)]
    z = model.encode({"left": left, "right": right})
    whole = model.encode({"left": left, "right": [rng.normal(size=(2, 3))] * 2})
    np.testing.assert_array_equal(z[:, :16], whole[:, :16])
    for i in range(2):
        assert z[i, 16:].any() == (i not in missing)
    ragged = {
        "left": left,
        "right": Ragged(torch.zeros(sum(map(len, right)), 3), torch.tensor([len(x) for x in right])),
    }
    assert not model.encode(ragged, 0.5)[list(missing), 16:].any()


def test_a_model_of_data_whose_zeros_are_missing_takes_new_ones_so(tiny_model: ModelConfig) -> None:
    """However they are given; a sample that lacks all is refused."""
    module = build_model(tiny_model, {"left": 5, "right": 3}, 0)
    classifier = ClassifierConfig(inverse_regularization=1.0, max_iterations=10, standardize=True)
    probe = ProbeConfig(output="none", on_sphere=True, classifier=classifier)
    as_values, as_missing = (
        Model(module, {"left": 5, "right": 3}, probe, pool=8, scope="layer", missing=rule)
        for rule in ("declared", "zeros")
    )
    rng = np.random.default_rng(0)
    batch = {"left": rng.normal(size=(3, 5)), "right": rng.normal(size=(3, 2, 3))}
    batch["right"][1] = 0.0
    assert as_values.encode(batch)[1, 16:].any()
    z = as_missing.encode(batch)
    assert not z[1, 16:].any()
    split = Split({name: Sequences.from_padded(x) for name, x in batch.items()}, np.zeros(3, dtype=np.int64))
    np.testing.assert_array_equal(as_missing.encode(split), z)
    batch["left"][1] = 0.0
    with pytest.raises(
        UserError, match=r"^batch: 1 of 3 samples of what is given have none of left, right .first sample 1"
    ):
        as_missing.encode(batch)
    batch["right"] = [rng.normal(size=(0 if i == 2 else 2, 3)) for i in range(3)]
    batch["left"] = [rng.normal(size=(0 if i == 2 else 1, 5)) for i in range(3)]
    with pytest.raises(UserError, match=r"none of left, right .first sample 2"):
        as_values.encode(batch)
