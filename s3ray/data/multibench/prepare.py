"""Convert the files of MultiBench once to prepared datasets that every trial maps.

As in public loaders, samples without any text are dropped, every modality is cut at the first step that has
text, NaN, ±inf and what lies beyond ±1e18 become 0 (and are counted), at most 50 steps are kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from s3ray.data.arrays import without_zeros
from s3ray.data.dataset import Dataset, DatasetWriter, Missing
from s3ray.data.multibench.files import FILES, MODALITIES
from s3ray.data.multibench.layout import (
    Neutral,
    beyond_scale,
    check_ids,
    check_layout,
    checked_splits,
    classes,
    label_rule,
    opened,
    sentiment_scores,
)
from s3ray.data.values import LARGEST, Look, modality_warnings, scale_warnings, shared_samples
from s3ray.errors import UserError

MAX_STEPS = 50
_STANDARDISE = "--z-norm brings every sample and feature to mean 0 and deviation 1"
CHUNK_SAMPLES = 256

Progress = Callable[[str, int, int], None]  # what is being done, bytes done, bytes in all


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOptions:
    neutral: Neutral = "positive"
    z_norm: bool = False  # every sample and feature to mean 0 and deviation 1 over its steps
    missing: Missing = "declared"  # "zeros": a sample whose vision or audio is all zeros lacks it


@dataclass(frozen=True, slots=True)
class Prepared:
    """What became of one file."""

    directory: Path
    file: Path
    reused: bool  # it was prepared already, from the same bytes with the same options
    warnings: tuple[str, ...]


def prepare(
    name: str,
    path: Path,
    output: Path,
    options: PrepareOptions = PrepareOptions(),
    progress: Progress = lambda what, done, total: None,
) -> Prepared:
    """Convert one file to the prepared dataset `output/name`; all three modalities are kept.

    What is there already stays if it comes from the same bytes with the same options, and is replaced when the
    new one is complete otherwise. What a killed conversion left behind is removed.

    Args:
        progress: told the bytes hashed and converted so far.

    Raises:
        UserError: the file is not what its name says, in one sentence with key and remedy; nothing is written.
    """
    directory = output / name
    if directory.exists() and not (directory / "manifest.json").is_file():
        raise UserError(f"{directory}: is there and is no prepared dataset; move it or choose another --output")
    digest = _file_digest(path, progress)
    with _lock(output, name):
        for leftover in output.glob(f".{name}-*"):
            shutil.rmtree(leftover)
        source = {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}
        earlier = _earlier_warnings(name, directory, source, options)
        if earlier is not None:
            return Prepared(directory, path, True, earlier)
        with opened(path) as content:
            splits = checked_splits(path, content)
            doubts = check_layout(name, path, splits)
            warnings, kind = check_ids(path, splits)
            labels = {
                split: classes(name, path, split, arrays["labels"], options.neutral) for split, arrays in splits.items()
            }
            warnings += beyond_scale(name, path, {split: arrays["labels"] for split, arrays in splits.items()})
            if kind != "simulated":  # such a file may have any size
                warnings += doubts
            with DatasetWriter(directory) as writer:
                looks = {
                    split: {key: Look(arrays[key].shape[2]) for key in MODALITIES} for split, arrays in splits.items()
                }
                converted = _convert(name, path, splits, labels, options, writer, looks, progress)
                facts = {
                    "source": source,
                    "options": asdict(options),
                    "missing": options.missing,
                    "label_rule": label_rule(name, options.neutral),
                    "warnings": [*warnings, *shared_samples(looks)],
                    "modality_warnings": {
                        m: modality_warnings(looks, m, lambda split, m: f"{split}/{m}") for m in MODALITIES
                    },
                    "scale_warnings": {
                        m: scale_warnings(looks["train"][m], f"train/{m}", _STANDARDISE) for m in MODALITIES
                    },
                    "splits": converted,
                }
                writer.commit(name, kind, list(MODALITIES), facts, replace=True)
    return Prepared(directory, path, False, Dataset.open(directory).warnings)


def _earlier_warnings(
    name: str, directory: Path, source: Mapping[str, Any], options: PrepareOptions
) -> tuple[str, ...] | None:
    try:
        data = Dataset.open(directory)
    except UserError:
        return None
    facts = data.facts
    # Earlier versions did not ask what is missing.
    current = facts.get("source") == source and {"missing": "declared", **facts.get("options", {})} == asdict(options)
    # Earlier versions did not look at the values, and left the sentiments out.
    complete = "modality_warnings" in facts and (data.train.scores is not None or not FILES[name].sentiment)
    return data.warnings if current and complete else None


def _file_digest(path: Path, progress: Progress) -> str:
    digest = hashlib.sha256()
    try:
        if not path.is_file():
            raise UserError(f"{path}: not a file, nor a link to one; give the file that was downloaded")
        total = path.stat().st_size
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
                progress("reading", file.tell(), total)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from error
    return digest.hexdigest()


@contextmanager
def _lock(output: Path, name: str) -> Iterator[None]:
    """One conversion of a dataset at a time in a folder; a killed process loses its lock."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        path = output / f".{name}.lock"
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not path.exists() or not os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                raise BlockingIOError  # another process has just finished and removed the file that was locked here
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
    except BlockingIOError:
        raise UserError(f"{output}: {name} is being prepared by another process; wait for it") from None
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror}); choose another --output") from error


