"""What makes a stage's result *that* result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

# Everything in a stage's config is hashed but these: labels, under which the same computation may appear.
UNHASHED = frozenset({"dataset", "scale"})


@dataclass(frozen=True)
class StageRun:
    """A stage with everything that its result depends on.

    Attributes:
        stage: name of the stage.
        version: raised when the stage's computation changes meaning.
        config: plain values and nested mappings of them.
        parent: identity of the stage run whose result this one starts from.
        data: fingerprint of the dataset.
    """

    stage: str
    version: int
    config: Mapping[str, Any]
    parent: str | None
    data: str

    @cached_property
    def document(self) -> dict[str, Any]:
        """All that is hashed, as it stands in the commit marker."""
        return {
            "stage": self.stage,
            "version": self.version,
            "config": {key: value for key, value in self.config.items() if key not in UNHASHED},
            "parent": self.parent,
            "data": self.data,
        }

    @cached_property
    def identity(self) -> str:
        """sha256 of the canonical JSON of `document`."""
        canonical = json.dumps(self.document, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()
