"""Datasets from arrays in memory: what is accepted, and one sentence for whatever the stages could not use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s3ray.data import Dataset, from_arrays
from s3ray.data.npz import read_npz
from s3ray.errors import UserError

Splits = dict[str, tuple[dict[str, Any], Any]]
SIZES = {"train": 6, "valid": 3, "test": 4}


def _good() -> Splits:
    """6 / 3 / 4 samples: audio of 1 to 3 steps and 2 features, a vector of 4 features as text; classes 3 and 5."""
    rng = np.random.default_rng(0)
    return {
        split: (
            {
                "audio": [rng.normal(size=(1 + i % 3, 2)) for i in range(n)],
                "text": rng.normal(size=(n, 4)),
            },
            np.resize([3, 5], n),
        )
        for split, n in SIZES.items()
    }


def test_lists_and_vectors_become_ragged_sequences() -> None:
    splits = _good()
    data = from_arrays("own", **splits)
    assert (data.name, data.kind, data.features, data.classes) == ("own", "user", {"audio": 2, "text": 4}, 2)
    assert data.train.modalities["audio"].lengths.tolist() == [1, 2, 3, 1, 2, 3]
    assert data.test.modalities["text"].lengths.tolist() == [1, 1, 1, 1]
    np.testing.assert_array_equal(
        data.valid.modalities["audio"].values, np.concatenate(splits["valid"][0]["audio"]).astype(np.float32)
    )
    assert data.valid.labels.tolist() == [3, 5, 3]
    assert data.valid.labels.dtype == np.int64
    assert data.warnings == ()


def test_the_same_arrays_in_a_file_are_the_same_dataset(tmp_path: Path) -> None:
    splits, arrays = _good(), {}
    for split, (modalities, labels) in splits.items():
        audio = modalities["audio"]
        arrays[f"{split}_audio"] = np.zeros((len(audio), 3, 2))
        for i, steps in enumerate(audio):
            arrays[f"{split}_audio"][i, : len(steps)] = steps
        arrays[f"{split}_audio_length"] = np.array([len(steps) for steps in audio])
        arrays[f"{split}_text"], arrays[f"{split}_label"] = modalities["text"], labels
    np.savez(tmp_path / "own.npz", **arrays)
    assert from_arrays("own", **splits).fingerprint() == read_npz("own", tmp_path / "own.npz").fingerprint()


def _text_alone(change: Callable[[Any], Any]) -> Dataset:
    """With `text` changed to another form of the same values."""
    return from_arrays("own", **{s: ({"text": change(m["text"])}, labels) for s, (m, labels) in _good().items()})


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x[:, None, :],
        lambda x: x.tolist(),
        lambda x: x[:, None, :].tolist(),
        lambda x: list(x[:, None, :]),
        lambda x: tuple(x[:, None, :]),
        lambda x: torch.from_numpy(x),
        lambda x: list(torch.from_numpy(x)[:, None, :]),
    ],
)
def test_every_form_of_the_same_values_is_the_same_dataset(form: Callable[[Any], Any]) -> None:
    assert _text_alone(form).fingerprint() == _text_alone(lambda x: x).fingerprint()


def test_an_array_of_sequences_is_a_list_of_them() -> None:
    def as_objects(splits: Splits) -> Splits:
        for modalities, _ in splits.values():
            sequences = np.empty(len(modalities["audio"]), object)
            sequences[:] = modalities["audio"]
            modalities["audio"] = sequences
        return splits

    assert from_arrays("own", **as_objects(_good())).fingerprint() == from_arrays("own", **_good()).fingerprint()


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["b", "a", "c"]])
def test_any_number_of_modalities_in_the_order_of_train(names: list[str]) -> None:
    splits: Splits = {
        split: ({m: np.arange(2.0 * n).reshape(n, 2) + ord(m) for m in names}, np.arange(n) % 2)
        for split, n in SIZES.items()
    }
    splits["test"] = (dict(reversed(splits["test"][0].items())), splits["test"][1])
    data = from_arrays("own", **splits)
    assert list(data.features) == list(data.test.modalities) == names


def test_a_dataset_does_not_follow_later_changes_of_the_arrays() -> None:
    splits = _good()
    splits["train"][0]["text"] = splits["train"][0]["text"].astype(np.float32)
    splits["train"][0]["audio"] = [steps.astype(np.float32) for steps in splits["train"][0]["audio"]]
    data = from_arrays("own", **splits)
    fingerprint = data.fingerprint()
    splits["train"][0]["text"][:] = 0
    splits["train"][0]["audio"][0][:] = 0
    splits["train"][1][:] = 3
    assert data.fingerprint() == fingerprint


def _values(split: str, modality: str, values: Any) -> Callable[[Splits], None]:
    return lambda splits: splits[split][0].update({modality: values})


def _labels(split: str, labels: Any) -> Callable[[Splits], None]:
    return lambda splits: splits.update({split: (splits[split][0], labels)})


def _named(name: str) -> Callable[[Splits], None]:
    def rename(splits: Splits) -> None:
        for modalities, _ in splits.values():
            modalities[name] = modalities.pop("text")

    return rename


def _poke(splits: Splits) -> None:
    splits["test"][0]["audio"][1][0, 1] = np.inf


# What is wrong, and what its sentence says after the dataset's name.
BAD: dict[str, tuple[Callable[[Splits], Any], str]] = {
    "a modality that a split lacks": (
        lambda splits: splits["test"][0].pop("audio"),
        "key test_audio is missing from split test, found test_label, test_text; add it",
    ),
    "a modality that train lacks": (
        _values("valid", "vision", np.ones((3, 2))),
        "valid has modality 'vision', which train lacks; give it to all or none",
    ),
    "no modality": (
        lambda splits: splits.update({split: ({}, labels) for split, (_, labels) in splits.items()}),
        "train has no modality; give it one or more",
    ),
    "no labels": (
        lambda splits: splits.update(valid=splits["valid"][0]),
        "valid must be a pair of modalities by name and labels; give ({name: x}, y)",
    ),
    "a name of torch's": (_named("values"), "modality name 'values' (train_values) is not a plain word or is taken"),
    "a name of lengths": (_named("audio_length"), "modality 'audio_length' has a name that stands for something else"),
    "the labels' name": (_named("label"), "modality 'label' has a name that stands for something else; rename it"),
    "labels that are no integers": (_labels("train", np.ones(6)), "train_label must be one integer class per sample"),
    "a single label": (_labels("train", 3), "train_label must be one integer class per sample"),
    "one class": (_labels("train", [3] * 6), "train_label holds a single class; a probe needs at least two"),
    "an unknown class": (_labels("valid", [3, 5, 7]), "valid_label holds class 7, which train_label lacks"),
    "other samples than labels": (
        _values("valid", "audio", [np.ones((1, 2))]),
        "valid_audio has 1 samples, its labels 3; make the lengths match",
    ),
    "no samples": (
        lambda splits: splits.update(test=({"audio": [], "text": np.ones((0, 4))}, np.ones(0, int))),
        "split test is empty; give it samples",
    ),
    "no sequences": (
        _values("test", "audio", []),
        "test_audio must be numbers of shape (n, steps, features) or (n, features), not float64 of shape (0,)",
    ),
    "a sequence of another width": (
        _values("valid", "audio", [np.ones((1, 2)), np.ones((1, 2)), np.ones((2, 3))]),
        "valid_audio holds an array of shape (2, 3) for sample 2, not of (steps, 2) as others",
    ),
    "a sequence that is none": (
        _values("valid", "audio", [np.ones((1, 2)), np.ones(2), np.ones((2, 2))]),
        "valid_audio holds an array of shape (2,) for sample 1, not of (steps, 2) as others",
    ),
    "a number in place of the first": (
        _values("valid", "audio", [np.float64(1), np.ones((1, 2)), np.ones((2, 2))]),
        "valid_audio holds an array of shape () for sample 0, not of (steps, 2) as others",
    ),
    "lists of different lengths": (
        _values("valid", "audio", [[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0]]]),
        "valid_audio cannot be read as an array (",
    ),
    "text in place of features": (
        _values("train", "text", ["a"] * 6),
        "train_text must be numbers of shape (n, steps, features) or (n, features), not <U1 of shape (6,)",
    ),
    "another width in another split": (
        _values("valid", "text", np.ones((3, 5))),
        "valid_text has 5 features, train_text has 4; give every split the same width",
    ),
    "an infinite value": (_poke, "test_audio has 1 values that are NaN or infinite in float32; replace or drop them"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_arrays_are_refused_by_split_and_modality(what: str) -> None:
    change, sentence = BAD[what]
    splits = _good()
    change(splits)
    with pytest.raises(UserError) as error:
        from_arrays("own", **splits)
    assert str(error.value).startswith(f"own: {sentence}")
    assert "\n" not in str(error.value)


def test_a_name_that_no_result_could_have() -> None:
    with pytest.raises(UserError, match=r"^'my data': the dataset's name must be a plain word; rename it$"):
        from_arrays("my data", **_good())


def test_odd_values_are_said() -> None:
    splits = _good()
    splits["test"] = splits["valid"]
    for modalities, _ in splits.values():
        modalities["text"] = modalities["text"] * 1e6
    leak, *units, scale = from_arrays("own", **splits).warnings
    assert leak == "test holds the samples of valid, value for value: the splits leak"
    assert all(unit.endswith("times as large as train_text: are both in the same unit?") for unit in units)
    assert [unit.split()[0] for unit in units] == ["valid_text", "test_text"]
    assert scale.startswith("train_text: 4 of 4 features lie at 10000 or beyond")
    assert scale.endswith("bring each feature to mean 0 and deviation 1, as train has them, first")
