"""From paths to fields: what kind of file each is, and what it holds. Nothing that a file says is ever run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from s3ray.data.foreign import HDF5_MAGIC, foreign
from s3ray.data.importing.fields import Field, Values, check_memory
from s3ray.data.importing.hierarchies import read_hdf5, read_mat
from s3ray.data.importing.tables import TEXTS, read_parquet, read_text_table, table_field
from s3ray.data.names import listed, split_named
from s3ray.data.npz import opened_npz
from s3ray.errors import UserError

_SAMPLE_SUFFIXES = (".npy", ".csv", ".tsv", ".txt")
_COPIES = 3  # of a folder's samples: read, joined, converted


@contextmanager
def opened_files(paths: Sequence[Path], notes: list[str]) -> Iterator[list[Field]]:
    """What all files hold; arrays are read when they are asked for.

    Args:
        notes: gets what there is to say of how files were read.

    Raises:
        UserError: one is missing, damaged, or of a kind that is not read.
    """
    with ExitStack() as stack:
        yield [field for path in paths for field in _fields(path, notes, stack)]


def _fields(path: Path, notes: list[str], stack: ExitStack) -> list[Field]:
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check the path")
    if path.is_dir():
        return [_folder(path, notes)]
    if not path.is_file():
        raise UserError(f"{path}: a device or a pipe, not a file; save what it gives to a file and give that")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    suffix = path.suffix.lower()
    name = path.stem
    if not head:
        raise UserError(f"{path}: is empty; give a file with data")
    if head.startswith(b"\x93NUMPY"):
        return [_npy(name, path)]
    if head.startswith(b"PK") and suffix == ".npz":
        return _npz(path, stack)
    if head.startswith((HDF5_MAGIC, b"MATLAB 7.3")):
        return read_hdf5(path, stack)
    if head.startswith(b"MATLAB") or suffix == ".mat":
        return read_mat(path)
    if head.startswith(b"PAR1"):
        return [table_field(name, path, read_parquet(path))]
    kind = foreign(path)
    if kind and kind.what in TEXTS:
        return [table_field(name, path, read_text_table(path, notes))]
    what = kind.what if kind else f"a file of a kind that is not read ({suffix or 'no suffix'})"
    remedy = "" if kind is None else kind.for_npz(path) if kind.load else kind.for_original()
    readable = ".npz, .npy, .mat, .csv, .tsv, .parquet, .h5 or a folder with a file per sample"
    raise UserError(f"{path}: {what}; {remedy or f'give {readable}'}")


def _npy(name: str, path: Path) -> Field:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "allow_pickle" in str(error) or "Python objects" in str(error):
            raise _objects(path, name) from error
        raise UserError(f"{path}: damaged .npy ({error}); write it again with numpy.save") from error
    return Field(name, path, array.shape, lambda: np.asarray(array), array.dtype.kind, nbytes=array.nbytes)


def _objects(path: Path, name: str) -> UserError:
    return UserError(
        f"{path}: {name} holds Python objects, which are never loaded since that may run code; save one array of "
        f"numbers, padded, with the lengths beside it, or a .npy per sample"
    )


def _npz(path: Path, stack: ExitStack) -> list[Field]:
    archive = stack.enter_context(opened_npz(path, "the path"))
    if {"indices", "indptr", "format", "shape", "data"} <= archive.entries.keys():
        matrix = scipy.sparse.load_npz(path)

        def dense() -> Values:
            check_memory(path, 8.0 * np.prod(matrix.shape), "a sparse matrix written out")
            return np.asarray(matrix.toarray())

        return [Field(path.stem, path, matrix.shape, dense, matrix.dtype.kind)]

    def field(key: str) -> Field:
        entry = archive.entries[key]

        def load() -> Values:
            if entry.dtype.hasobject:
                raise _objects(path, key)
            return archive[key]

        kind = "O" if entry.dtype.hasobject else entry.dtype.kind
        return Field(key, path, entry.shape, load, kind, nbytes=int(np.prod(entry.shape)) * entry.dtype.itemsize)

    return [field(key) for key in archive.entries]


def _folder(path: Path, notes: list[str]) -> Field:
    """A file per sample: in the folder itself, or in one folder per class, in or without one per split."""
    found = (f for f in path.rglob("*") if f.suffix.lower() in _SAMPLE_SUFFIXES and not _hidden(f, path))
    files = sorted(found, key=_numbered)
    if not files:
        others = listed(sorted(f.name for f in path.iterdir()), shown=5)
        raise UserError(f"{path}: holds no .npy or .csv file per sample (found {others}); give a folder that does")
    parts = [file.relative_to(path).parts[:-1] for file in files]
    has_splits = all(folders and split_named(folders[0]) for folders in parts)
    classes = [folders[1:] if has_splits else folders for folders in parts]
    depths = {len(folders) for folders in classes}
    if len(depths) > 1 or max(depths) > 1:
        odd = next(f for f, folders in zip(files, classes, strict=True) if len(folders) == max(depths))
        raise UserError(
            f"{path}: {odd.relative_to(path)} lies deeper than others or than a folder per class; give all files at "
            f"one depth: FILE, CLASS/FILE or SPLIT/CLASS/FILE"
        )
    check_memory(path, _COPIES * sum(f.stat().st_size for f in files), "all of its files")
    arrays: list[NDArray[Any]] = []
    columns: tuple[str, ...] = ()
    for file in files:
        array, names = _sample(file, notes if file is files[0] else [])
        if arrays and (array.shape[1] != arrays[0].shape[1] or names != columns):
            raise UserError(
                f"{file}: has {array.shape[1]} columns ({listed(list(names), shown=5)}), {files[0].name} has "
                f"{arrays[0].shape[1]} ({listed(list(columns), shown=5)}); give every sample the "
                f"same, and folders of different modalities one by one"
            )
        arrays.append(array)
        columns = names
    ids = [file.relative_to(path).with_suffix("").as_posix() for file in files]
    shape = (len(arrays), max(len(array) for array in arrays), arrays[0].shape[1])
    return Field(
        path.name,
        path,
        shape,
        lambda: arrays,
        "list",
        columns,
        ids=tuple(ids),
        labels=tuple(folders[0] for folders in classes) if max(depths) else (),
        splits=tuple(str(split_named(folders[0])) for folders in parts) if has_splits else (),
    )


def _numbered(file: Path) -> list[tuple[int, str]]:
    """By which files are sorted: numbers in their names as numbers, 2 before 10."""
    return [(int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", file.as_posix())]


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith((".", "__")) for part in file.relative_to(folder).parts)


def _sample(file: Path, notes: list[str]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """(steps, features) and the features' names, if they have any; a vector is one step."""
    names: tuple[str, ...] = ()
    if file.suffix.lower() == ".npy":
        loaded = _npy(file.name, file).load()
        assert isinstance(loaded, np.ndarray)
        array: NDArray[Any] = loaded[None] if loaded.ndim == 1 else loaded
    else:
        frame = read_text_table(file, notes)
        words = [name for name in frame if frame[name].dtype.kind not in "fiub"]
        if words:
            raise UserError(f"{file}: column {words[0]} holds words; give a sample's numbers alone")
        array, names = frame.to_numpy(), tuple(map(str, frame.columns))
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiub":
        raise UserError(f"{file}: is {array.dtype} of shape {array.shape}, not numbers (steps, features); convert it")
    return array, names
