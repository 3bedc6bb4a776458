"""Ragged sequences, their fingerprint, and the folder they are saved in."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3ray.data.dataset import Dataset, DatasetWriter, Sequences, Split
from s3ray.data.facts import DataFacts
from s3ray.digests import signed
from s3ray.errors import UserError


def test_from_padded_cuts_the_right_padding() -> None:
    padded = np.array([[[1, 2], [3, 4], [0, 0]], [[5, 6], [0, 0], [0, 0]], [[7, 8], [9, 10], [11, 12]]])
    sequences = Sequences.from_padded(padded, np.array([2, 1, 3]))
    assert sequences.values.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12]]
    assert sequences.values.dtype == np.float32
    assert sequences.offsets.tolist() == [0, 2, 3, 6]
    assert sequences.lengths.tolist() == [2, 1, 3]
    assert (len(sequences), sequences.features) == (3, 2)


def test_from_padded_keeps_valid_rows_of_zeros() -> None:
    assert Sequences.from_padded(np.zeros((2, 3, 1))).offsets.tolist() == [0, 3, 6]


def test_a_vector_per_sample_is_a_sequence_of_one_step() -> None:
    sequences = Sequences.from_padded(np.array([[1, 2], [3, 4]]))
    assert sequences.values.tolist() == [[1, 2], [3, 4]]
    assert sequences.lengths.tolist() == [1, 1]


def test_batch_takes_sequences_in_the_order_asked_for() -> None:
    values = np.array([[1], [2], [3], [4], [5], [6]], dtype=np.float32)
    sequences = Sequences(values, np.array([0, 2, 3, 6]))
    ragged = sequences.batch(np.array([2, 0, 2]))
    assert ragged.values_TF[:, 0].tolist() == [4, 5, 6, 1, 2, 4, 5, 6]
    assert ragged.lengths_B.tolist() == [3, 2, 3]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_batch_for_any_lengths_and_indices(lengths: list[int], data: st.DataObject) -> None:
    # Sample i holds the value i at each of its steps.
    values = np.repeat(np.arange(len(lengths), dtype=np.float32), lengths)[:, None]
    sequences = Sequences(values, np.concatenate([[0], np.cumsum(lengths)]))
    indices = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=6))
    ragged = sequences.batch(np.array(indices))
    assert ragged.lengths_B.tolist() == [lengths[i] for i in indices]
    assert ragged.values_TF[:, 0].tolist() == [i for i in indices for _ in range(lengths[i])]


def test_what_a_dataset_says_of_itself(tiny_dataset: Dataset) -> None:
    assert tiny_dataset.features == {"left": 5, "right": 3}
    assert tiny_dataset.classes == 3
    assert [len(split) for split in tiny_dataset.splits.values()] == [26, 10, 9]
    # Train's labels 0, 1, 2, 0, … tie at nine for 0 and 1: class 0, which 4 of valid's 10 have.
    assert tiny_dataset.majority_rate("valid") == 0.4


def _with_split(data: Dataset, name: str, **changes: Any) -> Dataset:
    return dataclasses.replace(data, **{name: dataclasses.replace(data.splits[name], **changes)})


def _with_sequences(data: Dataset, split: str, modality: str, sequences: Sequences) -> Dataset:
    modalities = {**data.splits[split].modalities, modality: sequences}
    return _with_split(data, split, modalities=modalities)


def _bumped(array: np.ndarray, index: Any) -> np.ndarray:
    array = array.copy()
    array[index] += 1
    return array


def _value(data: Dataset, split: str) -> Dataset:
    right = data.splits[split].modalities["right"]
    return _with_sequences(data, split, "right", Sequences(_bumped(right.values, (-1, -1)), right.offsets))


def _lengths(data: Dataset) -> Dataset:
    # One token changes hands between two neighbours: same values, same number of tokens.
    left = data.train.modalities["left"]
    place = 1 + int(np.flatnonzero(left.lengths[1:] > 1)[0])
    return _with_sequences(data, "train", "left", Sequences(left.values, _bumped(left.offsets, place)))


def _renamed(data: Dataset, names: Mapping[str, str]) -> Dataset:
    splits = {
        split: dataclasses.replace(
            content, modalities={names[name]: content.modalities[name] for name in content.modalities}
        )
        for split, content in data.splits.items()
    }
    return dataclasses.replace(data, **splits)


def _swapped_splits(data: Dataset) -> Dataset:
    return dataclasses.replace(data, valid=data.test, test=data.valid)


def _reordered(data: Dataset) -> Dataset:
    modalities = dict(reversed(list(data.train.modalities.items())))
    return _with_split(data, "train", modalities=modalities)


CHANGES: dict[str, Callable[[Dataset], Dataset]] = {
    "a value in train": lambda data: _value(data, "train"),
    "a value in test": lambda data: _value(data, "test"),
    "a label": lambda data: _with_split(data, "valid", labels=_bumped(data.valid.labels, 0)),
    "lengths": _lengths,
    "a modality's name": lambda data: _renamed(data, {"left": "left", "right": "write"}),
    "names exchanged": lambda data: _renamed(data, {"left": "right", "right": "left"}),
    "order of modalities": _reordered,
    "splits exchanged": _swapped_splits,
}


@pytest.mark.parametrize("change", CHANGES)
def test_fingerprint_changes_with(change: str, tiny_dataset: Dataset) -> None:
    assert CHANGES[change](tiny_dataset).fingerprint() != tiny_dataset.fingerprint()


def test_fingerprint_is_about_content_alone(tiny_dataset: Dataset) -> None:
    copied = _with_split(tiny_dataset, "train", labels=tiny_dataset.train.labels.copy())
    renamed = dataclasses.replace(copied, name="other", kind="user", facts={"a": 1})
    assert renamed.fingerprint() == tiny_dataset.fingerprint()


@pytest.fixture
def simulated(tiny_dataset: Dataset) -> Dataset:
    """With truth columns, tokens' factors and facts, as a simulation has them."""
    splits = {
        name: dataclasses.replace(
            split,
            truth=np.full((len(split), 2), 0.5, np.float32),
            expressed={modality: np.arange(len(s.values)) % 2 for modality, s in split.modalities.items()},
        )
        for name, split in tiny_dataset.splits.items()
    }
    return dataclasses.replace(
        tiny_dataset, **splits, truth_names=("u", "v"), relevant_factors=("v",), facts={"best_accuracy": 0.9}
    )


