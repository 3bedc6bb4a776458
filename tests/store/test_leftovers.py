import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from object_storage import ObjectStorage
from s3ray.store import Store
from s3ray.store.leftovers import FAILED_HOURS, clear_leftovers
from s3ray.traces import has_died, tag
from toy_runs import toy_run

RUN = toy_run()
ELSEWHERE = "p00000000-1-1"  # a process of another machine
HEXADECIMAL = "b" * 32


def run_name(by: str) -> str:
    return f"grid-20261126-181500-{by}-abc123"


@pytest.fixture(scope="module")
def dead() -> str:
    """The tag of a process that has ended."""
    program = "from s3ray.traces import tag; print(tag())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def age(path: Path, hours: float = 25.0) -> None:
    """It and all that is in it was written so long ago."""
    for one in [path, *path.rglob("*")]:
        os.utime(one, (time.time() - hours * 3600,) * 2)


def test_a_process_is_known_to_have_died_on_its_own_machine_alone(dead: str) -> None:
    assert re.fullmatch(r"p[0-9a-f]{8}-\d+-\d+", tag())
    assert has_died(f"grid-20261126-181500-{tag()}-abc123") is False
    assert has_died(f"grid-20261126-181500-{dead}-abc123") is True
    machine, number, start = tag().split("-")
    assert has_died(f".x-{machine}-{number}-{int(start) + 1}-y") is True  # its number was given again
    assert has_died(f"x-{ELSEWHERE}") is None
    assert has_died("grid-20261126-181500-abc123") is None


def test_nothing_is_left_of_nothing(store: Store, tmp_path: Path) -> None:
    assert clear_leftovers(store) == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_known_of_failed_cells_is_kept_for_a_week(store: Store, tmp_path: Path, dead: str) -> None:
    for by in (dead, ELSEWHERE):
        store.write("RuntimeError: x", "runs", run_name(by), "failures", "c")
    age(tmp_path, FAILED_HOURS - 1)
    assert clear_leftovers(store) == []
    age(tmp_path, FAILED_HOURS + 1)
    assert set(clear_leftovers(store)) == {f"runs/{run_name(by)}" for by in (dead, ELSEWHERE)}


def test_what_a_dead_process_left_is_cleared_and_what_lives_or_may_live_stays(
    store: Store, tmp_path: Path, dead: str
) -> None:
    content = "a" * 64

    def left(by: str) -> set[str]:
        return {
            f"runs/{run_name(by)}",
            f"data/.{content}-{by}-ab_cd_12",
            f"checkpoints/c/{by}-{HEXADECIMAL}.tmp",
            f".writable-{by}-{HEXADECIMAL}",
            f".conditions-{by}-{HEXADECIMAL}",
            f".conditions-{by}-{HEXADECIMAL}.~1",
            f"{by}-{HEXADECIMAL}.tmp",
        }

    for by in (dead, tag(), ELSEWHERE):
        for path in left(by):
            store.write("x", path, *(["file"] if path.startswith(("runs/", "data/")) else []))
    others = {"data/.mine-old", "notes.tmp", f"{HEXADECIMAL}.tmp", f"data/{content}", "results/grid", "claims/c"}
    for path in others:
        store.write("x", path, "file")
        age(tmp_path / path)
    assert set(clear_leftovers(store)) == left(dead)
    for path in left(ELSEWHERE):
        age(tmp_path / path)
    assert set(clear_leftovers(store)) == left(ELSEWHERE)
    assert clear_leftovers(store) == []
    assert all((tmp_path / path).exists() for path in left(tag()) | others)


def test_a_run_of_another_machine_lives_while_anything_in_it_is_written(store: Store, tmp_path: Path) -> None:
    run = tmp_path / "runs" / run_name(ELSEWHERE)
    store.write("x", "runs", run.name, "tune", "old")
    age(run)
    store.write("x", "runs", run.name, "tune", "deep", "new")
    assert clear_leftovers(store) == []


def test_attempts_that_no_marker_names_are_cleared_after_a_day(store: Store, tmp_path: Path) -> None:
    for _ in range(2):
        store.commit(RUN, {"a.bin": b"payload"}, seconds=1.0, provenance={})
    folder = tmp_path / "artifacts" / RUN.stage.name / RUN.identity
    mine = store.marker(RUN).attempt
    for name in ("0123456789a1", "0123456789a2"):
        store.write("x", "artifacts", RUN.stage.name, RUN.identity, name, "a.bin")
    store.write("x", "artifacts", RUN.stage.name, "f" * 64, "0123456789a3", "a.bin")
    orphans = {path for path in folder.parent.glob("*/*") if path.is_dir() and path.name != mine}
    assert clear_leftovers(store) == []
    age(tmp_path)
    assert {tmp_path / path for path in clear_leftovers(store)} == orphans
    assert store.artifact(RUN, "a.bin") == b"payload"


