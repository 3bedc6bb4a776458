"""Optuna's journal in a store, on any storage, as the file that `optuna-dashboard` opens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from s3ray.store.store import Store


class StoreJournal(BaseJournalBackend):
    """A journal that is written whole at every change, since object stores cannot append.

    It is small: some 2 kB per trial. One process writes it; whoever reads sees it as it was at some change.
    """

    def __init__(self, store: Store, *parts: str) -> None:
        self._store, self._parts = store, parts
        try:
            self._content = store.read(*parts)
        except FileNotFoundError:
            self._content = b""
        self._logs: list[dict[str, Any]] = [json.loads(line) for line in self._content.splitlines()]

    def read_logs(self, log_number_from: int) -> Sequence[dict[str, Any]]:
        return self._logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        content = self._content + "".join(f"{line}\n" for line in lines).encode()
        self._store.write(content, *self._parts)
        self._content = content
        # As a reader of the file gets them: tuples are lists, enumerations numbers.
        self._logs += map(json.loads, lines)


def journal_storage(store: Store, study: str) -> JournalStorage:
    """Optuna's storage of a study: `search/<study>/journal.log`."""
    return JournalStorage(StoreJournal(store, "search", study, "journal.log"))
