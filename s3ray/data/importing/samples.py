"""Samples out of what was chosen: one per row, per group of rows, per file or per entry of an array's axis."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from s3ray.data.importing.choose import Choice
from s3ray.data.importing.fields import Item
from s3ray.data.importing.tables import as_numbers, has_lists
from s3ray.errors import UserError

Steps = tuple[NDArray[Any], NDArray[np.int64]]  # the steps of all samples (Σ lengths, features), lengths (n,)


@dataclass(frozen=True, slots=True)
class Rows:
    """The samples of a table: which rows are whose, in their order."""

    item: Item
    frame: pd.DataFrame
    order: NDArray[np.int64]  # rows, sample by sample
    lengths: NDArray[np.int64]  # (n,) rows of each sample
    ids: tuple[str, ...]  # (n,), or none
    parts: tuple[int, ...]  # samples of each part

    def numbers(self, option: str, position: int) -> NDArray[Any] | list[NDArray[Any]]:
        """Of a column, in the samples' order."""
        values = as_numbers(self.frame.iloc[:, position])
        if values is None:
            name = self.item.first.columns[position]
            odd = next((v for v in self.frame.iloc[:, position] if not isinstance(v, int | float)), "nothing")
            raise UserError(f"{option}: column {name} holds {str(odd)[:40]!r}, no numbers; leave it out or number it")
        return [values[i] for i in self.order] if isinstance(values, list) else values[self.order]

    def of_samples(self, option: str, positions: Sequence[int]) -> NDArray[Any]:
        """(n,) or, of several columns, (n, columns): what does not change within a sample."""
        columns = []
        starts = np.cumsum(self.lengths) - self.lengths
        of_row = np.repeat(np.arange(len(self.lengths)), self.lengths)
        for position in positions:
            values = self.frame.iloc[self.order, position]
            if has_lists(values):
                name = self.item.first.columns[position]
                raise UserError(f"{option}: column {name} holds lists, not one value per sample; name another")
            codes = pd.factorize(values)[0]
            if (changed := codes != codes[starts][of_row]).any():
                sample = self.ids[of_row[int(np.flatnonzero(changed)[0])]]
                raise UserError(
                    f"{option}: column {self.item.first.columns[position]} changes within sample {sample}; name more "
                    f"columns that tell samples apart, or another column"
                )
            columns.append(values.iloc[starts].to_numpy())
        return columns[0] if len(columns) == 1 else np.stack(columns, axis=1)


def joined_parts(item: Item) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """A table, of all splits, and each row's split by its place."""
    frames = []
    for part in item.parts:
        frame = part.load()
        assert isinstance(frame, pd.DataFrame)
        if set(part.columns) != set(item.first.columns):
            odd = sorted(set(part.columns) ^ set(item.first.columns))
            raise UserError(f"{part.file}: column {odd[0]} is not in all splits; give every split the same columns")
        frames.append(frame[list(item.first.columns)] if len(set(part.columns)) == len(part.columns) else frame)
    frame = pd.concat(frames, ignore_index=True) if len(frames) > 1 else frames[0]
    return frame, np.repeat(np.arange(len(frames)), [len(one) for one in frames])


def rows_of(item: Item, keys: Sequence[str], time: str | None, option: str) -> Rows:
    """The samples of a table, or of one table per split.

    Args:
        keys: columns that together name a sample; without any, every row is one.
        time: the column that orders a sample's rows; by default they keep their order.
        option: that names the keys, as complaints write it.
    """
    frame, of_part = joined_parts(item)
    if not keys:
        each = np.ones(len(frame), dtype=np.int64)
        return Rows(item, frame, np.arange(len(frame)), each, (), tuple(np.bincount(of_part).tolist()))
    place = item.first.file
    for name in (*keys, *([time] if time else [])):
        if missing := int(frame[name].isna().sum()):
            raise UserError(f"{place}: column {name} is missing in {missing} rows; drop them first")
    code = frame[list(keys)].assign(**{"\0part": of_part}).groupby(["\0part", *keys], sort=False).ngroup().to_numpy()
    order = np.argsort(code, kind="stable")
    if time:
        moments = pd.factorize(frame[time], sort=True)[0]
        order = np.lexsort((moments, code))
        again = (np.diff(code[order]) == 0) & (np.diff(moments[order]) == 0)
        if again.any():
            row = frame.iloc[order[int(np.flatnonzero(again)[0])]]
            raise UserError(
                f"{place}: sample {_key(row, keys)} has {time} {row[time]} twice; name all columns that tell samples "
                f"apart, such as {option} {keys[0]},trial"
            )
    lengths = np.bincount(code)
    firsts = order[np.cumsum(lengths) - lengths]
    named = frame[list(keys)].iloc[firsts].astype(str)
    joined = named[keys[0]].str.cat([named[key] for key in keys[1:]], sep="/") if keys[1:] else named[keys[0]]
    ids = of_splits(of_part[firsts], tuple(joined))
    counts = tuple(int(n) for n in np.bincount(of_part[firsts], minlength=len(item.parts)))
    return Rows(item, frame, order, lengths, ids, counts)