TRUTHS: dict[str, Callable[[Dataset], Dataset]] = {
    "a factor's value in train": lambda data: _with_split(data, "train", truth=_bumped(data.train.truth, (0, 1))),
    "a factor's value in test": lambda data: _with_split(data, "test", truth=_bumped(data.test.truth, (0, 1))),
    "a token's factor": lambda data: _with_split(
        data, "test", expressed={**data.test.expressed, "left": _bumped(data.test.expressed["left"], 0)}
    ),
    "no token's factor known": lambda data: _with_split(data, "test", expressed={}),
    "a factor's name": lambda data: dataclasses.replace(data, truth_names=("u", "w"), relevant_factors=("w",)),
    "another relevant factor": lambda data: dataclasses.replace(data, relevant_factors=("u",)),
    "no factor known to be relevant": lambda data: dataclasses.replace(data, relevant_factors=()),
}


@pytest.mark.parametrize("change", TRUTHS)
def test_another_truth_is_other_content_under_the_same_fingerprint(change: str, simulated: Dataset) -> None:
    changed = TRUTHS[change](simulated)
    assert changed.fingerprint() == simulated.fingerprint()
    assert changed.truth_fingerprint() != simulated.truth_fingerprint()
    assert changed.content() != simulated.content()


@pytest.mark.parametrize("change", CHANGES)
def test_a_truth_of_other_features_or_labels_is_another(change: str, simulated: Dataset) -> None:
    assert CHANGES[change](simulated).truth_fingerprint() != simulated.truth_fingerprint()


def test_content_is_the_truth_with_the_rest_or_the_rest_alone(tiny_dataset: Dataset, simulated: Dataset) -> None:
    assert tiny_dataset.truth_fingerprint() is None
    assert tiny_dataset.content() == tiny_dataset.fingerprint() == simulated.fingerprint()
    assert simulated.content() == simulated.truth_fingerprint() != simulated.fingerprint()
    for data in (tiny_dataset, simulated):
        facts = DataFacts.of(data)
        assert (facts.fingerprint, facts.truth) == (data.fingerprint(), data.truth_fingerprint())
        assert facts.content == data.content()


