"""Conversion of MultiBench's files: every step on samples written out by hand, and what interruptions leave."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3ray.data.dataset import Dataset, Sequences
from s3ray.data.multibench import prepare as module
from s3ray.data.multibench.prepare import Prepared, PrepareOptions, prepare
from s3ray.data.multibench.simulate import simulate
from s3ray.errors import UserError

Content = dict[str, Any]
NAN, INF = np.nan, np.inf


def _split(name: str, text: Any, vision: Any, audio: Any, labels: list[float]) -> Content:
    return {
        "text": np.array(text, dtype=np.float64),
        "vision": np.array(vision, dtype=np.float64),
        "audio": np.array(audio, dtype=np.float64)[:, :, None],
        "labels": np.array(labels).reshape(-1, 1, 1),
        "id": np.array([f"{name}_{i}" for i in range(len(labels))]),
    }


def _by_hand() -> Content:
    """4 / 1 / 2 samples of 4 steps; text and vision have two features, audio one."""
    train = _split(
        "train",
        text=[
            [[0, 0], [0, 0], [1, 0], [0, 2]],  # from step 2 on
            [[0, 0], [0, 0], [0, 0], [0, 0]],  # none
            [[3, 0], [0, 0], [0, 0], [0, 4]],  # from the start, with steps of zeros in between
            [[0, 0], [NAN, -INF], [0, 0], [5, 5]],  # from step 3 on: what is replaced is no text
        ],
        vision=[
            [[9, 9], [8, 8], [1, NAN], [INF, 2]],
            [[7, 7], [7, 7], [7, 7], [7, 7]],
            [[0, 0], [3, 4], [0, 0], [5, -INF]],
            [[1, 1], [2, 2], [3, 3], [4, -4]],
        ],
        audio=[[-INF, 6, 1e39, -1], [NAN, 7, 7, 7], [7, 7, 7, 7], [1, 2, 3, 0.5]],
        labels=[0.0, 3.0, -2.0, 1.0],
    )
    valid = _split(
        "valid",
        text=[[[0, 0], [0.5, 0], [0, 0], [0, 0]]],
        vision=[[[1, 2], [3, 4], [5, 6], [7, 8]]],
        audio=[[1, 2, 3, -4e38]],
        labels=[-0.25],
    )
    test = _split(
        "test",
        text=np.concatenate([np.zeros((1, 4, 2)), np.ones((1, 4, 2))]),
        vision=np.arange(16).reshape(2, 4, 2),
        audio=[[0, 1, 2, 3], [4, 5, 6, 7]],
        labels=[0.0, 0.0],
    )
    return {"train": train, "valid": valid, "test": test}


def _any(sizes: tuple[int, int, int] = (7, 4, 3), steps: int = 6) -> Content:
    """Drawn at random, with padding on the left, samples without text and values that are not finite."""
    rng = np.random.default_rng(0)
    content = {}
    for name, n in zip(("train", "valid", "test"), sizes, strict=True):
        text, vision = rng.normal(size=(n, steps, 3)), rng.normal(size=(n, steps, 2))
        text[np.arange(steps) < rng.integers(0, steps, n)[:, None]] = 0.0
        text[1] = 0.0
        vision[rng.random(vision.shape) < 0.1] = np.nan
        labels = np.resize([1.0, -1.0, -2.0, 0.0], n).tolist()
        content[name] = _split(name, text, vision, rng.normal(size=(n, steps)), labels)
    return content


def _dump(content: Content, folder: Path, name: str = "mosi_data.pkl") -> Path:
    (folder / name).write_bytes(pickle.dumps(content))
    return folder / name


def _state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a folder, hidden files too: when it was written and what it holds."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


def _prepare_by_hand(folder: Path, **options: Any) -> Dataset:
    path = _dump(_by_hand(), folder)
    return Dataset.open(prepare("mosi", path, folder / "output", PrepareOptions(**options)).directory)


def _rows(sequences: Sequences) -> tuple[list[int], list[list[float]]]:
    assert (sequences.values.dtype, sequences.offsets.dtype) == (np.float32, np.int64)
    return sequences.offsets.tolist(), sequences.values.tolist()


@pytest.mark.filterwarnings("error")  # a value beyond float32 is no warning either
def test_every_step_on_a_split_written_by_hand(tmp_path: Path) -> None:
    train = _prepare_by_hand(tmp_path).train.modalities
    assert _rows(train["vision"]) == ([0, 2, 6, 7], [[1, 0], [0, 2], [0, 0], [3, 4], [0, 0], [5, 0], [4, -4]])
    assert _rows(train["audio"]) == ([0, 2, 6, 7], [[0], [-1], [7], [7], [7], [7], [0.5]])
    assert _rows(train["text"]) == ([0, 2, 6, 7], [[1, 0], [0, 2], [3, 0], [0, 0], [0, 0], [0, 4], [5, 5]])


def test_steps_of_zeros_after_the_first_text_stay(tmp_path: Path) -> None:
    valid = _prepare_by_hand(tmp_path).valid.modalities
    assert _rows(valid["text"]) == ([0, 3], [[0.5, 0], [0, 0], [0, 0]])
    assert _rows(valid["vision"]) == ([0, 3], [[3, 4], [5, 6], [7, 8]])
    assert _rows(valid["audio"]) == ([0, 3], [[2], [3], [0]])


def test_samples_without_text_are_dropped_from_all_modalities_and_labels(tmp_path: Path) -> None:
    data = _prepare_by_hand(tmp_path)
    assert data.test.labels.tolist() == [1]
    assert _rows(data.test.modalities["vision"]) == ([0, 4], [[8, 9], [10, 11], [12, 13], [14, 15]])
    assert _rows(data.test.modalities["audio"]) == ([0, 4], [[4], [5], [6], [7]])
    assert data.train.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("neutral", "labels", "rule"),
    [
        ("positive", {"train": [1, 0, 1], "valid": [0], "test": [1]}, "label >= 0 is positive"),
        ("negative", {"train": [0, 0, 1], "valid": [0], "test": [0]}, "label > 0 is positive"),
    ],
)
def test_labels_follow_the_rule_that_is_noted(neutral: Any, labels: Any, rule: str, tmp_path: Path) -> None:
    data = _prepare_by_hand(tmp_path, neutral=neutral)
    assert {name: split.labels.tolist() for name, split in data.splits.items()} == labels
    assert data.facts["label_rule"] == rule
    assert data.facts["options"] == {"neutral": neutral, "z_norm": False, "missing": "declared"}


def test_z_norm_by_hand(tmp_path: Path) -> None:
    data = _prepare_by_hand(tmp_path, z_norm=True)
    train = data.train.modalities
    # Two values a and b become ±1/√2. Vision's 0, 3, 0, 5: mean 2, deviation √(18/3) = √6; 0, 4, 0, 0: mean 1,
    # deviation √(12/3) = 2. Text's 3, 0, 0, 0: mean 0.75, deviation √(6.75/3) = 1.5.
    half, root = 0.5**0.5, 6**0.5
    vision = [[half, -half], [-half, half]]
    vision += [[-2 / root, -0.5], [1 / root, 1.5], [-2 / root, -0.5], [3 / root, -0.5]]
    text = [[half, -half], [-half, half], [1.5, -0.5], [-0.5, -0.5], [-0.5, -0.5], [-0.5, 1.5]]
    audio = [[half], [-half], [0], [0], [0], [0]]  # sevens do not vary
    single = [[0, 0]]  # nor does a single step
    for name, expected in (("vision", vision + single), ("text", text + single), ("audio", [*audio, [0]])):
        assert train[name].offsets.tolist() == [0, 2, 6, 7]
        np.testing.assert_allclose(train[name].values, np.array(expected), rtol=1e-6, atol=0)
        assert train[name].values.dtype == np.float32
    # Test's 8, 10, 12, 14: mean 11, deviation √(20/3).
    expected = np.array([-3, -1, 1, 3]) / (20 / 3) ** 0.5
    np.testing.assert_allclose(data.test.modalities["vision"].values[:, 0], expected, rtol=1e-6)


def test_z_norm_of_what_does_not_vary_is_0_however_it_is_rounded(tmp_path: Path) -> None:
    content = _any(steps=49)
    for split in content.values():
        split["text"][:, :, 0] = 0.1  # has no exact binary fraction
        split["audio"][:] = 1e6 + 0.1
    path = _dump(content, tmp_path)
    data = Dataset.open(prepare("mosi", path, tmp_path / "output", PrepareOptions(z_norm=True)).directory)
    assert not data.train.modalities["audio"].values.any()
    assert not data.train.modalities["text"].values[:, 0].any()
    assert data.train.modalities["text"].values[:, 1].any()


@pytest.mark.parametrize(
    ("first", "rows", "truncated"), [(0, range(0, 50), 1), (2, range(2, 52), 1), (3, range(3, 53), 0)]
)
def test_50_steps_from_the_first_text_on_are_kept(first: int, rows: range, truncated: int, tmp_path: Path) -> None:
    # 53 steps; the value of each is its number, in every modality but for the padding.
    steps = np.arange(53.0)
    text = np.where(steps >= first, 1.0, 0.0).reshape(1, 53, 1)
    vision = np.stack([steps, -steps], axis=1)[None]
    content = _any()
    content["test"] = _split("test", text, vision, steps[None], [1.0])
    for split in ("train", "valid"):
        content[split] = _split(split, np.ones((2, 53, 1)), np.ones((2, 53, 2)), np.ones((2, 53)), [1.0, -1.0])
    data = Dataset.open(prepare("mosi", _dump(content, tmp_path), tmp_path / "output").directory)
    assert data.test.modalities["audio"].values[:, 0].tolist() == list(rows)
    assert data.test.modalities["vision"].values.tolist() == [[step, -step] for step in rows]
    assert data.test.modalities["text"].lengths.tolist() == [50]
    assert data.facts["splits"]["test"]["truncated"] == truncated
    assert data.facts["splits"]["train"]["truncated"] == 2


def test_sentiments_are_stored_beside_the_samples_that_stay_and_change_no_fingerprint(tmp_path: Path) -> None:
    data = _prepare_by_hand(tmp_path)
    scores = {name: split.scores.tolist() for name, split in data.splits.items() if split.scores is not None}
    assert scores == {"train": [0.0, -2.0, 1.0], "valid": [-0.25], "test": [0.0]}
    without = {name: dataclasses.replace(split, scores=None) for name, split in data.splits.items()}
    assert data.fingerprint() == dataclasses.replace(data, **without).fingerprint()
    assert data.content() != data.fingerprint()


def test_classes_that_are_no_sentiments_have_no_scores(tmp_path: Path) -> None:
    content = _any()
    for split in content.values():
        split["labels"] = np.sign(split["labels"]) + (split["labels"] == 0)
    prepared = prepare("mustard", _dump(content, tmp_path, "sarcasm.pkl"), tmp_path / "output")
    assert Dataset.open(prepared.directory).scores_fingerprint() is None
    assert prepare("mustard", tmp_path / "sarcasm.pkl", tmp_path / "output").reused


def test_sentiments_beyond_the_scale_count_as_its_end(tmp_path: Path) -> None:
    content = _any((40, 12, 12))
    content["train"]["labels"][0] = 5
    data = Dataset.open(prepare("mosei", _dump(content, tmp_path), tmp_path / "output").directory)
    assert data.train.scores is not None
    assert data.train.scores.max() == 3.0


def test_a_simulated_file_has_scores_that_its_classes_follow_from(tmp_path: Path) -> None:
    path = simulate("mosi", 12, tmp_path)
    data = Dataset.open(prepare("mosi", path, tmp_path / "output").directory)
    for split in data.splits.values():
        assert split.scores is not None
        assert np.array_equal(split.scores >= 0, split.labels == 1)
        assert np.ptp(split.scores) > 0


def test_what_an_earlier_version_prepared_without_sentiments_is_prepared_again(tmp_path: Path) -> None:
    path = _dump(_any(), tmp_path)
    prepared = prepare("mosi", path, tmp_path / "output")
    expected = _state(tmp_path / "output")
    manifest = json.loads((prepared.directory / "manifest.json").read_text())
    for split in ("train", "valid", "test"):
        del manifest["arrays"][f"{split}.scores"]
        (prepared.directory / f"{split}.scores.npy").unlink()
    del manifest["digest"]
    (prepared.directory / "manifest.json").write_text(json.dumps(manifest))
    before = Dataset.open(prepared.directory).fingerprint()
    assert not prepare("mosi", path, tmp_path / "output").reused
    assert Dataset.open(prepared.directory).fingerprint() == before
    assert {k: v[1] for k, v in _state(tmp_path / "output").items()} == {k: v[1] for k, v in expected.items()}


def test_the_manifest_says_what_was_read_and_done(tmp_path: Path) -> None:
    content = _by_hand()
    content["test"]["id"] = np.array(["test_0", "valid_0"])
    path = _dump(content, tmp_path)
    prepared = prepare("mosi", path, tmp_path / "output")
    warning = "1 ids are in valid and in test: samples leak between the splits"
    known = "mosi is known with 1284/229/686 or 1283/214/686 of 20/5/300 in 50 steps: check that it is mosi's file"
    warnings = [warning, f"4/1/2 samples of 2/1/2 in 4 steps; {known}"]
    assert prepared == Prepared(tmp_path / "output" / "mosi", path, False, tuple(warnings))
    manifest = json.loads((tmp_path / "output" / "mosi" / "manifest.json").read_text())
    assert (manifest["name"], manifest["kind"]) == ("mosi", "multibench")
    assert manifest["modalities"] == ["vision", "audio", "text"]
    assert manifest["facts"] == {
        "source": {
            "file": "mosi_data.pkl",
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        },
        "options": {"neutral": "positive", "z_norm": False, "missing": "declared"},
        "missing": "declared",
        "label_rule": "label >= 0 is positive",
        "warnings": warnings,
        "modality_warnings": {"vision": [], "audio": [], "text": []},
        "scale_warnings": {"vision": [], "audio": [], "text": []},
        "splits": {
            # Replaced values count wherever they were: in samples that are dropped and steps that are cut too.
            "train": {
                "samples": 4,
                "without_text": 1,
                "truncated": 0,
                "non_finite": {"vision": 3, "audio": 3, "text": 2},
                "neutral": 1,
            },
            "valid": {
                "samples": 1,
                "without_text": 0,
                "truncated": 0,
                "non_finite": {"vision": 0, "audio": 1, "text": 0},
                "neutral": 0,
            },
            # Of its two labels of 0, one goes with a sample that has no text.
            "test": {
                "samples": 2,
                "without_text": 1,
                "truncated": 0,
                "non_finite": {"vision": 0, "audio": 0, "text": 0},
                "neutral": 1,
            },
        },
    }
    assert Dataset.open(prepared.directory).damaged() == []


@pytest.mark.parametrize("options", [PrepareOptions(), PrepareOptions(z_norm=True)])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_give_the_same_files_as_one_piece(
    chunk: int, options: PrepareOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _dump(_any(), tmp_path)
    prepare("mosi", path, tmp_path / "whole", options)
    monkeypatch.setattr(module, "CHUNK_SAMPLES", chunk)
    prepare("mosi", path, tmp_path / "chunks", options)
    whole, chunks = _state(tmp_path / "whole"), _state(tmp_path / "chunks")
    assert {name: content for name, (_, content) in whole.items()} == {
        name: content for name, (_, content) in chunks.items()
    }


def test_a_second_call_reuses_what_is_there(tmp_path: Path) -> None:
    content = _any()
    content["valid"]["id"] = content["train"]["id"][:4]
    path = _dump(content, tmp_path)
    first = prepare("mosi", path, tmp_path / "output")
    before = _state(tmp_path / "output")
    second = prepare("mosi", path, tmp_path / "output")
    assert (first.reused, second.reused) == (False, True)
    assert second.warnings == first.warnings
    assert first.warnings[0] == "4 ids are in train and in valid: samples leak between the splits"
    assert _state(tmp_path / "output") == before


def test_what_an_earlier_version_prepared_without_a_look_at_its_values_is_prepared_again(tmp_path: Path) -> None:
    path = _dump(_any(), tmp_path)
    prepared = prepare("mosi", path, tmp_path / "output")
    expected = _state(tmp_path / "output")
    manifest = json.loads((prepared.directory / "manifest.json").read_text())
    del manifest["facts"]["modality_warnings"]
    del manifest["digest"]
    (prepared.directory / "manifest.json").write_text(json.dumps(manifest))
    assert not prepare("mosi", path, tmp_path / "output").reused
    assert {k: v[1] for k, v in _state(tmp_path / "output").items()} == {k: v[1] for k, v in expected.items()}


def test_odd_values_are_seen_as_they_are_stored_and_shown_for_the_pair_that_is_taken(tmp_path: Path) -> None:
    content = _any((40, 12, 12))
    for split in content.values():
        split["vision"][:, :, 0] = 1e6 + np.arange(6)
        split["audio"][:4] = 0.0
    content["test"] = {key: value.copy() for key, value in content["valid"].items()}
    content["train"]["text"][0, -1, 0] = -3.4e38  # no more a number than inf is
    prepared = prepare("mosi", _dump(content, tmp_path), tmp_path / "output")
    data = Dataset.open(prepared.directory)
    assert data.facts["splits"]["train"]["non_finite"]["text"] == 1
    shared, vision, audio = data.warnings[-3:]
    assert shared == "test holds the samples of valid, value for value: the splits leak"
    assert vision.startswith(
        "train/vision: 1 of 2 features lies by far more around a mean than they vary, feature 0 by"
    )
    assert audio.startswith("audio is all zeros in 3 of 39 samples of train (7.7 %), 3 of 11 samples of valid (27 %)")
    assert Dataset.open(prepared.directory, ("text", "vision")).warnings[-1] == vision


def test_a_class_does_not_change_by_labels_of_the_known_artefact(tmp_path: Path) -> None:
    content = _any((40, 12, 12))
    prepare("mosei", _dump(content, tmp_path), tmp_path / "output")
    labels = Dataset.open(tmp_path / "output" / "mosei").train.labels.tolist()
    content["train"]["labels"][0] = 5  # was 1
    prepared = prepare("mosei", _dump(content, tmp_path), tmp_path / "output")
    assert any("1 of 64 labels (1 of train) lie in (3, 5]" in warning for warning in prepared.warnings)
    assert Dataset.open(tmp_path / "output" / "mosei").train.labels.tolist() == labels


def test_other_options_and_other_bytes_replace_what_is_there(tmp_path: Path) -> None:
    content, output = _any(), tmp_path / "output"
    path = _dump(content, tmp_path)
    fingerprints = [Dataset.open(prepare("mosi", path, output).directory).fingerprint()]
    for options in (PrepareOptions(neutral="negative"), PrepareOptions(z_norm=True)):
        assert not prepare("mosi", path, output, options).reused
        fingerprints.append(Dataset.open(output / "mosi").fingerprint())
        assert prepare("mosi", path, output, options).reused
    content["test"]["text"][0, -1, 0] += 1
    _dump(content, tmp_path)  # the same size
    assert not prepare("mosi", path, output).reused
    fingerprints.append(Dataset.open(output / "mosi").fingerprint())
    assert len(set(fingerprints)) == 4
    assert [entry.name for entry in output.iterdir()] == ["mosi"]


@pytest.mark.parametrize("name", ["train.text.values.npy", "manifest.json"])
def test_what_cannot_be_opened_is_prepared_again(name: str, tmp_path: Path) -> None:
    path = _dump(_any(), tmp_path)
    prepared = prepare("mosi", path, tmp_path / "output")
    expected = {name: content for name, (_, content) in _state(prepared.directory).items()}
    (prepared.directory / name).write_bytes((prepared.directory / name).read_bytes()[:-30])
    assert not prepare("mosi", path, tmp_path / "output").reused
    assert {name: content for name, (_, content) in _state(prepared.directory).items()} == expected


def test_datasets_in_a_folder_do_not_touch_each_other(tmp_path: Path) -> None:
    path = _dump(_any(), tmp_path)
    prepare("mosei", path, tmp_path / "output")
    before = _state(tmp_path / "output" / "mosei")
    prepare("mosi", path, tmp_path / "output")
    prepare("mosi", path, tmp_path / "output", PrepareOptions(z_norm=True))
    assert _state(tmp_path / "output" / "mosei") == before


def test_whoever_has_the_replaced_version_open_keeps_its_values(tmp_path: Path) -> None:
    path = _dump(_any((60, 4, 3)), tmp_path)
    opened = Dataset.open(prepare("mosi", path, tmp_path / "output").directory)
    expected = {name: np.array(array) for name, array in opened.arrays().items()}
    prepare("mosi", path, tmp_path / "output", PrepareOptions(neutral="negative", z_norm=True))
    assert all(np.array_equal(array, expected[name]) for name, array in opened.arrays().items())
    assert Dataset.open(tmp_path / "output" / "mosi").fingerprint() != opened.fingerprint()


_KILLED = """
import os, signal, sys
from pathlib import Path
from s3ray.data.multibench import prepare as module

