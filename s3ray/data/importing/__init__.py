"""Your own data out of files, frames and torch datasets: `s3ray data import`, `Dataset.from_frame`, `from_torch`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from s3ray.data.dataset import Dataset
from s3ray.data.importing.build import build
from s3ray.data.importing.choose import Wanted, plain
from s3ray.data.importing.fields import Field
from s3ray.data.importing.files import opened_files
from s3ray.data.importing.tables import table_field
from s3ray.data.npz import save_npz
from s3ray.errors import UserError

__all__ = ["Wanted", "from_frame", "from_torch", "import_files"]


def import_files(paths: Sequence[Path], output: Path, wanted: Wanted, *, overwrite: bool = False) -> Dataset:
    """Read files, and write what they hold to an `.npz` that sweeps take.

    Args:
        output: appears complete or not at all.
        overwrite: whatever is there gives way.

    Returns:
        The dataset; what was done is in its facts (`imported`), what is odd in its warnings.

    Raises:
        UserError: of whatever cannot be read or written; nothing is changed.
    """
    if output.suffix != ".npz":
        raise UserError(f"--output {output}: must end in .npz; write {output.with_suffix('.npz')}")
    if output.exists() and not overwrite:
        raise UserError(f"--output {output}: is there already; give another place, or --overwrite it")
    if any(path.resolve() == output.resolve() for path in paths):
        raise UserError(f"--output {output}: is what is read; give another place")
    notes: list[str] = []
    place = str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
    with opened_files(list(dict.fromkeys(paths)), notes) as fields:
        data = build(plain(output.stem), place, fields, wanted, notes)
    given = {f.name: getattr(wanted, f.name) for f in dataclasses.fields(wanted) if f.name != "prefix"}
    options = {name: value for name, value in given.items() if value != getattr(Wanted(), name)}
    imported = {"files": [_of_file(path) for path in paths], "options": options, **data.facts["imported"]}
    data = dataclasses.replace(data, facts={**data.facts, "imported": imported})
    save_npz(data, output, replace=overwrite)
    return data


def from_frame(name: str, frame: pd.DataFrame, wanted: Wanted) -> Dataset:
    """The dataset of a table: `Dataset.from_frame`."""
    return build(name, name, [table_field("frame", Path(name), frame.rename(columns=str))], wanted)


def from_torch(name: str, splits: Mapping[str, Any], modalities: Sequence[str], wanted: Wanted) -> Dataset:
    """The dataset of torch's: `Dataset.from_torch`."""
    found: dict[str, list[dict[str, NDArray[Any]]]] = {}  # by split, a sample's values by name
    for split, given in splits.items():
        found[split] = []
        for i in range(len(given)):
            place = f"{name}: sample {i} of {split}"
            item = {key: value for key, value in _of_item(place, given[i], modalities).items() if value is not None}
            if "label" not in item:
                raise UserError(f"{place}: has no label; give all samples one")
            found[split].append({key: _as_array(f"{place}, {key}", value) for key, value in item.items()})
        if not len(given):
            raise UserError(f"{name}: {split} has no samples; give it some")
    columns = _by_name(found)
    # Alone, the samples are still to be split.
    fields = [field for key, of in columns.items() for field in _of_column(name, key, of)]
    named = {key: key for key in columns if key != "label"}
    return build(name, name, fields, dataclasses.replace(wanted, modalities=named, label="label"))


def _by_name(found: Mapping[str, list[dict[str, NDArray[Any]]]]) -> dict[str, dict[str, list[NDArray[Any]]]]:
    """By name, then split, a value per sample: of one without steps where that lacks it."""
    firsts: dict[str, NDArray[Any]] = {}
    for samples in found.values():
        for item in samples:
            firsts |= {key: one for key, one in item.items() if key not in firsts or not firsts[key].size}

    def value(key: str, item: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        one, first = item.get(key), firsts[key]
        width = first.shape[-1] if first.ndim else 1
        return one if one is not None and one.size else np.zeros((0, width), first.dtype)

    return {key: {split: [value(key, item) for item in of] for split, of in found.items()} for key in firsts}


def _of_item(place: str, item: Any, modalities: Sequence[str]) -> dict[str, Any]:
    """A sample's modalities by name, and its label."""
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, tuple | list) and len(item) == 2 and isinstance(item[0], Mapping):
        return {**item[0], "label": item[1]}
    if isinstance(item, tuple | list) and len(item) == len(modalities) + 1:
        return dict(zip([*modalities, "label"], item, strict=True))
    raise UserError(
        f"{place}: is neither ({{name: values}}, label) nor {len(modalities) or 'values per modality'} values and a "
        f"label; name the values in their order with modalities=(…)"
    )


def _as_array(place: str, value: Any) -> NDArray[Any]:
    array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
    if array.ndim > 2:
        raise UserError(f"{place}: has shape {array.shape}; give (features,) or (steps, features)")
    return array


def _of_column(name: str, key: str, splits: Mapping[str, list[NDArray[Any]]]) -> Iterator[Field]:
    """A field per split: an array, or where samples have different numbers of steps a list of them."""
    every = [one for values in splits.values() for one in values]
    first = next((one for one in every if one.size), every[0])
    if first.ndim < 2 and not all(map(np.size, every)):  # one step, which some samples do not have
        own = first.shape
        splits = {
            split: [one.reshape(1, -1) if one.shape == own else one for one in values]
            for split, values in splits.items()
        }
        first = first.reshape(1, -1)
    same = True
    for split, values in splits.items():
        for i, one in enumerate(values):
            if one.ndim != first.ndim or one.shape[1:] != first.shape[1:] or (one.ndim == 1 and len(one) != len(first)):
                raise UserError(
                    f"{name}: {key} has shape {one.shape} in sample {i} of {split} and {first.shape} in the first; "
                    f"give (features,) or (steps, features) with the same features in all"
                )
            same = same and one.shape == first.shape
    for split, values in splits.items():
        called = f"{split}/{key}" if len(splits) > 1 else key
        yield _stacked(called, Path(name), values) if same else _listed(called, Path(name), values)


def _stacked(name: str, file: Path, values: list[NDArray[Any]]) -> Field:
    array = np.stack(values)
    return Field(name, file, array.shape, lambda: array, array.dtype.kind)


def _listed(name: str, file: Path, values: list[NDArray[Any]]) -> Field:
    shape = (len(values), max(len(array) for array in values), values[0].shape[-1])
    return Field(name, file, shape, lambda: values, "list")


def _of_file(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        return {"name": path.name}
    with path.open("rb") as file:
        return {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
