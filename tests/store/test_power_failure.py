"""What a power failure may leave on a disk, at every moment of what writes there.

What is on the disk for certain: the content of a file once it was synced, names once their folder was. Of all else
anything may be there or not: names of which nobody knows whether they came or went, files that are empty or zeros. What
one call does to names, as a renaming, is done as a whole. What was promised must hold in each of these states, and each
sync must be needed for that: without it a state is found in which it does not.
"""

from __future__ import annotations

import builtins
import hashlib
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.errors import UserError
from s3ray.store import Marker, Store
from toy_runs import toy_run

RUN = toy_run()
CHILD = toy_run(1, RUN)
FILES = {"a.bin": b"payload" * 9, "b.bin": b"more" * 9}
SPLIT = Split({"only": Sequences.from_padded(np.ones((2, 1, 1)))}, np.arange(2))
DATA = Dataset("tiny", "simulated", SPLIT, SPLIT, SPLIT)

Change = tuple[int, str, int | None]  # in a folder a name means something else, or nothing any more
Promise = Callable[[Path], bool]


class Disk:
    """Watches a folder. Files and folders are known by their numbers, which stay theirs while we have them open.

    Args:
        forgotten: which of the syncs does nothing.
    """

    def __init__(self, root: Path, promises: Callable[[Path, list[str]], None], forgotten: int | None = None) -> None:
        root.mkdir()
        self._root, self._promises, self._forgotten = root, promises, forgotten
        self._open: dict[int, int] = {}
        self._names: dict[int, dict[str, int]] = {}  # of each folder, as programs see them
        self._kept: dict[int, dict[str, int]] = {}  # on the disk
        self._contents: dict[int, bytes] = {}  # on the disk
        self._pending: list[list[Change]] = []
        self._seen: set[str] = set()
        self.syncs, self.done = 0, list[str]()
        self._look()

    def __enter__(self) -> Disk:
        self._stack, self._is_ours = ExitStack(), False
        for owner, name in [
            *((os, name) for name in ("fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir")),
            (builtins, "open"),
            (io, "open"),
        ]:
            self._stack.enter_context(mock.patch.object(owner, name, partial(self._call, getattr(owner, name))))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for descriptor in self._open.values():
            os.close(descriptor)

    def tell(self, done: str) -> None:
        """Something has returned, and is promised from now on."""
        self.done.append(done)
        self._fail()

    def _call(self, original: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        answer = original(*arguments, **options)
        if not self._is_ours:
            self._is_ours = True
            try:
                is_changed = self._look()
                if original.__name__ == "fsync":
                    is_changed, self.syncs = True, self.syncs + 1
                    if self.syncs - 1 != self._forgotten:
                        self._sync(os.fstat(arguments[0]).st_ino)
                if is_changed:
                    self._fail()
            finally:
                self._is_ours = False
        return answer

    def _look(self) -> bool:
        """Whether names have changed."""
        names = dict(self._walk(self._root))
        changes: list[Change] = []
        for folder in names.keys() | self._names.keys():
            before, now = self._names.get(folder, {}), names.get(folder, {})
            changes += [(folder, n, now.get(n)) for n in before.keys() | now.keys() if before.get(n) != now.get(n)]
        if any(inode is not None for _, _, inode in changes):
            self._pending.append(changes)
        else:  # a deleted folder is many calls
            self._pending += [[change] for change in changes]
        self._names = names
        return bool(changes)

    def _walk(self, folder: Path) -> Iterator[tuple[int, dict[str, int]]]:
        entries = list(os.scandir(folder))
        for entry in entries:
            if entry.inode() not in self._open:
                self._open[entry.inode()] = os.open(entry.path, os.O_RDONLY)
            if entry.is_dir():
                yield from self._walk(Path(entry.path))
        yield folder.stat().st_ino, {entry.name: entry.inode() for entry in entries}

    def _sync(self, inode: int) -> None:
        if inode not in self._names:
            if inode in self._open:
                self._contents[inode] = self._content(inode)
            return
        self._kept[inode] = dict(self._names[inode])
        left = [[change for change in changes if change[0] != inode] for changes in self._pending]
        self._pending = [changes for changes in left if changes]

    def _content(self, inode: int) -> bytes:
        return os.pread(self._open[inode], 1 << 20, 0)

    def _fail(self) -> None:
        """Look at what may be left now: of the names that nobody knows of all, none, each alone, or all but one.

        Unfinished files and folders, of whose names nobody takes notice, are left out.
        """
        several = self._pending
        chosen = [several, [], *([one] for one in several), *([o for o in several if o is not one] for one in several)]
        for changes in chosen:
            for zeros in (False, True):
                self._is_ours, was_ours = True, self._is_ours
                self._look_at(changes, zeros)
                self._is_ours = was_ours

    def _look_at(self, applied: list[list[Change]], zeros: bool) -> None:
        names = {folder: dict(entries) for folder, entries in self._kept.items()}
        for folder, name, inode in (change for changes in applied for change in changes):
            names.setdefault(folder, {})[name] = inode  # type: ignore[assignment]
        files = dict(self._files(self._root.stat().st_ino, Path(), names, zeros))
        files = {path: content for path, content in files.items() if not re.search(r"/\.|\.tmp(/|$)", str(path))}
        state = hashlib.sha256(repr((sorted(files.items()), self.done)).encode()).hexdigest()
        if state in self._seen:
            return
        self._seen.add(state)
        left = self._root.parent / f"left-{len(self._seen)}"
        left.mkdir()
        for path, content in files.items():
            if content is None:
                (left / path).mkdir()
            else:
                (left / path).write_bytes(content)
        self._promises(left, self.done)
        shutil.rmtree(left)

    def _files(
        self, folder: int, path: Path, names: dict[int, dict[str, int]], zeros: bool
    ) -> Iterator[tuple[Path, bytes | None]]:
        """Paths, folders first, with contents; None: a folder."""
        for name, inode in sorted(names.get(folder, {}).items()):
            if inode is None:
                continue
            if os.path.isdir(f"/proc/self/fd/{self._open[inode]}"):
                yield path / name, None
                yield from self._files(inode, path / name, names, zeros)
            else:
                yield path / name, self._contents.get(inode, bytes(len(self._content(inode))) if zeros else b"")


def commits(store: Store, disk: Disk, *, with_links: bool = True) -> None:
    store.__dict__["honours_conditions"] = with_links  # known before
    parent = store.commit(RUN, FILES, seconds=1.0, provenance={}).marker
    disk.tell("RUN")
    store.commit(CHILD, {"a.bin": b"child"}, seconds=1.0, provenance={}, parent=parent)
    disk.tell("CHILD")


def commits_without_links(store: Store, disk: Disk) -> None:
    commits(store, disk, with_links=False)


def saves_checkpoints(store: Store, disk: Disk) -> None:
    for step in (1, 2, 3):
        store.save_checkpoint(RUN, step, b"progress" * step)
        disk.tell(f"step {step}")


def publishes(store: Store, disk: Disk) -> None:
    prepared = Path(store.base).parent / "prepared"
    DATA.save(prepared)
    disk.tell("prepared")
    store.publish_dataset(Dataset.open(prepared))
    disk.tell("data")


def claims(store: Store, disk: Disk) -> None:
    version = store.conditional.create("claims/x/claim.json", b"claim 0")
    disk.tell("claim 0")
    for number in (1, 2):
        assert version is not None
        version = store.conditional.replace("claims/x/claim.json", b"claim %d" % number, version)
        disk.tell(f"claim {number}")


def promised(left: Path, done: list[str]) -> None:
    """What has returned is there; what is there is whole."""
    store = Store(str(left / "store"))
    for run, name, files in ((RUN, "RUN", FILES), (CHILD, "CHILD", {"a.bin": b"child"})):
        content = store.marker_content("selection", run.identity)
        assert content is not None or name not in done
        if content is not None:
            marker = Marker.of(content, "selection", run.identity)
            assert marker is not None
            assert store.marker(run) == marker
            assert {name: store.payload(marker, name) for name in marker.files} == files
    steps = [int(name.partition(" ")[2]) for name in done if name.startswith("step")]
    latest = store.checkpoint_step(RUN)
    assert (latest or 0) >= max(steps, default=0)
    assert [int(name[:9]) for name, _ in store.checkpoints(RUN)][:1] == ([latest] if latest else [])
    for name, place in (("data", left / "store" / "data" / DATA.content()), ("prepared", left / "prepared")):
        assert place.exists() or name not in done
        if place.exists():
            assert Dataset.open(place).damaged() == []
    there = store.conditional.read("claims/x/claim.json")
    numbers = [name for name in done if name.startswith("claim")]
    assert there is not None or not numbers
    assert there is None or there[0].decode() >= max(numbers, default="claim 0")


WRITERS = [commits, commits_without_links, saves_checkpoints, publishes, claims]


def tried(writer: Callable[[Store, Disk], None], place: Path, forgotten: int | None = None) -> int:
    """Number of syncs; AssertionError if a promise is broken."""
    place.mkdir()
    with Disk(place / "disk", promised, forgotten) as disk:
        writer(Store(str(place / "disk" / "store")), disk)
    shutil.rmtree(place)
    return disk.syncs


@pytest.mark.slow  # seconds
@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_promised_outlasts_a_power_failure_and_needs_each_sync(
    writer: Callable[[Store, Disk], None], tmp_path: Path
) -> None:
    syncs = tried(writer, tmp_path / "all")
    assert syncs
    for number in range(syncs):
        with pytest.raises((AssertionError, UserError)):
            tried(writer, tmp_path / f"without-{number}", number)