@pytest.mark.parametrize("simulation", [False, True])
def test_scores_are_content_but_not_in_the_fingerprint(
    simulation: bool, tiny_dataset: Dataset, simulated: Dataset, tmp_path: Path
) -> None:
    plain = simulated if simulation else tiny_dataset

    def scored(factor: float) -> Dataset:
        splits = plain.splits.items()
        return dataclasses.replace(
            plain, **{n: dataclasses.replace(s, scores=np.full(len(s), factor, np.float32)) for n, s in splits}
        )

    one, other = scored(1.0), scored(2.0)
    assert plain.scores_fingerprint() is None
    for data in (one, other):
        assert (data.fingerprint(), data.truth_fingerprint()) == (plain.fingerprint(), plain.truth_fingerprint())
        facts = DataFacts.of(data)
        assert (facts.scores, facts.content) == (data.scores_fingerprint(), data.content())
        assert (data.content() == data.scores_fingerprint()) == (not simulation)
    assert len({plain.content(), one.content(), other.content()}) == 3
    one.save(tmp_path / "data")
    opened = Dataset.open(tmp_path / "data", ["left"])
    assert [split.scores.tolist() for split in opened.splits.values() if split.scores is not None] == [
        [1.0] * len(split) for split in one.splits.values()
    ]
    assert Dataset.open(tmp_path / "data").content() == one.content()
    hidden = one.seen(truth=True, scores=False)
    assert all(split.scores is None for split in hidden.splits.values())
    assert hidden.truth_fingerprint() == plain.truth_fingerprint()
    assert all(split.truth is None for split in one.seen(truth=False, scores=True).splits.values())


def test_a_manifest_that_names_no_relevant_factors_knows_none(simulated: Dataset, tmp_path: Path) -> None:
    simulated.save(tmp_path / "data")
    manifest = tmp_path / "data" / "manifest.json"
    fields = json.loads(manifest.read_text())
    assert fields.pop("relevant_factors") == ["v"]
    del fields["digest"]  # older than both
    manifest.write_text(json.dumps(fields))
    assert Dataset.open(tmp_path / "data").relevant_factors == ()


def test_save_and_open_give_the_same_dataset(simulated: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "made" / "on the way"
    simulated.save(folder)
    opened = Dataset.open(folder)
    assert list(Dataset.open(folder, ["right"]).test.expressed) == ["right"]
    assert opened.fingerprint() == simulated.fingerprint()
    assert (opened.name, opened.kind) == ("tiny", "simulated")
    assert (opened.truth_names, opened.relevant_factors) == (("u", "v"), ("v",))
    assert opened.content() == simulated.content()
    assert opened.facts == {"best_accuracy": 0.9}
    assert list(opened.features) == ["left", "right"]
    for name, split in opened.splits.items():
        assert np.array_equal(split.truth, simulated.splits[name].truth)
        assert list(split.expressed) == ["left", "right"]
        for modality, expressed in simulated.splits[name].expressed.items():
            assert np.array_equal(split.expressed[modality], expressed)
        batch = split.batch(np.array([3, 1]))
        for modality, expected in simulated.splits[name].batch(np.array([3, 1])).items():
            assert batch[modality].values_TF.equal(expected.values_TF)
            assert batch[modality].lengths_B.equal(expected.lengths_B)


def test_opening_maps_the_files(tiny_dataset: Dataset, tmp_path: Path) -> None:
    tiny_dataset.save(tmp_path / "data")
    for split in Dataset.open(tmp_path / "data").splits.values():
        assert isinstance(split.labels, np.memmap)
        for sequences in split.modalities.values():
            assert isinstance(sequences.values, np.memmap)
            assert isinstance(sequences.offsets, np.memmap)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("calls", [0, 4])
def test_a_crashed_save_leaves_nothing(
    error: BaseException, calls: int, tiny_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    original = DatasetWriter.append

    def failing(writer: DatasetWriter, name: str, rows: np.ndarray) -> None:
        if len(written) == calls:
            raise error
        written.append(name)
        original(writer, name, rows)

    monkeypatch.setattr(DatasetWriter, "append", failing)
    with pytest.raises(type(error)):
        tiny_dataset.save(tmp_path / "data")
    assert len(written) == calls
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"data: no prepared dataset .+; prepare it"):
        Dataset.open(tmp_path / "data")


def test_the_second_to_save_leaves_the_first_ones_folder(tiny_dataset: Dataset, tmp_path: Path) -> None:
    tiny_dataset.save(tmp_path / "data")
    stamps = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    tiny_dataset.save(tmp_path / "data")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()} == stamps
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_split_batches_both_modalities(tiny_dataset: Dataset) -> None:
    split: Split = tiny_dataset.valid
    batch = split.batch(np.array([1, 4]))
    assert list(batch) == ["left", "right"]
    for name, ragged in batch.items():
        assert ragged.lengths_B.tolist() == split.modalities[name].lengths[[1, 4]].tolist()


