"""Bring your own data: one `.npz` with `{train,valid,test}_{modality}`, `_label` and optional `_length` arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from s3ray.data.dataset import SPLITS, Dataset, Sequences, Split
from s3ray.data.foreign import foreign
from s3ray.data.multibench import FILES
from s3ray.data.names import did_you_mean, likely, listed, split_named
from s3ray.data.values import Look, modality_warnings, shared_samples
from s3ray.errors import UserError

# Keys that stand for samples, not for what is known of them.
_IDS = {"id", "ids", "idx", "index", "uid", "uids", "name", "names", "key", "keys", "segment", "segments", "video"}
_IDS |= {"videos", "video_id", "video_ids", "sample_id", "sample_ids", "filename", "filenames", "file", "files"}
_LENGTH = re.compile(
    r"(?:(.+?)_?)?(?:seq_?|n_?|num_?)?(?:len|lens|lengths?|lenght?s?|lenghts?|steps|frames)", re.IGNORECASE
)
_STANDARDISE = "bring each feature to mean 0 and deviation 1, as train has them, before saving"


@dataclass(frozen=True, slots=True)
class Entry:
    """An array of the archive, not yet read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    sparse: bool = False  # a pickled matrix of scipy.sparse, or several

    def __str__(self) -> str:
        return f"{'Python objects' if self.dtype.hasobject else self.dtype} of shape {self.shape}"


class Archive:
    """The arrays of an `.npz`: what they are, and each when it is asked for. Pickled objects are never loaded."""

    def __init__(self, path: Path, content: Any) -> None:
        self.path, self._content = path, content
        self.entries: dict[str, Entry] = {key: self._entry(key) for key in content.files if _member(content, key)}

    def _entry(self, key: str) -> Entry:
        member = _member(self._content, key)
        with self._content.zip.open(member) as file:
            version = np.lib.format.read_magic(file)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(
                version
            )
            if read is None:
                raise ValueError(f"{key} has names of fields that are no plain words")
            shape, _, dtype = read(file)
            return Entry(shape, dtype, dtype.hasobject and b"scipy.sparse" in file.read(1 << 12))

    def __getitem__(self, key: str) -> NDArray[Any]:
        with _one_sentence(self.path):
            array: NDArray[Any] = self._content[key]
        return array


def _member(content: Any, key: str) -> str:
    """The file in the archive that holds an array; nothing if it is no array."""
    return next((name for name in (f"{key}.npy", key) if name in content.zip.namelist() and name.endswith(".npy")), "")


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # damaged archives end in any of zipfile's, zlib's, tokenize's and numpy's own
        raise UserError(f"{path}: damaged .npz ({error}); write it again with numpy.savez") from error


@contextmanager
def opened_npz(path: Path, option: str = "--dataset NAME=PATH") -> Iterator[Archive]:
    """The arrays of an `.npz`.

    Args:
        option: where its path was given.

    Raises:
        UserError: it is none; the sentence says what it is and what helps.
    """
    if path.is_dir():
        raise UserError(f"{path}: a folder, not an .npz; {_folder_remedy(path)}")
    if not path.exists():
        near = [] if not path.parent.is_dir() else [p.name for p in path.parent.iterdir()]
        close = likely(path.name, near) or likely(f"{path.name}.npz", near)
        raise UserError(f"{path}: no such file; {f'did you mean {close}? ' if close else ''}check {option}")
    with _one_sentence(path):
        try:
            content = np.load(path, allow_pickle=False)
        except PermissionError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        except Exception:
            content = None
        # numpy takes any zip for an .npz.
        if not isinstance(content, np.lib.npyio.NpzFile) or (
            content.files and not any(_member(content, key) for key in content.files)
        ):
            raise _not_an_npz(path)
        archive = Archive(path, content)
    with content:
        yield archive


