"""Twelve samples as people keep them, and what an import makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from s3ray.data.dataset import Dataset
from s3ray.data.importing import Wanted, import_files
from s3ray.data.npz import read_npz
from s3ray.errors import UserError

N = 12


KINDS = np.array(["run", "sit"])[np.arange(N) % 2]


SPLIT = np.array(["train"] * 6 + ["val"] * 2 + ["test"] * 4)


# Of train, valid and test as SPLIT cuts them.
PLACES = {"train": slice(0, 6), "valid": slice(6, 8), "test": slice(8, 12)}


def numbers(rows: int, columns: int, start: int = 0) -> NDArray[np.float64]:
    """(rows, columns): no two values are alike."""
    return np.arange(start, start + rows * columns, dtype=np.float64).reshape(rows, columns) / 10 + 1


ACC, GYRO = numbers(N, 2), numbers(N, 3, 100)


def table(**columns: Any) -> pd.DataFrame:
    """12 samples: acc_0, acc_1, gyro_0 to gyro_2, kind (run and sit in turn)."""
    frame = pd.DataFrame({f"acc_{i}": ACC[:, i] for i in range(2)} | {f"gyro_{i}": GYRO[:, i] for i in range(3)})
    return frame.assign(**{"kind": KINDS, **columns})


def imported(*files: str, **wanted: Any) -> Dataset:
    """What a file written of files holds, read back."""
    made = import_files([Path(file) for file in files], Path("out.npz"), Wanted(**wanted), overwrite=True)
    data = read_npz("out", Path("out.npz"), list(made.features)[:2] if len(made.features) > 2 else None)
    assert data.label_names == made.label_names
    return data


def refused(*files: str, **wanted: Any) -> str:
    with pytest.raises(UserError) as error:
        import_files([Path(file) for file in files], Path("out.npz"), Wanted(**wanted))
    assert not Path("out.npz").exists()
    assert not list(Path().glob(".out*"))
    assert "\n" not in str(error.value)
    return str(error.value)


def said(data: Dataset) -> str:
    return "\n".join(data.facts["imported"]["said"])


def holds(data: Dataset, **modalities: NDArray[Any]) -> None:
    """Every split has its part of the arrays (n, features), cut as SPLIT says."""
    assert list(data.features) == list(modalities)
    for split, places in PLACES.items():
        for name, values in modalities.items():
            assert np.array_equal(data.splits[split].modalities[name].values, values[places].astype(np.float32))
        assert data.splits[split].labels.tolist() == (np.arange(N) % 2)[places].tolist()


def save(path: str, **arrays: Any) -> None:
    """An `.npz`."""
    np.savez(path, **arrays)