calls = []

def progress(what, done, total):
    calls.append(what)
    if calls.count("converting") == 2:
        os.kill(os.getpid(), signal.SIGKILL)

module.CHUNK_SAMPLES = 1
module.prepare("mosi", Path(sys.argv[1]), Path(sys.argv[2]), module.PrepareOptions(z_norm=True), progress)
"""


@pytest.mark.slow
def test_a_killed_conversion_costs_nothing_but_itself(tmp_path: Path) -> None:
    path, output = _dump(_any(), tmp_path), tmp_path / "output"
    prepare("mosi", path, output)
    before = _state(output)
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path), str(output)], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    after = _state(output)
    assert {name: state for name, state in after.items() if name in before} == before
    leftovers = {name.split("/")[0] for name in after} - {"mosi"}
    assert any(name.startswith(".mosi-") for name in leftovers)  # it was underway
    assert prepare("mosi", path, output).reused
    assert _state(output) == before
    assert not prepare("mosi", path, output, PrepareOptions(z_norm=True)).reused
    assert [entry.name for entry in output.iterdir()] == ["mosi"]


@pytest.mark.parametrize("point", [("reading", 1), ("converting", 1), ("converting", 3)])
@pytest.mark.parametrize("there", [False, True])
def test_an_interrupted_conversion_leaves_nothing(point: tuple[str, int], there: bool, tmp_path: Path) -> None:
    path, output = _dump(_any(), tmp_path), tmp_path / "output"
    if there:
        prepare("mosi", path, output)
    before = _state(output)
    calls = []

    def progress(what: str, done: int, total: int) -> None:
        calls.append(what)
        if (what, calls.count(what)) == point:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("mosi", path, output, PrepareOptions(z_norm=True), progress)
    assert _state(output) == before


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """The operating system refuses to let any file of this process grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [100, 2_000, 50_000])
@pytest.mark.parametrize("there", [False, True])
def test_a_disk_that_is_full_is_one_sentence_and_leaves_nothing(there: bool, size: int, tmp_path: Path) -> None:
    path, output = _dump(_any((300, 4, 3), steps=50), tmp_path), tmp_path / "output"
    if there:
        prepare("mosi", path, output)
    before = _state(output)
    with _largest_file(size), pytest.raises(UserError, match=r"output: cannot be written \(.+\); choose another"):
        prepare("mosi", path, output, PrepareOptions(z_norm=True))
    assert _state(output) == before


