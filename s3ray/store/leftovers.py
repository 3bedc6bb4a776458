"""What processes that died left in a store, cleared at the next start.

    runs/<run>/                              with the tag of the process that ran it in its name (s3ray/traces.py)
    data/.<content>-<tag>-…/                 a dataset that was being published
    .writable-<tag>-…, **/<tag>-….tmp        a file that was being written
    artifacts/<stage>/<identity>/<attempt>/  that no marker names

What proves that nobody needs them any more, the rules:

- A process of this machine and of our space of process numbers lives or does not; the system says which. A number that
  was given again is told apart by when its process started. Of a run the driver counts: its workers end with it.
- Of any other process, and of an attempt, which may be any worker's: nothing in it has been written for 24 hours by the
  storage's own clock. All of these are written for seconds, or every few seconds. One that was stopped for a day and
  goes on finds its file gone, and fails with a sentence or begins again: no result depends on one.

What has a marker, published data, results, checkpoints and claims are never touched. Attempts and unfinished files are
looked for on a disk alone: an object appears when it is complete, and listing all of them costs minutes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pyarrow import fs as pafs

from s3ray.store.store import Marker, Store
from s3ray.traces import has_died, tag

HOURS = 24.0
# Of the names that may be there what is ours: a store may lie in a folder with other things.
_FOLDERS = ("artifacts", "checkpoints", "claims", "data", "results", "search", "tensorboard")
_STAGED = re.compile(r"\.[0-9a-f]{64}-")
_UNFINISHED = re.compile(r"(p[0-9a-f]{8}-\d+-\d+-)?[0-9a-f]{32}\.tmp")


def clear_leftovers(store: Store) -> list[str]:
    """Delete them; returns what they were, as paths within the store."""
    now = _now(store)
    cleared = []
    for found, tagged in _candidates(store):
        died = has_died(found.rpartition("/")[2]) if tagged else None
        if died is None:
            written = _last_written(store, found)
            died = written is not None and now - written > HOURS * 3600
        if died:
            with suppress(OSError):  # another sweep clears it, too
                is_file = store.fs.get_file_info(store.path(found)).is_file
                (store.fs.delete_file if is_file else store.fs.delete_dir)(store.path(found))
                cleared.append(found)
    return cleared


def _now(store: Store) -> float:
    """By the storage's clock."""
    name = f".writable-{tag()}-now"
    store.write("", name)
    now = store.modified()[name]
    store.fs.delete_file(store.path(name))
    return now


def _candidates(store: Store) -> Iterator[tuple[str, bool]]:
    """Paths within the store, and whether their names should have a tag."""
    for name in _entries(store, "runs"):
        yield f"runs/{name}", True
    for name in _entries(store, "."):
        if name.startswith(".writable-"):
            yield name, True
    if not store.is_local:
        return
    base = Path(store.base)
    for staging in (base / "data").glob(".*-*"):
        if _STAGED.match(staging.name):
            yield f"data/{staging.name}", True
    for folder in _FOLDERS:
        for file in (base / folder).rglob("*.tmp"):
            if _UNFINISHED.fullmatch(file.name) and file.is_file():
                yield file.relative_to(base).as_posix(), True
    for identity in base.glob("artifacts/*/*"):
        # What is damaged stays as evidence.
        attempts = {path.name for path in identity.iterdir() if path.is_dir() and path.suffix != ".damaged"}
        # Nearly all have one attempt and its marker, which need not be read.
        if len(attempts) == 1 and (identity / "commit.json").exists():
            continue
        stage, of = identity.parts[-2:]
        if (content := store.marker_content(stage, of)) is not None:
            marker = Marker.of(content, stage, of)
            attempts -= {marker.attempt} if marker else attempts  # one that cannot be read may name any of them
        for attempt in attempts:
            yield f"{identity.relative_to(base).as_posix()}/{attempt}", False


def _entries(store: Store, folder: str) -> list[str]:
    selector = pafs.FileSelector(store.path(folder) if folder != "." else store.base, allow_not_found=True)
    return [info.base_name for info in store.fs.get_file_info(selector)]


def _last_written(store: Store, found: str) -> float | None:
    """When anything in it was written last, by the storage's clock; None if that is not known."""
    infos = [store.fs.get_file_info(store.path(found))]
    if not infos[0].is_file:
        infos += store.fs.get_file_info(pafs.FileSelector(store.path(found), allow_not_found=True, recursive=True))
    return max((info.mtime_ns / 1e9 for info in infos if info.mtime_ns), default=None)
