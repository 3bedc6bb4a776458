"""Errors for users, and the remedies they name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. One sentence that says what is wrong, where, and what to do about it."""

    def __init__(self, sentence: str) -> None:
        super().__init__(printable(sentence))


STAYS = "what was committed stays, run again to continue"


class LostError(UserError):
    """What a sweep stood on is gone: Ray or the storage. One sentence, too."""


class DamagedError(UserError):
    """Something stored that is not what was written, or no longer there. One sentence, too."""


def printable(text: str, keep: str = "") -> str:
    """Text with what could move a cursor, change a colour or end a line as escapes: names may come from strangers."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The sentence's remedy for a mistyped name: the closest candidate first, then all of them."""
    names = sorted(candidates)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    suggestion = f"did you mean {close[0]!r}? " if close else ""
    return f"{suggestion}known: {', '.join(names)}"
