import os
import re
import time
from pathlib import Path

import pytest

from s3ray.store import Claims, HeldError, Store
from s3ray.store import claims as module


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def files(store: Store) -> list[Path]:
    return sorted(Path(store.base).glob("claims/*/*"))


def test_one_owner_at_a_time_and_nothing_is_left(store: Store) -> None:
    first, second = Claims(store, "run-a"), Claims(store, "run-b")
    with first.take("cell") as ours:
        assert ours
        assert not second.free("cell")
        assert second.free("another cell")
        assert first.free("cell")  # a restarted worker group of the same run
        assert len(files(store)) == 1
    assert second.free("cell")
    assert files(store) == []


def test_a_claim_ends_with_its_work_even_if_that_fails(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), Claims(store, "run-a").take("cell"):
        raise ZeroDivisionError
    assert files(store) == []


def test_who_came_first_goes_on_when_both_see_each_other(store: Store) -> None:
    first, second = Claims(store, "run-a"), Claims(store, "run-b")
    store.write("", "claims", "cell", f"{time.time() + 1:017.3f}-run-b")  # came a moment later
    with first.take("cell") as ours:
        assert ours
        assert not second.free("cell")


@pytest.mark.parametrize("owner", ["run-a", "run-b"])
def test_a_dead_workers_claim_goes_stale_and_is_removed(store: Store, owner: str) -> None:
    store.write("", "claims", "cell", f"{time.time() - 100:017.3f}-run-a")
    assert Claims(store, owner).free("cell") == (owner == "run-a")
    (claim,) = files(store)
    old = time.time() - module.STALE_SECONDS - 1
    os.utime(claim, (old, old))
    assert Claims(store, owner).free("cell")
    assert files(store) == []


def test_a_claim_is_kept_fresh(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.05)
    with Claims(store, "run-a").take("cell"):
        (claim,) = files(store)
        os.utime(claim, (0, 0))
        deadline = time.monotonic() + 10
        while claim.stat().st_mtime < 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not Claims(store, "run-b").free("cell")


def test_who_holds_alone_is_named_to_the_next_and_a_dead_one_is_awaited(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.05)
    monkeypatch.setattr(module.random, "uniform", lambda low, high: 0.1)
    told = []
    with Claims(store, "run-a").hold("study"), pytest.raises(HeldError) as error:
        Claims(store, "run-b").hold("study", told.append).__enter__()
    assert re.fullmatch(rf"process {os.getpid()} on \S+, since \d{{4}}-\d\d-\d\d \d\d:\d\d UTC", str(error.value))
    assert told == [str(error.value)]
    assert files(store) == []

    monkeypatch.setattr(module, "STALE_SECONDS", 1.0)
    store.write("", "claims", "study", f"{time.time():017.3f}-killed")
    with Claims(store, "run-b").hold("study"):
        assert len(files(store)) == 1


def test_of_two_who_hold_at_once_both_step_back(store: Store) -> None:
    first, second = Claims(store, "run-a"), Claims(store, "run-b")
    with first.take("study", alone=True) as one, second.take("study", alone=True) as two:
        assert (one, two) == (True, False)
    store.write("", "claims", "study", f"{time.time() + 1:017.3f}-run-b")  # came later, or its clock is ahead
    with first.take("study", alone=True) as one:
        assert not one
