"""Bring your own data: the format of the README, and one sentence for whatever deviates from it."""

from __future__ import annotations

import dataclasses
import gzip
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from s3ray.data.embedded.digits import digits
from s3ray.data.embedded.latent_factors import latent_factors
from s3ray.data.npz import read_npz
from s3ray.data.values import Look, modality_warnings, scale_warnings, shared_samples
from s3ray.errors import UserError

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
    "a modality in train alone": (_set("train_text", np.ones((6, 2))), ["valid_text", "missing", "add"]),
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
    "negative length": (_poke("train_audio_length", 0, -1), ["train_audio_length", "from 0 (missing) to 3", "correct"]),
    "length beyond the steps": (_poke("valid_audio_length", 0, 4), ["valid_audio_length", "to 3"]),
    "float lengths": (_set("test_audio_length", np.ones(4)), ["test_audio_length", "4 integers"]),
    "too few lengths": (_set("test_audio_length", np.ones(3, int)), ["test_audio_length", "4 integers"]),
    "no plain word": (_rename("audio", "au-dio"), ["'au-dio'", "train_au-dio", "rename"]),
    "an attribute of torch's modules": (_rename("audio", "values"), ["'values'", "train_values", "rename"]),
    "objects": (_set("train_face", np.array([{}] * 6)), ["train_face", "Python objects of shape (6,)", "pad them"]),
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
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_not_an_archive_of_arrays(name: str, path: Path) -> None:
    WRITERS[name](path)
    message = _sentence(path)
    assert any(remedy in message for remedy in ("numpy.savez", "train_label", "own_imported.npz"))


def test_pickled_code_inside_the_archive_is_not_run(path: Path) -> None:
    np.savez(path, **_good() | {"train_face": np.array([Bomb()] * 6, dtype=object)})
    assert "train_face holds Python objects" in _sentence(path)


def _renamed(**keys: str) -> Arrays:
    """Good arrays, words of whose keys are replaced, such as label by labels."""
    arrays = _good()
    for old, new in keys.items():
        arrays = {re.sub(rf"(?<![a-z]){old}(?![a-z])", new, key): value for key, value in arrays.items()}
    return arrays


def _plus(stem: str, value: Callable[[int], Any]) -> Arrays:
    arrays = _good()
    for split in ("train", "valid", "test"):
        arrays[f"{split}_{stem}"] = value(len(arrays[f"{split}_label"]))
    return arrays