def test_means_by_hand() -> None:
    values = np.array([[1, 2], [3, 6], [5, 7], [0, 0], [0, 1], [3, -4]], dtype=np.float32)
    sequences = Sequences(values, np.array([0, 2, 3, 6]))
    assert sequences.means().tolist() == [[2, 4], [5, 7], [1, -1]]
    # Sums of float32 would lose the ones: 2²⁴ + 1 = 2²⁴.
    large = Sequences(np.array([[2.0**24], [1], [1], [1]], dtype=np.float32), np.array([0, 4]))
    assert large.means().tolist() == [[2.0**22 + 0.75]]


def test_means_of_mapped_sequences(tiny_dataset: Dataset, tmp_path: Path) -> None:
    tiny_dataset.save(tmp_path / "data")
    left = Dataset.open(tmp_path / "data").valid.modalities["left"]
    expected = [left.values[left.offsets[i] : left.offsets[i + 1]].astype(float).mean(axis=0) for i in range(10)]
    np.testing.assert_allclose(left.means(), expected, rtol=1e-12)


def test_a_dataset_written_row_by_row_is_the_one_saved(simulated: Dataset, tmp_path: Path) -> None:
    simulated.save(tmp_path / "saved")
    with DatasetWriter(tmp_path / "written") as writer:
        for name, array in simulated.arrays().items():
            for row in range(len(array)):
                writer.append(name, array[row : row + 1])
        writer.commit("tiny", "simulated", ["left", "right"], {"best_accuracy": 0.9}, ("u", "v"), ("v",))
    files = {path.name: path.read_bytes() for path in (tmp_path / "saved").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "written").iterdir()}
    assert len(files) == 3 * 8 + 1  # values, offsets and truth of two modalities, labels and truth; the manifest
    assert np.array_equal(np.load(tmp_path / "written" / "train.labels.npy"), simulated.train.labels)


def test_a_writer_that_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data") as writer:
        writer.append("train.labels", np.arange(3))
    assert list(tmp_path.iterdir()) == []


def test_a_commit_replaces_only_if_told(tiny_dataset: Dataset, simulated: Dataset, tmp_path: Path) -> None:
    tiny_dataset.save(tmp_path / "data")

    def write(**options: bool) -> None:
        with DatasetWriter(tmp_path / "data") as writer:
            for name, array in simulated.arrays().items():
                writer.append(name, array)
            writer.commit("other", "user", ["left", "right"], {}, ("u", "v"), **options)

    with pytest.raises(OSError, match="not empty"):
        write()
    assert Dataset.open(tmp_path / "data").name == "tiny"
    write(replace=True)
    assert Dataset.open(tmp_path / "data").name == "other"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.fixture
def folder(simulated: Dataset, tmp_path: Path) -> Path:
    simulated.save(tmp_path / "data")
    return tmp_path / "data"


