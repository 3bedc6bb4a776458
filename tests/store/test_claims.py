"""Claims on a disk and on object storage, among threads and processes, dead and stopped ones among them."""

from __future__ import annotations

import errno
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from object_storage import ObjectStorage
from s3ray.store import Claims, HeldError, LeaseLostError, Store, standing
from s3ray.store import claims as module
from s3ray.store.claims import LEASE_SECONDS, STOP_SECONDS, Claim

PATIENCE = 60  # seconds; only catches a hang


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["disk", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return Store(str(tmp_path))
    storage: ObjectStorage = request.getfixturevalue("object_storage")
    return Store(storage.uri)


@pytest.fixture
def disk(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of a second."""
    for name, seconds in {"RENEW_SECONDS": 0.1, "STOP_SECONDS": 0.6, "LEASE_SECONDS": 1.0}.items():
        monkeypatch.setattr(module, name, seconds)


def claim_of(store: Store, key: str) -> Claim:
    """What stands in the store; read as a stranger does."""
    found = store.conditional.read(f"claims/{key}/claim.json")
    assert found is not None
    return Claim.parse(found[0])


@pytest.mark.parametrize("conditions", [True, False])
def test_whoever_only_looks_sees_the_claim_that_stands(store: Store, quick: None, conditions: bool) -> None:
    store.honours_conditions = conditions
    assert standing(store, "key") is None
    with Claims(store).take("key") as holds:
        assert holds is not None
        first = standing(store, "key")
        assert first is not None
        assert first.who.startswith(f"process {os.getpid()} on ")
        deadline = time.monotonic() + PATIENCE
        while (now := standing(store, "key")) is None or now.beat == first.beat:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    released = standing(store, "key")
    assert released is not None
    assert released.owner == ""


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def python(code: str, *arguments: str) -> Any:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], env=environment, stdin=pipe, stdout=pipe, text=True
    )


def test_one_owner_at_a_time_and_the_next_raises_the_epoch(store: Store) -> None:
    first, second = Claims(store), Claims(store)
    with first.take("model") as holds:
        assert holds is not None
        assert holds()
        assert not second.free("model")
        assert second.free("another model")
        with second.take("model") as theirs:
            assert theirs is None
        assert claim_of(store, "model").epoch == 1
    assert not holds()
    released = claim_of(store, "model")
    assert (released.epoch, released.owner) == (1, "")
    assert second.free("model")
    with second.take("model") as holds:
        assert holds is not None
        assert claim_of(store, "model").epoch == 2
    with second.take("model") as holds:  # the same process again
        assert holds is not None
        assert claim_of(store, "model").epoch == 3


def test_a_claim_ends_with_its_work_even_if_that_fails(disk: Store) -> None:
    with pytest.raises(ZeroDivisionError), Claims(disk).take("model"):
        raise ZeroDivisionError
    assert Claims(disk).free("model")


def test_storage_that_refuses_a_claim_is_not_taken_for_another_owner(
    disk: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever found it free would try again for ever: nobody else is there to be waited for."""
    claims = Claims(disk)
    with claims.take("model"):
        monkeypatch.setattr(os, "link", refused := mock.Mock(side_effect=OSError(errno.EROFS, "read-only")))
    assert claims.free("model")  # ours, and not released
    with pytest.raises(OSError, match="read-only"), claims.take("model"):
        pass
    monkeypatch.undo()
    assert refused.call_count
    with claims.take("model") as holds:
        assert holds is not None


def test_an_owner_without_a_sign_of_life_is_relieved_after_a_lease_by_the_observers_clock(disk: Store) -> None:
    clock = Clock()
    with Claims(disk, clock=lambda: 0.0).take("model") as theirs:
        assert theirs is not None
        observer = Claims(disk, clock=clock)
        assert not observer.free("model")
        clock.now += LEASE_SECONDS - 1.0
        assert not observer.free("model")
        clock.now += 1.0
        assert observer.free("model")
        assert observer.free("model")
        released = claim_of(disk, "model")
        assert (released.epoch, released.owner) == (2, "")
        assert theirs()  # not yet noticed
        with observer.take("model") as ours:
            assert ours is not None
            assert claim_of(disk, "model").epoch == 3


def test_an_owner_that_renews_is_never_relieved(disk: Store, quick: None) -> None:
    clock = Clock()
    with Claims(disk).take("model") as holds:
        observer = Claims(disk, clock=clock)
        for _ in range(3):
            assert not observer.free("model")
            beat = claim_of(disk, "model").beat
            wait_for(lambda beat=beat: claim_of(disk, "model").beat > beat)
            clock.now += 10 * LEASE_SECONDS
        assert not observer.free("model")
        assert holds is not None
        assert holds()


def test_a_lost_claim_is_known_with_the_next_renewal(store: Store, quick: None) -> None:
    clock = Clock()
    with Claims(store).take("model") as holds:
        assert holds is not None
        observer = Claims(store, clock=clock)
        while not observer.free("model"):  # between two renewals
            clock.now += LEASE_SECONDS
        started = time.monotonic()
        wait_for(lambda: not holds())
        assert time.monotonic() - started < 5.0
        with observer.take("model") as theirs:
            assert theirs is not None
            before = claim_of(store, "model")
        wait_for(lambda: claim_of(store, "model").owner == "")
    after = claim_of(store, "model")
    assert (after.epoch, after.owner) == (before.epoch, "")  # left as the last owner left it


def test_work_stops_before_its_lease_is_over_if_it_cannot_be_renewed(disk: Store) -> None:
    clock = Clock()
    with Claims(disk, clock=clock).take("model") as holds:
        assert holds is not None
        folder, aside = Path(disk.path("claims")), Path(disk.path("aside"))
        folder.rename(aside)
        folder.touch()  # every request fails
        clock.now += STOP_SECONDS - 0.1
        assert holds()
        clock.now += 0.1
        assert not holds()
        folder.unlink()
        aside.rename(folder)
        assert holds()  # nobody took it meanwhile
    assert STOP_SECONDS + 5.0 <= LEASE_SECONDS


def test_who_stood_still_goes_on_if_nobody_took_the_claim(disk: Store) -> None:
    clock = Clock()
    with Claims(disk, clock=clock).take("model") as holds:
        assert holds is not None
        beat = claim_of(disk, "model").beat
        clock.now += 75.0
        assert holds()
        assert claim_of(disk, "model").beat == beat + 1


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="this system has no such clock")
def test_a_suspended_machine_has_not_renewed_its_claim(disk: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """`time.monotonic` stands still meanwhile."""
    right, suspended = time.clock_gettime, [0.0]
    late = {time.CLOCK_BOOTTIME: suspended}
    monkeypatch.setattr(time, "clock_gettime", lambda which: right(which) + late.get(which, [0.0])[0])
    with Claims(disk).take("model") as holds:
        assert holds is not None
        beat = claim_of(disk, "model").beat
        suspended[0] = 75.0
        assert holds()
        assert claim_of(disk, "model").beat == beat + 1


def test_a_lost_lease_can_be_pickled() -> None:
    assert str(pickle.loads(pickle.dumps(LeaseLostError()))) == str(LeaseLostError())


@pytest.mark.parametrize("offset", [-0.02, -7200.0, 7200.0])
def test_the_hosts_clocks_do_not_matter(disk: Store, monkeypatch: pytest.MonkeyPatch, offset: float) -> None:
    """An owner whose clock is behind is not earlier for that."""
    with Claims(disk).take("model") as first:
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + offset)
        with Claims(disk).take("model") as second:
            assert [bool(first), bool(second)] == [True, False]


def test_without_conditional_writes_claims_still_save_work(disk: Store) -> None:
    disk.honours_conditions = False
    clock = Clock()
    with Claims(disk, clock=lambda: 0.0).take("model") as first:
        assert first is not None
        observer = Claims(disk, clock=clock)
        assert not observer.free("model")
        clock.now += LEASE_SECONDS
        with observer.take("model") as second:
            assert second is not None
    with Claims(disk).take("model") as third:
        assert third is not None


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"epoch": "1", "owner": ""}', "\0" * 200, "[" * 200_000])
def test_a_damaged_claim_is_that_of_a_dead_owner(disk: Store, content: str) -> None:
    disk.write(content, "claims", "model", "claim.json")
    clock = Clock()
    observer = Claims(disk, clock=clock)
    assert not observer.free("model")
    clock.now += LEASE_SECONDS
    with observer.take("model") as holds:
        assert holds is not None


