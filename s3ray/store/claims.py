"""Who is at work on what, so that two sweeps on one store share the work instead of doing it twice.

    claims/<key>/<time>-<owner>     written again every few seconds while its owner works

A claim saves work; it guards nothing. Two owners who miss each other both finish, and their results are equal.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from s3ray.store.store import Store

REFRESH_SECONDS = 5.0
STALE_SECONDS = 15.0


class Claims:
    """The claims of one owner, such as a run of a sweep; what it holds itself never stands in its way."""

    def __init__(self, store: Store, owner: str) -> None:
        self._store, self._owner = store, owner

    @contextmanager
    def take(self, key: str) -> Iterator[bool]:
        """Claim `key` until the context is left; False if another owner holds it."""
        mine = ("claims", key, f"{time.time():017.3f}-{self._owner}")
        self._store.write("", *mine)
        try:
            if self._held(*mine):
                yield False
                return
            done = threading.Event()
            refresher = threading.Thread(target=self._refresh, args=(mine, done), daemon=True)
            refresher.start()
            try:
                yield True
            finally:
                done.set()
                refresher.join()
        finally:
            self._delete(*mine)

    def free(self, key: str) -> bool:
        with self.take(key) as taken:
            return taken

    def _held(self, *mine: str) -> bool:
        """Whether somebody came first and is still there."""
        claims = self._store.modified(*mine[:-1])
        now = claims.get(mine[-1])
        if now is None:  # a store that does not list what was just written
            return False
        held = False
        for name, modified in claims.items():
            if now - modified > STALE_SECONDS:  # by the store's clock alone
                self._delete(*mine[:-1], name)
            elif name.partition("-")[2] != self._owner:
                held |= name < mine[-1]
        return held

    def _refresh(self, mine: tuple[str, ...], done: threading.Event) -> None:
        while not done.wait(REFRESH_SECONDS):
            with suppress(OSError):  # a claim that goes stale costs double work, not the work
                self._store.write("", *mine)

    def _delete(self, *claim: str) -> None:
        with suppress(OSError):
            self._store.fs.delete_file(self._store.path(*claim))
