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


def meant(text: str, labels: Iterable[str], what: str) -> str:
    """The one label that a text means: itself, or the only one that has its words.

    Words that a label has as a whole are preferred to parts of words: `seed=1` is not `seed=10`.

    Args:
        what: the labels are called, in complaints.

    Raises:
        UserError: none is meant, or several are.
    """
    names, words = list(labels), text.casefold().split()
    whole = [name for name in names if set(words) <= set(name.casefold().split())]
    found = [name for name in names if name == text] or whole
    found = found or [name for name in names if all(word in name.casefold() for word in words)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{text}: may be each of {_few(found)}; name more of it")
    close = difflib.get_close_matches(text, names, n=3, cutoff=0.0)
    raise UserError(f"{text}: is no name of {what}; {f'the nearest: {_few(close)}' if close else 'there is none'}")


def _few(names: list[str], shown: int = 10) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
