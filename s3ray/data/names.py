"""Names that other loaders use for what is called otherwise here, and lists of what was found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

# What a split, the labels and the modalities are called elsewhere.
_ELSEWHERE = {
    "train": ("training", "trn", "tr"),
    "valid": ("val", "dev", "validation", "development", "eval"),
    "test": ("testing", "tst", "te"),
    "label": ("labels", "y", "ys", "target", "targets", "class", "classes", "regression_labels"),
    "labels": ("label", "regression_labels", "y", "ys", "target", "targets", "class", "classes"),
    "vision": ("visual", "video", "image", "facet", "openface"),
    "audio": ("acoustic", "speech", "covarep", "opensmile"),
    "text": ("glove", "words", "language", "bert", "text_bert"),
}
# What stands beside the inputs.
LABELS = frozenset(_ELSEWHERE["label"]) - {"y", "ys"} | {"label", "gnd", "truth", "truelabel", "true_label"}
LABELS |= {"groundtruth", "ground_truth", "activity", "category"}
GROUPS = {"subject", "subjects", "subject_id", "participant", "participant_id", "patient", "patient_id", "user"}
GROUPS |= {"user_id", "group", "groups", "speaker", "speaker_id", "person", "session"}
SPLITS = {"split", "set", "partition", "subset", "usage", "fold"}
TIMES = {"time", "timestamp", "t", "step", "date", "datetime", "frame"}
IDS = {"id", "ids", "idx", "index", "uid", "uids", "name", "names", "key", "keys", "segment", "segments", "video"}
IDS |= {
    "videos",
    "video_id",
    "video_ids",
    "sample",
    "sample_id",
    "sample_ids",
    "filename",
    "filenames",
    "file",
    "files",
}
IDS |= {"path"}
_SHOWN = 20


def likely(wanted: str, found: Iterable[str]) -> str | None:
    """Which of `found` is `wanted` by another name: another case, a name used elsewhere, a typing error."""
    names = {name.lower(): name for name in reversed(list(found))}
    for name in (wanted, *_ELSEWHERE.get(wanted, ())):
        if name in names:
            return names[name]
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.75)
    return names[close[0]] if close else None


def stands_beside(name: str, is_column: bool) -> bool:
    """Whether what has this name is no modality: as one, the labels or their like would be an input.

    Args:
        is_column: it has one value per sample, as ids and groups have; an array that is called video has more.
    """
    word = name.strip().lower()
    return (
        word in LABELS
        or any(part in word for part in ("label", "onehot", "one_hot", "mask"))
        or (is_column and (not word or word.startswith("unnamed: ") or word in IDS | GROUPS | TIMES | SPLITS))
    )


def split_named(word: str) -> str | None:
    """The split that a word means, however it is called."""
    word = word.lower()
    return next((s for s in ("train", "valid", "test") if word == s or word in _ELSEWHERE[s]), None)


def listed(found: Sequence[str], wanted: str = "", shown: int = _SHOWN) -> str:
    """`found` as a list, the nearest to `wanted` first where it must be cut."""
    if len(found) > shown and wanted:
        first = likely(wanted, found)
        near = sorted(found, key=lambda name: -difflib.SequenceMatcher(None, wanted, name).ratio())
        found = list(dict.fromkeys([*([first] if first else []), *near]))
    more = f" … and {len(found) - shown} more" if len(found) > shown else ""
    return (", ".join(found[:shown]) or "nothing") + more


def did_you_mean(wanted: str, found: Iterable[str]) -> str:
    """'did you mean …? rename it', or nothing."""
    near = likely(wanted, found)
    return f"did you mean {near}? rename it to {wanted}" if near else ""
