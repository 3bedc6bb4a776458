"""Who is at work on what, so that two sweeps on one store do nothing twice, and a search has its study alone.

    claims/<what is computed>/claim.json    whose it is, in which epoch, and how often that owner has renewed it

A claim is taken, renewed and released by compare-and-swap alone, and never deleted: what was released stays, and who
comes next raises the epoch. No clock is compared with another. An owner whose last renewal began STOP_SECONDS ago stops
its work. An observer takes a claim from an owner that gives no sign of life only once it has itself seen the same claim
for LEASE_SECONDS, by its own clock: by then that owner has stopped, as long as no clock runs a third faster than
another. One that slept through all that notices before its next step, and what it still wrote meanwhile replaced
nothing, since results are committed on condition too.

`Claimant` is the protocol, without input, output or a clock of its own; `Claims` connects it to a store.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias, TypeVar

from s3ray.store.store import Store
from s3ray.traces import has_died, tag

RENEW_SECONDS = 3.0
STOP_SECONDS = 10.0
LEASE_SECONDS = 15.0

_T = TypeVar("_T")


class HeldError(Exception):
    """Somebody else holds a claim: who, where, since when."""


class LeaseLostError(Exception):
    """The claim on what is being computed is lost."""

    def __init__(self, sentence: str = "its claim could not be renewed in time, or another sweep has taken it") -> None:
        super().__init__(sentence)  # an argument, since Ray pickles errors


@dataclass(frozen=True, slots=True)
class Claim:
    """What a claim's object says.

    Attributes:
        epoch: raised by whoever takes the claim.
        owner: a name that no other process has; empty: released.
        beat: the owner's renewals, failed ones included; so no content of a claim ever comes again.
        process: where the owner runs, for others on the same machine (`traces.tag`).
        who: the owner and since when, for people.
    """

    epoch: int
    owner: str
    beat: int = 0
    process: str = ""
    who: str = ""

    @classmethod
    def parse(cls, content: bytes) -> Claim:
        """A damaged one is the claim of an unknown owner, who gives no sign of life."""
        try:
            claim = cls(**json.loads(content))
            if [type(value) for value in asdict(claim).values()] == [int, str, int, str, str]:
                return claim
        except (ValueError, TypeError, RecursionError):
            pass
        return cls(0, f"unknown {hashlib.sha256(content).hexdigest()}")

    def content(self) -> bytes:
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True, slots=True)
class Read:
    """Asks for the claim that stands there, with its version; None if there is none."""


@dataclass(frozen=True, slots=True)
class Write:
    """Asks to put `claim` in the place of a version, or where nothing is; answered with its version, or None.

    No answer says for certain that it was not written: replies get lost, and requests are repeated.
    """

    claim: Claim
    over: str | None


Found: TypeAlias = tuple[Claim, str] | None
# What the protocol asks of the store, one after another; each is answered, or fails with OSError.
Steps: TypeAlias = Generator[Read | Write, Any, _T]


class Claimant:
    """One owner's side of one claim.

    Attributes:
        seen: another owner's claim, and since when by our clock we have seen just that.
        held: ours, if we have it.
    """

    def __init__(
        self, me: Claim, clock: Callable[[], float], is_dead: Callable[[str], bool] = lambda process: False
    ) -> None:
        """`me` says who we are; `is_dead` whether a process is known for certain to have ended."""
        self._me, self._clock, self._is_dead = me, clock, is_dead
        self.seen: tuple[Claim, float] | None = None
        self.held: Claim | None = None
        self._version = ""
        self._renewed = 0.0  # when the renewal began that last came through

    def holds(self) -> bool:
        """Whether we may work now."""
        return self.held is not None and self._clock() - self._renewed < STOP_SECONDS

    def take(self) -> Steps[bool]:
        """Take the claim if it is free; OSError if the storage refuses it."""
        started = self._clock()  # before the claim is read: an earlier try of ours may still arrive after that
        found = yield Read()
        if not self._is_free(found):
            return False
        claim = replace(self._me, epoch=next_epoch(found))
        now = yield from self._written(claim, found)
        if now is None or now[0] != claim:
            return False
        (self.held, self._version), self._renewed = now, started
        return True

    def clear(self) -> Steps[bool]:
        """Whether the claim is free; if its owner is gone, we release it in its stead."""
        found = yield Read()
        if not self._is_free(found):
            return False
        if found is None or found[0].owner in ("", self._me.owner):
            return True
        claim = Claim(next_epoch(found), "")
        now = yield from self._written(claim, found)
        return now is not None and now[0] == claim

    def renew(self) -> Steps[None]:
        """Renew the claim; afterwards `held` is None if it is another's."""
        yield from self._go_on(lambda held: replace(held, beat=held.beat + 1))

    def release(self) -> Steps[None]:
        """Leave the claim to whoever comes next."""
        self._renewed = -math.inf
        try:
            yield from self._go_on(lambda held: replace(held, owner="", beat=held.beat + 1))
        finally:
            self.held = None

    def _go_on(self, to: Callable[[Claim], Claim]) -> Steps[None]:
        for _ in range(2):  # if an earlier renewal arrives only now, once more
            if self.held is None:
                return
            started, before = self._clock(), self._version
            # Another beat for each try: the time when this one began must not be taken for an earlier one's.
            claim = self.held = to(self.held)
            now = yield from self._written(claim, (claim, before))
            if now is not None and now[0] == claim:
                self._version, self._renewed = now[1], started
                return
            if now is None or (now[0].epoch, now[0].owner) != (claim.epoch, self._me.owner):
                self.held = None
                return
            self._version = now[1]

    def _written(self, claim: Claim, over: Found) -> Steps[Found]:
        """Write `claim` over what was found; what stands there then.

        OSError if the storage refused it and holds what it held: whoever asks would take that for another's claim.
        """
        version: str | None = None
        failure: OSError | None = None
        try:
            version = yield Write(claim, over[1] if over else None)
        except OSError as error:  # it may have come through nevertheless
            failure = error
        if version is not None:
            return claim, version
        now: Found = yield Read()
        if failure is not None and now == over:
            raise failure
        return now

    def _is_free(self, found: Found) -> bool:
        if found is None or found[0].owner in ("", self._me.owner):
            self.seen = None
            return True
        now = self._clock()  # after the claim was read: it may be younger than the question
        if self.seen is None or self.seen[0] != found[0]:
            self.seen = (found[0], now)
        return now - self.seen[1] >= LEASE_SECONDS or self._is_dead(found[0].process)