def _not_an_npz(path: Path) -> UserError:
    if name := next((name for name, known in FILES.items() if path.name in known.names), None):
        return UserError(
            f"{path}: {name}'s file of MultiBench, not an .npz; run s3ray data prepare --root {path.parent} and give "
            f"--data {path.parent}"
        )
    kind = foreign(path)
    if kind is None or kind.what == "an .npz":
        return UserError(f"{path}: damaged or not an .npz of arrays; write it again with numpy.savez")
    return UserError(f"{path}: {kind.what}, not an .npz of arrays; {kind.for_npz(path)}")


def _folder_remedy(path: Path) -> str:
    if (path / "manifest.json").is_file():
        return f"it is prepared data: give --data {path.parent} --datasets {path.name}"
    if any(path.glob("*.npz")) or any(path.glob("[!.]*/manifest.json")):
        return f"for all that it holds, give --data {path}"
    if any((path / file).exists() for known in FILES.values() for file in known.names):
        return f"run s3ray data prepare --root {path} and give --data {path}"
    return "give the .npz file itself"


def read_npz(name: str, path: Path) -> Dataset:
    """Read and check `path`.

    Arrays: `{split}_{modality}` (n, steps, features) or (n, features), `{split}_label` (n,) integers,
    optional `{split}_{modality}_length` (n,); any two modality names, any number of classes. What is finite but
    odd about the values is in the dataset's warnings.

    Raises:
        UserError: naming file, key and remedy, for whatever the stages could not use.
    """
    with opened_npz(path, f"--dataset {name}=PATH") as archive:
        _check_splits(archive)
        _check_labels(archive)
        modalities = _modality_names(archive)
        unused = _check_leftovers(archive, modalities)
        for modality in modalities:
            given = [split for split in SPLITS if f"{split}_{modality}_length" in archive.entries]
            if 0 < len(given) < len(SPLITS):
                unused.append(
                    f"{modality} has lengths in {' and '.join(given)} alone: elsewhere padding is read as data"
                )
        looks: dict[str, dict[str, Look]] = {split: {} for split in SPLITS}
        splits = {split: _read_split(archive, split, modalities, looks[split]) for split in SPLITS}
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
    facts = {
        "warnings": [*unused, *shared_samples(looks)],
        "modality_warnings": {
            m: modality_warnings(looks, m, lambda split, m: f"{split}_{m}", _STANDARDISE) for m in modalities
        },
    }
    return Dataset(name, "user", splits["train"], splits["valid"], splits["test"], facts=facts)


def _stems(archive: Archive, split: str) -> list[str]:
    return [key.removeprefix(f"{split}_") for key in archive.entries if key.startswith(f"{split}_")]


def _renamed(archive: Archive) -> dict[str, str]:
    """What keys are called here whose split is spelled otherwise or comes last, such as val_text and text_train."""
    renamed = {}
    for key in archive.entries:
        first = re.fullmatch(r"([A-Za-z]+)[ _/.:-](.+)", key)
        last = re.fullmatch(r"(.+)[ _/.:-]([A-Za-z]+)", key)
        if first and (split := split_named(first[1])):
            stem = first[2]
        elif last and (split := split_named(last[2])):
            stem = last[1]
        else:
            continue
        stem = "label" if likely("label", [stem]) else stem
        if key != f"{split}_{stem}" and not key.startswith(f"{split}_"):
            renamed[key] = f"{split}_{stem}"
    return renamed


def _check_splits(archive: Archive) -> None:
    renamed = _renamed(archive)
    for split in SPLITS:
        if _stems(archive, split):
            continue
        ours = {key: name for key, name in renamed.items() if name.startswith(f"{split}_")}
        if ours:
            raise UserError(
                f"{archive.path}: no key {next(iter(ours.values()))}; did you mean {next(iter(ours))}? rename "
                f"{listed(list(ours))} to {listed(list(ours.values()))}"
            )
        if {"indices", "indptr", "format", "shape", "data"} <= archive.entries.keys():
            raise UserError(
                f"{archive.path}: a sparse matrix of scipy.sparse.save_npz, not a dataset; load it, save x.toarray() "
                f"under keys such as train_A, beside train_label and the same for valid and test"
            )
        found = listed(list(archive.entries), f"{split}_label")
        raise UserError(
            f"{archive.path}: split {split} is missing (no key {split}_…, found {found}); add {split}_{{modality}} and "
            f"{split}_label"
        )


