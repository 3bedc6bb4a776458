"""What processes that died left in a store, cleared at the next start.

    runs/<run>/                              with the tag of the process that ran it in its name (s3ray/traces.py)
    data/.<content>-<tag>-…/                 a dataset that was being published
    .writable-<tag>-…, **/<tag>-….tmp        a file that was being written
    .conditions-<tag>-…                      the same, to try conditional writes
    artifacts/<stage>/<identity>/<attempt>/  that no marker names
    checkpoints/<identity>/                  of a run that is committed: its writer died before it deleted them

A store may lie in a folder with other things: only names that we give, whole, are looked at.

What proves that nobody needs them any more, the rules:

- A process of this machine and of our space of process numbers lives or does not; the system says which. A number that
  was given again is told apart by when its process started. Of a run the driver counts: its workers end with it.
- What is known of cells that failed is kept for a week after its last line, whoever wrote it: somebody may ask why.
- Checkpoints of a committed run need no proof: what a writer that comes second still saves there changes nothing.
- Of any other process, and of what has no tag, such as an attempt: nothing in it has been written for 24 hours by the
  storage's own clock. All of these are written for seconds, or every few seconds. One that was stopped for a day and
  goes on finds its file gone, and fails with a sentence or begins again: no result depends on one.

What has a marker, published data, results, other checkpoints and claims are never touched. Attempts and unfinished
files are looked for on a disk alone: an object appears when it is complete, and listing all of them costs minutes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pyarrow import fs as pafs

from s3ray.store.marker import Marker
from s3ray.store.store import Store
from s3ray.traces import TAGGED, has_died, named, tag

HOURS = 24.0
FAILED_HOURS = 7 * HOURS
_FOLDERS = ("artifacts", "checkpoints", "claims", "data", "environments", "results", "search", "tensorboard")
_STAGED = re.compile(rf"\.[0-9a-f]{{64}}-{TAGGED}[a-z0-9_]{{8}}", re.ASCII)
_PROBE = re.compile(rf"\.writable-{TAGGED}([0-9a-f]{{32}}|now)|\.conditions-{TAGGED}[0-9a-f]{{32}}(\.~\d+)?", re.ASCII)
_UNFINISHED = re.compile(rf"{TAGGED}[0-9a-f]{{32}}\.tmp", re.ASCII)
_IDENTITY, _ATTEMPT = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{12}")


def clear_leftovers(store: Store) -> list[str]:
    """Delete them; returns what they were, as paths within the store. What cannot be looked at or deleted stays."""
    cleared = []
    for found in leftovers(store, storage_time(store)):
        with suppress(OSError):
            is_file = store.fs.get_file_info(store.path(found)).is_file
            (store.fs.delete_file if is_file else store.fs.delete_dir)(store.path(found))
            cleared.append(found)
    return cleared


def leftovers(store: Store, now: float | None) -> Iterator[str]:
    """What they are, as paths within the store.

    Args:
        now: `storage_time`; None if that is not known: then those are left out that only their age tells.
    """
    for found in _candidates(store):
        with suppress(OSError):  # another sweep clears it, too, or it is somebody else's
            died, failed = has_died(found.rpartition("/")[2]), _tells_of_failures(store, found)
            if died is None or (died and failed):
                written = _last_written(store, found)
                hours = FAILED_HOURS if failed else HOURS
                died = now is not None and written is not None and now - written > hours * 3600
            if died:
                yield found
    yield from _outlived(store)


def _tells_of_failures(store: Store, found: str) -> bool:
    """Whether it is of a call that gave cells up: `s3ray logs` tells why."""
    return found.startswith("runs/") and bool(store.names(found, "failures"))


def storage_time(store: Store) -> float:
    """Seconds, by the storage's clock: a file is written for it, and deleted.

    Raises:
        OSError: the storage takes no writes.
    """
    name = f".writable-{tag()}-now"
    store.write("", name)
    written: int | None = store.fs.get_file_info(store.path(name)).mtime_ns
    if written is None:
        raise OSError(f"{name} was written, and is not there")
    store.fs.delete_file(store.path(name))
    return written / 1e9


def _candidates(store: Store) -> Iterator[str]:
    """Paths within the store."""
    for name in _entries(store, "runs"):
        if named(name):
            yield f"runs/{name}"
    for name in _entries(store):
        if _PROBE.fullmatch(name):
            yield name
    if not store.is_local:
        return
    base = Path(store.base)
    for name in _entries(store, "data"):
        if _STAGED.fullmatch(name):
            yield f"data/{name}"
    for name in _entries(store):
        if _UNFINISHED.fullmatch(name) and (base / name).is_file():
            yield name
    for folder in _FOLDERS:
        # Unlike rglob it goes on where a folder vanishes or cannot be read.
        for place, _, names in os.walk(base / folder):
            yield from ((Path(place) / n).relative_to(base).as_posix() for n in names if _UNFINISHED.fullmatch(n))
    for stage in _entries(store, "artifacts"):
        for identity in filter(_IDENTITY.fullmatch, _entries(store, "artifacts", stage)):
            with suppress(OSError):
                yield from (f"artifacts/{stage}/{identity}/{a}" for a in _unnamed(store, stage, identity))


def _outlived(store: Store) -> Iterator[str]:
    """Folders of checkpoints whose run is committed."""
    if not (identities := list(filter(_IDENTITY.fullmatch, _entries(store, "checkpoints")))):
        return
    stages = _entries(store, "artifacts")
    asked = [(stage, identity) for identity in identities for stage in stages]

    def counts(run: tuple[str, str]) -> bool:
        with suppress(OSError):
            return store.marker_of(*run) is not None
        return False

    for (_, identity), is_committed in zip(asked, store.parallel(counts, asked), strict=True):
        if is_committed:
            yield f"checkpoints/{identity}"


def _unnamed(store: Store, stage: str, identity: str) -> set[str]:
    """Attempts on a disk that no marker names. What is damaged stays as evidence: its name ends otherwise."""
    folder = Path(store.path("artifacts", stage, identity))
    names = _entries(store, "artifacts", stage, identity)
    attempts = {name for name in names if _ATTEMPT.fullmatch(name) and (folder / name).is_dir()}
    # Nearly all have one attempt and its marker, which need not be read.
    if not attempts or (len(attempts) == 1 and "commit.json" in names):
        return set()
    if (content := store.marker_content(stage, identity)) is None:
        return attempts
    marker = Marker.of(content, stage, identity)
    return attempts - {marker.attempt} if marker else set()  # one that cannot be read may name any of them


def _entries(store: Store, *folder: str) -> list[str]:
    """Names in a folder; none if it is not there or, on a disk, cannot be read."""
    place = store.path(*folder) if folder else store.base
    if store.is_local:
        with suppress(OSError):
            return os.listdir(place)
        return []
    return [info.base_name for info in store.fs.get_file_info(pafs.FileSelector(place, allow_not_found=True))]


def _last_written(store: Store, found: str) -> float | None:
    """When anything in it was written last, by the storage's clock; None if that is not known."""
    infos = [store.fs.get_file_info(store.path(found))]
    if not infos[0].is_file:
        infos += store.fs.get_file_info(pafs.FileSelector(store.path(found), allow_not_found=True, recursive=True))
    return max((info.mtime_ns / 1e9 for info in infos if info.mtime_ns), default=None)
