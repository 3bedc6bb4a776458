"""The one data interface: ragged sequences of one or more modalities with labels, in three splits.

On disk a dataset is a folder of `.npy` files and a `manifest.json` with the sha256 of each and its own; opening it maps
the files, so that every trial of a node shares their pages.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from s3ray.digests import digest_of, signed
from s3ray.errors import DamagedError, UserError, nearest
from s3ray.model.batch import Ragged
from s3ray.paths import sync_folder, sync_made_folders
from s3ray.traces import tag

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "valid", "test")

# embedded: real data that ships with a dependency; simulated: generated; user: brought along.
DataKind = Literal["embedded", "simulated", "multibench", "user"]
# What it takes for a sample to lack a modality: to have no step of it, or none but zeros either.
Missing = Literal["declared", "zeros"]

_BLOCK = 2**20  # values that are looked at together
_FORMAT = 2
_MANIFEST = {
    "name": str,
    "kind": str,
    "modalities": list,
    "truth_names": list,
    "relevant_factors": list,
    "facts": dict,
    "arrays": dict,
}


class FormatError(UserError):
    """A dataset that another version wrote."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """n sequences of one modality: row i is `values[offsets[i]:offsets[i + 1]]`; without steps it is missing there."""

    values: NDArray[np.float32]  # (Σ lengths, features)
    offsets: NDArray[np.int64]  # (n + 1,)
    standardized: bool = False  # every feature has mean 0 and deviation 1 on the training split

    @classmethod
    def from_padded(cls, values: NDArray[Any], lengths: NDArray[Any] | None = None) -> Self:
        """From (n, steps, features), or (n, features) read as single steps; `lengths` cuts the right padding."""
        if values.ndim == 2:
            values = values[:, None, :]
        count, steps, features = values.shape
        if lengths is None:
            lengths = np.full(count, steps)
        valid = np.arange(steps) < np.asarray(lengths)[:, None]
        return cls.from_rows(values[valid].reshape(-1, features), np.asarray(lengths))

    @classmethod
    def from_rows(cls, rows: NDArray[Any], lengths: NDArray[Any]) -> Self:
        """From the steps of all sequences one after another, (Σ lengths, features)."""
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return cls(np.ascontiguousarray(rows, dtype=np.float32), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def features(self) -> int:
        return int(self.values.shape[1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """(n,): which samples lack the modality."""
        return np.asarray(self.lengths == 0)

    def where(self, kept: NDArray[np.bool_]) -> Self:
        """The sequences of those samples (n,) that keep theirs; of the others it is missing."""
        lengths = np.where(kept, self.lengths, 0)
        values = self.values[np.repeat(kept, self.lengths)]
        return dataclasses.replace(self, values=values, offsets=np.concatenate([[0], np.cumsum(lengths)]))

    def means(self) -> NDArray[np.float64]:
        """(n, features): the mean of every sequence over its steps; 0 of none."""
        means = np.zeros((len(self), self.features))
        for block, values, starts in self._blocks():
            means[block] = np.add.reduceat(values, starts, axis=0, dtype=np.float64)
        return means / np.maximum(self.lengths, 1)[:, None]

    def deviations(self) -> NDArray[np.float64]:
        """(n, features): the standard deviation of every sequence over its steps; 0 of none."""
        means, squares = self.means(), np.zeros((len(self), self.features))
        for block, values, starts in self._blocks():
            distances = values - np.repeat(means[block], self.lengths[block], axis=0)
            squares[block] = np.add.reduceat(distances**2, starts, axis=0)
        return np.sqrt(squares / np.maximum(self.lengths, 1)[:, None])

    def _blocks(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]]:
        """Some sequences after others, those without steps left out, their values, and where each starts in them.

        In double precision all at once would take a multiple of the values' own memory.
        """
        count = max(_BLOCK // max(len(self.values) // len(self) * self.features, 1), 1)
        for first in range(0, len(self), count):
            offsets = self.offsets[first : first + count + 1]
            present = np.flatnonzero(np.diff(offsets))
            yield first + present, self.values[offsets[0] : offsets[-1]], (offsets[:-1] - offsets[0])[present]

    def padded(self, steps: int | None = None) -> NDArray[np.float32]:
        """(n, steps, features), by default as many steps as the longest has: zeros behind the end of every sequence."""
        lengths = self.lengths
        padded = np.zeros((len(self), steps or int(lengths.max()), self.features), dtype=np.float32)
        padded[np.arange(padded.shape[1]) < lengths[:, None]] = self.values
        return padded

    def batch(self, indices: NDArray[np.int64]) -> Ragged:
        """The sequences at `indices`, one after another."""
        starts, lengths = self.offsets[indices], self.lengths[indices]
        # Row numbers of the values: each sequence counts up from its start.
        shift = np.repeat(starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        rows = np.arange(len(shift)) + shift
        return Ragged(torch.from_numpy(self.values[rows]), torch.from_numpy(lengths))


@dataclass(frozen=True, slots=True)
class Split:
    """Samples of one split.

    Attributes:
        truth: a simulation's factors (n, factors), one column per name.
        expressed: per modality the factor that each token expresses (Σ lengths,), a column of `truth`; empty where
            that is not known.
        scores: sentiments from -3 to 3 (n,), from which the classes follow; None where there are none.
    """

    modalities: Mapping[str, Sequences]
    labels: NDArray[np.int64]
    truth: NDArray[np.float32] | None = None
    expressed: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    scores: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def check_missing(self, place: Path | str, name: str) -> None:
        """UserError for a sample that lacks all modalities."""
        missing = np.array([sequences.missing for sequences in self.modalities.values()])
        if (empty := np.flatnonzero(missing.all(axis=0))).size:
            raise UserError(
                f"{place}: {empty.size} of {len(self)} samples of {name} have none of "
                f"{', '.join(self.modalities)} (first sample {empty[0]}); drop them, or take more modalities"
            )

    def batch(self, indices: NDArray[np.int64]) -> dict[str, Ragged]:
        return {name: sequences.batch(indices) for name, sequences in self.modalities.items()}


@dataclass(frozen=True, slots=True)
class Dataset:
    """Three splits of one classification problem seen through one or more modalities.

    Attributes:
        truth_names: of a simulation's factors, the columns of every split's `truth`.
        relevant_factors: those of them that the labels depend on, where that is known.
        facts: what is known beforehand, shown in reports; no result depends on it but for `standardized` and
            `subsampled`, which say how features were brought to mean 0 and deviation 1, and sequences to fewer steps.
            `missing` is the rule by which samples lack modalities, which new samples of its models follow.
        digests: sha256 per array of a dataset that was opened; one made of it by `replace` has other arrays.
    """

    name: str
    kind: DataKind
    train: Split
    valid: Split
    test: Split
    truth_names: tuple[str, ...] = ()
    relevant_factors: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict, compare=False, init=False)

    @property
    def splits(self) -> dict[str, Split]:
        return {name: getattr(self, name) for name in SPLITS}

    @property
    def features(self) -> dict[str, int]:
        """Input width per modality, in the order that fixes which is the first."""
        return {name: sequences.features for name, sequences in self.train.modalities.items()}

    @property
    def lacking(self) -> dict[str, dict[str, int]]:
        """Per modality that any sample lacks, how many of each split do."""
        counts = {
            name: {split: int(s.modalities[name].missing.sum()) for split, s in self.splits.items()}
            for name in self.features
        }
        return {name: of_splits for name, of_splits in counts.items() if any(of_splits.values())}

    def indicators(self, names: Sequence[str] | None = None) -> dict[str, NDArray[np.bool_]]:
        """Per split (n, K): a column for each of K modalities that any sample lacks, who does (ours); of none {}.

        Args:
            names: the modalities that are asked about; by default all.
        """
        asked = [name for name in self.lacking if names is None or name in names]
        if not asked:
            return {}
        return {
            name: np.stack([split.modalities[m].missing for m in asked], axis=1) for name, split in self.splits.items()
        }

    def check_missing(self, place: Path | str) -> None:
        """UserError for a modality that a whole split lacks, or a sample that lacks all."""
        for name, split in self.splits.items():
            for modality, sequences in split.modalities.items():
                if sequences.missing.all():
                    raise UserError(
                        f"{place}: {modality} is missing in every sample of {name} (length 0); leave it out, or give "
                        f"samples that have it"
                    )
            split.check_missing(place, name)

    @property
    def classes(self) -> int:
        return len(np.unique(self.train.labels))

    @property
    def label_names(self) -> tuple[str, ...]:
        """What the classes 0, 1, … are called, where that is known."""
        return tuple(self.facts.get("label_names", ()))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is odd about the data, one sentence each, as seen when their values were read."""
        kinds = [self.facts.get(kind, {}) for kind in ("modality_warnings", "scale_warnings")]
        of_modalities = (w for name in self.features for warnings in kinds for w in warnings.get(name, ()))
        return (*self.facts.get("warnings", ()), *of_modalities)

    def majority_rate(self, split: str) -> float:
        """Accuracy on `split` of always answering the training set's most frequent class."""
        return float(self.is_majority(split).mean())

    def is_majority(self, split: str) -> NDArray[np.bool_]:
        """(n,): which samples of `split` are of the training set's most frequent class."""
        values, counts = np.unique(self.train.labels, return_counts=True)
        return np.asarray(self.splits[split].labels == values[counts.argmax()])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every array by the name of its file, such as `train.text.values`."""
        return {f"{split}.{name}": array for split, s in self.splits.items() for name, array in _arrays(s).items()}

    def fingerprint(self) -> str:
        """sha256 of all that training and probing see: names, types, shapes and bytes of every array, in order.

        And of how they were standardised and subsampled, if they were: a model of theirs takes new samples through
        the same.
        """
        arrays = {n: a for n, a in self.arrays().items() if not (_is_truth(n) or _is_scores(n))}
        known = [self.facts[name] for name in ("standardized", "subsampled") if self.facts.get(name)]
        how = b"".join(json.dumps(fact, sort_keys=True).encode() for fact in known)
        return hashlib.sha256(self._described(arrays) + how).hexdigest()

    def truth_fingerprint(self) -> str | None:
        """sha256 of all that measuring a simulation's factors sees: what training sees, and the truth; else None."""
        if not self.truth_names:
            return None
        truth = self._described({name: array for name, array in self.arrays().items() if _is_truth(name)})
        names = json.dumps([self.fingerprint(), self.truth_names, self.relevant_factors])
        return hashlib.sha256(truth + names.encode()).hexdigest()

    def scores_fingerprint(self) -> str | None:
        """sha256 of all that regressing sentiment scores sees: what training sees, and the scores; else None."""
        if self.train.scores is None:
            return None
        scores = self._described({name: array for name, array in self.arrays().items() if _is_scores(name)})
        return hashlib.sha256(scores + self.fingerprint().encode()).hexdigest()

    def seen(self, *, truth: bool, scores: bool) -> Dataset:
        """What a stage may see: the samples, nothing of reports.

        Args:
            truth: and what a simulation knows.
            scores: and the sentiment scores.
        """
        hidden: dict[str, Any] = ({} if truth else {"truth": None, "expressed": {}}) | (
            {} if scores else {"scores": None}
        )
        train, valid, test = (dataclasses.replace(split, **hidden) for split in self.splits.values())
        names = (self.truth_names, self.relevant_factors) if truth else ()
        return Dataset(self.name, self.kind, train, valid, test, *names)

    def content(self) -> str:
        """The name under which the dataset is published: of all that any stage reads of it."""
        return content_of(self.fingerprint(), self.truth_fingerprint(), self.scores_fingerprint())

    def _described(self, arrays: Mapping[str, NDArray[Any]]) -> bytes:
        """Name, type, shape and sha256 of each array."""
        digests = {name: self.digests.get(name) or array_digest(array) for name, array in arrays.items()}
        return "".join(f"{n} {a.dtype.str} {a.shape} {digests[n]}\n" for n, a in arrays.items()).encode()

    def damaged(self) -> list[str]:
        """Names of the arrays whose bytes are not those that were prepared; reads all of them."""
        return [name for name, array in self.arrays().items() if self.digests.get(name) != array_digest(array)]

    def file_sizes(self) -> dict[str, int]:
        """Bytes of each file that `save` makes of the arrays."""
        return {f"{name}.npy": _file_size(array) for name, array in self.arrays().items()}

    def save(self, directory: Path, *, replace: bool = False, link: bool = False) -> None:
        """Write the dataset to `directory`; it appears there complete or not at all.

        Args:
            replace: whatever is there gives way.
            link: files of the same disk that arrays are maps of are linked in place of copied.

        Raises:
            UserError: an array is not the one that was prepared.
        """
        with DatasetWriter(directory) as writer:
            for name, array in self.arrays().items():
                digest = writer.add(name, array, self.digests.get(name), link=link)
                if digest != self.digests.get(name, digest):
                    place = getattr(array, "filename", None) or f"{self.name}: {name}"
                    raise UserError(f"{place}: damaged, not what was prepared; delete and prepare the dataset again")
            try:
                writer.commit(
                    self.name,
                    self.kind,
                    list(self.features),
                    self.facts,
                    self.truth_names,
                    self.relevant_factors,
                    replace=replace,
                )
            except OSError:
                # Another process was first with the same content.
                if not (directory / "manifest.json").exists():
                    raise

    @staticmethod
    def from_frame(
        name: str,
        frame: pd.DataFrame,
        *,
        modalities: Mapping[str, str | Sequence[str]] = MappingProxyType({}),
        label: str | None = None,
        group: str | None = None,
        sample: str | None = None,
        time: str | None = None,
        split_column: str | None = None,
        split: str | None = None,
        fill: str | None = None,
        missing: Missing = "declared",
        seed: int = 0,
    ) -> Dataset:
        """A dataset from a table, read as `s3ray data import` reads one.

        Args:
            name: a plain word, by which results know it.
            frame: a row per sample; or, with `sample`, per step. What is NaN throughout lacks the modality.
            modalities: per name its columns: names, or a pattern such as `acc_*`, or `cols:0-2`. By default columns
                that begin alike are one.
            label: the column of classes, of any kind; by default what is called so.
            group: a column of which no value is in two splits.
            sample: the columns that tell samples apart, where a row is a step; `time` orders their rows.
            split_column: a column that says train, valid or test.
            split: shares of the three, 60/20/20 by default.
            fill: `mean` sets missing values to train's means.
            missing: `zeros`: a sample whose values of a modality are all 0 lacks it.

        Raises:
            UserError: it cannot be read so; one sentence.
        """
        from s3ray.data import importing  # which makes datasets

        wanted = importing.Wanted(
            modalities=modalities,
            label=label,
            group=group,
            sample=sample,
            time=time,
            split_column=split_column,
            shares=split,
            fill=fill,
            missing=missing,
            seed=seed,
            prefix="",
        )
        return importing.from_frame(name, frame, wanted)

    @staticmethod
    def from_torch(
        name: str,
        train: torch.utils.data.Dataset[Any],
        valid: torch.utils.data.Dataset[Any] | None = None,
        test: torch.utils.data.Dataset[Any] | None = None,
        *,
        modalities: Sequence[str] = (),
        split: str | None = None,
        fill: str | None = None,
        missing: Missing = "declared",
        seed: int = 0,
    ) -> Dataset:
        """A dataset from torch's, whose samples are ({name: values}, label), or values and a label in a tuple.

        Args:
            name: a plain word, by which results know it.
            train: has a length. A sample's values are (features,) or (steps, features), with as many steps as it has;
                none, None, or nothing by that name where it lacks the modality.
            valid: by default a part of train.
            test: if it is left out too, train is split.
            modalities: names of the values in a tuple.
            split, fill, missing, seed: as of `from_frame`.

        Raises:
            UserError: it cannot be read so; one sentence.
        """
        from s3ray.data import importing

        splits = {"train": train, "valid": valid, "test": test}
        wanted = importing.Wanted(shares=split, fill=fill, missing=missing, seed=seed, prefix="")
        given = {name: samples for name, samples in splits.items() if samples is not None}
        return importing.from_torch(name, given, modalities, wanted)

    @classmethod
    def open(cls, directory: Path, modalities: Sequence[str] | None = None) -> Dataset:
        """Map a saved dataset; no values are read.

        Args:
            modalities: those of the prepared ones to take, in this order; by default all.

        Raises:
            DamagedError: a file is missing, cut short or of other content.
            FormatError: another version wrote it.
            UserError: the folder is no prepared dataset, cannot be read, or lacks a modality; or a sample lacks all of
                those taken, a split one of them.
        """
        try:
            manifest = parsed_manifest((directory / "manifest.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise UserError(f"{directory}: no prepared dataset (manifest.json is missing); prepare it") from error
        except OSError as error:
            raise _unreadable(directory / "manifest.json", error) from error
        except (DamagedError, FormatError) as error:
            raise type(error)(f"{directory}/manifest.json: {error}; prepare the dataset again") from error
        chosen = manifest["modalities"] if modalities is None else list(modalities)
        for name in chosen:
            if name not in manifest["modalities"]:
                raise UserError(f"{directory}: has no modality {name!r}; {nearest(name, manifest['modalities'])}")

        def load(name: str) -> NDArray[Any]:
            try:
                array: NDArray[Any] = np.load(directory / f"{name}.npy", mmap_mode="r")
            except (FileNotFoundError, ValueError, EOFError) as error:
                raise DamagedError(f"{directory}/{name}.npy: damaged ({error}); prepare the dataset again") from error
            except OSError as error:
                raise _unreadable(directory / f"{name}.npy", error) from error
            return array

        standardized = manifest["facts"].get("standardized", {})
        splits = {
            split: Split(
                {
                    m: Sequences(load(f"{split}.{m}.values"), load(f"{split}.{m}.offsets"), m in standardized)
                    for m in chosen
                },
                load(f"{split}.labels"),
                load(f"{split}.truth") if manifest["truth_names"] else None,
                {m: load(name) for m in chosen if (name := f"{split}.{m}.truth") in manifest["arrays"]},
                load(name) if (name := f"{split}.scores") in manifest["arrays"] else None,
            )
            for split in SPLITS
        }
        opened = cls(
            manifest["name"],
            manifest["kind"],
            **splits,
            truth_names=tuple(manifest["truth_names"]),
            relevant_factors=tuple(manifest["relevant_factors"]),
            facts=manifest["facts"],
        )
        object.__setattr__(opened, "digests", manifest["arrays"])
        try:
            opened.check_missing(directory)
        except ValueError as error:
            if damaged := opened.damaged():
                raise DamagedError(f"{directory}/{damaged[0]}.npy: damaged; prepare the dataset again") from error
            raise
        return opened


@dataclass(slots=True)
class _Column:
    """An array that grows row by row in its file."""

    file: BinaryIO
    dtype: np.dtype[Any]
    row: tuple[int, ...]  # shape of a row
    rows: int
    digest: Any

    def write_header(self) -> None:
        _write_header(self.file, self.dtype, (self.rows, *self.row))


class DatasetWriter:
    """Writes a dataset's folder row by row, beside its place; `commit` moves it there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        sync_made_folders(directory.parent)
        self._staging = Path(tempfile.mkdtemp(prefix=f".{directory.name}-{tag()}-", dir=directory.parent))
        self._columns: dict[str, _Column] = {}
        self._linked: dict[str, str] = {}  # sha256 of each array whose file is another's too

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for column in self._columns.values():
            with suppress(OSError):  # closing flushes, which a full disk refuses once more
                column.file.close()
        shutil.rmtree(self._staging, ignore_errors=True)

    def append(self, name: str, rows: NDArray[Any]) -> None:
        """Add rows to the array `name`, such as `train.text.values`."""
        if name not in self._columns:
            file = (self._staging / f"{name}.npy").open("wb")
            self._columns[name] = _Column(file, rows.dtype, rows.shape[1:], 0, hashlib.sha256())
            self._columns[name].write_header()
        column = self._columns[name]
        content = np.ascontiguousarray(rows, dtype=column.dtype).data
        column.rows += len(rows)
        column.digest.update(content)
        column.file.write(content)

    def add(self, name: str, array: NDArray[Any], digest: str | None, *, link: bool) -> str:
        """Add a whole array.

        Args:
            digest: sha256 of what it should hold, where that is known.
            link: give its file another name where that is possible, in place of copying it. Safe since nobody edits
                such a file: preparing again writes new ones and moves them to the old ones' place.

        Returns:
            The sha256 of what it holds.
        """
        if link and (source := getattr(array, "filename", None)):
            digest = digest or array_digest(array)
            if self._link(name, source, array, digest):
                self._linked[name] = digest
                return digest
        self.append(name, array)
        written: str = self._columns[name].digest.hexdigest()
        return written

    def _link(self, name: str, source: Path | str, array: NDArray[Any], digest: str) -> bool:
        """Link the file that `array` maps, if that can be done and it holds this array and no other."""
        target = self._staging / f"{name}.npy"
        try:
            os.link(source, target)
        except OSError:  # another disk, one without hard links, or somebody else's file
            return False
        # Only what stands under the new name counts: a map may be a part of its file, or of one that has been replaced.
        try:
            linked = np.load(target, mmap_mode="r")
            if (
                (linked.shape, linked.dtype) == (array.shape, array.dtype)
                and target.stat().st_size == _file_size(array)
                and array_digest(linked) == digest
            ):
                return True
        except (OSError, ValueError, EOFError):
            pass
        target.unlink()
        return False

    def commit(
        self,
        name: str,
        kind: DataKind,
        modalities: list[str],
        facts: Mapping[str, Any],
        truth_names: Sequence[str] = (),
        relevant_factors: Sequence[str] = (),
        *,
        replace: bool = False,
    ) -> None:
        """Complete the folder and put it in its place.

        Raises:
            OSError: something else is in that place and `replace` is not set.
        """
        for column in self._columns.values():
            column.file.seek(0)
            column.write_header()
            column.file.flush()
            os.fsync(column.file.fileno())
            column.file.close()
        manifest = {
            "format": _FORMAT,
            "name": name,
            "kind": kind,
            "modalities": modalities,
            "truth_names": list(truth_names),
            "relevant_factors": list(relevant_factors),
            "facts": dict(facts),
            "arrays": {name: column.digest.hexdigest() for name, column in self._columns.items()} | self._linked,
        }
        with (self._staging / "manifest.json").open("w") as file:
            json.dump(signed(manifest), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self._staging)
        self._staging.chmod(0o755)  # mkdtemp's folders are private; a store may serve several users
        if replace:
            put_in_place(self._staging, self._directory)
        else:
            os.replace(self._staging, self._directory)
        sync_folder(self._directory.parent)


def parsed_manifest(content: bytes) -> dict[str, Any]:
    """What `manifest.json` says of a dataset.

    Raises:
        DamagedError: it is not what was written.
        FormatError: another version wrote it.
    """
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"damaged ({error})") from None
    if not isinstance(manifest, dict):
        raise DamagedError("damaged (no table of fields)")
    # What was prepared before manifests had one has no digest.
    if "format" not in manifest or manifest.get("digest") not in (None, digest_of(manifest)):
        raise DamagedError("damaged (it is not what was written)")
    if (found := manifest["format"]) != _FORMAT:
        raise FormatError(f"format {str(found)[:80]}, this version reads {_FORMAT}")
    manifest.setdefault("relevant_factors", [])  # not known
    wrong = sorted(key for key, kind in _MANIFEST.items() if not isinstance(manifest.get(key), kind))
    lists = ("modalities", "truth_names", "relevant_factors")
    wrong = wrong or [key for key in lists if not all(isinstance(entry, str) for entry in manifest[key])]
    if wrong:
        raise DamagedError(f"damaged (no {', '.join(wrong)})")
    return manifest


def put_in_place(staging: Path, directory: Path) -> None:
    """Move a folder to its place; whatever is there gives way, and comes back if that fails."""
    if not directory.exists():
        os.replace(staging, directory)
        return
    earlier = Path(tempfile.mkdtemp(prefix=f".{directory.name}-{tag()}-", dir=directory.parent))
    os.replace(directory, earlier)  # whoever has it open keeps what is mapped
    try:
        os.replace(staging, directory)
    except BaseException:
        os.replace(earlier, directory)
        raise
    shutil.rmtree(earlier)


def _unreadable(file: Path, error: OSError) -> UserError:
    return UserError(
        f"{file}: cannot be read ({error.strerror or error}); check your access to it and this machine's limits"
    )


def _write_header(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    # numpy leaves room for the first axis to grow, so that the header can be written again in place.
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})


def _file_size(array: NDArray[Any]) -> int:
    header = io.BytesIO()
    _write_header(header, array.dtype, array.shape)
    return len(header.getvalue()) + array.nbytes


def content_of(fingerprint: str, truth: str | None, scores: str | None) -> str:
    """What names a dataset's whole content, of the fingerprints of what stages read of it."""
    beyond = [known for known in (truth, scores) if known is not None]
    return hashlib.sha256("".join(beyond).encode()).hexdigest() if len(beyond) > 1 else "".join(beyond) or fingerprint


def array_digest(array: NDArray[Any]) -> str:
    """sha256 of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def _is_truth(name: str) -> bool:
    return name.endswith(".truth")


def _is_scores(name: str) -> bool:
    return name.endswith(".scores")


def _arrays(split: Split) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name, sequences in split.modalities.items():
        arrays[f"{name}.values"] = sequences.values
        arrays[f"{name}.offsets"] = sequences.offsets
    arrays["labels"] = split.labels
    if split.truth is not None:
        arrays["truth"] = split.truth
    for name, expressed in split.expressed.items():
        arrays[f"{name}.truth"] = expressed
    if split.scores is not None:
        arrays["scores"] = split.scores
    return arrays
