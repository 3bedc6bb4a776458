"""The affect datasets of MultiBench: what their authors' files hold, and the checks that they do.

A file holds `{train, valid, test}` → `{vision, audio, text, labels, id}` with arrays (n, steps, features) that are
padded with zero rows on the left. `prepare.py` converts them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from s3ray.config import UserError, nearest
from s3ray.data.dataset import SPLITS, DataKind
from s3ray.data.pickled import read_pickle, said

MODALITIES = ("vision", "audio", "text")
# Ids of files made by `s3ray data simulate` start with this; what is prepared from them is named simulated.
SIMULATED = "simulated"

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

# The class of a sentiment of exactly 0.
Neutral = Literal["positive", "negative"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiBenchFile:
    """What is known beforehand of a published file."""

    names: tuple[str, ...]  # under which it is found, the usual one first
    widths: Mapping[str, int]  # per modality
    steps: int
    samples: Mapping[str, int]  # per split
    sentiment: bool  # labels are reals in [-3, 3]; otherwise 0/1 or ±1

    @property
    def layout(self) -> tuple[dict[str, int], int]:
        return dict(self.widths), self.steps


def _file(
    names: str, vision: int, audio: int, steps: int, train: int, valid: int, test: int, *, sentiment: bool
) -> MultiBenchFile:
    return MultiBenchFile(
        names=tuple(names.split()),
        widths={"vision": vision, "audio": audio, "text": 300},
        steps=steps,
        samples={"train": train, "valid": valid, "test": test},
        sentiment=sentiment,
    )


FILES: Mapping[str, MultiBenchFile] = {
    "mosei": _file("mosei_senti_data.pkl mosei_raw.pkl mosei.hdf5", 35, 74, 50, 16265, 1869, 4643, sentiment=True),
    "mosi": _file("mosi_data.pkl mosi_raw.pkl mosi.hdf5", 20, 5, 50, 1284, 229, 686, sentiment=True),
    "ur_funny": _file("humor.pkl humor.hdf5", 371, 81, 20, 8074, 1034, 1058, sentiment=False),
    "mustard": _file("sarcasm.pkl sarcasm.hdf5", 371, 81, 50, 414, 138, 138, sentiment=False),
}


def chosen_datasets(names: list[str]) -> list[str]:
    """`names`, or all; UserError for one that is no dataset of MultiBench."""
    for name in names:
        if name not in FILES:
            raise UserError(f"--datasets: unknown dataset {name!r}; {nearest(name, FILES)}")
    return names or list(FILES)


def find_file(name: str, root: Path) -> Path | None:
    """The file of dataset `name` in `root`, by the names it is known under."""
    paths = [root / file for file in FILES[name].names]
    return next((path for path in paths if os.path.lexists(path)), None)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The nested content of a pickle or HDF5 file; large arrays are read when they are sliced."""
    with path.open("rb") as file:
        is_hdf5 = file.read(len(_HDF5_MAGIC)) == _HDF5_MAGIC
    if not is_hdf5:
        yield read_pickle(path)
        return
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path}: an HDF5 file, which needs h5py; pip install h5py") from None
    try:
        hdf5 = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: damaged HDF5 ({error}); download it again") from error
    with hdf5:
        yield _hdf5_content(path, hdf5)


def _hdf5_content(path: Path, file: Any) -> dict[str, dict[str, Any]]:
    import h5py

    def inside(group: Any, name: str) -> Any:
        link = group.get(name, getlink=True)
        item = group[name] if isinstance(link, h5py.HardLink) else None
        if item is None or (isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)):
            raise UserError(f"{path}: {group.name}/{name} leads to another file; store the data in this one")
        return item

    groups = {name: inside(file, name) for name in file}
    return {
        name: {key: inside(group, key) for key in group}
        for name, group in groups.items()
        if isinstance(group, h5py.Group)
    }


