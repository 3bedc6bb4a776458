"""MATLAB's files and HDF5: arrays, cells and structs by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse

from s3ray.data.importing.fields import Field, Values, check_memory
from s3ray.errors import UserError

_CELLS_SHOWN = 64  # a cell array of more is one array per sample, not one per modality


def read_mat(path: Path) -> list[Field]:
    """The variables of a `.mat` up to version 7.2; cells as `X{1}`, fields of structs as `S.X`.

    Raises:
        UserError: damaged, or larger than memory.
    """
    from scipy.io import loadmat, whosmat

    try:
        # Of cells the size is not told before they are read.
        needed = sum(8.0 * np.prod(shape) for _, shape, kind in whosmat(path) if kind not in ("cell", "struct"))
        check_memory(path, max(needed, 4 * path.stat().st_size), "what it holds")
        content = loadmat(path, chars_as_strings=True)
    except UserError:
        raise
    except Exception as error:  # damaged files end in any of scipy's, zlib's and struct's own
        raise UserError(f"{path}: damaged MATLAB file ({error}); save it again") from error
    fields: list[Field] = []
    for name, value in content.items():
        if not name.startswith("__"):
            fields += _of_value(name, path, value)
    return fields


def _of_value(name: str, path: Path, value: Any, depth: int = 0) -> Iterator[Field]:
    """The fields that a value is or holds."""
    if scipy.sparse.issparse(value):
        yield _sparse(name, path, value)
    elif isinstance(value, np.ndarray) and value.dtype.names:
        if value.size == 1 and depth < 4:
            for key in value.dtype.names:
                yield from _of_value(f"{name}.{key}", path, value.reshape(-1)[0][key], depth + 1)
        else:
            yield Field(name, path, value.shape, lambda: value, "O")
    elif isinstance(value, np.ndarray) and value.dtype == object:
        yield from _cells(name, path, value, depth)
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "US":
            value = np.char.strip(value)
        yield Field(name, path, value.shape, lambda: value, value.dtype.kind, nbytes=value.nbytes)


def _sparse(name: str, path: Path, value: Any) -> Field:
    def dense() -> Values:
        check_memory(path, 8.0 * np.prod(value.shape), f"{name}, a sparse matrix written out,")
        return np.asarray(value.toarray())

    return Field(name, path, value.shape, dense, value.dtype.kind, nbytes=int(np.prod(value.shape)) * 8)


def _cells(name: str, path: Path, value: Any, depth: int) -> Iterator[Field]:
    """Of a cell array: words as one field; matrices as one each, and as one per sample where they fit together."""
    cells: list[Any] = list(value.reshape(-1, order="F"))
    words = [str(cell.reshape(-1)[0]) if cell.size else "" for cell in cells if _is_word(cell)]
    if cells and len(words) == len(cells):
        array = np.array([word.strip() for word in words])
        yield Field(name, path, array.shape, lambda: array, "U")
        return
    if len(cells) <= _CELLS_SHOWN and depth < 4:
        for i, cell in enumerate(cells, start=1):
            yield from _of_value(f"{name}{{{i}}}", path, cell, depth + 1)
    if len(cells) > 1 and (of_samples := _per_sample([_dense(cell) for cell in cells])):
        shape = (len(cells), max(len(one) for one in of_samples), of_samples[0].shape[1])
        yield Field(name, path, shape, lambda: of_samples, "list")
    elif len(cells) > _CELLS_SHOWN or not cells:
        yield Field(name, path, value.shape, lambda: value, "O")


def _dense(cell: Any) -> Any:
    return cell if isinstance(cell, np.ndarray) else cell.toarray()


def _is_word(cell: Any) -> bool:
    return isinstance(cell, np.ndarray) and cell.dtype.kind in "US" and cell.size <= 1


def _per_sample(cells: list[Any]) -> list[np.ndarray[Any, Any]] | None:
    """A matrix (steps, features) per sample; of matrices of one height and many widths, steps are the columns."""
    if not all(isinstance(cell, np.ndarray) and cell.ndim == 2 and cell.dtype.kind in "fiub" for cell in cells):
        return None
    if len({cell.shape[1] for cell in cells}) == 1:
        return list(cells)
    if len({cell.shape[0] for cell in cells}) == 1:
        return [cell.T for cell in cells]
    return None


def read_hdf5(path: Path, stack: ExitStack) -> list[Field]:
    """The datasets of an HDF5 file by their paths; of MATLAB's own (version 7.3) as `read_mat` names them.

    Args:
        stack: closes the file.

    Raises:
        UserError: h5py is missing, or the file is damaged.
    """
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path}: an HDF5 file, which needs h5py to be read; pip install 's3ray[hdf5]'") from None
    try:
        file = stack.enter_context(h5py.File(path, "r"))
    except OSError as error:
        raise UserError(f"{path}: damaged HDF5 ({error}); write it again") from error
    with path.open("rb") as raw:
        is_matlab = raw.read(10) == b"MATLAB 7.3"
    fields: list[Field] = []
    visited = {_address(file)}
    for name in file:
        if not name.startswith("#"):  # MATLAB keeps its own there
            fields += _of_hdf5(path, file, name, name, is_matlab, visited)
    return fields


def _address(group: Any) -> int:
    import h5py

    return int(h5py.h5o.get_info(group.id).addr)


def _linked(path: Path, group: Any, key: str) -> Any:
    """What a group holds under a name, in this file."""
    import h5py

    if not isinstance(group.get(key, getlink=True), h5py.HardLink):
        raise UserError(f"{path}: {group.name.rstrip('/')}/{key} leads elsewhere; store the data in place")
    return _in_place(path, group[key])


def _in_place(path: Path, item: Any) -> Any:
    """The group or dataset, if its values are in this file: elsewhere they could be any file's that can be read."""
    import h5py

    if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
        raise UserError(f"{path}: {item.name} leads to another file; store the data in this one")
    return item