def _refusal(folder: Path) -> str:
    """What opening `folder` ends in: one line that starts with a path and ends with what to do."""
    with pytest.raises(UserError) as error:
        Dataset.open(folder)
    message = str(error.value)
    assert message.startswith(str(folder))
    assert message.endswith("prepare the dataset again")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_a_manifest_of_another_format_is_refused(version: Any, folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["format"] = version
    (folder / "manifest.json").write_text(json.dumps(signed(manifest)))
    assert f"manifest.json: format {version}, this version reads 2; " in _refusal(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"format": 2, "name": "ti',
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"format": 2, "name": "tiny"}',
    ],
)
def test_a_broken_manifest_is_one_sentence(content: bytes, folder: Path) -> None:
    (folder / "manifest.json").write_bytes(content)
    assert "manifest.json: damaged" in _refusal(folder)


def test_a_manifest_with_another_number_in_it_is_one_sentence(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(dict(reversed(manifest.items())), indent=3))
    Dataset.open(folder)
    manifest["facts"]["subsampled"] = {"left": 3}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert "manifest.json: damaged (it is not what was written); prepare the dataset again" in _refusal(folder)


@pytest.mark.parametrize("name", ["train.left.values", "valid.right.offsets", "test.labels", "train.truth"])
def test_a_missing_array_is_one_sentence(name: str, folder: Path) -> None:
    (folder / f"{name}.npy").unlink()
    assert f"{name}.npy: damaged (" in _refusal(folder)


@pytest.mark.parametrize(
    "size",
    [
        0,
        4,
        60,
        128,
        -1,
    ],
)
def test_a_truncated_array_is_one_sentence(size: int, folder: Path) -> None:
    path = folder / "valid.left.values.npy"
    path.write_bytes(path.read_bytes()[:size])
    assert "valid.left.values.npy: damaged (" in _refusal(folder)


@pytest.mark.parametrize("name", ["train.left.values", "valid.right.offsets", "test.labels", "train.truth"])
def test_damage_names_the_array_with_a_flipped_bit(name: str, folder: Path) -> None:
    assert Dataset.open(folder).damaged() == []
    path = folder / f"{name}.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert Dataset.open(folder).damaged() == [name]


def test_damage_is_looked_for_in_what_was_opened(folder: Path) -> None:
    path = folder / "test.left.values.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert Dataset.open(folder, ["right"]).damaged() == []
    assert Dataset.open(folder, ["right", "left"]).damaged() == ["test.left.values"]


def test_a_pair_has_the_fingerprint_of_the_same_data_in_memory(tiny_dataset: Dataset, tmp_path: Path) -> None:
    def with_modalities(*names: str) -> Dataset:
        middle = {
            name: Sequences.from_padded(np.arange(4.0 * len(split)).reshape(len(split), 4))
            for name, split in tiny_dataset.splits.items()
        }
        splits = {
            name: dataclasses.replace(
                split, modalities={key: {**split.modalities, "middle": middle[name]}[key] for key in names}
            )
            for name, split in tiny_dataset.splits.items()
        }
        return dataclasses.replace(tiny_dataset, **splits)

    with_modalities("left", "middle", "right").save(tmp_path / "data")
    fingerprints = []
    for pair in (("left", "right"), ("right", "left"), ("middle", "right")):
        opened = Dataset.open(tmp_path / "data", pair)
        assert tuple(opened.features) == pair
        assert opened.fingerprint() == with_modalities(*pair).fingerprint()
        fingerprints.append(opened.fingerprint())
    assert fingerprints[0] == tiny_dataset.fingerprint()
    assert len(set(fingerprints)) == 3
    assert Dataset.open(tmp_path / "data").fingerprint() == with_modalities("left", "middle", "right").fingerprint()


def test_opening_an_unknown_modality_names_the_nearest(folder: Path) -> None:
    with pytest.raises(UserError, match=r"data: has no modality 'rigth'; did you mean 'right'\? known: left, right$"):
        Dataset.open(folder, ["left", "rigth"])


def _inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob("*.npy")}


@pytest.fixture
def prepared(simulated: Dataset, tmp_path: Path) -> Dataset:
    """Maps of the files in `prepared`."""
    simulated.save(tmp_path / "prepared")
    return Dataset.open(tmp_path / "prepared")


