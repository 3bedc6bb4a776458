"""What a file of MultiBench holds, and the checks that it does.

A file holds `{train, valid, test}` → `{vision, audio, text, labels, id}` with arrays (n, steps, features) that are
padded with zero rows on the left. `prepare.py` converts them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from s3ray.data.dataset import SPLITS, DataKind
from s3ray.data.foreign import HDF5_MAGIC, unsplit_hdf5
from s3ray.data.multibench.files import FILES, MODALITIES, SIMULATED, Layout, MultiBenchFile
from s3ray.data.multibench.pickled import read_pickle, said
from s3ray.data.names import likely, listed, split_named
from s3ray.errors import UserError

# Sizes up to this far from the known ones are those of another build of the same dataset.
_NEAR = 0.10
# Sizes whose ratios to known ones differ by less than this are a part of that dataset, ...
_PROPORTIONAL = 0.05
_ENOUGH = 10  # ... if every split has so many samples; below, rounding decides
# Of a file's labels, so many at most may lie beyond the scale for a known artefact to explain them.
_ARTEFACT_SHARE = 0.20

# The class of a sentiment of exactly 0.
Neutral = Literal["positive", "negative"]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The nested content of a pickle or HDF5 file; large arrays are read when they are sliced."""
    with path.open("rb") as file:
        is_hdf5 = file.read(len(HDF5_MAGIC)) == HDF5_MAGIC
    if not is_hdf5:
        yield read_pickle(path)
        return
    try:
        import h5py
    except ImportError:
        if unsplit_hdf5(path):
            raise _unsplit(path, "") from None
        raise UserError(f"{path}: an HDF5 file, which cannot be looked into without h5py; pip install h5py") from None
    try:
        hdf5 = h5py.File(path, "r")
    except OSError as error:
        raise UserError(f"{path}: damaged HDF5 ({error}); download it again") from error
    with hdf5:
        yield _hdf5_content(path, hdf5)


def _hdf5_content(path: Path, file: Any) -> dict[str, dict[str, Any]]:
    import h5py

    def inside(group: Any, name: str) -> Any:
        link = group.get(name, getlink=True)
        item = group[name] if isinstance(link, h5py.HardLink) else None
        if item is None or (isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)):
            raise UserError(f"{path}: {group.name}/{name} leads to another file; store the data in this one")
        return item

    groups = {name: inside(file, name) for name in file}
    if not any(split_named(name) for name in groups):
        sequences = [name for name, group in groups.items() if _is_sequence(group)]
        if sequences:
            raise _unsplit(path, f" {listed(sequences)}")
    return {
        name: {key: inside(group, key) for key in group}
        for name, group in groups.items()
        if isinstance(group, h5py.Group)
    }


def _is_sequence(group: Any) -> bool:
    """Whether an HDF5 group holds intervals and features per segment, as a computational sequence does."""
    segments: Any = group.get("data", group) if hasattr(group, "keys") else {}
    first: Any = next(iter(segments.values()), None) if hasattr(segments, "values") else None
    return hasattr(first, "keys") and {"features", "intervals"} <= set(first.keys())


def _unsplit(path: Path, sequences: str) -> UserError:
    name = next((name for name, known in FILES.items() if path.name in known.names), None)
    needed = FILES[name].names[0] if name else "the file with train, valid and test"
    return UserError(
        f"{path}: holds computational sequences{sequences} (features and intervals per segment), the source before it "
        f"was aligned and split; needs the split file {needed}"
    )


def checked_splits(path: Path, content: Any) -> dict[str, dict[str, Any]]:
    """The splits' arrays, if they have the structure of the published files."""
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not splits; expected a dict of train, valid, test")
    splits: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        if split not in content:
            raise UserError(f"{path}: split {split} is missing; {_instead([split], content)}")
        arrays = content[split]
        if isinstance(arrays, list | tuple):
            raise UserError(
                f"{path}: {split} is a {type(arrays).__name__} of {len(arrays)} samples, as other loaders keep them, "
                f"not a dict of arrays vision, audio, text, labels; stack the samples of each or get the original file"
            )
        if not isinstance(arrays, dict):
            raise UserError(
                f"{path}: {split} is a {type(arrays).__name__}, not a dict of arrays; get the original file"
            )
        if missing := [key for key in (*MODALITIES, "labels") if key not in arrays]:
            raise UserError(f"{path}: {split} has no key {', '.join(missing)}; {_instead(missing, arrays)}")
        splits[split] = arrays
        _check_shapes(path, split, arrays)
    return splits


