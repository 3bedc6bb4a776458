"""What stands for what: the words of `--modality`, `--label` and their like, and what is sensible without them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pandas as pd

from s3ray.data.dataset import Missing
from s3ray.data.importing.fields import Field, Item
from s3ray.data.importing.tables import as_numbers, has_lists
from s3ray.data.names import GROUPS, LABELS, SPLITS, TIMES, likely, listed, split_named, stands_beside
from s3ray.errors import UserError, nearest

_PERHAPS_LABELS = {"y", "l", "gt"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a command line or a call asks of an import; what is left out is looked for.

    Attributes:
        modalities: per name what it is made of: the name of an array (`X`, `X{1}`, `train/X` as `X`), positions of
            columns from 0 (`cols:0-2,5`), names or patterns of columns (`ax,ay`, `gyro_*`); any of them behind `FILE:`
            where several files or arrays are meant to be told apart.
        label, group, split_column, sample, time: names of the same kind. `sample` and `time` make of a table with a
            row per step a sequence per sample.
        shares: of train/valid/test, where nothing is split yet.
        fill: `mean` sets values that are missing to train's means.
        missing: `zeros`: a sample whose values of a modality are all 0 lacks it, as one without steps does.
        prefix: what stands before an option's name in complaints.
    """

    modalities: Mapping[str, str | Sequence[str]] = field(default_factory=dict)
    label: str | None = None
    group: str | None = None
    split_column: str | None = None
    sample: str | None = None
    time: str | None = None
    shares: str | None = None
    seed: int = 0
    fill: str | None = None
    missing: Missing = "declared"
    prefix: str = "--"

    def option(self, name: str) -> str:
        return f"{self.prefix}{name if self.prefix else name.replace('-', '_')}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Of one item all features, or those at some positions of its last axis."""

    item: Item
    positions: tuple[int, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the features, where they have names."""
        columns = self.item.first.columns
        return columns if self.positions is None else tuple(columns[i] for i in self.positions if columns)

    def __str__(self) -> str:
        names = self.names
        if self.item.first.kind == "table" or names:
            return f"{listed(list(names), shown=4)}"
        if self.positions is None:
            return self.item.name
        return f"{self.item.name}, {len(self.positions)} of its columns"


def resolve(what: str, option: str, items: Sequence[Item]) -> list[Choice]:
    """The items and features that an option's words mean, in their order.

    Raises:
        UserError: there is none of that name, or several.
    """
    text = what.strip()
    if not text:
        raise UserError(f"{option} is empty; give the name of an array or column")
    if exact := [item for item in items if item.name == text or text == item.first.file.name]:
        if len(exact) > 1:
            raise UserError(f"{option}: could be {listed([item.name for item in exact])}; write one of these names")
        return [Choice(exact[0])]
    for item in items:
        for prefix in (item.name, item.first.file.name):
            if text.startswith(f"{prefix}:"):
                return _features(text.removeprefix(f"{prefix}:"), option, [item], items)
    return _features(text, option, items, items)


def _features(text: str, option: str, among: Sequence[Item], items: Sequence[Item]) -> list[Choice]:
    if text.startswith("cols:"):
        wide = [item for item in among if item.first.columns or len(item.first.shape) > 1]
        if len(wide) != 1:
            names = [item.name for item in wide]
            raise UserError(
                f"{option}: {'nothing here has columns' if not names else f'could be of {listed(names)}'}; write "
                f"{names[0] if names else 'NAME'}:{text}"
            )
        return [Choice(wide[0], _positions(text.removeprefix("cols:"), option, wide[0]))]
    # A column may have commas in its name.
    return _named(text, option, among, items) or [
        choice
        for part in text.split(",")
        for choice in _named(part.strip(), option, among, items) or _unknown(part.strip(), option, items)
    ]


def _positions(text: str, option: str, item: Item) -> tuple[int, ...]:
    width = len(item.first.columns) or item.first.shape[-1]
    positions: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)?\s*(-)?\s*(\d+)?\s*", part)
        if not found or not (found[1] or found[3]):
            raise UserError(f"{option}: {part!r} is no range; write positions from 0 such as cols:0-2,5")
        first = int(found[1] or 0)
        last = int(found[3]) if found[3] else (width - 1 if found[2] else first)
        if last < first or last >= width:
            raise UserError(f"{option}: {item.name} has columns 0 to {width - 1}; correct {part.strip()}")
        positions += range(first, last + 1)
    return tuple(positions)


def _named(pattern: str, option: str, among: Sequence[Item], items: Sequence[Item]) -> list[Choice]:
    """What bears a name or fits a pattern; names that are exactly so come first."""
    for fits in (str.__eq__, fnmatchcase):
        found = []
        for item in among:
            positions = tuple(i for i, name in enumerate(item.first.columns) if fits(name, pattern))
            if positions:
                found.append(Choice(item, positions))
            elif not item.first.columns and fits(item.name, pattern):
                found.append(Choice(item))
        if found:
            if len(found) > 1 and fits is str.__eq__:
                names = [f"{choice.item.name}:{pattern}" for choice in found]
                raise UserError(f"{option}: could be {listed(names)}; write one of these")
            return found
    return []


def _unknown(name: str, option: str, items: Sequence[Item]) -> list[Choice]:
    names = [name for item in items for name in (item.name, *item.first.columns)]
    shown = listed(names, name, shown=12)
    close = nearest(name, names).partition(" known: ")
    remedy = close[0] if close[0].startswith("did you mean") else "write one of these"
    raise UserError(f"{option}: nothing is called {name!r}, found {shown}; {remedy}")


def one_column(what: str, option: str, items: Sequence[Item]) -> Choice:
    """What an option means that stands for one value per sample."""
    choices = resolve(what, f"{option} {what}", items)
    if len(choices) > 1:
        raise UserError(f"{option} {what}: fits {listed([str(c) for c in choices])}; name one")
    (choice,) = choices
    columns = choice.item.first.columns
    if choice.item.first.kind == "table" and choice.positions is None:
        if len(columns) > 1:
            raise UserError(f"{option} {what}: has columns {listed(list(columns), shown=8)}; name one")
        return Choice(choice.item, (0,))
    return choice


# What is sensible where nothing is said.


def guessed_label(items: Sequence[Item]) -> Choice | None:
    """What is called as labels are; else the one thing that looks like them."""
    for words in ({"label", "labels"}, LABELS):
        if named := _called(items, words):
            return named[0] if len(named) == 1 else None
    if of_folders := [item for item in items if item.first.labels]:
        return Choice(of_folders[0], ())
    tables = [item for item in items if item.first.kind == "table"]
    flat = [item for item in items if _is_flat(item) and item.first.kind in "iubU"]
    words_in_tables = [Choice(item, (i,)) for item in tables for i in _columns_of_classes(item)]
    for found in (words_in_tables, _called(items, _PERHAPS_LABELS), [] if tables else [Choice(item) for item in flat]):
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _called(items: Sequence[Item], words: Set[str]) -> list[Choice]:
    found = [Choice(item) for item in items if item.name.lower() in words and item.first.kind not in ("table", "list")]
    for item in items:
        if item.first.kind == "table":
            columns = item.first.columns
            by_file = len(columns) == 1 and item.name.lower() in words
            found += [Choice(item, (i,)) for i, name in enumerate(columns) if by_file or name.lower() in words]
    return found


def _columns_of_classes(item: Item) -> list[int]:
    frame = item.first.load()
    assert isinstance(frame, pd.DataFrame)
    words = []
    for i, (name, dtype) in enumerate(zip(item.first.columns, list(frame.dtypes), strict=True)):
        values = frame.iloc[:, i]
        if dtype.kind in "fiuMm" or stands_beside(name, True) or has_lists(values):
            continue
        is_bool = pd.api.types.is_bool_dtype(dtype)
        if 2 <= values.nunique() <= (2 if is_bool else len(values) / 2) and (is_bool or as_numbers(values) is None):
            words.append(i)
    return words


def _is_flat(item: Item) -> bool:
    shape = item.first.shape
    return len(shape) == 1 or (len(shape) == 2 and 1 in shape)


def guessed_split(items: Sequence[Item]) -> Choice | None:
    """A column that is called so and holds names of splits alone."""
    for choice in _called(items, SPLITS):
        values: Any = choice.item.first.load()
        column = list(values.iloc[:, choice.positions[0]] if choice.positions else np.ravel(values))
        if column and all(isinstance(v, str) and split_named(v.strip()) for v in column):
            return choice
    return None


def unused(items: Sequence[Item], taken: Sequence[Choice]) -> tuple[list[str], str, str]:
    """The names of what stands for nothing, and among them what looks like groups and what looks like times."""
    columns = {(c.item.name, i) for c in taken for i in c.positions or ()}
    whole = {choice.item.name for choice in taken if choice.positions is None}
    left: list[str] = []
    flat: list[str] = []
    for item in items:
        if item.first.kind == "table" and item.name not in whole:
            flat += [name for i, name in enumerate(item.first.columns) if (item.name, i) not in columns]
        elif not any(_same_or_cell(item.name, choice.item.name) for choice in taken) and not _is_length(item):
            (flat if _is_flat(item) else left).append(f"{item.name}{_unfit(item.first)}")
    group = next((name for name in flat if name.lower() in GROUPS), "")
    return flat + left, group, next((name for name in flat if name.lower() in TIMES), "")


def _unfit(field: Field) -> str:
    """Why an array can be no modality as it is; empty if that does not hold of its values and shape alone."""
    if field.kind == "O":
        return " (objects; save numbers)"
    if field.kind == "c":
        return " (complex; save real numbers)"
    if len(field.shape) > 3:
        return f" ({' × '.join(map(str, field.shape))}; save it as samples × steps × features)"
    return ""


def _same_or_cell(name: str, other: str) -> bool:
    """Whether two names are one, or one is a cell of the other."""
    return name == other or name.startswith(f"{other}{{") or other.startswith(f"{name}{{")


def guessed_modalities(
    items: Sequence[Item], samples: Sequence[int], taken: Sequence[Choice]
) -> dict[str, list[Choice]]:
    """Arrays with a sample per label; of one table, columns that begin alike; a table or folder each of several.

    A table beside folders says of their samples what they are.

    Args:
        samples: how many there are, per split if the items have splits.
        taken: what stands for something else.
    """
    used = {choice.item.name for choice in taken if choice.positions is None}
    has_folders = any(item.first.ids for item in items)
    found = []
    for item in items:
        if item.first.kind == "table":
            if not has_folders and (left := tuple(features_left(item, taken))):
                found.append(Choice(item, left))
        elif item.name in used or _is_length(item) or _stands_beside(item):
            continue
        elif _has_samples(item, samples):
            found.append(Choice(item))
    if len(found) == 1 and (columns := found[0].item.first.columns) and not is_turned(found[0], samples):
        split = alike(Choice(found[0].item, found[0].positions or tuple(range(len(columns)))))
        if split or (len(items) == 1 and found[0].item.first.kind == "table"):
            return split
    return {plain(choice.item.name): [choice] for choice in found}


def _stands_beside(item: Item) -> bool:
    name = re.split(r"[:/.]", item.name)[-1]
    return likely("label", [name]) is not None or stands_beside(name, _is_flat(item))


def columns_left(item: Item, taken: Sequence[Choice]) -> list[int]:
    """The positions of a table's columns that stand for nothing else, by what was chosen and by their names."""
    used = {i for choice in taken if choice.item.name == item.name for i in choice.positions or ()}
    return [i for i, name in enumerate(item.first.columns) if i not in used and not stands_beside(name, True)]


def features_left(item: Item, taken: Sequence[Choice]) -> list[int]:
    """Of `columns_left` those that hold numbers."""
    frame = item.first.load()
    assert isinstance(frame, pd.DataFrame)
    kinds = [dtype.kind for dtype in frame.dtypes]
    return [i for i in columns_left(item, taken) if kinds[i] in "fiub" or as_numbers(frame.iloc[:, i]) is not None]


def whole_table(choice: Choice, option: str, samples: Sequence[int], taken: Sequence[Choice]) -> Choice:
    """A table that was chosen as a whole: without what stands for something else, and without words if it is turned."""
    if choice.item.first.kind != "table" or choice.positions is not None:
        return choice
    turned = Choice(choice.item, tuple(features_left(choice.item, taken)))
    left = columns_left(choice.item, taken)
    if not left:
        raise UserError(f"{option}: {choice.item.name} has no column left; name another")
    return turned if is_turned(turned, samples) else Choice(choice.item, tuple(left))


def is_turned(choice: Choice, samples: Sequence[int]) -> bool:
    """Whether a table has a row per feature and a column per sample."""
    item = choice.item
    rows = sum(part.shape[0] for part in item.parts)
    width = len(choice.positions or ())
    return item.first.kind == "table" and len(item.parts) == 1 and rows != sum(samples) == width


def _is_length(item: Item) -> bool:
    return re.search(r"_(lengths?|lens?)$", item.name) is not None


def _has_samples(item: Item, samples: Sequence[int]) -> bool:
    if item.first.kind == "list":  # of files, whose names may say more than their number
        return bool(item.first.ids) or sum(part.shape[0] for part in item.parts) == sum(samples)
    if item.first.kind not in "fiu" or len(item.parts) != len(samples):
        return False
    shapes = [part.shape for part in item.parts]
    return len(shapes[0]) in (2, 3) and any(
        all(axis < len(shape) and shape[axis] == n for shape, n in zip(shapes, samples, strict=True))
        for axis in range(len(shapes[0]))
    )


def alike(choice: Choice) -> dict[str, list[Choice]]:
    """Columns by what they begin with, as `acc` of acc_x; nothing unless that makes two or more groups of them all."""
    groups: dict[str, list[int]] = {}
    assert choice.positions is not None
    for position in choice.positions:
        groups.setdefault(_beginning(choice.item.first.columns[position]), []).append(position)
    if len(groups) < 2 or "" in groups or min(map(len, groups.values())) < 2:
        return {}
    return {plain(name): [Choice(choice.item, tuple(positions))] for name, positions in groups.items()}


def _beginning(name: str) -> str:
    found = re.fullmatch(r"(.+?)[ _.:\-\[(]+[^ _.:\-]*", name) or re.fullmatch(r"(.*?[^\d])\d+", name)
    return found[1] if found else ""


def plain(name: str) -> str:
    """A name as a plain word."""
    word = re.sub(r"\W+", "_", name.replace("{", "").replace("}", "")).strip("_")
    return word if word and not word[0].isdigit() else f"m{word}"


def contents(items: Sequence[Item]) -> str:
    """What is there, in one clause."""
    clauses = []
    for item in items[:8]:
        if item.first.kind == "table":
            clauses.append(f"{item.name} ({item.first.shape[0]} rows: {listed(list(item.first.columns), shown=12)})")
        else:
            clauses.append(str(item))
    more = f" and {len(items) - 8} more" if len(items) > 8 else ""
    return ", ".join(clauses) + more


def example(items: Sequence[Item], wanted: Wanted, lacking: str) -> str:
    """What would say what could not be guessed."""
    if lacking == "modality":
        table = next((item for item in items if item.first.columns), None)
        wide = next((item.name for item in items if len(item.first.shape) > 1), "NAME")
        option = wanted.option("modality")
        return f"{option} A={'cols:0-2' if table else wide} {option} B=…"
    if all(item.first.kind == "list" for item in items):
        return "a folder per class, or a table with a row per sample beside"
    flat = [item.name for item in items if _is_flat(item)]
    tables = [item for item in items if item.first.kind == "table"]
    classes = [item.first.columns[i] for item in tables for i in _columns_of_classes(item)]
    columns = classes or [name for item in tables for name in item.first.columns]
    return f"{wanted.option('label')} {columns[-1] if columns else flat[0] if flat else 'NAME'}"