def _check_labels(archive: Archive) -> None:
    lacking = [split for split in SPLITS if f"{split}_label" not in archive.entries]
    for split in lacking:
        keys = [f"{split}_{stem}" for stem in _stems(archive, split)]
        near = {s: likely("label", _stems(archive, s)) for s in lacking}
        if near[split]:
            others = ", ".join(f"{s}_{stem}" for s, stem in near.items() if stem and s != split)
            raise UserError(
                f"{archive.path}: no key {split}_label; did you mean {split}_{near[split]}? rename it"
                + (f", and {others} likewise" if others else "")
            )
        raise UserError(
            f"{archive.path}: key {split}_label is missing from split {split}, found {listed(keys, split)}; add it"
        )


def _modality_names(archive: Archive) -> list[str]:
    path, entries = archive.path, archive.entries
    stems = [stem for stem in _stems(archive, "train") if stem != "label"]
    besides = {f"{other}_{what}" for other in stems for what in ("length", "mask")}
    names = [stem for stem in stems if stem not in besides and not _stands_beside(entries[f"train_{stem}"], stem)]

    def may_be_one(stem: str) -> bool:
        entry = entries[f"train_{stem}"]
        return len(entry.shape) in (2, 3) and entry.dtype.kind in "fiuO"

    if len(names) > 2 and sum(map(may_be_one, names)) <= 2:
        # The others are something else; a sentence on them follows.
        names = [stem for stem in names if may_be_one(stem)] or names
        suspects = [s for s in stems if s not in names and entries[f"train_{s}"].dtype.hasobject]
        names += [s for s in suspects if s.lower() not in _IDS][: 2 - len(names)]
    names = [stem for stem in names if may_be_one(stem) or not _is_ids(entries[f"train_{stem}"], stem)]
    if len(names) != 2:
        others = listed([f"train_{s} ({entries[f'train_{s}']})" for s in stems if s not in (*names, *besides)])
        raise UserError(
            f"{path}: expected two modalities train_{{modality}}, found {len(names)} ({', '.join(names) or 'none'})"
            + (f" beside {others}" if len(names) < 2 and others != "nothing" else "")
            + "; keep exactly two"
            + (", numbers of shape (n, steps, features) or (n, features)" if len(names) < 2 else "")
        )
    for name in names:
        # Modalities name torch submodules, which must not hide attributes such as `values`.
        if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            raise UserError(
                f"{path}: modality name {name!r} (train_{name}) is not a plain word or is taken by torch; "
                f"rename its keys"
            )
    return names


def _stands_beside(entry: Entry, stem: str) -> bool:
    """Whether a key is, by its name and shape, no modality: as one, the labels would be an input."""
    word = stem.lower()
    is_column = len(entry.shape) == 2 and entry.shape[1] == 1
    return (
        likely("label", [stem]) is not None
        or any(part in word for part in ("label", "onehot", "one_hot", "mask"))
        or (is_column and (word in _IDS or _LENGTH.fullmatch(stem) is not None))
    )


def _is_ids(entry: Entry, stem: str) -> bool:
    return len(entry.shape) <= 2 and (entry.dtype.kind in "SU" or stem.lower() in _IDS)


