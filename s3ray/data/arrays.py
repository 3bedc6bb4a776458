"""A dataset from arrays, and the checks that every dataset of the user's goes through, from a file or from memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import nn

from s3ray.data.dataset import SPLITS, Dataset, Missing, Sequences, Split
from s3ray.data.names import did_you_mean, listed
from s3ray.data.values import Look, modality_warnings, scale_warnings, shared_samples
from s3ray.errors import UserError, nearest

# Per modality (n, features), (n, steps, features) or n arrays (steps, features); labels (n,).
Samples = tuple[Mapping[str, ArrayLike | Sequence[ArrayLike]], ArrayLike]


@dataclass(frozen=True, slots=True)
class Entry:
    """What an array is, which may not have been read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sparse: bool = False  # a pickled matrix of scipy.sparse, or several
    ragged: bool = False  # given as its valid rows alone (Σ lengths, features)

    def __str__(self) -> str:
        return f"{'Python objects' if self.dtype.hasobject else self.dtype} of shape {self.shape}"


class Arrays(Protocol):
    """Arrays by keys such as `train_text`, `train_text_length` and `train_label`."""

    @property
    def place(self) -> Path | str:
        """What every complaint begins with."""

    @property
    def entries(self) -> Mapping[str, Entry]: ...

    def __getitem__(self, key: str) -> NDArray[Any]: ...


class _InMemory:
    """The arrays that a program gives."""

    def __init__(self, place: str, splits: Mapping[str, Samples]) -> None:
        self.place = place
        self.entries: dict[str, Entry] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        for split, (modalities, labels) in splits.items():
            self._add(f"{split}_label", self._array(f"{split}_label", labels))
            for modality, values in modalities.items():
                key = f"{split}_{modality}"
                self._add_values(key, values if isinstance(values, list | tuple) else self._array(key, values))

    def __getitem__(self, key: str) -> NDArray[Any]:
        return self._arrays[key]

    def _array(self, key: str, values: object) -> NDArray[Any]:
        try:
            return np.asarray(values)
        except Exception as error:  # of numpy, or of what is to give its values, such as a tensor on a GPU
            raise UserError(
                f"{self.place}: {key} cannot be read as an array ({error}); give one array, or for sequences of "
                f"different lengths a list of arrays (steps, features)"
            ) from error

    def _add(self, key: str, array: NDArray[Any]) -> None:
        self._arrays[key], self.entries[key] = array, Entry(array.shape, array.dtype)

    def _add_values(self, key: str, values: NDArray[Any] | Sequence[ArrayLike]) -> None:
        of_objects = not isinstance(values, np.ndarray) or (values.dtype.hasobject and values.ndim == 1)
        if of_objects and any(getattr(one, "ndim", 0) == 2 for one in values):
            self._add_ragged(key, [self._array(key, one) for one in values])
        else:
            self._add(key, self._array(key, values))

    def _add_ragged(self, key: str, sequences: Sequence[NDArray[Any]]) -> None:
        features = next(sequence.shape[1] for sequence in sequences if sequence.ndim == 2)
        for i, sequence in enumerate(sequences):
            if sequence.ndim != 2 or sequence.shape[1] != features:
                raise UserError(
                    f"{self.place}: {key} holds an array of shape {sequence.shape} for sample {i}, not of (steps, "
                    f"{features}) as others; give every sample the same width, and one that lacks it (0, {features})"
                )
        lengths = np.array([len(sequence) for sequence in sequences])
        self._add(f"{key}_length", lengths)
        self._arrays[key] = np.concatenate(sequences)
        shape = (len(lengths), max(int(lengths.max()), 1), features)
        self.entries[key] = Entry(shape, self._arrays[key].dtype, ragged=True)


