"""Which columns name samples, so that files are joined by names and not by the order of their rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations, product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from s3ray.data.importing import samples
from s3ray.data.importing.fields import Item
from s3ray.data.names import IDS, listed
from s3ray.errors import UserError


def naming_column(item: Item, ids: Sequence[str], option: str) -> str:
    """The column of a table that names a folder's samples.

    Args:
        option: that would name it, as complaints write it.

    Raises:
        UserError: none names half of them.
    """
    frame = samples.joined_parts(item)[0]
    odd = [len(samples.same_ids(ids, [str(v) for v in frame.iloc[:, i]])[1]) for i in range(frame.shape[1])]
    if min(odd) < len(ids) / 2:
        return item.first.columns[int(np.argmin(odd))]
    raise UserError(
        f"{item.first.file}: no column names the files of the folder, such as {listed(list(ids), shown=2)}; give a row "
        f"per file and its column with {option}"
    )


def shared_ids(tables: Sequence[Item], option: str) -> dict[str, list[str]]:
    """Of tables that name their samples alike the columns that do; others are joined row by row.

    A column that names samples has a value of its own in every row: of one name in both tables with the same values in
    both, or called as ids are.

    Args:
        option: that would name them, as complaints write it.

    Raises:
        UserError: under the same name of ids stand other values.
    """
    found: dict[str, list[str]] = {}
    frames = {item.name: samples.joined_parts(item) for item in tables} if len(tables) > 1 else {}
    columns = {name: _candidates(frame, of_part) for name, (frame, of_part) in frames.items()}
    for first, second in combinations(tables, 2):
        mine_of, theirs_of = (found.get(item.name, list(columns[item.name])) for item in (first, second))
        for mine, theirs in product(mine_of, theirs_of):
            are_ids = mine.lower() in IDS and theirs.lower() in IDS
            if mine != theirs and not are_ids:
                continue
            ids = [
                samples.of_splits(frames[item.name][1], columns[item.name][name])
                for item, name in ((first, mine), (second, theirs))
            ]
            places, odd = samples.same_ids(*ids)
            if places is not None:
                found.update({first.name: [mine], second.name: [theirs]})
                break
            if mine == theirs and are_ids and any(len(set(one)) == len(one) for one in ids):
                raise UserError(
                    f"{first.first.file} and {second.first.file} have different samples by {mine} ({len(ids[0])} "
                    f"against {len(ids[1])}, such as {listed(odd, shown=2)}); give the same to both, or where rows "
                    f"are steps {option} {mine}"
                )
    return found


def _candidates(frame: pd.DataFrame, of_part: NDArray[np.int64]) -> Mapping[str, list[str]]:
    """The columns that may name samples, and what stands in them."""

    def may(column: str) -> bool:
        values = frame[column]
        if column.lower() in IDS:
            return True
        return values.dtype.kind != "f" and not pd.DataFrame({0: of_part, 1: values.map(str)}).duplicated().any()

    once = [column for column, count in Counter(map(str, frame)).items() if count == 1]
    return {column: [str(v) for v in frame[column]] for column in once if may(column)}
