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

from s3ray.data.dataset import Dataset
from s3ray.data.multibench.files import FILES, MODALITIES, chosen_datasets, find_file
from s3ray.data.multibench.layout import (
    Neutral,
    beyond_scale,
    check_ids,
    check_layout,
    checked_splits,
    classes,
    label_rule,
)
from s3ray.data.multibench.prepare import prepare
from s3ray.errors import UserError

Content = dict[str, Any]
SIZES = {"train": 4, "valid": 2, "test": 3}
# What is said of a file so small and of such a layout.
DOUBT = (
    "4/2/3 samples of 2/1/3 in 4 steps; mosi is known with 1284/229/686 or 1283/214/686 of 20/5/300 in 50 steps: "
    "check that it is mosi's file"
)


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
    assert (data.kind, data.warnings) == ("multibench", (DOUBT,))


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
    "a split is a list": (lambda c: c.update(test=[1]), ["test is a list of 1 samples", "not a dict of arrays"]),
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
    "two labels": (
        _set("train", "labels", np.ones((4, 2))),
        ["train/labels has shape (4, 2)", "column of the sentiment"],
    ),
    "one class": (_poke("train", "labels", ..., 2.0), ["train/labels are all of one class", "get the original file"]),
    "one class where there is text": (_one_class_where_there_is_text, ["train/labels are all of one class"]),
    "a label is NaN": (_poke("test", "labels", 1, np.nan), ["test/labels holds 1 NaN or infinite", "original"]),
    "labels are infinite": (_poke("valid", "labels", ..., -np.inf), ["valid/labels holds 2 NaN or infinite"]),
    "a label above 3": (
        _poke("valid", "labels", 0, 3.5),
        ["valid/labels holds 3.5, outside [-3, 3] (1 of 9", "sentiment"],
    ),
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
@pytest.mark.parametrize(("label", "shown"), [(2.0, "-1, 1, 2"), (0.5, "-1, 0.5, 1"), (0.0, "-1, 0, 1")])
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


def _checked(name: str, sizes: tuple[int, int, int], layout: str) -> list[str]:
    """What is said of a file under `name` with these sizes and the layout of another dataset's file."""
    content = _published(layout, dict(zip(SIZES, sizes, strict=True)), np.float16)
    return check_layout(name, Path("file.pkl"), content)


# mosi as its own tools build it has mosei's layout.
@pytest.mark.parametrize(("name", "other"), [pair for pair in itertools.permutations(FILES, 2) if pair[0] != "mosi"])
def test_another_datasets_layout_is_refused_where_the_sizes_do_not_speak_for_the_name(name: str, other: str) -> None:
    with pytest.raises(UserError) as error:
        _checked(name, (4, 2, 3), other)
    assert f"are {other}'s layout (not {name}'s) and sizes of neither, {name} is known with" in str(error.value)
    assert f"if it is {other}'s, name it {FILES[other].names[0]}, else" in str(error.value)


@pytest.mark.parametrize(("name", "other"), list(itertools.permutations(FILES, 2)))
def test_another_datasets_layout_and_exact_sizes_are_refused(name: str, other: str) -> None:
    with pytest.raises(
        UserError, match=rf"{other}'s layout .+ and {other}'s sizes \(exactly\).+name it {other[:2]}|humor|sarc"
    ):
        _checked(name, tuple(FILES[other].samples.values()), other)  # type: ignore[arg-type]


def test_a_layout_and_sizes_are_shown_in_numbers(output: Path, tmp_path: Path) -> None:
    humor = _dump(_published("mustard", SIZES, np.float16), tmp_path / "humor.pkl")
    message = _refusal("ur_funny", humor, output)
    assert "4/2/3 samples of 371/81/300 in 50 steps" in message
    assert "8074/1034/1058 of 371/81/300 in 20 steps" in message


@pytest.mark.parametrize("name", FILES)
def test_the_published_layout_is_accepted_in_any_size(name: str) -> None:
    content = _published(name, SIZES)
    assert checked_splits(Path("file.pkl"), content) == content
    assert _checked(name, tuple(FILES[name].samples.values()), name) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "sizes", "layout", "words"),
    [
        ("mosi", (1283, 214, 686), "mosei", ["1283/214/686", "1284/229/686", "(valid -6.6 %)", "the layout of mosei"]),
        ("mosi", (1284, 229, 686), "mosei", ["the layout of mosei", "mosi is known with 1284/229/686"]),
        ("mosi", (128, 21, 68), "mosei", ["128/21/68 samples", "(10 % of every split)"]),
        ("mosi", (4, 2, 3), "mosei", ["4/2/3 samples", "the layout of mosei", "mosi is known with"]),
        ("mosei", (16326, 1871, 4659), "mosei", ["(train +0.38 %)", "16265/1869/4643"]),
        ("ur_funny", (8074, 980, 1058), "mustard", ["(valid -5.2 %)", "the layout of mustard"]),
        ("mosei", (60, 30, 10), "mosei", ["60/30/10 samples", "mosei is known with"]),
    ],
)
def test_a_doubt_is_a_warning_that_shows_found_and_expected(
    name: str, sizes: tuple[int, int, int], layout: str, words: list[str]
) -> None:
    (warning,) = _checked(name, sizes, layout)
    assert all(word in warning for word in words), warning


