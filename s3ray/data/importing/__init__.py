"""Your own data out of files, frames and torch datasets: `s3ray data import`, `Dataset.from_frame`, `from_torch`."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
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
    options = {name: value for name, value in dataclasses.asdict(wanted).items() if value and name != "prefix"}
    imported = {"files": [_of_file(path) for path in paths], "options": options, **data.facts["imported"]}
    data = dataclasses.replace(data, facts={**data.facts, "imported": imported})
    save_npz(data, output, replace=overwrite)
    return data


def from_frame(name: str, frame: pd.DataFrame, wanted: Wanted) -> Dataset:
    """The dataset of a table: `Dataset.from_frame`."""
    return build(name, name, [table_field("frame", Path(name), frame.rename(columns=str))], wanted)


def from_torch(name: str, splits: Mapping[str, Any], modalities: Sequence[str], wanted: Wanted) -> Dataset:
    """The dataset of torch's: `Dataset.from_torch`."""
    fields = []
    for split, given in splits.items():
        columns: dict[str, list[NDArray[Any]]] = {}
        for i in range(len(given)):
            place = f"{name}: sample {i} of {split}"
            for key, value in _of_item(place, given[i], modalities).items():
                columns.setdefault(key, []).append(_as_array(f"{place}, {key}", value))
        if not columns:
            raise UserError(f"{name}: {split} has no samples; give it some")
        # Alone, the samples are still to be split.
        fields += [
            _of_column(f"{split}/{key}" if len(splits) > 1 else key, Path(name), values)
            for key, values in columns.items()
        ]
    found = [field.name.rsplit("/", 1)[-1] for field in fields]
    named = {key: key for key in dict.fromkeys(found) if key != "label"}
    return build(name, name, fields, dataclasses.replace(wanted, modalities=named, label="label"))


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


def _of_column(name: str, file: Path, values: list[NDArray[Any]]) -> Field:
    if len({array.shape for array in values}) == 1:
        array = np.stack(values)
        return Field(name, file, array.shape, lambda: array, array.dtype.kind)
    longest = max(len(array) for array in values)
    return Field(name, file, (len(values), longest, values[0].shape[-1]), lambda: values, "list")


def _of_file(path: Path) -> Mapping[str, Any]:
    if path.is_dir():
        return {"name": path.name}
    with path.open("rb") as file:
        return {"name": path.name, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
