"""Bring your own data: the format of the README, and one sentence for whatever deviates from it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3ray.config import UserError
from s3ray.data.npz import read_npz

Arrays = dict[str, Any]


def _good() -> Arrays:
    """Audio: (n, 3 steps, 2 features) with lengths; face: (n, 4 features). Classes 3, 5 and 9."""
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for split, size in (("train", 6), ("valid", 3), ("test", 4)):
        arrays[f"{split}_audio"] = rng.normal(size=(size, 3, 2))
        arrays[f"{split}_audio_length"] = np.arange(size) % 3 + 1
        arrays[f"{split}_face"] = rng.integers(0, 9, size=(size, 4)).astype(np.int16)
        arrays[f"{split}_label"] = np.array([3, 5, 9, 3, 5, 9])[:size]
    return arrays


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own.npz"


def test_reads_the_documented_format(path: Path) -> None:
    arrays = _good()
    np.savez(path, **arrays)
    data = read_npz("own", path)
    assert (data.name, data.kind, data.classes) == ("own", "user", 3)
    assert data.features == {"audio": 2, "face": 4}
    assert [len(split) for split in data.splits.values()] == [6, 3, 4]
    audio, face = data.test.modalities["audio"], data.test.modalities["face"]
    assert audio.lengths.tolist() == [1, 2, 3, 1]
    assert np.array_equal(audio.values[1:3], arrays["test_audio"][1, :2].astype(np.float32))
    assert face.lengths.tolist() == [1, 1, 1, 1]
    assert np.array_equal(face.values, arrays["test_face"])
    assert data.test.labels.tolist() == [3, 5, 9, 3]


def test_lengths_are_optional_and_padding_may_hold_anything(path: Path) -> None:
    arrays = _good()
    arrays["train_audio"][0, 1:] = np.nan  # sample 0 has length 1
    del arrays["test_audio_length"]
    np.savez_compressed(path, **arrays)
    data = read_npz("own", path)
    assert data.train.modalities["audio"].lengths.tolist() == [1, 2, 3, 1, 2, 3]
    assert data.test.modalities["audio"].lengths.tolist() == [3, 3, 3, 3]


def _set(key: str, value: Any) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.update({key: value})


def _drop(*keys: str) -> Callable[[Arrays], None]:
    def drop(arrays: Arrays) -> None:
        for key in keys:
            del arrays[key]

    return drop


def _drop_split(split: str) -> Callable[[Arrays], None]:
    return lambda arrays: _drop(*[key for key in arrays if key.startswith(split)])(arrays)


def _poke(key: str, index: Any, value: float) -> Callable[[Arrays], None]:
    def poke(arrays: Arrays) -> None:
        arrays[key][index] = value

    return poke


def _rename(old: str, new: str) -> Callable[[Arrays], None]:
    def rename(arrays: Arrays) -> None:
        for key in list(arrays):
            arrays[key.replace(old, new)] = arrays.pop(key)

    return rename


# What is wrong, and the words its sentence must hold.
BAD: dict[str, tuple[Callable[[Arrays], None], list[str]]] = {
    "no train": (_drop_split("train"), ["train_", "missing", "add"]),
    "no valid": (_drop_split("valid"), ["valid_label", "missing", "add"]),
    "no test": (_drop_split("test"), ["test_label", "missing", "add"]),
    "no label": (_drop("valid_label"), ["valid_label", "missing", "add"]),
    "no train label": (_drop("train_label"), ["train_label", "missing", "add"]),
    "a modality missing": (_drop("test_face"), ["test_face", "missing", "add"]),
    "one modality": (_drop("train_face"), ["found 1 (audio)", "exactly two"]),
    "three modalities": (
        _set("train_text", np.ones((6, 2))),
        ["train_", "found 3", "audio, face, text", "exactly two"],
    ),
    "fewer labels": (_set("test_label", np.array([3, 5])), ["test_audio", "4 samples", "2", "match"]),
    "matrix of labels": (_set("train_label", np.ones((6, 1), int)), ["train_label", "(6, 1)", "convert"]),
    "float labels": (_set("train_label", np.ones(6)), ["train_label", "float64", "convert"]),
    "text labels": (_set("train_label", np.array(["a"] * 6)), ["train_label", "<U1", "convert"]),
    "one class": (
        lambda arrays: [arrays[f"{s}_label"].fill(3) for s in ("train", "valid", "test")],
        ["train_label", "single class", "at least two"],
    ),
    "unknown class in valid": (_poke("valid_label", 0, 7), ["valid_label", "class 7", "train_label"]),
    "unknown class in test": (_poke("test_label", 2, 8), ["test_label", "class 8", "train_label"]),
    "no samples": (
        lambda arrays: [arrays.update({k: v[:0]}) for k, v in list(arrays.items()) if k.startswith("valid")],
        ["valid", "empty"],
    ),
    "no steps": (_set("train_audio", np.ones((6, 0, 2))), ["train_audio", "(6, 0, 2)", "convert"]),
    "no features": (_set("train_face", np.ones((6, 0))), ["train_face", "(6, 0)", "convert"]),
    "NaN": (_poke("train_audio", (0, 0, 0), np.nan), ["train_audio", "1 values", "NaN", "replace"]),
    "infinity": (_poke("test_audio", (0, 0), -np.inf), ["test_audio", "2 values", "infinite", "replace"]),
    "beyond float32": (_poke("test_audio", (0, 0, 0), 1e39), ["test_audio", "float32", "replace"]),
    "widths differ": (_set("valid_face", np.ones((3, 5))), ["valid_face", "5", "train_face", "4"]),
    "four dimensions": (_set("train_face", np.ones((6, 1, 1, 4))), ["train_face", "(6, 1, 1, 4)"]),
    "one dimension": (_set("train_face", np.ones(6)), ["train_face", "(6,)", "convert"]),
    "complex values": (_set("train_face", np.ones((6, 4), complex)), ["train_face", "complex128"]),
    "boolean values": (_set("train_face", np.ones((6, 4), bool)), ["train_face", "bool"]),
    "length zero": (_poke("train_audio_length", 0, 0), ["train_audio_length", "between 1 and 3", "correct"]),
    "length beyond the steps": (_poke("valid_audio_length", 0, 4), ["valid_audio_length", "1 and 3"]),
    "float lengths": (_set("test_audio_length", np.ones(4)), ["test_audio_length", "4 integers"]),
    "too few lengths": (_set("test_audio_length", np.ones(3, int)), ["test_audio_length", "4 integers"]),
    "no plain word": (_rename("audio", "au-dio"), ["'au-dio'", "train_au-dio", "rename"]),
    "an attribute of torch's modules": (_rename("audio", "values"), ["'values'", "train_values", "rename"]),
    "objects": (_set("train_face", np.array([{}] * 6)), ["pickle", "numpy.savez"]),
}


def _sentence(path: Path) -> str:
    """What reading `path` ends in: one line that names the file and, after a semicolon, a remedy."""
    with pytest.raises(UserError) as error:
        read_npz("own", path)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert "\n" not in message
    return message


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("name", BAD)
def test_bad_content_is_refused_by_name(name: str, path: Path) -> None:
    spoil, words = BAD[name]
    arrays = _good()
    spoil(arrays)
    np.savez(path, **arrays)
    message = _sentence(path)
    assert all(word in message for word in words), message


def test_missing_file(path: Path) -> None:
    assert "no such file; check --dataset own=PATH" in _sentence(path)


class Bomb:
    """Unpickling it would do something."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("code of the file was run",)


def _damaged(size: int) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        np.savez_compressed(path, **_good())
        content = bytearray(path.read_bytes())
        content[100 : 100 + size] = bytes(size)
        path.write_bytes(content)

    return write


def _truncated(path: Path) -> None:
    np.savez(path, **_good())
    path.write_bytes(path.read_bytes()[:900])


def _single_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(3))


WRITERS: dict[str, Callable[[Path], Any]] = {
    "an empty file": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("train_label,1,2"),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"train": Bomb()})),
    "a single .npy array": _single_array,
    "a truncated archive": _truncated,
    "a damaged header": _damaged(40),
    "damaged content": _damaged(200),
    "an archive of no arrays": lambda path: np.savez(path),
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_not_an_archive_of_arrays(name: str, path: Path) -> None:
    WRITERS[name](path)
    message = _sentence(path)
    assert "numpy.savez" in message or "train_label" in message


def test_pickled_code_inside_the_archive_is_not_run(path: Path) -> None:
    np.savez(path, **_good() | {"train_face": np.array([Bomb()] * 6, dtype=object)})
    assert "pickle" in _sentence(path)
