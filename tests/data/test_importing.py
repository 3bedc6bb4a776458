"""What is chosen of files, how it is joined, labelled and split; one sentence for whatever cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
from numpy.typing import NDArray
from typer.testing import CliRunner

from s3ray.cli import app
from s3ray.data.importing import Wanted, import_files
from s3ray.data.npz import read_npz
from s3ray.errors import UserError
from small_files import ACC, GYRO, KINDS, PLACES, SPLIT, N, holds, imported, numbers, refused, said, save, table


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
    lone = table(acc_0=ACC[:, 0], split=SPLIT).drop(columns=["acc_1", "gyro_1", "gyro_2"])
    lone.loc[7, "gyro_0"] = np.nan  # the sample's only value of it: it lacks the modality
    lone.to_csv("t.csv", index=False)
    told = said(imported("t.csv", modalities={"acc": "acc_0", "gyro": "gyro_0"}))
    assert "gyro is missing in 0.0% of train, 50.0% of valid, 0.0% of test" in told
    assert "no value is missing" not in told
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
    table(note="x").to_csv("t.csv", index=False)
    assert "2 classes from kind: " in said(imported("t.csv"))  # words that are all alike are no classes
    Path("out.npz").unlink()
    table(other=KINDS).assign(last=1.0).to_csv("t.csv", index=False)
    assert refused("t.csv").endswith("; give --label other")
    table(other=KINDS)[["acc_0", "kind", "other"]].to_csv("t.csv", index=False)
    assert "what are the labels?" in refused("t.csv")  # two columns of words
    assert "give --modality A=cols:0-2 --modality B=…" in refused("t.csv", label="kind")
    np.savez("f.npz", a=ACC, b=GYRO, y=KINDS, c=np.zeros((5, 5)))
    data = imported("f.npz")
    assert list(data.features) == ["a", "b"]
    assert "not used: c" in said(data)
    Path("out.npz").unlink()
    odd = {"rgb": np.zeros((N, 2, 3, 3)), "eeg": ACC + 1j}
    save("f.npz", a=ACC, y=KINDS, **odd)
    left = said(imported("f.npz"))
    assert "not used: rgb (12 × 2 × 3 × 3; save it as samples × steps × features), eeg (complex; save real" in left
    Path("out.npz").unlink()
    save("f.npz", a=ACC, b=GYRO, y=KINDS, c=np.zeros((5, 5)))
    mismatch = refused("f.npz", modalities={"a": "a", "c": "c"})
    assert mismatch.startswith("--modality c: c is 5 × 5, and no axis has the 12 of the labels")


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
    save("f.npz", acc=ACC, label=codes, split=SPLIT, **masks)
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


def test_lists_of_words_and_no_label(here: Path) -> None:
    pd.DataFrame({"a_0": ACC[:, 0], "words": [["a", "b"]] * N}).to_parquet("t.parquet")
    assert refused("t.parquet").startswith("t.parquet: what are the labels?")
    sentence = "--label words: column words holds lists, not one value per sample; name another"
    assert refused("t.parquet", label="words") == sentence


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
    assert last.endswith("MB; next: s3ray sweep table1_figure5 --dataset mine=mine.npz")
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
    assert output.splitlines()[-1].endswith("--dataset three=three.npz")
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
    holds(read_npz("out", Path("out.npz"), ["gyro"]), gyro=GYRO)
    assert list(read_npz("out", Path("out.npz")).features) == ["acc", "gyro", "mag"]
    with pytest.raises(UserError, match=r"--modalities: out\.npz has no modality 'gyr'; did you mean 'gyro'\?"):
        read_npz("out", Path("out.npz"), ["acc", "gyr"])


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
    save("other.npz", **{**np.load("out.npz"), key: value})
    with pytest.raises(UserError, match=sentence):
        read_npz("other", Path("other.npz"))
