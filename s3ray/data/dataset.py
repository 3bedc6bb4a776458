"""The one data interface: ragged sequences of two modalities with labels, in three splits.

On disk a dataset is a folder of `.npy` files and a `manifest.json`, written last; opening it maps the files,
so that every trial of a node shares their pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from s3ray.config import UserError
from s3ray.model.batch import Ragged

SPLITS = ("train", "valid", "test")

# embedded: real data that ships with a dependency; simulated: generated; user: brought along.
DataKind = Literal["embedded", "simulated", "user"]

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Sequences:
    """n sequences of one modality: row i is `values[offsets[i]:offsets[i + 1]]`."""

    values: NDArray[np.float32]  # (Σ lengths, features)
    offsets: NDArray[np.int64]  # (n + 1,)

    @classmethod
    def from_padded(cls, values: NDArray[Any], lengths: NDArray[Any] | None = None) -> Sequences:
        """From (n, steps, features), or (n, features) read as single steps; `lengths` cuts the right padding."""
        if values.ndim == 2:
            values = values[:, None, :]
        count, steps, features = values.shape
        if lengths is None:
            lengths = np.full(count, steps)
        valid = np.arange(steps) < np.asarray(lengths)[:, None]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(np.ascontiguousarray(values[valid], dtype=np.float32).reshape(-1, features), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def features(self) -> int:
        return int(self.values.shape[1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def batch(self, indices: NDArray[np.int64]) -> Ragged:
        """The sequences at `indices`, one after another."""
        starts, lengths = self.offsets[indices], self.lengths[indices]
        # Row numbers of the values: each sequence counts up from its start.
        shift = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        rows = np.arange(len(shift)) + shift
        return Ragged(torch.from_numpy(self.values[rows]), torch.from_numpy(lengths))


@dataclass(frozen=True, slots=True)
class Split:
    """Samples of one split; `truth` holds a simulation's factors (n, factors), one column per name."""

    modalities: Mapping[str, Sequences]
    labels: NDArray[np.int64]
    truth: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: NDArray[np.int64]) -> dict[str, Ragged]:
        return {name: sequences.batch(indices) for name, sequences in self.modalities.items()}


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three splits of one classification problem seen through two modalities."""

    name: str
    kind: DataKind
    train: Split
    valid: Split
    test: Split
    truth_names: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)  # what is known beforehand, shown in reports

    @property
    def splits(self) -> dict[str, Split]:
        return {name: getattr(self, name) for name in SPLITS}

    @property
    def features(self) -> dict[str, int]:
        """Input width per modality, in the order that fixes modality 1 and 2."""
        return {name: sequences.features for name, sequences in self.train.modalities.items()}

    @property
    def classes(self) -> int:
        return len(np.unique(self.train.labels))

    def majority_rate(self, split: str) -> float:
        """Accuracy on `split` of always answering the training set's most frequent class."""
        values, counts = np.unique(self.train.labels, return_counts=True)
        return float(np.mean(self.splits[split].labels == values[counts.argmax()]))

    def fingerprint(self) -> str:
        """sha256 of all that training and probing see: names, shapes and bytes of every array."""
        digest = hashlib.sha256()
        for split_name, split in self.splits.items():
            for name, array in _arrays(split).items():
                if name != "truth":
                    digest.update(f"{split_name}/{name}/{array.dtype.str}/{array.shape}\n".encode())
                    digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def save(self, directory: Path) -> None:
        """Write the dataset to `directory`; it appears there complete or not at all."""
        directory.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        try:
            for split_name, split in self.splits.items():
                for name, array in _arrays(split).items():
                    np.save(staging / f"{split_name}.{name}.npy", array)
            manifest = {
                "format": _FORMAT,
                "name": self.name,
                "kind": self.kind,
                "modalities": list(self.features),
                "truth_names": list(self.truth_names),
                "facts": dict(self.facts),
            }
            (staging / "manifest.json").write_text(json.dumps(manifest, indent=1))
            staging.chmod(0o755)  # mkdtemp's folders are private; a store may serve several users
            os.replace(staging, directory)
        except OSError:
            # Another process was first with the same content.
            if not (directory / "manifest.json").exists():
                raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    @classmethod
    def open(cls, directory: Path) -> Dataset:
        """Map a saved dataset; no values are read. UserError if the folder is not one."""
        try:
            manifest = json.loads((directory / "manifest.json").read_text())
        except OSError as error:
            raise UserError(f"{directory}: no prepared dataset (manifest.json is missing); prepare it") from error

        def load(split: str, name: str) -> NDArray[Any]:
            array: NDArray[Any] = np.load(directory / f"{split}.{name}.npy", mmap_mode="r")
            return array

        splits = {
            split: Split(
                {m: Sequences(load(split, f"{m}.values"), load(split, f"{m}.offsets")) for m in manifest["modalities"]},
                load(split, "labels"),
                load(split, "truth") if manifest["truth_names"] else None,
            )
            for split in SPLITS
        }
        return cls(
            manifest["name"],
            manifest["kind"],
            **splits,
            truth_names=tuple(manifest["truth_names"]),
            facts=manifest["facts"],
        )


def _arrays(split: Split) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name, sequences in split.modalities.items():
        arrays[f"{name}.values"] = sequences.values
        arrays[f"{name}.offsets"] = sequences.offsets
    arrays["labels"] = split.labels
    if split.truth is not None:
        arrays["truth"] = split.truth
    return arrays
