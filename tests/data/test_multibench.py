"""MultiBench's files: what is accepted, and one sentence for whatever is not the file that its name says."""

from __future__ import annotations

import itertools
import pickle
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from s3ray.config import UserError
from s3ray.data.dataset import Dataset
from s3ray.data.multibench import (
    FILES,
    MODALITIES,
    Neutral,
    check_ids,
    checked_splits,
    chosen_datasets,
    classes,
    find_file,
    label_rule,
)
from s3ray.data.prepare import prepare

Content = dict[str, Any]
SIZES = {"train": 4, "valid": 2, "test": 3}


def _good() -> Content:
    """4 / 2 / 3 samples of 4 steps with 2 / 1 / 3 features; labels 1, -1, 1, … fit every dataset."""
    rng = np.random.default_rng(0)
    return {
        split: {
            **{key: rng.normal(size=(n, 4, width)) for key, width in zip(MODALITIES, (2, 1, 3), strict=True)},
            "labels": np.resize([1.0, -1.0], (n, 1, 1)),
            "id": np.array([f"{split}_{i}" for i in range(n)]),
        }
        for split, n in SIZES.items()
    }


def _dump(content: Any, path: Path) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


def _write_hdf5(content: Content, path: Path) -> Path:
    with h5py.File(path, "w") as file:
        for split, arrays in content.items():
            for key, array in arrays.items():
                file.create_dataset(f"{split}/{key}", data=array.astype("S") if key == "id" else array)
    return path


def _state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in a folder, hidden files too: when it was written and what it holds."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Holds a prepared mosi from a good file."""
    prepare("mosi", _dump(_good(), tmp_path / "earlier.pkl"), tmp_path / "output")
    return tmp_path / "output"


def _refusal(name: str, path: Path, output: Path) -> str:
    """What preparing `path` ends in: one line that names the file and, after a semicolon, a remedy.

    Nothing changes in `output`, and nothing is left where there was nothing.
    """
    before = _state(output)
    for folder in (output, output.parent / "fresh"):
        with pytest.raises(UserError) as error:
            prepare(name, path, folder)
    assert _state(output) == before
    assert _state(output.parent / "fresh") == {}
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "; " in message
    assert "\n" not in message
    return message


def test_the_fixture_is_good_and_any_widths_are_accepted(output: Path) -> None:
    data = Dataset.open(output / "mosi")
    assert data.features == {"vision": 2, "audio": 1, "text": 3}
    assert [len(split) for split in data.splits.values()] == [4, 2, 3]
    assert (data.kind, data.facts["warnings"]) == ("multibench", [])


def _set(split: str, key: str, value: Any) -> Callable[[Content], None]:
    return lambda content: content[split].update({key: value})


def _drop(split: str, key: str) -> Callable[[Content], None]:
    return lambda content: content[split].pop(key)


def _resized(split: str, **sizes: int) -> Callable[[Content], None]:
    def resize(content: Content) -> None:
        for key, size in sizes.items():
            content[split][key] = content[split][key][:size]

    return resize


def _poke(split: str, key: str, index: Any, value: float) -> Callable[[Content], None]:
    def poke(content: Content) -> None:
        content[split][key][index] = value

    return poke


def _one_class_where_there_is_text(content: Content) -> None:
    content["train"]["labels"] = np.array([1.0, 1.0, -1.0, 1.0]).reshape(4, 1, 1)
    content["train"]["text"][2] = 0.0


