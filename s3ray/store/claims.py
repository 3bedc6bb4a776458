"""Who is at work on what, so that two sweeps on one store share the work instead of doing it twice.

    claims/<key>/<time>-<owner>     written again every few seconds while its owner works

A claim saves work; it guards nothing. Two owners who miss each other both finish, and their results are equal.
Where they would not be, as in a search, whose course depends on all that came before, an owner holds what it claims
alone (`hold`): of two who see each other both step back.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from s3ray.store.store import Store

REFRESH_SECONDS = 5.0
STALE_SECONDS = 15.0


class HeldError(Exception):
    """Somebody else holds a claim: who, where, since when."""


class Claims:
    """The claims of one owner, such as a run of a sweep; what it holds itself never stands in its way."""

    def __init__(self, store: Store, owner: str) -> None:
        self._store, self._owner = store, owner

    @contextmanager
    def take(self, key: str, *, alone: bool = False) -> Iterator[bool]:
        """Claim `key` until the context is left; False if another owner holds it.

        Args:
            alone: False also if another owner came later: two who come at once may then both be refused.
        """
        mine = ("claims", key, f"{time.time():017.3f}-{self._owner}")
        self._store.write(_whoami(), *mine)
        try:
            if self._held(*mine, alone=alone):
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

    @contextmanager
    def hold(self, key: str, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
        """Claim `key` alone. The claim of an owner that died is awaited until it is stale.

        Args:
            waiting: told once whose claim stands in the way, while it is not known whether its owner lives.

        Raises:
            HeldError: another owner is alive; it has refreshed its claim meanwhile.
        """
        seen: dict[str, float] = {}
        while True:
            with self.take(key, alone=True) as taken:
                if taken:
                    yield
                    return
            claims = self._store.modified("claims", key)
            for name, modified in claims.items():
                if modified > seen.setdefault(name, modified):
                    raise HeldError(self._holder(key, name))
            if claims and waiting:
                waiting(self._holder(key, min(claims)))
                waiting = None
            time.sleep(random.uniform(0.5, 1.5))  # of two who came at once one comes first the next time

    def free(self, key: str) -> bool:
        with self.take(key) as taken:
            return taken

    def _holder(self, key: str, name: str) -> str:
        since = dt.datetime.fromtimestamp(float(name.partition("-")[0]), dt.UTC)
        try:
            who = self._store.read("claims", key, name).decode()
        except OSError:  # it has just ended
            who = ""
        return f"{who or 'another process'}, since {since:%Y-%m-%d %H:%M} UTC"

    def _held(self, *mine: str, alone: bool) -> bool:
        """Whether somebody came first (with `alone`: came at all) and is still there."""
        claims = self._store.modified(*mine[:-1])
        now = claims.get(mine[-1])
        if now is None:  # a store that does not list what was just written
            return False
        held = False
        for name, modified in claims.items():
            if now - modified > STALE_SECONDS:  # by the store's clock alone
                self._delete(*mine[:-1], name)
            elif name.partition("-")[2] != self._owner:
                held |= alone or name < mine[-1]
        return held

    def _refresh(self, mine: tuple[str, ...], done: threading.Event) -> None:
        while not done.wait(REFRESH_SECONDS):
            with suppress(OSError):  # a claim that goes stale costs double work, not the work
                self._store.write(_whoami(), *mine)

    def _delete(self, *claim: str) -> None:
        with suppress(OSError):
            self._store.fs.delete_file(self._store.path(*claim))


def _whoami() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