@pytest.mark.parametrize("sizes", [(1283, 214, 686), (1284, 229, 686), (128, 21, 68), (642, 107, 343)])
def test_mosi_cannot_be_filed_as_mosei(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match=r"mosi's layout \(also mosei's\) and mosi's sizes .+ name it mosi_data\.pkl"):
        _checked("mosei", sizes, "mosei")


def _labels(*labels: float) -> list[str]:
    return beyond_scale("mosei", Path("file"), {"train": np.array(labels).reshape(-1, 1, 1), "test": np.array([-1.0])})


def test_labels_of_a_known_artefact_are_counted_and_change_no_class() -> None:
    few = (-3, 5, 11 / 3, *np.linspace(-2, 2, 20))
    (warning,) = _labels(*few)
    assert "2 of 24 labels (2 of train) lie in (3, 5]" in warning
    assert classes("mosei", Path("file"), "train", np.array(few), "positive").tolist()[:3] == [0, 1, 1]
    assert _labels(-3, 3) == []


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 0, 1], "holds 6, outside [-3, 3] ("),
        ([-1, 0, 100], "holds 100, outside"),
        ([-4, *[1] * 20], "holds -4, outside"),
        ([5, 4, -1], "(2 of 4 labels)"),
        ([-2, 5.5, *[1] * 20], "holds 5.5"),
    ],
)
def test_labels_beyond_what_the_artefact_explains_are_refused(labels: list[float], words: str) -> None:
    with pytest.raises(UserError) as error:
        _labels(*labels)
    assert words in str(error.value)
    assert "; use the labels of sentiment" in str(error.value)


def test_classes_in_place_of_sentiments_are_named() -> None:
    with pytest.raises(UserError, match=r"whole numbers from 0 look like 7 classes; use the sentiment file"):
        beyond_scale("mosi", Path("file"), {"train": np.arange(7)})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"labels": "regression_labels"},
            "no key labels; found vision, audio, text, regression_labels, id; did you mean",
        ),
        ({"vision": "facet", "audio": "covarep"}, "did you mean facet, covarep? rename to vision, audio"),
        ({"text": "unheard_of"}, "no key text; found vision, audio, unheard_of, labels, id; get the complete file"),
    ],
)
def test_keys_of_other_loaders_are_recognised(keys: dict[str, str], words: str) -> None:
    content = {split: {keys.get(key, key): v for key, v in arrays.items()} for split, arrays in _good().items()}
    with pytest.raises(UserError) as error:
        checked_splits(Path("file"), content)
    assert words in str(error.value)


def test_a_long_list_of_keys_has_the_near_one_first_and_says_how_many_more() -> None:
    content = _good()
    content["train"] = {f"other_{i}": 1 for i in range(40)} | {
        "label": content["train"].pop("labels"),
        **content["train"],
    }
    with pytest.raises(
        UserError, match=r"no key labels; found label, .+ … and 25 more; did you mean label\? rename to"
    ):
        checked_splits(Path("file"), content)


def test_a_split_by_another_name_is_recognised() -> None:
    content = _good()
    content["dev"] = content.pop("valid")
    with pytest.raises(UserError, match=r"found train, test, dev; did you mean dev\? rename to valid"):
        checked_splits(Path("file"), content)


def test_transposed_modalities_are_recognised() -> None:
    content = _good()
    content["train"] |= {key: np.swapaxes(content["train"][key], 1, 2) for key in MODALITIES}
    with pytest.raises(
        UserError, match=r"shape \(4, 2, 4\), text \(4, 3, 4\): they look transposed; swap the last two"
    ):
        checked_splits(Path("file"), content)


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
    assert prepared.warnings == (DOUBT,)
    data, expected = Dataset.open(prepared.directory), Dataset.open(output / "mosi")
    assert data.fingerprint() == expected.fingerprint()
    assert data.test.labels.tolist() == [1, 0, 1]


def test_ids_of_hdf5_are_read(tmp_path: Path) -> None:
    content = _good()
    content["valid"]["id"] = np.array(["train_1", "valid_1"])
    prepared = prepare("mosi", _write_hdf5(content, tmp_path / "mosi.hdf5"), tmp_path / "output")
    assert prepared.warnings == ("1 ids are in train and in valid: samples leak between the splits", DOUBT)


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
    assert _refusal("mosi", path, output).endswith("cannot be looked into without h5py; pip install h5py")


@pytest.mark.parametrize("inside", ["", "/data"])  # as merged, and as each sequence is published
@pytest.mark.parametrize("looks", [True, False])
def test_computational_sequences_are_known_as_the_source(
    looks: bool, inside: str, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mosi.hdf5"
    with h5py.File(path, "w") as file:
        for sequence in ("COVAREP", "words"):
            for segment in range(3):
                for key in ("features", "intervals"):
                    file[f"{sequence}{inside}/video{segment}[0]/{key}"] = np.ones((2, 2))
    if not looks:
        monkeypatch.setitem(sys.modules, "h5py", None)
    message = _refusal("mosi", path, output)
    assert "holds computational sequences" in message
    assert message.endswith("split; needs the split file mosi_data.pkl")
    assert (" COVAREP, words " in message) == looks


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