def test_a_disk_that_is_full_is_no_damage_of_an_hdf5_file(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "mosi.hdf5", "w") as file:
        for split, arrays in _any((300, 4, 3), steps=50).items():
            for key, array in arrays.items():
                file.create_dataset(f"{split}/{key}", data=array.astype("S") if key == "id" else array)
    with _largest_file(50_000), pytest.raises(UserError, match=r"output: cannot be written \(.+\); choose another"):
        prepare("mosi", tmp_path / "mosi.hdf5", tmp_path / "output")


def test_a_second_conversion_at_the_same_time_is_refused(tmp_path: Path) -> None:
    content, output = _any(), tmp_path / "output"
    for split in content.values():
        split["labels"] = np.resize([1.0, -1.0], len(split["labels"]))  # fit both datasets
    path = _dump(content, tmp_path)
    refusals = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "converting" and not refusals:
            with pytest.raises(UserError) as error:
                prepare("mosi", path, output)
            refusals.append(str(error.value))
            prepare("mustard", path, output)  # another dataset may

    assert not prepare("mosi", path, output, progress=progress).reused
    assert refusals == [f"{output}: mosi is being prepared by another process; wait for it"]
    assert sorted(entry.name for entry in output.iterdir()) == ["mosi", "mustard"]
    assert prepare("mosi", path, output).reused