# Keys as other loaders have them, and the words that lead on.
KEYS: dict[str, tuple[Callable[[], Arrays], str]] = {
    "labels": (
        lambda: _renamed(label="labels"),
        "no key train_label; did you mean train_labels? rename it, and valid_labels, test_labels likewise",
    ),
    "y": (lambda: _renamed(label="y"), "no key train_label; did you mean train_y? rename it, and valid_y, test_y"),
    "labels in one split": (
        lambda: {key.replace("test_label", "test_labels"): value for key, value in _good().items()},
        "no key test_label; did you mean test_labels? rename it",
    ),
    "both kinds of labels": (lambda: _plus("labels", np.zeros), "unknown key train_labels beside train_label"),
    "val": (
        lambda: _renamed(valid="val"),
        "no key valid_audio; did you mean val_audio? rename val_audio, val_audio_le",
    ),
    "dev": (lambda: _renamed(valid="dev"), "no key valid_audio; did you mean dev_audio? rename"),
    "validation": (lambda: _renamed(valid="validation"), "did you mean validation_audio? rename"),
    "capitals": (lambda: _renamed(train="Train"), "no key train_audio; did you mean Train_audio? rename"),
    "the split last": (
        lambda: {"_".join(key.split("_")[::-1]): value for key, value in _good().items() if "length" not in key},
        "no key train_audio; did you mean audio_train? rename audio_train, face_train, label_train to train_audio",
    ),
    "slashes": (lambda: {k.replace("_", "/", 1): v for k, v in _good().items()}, "did you mean train/audio? rename"),
    "no splits": (
        lambda: {"audio": np.ones(2), "y": np.ones(2)},
        "split train is missing (no key train_…, found audio, y)",
    ),
    "val beside valid": (
        lambda: _good() | {"val_label": np.ones(3)},
        "unknown key val_label; did you mean valid_label? rename or drop it",
    ),
    "lengths": (
        lambda: _renamed(length="lengths"),
        "unknown key train_audio_lengths; did you mean train_audio_length? rename it",
    ),
    "a typing error in lengths": (lambda: _renamed(length="lenght"), "did you mean train_audio_length? rename it"),
    "len of the other": (lambda: _plus("face_len", np.ones), "did you mean train_face_length? rename it"),
    "one length": (
        lambda: _plus("length", np.ones),
        "unknown key train_length; lengths are given per modality: save them as train_audio_length and train_face_l",
    ),
    "ids": (
        lambda: _plus("id", np.arange),
        "train_id looks like ids, which are not used; drop train_id, valid_id, test_id",
    ),
    "names": (lambda: _plus("video", lambda n: np.array(["v"] * n)), "train_video looks like ids"),
    "ids as objects": (lambda: _plus("id", lambda n: np.array([None] * n)), "train_id looks like ids"),
    "numbers of their own": (lambda: _plus("speaker", lambda n: np.arange(n)[::-1]), "train_speaker looks like ids"),
    "a mask": (
        lambda: _plus("face_mask", np.eye),
        "train_face_mask looks like a mask, which is not read; drop train",
    ),
    "something else": (
        lambda: _plus("speaker", np.ones),
        "unknown key train_speaker (float64 of shape (6,)), which nothing reads; drop train_speaker, valid_speaker",
    ),
    "ids in valid": (
        lambda: _good() | {"valid_ids": np.arange(3)},
        "valid_ids looks like ids, which are not used; drop",
    ),
    "a modality renamed in a split": (
        lambda: {key.replace("test_audio", "test_acoustic"): value for key, value in _good().items()},
        "no key test_audio; did you mean test_acoustic? rename it",
    ),
    "one-hot labels": (lambda: _good() | {"train_label": np.eye(6)}, "train_label must be one integer .+ .argmax"),
    "a column of labels": (lambda: _good() | {"train_label": np.ones((6, 1), int)}, r"convert it with \.reshape\(-1\)"),
    "labels of words": (
        lambda: _good() | {"train_label": np.array(["a"] * 6)},
        "number the classes, the same way in every",
    ),
    "transposed": (
        lambda: {key: value.T if key.endswith("face") else value for key, value in _good().items()},
        r"train_face has shape \(4, 6\) for 6 labels and looks transposed; samples come first, save it\.T",
    ),
    "steps first": (
        lambda: {key: np.swapaxes(v, 0, 1) if key.endswith("audio") else v for key, v in _good().items()},
        r"train_audio has shape .+ save it as numpy\.moveaxis\(x, 1, 0\)",
    ),
    "features before steps": (
        lambda: (
            {
                key: np.repeat(np.swapaxes(v, 1, 2), 2, 2)[:, :2] if key.endswith("audio") else v
                for key, v in _good().items()
            }
            | {"train_audio_length": np.full(6, 3)}
        ),
        "train_audio_length must be",
    ),
    "ragged lists": (
        lambda: _good() | {"train_audio": np.array([np.ones((i + 1, 2)) for i in range(6)], dtype=object)},
        r"train_audio holds Python objects of shape \(6,\).+pad them .+ save their lengths as train_audio_length",
    ),
    "a sparse matrix": (
        lambda: _good() | {"train_face": np.array(scipy.sparse.eye(6), dtype=object)},
        r"train_face holds a sparse matrix of scipy, not an array; save x\.toarray\(\) as train_face",
    ),
    "a table": (lambda: _good() | {"train_face": np.array({"a": 1})}, "train_face holds a single Python object"),
}


@pytest.mark.parametrize("case", KEYS)
def test_keys_and_arrays_of_other_loaders_get_the_sentence_that_helps(case: str, path: Path) -> None:
    make, words = KEYS[case]
    np.savez(path, **make())
    message = _sentence(path)
    assert re.search(words if "\\" in words or ".+" in words else re.escape(words), message), message
    assert "allow_pickle" not in message