def of_splits(of_part: NDArray[np.int64], ids: Sequence[str]) -> tuple[str, ...]:
    """Names of samples; with their split's number where every split counts anew."""
    if len(set(ids)) == len(ids):
        return tuple(ids)
    return tuple(f"{part}/{one}" for part, one in zip(of_part, ids, strict=True))


def _key(row: pd.Series[Any], keys: Sequence[str]) -> str:
    return "/".join(str(row[name]) for name in keys)


def of_table(rows: Rows, positions: Sequence[int], option: str) -> Steps:
    """The chosen columns' values."""
    chosen = list(positions)
    if all(dtype.kind in "fiu" and isinstance(dtype, np.dtype) for dtype in rows.frame.dtypes.iloc[chosen]):
        return rows.frame.iloc[:, chosen].to_numpy()[rows.order], rows.lengths
    columns = [rows.numbers(option, position) for position in positions]
    if any(isinstance(column, list) for column in columns):
        (lists, *others) = columns
        if others or not isinstance(lists, list) or (rows.lengths > 1).any():
            raise UserError(f"{option}: holds a list of unequal length per row beside others; choose that column alone")
        return of_list(lists, option)
    arrays = [column[:, None] if column.ndim == 1 else column for column in columns if isinstance(column, np.ndarray)]
    return np.concatenate(arrays, axis=1), rows.lengths


def of_list(samples: Sequence[NDArray[Any]], option: str) -> Steps:
    """An array (steps, features) per sample; what has no step lacks the modality."""
    some = next((one for one in samples if one.size), None)
    if some is None:
        raise UserError(f"{option}: none of its {len(samples)} samples has a step; leave it out")
    samples = [one if one.size else some[:0] for one in samples]
    shapes = [one.shape[1:] for one in samples]
    if odd := next((i for i, shape in enumerate(shapes) if shape != shapes[0] or len(shape) != 1), None):
        raise UserError(
            f"{option}: sample {odd} has shape {samples[odd].shape}, sample 0 {samples[0].shape}; give each "
            f"(steps, features) of the same features"
        )
    return np.concatenate(samples), np.array([len(one) for one in samples])


def without_nan(rows: NDArray[Any], lengths: NDArray[np.int64]) -> Steps:
    """The same without those samples' steps of which every value is NaN: these lack the modality."""
    if rows.dtype.kind != "f":
        return rows, lengths
    of_row = np.repeat(np.arange(len(lengths)), lengths)
    known = np.zeros(len(lengths), dtype=bool)
    known[of_row[~np.isnan(rows).all(axis=1)]] = True
    return rows[known[of_row]], np.where(known, lengths, 0)


def oriented(item: Item, counts: Sequence[int], option: str) -> tuple[list[NDArray[Any]], str]:
    """Each part's array with samples first, and what was done to it.

    Nothing tells steps from features where samples come last, since both orders are in use: the two other axes are
    taken as they stand, steps × features, and this is said.

    Args:
        counts: samples of each part.
    """
    arrays = []
    for part in item.parts:
        array = np.asarray(part.load())
        if part.kind not in "fiub" or array.dtype.kind not in "fiub":
            what = {"O": "objects or structs", "U": "words", "S": "words", "c": "complex numbers"}.get(
                part.kind, part.kind
            )
            raise UserError(f"{option}: {part.name} holds {what}, not numbers; save it as one array of numbers")
        arrays.append(array.reshape(-1, 1) if array.ndim == 1 else array)
    shapes = [array.shape for array in arrays]
    if len(arrays) != len(counts) or not all(2 <= len(shape) <= 3 and 0 not in shape for shape in shapes):
        raise UserError(
            f"{option}: {item} must be (samples, features) or (samples, steps, features), in each split; reshape it"
        )
    fits = [
        axis
        for axis in range(min(map(len, shapes)))
        if all(shape[axis] == count for shape, count in zip(shapes, counts, strict=True))
    ]
    if not fits:
        sizes = " and ".join(f"{' × '.join(map(str, shape))}" for shape in shapes)
        raise UserError(
            f"{option}: {item.name} is {sizes}, and no axis has the {' and '.join(map(str, counts))} of the labels; "
            f"give arrays of the same samples"
        )
    axis = 0 if 0 in fits else fits[-1]
    if axis == 0:
        same = len(fits) > 1
        return arrays, "as many features as samples, read as samples × features" if same else ""
    turned = [np.moveaxis(array, axis, 0) for array in arrays]
    if arrays[0].ndim == 2:
        return turned, "was features × samples, turned"
    _, steps, features = turned[0].shape
    as_stand = f"its other axes as they stand: {steps} steps × {features} features"
    return turned, f"had samples on axis {axis}, turned, {as_stand}"