def test_the_lock_is_the_operating_systems(tmp_path: Path) -> None:
    path, output = _dump(_any(), tmp_path), tmp_path / "output"
    output.mkdir()
    with (output / ".mosi.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="mosi is being prepared by another process; wait for it"):
            prepare("mosi", path, output)
        assert [entry.name for entry in output.iterdir()] == [".mosi.lock"]
    # A file that no process holds is no obstacle.
    assert (output / ".mosi.lock").exists()
    assert not prepare("mosi", path, output).reused
    assert [entry.name for entry in output.iterdir()] == ["mosi"]


@pytest.mark.parametrize("place", ["file", "file/deeper"])
def test_a_file_in_place_of_the_output_folder_is_one_sentence(place: str, tmp_path: Path) -> None:
    path = _dump(_any(), tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError) as error:
        prepare("mosi", path, tmp_path / place)
    assert str(error.value).startswith(f"{tmp_path / place}: cannot be written (")
    assert str(error.value).endswith("; choose another --output")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_in_place_of_the_dataset_is_one_sentence_and_stays(tmp_path: Path) -> None:
    path, output = _dump(_any(), tmp_path), tmp_path / "output"
    output.mkdir()
    (output / "mosi").write_text("mine")
    before = _state(output)
    with pytest.raises(UserError, match=r"mosi.*; "):
        prepare("mosi", path, output)
    assert _state(output) == before


def test_a_folder_that_is_no_prepared_dataset_is_not_replaced(tmp_path: Path) -> None:
    path = _dump(_any(), tmp_path)
    (tmp_path / "mosi").mkdir()
    (tmp_path / "mosi" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="mosi"):
        prepare("mosi", path, tmp_path)
    assert (tmp_path / "mosi" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("what", ["nothing", "folder", "dangling link"])
def test_a_source_that_is_no_file_is_one_sentence(what: str, tmp_path: Path) -> None:
    path = tmp_path / "mosi_data.pkl"
    if what == "folder":
        path.mkdir()
    elif what == "dangling link":
        path.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"mosi_data\.pkl: not a file, nor a link to one; give the file"):
        prepare("mosi", path, tmp_path / "output")
    assert not (tmp_path / "output").exists()


def test_a_link_to_the_file_is_as_good(tmp_path: Path) -> None:
    real = _dump(_any(), tmp_path, "elsewhere.pkl")
    (tmp_path / "mosi_data.pkl").symlink_to(real)
    facts = Dataset.open(prepare("mosi", tmp_path / "mosi_data.pkl", tmp_path / "output").directory).facts
    assert (facts["source"]["file"], facts["source"]["bytes"]) == ("mosi_data.pkl", real.stat().st_size)


def test_progress_grows_to_its_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_SAMPLES", 2)
    path = _dump(_any(), tmp_path)
    calls: list[tuple[str, int, int]] = []
    prepare("mosi", path, tmp_path / "output", progress=lambda *call: calls.append(call))
    assert [what for what, _, _ in calls] == ["reading"] + ["converting"] * (4 + 2 + 2)
    assert calls[0] == ("reading", path.stat().st_size, path.stat().st_size)
    # 7 + 4 + 3 samples of 6 steps with 3 + 2 + 1 float64 features.
    total = 14 * 6 * 6 * 8
    done = [done for _, done, _ in calls[1:]]
    assert {size for _, _, size in calls[1:]} == {total}
    assert done == sorted(set(done))
    assert done[-1] == total


_LIMITED = """
import resource, sys
from pathlib import Path
from s3ray.data.multibench.prepare import prepare

status = Path("/proc/self/status").read_text()
used = 1024 * int(status.partition("VmData:")[2].split()[0])
limit = used + int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
prepare("mosei", Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit is Linux's")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    # Memory that is no map of the file may grow by half the file's size, 49 MB. A chunk of 256 samples takes 35 MB
    # as it is read, cut and compared; the training split as one piece would take 60 MB, the file in memory 98 MB.
    path = simulate("mosei", 600, tmp_path)
    size = path.stat().st_size
    assert size > 90e6
    limited = [sys.executable, "-c", _LIMITED, str(path), str(tmp_path), str(size // 2)]
    done = subprocess.run(limited, capture_output=True, text=True)
    path.unlink()  # pytest keeps folders
    assert done.returncode == 0, done.stderr
    assert [len(split) > 0 for split in Dataset.open(tmp_path / "mosei").splits.values()] == [True, True, True]
