"""What makes a result count: the commit marker, written after its payload."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s3ray.configuration import MANY
from s3ray.digests import digest_of, signed
from s3ray.stages.stage import Inputs, identity_of


@dataclass(frozen=True, slots=True)
class Marker:
    """A commit marker: the stage run's document, its files, seconds, and where they come from.

    Attributes:
        seconds: of all attempts that the result stands on, those before a resumption included.
        parent_stage: name of the stage of the document's parent, whose folder has its artifact.
        parent_attempt: the attempt of the parent that the result was computed from.
        inputs: of a trained model, what its shape takes from the data: `features` (width per modality) and
            `classes`.
        files: bytes and sha256 of each.
    """

    identity: str
    document: Mapping[str, Any]
    parent_stage: str | None
    parent_attempt: str | None
    inputs: Mapping[str, Any] | None
    attempt: str
    files: Mapping[str, tuple[int, str]]
    seconds: float
    committed_at: str
    provenance: Mapping[str, Any]

    def content(self) -> bytes:
        """The marker's file: JSON, with the sha256 of all the rest under `digest`."""
        plain = dataclasses.asdict(self)
        return json.dumps(signed(plain), indent=1).encode()

    @classmethod
    def of(cls, content: bytes, stage: str, identity: str) -> Marker | None:
        """The marker that `content` is, of sound fields; None: damaged, of another run or version."""
        try:
            plain = json.loads(content)
            digest = plain.pop("digest")
            files = {name: (size, sha256) for name, (size, sha256) in plain["files"].items()}
            marker = cls(**{**plain, "files": files})
            is_whole = digest == digest_of(plain) and marker._is_sound(stage, identity)
        except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
            return None
        return marker if is_whole else None

    def _is_sound(self, stage: str, identity: str) -> bool:
        """Whether the fields are what `commit` writes; an exception where they are of other types."""
        parent = self.document["parent"]
        return (
            # The identity covers the document, whose fields need no look of their own.
            (self.identity, self.document["stage"]) == (identity, stage)
            and identity_of(self.document) == identity
            and (parent is None) == (self.parent_stage is None) == (self.parent_attempt is None)
            and (self.inputs is None or _are_inputs(Inputs(**self.inputs)))
            and all(_is_name(name) for name in (self.attempt, self.parent_stage or "x", self.parent_attempt or "x"))
            and all(_is_name(name) and _is_count(size, 0) for name, (size, _) in self.files.items())
            and all(re.fullmatch("[0-9a-f]{64}", sha256, re.ASCII) for _, sha256 in self.files.values())
            and type(self.seconds) in (int, float)
            and 0 <= self.seconds <= MANY
            and dt.datetime.fromisoformat(self.committed_at).tzinfo is not None
            and all(isinstance(value, str | int | float | None) for value in self.provenance.values())
            and isinstance(self.machine, str | None)
            and _is_count(self.provenance.get("workers", 1))
        )

    @property
    def stage(self) -> str:
        return str(self.document["stage"])

    @property
    def machine(self) -> str | None:
        """The kind of machine that it ran on."""
        return self.provenance.get("machine")

    @property
    def workers(self) -> int:
        """Of the group that ran it, each for `seconds`."""
        return int(self.provenance.get("workers", 1))


def _is_count(value: Any, least: int = 1) -> bool:
    return type(value) is int and least <= value <= 2**63 - 1


def _are_inputs(inputs: Inputs) -> bool:
    counts = (inputs.classes, *inputs.features.values(), *inputs.subsampled.values(), *inputs.padded.values())
    return bool(inputs.features) and all(map(_is_count, counts)) and isinstance(inputs.standardized, bool)


def _is_name(value: Any) -> bool:
    """Whether it names a file or folder directly in another."""
    return isinstance(value, str) and re.fullmatch(r"\w[\w.+-]*", value, re.ASCII) is not None