def _convert(
    name: str,
    path: Path,
    splits: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, NDArray[np.int64]],
    options: PrepareOptions,
    writer: DatasetWriter,
    looks: Mapping[str, Mapping[str, Look]],
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """Write every split, a few hundred samples at a time, and look at it; what was dropped, cut and replaced."""
    sizes = {split: sum(_bytes(arrays[key]) for key in MODALITIES) for split, arrays in splits.items()}
    done, facts = 0, {}
    for split, arrays in splits.items():
        samples = len(labels[split])
        kept = np.zeros(samples, dtype=bool)
        lengths: dict[str, list[NDArray[np.int64]]] = {key: [] for key in MODALITIES}
        non_finite, truncated = dict.fromkeys(MODALITIES, 0), 0
        for start in range(0, samples, CHUNK_SAMPLES):
            window = slice(start, min(start + CHUNK_SAMPLES, samples))
            try:
                chunk = Chunk.of({key: arrays[key][window] for key in MODALITIES})
            except OSError as error:  # HDF5 finds damage where it is read
                raise UserError(f"{path}: {split} cannot be read ({error}); download it again") from error
            for key, values in chunk.values.items():
                own = chunk.lengths
                if options.missing == "zeros":
                    values, own = without_zeros(values, own)
                stored = _z_normalized(values, own) if options.z_norm else values
                writer.append(f"{split}.{key}.values", stored)
                looks[split][key].add(stored, own)
                lengths[key].append(own)
                non_finite[key] += chunk.non_finite[key]
            kept[window] = chunk.kept
            truncated += chunk.truncated
            progress("converting", done + sizes[split] * window.stop // samples, sum(sizes.values()))
        done += sizes[split]
        if not kept.any():
            raise UserError(f"{path}: no sample of {split} has any text; get the original file")
        for key in MODALITIES:
            own = np.concatenate(lengths[key])
            if not own.any():
                raise UserError(
                    f"{path}: {key} is all zeros in every sample of {split}, so missing in all; prepare it with "
                    f"--missing declared"
                )
            writer.append(f"{split}.{key}.offsets", np.concatenate([[0], np.cumsum(own)]).astype(np.int64))
        if split == "train" and len(np.unique(labels[split][kept])) < 2:
            raise UserError(f"{path}: train/labels are all of one class; get the original file")
        writer.append(f"{split}.labels", labels[split][kept])
        if FILES[name].sentiment:
            writer.append(f"{split}.scores", sentiment_scores(arrays["labels"])[kept])
        facts[split] = {
            "samples": samples,
            "without_text": int(samples - kept.sum()),
            "truncated": truncated,
            "non_finite": non_finite,
            "neutral": int((np.asarray(arrays["labels"]).reshape(-1)[kept] == 0).sum()),
        }
    return facts


def _bytes(array: Any) -> int:
    return int(np.prod(array.shape)) * int(array.dtype.itemsize)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some samples after preprocessing: those kept, their steps one after another."""

    values: dict[str, NDArray[np.float32]]  # per modality (Σ lengths, features)
    lengths: NDArray[np.int64]  # of the samples kept
    kept: NDArray[np.bool_]  # of all samples
    truncated: int  # samples that lost steps at their end
    non_finite: dict[str, int]  # values replaced, per modality

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Chunk:
        """Preprocess (n, steps, features) arrays of all modalities, `text` among them."""
        finite, replaced = {}, {}
        for key, array in arrays.items():
            with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, and so 0
                values = np.array(array, dtype=np.float32)
            bad = ~(np.abs(values) <= LARGEST)  # NaN too
            values[bad] = 0.0
            finite[key], replaced[key] = values, int(bad.sum())
        has_text = (finite["text"] != 0).any(axis=2)
        kept = has_text.any(axis=1)
        first = has_text.argmax(axis=1)[:, None]
        steps = has_text.shape[1]
        step = np.arange(steps)
        valid = kept[:, None] & (step >= first) & (step < first + MAX_STEPS)
        return cls(
            {key: values[valid] for key, values in finite.items()},
            valid.sum(axis=1)[kept],
            kept,
            int((kept & (steps - first[:, 0] > MAX_STEPS)).sum()),
            replaced,
        )


def _z_normalized(values: NDArray[np.float32], lengths: NDArray[np.int64]) -> NDArray[np.float32]:
    """Every sample and feature to mean 0 and sample deviation 1 over its steps; what does not vary becomes 0."""
    lengths = lengths[lengths > 0]
    if not len(lengths):
        return values
    starts = np.cumsum(lengths) - lengths
    mean = np.add.reduceat(values, starts, axis=0, dtype=np.float64) / lengths[:, None]
    centred = values - np.repeat(mean, lengths, axis=0)
    square = np.add.reduceat(centred**2, starts, axis=0)
    deviation = np.repeat(np.sqrt(square / np.maximum(lengths - 1, 1)[:, None]), lengths, axis=0)
    scaled: NDArray[np.float64] = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    return scaled.astype(np.float32)