def test_maps_on_the_same_disk_are_linked_if_told(prepared: Dataset, simulated: Dataset, tmp_path: Path) -> None:
    prepared.save(tmp_path / "linked", link=True)
    prepared.save(tmp_path / "copied")
    files = _inodes(tmp_path / "prepared")
    assert len(files) == 24
    assert _inodes(tmp_path / "linked") == files
    assert set(_inodes(tmp_path / "copied").values()).isdisjoint(files.values())
    for place in ("linked", "copied"):
        opened = Dataset.open(tmp_path / place)
        assert opened.content() == simulated.content()
        assert opened.digests == prepared.digests
        assert opened.damaged() == []
    assert not list(tmp_path.glob(".*"))


def test_what_is_in_memory_is_written_even_if_links_are_wanted(simulated: Dataset, tmp_path: Path) -> None:
    simulated.save(tmp_path / "data", link=True)
    assert Dataset.open(tmp_path / "data").content() == simulated.content()


def test_without_hard_links_files_are_copied(
    prepared: Dataset, simulated: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(source: str, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    prepared.save(tmp_path / "data", link=True)
    assert set(_inodes(tmp_path / "data").values()).isdisjoint(_inodes(tmp_path / "prepared").values())
    assert Dataset.open(tmp_path / "data").content() == simulated.content()


def test_preparing_again_leaves_linked_files_as_they_were(
    prepared: Dataset, simulated: Dataset, tmp_path: Path
) -> None:
    prepared.save(tmp_path / "linked", link=True)
    _value(simulated, "train").save(tmp_path / "prepared", replace=True)
    assert Dataset.open(tmp_path / "linked").damaged() == []
    assert Dataset.open(tmp_path / "linked").content() == simulated.content()


def test_a_map_of_files_that_were_replaced_is_written_as_it_was(
    prepared: Dataset, simulated: Dataset, tmp_path: Path
) -> None:
    _value(simulated, "train").save(tmp_path / "prepared", replace=True)
    prepared.save(tmp_path / "data", link=True)
    assert Dataset.open(tmp_path / "data").content() == simulated.content()
    assert Dataset.open(tmp_path / "data").damaged() == []


@pytest.mark.parametrize("part", [slice(0, 5), slice(None, None, -1)])
def test_a_part_of_a_map_is_no_file_to_link(part: slice, prepared: Dataset, tmp_path: Path) -> None:
    labels = prepared.test.labels[part]
    with DatasetWriter(tmp_path / "data") as writer:
        writer.add("labels", labels, None, link=True)
        writer.commit("part", "user", [], {})
    assert np.load(tmp_path / "data" / "labels.npy").tolist() == labels.tolist()


@pytest.mark.parametrize("link", [True, False])
def test_damaged_files_are_not_passed_on(link: bool, prepared: Dataset, tmp_path: Path) -> None:
    damaged = tmp_path / "prepared" / "train.left.values.npy"
    with damaged.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(UserError, match=rf"{damaged}: damaged, .*; delete and prepare the dataset again"):
        prepared.save(tmp_path / "data", link=link)
    assert not (tmp_path / "data").exists()


def test_a_dataset_made_of_an_opened_one_has_a_fingerprint_of_its_own(tiny_dataset: Dataset, tmp_path: Path) -> None:
    tiny_dataset.save(tmp_path / "tiny")
    opened = Dataset.open(tmp_path / "tiny")
    assert opened.fingerprint() == tiny_dataset.fingerprint()
    other = dataclasses.replace(opened.train, labels=np.roll(opened.train.labels, 1))
    assert dataclasses.replace(opened, train=other).fingerprint() != opened.fingerprint()
    assert dataclasses.replace(opened, name="renamed").fingerprint() == opened.fingerprint()


def test_means_and_deviations_of_more_values_than_are_looked_at_together() -> None:
    lengths = np.array([400_000, 1, 300_000, 500_000, 7])
    values = np.random.default_rng(0).normal(3, 2, size=(lengths.sum(), 1))
    sequences = Sequences.from_rows(values, lengths)
    pieces = np.split(sequences.values.astype(np.float64), sequences.offsets[1:-1])
    np.testing.assert_allclose(sequences.means(), [piece.mean(axis=0) for piece in pieces], rtol=1e-12)
    np.testing.assert_allclose(sequences.deviations(), [piece.std(axis=0) for piece in pieces], rtol=1e-10)
