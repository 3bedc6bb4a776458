"""Bring your own data: one `.npz` with `{train,valid,test}_{modality}`, `_label` and optional `_length` arrays.

Beside them `label_names` and `imported` may stand, as `s3ray data import` writes them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3ray.data.arrays import Entry, check_names, checked_dataset, stems
from s3ray.data.dataset import SPLITS, Dataset
from s3ray.data.foreign import foreign
from s3ray.data.multibench import FILES
from s3ray.data.names import IDS, likely, listed, split_named, stands_beside
from s3ray.errors import UserError, nearest

_LENGTH = re.compile(
    r"(?:(.+?)_?)?(?:seq_?|n_?|num_?)?(?:len|lens|lengths?|lenght?s?|lenghts?|steps|frames)", re.IGNORECASE
)
_ABOUT = ("label_names", "imported")  # keys that tell of the whole file
_STANDARDISE = "bring each feature to mean 0 and deviation 1, as train has them, before saving"


class Archive:
    """The arrays of an `.npz`: what they are, and each when it is asked for. Pickled objects are never loaded."""

    def __init__(self, path: Path, content: Any) -> None:
        self.place, self._content = path, content
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
        with _one_sentence(self.place):
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
    if not path.is_file():
        raise UserError(f"{path}: a device or a pipe, not a file; save the .npz to a file and give that")
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


def read_npz(name: str, path: Path, modalities: Sequence[str] | None = None, *, else_all: bool = False) -> Dataset:
    """Read and check `path`.

    Arrays: `{split}_{modality}` (n, steps, features) or (n, features), `{split}_label` (n,) integers,
    optional `{split}_{modality}_length` (n,); any number of modalities and of classes. Optional `label_names`
    (K,) are the names of the classes 0 to K - 1, and `imported` is JSON on where the arrays are from. What is finite
    but odd about the values is in the dataset's warnings.

    Args:
        modalities: those to take, in this order; by default all, in the file's.
        else_all: a file that has none of `modalities` is read as if none were chosen.

    Raises:
        UserError: naming file, key and remedy, for whatever the stages could not use.
    """
    with opened_npz(path, f"--dataset {name}=PATH") as archive:
        _check_splits(archive)
        _check_labels(archive)
        found = _modality_names(archive)
        if else_all and not set(found) & set(modalities or ()):
            modalities = None
        taken = found if modalities is None else _chosen(archive, found, modalities)
        unused = _check_leftovers(archive, list(dict.fromkeys([*taken, *found])))
        for modality in taken:
            given = [split for split in SPLITS if f"{split}_{modality}_length" in archive.entries]
            if 0 < len(given) < len(SPLITS):
                unused.append(
                    f"{modality} has lengths in {' and '.join(given)} alone: elsewhere padding is read as data"
                )
        data = checked_dataset(name, archive, taken, unused, _STANDARDISE)
        about = _about(archive, data)
        warnings = [*data.facts["warnings"], *about.get("imported", {}).get("warnings", ())]
        return dataclasses.replace(data, facts={**data.facts, **about, "warnings": warnings})


def save_npz(data: Dataset, path: Path, *, replace: bool = False) -> None:
    """Write a dataset as `read_npz` reads it; the file appears complete or not at all.

    Sequences of different lengths are padded with zeros, and their lengths stand beside them.

    Raises:
        UserError: something is there and `replace` is not set, or the place cannot be written to.
    """
    if path.exists() and not replace:
        raise UserError(f"{path}: is there already; give another place, or --overwrite it")
    arrays: dict[str, NDArray[Any]] = {key: np.array(v) for key, v in _told(data).items()}
    for modality in data.features:
        of_splits = {name: split.modalities[modality] for name, split in data.splits.items()}
        ragged = any(len(set(s.lengths.tolist())) > 1 for s in of_splits.values())
        for split, sequences in of_splits.items():
            values = sequences.padded()
            single = not ragged and values.shape[1] == 1
            arrays[f"{split}_{modality}"] = values[:, 0] if single else values
            if ragged:
                arrays[f"{split}_{modality}_length"] = sequences.lengths
    for split, samples in data.splits.items():
        arrays[f"{split}_label"] = samples.labels
    staging = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}-", dir=path.parent, delete=False) as file:
            staging = Path(file.name)
            np.savez_compressed(file, allow_pickle=False, **arrays)
        staging.chmod(0o644)  # temporary files are private
        os.replace(staging, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose a place that can") from error
    finally:
        if staging:
            staging.unlink(missing_ok=True)


def _told(data: Dataset) -> dict[str, Any]:
    """What a file says of the whole dataset."""
    told: dict[str, Any] = {}
    if data.label_names:
        told["label_names"] = list(data.label_names)
    if "imported" in data.facts:
        told["imported"] = json.dumps(data.facts["imported"])
    return told


def _about(archive: Archive, data: Dataset) -> dict[str, Any]:
    """The facts that a file tells of itself: `_told`, read back."""
    facts: dict[str, Any] = {}
    if "label_names" in archive.entries:
        entry = archive.entries["label_names"]
        labels = np.unique(data.train.labels)
        if len(entry.shape) != 1 or entry.dtype.kind not in "US" or labels[0] < 0 or labels[-1] >= entry.shape[0]:
            raise UserError(
                f"{archive.place}: label_names must be one string per class, of labels from 0 to {entry.shape[0] - 1}, "
                f"not {entry} for labels {labels[0]} to {labels[-1]}; number the labels from 0 or drop label_names"
                if len(entry.shape) == 1 and entry.dtype.kind in "US"
                else f"{archive.place}: label_names must be an array of strings, one per class, not {entry}; save "
                f"numpy.array([…]) of str, or drop it"
            )
        facts["label_names"] = [str(name) for name in archive["label_names"].astype(str)]
    if "imported" in archive.entries:
        entry = archive.entries["imported"]
        try:
            imported = json.loads(str(archive["imported"])) if entry.shape == () and entry.dtype.kind == "U" else None
        except ValueError:
            imported = None
        if not isinstance(imported, dict):
            raise UserError(f"{archive.place}: imported is not what s3ray data import writes; drop the key")
        facts["imported"] = imported
        if isinstance(options := imported.get("options"), dict) and options.get("missing") == "zeros":
            facts["missing"] = "zeros"
    return facts


def _chosen(archive: Archive, found: list[str], modalities: Sequence[str]) -> list[str]:
    for name in modalities:
        if name not in found:
            raise UserError(f"--modalities: {archive.place} has no modality {name!r}; {nearest(name, found)}")
    return list(modalities)


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
        if stems(archive, split):
            continue
        ours = {key: name for key, name in renamed.items() if name.startswith(f"{split}_")}
        if ours:
            raise UserError(
                f"{archive.place}: no key {next(iter(ours.values()))}; did you mean {next(iter(ours))}? rename "
                f"{listed(list(ours))} to {listed(list(ours.values()))}"
            )
        if {"indices", "indptr", "format", "shape", "data"} <= archive.entries.keys():
            raise UserError(
                f"{archive.place}: a sparse matrix of scipy.sparse.save_npz, not a dataset; load it, save x.toarray() "
                f"under keys such as train_A, beside train_label and the same for valid and test"
            )
        found = listed(list(archive.entries), f"{split}_label")
        raise UserError(
            f"{archive.place}: split {split} is missing (no key {split}_…, found {found}); add {split}_{{modality}} "
            f"and {split}_label, or let s3ray data import make an .npz of it"
        )


def _check_labels(archive: Archive) -> None:
    lacking = [split for split in SPLITS if f"{split}_label" not in archive.entries]
    for split in lacking:
        keys = [f"{split}_{stem}" for stem in stems(archive, split)]
        near = {s: likely("label", stems(archive, s)) for s in lacking}
        if near[split]:
            others = ", ".join(f"{s}_{stem}" for s, stem in near.items() if stem and s != split)
            raise UserError(
                f"{archive.place}: no key {split}_label; did you mean {split}_{near[split]}? rename it"
                + (f", and {others} likewise" if others else "")
            )
        raise UserError(
            f"{archive.place}: key {split}_label is missing from split {split}, found {listed(keys, split)}; add it"
        )


def _modality_names(archive: Archive) -> list[str]:
    path, entries = archive.place, archive.entries
    found = [stem for stem in stems(archive, "train") if stem != "label"]
    besides = {f"{other}_{what}" for other in found for what in ("length", "mask")}
    names = [stem for stem in found if stem not in besides and not _stands_beside(entries[f"train_{stem}"], stem)]

    def may_be_one(stem: str) -> bool:
        entry = entries[f"train_{stem}"]
        return len(entry.shape) in (2, 3) and entry.dtype.kind in "fiuO"

    if len(names) > 2:
        # The others are something else; a sentence on them follows.
        names = [stem for stem in names if may_be_one(stem)] or names
        suspects = [s for s in found if s not in names and entries[f"train_{s}"].dtype.hasobject]
        names += [s for s in suspects if s.lower() not in IDS][: max(2 - len(names), 0)]
    names = [stem for stem in names if may_be_one(stem) or not _is_ids(entries[f"train_{stem}"], stem)]
    if not names:
        others = listed([f"train_{s} ({entries[f'train_{s}']})" for s in found if s not in (*names, *besides)])
        raise UserError(
            f"{path}: holds no modality train_{{modality}}"
            + (f" beside {others}" if others != "nothing" else "")
            + "; add one or more, numbers of shape (n, steps, features) or (n, features)"
        )
    check_names(path, names)
    return names


def _stands_beside(entry: Entry, stem: str) -> bool:
    """Whether a key is, by its name and shape, no modality."""
    is_column = len(entry.shape) == 2 and entry.shape[1] == 1
    return (
        likely("label", [stem]) is not None
        or stands_beside(stem, is_column)
        or (is_column and _LENGTH.fullmatch(stem) is not None)
    )


def _is_ids(entry: Entry, stem: str) -> bool:
    return len(entry.shape) <= 2 and (entry.dtype.kind in "SU" or stem.lower() in IDS)


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
            raise UserError(f"{archive.place}: {_leftover(archive, split, stem, entry, modalities, known, missing)}")
        if renamed.get(key) in known:
            raise UserError(f"{archive.place}: unknown key {key}; did you mean {renamed[key]}? rename or drop it")
        if key not in _ABOUT:
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