def from_arrays(name: str, *, train: Samples, valid: Samples, test: Samples, missing: Missing = "declared") -> Dataset:
    """A dataset of the user's from arrays in memory, of one or more modalities and any number of classes.

    Args:
        name: a plain word, by which results know it.
        train: per modality its values, and the labels (n,), integers. Values are (n, features), one step per sample;
            (n, steps, features); or n arrays (steps, features) of different lengths, without steps where a sample
            lacks the modality. The first split's modalities fix their order.
        missing: `zeros`: a sample whose values of a modality are all 0 lacks it, too.

    Raises:
        UserError: naming split and modality (as `train_text`) and the remedy, for whatever the stages could not use.
    """
    if not name.isidentifier():
        raise UserError(f"{name!r}: the dataset's name must be a plain word; rename it")
    splits = dict(zip(SPLITS, (train, valid, test), strict=True))
    for split, samples in splits.items():
        if not (isinstance(samples, tuple | list) and len(samples) == 2 and isinstance(samples[0], Mapping)):
            raise UserError(f"{name}: {split} must be a pair of modalities by name and labels; give ({{name: x}}, y)")
    modalities = list(train[0])
    if not modalities:
        raise UserError(f"{name}: train has no modality; give it one or more")
    for modality in modalities:
        if modality == "label" or modality.endswith("_length"):
            raise UserError(f"{name}: modality {modality!r} has a name that stands for something else; rename it")
    check_names(name, modalities)
    for split, (given, _) in splits.items():
        if unknown := [modality for modality in given if modality not in modalities]:
            raise UserError(f"{name}: {split} has modality {unknown[0]!r}, which train lacks; give it to all or none")
    standardise = "bring each feature to mean 0 and deviation 1, as train has them, first"
    return checked_dataset(name, _InMemory(name, splits), modalities, [], standardise, missing)


def split_from_arrays(place: str, modalities: Mapping[str, ArrayLike | Sequence[ArrayLike]]) -> Split:
    """Samples without classes (all are 0) from arrays in memory, their values as of `from_arrays`.

    Raises:
        UserError: of `from_arrays`, or there are no samples.
    """
    counts = {name: len(values) if isinstance(values, Sized) else 0 for name, values in modalities.items()}
    if not counts or not all(counts.values()) or len(set(counts.values())) > 1:
        found = ", ".join(f"{count} of {name}" for name, count in counts.items()) or "no modality"
        raise UserError(f"{place}: holds {found}; give every modality the same samples, one or more")
    labels = np.zeros(next(iter(counts.values())), dtype=np.int64)
    return _read_split(_InMemory(place, {place: (modalities, labels)}), place, list(modalities), {}, "declared")


def check_names(place: Path | str, modalities: Sequence[str]) -> None:
    """UserError for a modality that cannot have its name."""
    for name in modalities:
        # Modalities name torch submodules, which must not hide attributes such as `values`.
        if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            raise UserError(
                f"{place}: modality name {name!r} (train_{name}) is not a plain word or is taken by torch; "
                f"rename its keys"
            )


def checked_dataset(
    name: str,
    arrays: Arrays,
    modalities: Sequence[str],
    warnings: Sequence[str],
    standardise: str,
    missing: Missing = "declared",
) -> Dataset:
    """The dataset that `arrays` hold, if the stages can use it.

    Args:
        arrays: with labels in every split.
        warnings: what was odd about the arrays before anybody looked at their values.
        standardise: how to bring features to a usual scale.
        missing: what it takes for a sample to lack a modality.

    Raises:
        UserError: naming key and remedy.
    """
    check_missing_rule(missing, "missing")
    looks: dict[str, dict[str, Look]] = {split: {} for split in SPLITS}
    splits = {split: _read_split(arrays, split, modalities, looks[split], missing) for split in SPLITS}
    train = splits["train"]
    if len(np.unique(train.labels)) < 2:
        raise UserError(f"{arrays.place}: train_label holds a single class; a probe needs at least two")
    for split_name, split in splits.items():
        unknown = np.setdiff1d(split.labels, train.labels)
        if len(unknown):
            raise UserError(
                f"{arrays.place}: {split_name}_label holds class {unknown[0]}, which train_label lacks; "
                f"give the training split an example of every class or drop those samples"
            )
        for modality, sequences in split.modalities.items():
            expected = train.modalities[modality].features
            if sequences.features != expected:
                raise UserError(
                    f"{arrays.place}: {split_name}_{modality} has {sequences.features} features, train_{modality} "
                    f"has {expected}; give every split the same width"
                )
    data = Dataset(name, "user", splits["train"], splits["valid"], splits["test"])
    data.check_missing(arrays.place)  # before anybody asks for the scale of values that are not there
    facts = {
        "warnings": [*warnings, *shared_samples(looks)],
        "modality_warnings": {m: modality_warnings(looks, m, lambda split, m: f"{split}_{m}") for m in modalities},
        "scale_warnings": {m: scale_warnings(looks["train"][m], f"train_{m}", standardise) for m in modalities},
        "missing": missing,
    }
    return dataclasses.replace(data, facts=facts)


