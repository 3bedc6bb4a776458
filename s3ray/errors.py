"""Errors for users, and the remedies they name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. One sentence that says what is wrong, where, and what to do about it."""


def nearest(name: str, candidates: Iterable[str]) -> str:
    """The sentence's remedy for a mistyped name: the closest candidate first, then all of them."""
    names = sorted(candidates)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    suggestion = f"did you mean {close[0]!r}? " if close else ""
    return f"{suggestion}known: {', '.join(names)}"
