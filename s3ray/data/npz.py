"""Bring your own data: one `.npz` with `{train,valid,test}_{modality}`, `_label` and optional `_length` arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from s3ray.config import UserError, nearest
from s3ray.data.dataset import SPLITS, Dataset, Sequences, Split


def read_npz(name: str, path: Path) -> Dataset:
    """Read and check `path`.

    Arrays: `{split}_{modality}` (n, steps, features) or (n, features), `{split}_label` (n,) integers,
    optional `{split}_{modality}_length` (n,); any two modality names, any number of classes.

    Raises:
        UserError: naming file, key and remedy, for whatever the stages could not use.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check --dataset {name}=PATH") from error
    except Exception as error:  # damaged archives end in any of zipfile's, zlib's, tokenize's and numpy's own
        raise UserError(f"{path}: not an .npz of plain arrays ({error}); write it with numpy.savez") from error

    modalities = _modality_names(arrays, path)
    splits = {split: _read_split(arrays, split, modalities, path) for split in SPLITS}
    known = {f"{s}_{key}" for s in SPLITS for key in ("label", *modalities, *(f"{m}_length" for m in modalities))}
    for key in arrays:
        if key.startswith(tuple(f"{s}_" for s in SPLITS)) and key not in known:
            raise UserError(f"{path}: unknown key {key}; {nearest(key, known)}")
    train = splits["train"]
    if len(np.unique(train.labels)) < 2:
        raise UserError(f"{path}: train_label holds a single class; a probe needs at least two")
    for split_name, split in splits.items():
        unknown = np.setdiff1d(split.labels, train.labels)
        if len(unknown):
            raise UserError(
                f"{path}: {split_name}_label holds class {unknown[0]}, which train_label lacks; "
                f"give the training split an example of every class or drop those samples"
            )
        for modality, sequences in split.modalities.items():
            expected = train.modalities[modality].features
            if sequences.features != expected:
                raise UserError(
                    f"{path}: {split_name}_{modality} has {sequences.features} features, train_{modality} "
                    f"has {expected}; give every split the same width"
                )
    return Dataset(name, "user", splits["train"], splits["valid"], splits["test"])


def _modality_names(arrays: dict[str, NDArray[Any]], path: Path) -> list[str]:
    keys = [key.removeprefix("train_") for key in arrays if key.startswith("train_")]
    lengths = {f"{key}_length" for key in keys}
    names = [key for key in keys if key != "label" and key not in lengths]
    if not keys:
        raise UserError(f"{path}: split train is missing (no key train_…); add train_{{modality}} and train_label")
    if len(names) != 2:
        raise UserError(
            f"{path}: expected two modalities train_{{modality}}, found {len(names)} "
            f"({', '.join(names) or 'none'}); keep exactly two"
        )
    for name in names:
        # Modalities name torch submodules, which must not hide attributes such as `values`.
        if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            raise UserError(
                f"{path}: modality name {name!r} (train_{name}) is not a plain word or is taken by torch; "
                f"rename its keys"
            )
    return names


def _read_split(arrays: dict[str, NDArray[Any]], split: str, modalities: list[str], path: Path) -> Split:
    for key in (f"{split}_label", *(f"{split}_{m}" for m in modalities)):
        if key not in arrays:
            raise UserError(f"{path}: key {key} is missing from split {split}; add it")
    raw = arrays[f"{split}_label"]
    if raw.ndim != 1 or not np.issubdtype(raw.dtype, np.integer):
        raise UserError(
            f"{path}: {split}_label must be one integer class per sample, "
            f"not {raw.dtype} of shape {raw.shape}; convert it"
        )
    if not len(raw):
        raise UserError(f"{path}: split {split} is empty; give it samples")
    sequences = {m: _read_sequences(arrays, f"{split}_{m}", len(raw), path) for m in modalities}
    return Split(sequences, raw.astype(np.int64))


def _read_sequences(arrays: dict[str, NDArray[Any]], key: str, samples: int, path: Path) -> Sequences:
    values = arrays[key]
    numbers = np.issubdtype(values.dtype, np.number) and not np.iscomplexobj(values)
    if values.ndim not in (2, 3) or not numbers or 0 in values.shape[1:]:
        raise UserError(
            f"{path}: {key} must be numbers of shape (n, steps, features) or (n, features), "
            f"not {values.dtype} of shape {values.shape}; convert it"
        )
    if len(values) != samples:
        raise UserError(f"{path}: {key} has {len(values)} samples, its labels {samples}; make the lengths match")
    steps = values.shape[1] if values.ndim == 3 else 1
    lengths = arrays.get(f"{key}_length")
    if lengths is not None:
        fits = lengths.shape == (samples,) and np.issubdtype(lengths.dtype, np.integer)
        if not fits or lengths.min() < 1 or lengths.max() > steps:
            raise UserError(f"{path}: {key}_length must be {samples} integers between 1 and {steps}; correct it")
    sequences = Sequences.from_padded(values, lengths)
    bad = int(np.count_nonzero(~np.isfinite(sequences.values)))
    if bad:
        raise UserError(f"{path}: {key} has {bad} values that are NaN or infinite in float32; replace or drop them")
    return sequences