def checked_splits(name: str, path: Path, content: Any) -> dict[str, dict[str, Any]]:
    """The splits' arrays, if they have the structure of the published files."""
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not splits; expected a dict of train, valid, test")
    splits: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        if split not in content:
            raise UserError(f"{path}: split {split} is missing; {_found(content)}; get the complete file")
        arrays = content[split]
        if not isinstance(arrays, dict):
            raise UserError(
                f"{path}: {split} is a {type(arrays).__name__}, not a dict of arrays; get the original file"
            )
        for key in (*MODALITIES, "labels"):
            if key not in arrays:
                raise UserError(f"{path}: {split} has no key {key}; {_found(arrays)}; get the complete file")
        splits[split] = arrays
        _check_shapes(path, split, arrays)
    _check_layout(name, path, splits)
    return splits


def _found(mapping: Mapping[Any, Any]) -> str:
    keys = [said(key)[:30] for key in list(mapping)[:8]]
    return f"found {', '.join(keys) or 'nothing'}"


def _check_shapes(path: Path, split: str, arrays: Mapping[str, Any]) -> None:
    for key in MODALITIES:
        array = arrays[key]
        numbers = hasattr(array, "dtype") and array.dtype.kind in "fiu"
        if not numbers or len(array.shape or ()) != 3 or 0 in array.shape[1:]:
            raise UserError(
                f"{path}: {split}/{key} must be numbers of shape (n, steps, features), not {_what(array)}; "
                f"get the original file"
            )
    samples, steps = arrays["text"].shape[:2]
    if not samples:
        raise UserError(f"{path}: split {split} is empty; get the complete file")
    for key in MODALITIES:
        if arrays[key].shape[:2] != (samples, steps):
            raise UserError(
                f"{path}: {split}/{key} has {arrays[key].shape[0]} samples of {arrays[key].shape[1]} steps, text has "
                f"{samples} of {steps}; use the file whose modalities are aligned to the words"
            )