def _check_leftovers(archive: Archive, modalities: list[str]) -> list[str]:
    """What is said of keys that mean nothing here: a refusal where something may be meant, else a warning."""
    roles = ("label", *modalities, *(f"{m}_length" for m in modalities))
    known = {f"{split}_{role}" for split in SPLITS for role in roles}
    renamed = _renamed(archive)
    unused = []
    for key, entry in archive.entries.items():
        split, separator, stem = key.partition("_")
        if key in known:
            continue
        if split in SPLITS and separator:
            missing = [f"{split}_{m}" for m in modalities if f"{split}_{m}" not in archive.entries]
            raise UserError(f"{archive.path}: {_leftover(archive, split, stem, entry, modalities, known, missing)}")
        if renamed.get(key) in known:
            raise UserError(f"{archive.path}: unknown key {key}; did you mean {renamed[key]}? rename or drop it")
        unused.append(key)
    if not unused:
        return []
    return [f"{'keys' if unused[1:] else 'key'} {listed(unused)} {'are' if unused[1:] else 'is'} not used"]


def _leftover(
    archive: Archive,
    split: str,
    stem: str,
    entry: Entry,
    modalities: list[str],
    known: set[str],
    missing: list[str],
) -> str:
    key = f"{split}_{stem}"
    siblings = listed([f"{s}_{stem}" for s in SPLITS if f"{s}_{stem}" in archive.entries])
    length = likely(stem, [f"{m}_length" for m in modalities])
    if matched := _LENGTH.fullmatch(stem):
        length = f"{matched[1]}_length" if matched[1] in modalities else length
    if length and len(entry.shape) == 1:
        return f"unknown key {key}; did you mean {split}_{length}? rename it"
    if matched and len(entry.shape) == 1:
        each = " and ".join(f"{split}_{m}_length" for m in modalities)
        return f"unknown key {key}; lengths are given per modality: save them as {each}"
    if "mask" in stem.lower():
        each = " and ".join(f"{split}_{m}_length" for m in modalities)
        return f"{key} looks like a mask, which is not read; drop {siblings}, save the lengths as {each}"
    if missing:
        near = likely(missing[0], [key]) or likely(missing[0].removeprefix(f"{split}_"), [stem])
        return f"no key {missing[0]}; " + (
            f"did you mean {key}? rename it" if near else f"found {key}: rename or drop it"
        )
    whole = len(entry.shape) == 1 and entry.dtype.kind in "iu"
    if _is_ids(entry, stem) or (whole and len(np.unique(archive[key])) == entry.shape[0] > 2):
        return f"{key} looks like ids, which are not used; drop {siblings}"
    if likely("label", [stem]):
        return f"unknown key {key} beside {split}_label; keep one kind of labels, drop {siblings}"
    if near := likely(key, known - set(archive.entries)):
        return f"unknown key {key}; did you mean {near}? rename it"
    return f"unknown key {key} ({entry}), which nothing reads; drop {siblings}"


def _read_split(archive: Archive, split: str, modalities: list[str], looks: dict[str, Look]) -> Split:
    path = archive.path
    for key in (f"{split}_{m}" for m in modalities):
        if key not in archive.entries:
            keys = [f"{split}_{stem}" for stem in _stems(archive, split)]
            near = did_you_mean(key, [k for k in keys if k != f"{split}_label"])
            raise UserError(
                f"{path}: key {key} is missing from split {split}, found {listed(keys, key)}; {near or 'add it'}"
            )
    entry = archive.entries[f"{split}_label"]
    if len(entry.shape) != 1 or not np.issubdtype(entry.dtype, np.integer):
        missing = int(np.isnan(archive[f"{split}_label"]).sum()) if entry.dtype.kind == "f" else 0
        remedy = f"{missing} are NaN: drop those samples first" if missing else _label_remedy(entry)
        raise UserError(f"{path}: {split}_label must be one integer class per sample, not {entry}; {remedy}")
    labels = archive[f"{split}_label"]
    if not len(labels):
        raise UserError(f"{path}: split {split} is empty; give it samples")
    if labels.dtype.kind == "u" and labels.max() > np.iinfo(np.int64).max:
        raise UserError(f"{path}: {split}_label holds {labels.max()}, beyond int64; number the classes from 0")
    sequences = {}
    for modality in modalities:
        sequences[modality], looks[modality] = _read_sequences(archive, f"{split}_{modality}", len(labels))
    return Split(sequences, labels.astype(np.int64))


