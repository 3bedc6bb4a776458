"""What nobody asks for, and nothing else, is deleted; whenever that is cut off, what is left is sound."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from object_storage import DENIED, ObjectStorage
from s3ray.errors import UserError
from s3ray.execution import gc
from s3ray.execution.audit import audit
from s3ray.execution.stored import NOTHING, Listing, Size, results_of, stored
from s3ray.stages.stage import StageRun
from s3ray.store import Claims, Store
from s3ray.store.conditional import DELETED
from s3ray.store.names import FILE, GC, names_of, write_names
from s3ray.traces import new_run
from toy_runs import commit, toy_run

STUDY, OTHER, DEAD = "grid-00000000", "grid-11111111", "grid-20261126-181500-p00000000-1-1-abc123"
PARENT, SHARED = toy_run(0), toy_run(1)
CHILD = toy_run(2, PARENT)
# Of nobody: two generations, and one that stands on what a study names.
TRIED, BELOW, BESIDE = toy_run(3), toy_run(5, toy_run(4, toy_run(3))), toy_run(6, PARENT)
MIDDLE = BELOW.parent
assert MIDDLE is not None
GARBAGE = [TRIED, MIDDLE, BELOW, BESIDE]
FILES = {"weights": b"w" * 100, "rows": b"r" * 50}


def place_of(run: StageRun) -> str:
    return f"artifacts/{run.stage.name}/{run.identity}"


def fill(store: Store) -> Store:
    for run in (PARENT, SHARED, CHILD, *GARBAGE):
        commit(store, run, FILES)
    store.write_folder({"rows.parquet": b"rows"}, {}, "results", STUDY)
    write_names(store, names_of([PARENT, CHILD, SHARED]), "results", STUDY, FILE)
    write_names(store, names_of([SHARED]), "results", OTHER, FILE)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return fill(Store(str(tmp_path / "store")))


def committed(store: Store) -> set[str]:
    return {run.identity for run in (PARENT, SHARED, CHILD, *GARBAGE) if store.marker(run) is not None}


def age(store: Store, path: str, hours: float = 25.0) -> None:
    place = Path(store.path(path))
    for one in [place, *place.rglob("*")]:
        os.utime(one, (time.time() - hours * 3600,) * 2)


def test_a_store_without_anything(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "nothing"))
    assert stored(store).total == NOTHING
    assert gc.find(store).garbage == gc.find(store).unknown == ()
    assert not (tmp_path / "nothing").exists()
    assert gc.delete(store).garbage == ()


def test_what_is_there_and_who_names_how_much(store: Store) -> None:
    found = stored(store)
    assert found.results["selection"].things == 7
    other, study = sorted(found.studies, key=lambda one: one.results.things)
    assert (study.name, study.results.things, study.alone.things) == (STUDY, 3, 2)
    assert (other.name, other.results.things, other.alone.things) == (OTHER, 1, 0)
    assert found.unnamed.things == len(GARBAGE)
    listed = [path for path in Path(store.base).rglob("*") if path.is_file()]
    assert found.total == Size(len(listed), sum(path.stat().st_size for path in listed))
    assert json.loads(json.dumps(found.plain()))["unnamed"]["things"] == len(GARBAGE)


def test_what_nobody_asks_for_goes_and_all_else_stays(store: Store) -> None:
    before = {path for path in Path(store.base).rglob("*") if path.is_file()}
    told = gc.find(store)
    assert {path for path in Path(store.base).rglob("*") if path.is_file()} == before
    assert {one.path for one in told.garbage} == {place_of(run) for run in GARBAGE}
    assert told.reasons()[gc.UNNAMED] == stored(store).unnamed
    gc.delete(store)
    assert committed(store) == {run.identity for run in (PARENT, SHARED, CHILD)}
    for run in GARBAGE:
        assert [path.read_bytes() for path in Path(store.path(place_of(run))).iterdir()] == [DELETED]
    assert stored(store).others["attempts without a marker"] == NOTHING
    assert audit(store).holds
    assert gc.find(store).garbage == ()
    commit(store, BELOW, FILES)  # what is gone is computed again
    assert store.marker(BELOW) is not None


def test_a_study_that_is_dropped_takes_along_what_it_alone_named(store: Store) -> None:
    gc.delete(store, [STUDY])
    assert committed(store) == {SHARED.identity}
    assert not Path(store.path("results", STUDY)).exists()
    with pytest.raises(UserError, match=f"has no such study; did you mean '{OTHER}'"):
        gc.find(store, ["grid-1111111"])
    gc.delete(store, [OTHER])
    assert committed(store) == set()
    assert audit(store).lines() == [f"nothing is stored at {store.uri} yet"]


def test_the_study_of_a_call_that_may_go_on_is_not_dropped(store: Store) -> None:
    for run in (new_run("grid"), DEAD):
        store.write("x", "runs", run, "plan.json")
        with pytest.raises(UserError, match="a sweep grid goes on, or may"):
            gc.delete(store, [STUDY])
        store.write("x", "runs", run, "ended")
    gc.find(store, [STUDY])


def test_nor_is_one_whose_name_has_no_digest(store: Store) -> None:
    store.write_folder({}, {}, "results", "grid")
    store.write("x", "runs", new_run("grid"), "plan.json")
    with pytest.raises(UserError, match="a sweep grid goes on, or may"):
        gc.find(store, ["grid"])


def test_what_a_sweep_file_asks_for_is_kept_on_demand(store: Store) -> None:
    gc.delete(store, kept=names_of([TRIED, MIDDLE]))
    assert {TRIED.identity, MIDDLE.identity} < committed(store)
    assert BELOW.identity not in committed(store)


@pytest.mark.parametrize("run", [new_run("grid"), DEAD], ids=["alive", "elsewhere"])
def test_what_a_call_asks_for_stays_while_it_may_go_on(store: Store, run: str) -> None:
    write_names(store, names_of([TRIED, MIDDLE, BELOW]), "runs", run, FILE)
    gc.delete(store)
    assert committed(store) == {one.identity for one in (PARENT, SHARED, CHILD, TRIED, MIDDLE, BELOW)}
    store.write("x", "runs", run, "ended")
    gc.delete(store)
    assert committed(store) == {one.identity for one in (PARENT, SHARED, CHILD)}


@pytest.mark.parametrize("who", ["study", "damaged study", "search", "call", "nobody"])
def test_where_it_is_not_known_what_is_asked_for_no_result_goes(store: Store, who: str) -> None:
    match who:
        case "study":
            store.write_folder({}, {}, "results", "older-00000000")
        case "damaged study":
            store.write("{", "results", STUDY, FILE)
        case "search":
            store.write("{}", "search", "digits-0", "journal.log")
        case "call":
            store.write("{}", "runs", DEAD, "plan.json")
        case "nobody":
            shutil.rmtree(store.path("results"))
    store.write("x", place_of(TRIED), "0123456789ab.damaged", "rows")
    found = gc.delete(store)
    assert len(found.unknown) == 1
    assert [one.reason for one in found.garbage] == [gc.ASIDE]
    assert len(committed(store)) == 7
    assert stored(store).unknown == found.unknown


def test_orphans_go_with_what_stands_on_them(store: Store) -> None:
    write_names(store, names_of([TRIED, MIDDLE, BELOW]), "results", OTHER, FILE)
    shutil.rmtree(store.path(place_of(TRIED)))
    commit(store, TRIED, FILES)
    assert store.marker(BELOW) is None
    found = gc.delete(store)
    assert {one.path for one in found.garbage if one.reason == gc.ORPHANS} == {place_of(run) for run in (MIDDLE, BELOW)}
    assert audit(store).holds
    assert TRIED.identity in committed(store)


def test_checkpoints_of_what_is_computed_again_stay(store: Store) -> None:
    """Its marker is there and does not count, since its parent was computed anew."""
    shutil.rmtree(store.path(place_of(PARENT)))
    commit(store, PARENT, FILES)
    write_names(store, names_of([PARENT, CHILD]), "runs", new_run("grid"), FILE)
    for run in (PARENT, CHILD):
        store.save_checkpoint(run, 50, b"progress")
    gc.delete(store)
    assert (store.checkpoint_step(PARENT), store.checkpoint_step(CHILD)) == (None, 50)


def test_a_deletion_that_was_cut_off_between_its_steps(store: Store) -> None:
    store.write(DELETED, place_of(PARENT), "commit.json.~1")
    assert results_of(Listing(store))[PARENT.identity].committed is None
    assert store.marker(PARENT) is None
    commit(store, PARENT, FILES)
    assert results_of(Listing(store))[PARENT.identity].committed is not None
    assert store.marker(PARENT) is not None


def test_other_garbage(store: Store) -> None:
    young = {
        f"{place_of(CHILD)}/0123456789ab": gc.ATTEMPTS,
        "data/" + "a" * 64: gc.PUBLISHING,
    }
    certain = {
        f"{place_of(PARENT)}/0123456789ab.damaged": gc.ASIDE,
        f"{place_of(PARENT)}/commit-0123456789ab.damaged": gc.ASIDE,
        "data/" + "b" * 64 + "-abcdef.damaged": gc.ASIDE,
        f"checkpoints/{PARENT.identity}": gc.DEAD,
        f"checkpoints/{'c' * 64}": gc.CHECKPOINTS,
        f"tensorboard/digits/cell/probe.{'d' * 8}": gc.CURVES,
    }
    for path in [*young, *certain]:
        store.write("x", *([path] if path.endswith("9ab.damaged") and "commit" in path else [path, "file"]))
    store.write("x", "tensorboard", "digits", "cell", f"selection.{CHILD.identity[:8]}", "file")
    store.write("x", "checkpoints", toy_run(99).identity, "file")
    write_names(store, names_of([toy_run(99), SHARED]), "results", OTHER, FILE)
    os.makedirs(store.path("claims", "e" * 64))
    assert {one.path: one.reason for one in gc.find(store).garbage if not one.result} == certain
    for path in [*young, f"claims/{'e' * 64}"]:
        age(store, path)
    every = young | certain | {f"claims/{'e' * 64}": gc.CLAIMS}
    assert {one.path: one.reason for one in gc.delete(store).garbage if not one.result} == every
    assert not any(Path(store.path(path)).exists() for path in every)
    assert Path(store.path("checkpoints", toy_run(99).identity, "file")).exists()
    assert committed(store) == {run.identity for run in (PARENT, SHARED, CHILD)}


def test_other_peoples_files_stay(store: Store) -> None:
    places = (
        "data/mine",
        "data/x.damaged",
        "checkpoints/mine",
        "tensorboard/mine",
        "artifacts/a/mine/b",
        "claims/mine",
    )
    for path in (*places, f"{place_of(CHILD)}/mine", f"{place_of(CHILD)}/x.damaged", "results/mine"):
        store.write("x", path, "file")
    store.write("x", "results", ".DS_Store")
    age(store, "")
    gc.delete(store)
    for path in (*places, f"{place_of(CHILD)}/mine", f"{place_of(CHILD)}/x.damaged", "results/mine"):
        assert Path(store.path(path, "file")).exists(), path


class KilledError(BaseException):
    pass


class Cut:
    """Stands before what deletes: at one of these deletions, before or after it, the process ends."""

    def __init__(self, store: Store, at: int) -> None:
        self.count, self._at, self.killed = 0, at, False
        self._fs, self._conditional = store.fs, store.conditional
        store.fs, store.__dict__["conditional"] = _Before(self, store.fs), _Before(self, store.conditional)

    def deleting(self, done: Any) -> Any:
        self.count += 1
        if self.killed or self.count == self._at:
            self.killed = True
            raise KilledError
        return done()


class _Before:
    def __init__(self, cut: Cut, inner: Any) -> None:
        self._cut, self._inner = cut, inner

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)
        if name in ("delete", "delete_file", "delete_dir"):
            return lambda *arguments: self._cut.deleting(lambda: inner(*arguments))
        return inner


def test_killed_at_any_deletion_what_is_left_is_sound(store: Store, tmp_path: Path) -> None:
    store.write("x", place_of(PARENT), "0123456789ab.damaged", "rows")
    at, ended = 0, False
    while not ended:
        at += 1
        copy = shutil.copytree(store.base, tmp_path / f"{at}")
        cut = Cut(one := Store(str(copy)), at)
        try:
            gc.delete(one, [STUDY])
            ended = True
        except KilledError:
            pass
        left = Store(str(copy))
        found = audit(left)
        assert not found.faults, at
        assert SHARED.identity in committed(left)
        names = {path.name for path in Path(left.path("results")).iterdir()}
        gc.delete(left, [STUDY] if STUDY in names else [])
        for path in Path(left.path("artifacts")).glob("*/*/*"):
            age(left, path.relative_to(left.base).as_posix())
        gc.delete(left)
        assert committed(left) == {SHARED.identity}, at
        assert [p.parent.name for p in Path(left.path("artifacts")).rglob("commit.json")] == [SHARED.identity]
        assert not Path(left.path("results", STUDY)).exists()
        shutil.rmtree(copy)
    assert at > 15
    assert cut.count < at


def test_two_at_once(store: Store) -> None:
    with Claims(store).take(GC), pytest.raises(UserError, match=r"^gc: another one is at work \(process"):
        gc.delete(store)
    assert len(committed(store)) == 7


@pytest.fixture
def remote(object_storage: ObjectStorage) -> Store:
    return fill(Store(object_storage.uri))


def test_on_object_storage(remote: Store, object_storage: ObjectStorage) -> None:
    object_storage.log.clear()
    assert stored(remote).unnamed.things == len(GARBAGE)
    few = len(object_storage.log)
    for seed in range(50, 60):
        commit(remote, toy_run(seed), FILES)
    object_storage.log.clear()
    assert stored(remote).unnamed.things == len(GARBAGE) + 10
    assert len(object_storage.log) == few < 40  # however many results there are
    gc.delete(remote)
    assert committed(remote) == {run.identity for run in (PARENT, SHARED, CHILD)}
    assert stored(remote).others["attempts without a marker"] == NOTHING
    assert audit(remote).holds
    assert gc.find(remote).garbage == ()
    commit(remote, BELOW, FILES)  # where the marker was, a word is
    assert remote.marker(BELOW) is not None
    assert not [key for key in object_storage.objects() if key.endswith(".damaged")]


def test_the_time_is_asked_once_and_said_not_to_be_known(remote: Store, object_storage: ObjectStorage) -> None:
    remote.write("x", "runs", DEAD, "ended")
    remote.save_checkpoint(PARENT, 50, b"progress")
    object_storage.log.clear()
    known = gc.find(remote)
    assert [method for method, path in object_storage.log if "-now" in path].count("PUT") == 1
    assert not known.undated
    object_storage.fault = lambda method, path: DENIED if method in ("PUT", "POST") else None
    found = gc.find(remote)
    assert found.garbage == known.garbage
    assert "its time is not known, since it takes no writes" in found.undated


def test_storage_that_refuses_is_one_sentence(remote: Store, object_storage: ObjectStorage) -> None:
    def of_results(method: str, path: str) -> Any:
        return DENIED if (method == "DELETE" and "artifacts" in path) or method == "POST" else None

    refusals = {"cannot be written": lambda method, path: DENIED if method == "DELETE" else None, "changed": of_results}
    for says, fault in refusals.items():
        object_storage.fault = fault
        with pytest.raises(UserError, match=rf"{says} \(.*ACCESS_DENIED"):
            gc.delete(remote)
        object_storage.fault = lambda method, path: None
        assert audit(remote).holds
        assert {run.identity for run in (PARENT, SHARED, CHILD)} <= committed(remote)
    gc.delete(remote)
    assert committed(remote) == {run.identity for run in (PARENT, SHARED, CHILD)}
    object_storage.conditions = False
    with pytest.raises(UserError, match="has no conditional writes"):
        gc.delete(Store(remote.uri))
