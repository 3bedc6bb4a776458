"""Tables of JSON that tell whether they are what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def signed(table: Mapping[str, Any]) -> dict[str, Any]:
    """The table with its own sha256 under `digest`."""
    return {**table, "digest": digest_of(table)}


def digest_of(table: Mapping[str, Any]) -> str:
    """sha256 of all but `digest` itself, whatever the layout of its file."""
    # As it is read again: a tuple becomes a list, a number as a key a text.
    plain = json.loads(json.dumps({name: value for name, value in table.items() if name != "digest"}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
