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
_SHOWN = 20


def likely(wanted: str, found: Iterable[str]) -> str | None:
    """Which of `found` is `wanted` by another name: another case, a name used elsewhere, a typing error."""
    names = {name.lower(): name for name in reversed(list(found))}
    for name in (wanted, *_ELSEWHERE.get(wanted, ())):
        if name in names:
            return names[name]
    close = difflib.get_close_matches(wanted, names, n=1, cutoff=0.75)
    return names[close[0]] if close else None


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