def _of_hdf5(path: Path, group: Any, key: str, name: str, is_matlab: bool, visited: set[int]) -> Iterator[Field]:
    """The fields of a group's entry; a group with two names, which may be its own parent's, has its first."""
    import h5py

    item = _linked(path, group, key)
    if isinstance(item, h5py.Group):
        if "MATLAB_sparse" in item.attrs:
            yield _sparse(name, path, _matlab_sparse(path, item))
        elif _address(item) not in visited:
            visited.add(_address(item))
            for inner in item:
                yield from _of_hdf5(path, item, inner, f"{name}{'.' if is_matlab else '/'}{inner}", is_matlab, visited)
        return
    if not isinstance(item, h5py.Dataset):
        return  # a type that has a name
    if is_matlab:
        yield from _of_matlab(path, group.file, item, name)
        return
    if h5py.check_string_dtype(item.dtype):
        yield Field(name, path, item.shape, lambda: np.asarray(item.asstr()[()], dtype=str), "U")
        return
    each = h5py.check_vlen_dtype(item.dtype)
    if each is not None and each.kind in "fiub" and len(item.shape) == 1 and item.size:
        yield _of_lengths(name, path, item)
        return
    kind = "O" if item.dtype.hasobject or item.dtype.names else item.dtype.kind
    yield Field(name, path, item.shape, lambda: np.asarray(item[()]), kind, nbytes=item.nbytes)


def _of_lengths(name: str, path: Path, item: Any) -> Field:
    """A variable-length array: per sample as many numbers as it has, read as steps of one feature."""
    check_memory(path, 2.0 * path.stat().st_size, f"{name}, arrays of different lengths,")  # its size is not told
    values = [np.asarray(one).reshape(-1, 1) for one in item[()]]
    return Field(name, path, (len(values), max(map(len, values)), 1), lambda: values, "list")


def _of_matlab(path: Path, file: Any, item: Any, name: str) -> Iterator[Field]:
    """MATLAB's arrays lie transposed; text is numbers, and cells refer to what lies elsewhere in the file."""
    import h5py

    if item.attrs.get("MATLAB_empty", 0):
        return
    if h5py.check_ref_dtype(item.dtype):
        cells = np.empty(item.shape[::-1], dtype=object)
        for index in np.ndindex(*item.shape):
            if not item[index]:
                raise UserError(f"{path}: {name} has a cell that refers to nothing; save it again")
            cells[index[::-1]] = _matlab_value(path, _in_place(path, file[item[index]]))
        yield from _cells(name, path, cells, 1)
        return
    if _matlab_class(item) == "char":
        yield from _of_value(name, path, _matlab_value(path, item))
        return
    shape = item.shape[::-1]
    kind = "O" if item.dtype.hasobject else item.dtype.kind
    yield Field(name, path, shape, lambda: np.asarray(item[()]).T, kind, nbytes=item.nbytes)


def _matlab_class(item: Any) -> str:
    value = item.attrs.get("MATLAB_class", b"")
    return value.decode() if isinstance(value, bytes) else str(value)


def _matlab_value(path: Path, item: Any) -> Any:
    import h5py

    if isinstance(item, h5py.Group):
        return _matlab_sparse(path, item) if "MATLAB_sparse" in item.attrs else np.empty(0, dtype=object)
    if _matlab_class(item) == "char":
        codes = np.asarray(item[()]).T
        rows = ["".join(map(chr, row)) for row in np.atleast_2d(codes)] if not item.attrs.get("MATLAB_empty", 0) else []
        return np.array(rows)
    return np.asarray(item[()]).T


def _matlab_sparse(path: Path, group: Any) -> Any:
    try:
        rows, columns = int(group.attrs["MATLAB_sparse"]), len(_linked(path, group, "jc")) - 1
        if "data" not in group:  # of zeros alone
            return scipy.sparse.csc_matrix((rows, columns))
        data, ir, jc = (_linked(path, group, key)[()] for key in ("data", "ir", "jc"))
        matrix = scipy.sparse.csc_matrix((data, ir, jc), shape=(rows, columns))
        matrix.check_format(full_check=True)  # else indices could lie outside
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: {group.name} is no sparse matrix ({error}); save it again") from error
    return matrix