def test_keys_that_mean_nothing_are_said(path: Path) -> None:
    np.savez(path, **_good())
    assert read_npz("own", path).warnings == ()
    np.savez(path, **_good(), notes=np.ones(2))
    assert read_npz("own", path).warnings == ("key notes is not used",)
    np.savez(path, **_good(), notes=np.ones(2), class_names=np.array(["a"]))
    assert read_npz("own", path).warnings == ("keys notes, class_names are not used",)


# Files that are no .npz: how each begins, what it is called, how it becomes one.
OTHERS: dict[str, tuple[bytes, str]] = {
    "a.csv": (b"label,f1\n1,2\n", "CSV, not an .npz of arrays; run s3ray data import "),
    "a.tsv": (b"label\tf1\n", "TSV, not an .npz of arrays; run s3ray data import "),
    "a.json": (b'{"train": []}', "JSON, not an .npz of arrays; in Python, x = json.load(open("),
    "a.mat": (
        b"MATLAB 5.0 MAT-file, Platform" + bytes(100),
        "a MATLAB file, not an .npz of arrays; run s3ray data import ",
    ),
    "b.mat": (
        b"MATLAB 7.3 MAT-file" + bytes(100),
        "a MATLAB 7.3 file, not an .npz of arrays; run s3ray data import ",
    ),
    "a.pkl": (pickle.dumps({"train": 1}), "a pickle, not an .npz of arrays; in Python, x = pickle.load(open("),
    "a.npy": (b"\x93NUMPY\x01\x00", "a single array of numpy.save, not an .npz of arrays; run s3ray data import "),
    "a.parquet": (b"PAR1", "a Parquet file, not an .npz of arrays; run s3ray data import "),
    "a.h5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file, not an .npz of arrays; run s3ray data import "),
    "a.npz.gz": (gzip.compress(b"PK"), "a gzip archive, not an .npz of arrays; unpack it: (cd "),
    "a.npz": (b"", "an empty file, not an .npz of arrays; write it again with numpy.savez"),
    "mosi_data.pkl": (b"\x80", "mosi's file of MultiBench, not an .npz; run s3ray data prepare --root"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_kind_of_file_is_named_with_the_line_that_converts_it(name: str, tmp_path: Path) -> None:
    content, words = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    message = _sentence(tmp_path / name)
    assert words in message
    assert ("in Python" in message) == (f"numpy.savez('{(tmp_path / name).with_suffix('.npz')}', train_A=" in message)


def test_a_matrix_of_scipy_is_named(path: Path) -> None:
    scipy.sparse.save_npz(path, scipy.sparse.csr_matrix(np.eye(3)))
    assert "a sparse matrix of scipy.sparse.save_npz, not a dataset; load it, save x.toarray()" in _sentence(path)


def test_a_file_of_torch_save_is_named(tmp_path: Path) -> None:
    torch.save({"train": torch.ones(2)}, tmp_path / "a.pt")
    assert "a file of torch.save, not an .npz of arrays; in Python, x = torch.load(" in _sentence(tmp_path / "a.pt")


def test_a_folder_in_place_of_a_file_says_which_option_takes_it(path: Path, tmp_path: Path) -> None:
    path.mkdir()
    assert _sentence(path).endswith("a folder, not an .npz; give the .npz file itself")
    os.mkfifo(pipe := tmp_path / "pipe.npz")
    assert _sentence(pipe).endswith("a device or a pipe, not a file; save the .npz to a file and give that")
    np.savez(path / "own.npz", **_good())
    assert _sentence(path).endswith(f"for all that it holds, give --data {path}")
    read_npz("own", path / "own.npz").save(tmp_path / "saved")
    assert _sentence(tmp_path / "saved").endswith(f"give --data {tmp_path} --datasets saved")


def _values(change: Callable[[str, Arrays], None] = lambda split, arrays: None, dtype: str = "f8") -> Arrays:
    """40 / 20 / 20 samples of 3 steps: normal values, two modalities of 4 features, two classes."""
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for split, n in (("train", 40), ("valid", 20), ("test", 20)):
        mine = {m: rng.normal(size=(n, 3, 4)).astype(dtype) for m in ("a", "b")}
        change(split, mine)
        arrays |= {f"{split}_{key}": value for key, value in mine.items()} | {f"{split}_label": np.arange(n) % 2}
    return arrays


def _a(change: Callable[[Any], Any], *splits: str) -> Arrays:
    """Values whose modality a is changed, in `splits` or everywhere."""

    def apply(split: str, arrays: Arrays) -> None:
        if split in splits or not splits:
            arrays["a"] = change(arrays["a"])

    return _values(apply)


def _put(value: float, index: Any) -> Callable[[Any], Any]:
    def put(values: Any) -> Any:
        values[index] = value
        return values

    return put


def _leak(later: str, earlier: str, count: int | None = None) -> Arrays:
    arrays = _values()
    for m in ("a", "b"):
        arrays[f"{later}_{m}"][:count] = arrays[f"{earlier}_{m}"][:count][: len(arrays[f"{later}_{m}"])]
    return arrays


# Finite but absurd, and the one sentence on it.
ODD: dict[str, tuple[Callable[[], Arrays], str]] = {
    "tiny": (lambda: _a(lambda x: x * 1e-12), "train_a: all values are tiny, 1.1e-12 on the"),
    "huge": (lambda: _a(lambda x: x * 1e12), "train_a: 4 of 4 features lie at 10000 or beyond, feature "),
    "one huge feature": (
        lambda: _a(lambda x: x * np.array([1, 1, 1e9, 1])),
        "1 of 4 features lies at 10000 or beyond, feature 2 at 1",
    ),
    "an offset": (
        lambda: _a(lambda x: x + 1e4),
        "train_a: 4 of 4 features lie by far more around a mean than they vary",
    ),
    "an offset of one": (
        lambda: _a(lambda x: x + np.array([0, 2000, 0, 0])),
        "1 of 4 features lies by far more around a mean",
    ),
    "a mark": (lambda: _a(_put(-9999, np.s_[::8, 0, 1]), "train"), "train_a holds -9999 in 5 values, "),
    "an outlier": (lambda: _a(_put(1e7, (3, 0, 0)), "test"), "test_a holds 1e+07 in 1 value, "),
    "zeros": (
        lambda: _a(lambda x: x * 0),
        "a is all zeros in every sample of train, valid and test: it says nothing there",
    ),
    "zeros in a split": (lambda: _a(lambda x: x * 0, "valid"), "a is all zeros in every sample of valid: it says"),
    "samples of zeros": (
        lambda: _a(_put(0, np.s_[:10]), "train", "test"),
        "a is all zeros in 10 of 40 samples of train (25 %), 10 of 20 samples of test (50 %)",
    ),
    "constant": (lambda: _a(lambda x: x * 0 + 3), "a is the same in every sample of train, valid and test"),
    "the same sample": (
        lambda: _a(lambda x: x[:1].repeat(len(x), 0), "train"),
        "a is the same in every sample of train: it",
    ),
    "another unit": (lambda: _a(lambda x: x * 1e3, "test"), "test_a is 1.1e+03 times as large as train_a: are both in"),
    "valid is test": (
        lambda: _leak("test", "valid"),
        "test holds the samples of valid, value for value: the splits leak",
    ),
    "a part of train": (
        lambda: _leak("valid", "train", 7),
        "7 of 20 samples of valid are in train too, value for value",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_what_is_finite_but_absurd_is_said_once_and_in_one_sentence(case: str, path: Path) -> None:
    make, words = ODD[case]
    np.savez(path, **make())
    (warning,) = read_npz("own", path).warnings
    assert words in warning
    assert "\n" not in warning


def test_usual_values_are_not_complained_of(path: Path) -> None:
    usual = [
        _values(dtype="f4"),
        _values(dtype="f2"),
        _a(lambda x: np.round(100 * x).astype(int)),  # grey levels
        _a(lambda x: (x > 1).astype(np.int8)),  # bags of words
        _a(_put(5, np.s_[:, :, 2])),  # one constant feature
        _a(lambda x: x * 300 + 500),  # pixels
    ]
    for arrays in usual:
        np.savez(path, **arrays)
        assert [w for w in read_npz("own", path).warnings if "zeros in" not in w] == []
    for data in (digits(), latent_factors()):
        looks: dict[str, dict[str, Look]] = {}
        for split, of in data.splits.items():
            looks[split] = {m: Look(s.features) for m, s in of.modalities.items()}
            for m, s in of.modalities.items():
                looks[split][m].add(s.values, s.lengths)
        assert shared_samples(looks) == []
        assert [modality_warnings(looks, m, "{}_{}".format) for m in data.features] == [[], []]
        assert [scale_warnings(looks["train"][m], m, "") for m in data.features] == [[], []]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: _a(_put(-3.4e38, np.s_[::4, 0, 0]), "valid"),
            "valid_a holds 5 values beyond ±1e+18, such as -3.4e+38, whose",
        ),
        (lambda: _a(lambda x: x * 1e20), "train_a holds 4"),
        (lambda: _a(lambda x: x * 50 + 1.7e9), "train_a: feature 0 lies between 16999"),
        (lambda: _a(lambda x: x * 1e-50), "which float32 cannot tell apart; multiply before saving"),
    ],
)
def test_what_float32_cannot_hold_is_refused_by_key(make: Callable[[], Arrays], words: str, path: Path) -> None:
    np.savez(path, **make())
    assert words in _sentence(path)