def _instead(missing: list[str], mapping: Mapping[Any, Any]) -> str:
    """What was found where `missing` was not, with the names that may be meant."""
    keys = [said(key)[:30] for key in mapping]
    others = [key for key in keys if key not in (*SPLITS, *MODALITIES, "labels", "id")]
    found = f"found {listed(keys, missing[0])}"
    near = {near: key for key in missing if (near := likely(key, others))}
    if len(near) < len(missing):
        return f"{found}; get the complete file"
    return f"{found}; did you mean {listed(list(near))}? rename to {listed(list(near.values()))}"


def _check_shapes(path: Path, split: str, arrays: Mapping[str, Any]) -> None:
    for key in MODALITIES:
        array = arrays[key]
        numbers = hasattr(array, "dtype") and array.dtype.kind in "fiu"
        if not numbers or len(array.shape or ()) != 3 or 0 in array.shape[1:]:
            raise UserError(
                f"{path}: {split}/{key} must be numbers of shape (n, steps, features), not {_what(array)}; "
                f"get the original file"
            )
    samples, steps = arrays["text"].shape[:2]
    if not samples:
        raise UserError(f"{path}: split {split} is empty; get the complete file")
    for key in MODALITIES:
        shape = arrays[key].shape
        if shape[:2] == (samples, steps):
            continue
        if shape[0] == samples and len({arrays[k].shape[2] for k in MODALITIES}) == 1:
            raise UserError(
                f"{path}: {split}/{key} has shape {shape}, text {arrays['text'].shape}: they look transposed; swap the "
                f"last two axes, steps come before features"
            )
        raise UserError(
            f"{path}: {split}/{key} has {shape[0]} samples of {shape[1]} steps, text has {samples} of {steps}; use the "
            f"file whose modalities are aligned to the words"
        )