def of_arrays(arrays: Sequence[NDArray[Any]], lengths: NDArray[np.int64] | None, option: str) -> tuple[Steps, str]:
    """Arrays (n, features) or (n, steps, features) of one item, and what was seen of their padding.

    Without `lengths`, steps at the end that are NaN throughout are padding.
    """
    arrays = [array.astype(np.uint8) if array.dtype.kind == "b" else array for array in arrays]
    if len({(array.ndim, array.shape[-1]) for array in arrays}) > 1:
        shapes = " and ".join(str(array.shape) for array in arrays)
        raise UserError(f"{option}: has shapes {shapes} in its splits; give all the same features")
    if all(array.ndim == 2 for array in arrays):
        whole = np.concatenate(arrays)
        return (whole, np.ones(len(whole), dtype=np.int64)), ""
    rows, found = [], []
    at = 0
    for array in arrays:
        count, steps, _ = array.shape
        if lengths is not None:
            valid = lengths[at : at + count]
            if valid.min() < 0 or valid.max() > steps:
                raise UserError(
                    f"{option}: its lengths are {valid.min()} to {valid.max()}, its steps {steps}; correct them"
                )
        elif array.dtype.kind == "f":
            present = ~np.isnan(array).all(axis=2)
            valid = np.where(present.any(axis=1), steps - np.argmax(present[:, ::-1], axis=1), 1)
        else:
            valid = np.full(count, steps)
        rows.append(array[np.arange(steps) < valid[:, None]])
        found.append(valid)
        at += count
    of_all = np.concatenate(found)
    seen = lengths is None and any((v < a.shape[1]).any() for v, a in zip(found, arrays, strict=True))
    return (np.concatenate(rows), of_all), "steps of NaN at the end taken for padding" if seen else ""


def lengths_beside(items: Sequence[Item], choice: Choice, name: str, counts: Sequence[int]) -> NDArray[np.int64] | None:
    """The lengths that stand beside an array, as `X_length` or `audio_lengths`."""
    for item in items:
        if re.fullmatch(rf"({re.escape(choice.item.name)}|{re.escape(name)})_(lengths?|lens?)", item.name):
            if [int(np.prod(part.shape)) for part in item.parts] != list(counts):
                continue
            return np.concatenate([np.ravel(np.asarray(part.load())).astype(np.int64) for part in item.parts])
    return None


def same_ids(
    ids: Sequence[str], others: Sequence[str], *, some: bool = False
) -> tuple[NDArray[np.int64] | None, list[str]]:
    """For each of `ids` its place in `others`; None if these are not the same names, and which only one has.

    Names of files may lack their suffix and their folder, and numbers their leading zeros.

    Args:
        some: `others` may lack some of the names, but not all; the place of these is -1.
    """
    mine, theirs = list(ids), list(others)
    for form in (str, _without_suffix, lambda one: _without_suffix(one).rsplit("/", 1)[-1]):
        mine, theirs = [_number(form(one)) for one in ids], [_number(form(one)) for one in others]
        places = {name: place for place, name in enumerate(theirs)}
        known = len(set(mine)) == len(mine) and len(places) == len(theirs) and set(places) <= set(mine)
        if known and (len(places) == len(mine) or (some and places)):
            return np.array([places.get(name, -1) for name in mine]), []
    twice = [name for names in (mine, theirs) for name, count in Counter(names).items() if count > 1]
    return None, sorted(set(mine) - set(theirs)) or sorted(set(theirs) - set(mine)) or twice


def _without_suffix(name: str) -> str:
    return re.sub(r"\.(npy|csv|tsv|txt)$", "", name, flags=re.IGNORECASE)


def _number(name: str) -> str:
    return str(int(name)) if name.isdecimal() else name.removesuffix(".0")