def test_a_look_in_pieces_sees_what_one_look_sees() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(900, 3)) * [1, 1e3, 1e-3] + [0, 1e5, 1]).astype(np.float32)
    rows[[5, 700], 0] = -9999
    whole, pieces = Look(3), Look(3)
    whole.add(rows, np.full(90, 10))
    for start in range(0, 900, 100):
        pieces.add(rows[start : start + 100], np.full(10, 10))
    np.testing.assert_allclose(pieces.mean, rows.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(pieces.deviation, rows.std(axis=0, dtype=np.float64), rtol=1e-5)
    for look in (whole, pieces):
        assert (look.most, look.most_count, look.second) == (
            np.abs(rows).max(),
            1,
            np.sort(np.abs(rows), axis=None)[-2],
        )
    assert whole.digests == pieces.digests


def test_warnings_do_not_change_the_fingerprint(path: Path) -> None:
    np.savez(path, **_good(), notes=np.ones(1))
    data = read_npz("own", path)
    assert data.warnings
    assert data.fingerprint() == dataclasses.replace(data, facts={}).fingerprint()


SECOND_LABELS = {
    "train_labels": lambda n: np.arange(n)[:, None] % 2,
    "train_onehot": lambda n: np.eye(2)[np.arange(n) % 2],
    "train_y": lambda n: np.arange(n)[:, None] % 2,
    "train_audio_mask": lambda n: np.ones((n, 3)),
    "train_index": lambda n: np.arange(n)[:, None],
}


@pytest.mark.parametrize("name", SECOND_LABELS)
def test_what_stands_beside_the_data_is_never_taken_for_a_modality(tmp_path: Path, name: str) -> None:
    """With one modality only, a second form of the labels would be an input."""
    arrays = {}
    for split, n in (("train", 12), ("valid", 6), ("test", 6)):
        arrays[f"{split}_audio"] = np.random.default_rng(0).normal(size=(n, 3, 4))
        arrays[f"{split}_label"] = np.arange(n) % 2
        arrays[name.replace("train", split)] = SECOND_LABELS[name](n)
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(UserError, match=rf"own\.npz: .*{name}\b.*; .*(drop|save)"):
        read_npz("own", tmp_path / "own.npz")


def test_lengths_of_some_splits_are_said_and_nan_labels_are_counted(tmp_path: Path) -> None:
    arrays = {}
    for split, n in (("train", 12), ("valid", 6), ("test", 6)):
        arrays[f"{split}_audio"] = np.random.default_rng(0).normal(size=(n, 3, 4))
        arrays[f"{split}_text"] = np.random.default_rng(1).normal(size=(n, 4))
        arrays[f"{split}_label"] = np.arange(n) % 2
    arrays["train_audio_length"] = np.full(12, 2)
    arrays["train"] = np.arange(3)
    np.savez(tmp_path / "own.npz", **arrays)
    warnings = read_npz("own", tmp_path / "own.npz").warnings
    assert "audio has lengths in train alone: elsewhere padding is read as data" in warnings
    assert "key train is not used" in warnings
    arrays["test_label"] = np.array([0.0, 1.0, np.nan, 0.0, 1.0, np.nan])
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(
        UserError, match=r"test_label must be one integer class .*; 2 are NaN: drop those samples first"
    ):
        read_npz("own", tmp_path / "own.npz")
