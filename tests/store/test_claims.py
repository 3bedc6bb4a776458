import os
import time
from pathlib import Path

import pytest

from s3ray.store import Claims, Store
from s3ray.store import claims as module


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def files(store):
    return sorted(Path(store.base).glob("claims/*/*"))


def test_one_owner_at_a_time_and_nothing_is_left(store):
    first, second = Claims(store, "run-a"), Claims(store, "run-b")
    with first.take("cell") as ours:
        assert ours
        assert not second.free("cell")
        assert second.free("another cell")
        assert first.free("cell")  # a restarted worker group of the same run
        assert len(files(store)) == 1
    assert second.free("cell")
    assert files(store) == []


def test_a_claim_ends_with_its_work_even_if_that_fails(store):
    with pytest.raises(ZeroDivisionError), Claims(store, "run-a").take("cell"):
        raise ZeroDivisionError
    assert files(store) == []


def test_who_came_first_goes_on_when_both_see_each_other(store):
    first, second = Claims(store, "run-a"), Claims(store, "run-b")
    store.write("", "claims", "cell", f"{time.time() + 1:017.3f}-run-b")  # came a moment later
    with first.take("cell") as ours:
        assert ours
        assert not second.free("cell")


@pytest.mark.parametrize("owner", ["run-a", "run-b"])
def test_a_dead_workers_claim_goes_stale_and_is_removed(store, owner):
    store.write("", "claims", "cell", f"{time.time() - 100:017.3f}-run-a")
    assert Claims(store, owner).free("cell") == (owner == "run-a")
    (claim,) = files(store)
    old = time.time() - module.STALE_SECONDS - 1
    os.utime(claim, (old, old))
    assert Claims(store, owner).free("cell")
    assert files(store) == []


def test_a_claim_is_kept_fresh(store, monkeypatch):
    monkeypatch.setattr(module, "REFRESH_SECONDS", 0.05)
    with Claims(store, "run-a").take("cell"):
        (claim,) = files(store)
        os.utime(claim, (0, 0))
        deadline = time.monotonic() + 10
        while claim.stat().st_mtime < 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not Claims(store, "run-b").free("cell")
