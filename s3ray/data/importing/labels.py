"""Labels of any kind as classes 0 to K - 1 with names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from s3ray.errors import UserError


def encoded(place: str, values: NDArray[Any], columns: Sequence[str] = ()) -> tuple[NDArray[np.int64], list[str]]:
    """Classes and their names, in the order of numbers or of the alphabet.

    Args:
        place: what complaints begin with.
        values: (n,) strings, booleans, integers, floats that are integers; or (n, K) one-hot rows.
        columns: names of the K.

    Raises:
        UserError: a label is missing, or they are measurements or ids, not classes.
    """
    if values.ndim == 2:
        return _one_hot(place, values, columns)
    missing = np.asarray(pd.isna(values)) | np.array([isinstance(v, str) and not v.strip() for v in values])
    if missing.any():
        first = int(np.flatnonzero(missing)[0])
        raise UserError(
            f"{place}: {int(missing.sum())} of {len(values)} labels are missing, the first of sample {first} (counted "
            f"from 0); drop those samples first"
        )
    if values.dtype.kind in "OSUT":
        values = _plain(values)
    if values.dtype.kind == "f":
        if not (np.isfinite(values).all() and np.equal(np.mod(values, 1), 0).all()):
            odd = values[~np.equal(np.mod(values, 1), 0)][0]
            raise UserError(f"{place}: holds measurements such as {odd:g}, not classes; make classes of them first")
        values = values.astype(np.int64)
    if values.dtype.kind not in "iubU":
        raise UserError(f"{place}: holds {values.dtype}, not classes; give strings, booleans or whole numbers")
    found, codes = np.unique(values, return_inverse=True)
    if len(found) == len(values) > 2:
        raise UserError(
            f"{place}: has {len(found)} different values for {len(values)} samples: ids, not classes; "
            f"name others as the labels"
        )
    if len(found) < 2:
        raise UserError(f"{place}: holds the single class {found[0]}; two or more are needed to tell apart")
    return codes.astype(np.int64), [str(name) for name in found]


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Objects as what they are: numbers if all are, booleans, else words without blanks around them."""
    if all(isinstance(v, bool | np.bool_) for v in values):
        return values.astype(bool)
    if all(isinstance(v, int | float | np.number) and not isinstance(v, bool) for v in values):
        return values.astype(np.float64)
    return np.array([(v.decode() if isinstance(v, bytes) else str(v)).strip() for v in values])


def _one_hot(place: str, values: NDArray[Any], columns: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    ones = values == 1
    if not ((ones | (values == 0)).all() and (ones.sum(axis=1) == 1).all()):
        raise UserError(
            f"{place}: has shape {values.shape} and rows that are not one-hot; give one class per sample, such as one "
            f"column of them"
        )
    present = np.flatnonzero(ones.any(axis=0))
    if len(present) < 2:
        raise UserError(f"{place}: all samples are of one class; two or more are needed to tell apart")
    names = [columns[i] if columns else str(i) for i in present.tolist()]
    return np.searchsorted(present, ones.argmax(axis=1)).astype(np.int64), names