DIES = """
import os, sys
from s3ray.store import Claims, Store
with Claims(Store(sys.argv[1])).take("model") as holds:
    os._exit(0 if holds else 1)
"""


@pytest.mark.slow  # starts a process
def test_an_owner_that_is_known_to_be_dead_is_relieved_at_once(disk: Store) -> None:
    process = python(DIES, disk.uri)
    # Not waited for before the claim is read: a process that its parent did not collect yet is as dead.
    wait_for(lambda: disk.names("claims", "model") != [])
    wait_for(lambda: Claims(disk).free("model"))
    assert process.wait() == 0
    claim = claim_of(disk, "model")
    assert (claim.epoch, claim.owner) == (2, "")


def test_who_holds_is_named_to_the_next_and_a_dead_one_is_awaited(disk: Store, quick: None) -> None:
    told: list[str] = []
    with Claims(disk).hold("study"), pytest.raises(HeldError) as error:
        Claims(disk).hold("study", told.append).__enter__()
    assert re.fullmatch(rf"process {os.getpid()} on \S+, since \d{{4}}-\d\d-\d\d \d\d:\d\d UTC", str(error.value))
    assert told == [str(error.value)]

    dead = Claim(7, "killed", who="process 1 on elsewhere, since 2026-01-01 00:00 UTC")
    disk.write(dead.content(), "claims", "another", "claim.json")
    with Claims(disk).hold("another", told.append) as holds:
        assert holds()
        assert claim_of(disk, "another").epoch == 8
    assert told[1:] == [dead.who]