def stems(arrays: Arrays, split: str) -> list[str]:
    """What the keys of a split have after its name."""
    return [key.removeprefix(f"{split}_") for key in arrays.entries if key.startswith(f"{split}_")]


def check_missing_rule(rule: str, option: str) -> None:
    """UserError for a rule that there is not."""
    if rule not in get_args(Missing):
        raise UserError(f"{option} {rule}: is not known; {nearest(rule, get_args(Missing))}")


def _read_split(arrays: Arrays, split: str, modalities: Sequence[str], looks: dict[str, Look], rule: Missing) -> Split:
    path = arrays.place
    for key in (f"{split}_{m}" for m in modalities):
        if key not in arrays.entries:
            keys = [f"{split}_{stem}" for stem in stems(arrays, split)]
            near = did_you_mean(key, [k for k in keys if k != f"{split}_label"])
            raise UserError(
                f"{path}: key {key} is missing from split {split}, found {listed(keys, key)}; {near or 'add it'}"
            )
    entry = arrays.entries[f"{split}_label"]
    if len(entry.shape) != 1 or not np.issubdtype(entry.dtype, np.integer):
        missing = int(np.isnan(arrays[f"{split}_label"]).sum()) if entry.dtype.kind == "f" else 0
        remedy = f"{missing} are NaN: drop those samples first" if missing else _label_remedy(entry)
        raise UserError(f"{path}: {split}_label must be one integer class per sample, not {entry}; {remedy}")
    labels = arrays[f"{split}_label"]
    if not len(labels):
        raise UserError(f"{path}: split {split} is empty; give it samples")
    if labels.dtype.kind == "u" and labels.max() > np.iinfo(np.int64).max:
        raise UserError(f"{path}: {split}_label holds {labels.max()}, beyond int64; number the classes from 0")
    sequences = {}
    for modality in modalities:
        sequences[modality], looks[modality] = _read_sequences(arrays, f"{split}_{modality}", len(labels), rule)
    return Split(sequences, labels.astype(np.int64))


def _label_remedy(entry: Entry) -> str:
    if entry.dtype.kind in "OSU":
        return "convert it: number the classes, the same way in every split"
    if len(entry.shape) == 2 and entry.shape[1] > 1:
        return "convert it: one-hot rows with .argmax(axis=1), of several labels keep one column"
    if len(entry.shape) > 1:
        return "convert it with .reshape(-1)" + ("" if entry.dtype.kind in "iu" else ".astype(int)")
    return "convert it with .astype(int) if it holds classes, or make classes of it, such as (y >= 0).astype(int)"


