"""Stage runs that nobody runs, and results that nobody computed, for what only stores them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Any
from unittest import mock

from s3ray.stages.stage import Outcome, Stage, StageRun
from s3ray.store import Marker, Store

NO_FILES: Mapping[str, bytes] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    seed: int = 0


def _run(*_: Any) -> Outcome:
    return Outcome([])


def _estimate(*_: Any) -> float:
    return 1.0


def toy_run(seed: int = 0, parent: StageRun | None = None) -> StageRun:
    return StageRun(Stage("selection", 1, ToyConfig, _run, _estimate), ToyConfig(seed=seed), parent, "data")


def commit(
    store: Store,
    run: StageRun,
    files: Mapping[str, bytes] = NO_FILES,
    *,
    seconds: float = 1.0,
    provenance: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Commit a result; of its parents, those that the store lacks come without files."""
    commit_all(store, [(run, files)], seconds=lambda _: seconds, provenance=provenance)


def commit_all(
    store: Store,
    results: Iterable[tuple[StageRun, Mapping[str, bytes]]],
    *,
    seconds: Callable[[StageRun], float] = lambda _: 1.0,
    provenance: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Commit results in any order, parents first. They need not outlast a power failure, which takes time."""
    asked = {run.identity: (run, files) for run, files in results}
    parents = {parent.identity: parent for run, _ in asked.values() for parent in run.ancestors}
    markers = store.markers(parents.values())
    lacking = {identity: (run, NO_FILES) for identity, run in parents.items() if identity not in markers}
    generations = sorted({**lacking, **asked}.values(), key=lambda entry: len(entry[0].ancestors))

    def one(entry: tuple[StageRun, Mapping[str, bytes]]) -> Marker:
        run, files = entry
        parent = markers[run.parent.identity] if run.parent else None
        return store.commit(run, files, seconds=seconds(run), provenance=provenance, parent=parent).marker

    with mock.patch.object(os, "fsync"):
        for _, generation in groupby(generations, key=lambda entry: len(entry[0].ancestors)):
            markers.update((marker.identity, marker) for marker in store.parallel(one, list(generation)))


def overwrite(store: Store, marker: Marker, name: str, content: bytes) -> None:
    """Another file in the place of a committed one, as if it had been committed."""
    files = {**marker.files, name: (len(content), hashlib.sha256(content).hexdigest())}
    place = ("artifacts", marker.stage, marker.identity)
    store.write(content, *place, marker.attempt, name)
    store.write(dataclasses.replace(marker, files=files).content(), *place, "commit.json")