# What is wrong with mosi's file, and the words its sentence must hold.
BAD: dict[str, tuple[Callable[[Content], Any], list[str]]] = {
    "no split": (lambda c: c.pop("valid"), ["split valid is missing", "found train, test", "get the complete file"]),
    "a split is a list": (lambda c: c.update(test=[1]), ["test is a list, not a dict of arrays"]),
    "no vision": (_drop("train", "vision"), ["train has no key vision", "found audio, text, labels, id", "complete"]),
    "no text": (_drop("test", "text"), ["test has no key text", "get the complete file"]),
    "no labels": (_drop("valid", "labels"), ["valid has no key labels", "get the complete file"]),
    "fewer labels": (_resized("train", labels=3), ["train/labels has 3 entries, text has 4 samples", "original"]),
    "more labels": (_set("test", "labels", np.ones((4, 1))), ["test/labels has 4 entries, text has 3 samples"]),
    "fewer ids": (_resized("valid", id=1), ["valid/id has 1 entries, text has 2 samples", "original"]),
    "fewer samples": (_resized("test", audio=2), ["test/audio has 2 samples of 4 steps, text has 3 of 4", "aligned"]),
    "other steps": (
        _set("train", "vision", np.ones((4, 9, 2))),
        ["train/vision has 4 samples of 9 steps, text has 4 of 4", "use the file whose modalities are aligned"],
    ),
    "other steps in a split": (
        lambda c: c["valid"].update({key: c["valid"][key][:, :3] for key in MODALITIES}),
        ["valid has features 2/1/3 in 3 steps, train has 2/1/3 in 4", "get the original file"],
    ),
    "other widths in a split": (
        _set("test", "vision", np.ones((3, 4, 5))),
        ["test has features 5/1/3 in 4 steps, train has 2/1/3 in 4", "get the original file"],
    ),
    "an empty split": (
        _resized("valid", vision=0, audio=0, text=0, labels=0, id=0),
        ["split valid is empty", "get the complete file"],
    ),
    "no text in train": (_poke("train", "text", ..., 0.0), ["no sample of train has any text", "original"]),
    "only NaN as text in test": (_poke("test", "text", ..., np.nan), ["no sample of test has any text", "original"]),
    "no steps": (_set("train", "text", np.ones((4, 0, 3))), ["train/text", "(4, 0, 3)", "get the original file"]),
    "no features": (_set("valid", "audio", np.ones((2, 4, 0))), ["valid/audio", "(2, 4, 0)", "original"]),
    "a matrix": (_set("test", "vision", np.ones((3, 4))), ["test/vision", "(n, steps, features)", "(3, 4)"]),
    "words": (_set("train", "text", np.full((4, 4, 3), "yes")), ["train/text", "numbers", "<U3 of shape (4, 4, 3)"]),
    "nested lists": (_set("valid", "text", [[[1.0, 2.0, 3.0]] * 4] * 2), ["valid/text", "not a list", "original"]),
    "lists of labels": (_set("valid", "labels", [1.0, -1.0]), ["valid/labels", "array of numbers, not a list"]),
    "a label": (_set("test", "labels", 1.0), ["test/labels is a float, not an array", "get the original file"]),
    "words as labels": (_set("test", "labels", np.array(["a", "b", "c"])), ["test/labels", "<U1 of shape (3,)"]),
    "two labels": (_set("train", "labels", np.ones((4, 2))), ["train/labels has shape (4, 2)", "use the sentiment"]),
    "one class": (_poke("train", "labels", ..., 2.0), ["train/labels are all of one class", "get the original file"]),
    "one class where there is text": (_one_class_where_there_is_text, ["train/labels are all of one class"]),
    "a label is NaN": (_poke("test", "labels", 1, np.nan), ["test/labels holds 1 NaN or infinite", "original"]),
    "labels are infinite": (_poke("valid", "labels", ..., -np.inf), ["valid/labels holds 2 NaN or infinite"]),
    "a label above 3": (_poke("valid", "labels", 0, 3.5), ["valid/labels holds 3.5, outside [-3, 3]", "sentiment"]),
    "a label below -3": (_poke("train", "labels", 3, -4), ["train/labels holds ", "outside [-3, 3]", "sentiment"]),
    "an id of nothing": (_set("valid", "id", ["a", None]), ["valid/id must hold names, numbers or rows", "original"]),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_by_key_and_leaves_what_is_there(case: str, output: Path, tmp_path: Path) -> None:
    spoil, words = BAD[case]
    content = _good()
    spoil(content)
    message = _refusal("mosi", _dump(content, tmp_path / "mosi_data.pkl"), output)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("key", ["labels", "id"])
def test_an_array_without_dimensions_is_refused(key: str, output: Path, tmp_path: Path) -> None:
    content = _good()
    content["train"][key] = np.array(1.0)
    assert f"train/{key}" in _refusal("mosi", _dump(content, tmp_path / "mosi_data.pkl"), output)


@pytest.mark.parametrize("content", [[1, 2], "train", None], ids=["list", "text", "nothing"])
def test_a_pickle_of_something_else(content: Any, output: Path, tmp_path: Path) -> None:
    message = _refusal("mosi", _dump(content, tmp_path / "mosi_data.pkl"), output)
    assert f"holds a {type(content).__name__}, not splits; expected a dict of train, valid, test" in message


@pytest.mark.parametrize("name", ["ur_funny", "mustard"])
@pytest.mark.parametrize(("label", "shown"), [(2.0, "2.0"), (0.5, "0.5"), (0.0, "[-1.0, 0.0, 1.0]")])
def test_classification_labels_are_0_and_1_or_plus_and_minus_1(
    name: str, label: float, shown: str, output: Path, tmp_path: Path
) -> None:
    content = _good()
    content["test"]["labels"][0] = label  # beside -1 and 1
    message = _refusal(name, _dump(content, tmp_path / "file.pkl"), output)
    assert "test/labels holds " in message
    assert shown in message
    assert f"not 0 and 1 or -1 and 1; is it {name}'s file?" in message


def _published(name: str, sizes: Mapping[str, int], dtype: Any = np.float32) -> Content:
    """Zeros of the widths and steps of dataset `name`, which take no memory."""
    known = FILES[name]
    return {
        split: {
            **{key: np.broadcast_to(dtype(0), (n, known.steps, width)) for key, width in known.widths.items()},
            "labels": np.broadcast_to(dtype(0), (n, 1)),
        }
        for split, n in sizes.items()
    }


@pytest.mark.parametrize(("name", "other"), list(itertools.permutations(FILES, 2)))
def test_another_datasets_file_is_refused(name: str, other: str, output: Path, tmp_path: Path) -> None:
    path = _dump(_published(other, SIZES, np.float16), tmp_path / FILES[name].names[0])
    message = _refusal(name, path, output)
    assert f"has the layout of {other} (" in message
    assert f"not of {name}; it belongs under the name {FILES[other].names[0]}" in message


def test_a_layout_is_named_in_numbers(output: Path, tmp_path: Path) -> None:
    humor = _dump(_published("mustard", SIZES, np.float16), tmp_path / "humor.pkl")
    assert "mustard (371/81/300 features in 50 steps)" in _refusal("ur_funny", humor, output)
    mosi = _dump(_published("mosei", SIZES, np.float16), tmp_path / "mosi_data.pkl")
    assert "mosei (35/74/300 features in 50 steps)" in _refusal("mosi", mosi, output)


@pytest.mark.parametrize("name", FILES)
def test_the_published_layout_is_accepted_in_any_size(name: str) -> None:
    content = _published(name, SIZES)
    assert checked_splits(name, Path("file.pkl"), content) == content


def test_a_raw_mosi_is_known_by_its_sizes() -> None:
    sizes = {"train": 1284, "valid": 229, "test": 686}
    content = _published("mosei", sizes)
    assert checked_splits("mosi", Path("mosi_raw.pkl"), content) == content
    for split in sizes:
        with pytest.raises(UserError, match="has the layout of mosei"):
            checked_splits("mosi", Path("mosi_raw.pkl"), _published("mosei", sizes | {split: sizes[split] - 1}))


@pytest.mark.parametrize("shape", [(6, 1, 1), (6, 1), (6,)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f8"])
@pytest.mark.parametrize(("neutral", "expected"), [("positive", [0, 0, 1, 1, 1, 1]), ("negative", [0, 0, 0, 0, 1, 1])])
@pytest.mark.parametrize("name", ["mosi", "mosei"])
def test_sentiment_of_exactly_0_goes_where_it_is_told(
    name: str, neutral: Neutral, expected: list[int], dtype: Any, shape: tuple[int, ...]
) -> None:
    labels = np.array([-3.0, -0.2, 0.0, -0.0, 0.2, 3.0], dtype=dtype).reshape(shape)
    found = classes(name, Path("file"), "train", labels, neutral)
    assert (found.tolist(), found.dtype) == (expected, np.int64)


@pytest.mark.parametrize("name", ["ur_funny", "mustard"])
@pytest.mark.parametrize("neutral", ["positive", "negative"])
@pytest.mark.parametrize(
    ("labels", "expected"),
    [([0, 1, 1, 0], [0, 1, 1, 0]), ([-1, 1, 1, -1], [0, 1, 1, 0]), ([-1, -1], [0, 0]), ([1, 1], [1, 1])],
)
def test_classification_labels_of_both_kinds(
    name: str, neutral: Neutral, labels: list[int], expected: list[int]
) -> None:
    for dtype in (np.int64, np.float32, np.int8):
        stored = np.array(labels, dtype=dtype)[:, None]
        assert classes(name, Path("file"), "train", stored, neutral).tolist() == expected


def test_label_rules_are_said_in_words() -> None:
    assert label_rule("mosi", "positive") == "label >= 0 is positive"
    assert label_rule("mosei", "negative") == "label > 0 is positive"
    assert label_rule("mustard", "positive") == label_rule("mustard", "negative")
    assert label_rule("ur_funny", "positive") == "label 1 is positive, 0 or -1 negative"


def _identified(**ids: Any) -> Content:
    """Three splits with these ids; a split that is not named has two of its own, None means that it has none."""
    content = {}
    for split in SIZES:
        own = ids.get(split, [f"{split} a", f"{split} b"])
        content[split] = {"text": np.zeros((2 if own is None else len(own), 1, 1))}
        if own is not None:
            content[split]["id"] = own
    return content


def _warnings(**ids: Any) -> list[str]:
    return check_ids(Path("file"), _identified(**ids))[0]


def test_distinct_names_give_no_warning() -> None:
    assert _warnings() == []


def test_ids_in_two_splits_are_counted() -> None:
    assert _warnings(train=["a", "b", "c", "d"], valid=["d", "x", "c"], test=["x", "y", "d"]) == [
        "2 ids are in train and in valid: samples leak between the splits",
        "1 ids are in train and in test: samples leak between the splits",
        "2 ids are in valid and in test: samples leak between the splits",
    ]


def test_ids_twice_in_a_split_are_counted() -> None:
    assert _warnings(train=["a", "b", "a", "c", "b", "a"], test=["z", "z"]) == [
        "train/id holds 2 ids more than once: samples may be repeated",
        "test/id holds 1 ids more than once: samples may be repeated",
    ]


# The same three ids p, q, r, however they are stored.
FORMS: dict[str, Any] = {
    "text": np.array(["p", "q", "r"]),
    "bytes": np.array([b"p", b"q", b"r"]),
    "objects": np.array(["p", "q", "r"], dtype=object),
    "objects of bytes": np.array([b"p", b"q", b"r"], dtype=object),
    "a column": np.array([["p"], ["q"], ["r"]]),
    "a column of objects": np.array([["p"], ["q"], ["r"]], dtype=object),
    "a list": ["p", "q", "r"],
    "a list of rows": [("p",), [b"q"], ("r",)],
}


@pytest.mark.parametrize("form", FORMS)
def test_ids_are_compared_however_they_are_stored(form: str) -> None:
    assert _warnings(train=FORMS[form], test=["r", "s", "q"]) == [
        "2 ids are in train and in test: samples leak between the splits"
    ]


@pytest.mark.parametrize("dtype", [int, str, float, "S8", object])
def test_falling_numbers_are_counted(dtype: Any) -> None:
    # As text, 10 would come before 9. It is 5 and 3 that fall.
    ids = np.array([2, 9, 10, 5, 6, 3, 7]).astype(dtype)
    assert _warnings(train=ids) == [
        "train/id goes backward at 2 of 7 samples: check that ids, features and labels were not shuffled apart"
    ]
    assert _warnings(train=np.array([2, 9, 10]).astype(dtype)) == []


@pytest.mark.parametrize("dtype", [str, "S8", object])
def test_segments_that_go_backward_in_a_video_are_counted(dtype: Any) -> None:
    rows = [
        ("v", "0", "7.5"),
        ("v", "10", "12"),
        ("v", "9.5", "11"),  # starts before its predecessor
        ("v", "9.5", "9.5"),
        ("w", "0", "2"),  # another video
        ("w", "8", "7"),  # ends before it starts
        ("w", "3", "2"),  # both, and one sample
        ("v", "0", "1"),
    ]
    assert _warnings(test=np.array(rows, dtype=dtype)) == [
        "test/id goes backward at 3 of 8 samples: check that ids, features and labels were not shuffled apart"
    ]


def test_segments_of_two_videos_with_the_same_times_are_not_the_same() -> None:
    assert _warnings(train=[("v", "0", "7"), ("w", "0", "7")], valid=[("v", "0", "8"), ("x", "0", "7")]) == []
    assert _warnings(train=[("v", "0", "7"), ("w", "0", "7")], valid=[("w", "0", "7")]) == [
        "1 ids are in train and in valid: samples leak between the splits"
    ]


def test_names_have_no_order() -> None:
    assert _warnings(train=["c", "b", "a", "9", "x", "1"]) == []


def test_missing_ids_are_said_per_split() -> None:
    assert _warnings(valid=None, test=None) == [
        "valid has no ids: samples in two splits cannot be seen",
        "test has no ids: samples in two splits cannot be seen",
    ]


@pytest.mark.parametrize(
    ("last", "kind"),
    [
        ("simulated_9", "simulated"),
        (b"simulated_9", "simulated"),
        ("not simulated", "multibench"),
        (7, "multibench"),
    ],
)
def test_data_are_simulated_only_if_every_id_says_so(last: Any, kind: str) -> None:
    ids = _identified(train=["simulated_0", "simulated_1"], valid=["simulated_2"], test=["simulated_3", last])
    assert check_ids(Path("file"), ids)[1] == kind


def test_data_without_ids_or_with_the_word_in_another_place_are_not_simulated() -> None:
    assert check_ids(Path("file"), _identified(train=None, valid=None, test=None))[1] == "multibench"
    rows = {split: [("v", "simulated", "1"), ("simulated", "0", "1")] for split in SIZES}
    assert check_ids(Path("file"), _identified(**rows))[1] == "multibench"


def test_names_of_datasets_and_of_their_files(tmp_path: Path) -> None:
    assert chosen_datasets([]) == ["mosei", "mosi", "ur_funny", "mustard"]
    assert chosen_datasets(["mustard", "mosi"]) == ["mustard", "mosi"]
    with pytest.raises(UserError, match=r"unknown dataset 'humor'; .*known: mosei, mosi, mustard, ur_funny"):
        chosen_datasets(["mosi", "humor"])
    assert find_file("mosi", tmp_path) is None
    (tmp_path / "mosi.hdf5").touch()
    (tmp_path / "mosi_raw.pkl").touch()
    assert find_file("mosi", tmp_path) == tmp_path / "mosi_raw.pkl"
    (tmp_path / "mosi_data.pkl").symlink_to("nowhere")  # to be refused by name, not passed over
    assert find_file("mosi", tmp_path) == tmp_path / "mosi_data.pkl"


@pytest.mark.parametrize("suffix", [".hdf5", ".pkl"])  # the content says what a file is
def test_hdf5_gives_the_dataset_that_a_pickle_gives(suffix: str, output: Path, tmp_path: Path) -> None:
    path = _write_hdf5(_good(), tmp_path / f"mosi{suffix}")
    with h5py.File(path, "a") as file:
        packed = {"data": file["train/text"][:], "chunks": (1, 2, 3), "compression": "gzip"}
        del file["train/text"]
        file.create_dataset("train/text", **packed)
        file.create_dataset("note", data="of a collector")
    prepared = prepare("mosi", path, tmp_path / "from hdf5")
    assert prepared.warnings == ()
    data, expected = Dataset.open(prepared.directory), Dataset.open(output / "mosi")
    assert data.fingerprint() == expected.fingerprint()
    assert data.test.labels.tolist() == [1, 0, 1]


def test_ids_of_hdf5_are_read(tmp_path: Path) -> None:
    content = _good()
    content["valid"]["id"] = np.array(["train_1", "valid_1"])
    prepared = prepare("mosi", _write_hdf5(content, tmp_path / "mosi.hdf5"), tmp_path / "output")
    assert prepared.warnings == ("1 ids are in train and in valid: samples leak between the splits",)


def _external_link(file: h5py.File, key: str) -> None:
    file[key] = h5py.ExternalLink("other.hdf5", key)


def _soft_link(file: h5py.File, key: str) -> None:
    file["train/elsewhere"] = np.ones((4, 4, 3))
    file[key] = h5py.SoftLink("/train/elsewhere")


def _virtual(file: h5py.File, key: str) -> None:
    layout = h5py.VirtualLayout(shape=(4, 4, 3), dtype="f8")
    layout[:] = h5py.VirtualSource("other.hdf5", "train/text", shape=(4, 4, 3))
    file.create_virtual_dataset(key, layout)


def _stored_outside(file: h5py.File, key: str) -> None:
    file.create_dataset(key, (4, 4, 3), "f8", external=[("other.hdf5", 0, h5py.h5f.UNLIMITED)])


@pytest.mark.parametrize("link", [_external_link, _soft_link, _virtual, _stored_outside])
def test_hdf5_that_leads_to_another_file_is_refused(
    link: Callable[[h5py.File, str], None], output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where a relative name would be looked for
    _write_hdf5(_good(), tmp_path / "other.hdf5")
    path = _write_hdf5(_good(), tmp_path / "mosi.hdf5")
    with h5py.File(path, "a") as file:
        del file["train/text"]
        link(file, "train/text")
    assert "/train/text leads to another file; store the data in this one" in _refusal("mosi", path, output)


def test_a_split_in_another_hdf5_file_is_refused(output: Path, tmp_path: Path) -> None:
    _write_hdf5(_good(), tmp_path / "other.hdf5")
    path = _write_hdf5(_good(), tmp_path / "mosi.hdf5")
    with h5py.File(path, "a") as file:
        del file["test"]
        file["test"] = h5py.ExternalLink("other.hdf5", "test")
    message = _refusal("mosi", path, output)
    assert "/test leads to another file; store the data in this one" in message


def test_hdf5_without_h5py_is_one_sentence(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write_hdf5(_good(), tmp_path / "mosi.hdf5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert _refusal("mosi", path, output).endswith("an HDF5 file, which needs h5py; pip install h5py")


def test_a_pickle_needs_no_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert not prepare("mosi", _dump(_good(), tmp_path / "mosi_data.pkl"), tmp_path / "output").reused


def test_truncated_hdf5_is_damaged(output: Path, tmp_path: Path) -> None:
    path = _write_hdf5(_good(), tmp_path / "mosi.hdf5")
    path.write_bytes(path.read_bytes()[:-500])
    message = _refusal("mosi", path, output)
    assert "damaged HDF5 (" in message
    assert message.endswith("; download it again")


def test_a_group_for_an_array_is_refused_by_key(output: Path, tmp_path: Path) -> None:
    path = _write_hdf5(_good(), tmp_path / "mosi.hdf5")
    with h5py.File(path, "a") as file:
        del file["train/audio"]
        file.create_group("train/audio")
    message = _refusal("mosi", path, output)
    assert "train/audio must be numbers of shape (n, steps, features), not a Group; get the original file" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("valid/labels", 1.0),
        ("train/text", h5py.Empty("f8")),
    ],
)
def test_an_hdf5_dataset_without_dimensions_is_refused(key: str, value: Any, output: Path, tmp_path: Path) -> None:
    path = _write_hdf5(_good(), tmp_path / "mosi.hdf5")
    with h5py.File(path, "a") as file:
        del file[key]
        file.create_dataset(key, data=value)
    assert key in _refusal("mosi", path, output)
