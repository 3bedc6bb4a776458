"""What files hold that may become a modality, labels or groups: arrays, tables, one file per sample."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from s3ray.data.dataset import SPLITS
from s3ray.data.memory import free_memory
from s3ray.data.names import split_named
from s3ray.errors import UserError

Values = NDArray[Any] | list[NDArray[Any]] | pd.DataFrame


@dataclass(frozen=True, slots=True)
class Field:
    """A named part of a file.

    Attributes:
        shape: of an array; (rows, columns) of a table; (samples, longest, features) of what has a file or cell per
            sample.
        load: the values: an array, a table, or an array (steps, features) per sample.
        columns: names of the last axis, where it has names.
        kind: numpy's kind of the values (`f`, `i`, `U`, …), or `table`, or `list` for an array per sample.
        ids: a name per sample, where samples have names.
        labels: a class per sample, where the folder's structure says it.
        splits: a split per sample, where the folder's structure says it.
        nbytes: memory that the values take.
    """

    name: str
    file: Path
    shape: tuple[int, ...]
    load: Callable[[], Values]
    kind: str
    columns: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    nbytes: int = 0

    def __str__(self) -> str:
        if self.kind == "table":
            return f"{self.name} ({self.shape[0]} rows)"
        what = {"U": "words ", "O": "objects ", "b": "yes/no ", "list": "files, cells or sequences "}.get(self.kind, "")
        return f"{self.name} ({what}{' × '.join(map(str, self.shape))})"


def named_split(name: str) -> tuple[str, str] | None:
    """The split that a name begins or ends with, and the rest, as of `X_train`, `train/X`, `val` and `L_te`."""
    if split := split_named(name):
        return split, ""
    for pattern, of_split, rest in ((r"([A-Za-z]+)[ _/.:-]+(.+)", 1, 2), (r"(.+?)[ _/.:-]+([A-Za-z]+)", 2, 1)):
        if (found := re.fullmatch(pattern, name)) and (split := split_named(found[of_split])):
            return split, found[rest]
    return None


@dataclass(frozen=True, slots=True)
class Item:
    """Fields of one name: one, or one per split in the order of the splits."""

    name: str
    parts: tuple[Field, ...]

    @property
    def first(self) -> Field:
        return self.parts[0]

    def __str__(self) -> str:
        return str(self.first) if len(self.parts) == 1 else f"{self.first} in {len(self.parts)} splits"


def joined(fields: Sequence[Field]) -> tuple[list[Item], list[str]]:
    """Fields whose names differ by the split alone are one; only if train and another split are among the names.

    Returns:
        What there is by name, and the splits that the names tell, in order.
    """
    told: dict[int, tuple[str, str]] = {}
    for i, one in enumerate(fields):
        of_name, of_file = named_split(one.name), named_split(_stem(one.file))
        if of_name:
            unnamed = {"table": "table", "list": "samples"}.get(one.kind, "array")
            told[i] = of_name[0], of_name[1] or unnamed
        elif of_file:
            told[i] = of_file[0], one.name
    splits = [split for split in SPLITS if split in {split for split, _ in told.values()}]
    if "train" not in splits or len(splits) < 2:
        return [Item(one.name, (one,)) for one in fields], []
    named: dict[str, dict[str, Field]] = {}
    alone = []
    for i, one in enumerate(fields):
        if i not in told:
            alone.append(Item(one.name, (one,)))
            continue
        split, stem = told[i]
        if split in (others := named.setdefault(stem, {})):
            raise UserError(
                f"{one.file}: {one.name} is {stem} of {split}, as {others[split].name} is; give one of them"
            )
        others[split] = one
    whole, parts = [], []
    for stem, of in named.items():
        if list(of) and set(of) == set(splits):
            whole.append(Item(stem, tuple(of[split] for split in splits)))
        else:
            parts += [Item(one.name, (one,)) for one in of.values()]
    if not whole:
        return [Item(one.name, (one,)) for one in fields], []
    return [*whole, *alone, *parts], splits


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def unique_names(fields: Sequence[Field]) -> list[Field]:
    """With names that occur in several files told apart by the file's."""
    files: dict[str, set[Path]] = {}
    for one in fields:
        files.setdefault(one.name, set()).add(one.file)

    def named(one: Field) -> Field:
        if len(files[one.name]) == 1 or all(named_split(_stem(file)) for file in files[one.name]):
            return one
        return replace(one, name=f"{_stem(one.file)}:{one.name}")

    return [named(one) for one in fields]


def check_memory(place: Path | str, needed: float, what: str) -> None:
    """UserError if values would not fit into what is free, before they are read."""
    free = free_memory()
    if free is not None and needed > free:
        raise UserError(
            f"{place}: {what} needs about {needed / 1e9:.3g} GB of memory, {free / 1e9:.3g} GB are free; take fewer "
            f"columns or samples, or a machine with more"
        )
