"""From files, frames and torch datasets to a dataset: read as meant, and one sentence for whatever cannot be."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from s3ray.cli import app
from s3ray.data.dataset import SPLITS, Dataset
from s3ray.data.importing import Wanted, fields, import_files
from s3ray.data.npz import read_npz, save_npz
from s3ray.errors import UserError

N = 12
KINDS = np.array(["run", "sit"])[np.arange(N) % 2]
SPLIT = np.array(["train"] * 6 + ["val"] * 2 + ["test"] * 4)
# Of train, valid and test as SPLIT cuts them.
PLACES = {"train": slice(0, 6), "valid": slice(6, 8), "test": slice(8, 12)}


def numbers(rows: int, columns: int, start: int = 0) -> NDArray[np.float64]:
    """(rows, columns): no two values are alike."""
    return np.arange(start, start + rows * columns, dtype=np.float64).reshape(rows, columns) / 10 + 1


ACC, GYRO = numbers(N, 2), numbers(N, 3, 100)


def table(**columns: Any) -> pd.DataFrame:
    """12 samples: acc_0, acc_1, gyro_0 to gyro_2, kind (run and sit in turn)."""
    frame = pd.DataFrame({f"acc_{i}": ACC[:, i] for i in range(2)} | {f"gyro_{i}": GYRO[:, i] for i in range(3)})
    return frame.assign(**{"kind": KINDS, **columns})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def imported(*files: str, **wanted: Any) -> Dataset:
    """What a file written of files holds, read back."""
    made = import_files([Path(file) for file in files], Path("out.npz"), Wanted(**wanted), overwrite=True)
    data = read_npz("out", Path("out.npz"), list(made.features)[:2] if len(made.features) > 2 else None)
    assert data.label_names == made.label_names
    return data


def refused(*files: str, **wanted: Any) -> str:
    with pytest.raises(UserError) as error:
        import_files([Path(file) for file in files], Path("out.npz"), Wanted(**wanted))
    assert not Path("out.npz").exists()
    assert not list(Path().glob(".out*"))
    assert "\n" not in str(error.value)
    return str(error.value)


def said(data: Dataset) -> str:
    return "\n".join(data.facts["imported"]["said"])


def holds(data: Dataset, **modalities: NDArray[Any]) -> None:
    """Every split has its part of the arrays (n, features), cut as SPLIT says."""
    assert list(data.features) == list(modalities)
    for split, places in PLACES.items():
        for name, values in modalities.items():
            assert np.array_equal(data.splits[split].modalities[name].values, values[places].astype(np.float32))
        assert data.splits[split].labels.tolist() == (np.arange(N) % 2)[places].tolist()


WRITERS: dict[str, Callable[[pd.DataFrame], str]] = {
    "csv": lambda frame: str(frame.to_csv("t.csv", index=False) or "t.csv"),
    "an index": lambda frame: str(frame.to_csv("t.csv") or "t.csv"),
    "tsv": lambda frame: str(frame.to_csv("t.tsv", index=False, sep="\t") or "t.tsv"),
    "decimal commas": lambda frame: str(frame.to_csv("t.csv", index=False, sep=";", decimal=",") or "t.csv"),
    "byte order mark": lambda frame: str(frame.to_csv("t.csv", index=False, encoding="utf-8-sig") or "t.csv"),
    "utf-16": lambda frame: str(frame.to_csv("t.csv", index=False, encoding="utf-16") or "t.csv"),
    "quoted lines": lambda frame: str(
        frame.assign(note=[f"{i}\nb,c" for i in range(N)]).to_csv("t.csv", index=False) or "t.csv"
    ),
    "parquet": lambda frame: str(frame.to_parquet("t.parquet") or "t.parquet"),
    "categories": lambda frame: str(frame.astype({"kind": "category"}).to_parquet("t.parquet") or "t.parquet"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_tables(kind: str, here: Path) -> None:
    file = WRITERS[kind](table(split=SPLIT))
    for wanted in (
        {},  # columns that begin alike, the words, the column of splits
        {"modalities": {"acc": "cols:1-2" if kind == "an index" else "cols:0-1", "gyro": "gyro_*"}, "label": "kind"},
    ):
        data = imported(file, **wanted)
        holds(data, acc=ACC, gyro=GYRO)
        assert data.label_names == ("run", "sit")
        assert "12 samples of t." in said(data)
        assert "2 classes from kind: run: 6, sit: 6" in said(data)
        assert "split 6/2/4 (train/valid/test): kept, by split" in said(data)


def arrays(turned: bool) -> dict[str, NDArray[Any]]:
    return {"acc": ACC.T if turned else ACC, "gyro": GYRO.T if turned else GYRO, "kind": np.arange(N)[:, None] % 2 + 1}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_matlab(turned: bool, sparse: bool, here: Path) -> None:
    cells = np.empty((1, 2), dtype=object)
    made = arrays(turned)
    cells[0, 0], cells[0, 1] = made["acc"], scipy.sparse.csc_matrix(made["gyro"]) if sparse else made["gyro"]
    words = np.array(SPLIT, dtype=object)[:, None]
    scipy.io.savemat("f.mat", {"X": cells, "Y": made["kind"], "split": words, "S": {"inside": made["acc"]}})
    data = imported("f.mat", modalities={"acc": "X{1}", "gyro": "X{2}"}, label="Y")
    holds(data, acc=ACC, gyro=GYRO)
    assert data.label_names == ("1", "2")
    assert ("was features × samples, turned" in said(data)) is turned
    assert list(imported("f.mat").features) == ["X1", "X2"]  # of three; the first two of a third, S_inside, are read
    holds(imported("f.mat", modalities={"s": "S.inside", "gyro": "X{2}"}), s=ACC, gyro=GYRO)


def test_matlab_7_3_lies_transposed_and_refers_to_its_cells(here: Path) -> None:
    with h5py.File("f.mat", "w", userblock_size=512) as file:
        inside = file.create_group("#refs#")
        cells = np.empty((2, 1), dtype=h5py.ref_dtype)  # in MATLAB 1 × 2
        for i, values in enumerate((ACC, GYRO)):
            inside[f"c{i}"] = values.T
            cells[i, 0] = inside[f"c{i}"].ref
        file.create_dataset("X", data=cells, dtype=h5py.ref_dtype)
        file["Y"] = arrays(False)["kind"].T.astype(np.float64)
        sparse = scipy.sparse.csc_matrix(GYRO)
        group = file.create_group("Z")
        group.attrs["MATLAB_sparse"] = np.uint64(N)
        group["data"], group["ir"], group["jc"] = sparse.data, sparse.indices, sparse.indptr
        file["split"] = np.array([0])  # not used
    with open("f.mat", "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    for second in ("X{2}", "Z"):
        data = imported("f.mat", modalities={"acc": "X{1}", "gyro": second}, label="Y")
        got = np.concatenate([data.splits[s].modalities["gyro"].values for s in SPLITS])
        assert sorted(map(tuple, got.tolist())) == sorted(map(tuple, GYRO.astype(np.float32).tolist()))
        assert data.features == {"acc": 2, "gyro": 3}


def test_hdf5_and_npz_whose_names_tell_the_split(here: Path) -> None:
    made: dict[str, NDArray[Any]] = {}
    for split, places in PLACES.items():
        other = {"train": "train", "valid": "dev", "test": "test"}[split]
        made |= {f"{other}/acc": ACC[places], f"{other}/gyro": GYRO[places].T, f"{other}/y": KINDS[places] == "sit"}
    with h5py.File("f.h5", "w") as file:
        for name, values in made.items():
            file[name] = values
    np.savez("f.npz", **{name.replace("/", "_"): values for name, values in made.items()})  # type: ignore[arg-type]
    for name in ("f.h5", "f.npz"):
        data = imported(name)
        holds(data, acc=ACC, gyro=GYRO)
        assert data.label_names == ("False", "True")
        assert "kept, by names" in said(data)
        assert list(imported(name, modalities={"g": "gyro:cols:0,2", "a": "acc"}).features.values()) == [2, 2]


def test_files_per_split_and_a_validation_split_cut_from_train(here: Path) -> None:
    frame = pd.concat([table(), table().assign(acc_0=-ACC[:, 0])])
    frame[:20].to_csv("train.csv", index=False)
    frame[8:12].to_csv("test.csv", index=False)  # which stand in train.csv too
    data = imported("test.csv", "train.csv")
    assert [len(split) for split in data.splits.values()] == [16, 4, 4]
    assert "a validation split of 20% cut from train, seed 0" in said(data)
    assert np.bincount(data.valid.labels).tolist() == [2, 2]
    assert "2 of 4 samples of test are in train too, value for value" in " ".join(data.warnings)  # two are in valid
    assert "has no test samples, only train and valid" in refused_of_two("train", "valid")


def refused_of_two(first: str, second: str) -> str:
    for name in (first, second):
        table().to_csv(f"{name}.csv", index=False)
    Path("out.npz").unlink(missing_ok=True)
    return refused(f"{first}.csv", f"{second}.csv")


def test_three_axes_lengths_and_one_hot(here: Path) -> None:
    steps = np.arange(N * 3 * 2, dtype=np.float64).reshape(N, 3, 2)
    padded = steps.copy()
    padded[1, 2:] = np.nan
    one_hot = np.eye(2)[np.arange(N) % 2]
    for given, told in (
        (
            {"x": np.moveaxis(steps, 0, 2), "y": one_hot},
            "had samples on axis 2, turned, its other axes as they stand: 3 steps × 2 features",
        ),
        ({"x": padded, "y": one_hot.T}, "steps of NaN at the end taken for padding"),
        ({"x": steps, "x_length": np.where(np.arange(N) == 1, 2, 3), "y": one_hot[:, :1]}, "2 to 3 steps, padded"),
    ):
        np.savez("f.npz", z=GYRO, split=SPLIT, **given)  # type: ignore[arg-type]
        data = imported("f.npz")
        assert told in said(data)
        lengths = [3, 3 if "axis" in told else 2, 3, 3, 3, 3]
        assert data.train.modalities["x"].lengths.tolist() == lengths
        rows = np.concatenate([steps[i, :length] for i, length in enumerate(lengths)])
        assert np.array_equal(data.train.modalities["x"].values, rows)
        assert data.train.labels.tolist() in ([0, 1] * 3, [1, 0] * 3)
        assert ("train_x_length" in np.load("out.npz")) is ("axis" not in told)
    Path("out.npz").unlink()
    np.savez("f.npz", x=steps, x_length=np.full(N, 4), z=GYRO, y=KINDS)
    assert refused("f.npz") == "--modality x: its lengths are 4 to 4, its steps 3; correct them"


def test_a_row_per_step(here: Path) -> None:
    rows = [
        (subject, trial, t, 100 * subject + 10 * trial + t, -t, ["a", "b"][trial])
        for subject in range(6)
        for trial in range(2)
        for t in range(1 + trial)
    ]
    frame = pd.DataFrame(rows, columns=["subject", "trial", "t", "u", "v", "kind"])
    frame.sample(frac=1, random_state=1).to_csv("t.csv", index=False)
    wanted = {"modalities": {"u": "u", "v": "v"}, "label": "kind", "group": "subject", "sample": "subject,trial"}
    data = imported("t.csv", **wanted, time="t")
    assert [len(split) for split in data.splits.values()] == [8, 2, 2]  # 4, 1 and 1 of six subjects
    assert "by groups, no subject in two" in said(data)
    seen: dict[str, set[int]] = {}
    for name, split in data.splits.items():
        u = split.modalities["u"]
        seen[name] = set((u.values[:, 0] // 100).astype(int).tolist())
        for i, label in enumerate(split.labels):
            first = u.values[u.offsets[i], 0]
            assert u.values[u.offsets[i] : u.offsets[i + 1], 0].tolist() == [first + t for t in range(1 + label)]
    assert sum(map(len, seen.values())) == len(set.union(*seen.values())) == 6
    Path("out.npz").unlink()
    assert " has t 0 twice; name all columns" in refused("t.csv", **{**wanted, "sample": "subject"}, time="t")
    assert "column kind changes within sample " in refused("t.csv", **{**wanted, "sample": "subject"})
    assert "nothing is called 'subjekt'" in refused("t.csv", **{**wanted, "sample": "subjekt"})
    assert refused("t.csv", time="t").startswith("--time t: ")
    del wanted["sample"], wanted["group"]
    assert "t looks like time" in " ".join(imported("t.csv", **wanted).warnings)


@pytest.mark.parametrize("suffix", ["npy", "csv"])
def test_a_file_per_sample(suffix: str, here: Path) -> None:
    for i in range(N):
        for name, values in (("left", np.stack([ACC[i]] * (1 + i % 2))), ("right", GYRO[i])):
            file = Path(f"{name}/{KINDS[i]}/{i:03}.{suffix}")
            file.parent.mkdir(parents=True, exist_ok=True)
            if suffix == "npy":
                np.save(file, values)
            else:
                pd.DataFrame(np.atleast_2d(values)).to_csv(file, index=False)
    data = imported("left", "right")
    assert (data.features, data.label_names) == ({"left": 2, "right": 3}, ("run", "sit"))
    for split in data.splits.values():
        left, right = split.modalities["left"], split.modalities["right"]
        assert left.lengths.tolist() == [1 + label for label in split.labels]  # odd samples are sit
        assert np.allclose(left.values[left.offsets[:-1], 0] * 1.5 + 9.5, right.values[:, 0])  # of one sample


def test_files_beside_a_table_of_labels_are_told_by_their_names(here: Path) -> None:
    Path("left").mkdir()
    for i in range(N):
        np.save(f"left/{i:03}.npy", numbers(2, 4, i))
    names = {"clip": [f"{i:03}.npy" for i in range(N)], "number": range(N), "age": 3.0}
    frame = pd.DataFrame({**names, "kind": KINDS, "split": SPLIT})[::-1]
    frame.to_csv("labels.csv", index=False)
    data = imported("left", "labels.csv", modalities={"a": "left:cols:0-1", "b": "left:cols:2-"})
    assert "samples are told apart by clip" in said(data)
    alone = import_files([Path("left"), Path("labels.csv")], Path("one.npz"), Wanted())
    assert list(alone.features) == ["left"]  # not what stands beside the labels
    assert data.train.modalities["a"].values[::2, 0].tolist() == [np.float32(1 + i / 10) for i in range(5, -1, -1)]
    assert data.train.labels.tolist() == [1, 0] * 3
    Path("out.npz").unlink()
    frame[1:].to_csv("labels.csv", index=False)
    assert "12 against 11 samples, such as 11" in refused("left", "labels.csv")
    assert "a table with a row per sample beside" in refused("left")


LABELS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "strings with blanks": (["walk up ", " sit"] * 6, ("sit", "walk up")),
    "booleans": (np.arange(N) % 2 == 0, ("False", "True")),
    "floats from 1": (np.arange(N) % 2 + 1.0, ("1", "2")),
    "from 0": (np.arange(N) % 3, ()),  # says nothing new
    "negative": (np.arange(N) % 2 * 2 - 1, ("-1", "1")),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_any_kind(kind: str, here: Path) -> None:
    values, names = LABELS[kind]
    table(kind=values).to_csv("t.csv", index=False)
    data = imported("t.csv", label="kind", seed=1)
    assert data.label_names == names
    assert set(np.concatenate([split.labels for split in data.splits.values()])) == set(range(len(names) or 3))


BAD_LABELS: dict[str, tuple[Any, str]] = {
    "measurements": (np.arange(N) / 10, "--label kind: holds measurements such as 0.1, not classes; "),
    "a gap": ([None, *KINDS[1:]], "--label kind: 1 of 12 labels are missing, the first of sample 0"),
    "one class": (["x"] * N, "--label kind: holds the single class x; "),
    "ids": ([f"s{i}" for i in range(N)], "--label kind: has 12 different values for 12 samples: ids"),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_what_are_no_labels(kind: str, here: Path) -> None:
    table(kind=BAD_LABELS[kind][0]).to_csv("t.csv", index=False)
    assert refused("t.csv", label="kind").startswith(BAD_LABELS[kind][1])


def test_shares_are_of_every_class_and_seeded(here: Path) -> None:
    pd.concat([table()] * 5).assign(acc_0=np.arange(60)).to_csv("t.csv", index=False)
    first, again, other = (imported("t.csv", shares="50/30/20", seed=seed) for seed in (0, 0, 1))
    assert [np.bincount(split.labels).tolist() for split in first.splits.values()] == [[15, 15], [9, 9], [6, 6]]
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    Path("out.npz").unlink()
    for shares in ("60/40", "80/0/20", "a/b/c", ""):
        assert refused("t.csv", shares=shares or "-").startswith("--split ")


def test_a_small_train_split_has_every_class(here: Path) -> None:
    kinds = ["rare"] * 2 + ["a", "b"] * 19
    frame = pd.DataFrame({"u_0": np.arange(40), "u_1": 1, "v_0": 2, "v_1": 3, "kind": kinds})
    frame.to_csv("t.csv", index=False)
    for seed in range(5):
        data = imported("t.csv", shares="20/40/40", seed=seed)
        assert set(data.train.labels) == {0, 1, 2}


@pytest.mark.parametrize("rare", [1, 2, 3])
def test_a_class_too_small_to_be_in_all_splits_is_in_train(rare: int, here: Path) -> None:
    kinds = ["rare"] * rare + ["a", "b"] * 10
    frame = pd.DataFrame({"u_0": np.arange(len(kinds)), "u_1": 1, "v_0": 2, "v_1": 3, "kind": kinds})
    frame.to_csv("t.csv", index=False)
    data = imported("t.csv")
    assert data.label_names[data.train.labels.max()] == "rare"
    assert "single sample" in said(data) or rare > 1


def test_more_classes_than_a_split_can_hold(here: Path) -> None:
    table(kind=[f"c{i // 2}" for i in range(N)]).to_csv("t.csv", index=False)
    data = imported("t.csv")
    assert (data.classes, [len(split) for split in data.splits.values()]) == (6, [8, 2, 2])
    assert "too small to hold every class" in said(data)


def test_groups(here: Path) -> None:
    table(subject=["a", "b", "c", "d"] * 3, kind=["x", "y", "y"] * 4).to_csv("t.csv", index=False)
    assert "subject looks like groups" in " ".join(imported("t.csv").warnings)
    assert "subject looks like groups" in " ".join(read_npz("out", Path("out.npz")).warnings)
    data = imported("t.csv", group="subject")
    assert [len(split) for split in data.splits.values()] == [6, 3, 3]
    assert not data.warnings
    table(subject=["a"] * 6 + ["b"] * 2 + ["a"] * 4, split=SPLIT).to_csv("t.csv", index=False)
    assert "1 of 1 groups of test are in train too (a): the splits leak" in imported("t.csv", group="subject").warnings
    Path("out.npz").unlink()
    for subjects in (["a"] * N, ["a"] * 6 + ["b"] * 6):
        table(subject=subjects).to_csv("t.csv", index=False)
        assert "three or more are needed" in refused("t.csv", group="subject")


def test_missing_values_are_refused_or_set_to_the_means_of_train(here: Path) -> None:
    acc = ACC[:, 0].copy()
    acc[[0, 7]] = np.nan, np.inf
    table(acc_0=acc, split=SPLIT).to_csv("t.csv", index=False)
    found = "acc: 2 of 24 values are NaN or infinite, in 2 samples (1 of train, 1 of valid, 0 of test), most in acc_0"
    assert refused("t.csv") == f"t.csv: {found}; drop them, or fill in train's means with --fill mean"
    data = imported("t.csv", fill="mean")
    expected = ACC.copy()
    expected[[0, 7], 0] = ACC[1:6, 0].mean()
    holds(data, acc=expected, gyro=GYRO)
    assert f"{found}: set to train's means" in said(data)
    Path("out.npz").unlink()
    acc[:6] = np.nan
    table(acc_0=acc, split=SPLIT).to_csv("t.csv", index=False)
    assert "acc_0 has no value in train" in refused("t.csv", fill="mean")


SENTENCES: dict[str, tuple[dict[str, Any], str]] = {
    "no such column": ({"modalities": {"a": "acz_*"}}, "--modality a=acz_*: nothing is called 'acz_*', found t, acc_0"),
    "no such label": ({"label": "knd"}, "--label knd: nothing is called 'knd', found "),
    "beyond": ({"modalities": {"a": "cols:3-9"}}, "--modality a=cols:3-9: t has columns 0 to 5; correct 3-9"),
    "no range": ({"modalities": {"a": "cols:x"}}, "--modality a=cols:x: 'x' is no range; "),
    "the labels": ({"modalities": {"a": "cols:0-"}}, "--modality a=cols:0-: takes in kind, which stands for something"),
    "all but the labels": ({"modalities": {"a": "t"}, "label": "acc_0"}, "--label acc_0: holds measurements"),
    "two labels": ({"label": "acc_*"}, "--label acc_*: has shape (12, 2) and rows that are not one-hot"),
    "a whole table": (
        {"label": "t.csv"},
        "--label t.csv: has columns acc_0, acc_1, gyro_0, gyro_1, gyro_2, kind; name",
    ),
    "a fill": ({"fill": "zero"}, "--fill zero: is not known; write mean"),
    "a taken name": ({"modalities": {"values": "acc_*"}}, "t.csv: modality name 'values'"),
}


@pytest.mark.parametrize("kind", SENTENCES)
def test_sentences(kind: str, here: Path) -> None:
    table().to_csv("t.csv", index=False)
    wanted, sentence = SENTENCES[kind]
    assert refused("t.csv", **wanted).startswith(sentence)


def test_what_cannot_be_guessed_is_listed(here: Path) -> None:
    pd.DataFrame({"p": numbers(N, 1)[:, 0], "q": 1.0, "r": 2.0}).to_csv("t.csv", index=False)
    holding = "it holds t (12 rows: p, q, r)"
    assert refused("t.csv") == f"t.csv: what are the labels? {holding}; give --label r"
    table(other=KINDS)[["acc_0", "kind", "other"]].to_csv("t.csv", index=False)
    assert "what are the labels?" in refused("t.csv")  # two columns of words
    assert "give --modality A=cols:0-2 --modality B=…" in refused("t.csv", label="kind")
    np.savez("f.npz", a=ACC, b=GYRO, y=KINDS, c=np.zeros((5, 5)))
    data = imported("f.npz")
    assert list(data.features) == ["a", "b"]
    assert "not used: c" in said(data)
    Path("out.npz").unlink()
    mismatch = refused("f.npz", modalities={"a": "a", "c": "c"})
    assert mismatch.startswith("--modality c: c is 5 × 5, and no axis has the 12 of the labels")


def test_odd_tables(here: Path) -> None:
    Path("t.csv").write_text("x,x,y,kind\n" + "".join(f"{i},{i + 1},{i + 2},{KINDS[i]}\n" for i in range(N)))
    data = imported("t.csv", modalities={"a": "cols:0-1", "b": "y"}, label="kind")
    assert data.features == {"a": 2, "b": 1}
    assert "column x stands more than once" in said(data)
    table().to_csv("t.csv", index=False, header=False)
    data = imported("t.csv", modalities={"a": "0,1", "b": "cols:2-4"}, label="5")
    assert data.features == {"a": 2, "b": 3}
    assert "has no line of names" in said(data)
    Path("out.npz").unlink()
    for content, sentence in {
        b"": "t.csv: is empty; ",
        b"\n \n": "t.csv: is empty; ",
        b"a,b,kind\n": "t.csv: has no rows; ",
        b"a,b\n1,2\n1,2,3\n": "t.csv: rows differ in length (row 3 has 3 fields, the first 2); ",
        b"a,b\n1,2\n1\n": "t.csv: rows differ in length (row 3 has 1 fields, the first 2); ",
        b"a,b,kind\n1,2,3,x\n2,3,4,y\n": "t.csv: rows differ in length (row 2 has 4 fields, the first 3); ",
        b"a b\n1 2 3\n4 5 6\n": "t.csv: rows differ in length (row 2 has 3 fields, the first 2); ",
        b'a,b\n1,"2\n': "t.csv: rows differ in length (",
        "a,kind\n1,\xe4\n".encode("latin1"): "t.csv: is not UTF-8; convert it: iconv",
    }.items():
        Path("t.csv").write_bytes(content)
        assert refused("t.csv").startswith(sentence)
    wide = pd.DataFrame(
        np.ones((N, 2_000)) * np.arange(N)[:, None], columns=[f"{'ab'[i // 1000]}_{i}" for i in range(2_000)]
    )
    wide.assign(label=KINDS).to_csv("t.csv", index=False)
    assert imported("t.csv").features == {"a": 1000, "b": 1000}


def test_names_that_papers_use(here: Path) -> None:
    made = {"I_tr": ACC[:8], "I_te": ACC[8:], "T_tr": GYRO[:8].T, "T_te": GYRO[8:].T}
    scipy.io.savemat("wiki.mat", {**made, "L_tr": np.arange(8)[:, None] % 2, "L_te": np.arange(4)[:, None] % 2})
    data = imported("wiki.mat")
    assert (data.features, [len(split) for split in data.splits.values()]) == ({"I": 2, "T": 3}, [6, 2, 4])
    assert np.array_equal(data.test.modalities["T"].values, GYRO[8:].astype(np.float32))
    assert not data.warnings


def test_a_file_per_modality_and_one_of_labels(here: Path) -> None:
    frame = table(split=SPLIT)
    frame[["acc_0", "acc_1"]].to_csv("left.csv", index=False)
    np.save("right.npy", GYRO)
    frame[["kind", "split"]].to_csv("labels.csv", index=False)
    holds(imported("left.csv", "right.npy", "labels.csv"), left=ACC, right=GYRO)
    holds(imported("left.csv", "right.npy", "labels.csv", modalities={"a": "left", "b": "right.npy"}), a=ACC, b=GYRO)
    frame.assign(kind=frame.kind == "sit")[["kind"]].astype(int).to_csv("labels.csv", index=False)
    data = imported("left.csv", "right.npy", "labels.csv", label="labels.csv")
    assert list(data.features) == ["left", "right"]  # numbers that are labels are no input
    frame[:7][["acc_0"]].to_csv("left.csv", index=False)
    Path("out.npz").unlink()
    sentence = "--modality left: left has 7 samples, the labels are 12; give the same samples"
    assert refused("left.csv", "right.npy", "labels.csv") == sentence


def test_labels_ids_and_masks_become_no_inputs(here: Path) -> None:
    codes = np.arange(N) % 2
    frame = table(split=SPLIT, label=codes, target=codes, sample_id=range(N)).drop(columns="kind")
    frame.to_csv("t.csv", index=False)
    holds(imported("t.csv"), acc=ACC, gyro=GYRO)
    frame[["sample_id", "label", "acc_0", "acc_1"]].to_csv("a.csv", index=False)
    frame[["sample_id", "label", "split", "gyro_0", "gyro_1", "gyro_2"]].to_csv("b.csv", index=False)
    for wanted in ({}, {"modalities": {"a": "a.csv", "b": "b.csv"}}):
        data = imported("a.csv", "b.csv", label="b.csv:label", split_column="b.csv:split", **wanted)
        holds(data, a=ACC, b=GYRO)
        assert "not used: label" in said(data)
    masks = {"acc_mask": np.ones((N, 2)), "onehot": np.eye(2)[codes], "video": GYRO, "target": codes[:, None]}
    np.savez("f.npz", acc=ACC, label=codes, split=SPLIT, **masks)  # type: ignore[arg-type]
    holds(imported("f.npz"), acc=ACC, video=GYRO)


@pytest.mark.parametrize(("first", "second"), [("id", "id"), ("patient", "patient"), ("id", "file")])
def test_tables_that_share_ids_are_joined_by_them(first: str, second: str, here: Path) -> None:
    ids = [f"s{i}" for i in range(N)]
    order = np.random.default_rng(0).permutation(N)
    table()[["acc_0", "acc_1"]].assign(**{first: ids}).iloc[order].to_csv("a.csv", index=False)
    frame = table(split=SPLIT).drop(columns=["acc_0", "acc_1"]).assign(**{second: ids})
    frame.to_csv("b.csv", index=False)
    data = imported("a.csv", "b.csv")
    holds(data, a=ACC, b=GYRO)
    assert f"samples are told apart by {first}" in said(data)
    Path("out.npz").unlink()
    if first == second == "id":
        frame.assign(id=[*ids[1:], "other"]).to_csv("b.csv", index=False)
        assert "a.csv and b.csv have different samples by id (12 against 12, such as s0)" in refused("a.csv", "b.csv")
        frame.assign(id=["s1", *ids[1:]]).to_csv("b.csv", index=False)
        assert "such as s0" in refused("a.csv", "b.csv")


def test_labels_without_ids_beside_tables_that_have_some(here: Path) -> None:
    ids = [f"s{i}" for i in range(N)]
    left, right = (table(id=ids)[["id", *names]] for names in (["acc_0", "acc_1"], ["gyro_0", "gyro_1", "gyro_2"]))
    left.to_csv("a.csv", index=False)
    right.to_csv("b.csv", index=False)
    table(split=SPLIT)[["kind", "split"]].to_csv("labels.csv", index=False)
    data = imported("a.csv", "b.csv", "labels.csv")
    holds(data, a=ACC, b=GYRO)
    assert "labels taken in the order of samples: s0, s1, s2 …" in said(data)
    right[::-1].to_csv("b.csv", index=False)
    Path("out.npz").unlink()
    sentence = "the labels have no names of samples, and a.csv and b.csv have them in different order; add them"
    assert sentence in refused("a.csv", "b.csv", "labels.csv")


def test_a_column_of_ids_that_recurs_names_no_samples(here: Path) -> None:
    videos = [f"v{i // 3}" for i in range(N)]
    frame = table(video=videos, split=SPLIT)
    frame[["video", "acc_0", "acc_1"]].to_csv("a.csv", index=False)
    frame.drop(columns=["acc_0", "acc_1"]).to_csv("b.csv", index=False)
    holds(imported("a.csv", "b.csv", label="kind"), a=ACC, b=GYRO)


def test_ids_that_every_split_counts_anew(here: Path) -> None:
    for split, places in PLACES.items():
        frame = table(id=range(N))[places].assign(id=range(len(KINDS[places])))
        frame[["id", "acc_0", "acc_1"]][::-1].to_csv(f"a_{split}.csv", index=False)
        frame[["id", "gyro_0", "gyro_1", "gyro_2", "kind"]].to_csv(f"b_{split}.csv", index=False)
    files = [f"{name}_{split}.csv" for name in "ab" for split in PLACES]
    data = imported(*files, label="kind")
    left, right = (data.train.modalities[name].values for name in data.features)
    assert np.array_equal(left, ACC[PLACES["train"]].astype(np.float32))
    assert np.array_equal(right, GYRO[PLACES["train"]].astype(np.float32))


def test_files_are_in_the_order_of_their_numbers(here: Path) -> None:
    Path("x").mkdir()
    for i in range(N):
        np.save(f"x/{i}.npy", ACC[i])
    np.save("labels.npy", np.arange(N) % 2)
    np.save("z.npy", GYRO)
    np.savez("split.npz", split=SPLIT)
    data = imported("x", "z.npy", "labels.npy", "split.npz")
    holds(data, x=ACC, z=GYRO)
    assert "labels taken in the order of file names: 0, 1, 2 …" in said(data)
    assert "z taken in the order of file names: 0, 1, 2 …" in said(data)


def test_an_input_that_tells_the_classes_is_refused(here: Path) -> None:
    classes = np.arange(N) % 3
    one_hot = {f"b_{i}": (classes == i) * 1.0 for i in range(3)}
    for column, sentence in (
        ({"b_0": 5.5 - classes, "b_1": GYRO[:, 0]}, "--modality b: b_0 tells the class of every sample; leave it out"),
        (one_hot, "--modality b: b_0, b_1, b_2 tell the class of every sample; leave it out"),
    ):
        made = {"a_0": ACC[:, 0], "a_1": 1, **column, "class": np.array(["x", "y", "z"])[classes]}
        pd.DataFrame(made).to_csv("t.csv", index=False)
        assert refused("t.csv").startswith(sentence)
        assert imported("t.csv", modalities={"a": "a_0", "b": "a_1"}).features == {"a": 1, "b": 1}
        Path("out.npz").unlink()


def test_a_table_with_a_column_per_sample(here: Path) -> None:
    order = np.random.default_rng(0).permutation(N)
    samples = [f"{'ab'[i % 2]}_{i}" for i in range(N)]  # as columns of two modalities would be called
    genes = pd.DataFrame(GYRO.T, columns=samples)
    genes.iloc[:, order].assign(gene=["x", "y", "z"]).to_csv("genes.csv", index=False)
    np.save("right.npy", ACC)
    pd.DataFrame({"patient": samples, "kind": KINDS, "split": SPLIT}).to_csv("labels.csv", index=False)
    for wanted in ({"modalities": {"genes": "genes.csv", "right": "right"}}, {}):
        data = imported("genes.csv", "right.npy", "labels.csv", label="kind", **wanted)
        holds(data, genes=GYRO, right=ACC)
        assert "turned, columns told by patient" in said(data)


def test_comments_before_a_table(here: Path) -> None:
    for comments in ("# of a sensor\n# Columns: t,u,v\n", ""):
        for i in range(N):
            Path(f"s/{KINDS[i]}").mkdir(parents=True, exist_ok=True)
            Path(f"s/{KINDS[i]}/{i}.csv").write_text(f"{comments}0,{i}.5,2\n1,{i}.5,3\n")
        data = imported("s", modalities={"a": "1", "b": "cols:2"})
        assert data.features == {"a": 1, "b": 1}
        assert data.train.modalities["b"].values[:4, 0].tolist() == [2, 3, 2, 3]


def test_lists_in_parquet(here: Path) -> None:
    frame = pd.DataFrame({"vector": list(ACC), "steps": [numbers(1 + i % 2, 3).tolist() for i in range(N)], "y": KINDS})
    frame.assign(split=SPLIT).to_parquet("t.parquet")
    data = imported("t.parquet", modalities={"vector": "vector", "steps": "steps"})
    assert data.features == {"vector": 2, "steps": 3}
    assert data.train.modalities["steps"].lengths.tolist() == [1, 2] * 3
    assert np.array_equal(data.test.modalities["vector"].values, ACC[8:].astype(np.float32))


def matlab_7_3(fill: Callable[[Any], None]) -> str:
    with h5py.File("g.mat", "w", userblock_size=512) as file:
        fill(file)
    with open("g.mat", "r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64")
    return "g.mat"


def test_nothing_is_read_out_of_other_files(here: Path) -> None:
    Path("secret").write_bytes(bytes(64))

    def external(group: Any, name: str) -> Any:
        return group.create_dataset(name, (8,), dtype="u1", external=[("secret", 0, 8)])

    def cell(file: Any) -> None:
        refs = np.empty((1, 1), dtype=h5py.ref_dtype)
        refs[0, 0] = external(file.create_group("#refs#"), "a").ref
        file.create_dataset("X", data=refs, dtype=h5py.ref_dtype)

    def sparse(file: Any, **parts: Any) -> None:
        group = file.create_group("Z")
        group.attrs["MATLAB_sparse"] = np.uint64(3)
        for key, values in {"jc": [0, 1, 2], "data": [1.0, 1.0], "ir": [0, 1], **parts}.items():
            if values is None:
                external(group, key)
            else:
                group[key] = values

    assert "g.mat: /#refs#/a leads to another file; " in refused(matlab_7_3(cell))
    for key in ("data", "ir", "jc"):
        assert f"g.mat: /Z/{key} leads to another file; " in refused(matlab_7_3(partial(sparse, **{key: None})))
    assert "g.mat: /Z is no sparse matrix (" in refused(matlab_7_3(lambda file: sparse(file, ir=[0, 10**6])))
    assert "g.mat: /Z is no sparse matrix (" in refused(matlab_7_3(lambda file: sparse(file, jc=[0, 1, 5])))

    def null(file: Any) -> None:
        file.create_dataset("X", (1, 1), dtype=h5py.ref_dtype)

    assert "X has a cell that refers to nothing" in refused(matlab_7_3(null))


def test_a_group_that_holds_its_parent_ends(here: Path) -> None:
    with h5py.File("f.h5", "w") as file:
        for name, values in {"d/a": ACC, "d/b": GYRO, "label": np.arange(N) % 2}.items():
            file[name] = values
        file["d/up"] = file["/"]
        file["again"] = file["d"]
    assert imported("f.h5").features == {"d_a": 2, "d_b": 3} or imported("f.h5").features == {
        "again_a": 2,
        "again_b": 3,
    }


def test_lists_of_words_and_no_label(here: Path) -> None:
    pd.DataFrame({"a_0": ACC[:, 0], "words": [["a", "b"]] * N}).to_parquet("t.parquet")
    assert refused("t.parquet").startswith("t.parquet: what are the labels?")
    sentence = "--label words: column words holds lists, not one value per sample; name another"
    assert refused("t.parquet", label="words") == sentence


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path("trapped").touch, ()


def test_no_pickle_is_run_and_damage_is_said(here: Path) -> None:
    trap = np.array([_Trap()] * N, dtype=object)
    np.savez("f.npz", x=trap, y=KINDS, z=GYRO)
    np.save("x.npy", trap)
    Path("f.pkl").write_bytes(pickle.dumps(_Trap()))
    torch.save({"x": torch.zeros(2)}, "f.pt")
    objects = "holds Python objects, which are never loaded since that may run code; "
    assert objects in refused("f.npz", modalities={"x": "x", "z": "z"}, label="y")
    assert objects in refused("x.npy")
    assert refused("f.pkl").startswith("f.pkl: a pickle; ")
    assert refused("f.pt").startswith("f.pt: a file of torch.save; ")
    for name, head in (("f.mat", b"MATLAB 5.0 junk"), ("f.h5", b"\x89HDF\r\n\x1a\njunk"), ("f.parquet", b"PAR1junk")):
        Path(name).write_bytes(head)
        assert "damaged" in refused(name)
    assert refused("nowhere.csv") == "nowhere.csv: no such file or folder; check the path"
    Path("empty").mkdir()
    assert "holds no .npy or .csv file per sample (found nothing)" in refused("empty")
    with h5py.File("linked.h5", "w") as file:
        file["x"] = h5py.ExternalLink("/etc/other.h5", "/x")
    assert "linked.h5: /x leads elsewhere; store the data in place" in refused("linked.h5")
    assert not Path("trapped").exists()


def test_what_does_not_fit_into_memory_is_refused_before_it_is_read(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table().to_csv("t.csv", index=False)
    table().to_parquet("t.parquet")
    np.savez("f.npz", a=ACC, b=GYRO, y=KINDS)
    scipy.io.savemat("f.mat", {"a": ACC, "y": np.arange(N) % 2})
    monkeypatch.setattr(fields, "free_memory", lambda: 100)
    for file in ("t.csv", "t.parquet", "f.npz", "f.mat"):
        assert "GB are free; take fewer columns or samples, or a machine with more" in refused(file)


def command(*arguments: str) -> tuple[int, str]:
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    result = CliRunner().invoke(app, ["data", *arguments], env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_the_command(here: Path) -> None:
    table(mag_0=1.0, mag_1=np.arange(N)).to_csv("t.csv", index=False)
    arguments = ("import", "t.csv", "--modality", "acc=acc_*", "--modality", "gyro=cols:2-4", "--output", "mine.npz")
    code, output = command(*arguments)
    assert code == 0, output
    *lines, last = output.splitlines()
    assert lines == [
        "12 samples of t.csv, 2 classes from kind: run: 6, sit: 6",
        "acc: 2 features from acc_0, acc_1; gyro: 3 features from gyro_0, gyro_1, gyro_2",
        "split 8/2/2 (train/valid/test): at random, by class, seed 0",
        "no value is missing",
        "not used: mag_0, mag_1",
    ]
    assert last.endswith("MB; next: python sweeps/table1_figure5.py --dataset mine=mine.npz")
    stored = json.loads(str(np.load("mine.npz")["imported"]))
    assert stored["said"] == lines
    assert stored["files"][0]["name"] == "t.csv"
    assert stored["options"] == {"modalities": {"acc": "acc_*", "gyro": "cols:2-4"}}
    before = Path("mine.npz").read_bytes()
    assert command(*arguments) == (
        2,
        "error: --output mine.npz: is there already; give another place, or --overwrite it\n",
    )
    assert Path("mine.npz").read_bytes() == before
    assert command(*arguments, "--overwrite")[0] == 0
    code, output = command("import", "t.csv", "--output", "three.npz")
    assert output.splitlines()[-1].endswith("--dataset three=three.npz --modalities acc,gyro")
    code, output = command("show", "mine.npz")
    assert code == 0
    assert "imported: 12 samples of t.csv" in output
    assert "run: 4, sit: 4" in output
    for bad, sentence in {
        "acc": "--modality acc: must read NAME=WHAT",
        "a-b=acc_*": "--modality a-b=acc_*: must read NAME=WHAT",
    }.items():
        assert sentence in command("import", "t.csv", "--modality", bad, "--output", "x.npz")[1]
    twice = ("--modality", "a=acc_0", "--modality", "a=acc_1")
    assert "a is given twice" in command("import", "t.csv", *twice, "--output", "x.npz")[1]
    assert "must end in .npz" in command("import", "t.csv", "--output", "x.csv")[1]
    assert not list(Path().glob("x.*"))


def test_the_command_warns_of_what_sweeps_take(here: Path) -> None:
    table(gyro_0=1e6 * GYRO[:, 0], gyro_1=2.0).to_csv("t.csv", index=False)
    code, output = command("import", "t.csv", "--output", "mine.npz")
    assert code == 0, output
    assert "mean 0" not in output
    assert "warning: gyro: 1 of 3 features never change in train and are set to 0: 1" in output


def test_three_modalities_are_chosen_from(here: Path) -> None:
    table(mag_0=1.0, mag_1=np.arange(N), split=SPLIT).to_csv("t.csv", index=False)
    import_files([Path("t.csv")], Path("out.npz"), Wanted())
    holds(read_npz("out", Path("out.npz"), ["gyro", "acc"]), gyro=GYRO, acc=ACC)
    for chosen, sentence in (
        (None, r"found 3 \(acc, gyro, mag\); keep exactly two, or choose them with --modalities acc,gyro"),
        (["acc"], r"--modalities acc: names 1 of out\.npz, and two are taken; choose two of acc, gyro, mag"),
        (["acc", "gyr"], r"--modalities: out\.npz has no modality 'gyr'; did you mean 'gyro'\?"),
    ):
        with pytest.raises(UserError, match=sentence):
            read_npz("out", Path("out.npz"), chosen)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("label_names", np.array(["a"]), "label_names must be one string per class, of labels from 0 to 0"),
        ("label_names", np.array([1, 2]), "label_names must be an array of strings, one per class"),
        ("imported", np.array("no JSON"), "imported is not what s3ray data import writes; drop the key"),
        ("imported", np.array([1]), "imported is not what s3ray data import writes; drop the key"),
    ],
)
def test_what_a_file_tells_of_itself_is_checked(key: str, value: NDArray[Any], sentence: str, here: Path) -> None:
    table(split=SPLIT).to_csv("t.csv", index=False)
    imported("t.csv")
    np.savez("other.npz", **{**np.load("out.npz"), key: value})
    with pytest.raises(UserError, match=sentence):
        read_npz("other", Path("other.npz"))


def test_a_frame(here: Path) -> None:
    data = Dataset.from_frame("mine", table(split=SPLIT))
    holds(data, acc=ACC, gyro=GYRO)
    assert (data.name, data.label_names) == ("mine", ("run", "sit"))
    save_npz(data, here / "mine.npz")
    assert read_npz("mine", here / "mine.npz").fingerprint() == data.fingerprint()
    chosen = Dataset.from_frame(
        "mine", table(split=SPLIT), modalities={"g": ["gyro_0", "gyro_2"], "a": "acc_*"}, label="kind"
    )
    holds(chosen, g=GYRO[:, [0, 2]], a=ACC)
    with pytest.raises(UserError, match=r"^label knd: nothing is called 'knd'"):
        Dataset.from_frame("mine", table(), label="knd")
    frame = table(subject="a", trial=np.arange(N) % 3)
    for wanted, sentence in {
        "seed": ({"seed": -1}, "seed -1: must be a whole number from 0 to 4294967295"),
        "group": ({"group": "subject"}, "group subject: one group (a) is left to cut test from"),
        "sample": ({"sample": "subject", "time": "trial"}, "name all columns that tell samples apart, such as sample "),
        "time": ({"time": "trial"}, "time trial: orders a sample's rows; name those with sample"),
    }.values():
        with pytest.raises(UserError) as error:
            Dataset.from_frame("mine", frame, modalities={"a": "acc_*"}, **wanted)  # type: ignore[arg-type]
        assert sentence in str(error.value)
        assert "--" not in str(error.value)
    with pytest.raises(UserError, match=r"^mine: 2 samples of 2 classes cannot be split: "):
        Dataset.from_frame("mine", table()[:3].assign(kind=["a", "b", "b"]), label="kind", split="20/40/40")


class _Pairs(torch.utils.data.Dataset[Any]):
    """Samples of some places: a sequence of one or two steps, a vector, and a label that is 3 or 7."""

    def __init__(self, places: slice, form: Callable[[Any, Any, Any], Any]) -> None:
        self.places, self.form = range(N)[places], form

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> Any:
        k = self.places[i]
        return self.form(torch.tensor(numbers(1 + k % 2, 2, k)), torch.tensor(GYRO[k]), [3, 7][k % 2])


@pytest.mark.parametrize(
    ("form", "names"),
    [
        (lambda x, z, y: ({"x": x, "z": z}, y), ()),
        (lambda x, z, y: {"x": x, "z": z, "label": torch.tensor(y)}, ()),
        (lambda x, z, y: (x, z, y), ("x", "z")),
    ],
)
def test_torch_datasets(form: Callable[[Any, Any, Any], Any], names: tuple[str, ...]) -> None:
    data = Dataset.from_torch("mine", **{s: _Pairs(p, form) for s, p in PLACES.items()}, modalities=names)
    assert (data.features, data.label_names) == ({"x": 2, "z": 3}, ("3", "7"))
    assert data.train.modalities["x"].lengths.tolist() == [1, 2] * 3
    assert np.array_equal(data.test.modalities["z"].values, GYRO[8:].astype(np.float32))
    assert data.test.labels.tolist() == [0, 1] * 2
    alone = Dataset.from_torch("mine", _Pairs(slice(0, N), form), modalities=names)
    assert [len(split) for split in alone.splits.values()] == [8, 2, 2]
    with pytest.raises(UserError, match=r"^mine: sample 0 of train: is neither"):
        Dataset.from_torch("mine", _Pairs(slice(0, N), lambda x, z, y: (x, z, z, y)))


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ([(2,), (3,)], "mine: x has shape (3,) in sample 1 of train and (2,) in the first; "),
        ([(2, 2), (3, 3)], "mine: x has shape (3, 3) in sample 1 of train and (2, 2) in the first; "),
        ([(2, 2), (2,)], "mine: x has shape (2,) in sample 1 of train and (2, 2) in the first; "),
        ([(2,), None], "mine: sample 1 of train: x is not in every sample; give all samples the same"),
    ],
)
def test_torch_datasets_of_unequal_samples(shapes: list[tuple[int, ...] | None], sentence: str) -> None:
    samples = [
        {"label": i % 2, "z": torch.ones(2), **({} if shape is None else {"x": torch.ones(shape)})}
        for i, shape in enumerate(shapes * 6)
    ]
    with pytest.raises(UserError) as error:
        Dataset.from_torch("mine", samples)  # type: ignore[arg-type]
    assert str(error.value).startswith(sentence)


def test_torch_splits_of_different_steps() -> None:
    splits = {
        name: [({"x": torch.tensor(numbers(steps, 2, 7 * i)), "z": torch.ones(2)}, i % 2) for i in range(6)]
        for name, steps in (("train", 2), ("valid", 2), ("test", 3))
    }
    data = Dataset.from_torch("mine", **splits)  # type: ignore[arg-type]
    assert [split.modalities["x"].lengths.tolist() for split in data.splits.values()] == [[2] * 6, [2] * 6, [3] * 6]