def _label_remedy(entry: Entry) -> str:
    if entry.dtype.kind in "OSU":
        return "convert it: number the classes, the same way in every split"
    if len(entry.shape) == 2 and entry.shape[1] > 1:
        return "convert it: one-hot rows with .argmax(axis=1), of several labels keep one column"
    if len(entry.shape) > 1:
        return "convert it with .reshape(-1)" + ("" if entry.dtype.kind in "iu" else ".astype(int)")
    return "convert it with .astype(int) if it holds classes, or make classes of it, such as (y >= 0).astype(int)"


def _read_sequences(archive: Archive, key: str, samples: int) -> tuple[Sequences, Look]:
    path, entry = archive.path, archive.entries[key]
    if entry.dtype.hasobject:
        raise UserError(f"{path}: {key} holds {_objects(key, entry)}")
    numbers = np.issubdtype(entry.dtype, np.number) and entry.dtype.kind != "c"
    if len(entry.shape) not in (2, 3) or not numbers or 0 in entry.shape[1:]:
        raise UserError(
            f"{path}: {key} must be numbers of shape (n, steps, features) or (n, features), not {entry}; convert it"
        )
    if entry.shape[0] != samples:
        if axis := _sample_axis(archive, key):
            how = ".T" if len(entry.shape) == 2 else f" as numpy.moveaxis(x, {axis}, 0)"
            raise UserError(
                f"{path}: {key} has shape {entry.shape} for {samples} labels and looks transposed; samples come first, "
                f"save it{how}"
            )
        raise UserError(f"{path}: {key} has {entry.shape[0]} samples, its labels {samples}; make the lengths match")
    values = archive[key]
    values = values[:, None, :] if values.ndim == 2 else values
    lengths = _read_lengths(archive, f"{key}_length", values.shape)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is said
        sequences = Sequences.from_padded(values, lengths)
        bad = int(np.count_nonzero(~np.isfinite(sequences.values)))
        if bad:
            raise UserError(f"{path}: {key} has {bad} values that are NaN or infinite in float32; replace or drop them")
        look = Look(values.shape[2])
        look.add(values[np.arange(values.shape[1]) < sequences.lengths[:, None]], sequences.lengths)
    if refusal := look.refusal(key):
        raise UserError(f"{path}: {refusal}")
    return sequences, look


def _sample_axis(archive: Archive, key: str) -> int:
    """The later axis of this modality that has a label for each entry in every split; 0 if there is none."""
    stem = key.partition("_")[2]
    shapes = [e.shape for s in SPLITS if (e := archive.entries.get(f"{s}_{stem}"))]
    labels = [e.shape[:1] for s in SPLITS if (e := archive.entries.get(f"{s}_label"))]
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


def _read_lengths(archive: Archive, key: str, shape: tuple[int, ...]) -> NDArray[Any] | None:
    if key not in archive.entries:
        return None
    samples, steps, features = shape
    entry = archive.entries[key]
    lengths = archive[key] if entry.shape == (samples,) and np.issubdtype(entry.dtype, np.integer) else None
    if lengths is None or lengths.min() < 1 or lengths.max() > steps:
        swapped = lengths is not None and steps < lengths.max() <= features and lengths.min() >= 1
        remedy = f"correct it, or swap the last two axes of {key.removesuffix('_length')}" if swapped else "correct it"
        found = f"not {entry}" if lengths is None else f"not {lengths.min()} to {lengths.max()}"
        raise UserError(f"{archive.path}: {key} must be {samples} integers between 1 and {steps}, {found}; {remedy}")
    return lengths