def test_of_two_who_hold_at_once_one_has_it(disk: Store, quick: None) -> None:
    outcomes: list[str] = []
    start = threading.Barrier(2)

    def come() -> None:
        start.wait()
        try:
            with Claims(disk).hold("study"):
                outcomes.append("has it")
                time.sleep(3.0)
        except HeldError:
            outcomes.append("refused")

    threads = [threading.Thread(target=come) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["has it", "refused"]


def test_of_four_threads_one_has_each_claim(store: Store) -> None:
    """The order by the clocks in file names that was here let two have it in 48 of 300 races."""
    rounds = 50
    won: list[list[int]] = [[] for _ in range(rounds)]
    start = threading.Barrier(4)

    def race(number: int) -> None:
        claims = Claims(store)
        with ExitStack() as held:
            for turn in range(rounds):
                start.wait()
                if held.enter_context(claims.take(f"model{turn}")) is not None:
                    won[turn].append(number)
            start.wait()

    threads = [threading.Thread(target=race, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(winners) for winners in won] == [1] * rounds


RACES = """
import sys
from contextlib import ExitStack
from s3ray.store import Claims, Store
claims = Claims(Store(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
with ExitStack() as held:
    for turn in range(50):
        if held.enter_context(claims.take(f"model{turn}")) is not None:
            print(turn, flush=True)
    print("all", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow  # starts processes
def test_of_four_processes_one_has_each_claim(disk: Store) -> None:
    processes = [python(RACES, disk.uri) for _ in range(4)]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            print(file=process.stdin, flush=True)
        won = [list(iter(process.stdout.readline, "all\n")) for process in processes]
        for process in processes:
            process.communicate("\n", timeout=PATIENCE)
    finally:
        for process in processes:
            process.kill()
    assert sorted(int(turn) for turns in won for turn in turns) == list(range(50))


def test_a_slow_write_makes_no_second_owner(object_storage: ObjectStorage) -> None:
    """The first one's write takes longer than the second one takes for everything."""
    first, second = Claims(Store(object_storage.uri)), Claims(Store(object_storage.uri))
    reached, released = threading.Event(), threading.Event()
    waited: list[str] = []

    def slow(method: str, path: str) -> object:
        if method == "PUT" and "/claims/" in path and not waited:
            waited.append(path)
            reached.set()
            assert released.wait(PATIENCE)
        return None

    outcomes: dict[str, bool] = {}

    def come() -> None:
        with first.take("model") as holds:
            outcomes["first"] = bool(holds)
            done.wait(PATIENCE)

    done, thread = threading.Event(), threading.Thread(target=come)
    object_storage.fault = slow
    thread.start()
    assert reached.wait(PATIENCE)
    with second.take("model") as holds:
        outcomes["second"] = bool(holds)
        released.set()
        wait_for(lambda: len(outcomes) == 2)
        done.set()
        thread.join()
    assert outcomes == {"first": False, "second": True}


STANDS_STILL = """
import sys, time
from s3ray.store import Claims, Store
from s3ray.store import claims as module
module.RENEW_SECONDS, module.STOP_SECONDS, module.LEASE_SECONDS = 0.3, 1.5, 2.0
with Claims(Store(sys.argv[1])).take("model") as holds:
    print("works", flush=True)
    while holds():
        time.sleep(0.05)
    print("stopped", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.slow  # starts a process
def test_who_was_stopped_past_its_lease_stops_its_work(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 seconds without a renewal, in small: the other one has it, and the first, once it goes on, sees that."""
    monkeypatch.setattr(module, "LEASE_SECONDS", 2.0)
    process = python(STANDS_STILL, store.uri)
    try:
        assert process.stdout.readline() == "works\n"
        process.send_signal(signal.SIGSTOP)
        claims = Claims(store)
        assert not claims.free("model")
        wait_for(lambda: claims.free("model"))
        with claims.take("model") as holds:
            assert holds is not None
            before = claim_of(store, "model")
            process.send_signal(signal.SIGCONT)
            started = time.monotonic()
            assert process.stdout.readline() == "stopped\n"
            assert time.monotonic() - started < 5.0
            process.communicate("\n", timeout=PATIENCE)
            assert process.returncode == 0
            assert holds()
            after = claim_of(store, "model")
            assert (after.epoch, after.owner) == (before.epoch, before.owner)
    finally:
        process.kill()