def test_a_marker_that_cannot_be_read_may_name_any_attempt(store: Store, tmp_path: Path) -> None:
    place = ("artifacts", RUN.stage.name, RUN.identity)
    for name in ("0123456789a1", "0123456789a2"):
        store.write("x", *place, name, "a.bin")
    store.write("{", *place, "commit.json")
    age(tmp_path)
    assert clear_leftovers(store) == []


@pytest.mark.parametrize("place", ["disk", "objects"])
def test_checkpoints_of_a_committed_run_are_cleared(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Its writer died between its marker and deleting them; of a run that is not committed they stay."""
    store = Store(str(tmp_path) if place == "disk" else request.getfixturevalue("object_storage").uri)
    store.commit(RUN, {"a.bin": b"payload"}, seconds=1.0, provenance={})
    unfinished = toy_run(seed=1)
    for run in (RUN, unfinished):
        store.save_checkpoint(run, 1, b"progress")
    store.write("x", "artifacts", ".DS_Store")
    assert clear_leftovers(store) == [f"checkpoints/{RUN.identity}"]
    assert (store.checkpoint_step(RUN), store.checkpoint_step(unfinished)) == (None, 1)
    assert clear_leftovers(store) == []


@pytest.mark.parametrize(
    "path",
    [
        "runs/Nov20_myhost",  # TensorBoard's own
        "runs/grid-20261126-181500-abc1234",
        "artifacts/mlmodel/v1/weights",
        f"artifacts/mlmodel/{'a' * 64}/weights",
        "artifacts/mlmodel/v1/0123456789ab",
        f"data/.{'a' * 64}-mine",
        ".writable-mine",
        ".conditions-mine",
        "results/notes.tmp",
    ],
)
def test_other_peoples_files_stay(path: str, store: Store, tmp_path: Path) -> None:
    store.write("x", path, *([] if path.startswith((".", "results")) else ["file"]))
    age(tmp_path)
    assert clear_leftovers(store) == []
    assert (tmp_path / path).exists()


def test_what_has_no_tag_is_cleared_after_a_day(store: Store, tmp_path: Path) -> None:
    names = {f".conditions-{HEXADECIMAL}", f".conditions-{HEXADECIMAL}.~1", f"{HEXADECIMAL}.tmp"}
    for name in names:
        store.write("x", name)
    assert clear_leftovers(store) == []
    age(tmp_path)
    assert set(clear_leftovers(store)) == names


def test_a_conditional_write_that_is_killed_leaves_what_is_known_to_be_dead(store: Store, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom s3ray.store import Store\n"
        "os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nStore(sys.argv[1]).conditional.probe()"
    )
    assert subprocess.run([sys.executable, "-c", program, store.base]).returncode == -signal.SIGKILL
    assert len(clear_leftovers(store)) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stray", ["runs", "data", "artifacts", "artifacts/probe", f"artifacts/probe/{'a' * 64}"])
def test_a_stray_file_in_a_folders_place_stops_nothing(stray: str, store: Store, tmp_path: Path) -> None:
    store.write("x", stray)
    age(tmp_path)
    assert clear_leftovers(store) == []


def test_files_beside_runs_and_attempts_stop_nothing(store: Store, tmp_path: Path) -> None:
    orphan = f"artifacts/probe/{'a' * 64}/0123456789ab"
    for folder in ("artifacts", "artifacts/probe", f"artifacts/probe/{'a' * 64}", "runs", "data", orphan):
        store.write("x", folder, ".DS_Store")
    age(tmp_path)
    assert clear_leftovers(store) == [orphan]


def test_folders_that_vanish_meanwhile_stop_nothing(store: Store, tmp_path: Path) -> None:
    done = threading.Event()

    def make_and_drop() -> None:
        while not done.is_set():
            for folder in ("claims/c/d", f"artifacts/probe/{'a' * 64}/0123456789ab", f"runs/{run_name(ELSEWHERE)}/x"):
                (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            for folder in ("claims/c", "artifacts/probe", f"runs/{run_name(ELSEWHERE)}"):
                shutil.rmtree(tmp_path / folder)

    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(make_and_drop)
        try:
            for _ in range(100):
                assert clear_leftovers(store) == []
        finally:
            done.set()
        made.result()


def test_runs_on_object_storage(object_storage: ObjectStorage, dead: str) -> None:
    store = Store(object_storage.uri)
    for by in (dead, tag(), ELSEWHERE):
        store.write("x", "runs", run_name(by), "errors", "cell")
    assert clear_leftovers(store) == [f"runs/{run_name(dead)}"]
    assert {key.split("/")[1] for key in object_storage.objects()} == {run_name(by) for by in (tag(), ELSEWHERE)}
