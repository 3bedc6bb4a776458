"""Optuna's journal in a store, on any storage: a line per change of a study."""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from pyarrow import fs as pafs

from s3ray.errors import UserError
from s3ray.store.store import Store

FILE = "journal.log"


class StoreJournal(BaseJournalBackend):
    """A journal to which several processes may append, and from which no line vanishes.

    On a local disk it is one file, which grows at its end, under a lock; `optuna-dashboard` opens it. Object stores
    cannot append: there each writer has files of its own, and writes no other. Their names begin with the number of
    lines before them, so that one after the other they are the journal (`cat journal.log*`).

    What others append is read before every append, and whenever a journal is opened.

    Attributes:
        cut: a sentence if the last line was cut short (disk full, a copy taken while it grew) and is left out.

    Raises:
        UserError: a line before the last is damaged, or another process put lines between those that were read.
    """

    def __init__(self, store: Store, study: str) -> None:
        self._store, self._folder = store, ("search", study)
        self._files: dict[str, tuple[tuple[int, int], bytes]] = {}  # (size, time) when it was read, and its lines
        self._own, self._written = "", b""  # our file in an object store, and what it holds
        self._content = b""
        self._logs: list[dict[str, Any]] = []
        self.cut: str | None = None
        self._refresh()

    def read_logs(self, log_number_from: int) -> Sequence[dict[str, Any]]:
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        if self._store.is_local:
            self._append_in_place(lines)
        else:
            self._append_to_own(lines)

    def _refresh(self) -> None:
        """Read what others have appended."""
        selector = pafs.FileSelector(self._store.path(*self._folder), allow_not_found=True)
        infos = [i for i in self._store.fs.get_file_info(selector) if i.is_file and i.base_name.startswith(FILE)]
        files = {}
        for info in sorted(infos, key=lambda info: info.base_name):
            name, stamp = info.base_name, (info.size, info.mtime_ns)
            if name == self._own:  # our memory: a write that failed may have happened
                files[name] = stamp, self._written
            elif name in self._files and self._files[name][0] == stamp:
                files[name] = self._files[name]
            else:
                files[name] = stamp, self._whole_lines(name, self._read(name))
        self._files = files
        self._take({name: content for name, (_, content) in files.items()})

    def _read(self, name: str) -> bytes:
        if not self._store.is_local:
            return self._store.read(*self._folder, name)
        with open(self._store.path(*self._folder, name), "rb") as file:
            _lock(file, fcntl.LOCK_SH)  # no line that is being written
            return file.read()

    def _take(self, contents: Mapping[str, bytes]) -> None:
        """Parse what the journal has beyond what was read."""
        content = b"".join(contents.values())
        if not content.startswith(self._content):
            raise UserError(
                f"{self._address(FILE)}: another process wrote or deleted lines before those that this one knows; "
                f"stop one of the two and run again"
            )
        fresh = [line for line in content[len(self._content) :].splitlines() if line.strip()]
        if not all(map(_is_entry, fresh)):
            raise self._damage(contents)
        self._logs += map(json.loads, fresh)
        self._content = content

    def _whole_lines(self, name: str, raw: bytes) -> bytes:
        """`raw` without a last line that was cut short."""
        *_, last = raw.rstrip(b"\r\n").splitlines() or [b""]
        if not last or _is_entry(last):
            return raw if raw.endswith(b"\n") or not last else raw + b"\n"
        self.cut = f"{self._address(name)}: its last line was cut short and is left out"
        return raw[: raw.rindex(last)]

    def _damage(self, contents: Mapping[str, bytes]) -> UserError:
        name, number = next(
            (name, number)
            for name, content in contents.items()
            for number, line in enumerate(content.splitlines(), 1)
            if line.strip() and not _is_entry(line)
        )
        return UserError(
            f"{self._address(name)}: line {number} is damaged; put back a copy of the file, or delete the line, and "
            f"with it what it tells of a trial"
        )

    def _append_in_place(self, lines: bytes) -> None:
        self._refresh()
        name = next(reversed(self._files), FILE)
        path = Path(self._store.path(*self._folder, name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:
            _lock(file, fcntl.LOCK_EX)
            file.seek(0)
            raw = file.read()
            whole = self._whole_lines(name, raw)
            self._take({**{other: content for other, (_, content) in self._files.items()}, name: whole})
            end = len(raw)
            if whole[: len(raw)] != raw:  # a line that was cut short would run into ours
                end = file.truncate(len(whole))
            missing = whole[len(raw) :]  # its line feed, where only that was cut
            try:
                _write(file, missing + lines)
            except BaseException:
                file.truncate(end)
                raise
            self._take({**{other: content for other, (_, content) in self._files.items()}, name: whole + lines})

    def _append_to_own(self, lines: bytes) -> None:
        self._refresh()
        if not self._own or next(reversed(self._files), self._own) != self._own:  # somebody wrote after us
            number = self._content.count(b"\n")
            self._own, self._written = f"{FILE}-{number:09d}-{uuid.uuid4().hex[:8]}", b""
        self._store.write(self._written + lines, *self._folder, self._own)
        self._written += lines
        others = {name: content for name, (_, content) in self._files.items() if name != self._own}
        self._take({**others, self._own: self._written})

    def _address(self, name: str) -> str:
        return self._store.address(*self._folder, name)


def _is_entry(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _lock(file: BinaryIO, kind: int) -> None:
    """Wait for others; a file system without locks still appends each line whole."""
    with suppress(OSError):
        fcntl.flock(file, kind)


def _write(file: Any, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    os.fsync(file.fileno())


class StudyStorage(JournalStorage):
    """Optuna's storage of one study, on its journal; `cut` as the journal has it."""

    def __init__(self, journal: StoreJournal) -> None:
        super().__init__(journal)
        self.cut = journal.cut


def journal_storage(store: Store, study: str) -> StudyStorage:
    """Optuna's storage of a study, its journal `search/<study>/journal.log`.

    Raises:
        UserError: the journal cannot be read, or does not tell of a study.
    """
    with store.explained("read", "check the place and your access to it"):
        journal = StoreJournal(store, study)
    try:
        storage = StudyStorage(journal)
        if journal.read_logs(0) and not storage.get_all_studies():
            raise LookupError("no line creates one")
        return storage
    except (AssertionError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{store.address('search', study, FILE)}: does not tell of a study ({type(error).__name__}: {error}); put "
            f"back a copy of the file, or delete it to start the search anew"
        ) from error


def journals(store: Store) -> list[str]:
    """The studies that have a journal in the store."""
    selector = pafs.FileSelector(store.path("search"), allow_not_found=True, recursive=True)
    found = {i.path.split("/")[-2] for i in store.fs.get_file_info(selector) if i.base_name.startswith(FILE)}
    return sorted(found)