def _what(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if hasattr(value, "dtype") else f"a {type(value).__name__}"


def check_layout(name: str, path: Path, splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What speaks against a file being dataset `name`'s, found beside expected: nothing, or one sentence.

    Sizes near the known ones, or a part of them in their proportions, are the name's, whatever the layout.

    Raises:
        UserError: the splits differ in layout, or layout and sizes are another dataset's.
    """
    layouts: dict[str, Layout] = {
        split: ({key: int(arrays[key].shape[2]) for key in MODALITIES}, int(arrays["text"].shape[1]))
        for split, arrays in splits.items()
    }
    layout = layouts["train"]
    for split, its in layouts.items():
        if its != layout:
            raise UserError(
                f"{path}: {split} has features {_in_words(its)}, train has {_in_words(layout)}; get the original file"
            )
    sizes = {split: len(arrays["text"]) for split, arrays in splits.items()}
    known = FILES[name]
    if sizes == known.samples and layout == known.layout:
        return []
    found = f"{_sizes(sizes)} samples of {_in_words(layout)}"
    expected = f"{name} is known with {' or '.join(map(_sizes, known.known_samples))} of {_in_words(known.layout)}"
    alike = {other: _likeness(sizes, FILES[other]) for other in FILES}
    same_layout = [other for other in FILES if layout in _layouts(other)]
    if not alike[name]:
        others = [other for other in same_layout if other != name and alike[other]]
        if name not in same_layout:
            others = others or [other for other in same_layout if FILES[other].layout == layout]
        if others:
            other = others[0]
            shared = f"also {name}'s" if name in same_layout else f"not {name}'s"
            of_sizes = f"{other}'s sizes ({alike[other]})" if alike[other] else "sizes of neither"
            raise UserError(
                f"{path}: {found} are {other}'s layout ({shared}) and {of_sizes}, {expected}; if it is {other}'s, name "
                f"it {FILES[other].names[0]}, else bring it as your own data with --dataset NAME=FILE.npz"
            )
    elif sizes != known.samples:
        expected += f" ({alike[name]})"
    hints = [f"sizes like {other}'s" for other in FILES if other != name and alike[other] and not alike[name]]
    hints += [f"the layout of {other}" for other in same_layout if other != name and layout != known.layout]
    doubt = f", with {' and '.join(hints)}" if hints else ""
    return [f"{found}{doubt}; {expected}: check that it is {name}'s file"]


def _layouts(name: str) -> list[Layout]:
    """Those in which a dataset's files are known: built by the authors' tools, mosi has mosei's."""
    return [FILES[name].layout, *([FILES["mosei"].layout] if FILES[name].rebuilt else [])]


def _likeness(sizes: Mapping[str, int], known: MultiBenchFile) -> str:
    """How sizes are like a dataset's, in words; nothing if they are not."""
    for samples in known.known_samples:
        ratios = {split: sizes[split] / samples[split] for split in SPLITS}
        off = max(SPLITS, key=lambda split: abs(ratios[split] - 1))
        if abs(ratios[off] - 1) <= _NEAR:
            return f"{off} {100 * (ratios[off] - 1):+.2g} %" if ratios[off] != 1 else "exactly"
    for samples in known.known_samples:
        ratios = {split: sizes[split] / samples[split] for split in SPLITS}
        largest = max(ratios.values())
        if min(sizes.values()) >= _ENOUGH and largest / min(ratios.values()) - 1 <= _PROPORTIONAL and largest < 1:
            return f"{100 * sizes['train'] / samples['train']:.2g} % of every split"
    return ""


def _sizes(samples: Mapping[str, int]) -> str:
    return "/".join(str(samples[split]) for split in SPLITS)


def _in_words(layout: Layout) -> str:
    return f"{'/'.join(str(layout[0][key]) for key in MODALITIES)} in {layout[1]} steps"


def label_rule(name: str, neutral: Neutral) -> str:
    if not FILES[name].sentiment:
        return "label 1 is positive, 0 or -1 negative"
    return f"label {'>=' if neutral == 'positive' else '>'} 0 is positive"


def beyond_scale(name: str, path: Path, splits: Mapping[str, Any]) -> list[str]:
    """Nothing, or the sentence that sentiments beyond 3 are a known artefact and count as 3.

    Some sentences of MOSEI were annotated more than three times and their sum was still divided by three: few
    labels, at most 5, never below -3.

    Args:
        splits: (n, …) labels per split, as stored.

    Raises:
        UserError: labels beyond what that explains.
    """
    if not FILES[name].sentiment:
        return []
    values = {split: np.asarray(labels).reshape(-1) for split, labels in splits.items()}
    every = np.concatenate(list(values.values()))
    outside = {split: int(np.count_nonzero(np.abs(v) > 3)) for split, v in values.items()}
    total = sum(outside.values())
    if not total:
        return []
    split = next(split for split, count in outside.items() if count)
    largest = values[split][np.abs(values[split]).argmax()]
    where = f"{path}: {split}/labels holds {largest:g}, outside [-3, 3]"
    if every.min() >= 0 and (every == np.round(every)).all():
        kinds = len(np.unique(every))
        raise UserError(
            f"{where}: whole numbers from {every.min():g} look like {kinds} classes; use the sentiment file"
        )
    artefact = every.max() <= FILES[name].largest_label and every.min() >= -3
    if not artefact or total > _ARTEFACT_SHARE * len(every):
        raise UserError(
            f"{where} ({total} of {len(every)} labels), where sentiments must be; use the labels of sentiment, unscaled"
        )
    per_split = ", ".join(f"{count} of {split}" for split, count in outside.items() if count)
    return [
        f"{total} of {len(every)} labels ({per_split}) lie in (3, {FILES[name].largest_label:g}], a known artefact of "
        f"the annotation: they count as 3, which changes no class"
    ]


def classes(name: str, path: Path, split: str, labels: Any, neutral: Neutral) -> NDArray[np.int64]:
    """(n,) classes 0 and 1, from labels of shape (n, 1, 1), (n, 1) or (n,)."""
    where = f"{path}: {split}/labels"
    if not hasattr(labels, "dtype") or labels.dtype.kind not in "fiu" or not labels.shape:
        raise UserError(f"{where} must be an array of numbers, not {_what(labels)}; get the original file")
    values = np.asarray(labels)
    sentiment = FILES[name].sentiment
    if values.size != len(values):
        which = "the sentiment" if sentiment else "the classes"
        first = " (of MOSEI's seven the first)" if name == "mosei" and values.shape[-1] == 7 else ""
        raise UserError(
            f"{where} has shape {values.shape}, more than one label per sample; keep the column of {which}{first}"
        )
    values = values.reshape(-1)
    if not np.isfinite(values).all():
        raise UserError(
            f"{where} holds {np.count_nonzero(~np.isfinite(values))} NaN or infinite; get the original file"
        )
    if sentiment:
        return (values >= 0 if neutral == "positive" else values > 0).astype(np.int64)
    found = np.unique(values).tolist()
    if not (set(found) <= {0, 1} or set(found) <= {-1, 1}):
        shown = listed([f"{value:g}" for value in found], shown=8)
        raise UserError(f"{where} holds {shown}, not 0 and 1 or -1 and 1; is it {name}'s file?")
    return (values > 0).astype(np.int64)


def sentiment_scores(labels: Any) -> NDArray[np.float32]:
    """(n,) sentiments of labels as stored, those beyond the scale cut to it."""
    scores: NDArray[np.float32] = np.clip(np.asarray(labels).reshape(-1), -3, 3).astype(np.float32)
    return scores


def check_ids(path: Path, splits: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], DataKind]:
    """Warnings about the ids, and whether they say that the data are simulated.

    Raises:
        UserError: labels or ids of another number than the samples.
    """
    warnings: list[str] = []
    ids: dict[str, list[tuple[str, ...]]] = {}
    for split, arrays in splits.items():
        samples = len(arrays["text"])
        for key in ("labels", "id"):
            if key in arrays and not _is_column(arrays[key]):
                raise UserError(f"{path}: {split}/{key} is {_what(arrays[key])}, not an array; get the original file")
            if key in arrays and len(arrays[key]) != samples:
                raise UserError(
                    f"{path}: {split}/{key} has {len(arrays[key])} entries, text has {samples} samples; "
                    f"get the original file"
                )
        if "id" not in arrays:
            warnings.append(f"{split} has no ids: samples in two splits cannot be seen")
            continue
        ids[split] = _id_rows(path, split, arrays["id"])
        backward = _backward(ids[split])
        if backward:
            warnings.append(
                f"{split}/id goes backward at {backward} of {samples} samples: check that ids, features and labels "
                f"were not shuffled apart"
            )
    seen: Counter[tuple[str, ...]] = Counter()
    for split, rows in ids.items():
        again = sum(count > 1 for count in Counter(rows).values())
        if again:
            warnings.append(f"{split}/id holds {again} ids more than once: samples may be repeated")
        for earlier in SPLITS[: SPLITS.index(split)]:
            shared = len(set(rows) & set(ids.get(earlier, [])))
            if shared:
                warnings.append(f"{shared} ids are in {earlier} and in {split}: samples leak between the splits")
        seen.update(rows)
    simulated = bool(seen) and all(row[0].startswith(SIMULATED) for row in seen)
    return warnings, "simulated" if simulated else "multibench"


def _is_column(value: Any) -> bool:
    return bool(value.shape) if hasattr(value, "dtype") else isinstance(value, list | tuple)


def _id_rows(path: Path, split: str, ids: Any) -> list[tuple[str, ...]]:
    """One tuple of strings per sample, from ids or rows such as (video, start, end)."""
    rows = []
    for entry in ids[:].tolist() if hasattr(ids, "dtype") else ids:
        parts = list(entry) if isinstance(entry, list | tuple) else [entry]
        if not parts or not all(isinstance(part, str | bytes | int | float) for part in parts):
            raise UserError(f"{path}: {split}/id must hold names, numbers or rows of them; get the original file")
        if any(isinstance(part, int) and abs(part) >= 1 << 63 for part in parts):
            raise UserError(f"{path}: {split}/id holds a number of more than 64 bits; get the original file")
        rows.append(tuple(part.decode("latin1") if isinstance(part, bytes) else str(part) for part in parts))
    return rows


def _backward(rows: list[tuple[str, ...]]) -> int:
    """How many samples come before their predecessor: numbers that fall, or segments of a video (video, start,
    end) that start earlier or end before they start."""

    def number(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            return float("nan")  # compares false with everything: names have no order

    count = 0
    previous: tuple[str, ...] = ()
    for row in rows:
        if len(row) == 3:
            count += number(row[2]) < number(row[1]) or (
                row[:1] == previous[:1] and number(row[1]) < number(previous[1])
            )
        elif len(row) == 1 and previous:
            count += number(row[0]) < number(previous[0])
        previous = row
    return count
