"""Every format is read as meant, and nothing is run or read that lies elsewhere."""

from __future__ import annotations

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

from s3ray.data.dataset import SPLITS
from s3ray.data.importing import fields
from small_files import ACC, GYRO, KINDS, PLACES, SPLIT, N, holds, imported, numbers, refused, said, save, table

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
    save("f.npz", **{name.replace("/", "_"): values for name, values in made.items()})
    for name in ("f.h5", "f.npz"):
        data = imported(name)
        holds(data, acc=ACC, gyro=GYRO)
        assert data.label_names == ("False", "True")
        assert "kept, by names" in said(data)
        assert list(imported(name, modalities={"g": "gyro:cols:0,2", "a": "acc"}).features.values()) == [2, 2]


def test_variable_length_arrays_of_hdf5_are_sequences_of_one_feature(here: Path) -> None:
    walks = [np.arange(float(1 + i % 3)) + i for i in range(N)]

    def write(sequences: list[NDArray[Any]]) -> None:
        with h5py.File("f.h5", "w") as file:
            ragged = file.create_dataset("walk", (N,), dtype=h5py.vlen_dtype(np.float64))
            table = file.create_dataset("table", (N, 2), dtype=h5py.vlen_dtype(np.float64))
            for i, one in enumerate(sequences):
                ragged[i] = table[i, 0] = table[i, 1] = one
            file["acc"], file["y"] = ACC, KINDS == "sit"

    write(walks)
    data = imported("f.h5", label="y")
    assert dict(data.features) == {"walk": 1, "acc": ACC.shape[1]}
    walk = data.train.modalities["walk"]
    assert {tuple(one[:, 0]) for one in np.split(walk.values, walk.offsets[1:-1])} <= {tuple(one) for one in walks}
    assert "not used: table (objects; save numbers)" in said(data)
    Path("out.npz").unlink()
    asked = {"t": "table", "acc": "acc"}
    assert "table holds objects or structs, not numbers; save it as one" in refused("f.h5", label="y", modalities=asked)
    write([*walks[:-1], np.empty(0)])
    assert sum(imported("f.h5", label="y").lacking["walk"].values()) == 1
    Path("out.npz").unlink()
    write([np.empty(0)] * N)
    assert "none of its 12 samples has a step; leave it out" in refused("f.h5", label="y")


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
        save("f.npz", z=GYRO, split=SPLIT, **given)
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