def standing(store: Store, key: str) -> Claim | None:
    """The claim that stands, for whoever only looks; None if there never was one. That of no owner was released."""
    content = store.current("claims", key, "claim.json")
    return Claim.parse(content) if content is not None else None


def next_epoch(found: Found) -> int:
    """Of whoever takes a claim: two times that one process had it are told apart by nothing else."""
    return found[0].epoch + 1 if found else 1


def elapsed() -> float:
    """Seconds, those that the machine was suspended for included, which Linux leaves out of `time.monotonic`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class Claims:
    """The claims of one process; what it holds itself never stands in its way."""

    def __init__(self, store: Store, clock: Callable[[], float] = elapsed) -> None:
        self._store, self._clock, self._owner = store, clock, uuid.uuid4().hex
        self._claimants: dict[str, Claimant] = {}

    @contextmanager
    def take(self, key: str) -> Iterator[Callable[[], bool] | None]:
        """Claim `key` until the context is left; None if another owner has it.

        What it yields says whether the claim is still ours, which is to be asked every few seconds: once it is not,
        the work must stop.
        """
        claimant, turn = self._claimant(key), threading.Lock()
        if not self._done(key, claimant.take()):
            yield None
            return

        def renew() -> None:
            with turn, suppress(OSError):  # tried again soon; `holds` ends the work if that is too late
                self._done(key, claimant.renew())

        def holds() -> bool:
            if not claimant.holds():  # we stood still: perhaps nobody has taken it
                renew()
            return claimant.holds()

        def keep() -> None:
            while not left.wait(RENEW_SECONDS):
                renew()

        left, keeper = threading.Event(), threading.Thread(target=keep, daemon=True)
        keeper.start()
        try:
            yield holds
        finally:
            left.set()
            keeper.join()
            with suppress(OSError):  # the next one waits until the lease is over
                self._done(key, claimant.release())

    @contextmanager
    def hold(self, key: str, waiting: Callable[[str], None] | None = None) -> Iterator[Callable[[], bool]]:
        """Claim `key`, as `take` does. The claim of an owner that died is awaited until its lease is over.

        Args:
            waiting: told once whose claim stands in the way, while it is not known whether its owner lives.

        Raises:
            HeldError: another owner is alive; it has renewed its claim meanwhile.
        """
        first: Claim | None = None
        while True:
            with self.take(key) as holds:
                if holds is not None:
                    yield holds
                    return
            seen = self._claimant(key).seen
            if seen is not None:
                if first is None and waiting is not None:
                    waiting(seen[0].who)
                first = first or seen[0]
                if seen[0] != first:
                    raise HeldError(seen[0].who)
            time.sleep(1.0)

    def free(self, key: str) -> bool:
        """Whether nobody works on `key`; that an owner is gone is known once this was asked for the time of a lease."""
        return self._done(key, self._claimant(key).clear())

    def _claimant(self, key: str) -> Claimant:
        if key not in self._claimants:
            who = f"process {os.getpid()} on {socket.gethostname()}, since {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC"
            me = Claim(0, self._owner, process=tag(), who=who)
            self._claimants[key] = Claimant(me, self._clock, lambda process: has_died(process) is True)
        return self._claimants[key]

    def _done(self, key: str, steps: Steps[_T]) -> _T:
        """Answer what the protocol asks, from the store."""
        answer: Any = None
        failure: OSError | None = None
        while True:
            try:
                asked = steps.throw(failure) if failure else steps.send(answer)
            except StopIteration as end:
                result: _T = end.value
                return result
            failure = None
            try:
                answer = self._answer(f"claims/{key}/claim.json", asked)
            except OSError as error:
                failure = error

    def _answer(self, key: str, asked: Read | Write) -> Found | str | None:
        if not self._store.honours_conditions:
            return self._answer_unsafely(key, asked)
        files = self._store.conditional
        if isinstance(asked, Read):
            there = files.read(key)
            return (Claim.parse(there[0]), there[1]) if there else None
        content = asked.claim.content()
        return files.create(key, content) if asked.over is None else files.replace(key, content, asked.over)

    def _answer_unsafely(self, key: str, asked: Read | Write) -> Found | str | None:
        """Without conditional writes: two owners who come within one request both go on, and do some work twice."""
        try:
            there = self._store.read(key)
        except FileNotFoundError:
            there = None
        version = hashlib.sha256(there).hexdigest() if there is not None else None
        if isinstance(asked, Read):
            return (Claim.parse(there), version) if there is not None and version is not None else None
        if version != asked.over:
            return None
        self._store.write(asked.claim.content(), key)
        return hashlib.sha256(asked.claim.content()).hexdigest()