def _read_sequences(arrays: Arrays, key: str, samples: int, rule: Missing) -> tuple[Sequences, Look]:
    path, entry = arrays.place, arrays.entries[key]
    if entry.dtype.hasobject:
        raise UserError(f"{path}: {key} holds {_objects(key, entry)}")
    numbers = np.issubdtype(entry.dtype, np.number) and entry.dtype.kind != "c"
    if len(entry.shape) not in (2, 3) or not numbers or 0 in entry.shape[1:]:
        raise UserError(
            f"{path}: {key} must be numbers of shape (n, steps, features) or (n, features), not {entry}; convert it"
        )
    if entry.shape[0] != samples:
        if axis := _sample_axis(arrays, key):
            how = ".T" if len(entry.shape) == 2 else f" as numpy.moveaxis(x, {axis}, 0)"
            raise UserError(
                f"{path}: {key} has shape {entry.shape} for {samples} labels and looks transposed; samples come first, "
                f"save it{how}"
            )
        raise UserError(f"{path}: {key} has {entry.shape[0]} samples, its labels {samples}; make the lengths match")
    shape = (samples, *entry.shape[1:]) if len(entry.shape) == 3 else (samples, 1, entry.shape[1])
    lengths = _read_lengths(arrays, f"{key}_length", shape)
    rows = arrays[key]
    if not entry.ragged:
        rows = rows.reshape(shape)[np.arange(shape[1]) < lengths[:, None]]
    if rule == "zeros":
        rows, lengths = without_zeros(rows, lengths)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is said
        sequences = Sequences.from_rows(rows, lengths)
        bad = int(np.count_nonzero(~np.isfinite(sequences.values)))
        if bad:
            raise UserError(f"{path}: {key} has {bad} values that are NaN or infinite in float32; replace or drop them")
        look = Look(shape[2])
        look.add(rows, lengths)
    if refusal := look.refusal(key):
        raise UserError(f"{path}: {refusal}")
    return sequences, look


def _sample_axis(arrays: Arrays, key: str) -> int:
    """The later axis of this modality that has a label for each entry in every split; 0 if there is none."""
    stem = key.partition("_")[2]
    shapes = [e.shape for s in SPLITS if (e := arrays.entries.get(f"{s}_{stem}"))]
    labels = [e.shape[:1] for s in SPLITS if (e := arrays.entries.get(f"{s}_label"))]
    pairs = list(zip(shapes, labels, strict=False))
    return next((a for a in (1, 2) if all(shape[a : a + 1] == samples for shape, samples in pairs)), 0)


def _objects(key: str, entry: Entry) -> str:
    if entry.sparse:
        return f"a sparse matrix of scipy, not an array; save x.toarray() as {key}"
    if entry.shape == ():
        return f"a single Python object, not an array; save the numbers in it as {key}"
    return (
        f"Python objects of shape {entry.shape}, not numbers, as lists of different lengths become; pad them to one "
        f"array (n, steps, features) and save their lengths as {key}_length"
    )


def _read_lengths(arrays: Arrays, key: str, shape: tuple[int, int, int]) -> NDArray[Any]:
    samples, steps, features = shape
    if key not in arrays.entries:
        return np.full(samples, steps)
    entry = arrays.entries[key]
    lengths = arrays[key] if entry.shape == (samples,) and np.issubdtype(entry.dtype, np.integer) else None
    if lengths is None or lengths.min() < 0 or lengths.max() > steps:
        swapped = lengths is not None and steps < lengths.max() <= features and lengths.min() >= 0
        remedy = f"correct it, or swap the last two axes of {key.removesuffix('_length')}" if swapped else "correct it"
        found = f"not {entry}" if lengths is None else f"not {lengths.min()} to {lengths.max()}"
        raise UserError(
            f"{arrays.place}: {key} must be {samples} integers from 0 (missing) to {steps}, {found}; {remedy}"
        )
    return lengths


def without_zeros(rows: NDArray[Any], lengths: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sequences' rows (Σ lengths, features) and their lengths (n,), without those that hold zeros alone."""
    of_row = np.repeat(np.arange(len(lengths)), lengths)
    occupied = np.zeros(len(lengths), dtype=bool)
    occupied[of_row[rows.any(axis=1)]] = True
    return rows[occupied[of_row]], np.where(occupied, lengths, 0)


def split_without_zeros(split: Split) -> Split:
    """The same, whose samples lack what is 0 throughout."""
    modalities = {}
    for name, sequences in split.modalities.items():
        _, lengths = without_zeros(sequences.values, sequences.lengths)
        modalities[name] = sequences.where(lengths > 0)
    return dataclasses.replace(split, modalities=modalities)
