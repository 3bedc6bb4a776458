"""Whether what a sweep stands on is still there: Ray's processes of this machine, Ray's head, the storage.

Ray itself waits: a minute for its head, for ever for the raylet of this machine. And a storage that takes nothing any
more fails every cell three times before anybody hears of it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

import ray.tune

from s3ray.engine import private
from s3ray.errors import STAYS, LostError, UserError
from s3ray.store import Store

RAY_INTERVAL, STORAGE_INTERVAL = 2.0, 5.0  # seconds; object storage is paid by the request
GRACE = 10.0  # seconds for which something must be gone: a server may be started again, a disk be full for a moment
ORDERLY_END = 8.0  # seconds from the verdict on


class Health:
    """Looks every few seconds, in threads of its own, until the context is left.

    `check` says what it found. If the process is then not `over` with Ray within ORDERLY_END seconds, since Ray holds
    it, it is ended with the sentence.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lost: LostError | None = None
        self._left, self._over = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        for look, interval in ((private.missing_process, RAY_INTERVAL), (self._storage, STORAGE_INTERVAL)):
            threading.Thread(target=self._watch, args=(look, interval), daemon=True).start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._left.set()
        if kind is None:  # the run is over; what was found meanwhile concerns nobody
            self._over.set()

    def over(self) -> None:
        """The connection to Ray has ended, in whatever way."""
        self._over.set()

    def check(self) -> None:
        """
        Raises:
            LostError: something is gone: two looks failed that began GRACE seconds apart, and all between.
        """
        if self._lost is not None:
            raise self._lost

    def _watch(self, look: Callable[[], str | None], interval: float) -> None:
        gone_since: float | None = None  # when the first of the looks began that failed without a break
        while not self._left.wait(interval):
            asked = time.monotonic()
            if (problem := look()) is None:
                gone_since = None
                continue
            gone_since = asked if gone_since is None else gone_since
            # Another look, since one alone may take longer than the grace: it was a moment for all that.
            if asked - gone_since >= GRACE and not self._left.is_set():
                self._lost = self._lost or LostError(f"{problem}; {STAYS}")
                if not self._over.wait(ORDERLY_END):
                    private.kill_processes()
                    with suppress(OSError):
                        print(f"error: {self._lost}", file=sys.stderr, flush=True)
                    os._exit(1)
                return

    def _storage(self) -> str | None:
        try:
            self._store.check_writable()
        except UserError as error:
            return str(error)
        return None


class Watched(ray.tune.Callback):
    """Ends Tune's loop once something is gone."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def __getstate__(self) -> dict[str, Any]:
        # Tuner pickles its callbacks so that it could restore itself; a run here is never restored.
        return {}

    def on_step_end(self, iteration: int, trials: Any, **_: Any) -> None:
        self._health.check()