def _what(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if hasattr(value, "dtype") else f"a {type(value).__name__}"


def _check_layout(name: str, path: Path, splits: Mapping[str, Mapping[str, Any]]) -> None:
    """All splits have one layout, and it is not another dataset's."""
    layouts = {
        split: ({key: int(arrays[key].shape[2]) for key in MODALITIES}, int(arrays["text"].shape[1]))
        for split, arrays in splits.items()
    }
    widths, steps = layouts["train"]
    for split, layout in layouts.items():
        if layout != layouts["train"]:
            raise UserError(
                f"{path}: {split} has features {_widths(layout[0])} in {layout[1]} steps, train has {_widths(widths)} "
                f"in {steps}; get the original file"
            )
    sizes = {split: len(arrays["text"]) for split, arrays in splits.items()}
    # A variant of the right dataset may have another one's widths; it still has its own sizes.
    if (widths, steps) != FILES[name].layout and sizes != FILES[name].samples:
        for other, known in FILES.items():
            if (widths, steps) == known.layout:
                raise UserError(
                    f"{path}: has the layout of {other} ({_widths(widths)} features in {steps} steps), not of {name}; "
                    f"it belongs under the name {known.names[0]}"
                )


def _widths(widths: Mapping[str, int]) -> str:
    return "/".join(str(widths[key]) for key in MODALITIES)


def label_rule(name: str, neutral: Neutral) -> str:
    if not FILES[name].sentiment:
        return "label 1 is positive, 0 or -1 negative"
    return f"label {'>=' if neutral == 'positive' else '>'} 0 is positive"


def classes(name: str, path: Path, split: str, labels: Any, neutral: Neutral) -> NDArray[np.int64]:
    """(n,) classes 0 and 1, from labels of shape (n, 1, 1), (n, 1) or (n,)."""
    where = f"{path}: {split}/labels"
    if not hasattr(labels, "dtype") or labels.dtype.kind not in "fiu" or not labels.shape:
        raise UserError(f"{where} must be an array of numbers, not {_what(labels)}; get the original file")
    values = np.asarray(labels)
    if values.size != len(values):
        raise UserError(f"{where} has shape {values.shape}, more than one label per sample; use the sentiment file")
    values = values.reshape(-1)
    if not np.isfinite(values).all():
        raise UserError(
            f"{where} holds {np.count_nonzero(~np.isfinite(values))} NaN or infinite; get the original file"
        )
    if FILES[name].sentiment:
        if np.abs(values).max(initial=0) > 3:
            largest = values[np.abs(values).argmax()]
            raise UserError(f"{where} holds {largest:g}, outside [-3, 3]; use the sentiment file")
        return (values >= 0 if neutral == "positive" else values > 0).astype(np.int64)
    found = set(np.unique(values).tolist())
    if not (found <= {0, 1} or found <= {-1, 1}):
        raise UserError(f"{where} holds {sorted(found)[:5]}, not 0 and 1 or -1 and 1; is it {name}'s file?")
    return (values > 0).astype(np.int64)


def check_ids(path: Path, splits: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], DataKind]:
    """Warnings about the ids, and whether they say that the data are simulated.

    Raises:
        UserError: labels or ids of another number than the samples.
    """
    warnings: list[str] = []
    ids: dict[str, list[tuple[str, ...]]] = {}
    for split, arrays in splits.items():
        samples = len(arrays["text"])
        for key in ("labels", "id"):
            if key in arrays and not _is_column(arrays[key]):
                raise UserError(f"{path}: {split}/{key} is {_what(arrays[key])}, not an array; get the original file")
            if key in arrays and len(arrays[key]) != samples:
                raise UserError(
                    f"{path}: {split}/{key} has {len(arrays[key])} entries, text has {samples} samples; "
                    f"get the original file"
                )
        if "id" not in arrays:
            warnings.append(f"{split} has no ids: samples in two splits cannot be seen")
            continue
        ids[split] = _id_rows(path, split, arrays["id"])
        backward = _backward(ids[split])
        if backward:
            warnings.append(
                f"{split}/id goes backward at {backward} of {samples} samples: check that ids, features and labels "
                f"were not shuffled apart"
            )
    seen: Counter[tuple[str, ...]] = Counter()
    for split, rows in ids.items():
        again = sum(count > 1 for count in Counter(rows).values())
        if again:
            warnings.append(f"{split}/id holds {again} ids more than once: samples may be repeated")
        for earlier in SPLITS[: SPLITS.index(split)]:
            shared = len(set(rows) & set(ids.get(earlier, [])))
            if shared:
                warnings.append(f"{shared} ids are in {earlier} and in {split}: samples leak between the splits")
        seen.update(rows)
    simulated = bool(seen) and all(row[0].startswith(SIMULATED) for row in seen)
    return warnings, "simulated" if simulated else "multibench"


def _is_column(value: Any) -> bool:
    return bool(value.shape) if hasattr(value, "dtype") else isinstance(value, list | tuple)


def _id_rows(path: Path, split: str, ids: Any) -> list[tuple[str, ...]]:
    """One tuple of strings per sample, from ids or rows such as (video, start, end)."""
    rows = []
    for entry in ids[:].tolist() if hasattr(ids, "dtype") else ids:
        parts = list(entry) if isinstance(entry, list | tuple) else [entry]
        if not parts or not all(isinstance(part, str | bytes | int | float) for part in parts):
            raise UserError(f"{path}: {split}/id must hold names, numbers or rows of them; get the original file")
        if any(isinstance(part, int) and abs(part) >= 1 << 63 for part in parts):
            raise UserError(f"{path}: {split}/id holds a number of more than 64 bits; get the original file")
        rows.append(tuple(part.decode("latin1") if isinstance(part, bytes) else str(part) for part in parts))
    return rows


def _backward(rows: list[tuple[str, ...]]) -> int:
    """How many samples come before their predecessor: numbers that fall, or segments of a video (video, start,
    end) that start earlier or end before they start."""

    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return float("nan")  # compares false with everything: names have no order

    count = 0
    previous: tuple[str, ...] = ()
    for row in rows:
        if len(row) == 3:
            count += number(row[2]) < number(row[1]) or (
                row[:1] == previous[:1] and number(row[1]) < number(previous[1])
            )
        elif len(row) == 1 and previous:
            count += number(row[0]) < number(previous[0])
        previous = row
    return count
