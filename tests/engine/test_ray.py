"""The real thing: Ray on this machine, real workers, real gloo, real kills.

A worker group is eight processes, and most of a test's time; so a test has a second cell only where it shows something.
"""

import glob
import io
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path
from types import ModuleType

import pandas as pd
import psutil
import pytest

from object_storage import ObjectStorage
from real_sweeps import assert_same_results, checkpointed, finish, start, train_workers, wait_for
from s3ray.execution.logs import explained
from s3ray.execution.status import Watch
from s3ray.store import Store

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def assert_logs_are_there(told: str) -> None:
    """What is said of the place of Ray's logs is true, as long as that folder stays."""
    (folder,) = re.findall("Ray's logs of the call in [^:]*:(/.*)$", told, re.MULTILINE)
    assert os.listdir(folder)


@pytest.fixture(scope="module")
def uninterrupted(tiny_sweep: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, str]:
    """The tiny sweep, run once without trouble."""
    storage = tmp_path_factory.mktemp("uninterrupted")
    code, output = finish(start(tiny_sweep, storage))
    assert code == 0, output
    return Store(str(storage)), output


def test_a_sweep_runs_every_cell_quietly(uninterrupted: tuple[Store, str], tiny_sweep: ModuleType) -> None:
    store, output = uninterrupted
    plan = tiny_sweep.tiny_plan(store)
    assert plan.pending == ()
    assert plan.committed[plan.cells[0].training.identity].provenance["workers"] == 1
    # Every line is ours: one at the start, then events.
    first, *events = output.splitlines()
    assert re.fullmatch("2 cells in 2 packs, 2 at a time, .* to .* in all; starting worker groups", first)
    assert [line for line in events if not line.startswith("[")] == []
    assert "[2/2] done" in output


def test_a_signal_ends_the_sweep_without_failing_cells(tiny_sweep: ModuleType, tmp_path: Path) -> None:
    """What schedulers and `ray job stop` send; whoever sends it may be impatient."""
    process = start(tiny_sweep, tmp_path, TINY_SEEDS="1")
    while "finished" not in process.stdout.readline():
        assert process.poll() is None
    started_by_it = psutil.Process(process.pid).children(recursive=True)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.5)
    ended, output = finish(process)
    assert ended == 128 + signal.SIGTERM, output
    *events, last = output.splitlines()
    assert last == "interrupted; what was committed stays, run again to continue"
    assert [line for line in events if not line.startswith("[")] == []
    assert "FAILED" not in output
    assert psutil.wait_procs(started_by_it, timeout=30)[1] == []


def _kill(name: str, process: subprocess.Popen[str], storage: Path) -> None:
    """End one of the processes of the sweep's own Ray, or take its storage away."""
    if name == "storage":
        storage.rename(storage.with_name("elsewhere"))
        storage.write_text("in its place")
        return
    (one,) = (p for p in psutil.Process(process.pid).children(recursive=True) if p.name() == name)
    one.kill()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("raylet", "Ray's raylet on this machine has died (its logs are in /tmp/"),
        ("gcs_server", "no longer answers (Connection refused)"),
        ("storage", "/storage: cannot be "),  # read or written, whichever is asked first
    ],
)
def test_what_a_sweep_stands_on_is_gone(
    tiny_sweep: ModuleType, tmp_path: Path, ray_folder: Path, name: str, sentence: str
) -> None:
    storage = tmp_path / "storage"
    process = start(tiny_sweep, storage, TINY_SEEDS="1", TINY_EPOCHS="1000", RAY_ADDRESS="local")
    while "starting worker groups" not in process.stdout.readline():
        assert process.poll() is None
    started_by_it = psutil.Process(process.pid).children(recursive=True)
    time.sleep(1)
    _kill(name, process, storage)
    began = time.monotonic()
    code, output = finish(process)
    assert time.monotonic() - began < 30, output
    assert code == 1, output
    (line,) = [line for line in output.splitlines() if not line.startswith("[")]
    assert line.startswith("error: ")
    assert sentence in line
    assert line.endswith("; what was committed stays, run again to continue")
    assert psutil.wait_procs(started_by_it, timeout=30)[1] == []


def test_a_worker_group_that_cannot_start_fails_its_cell_with_the_cause(tiny_sweep: ModuleType, tmp_path: Path) -> None:
    """Train forgets what such a group held; with it the next attempt had no place, and waited for a week."""
    code, output = finish(start(tiny_sweep, tmp_path, "2", TINY_SEEDS="1", GLOO_SOCKET_IFNAME="no_such_interface"))
    assert code == 1, output
    (failed,) = (line for line in output.splitlines() if line.startswith("FAILED digits"))
    assert "RuntimeError" in failed
    assert "no_such_interface" in failed
    assert "given up after 3 attempts" in failed
    told = "\n".join(explained(Store(str(tmp_path)), "digits"))
    assert "none of its stages has begun" in told
    assert re.search(r"no_such_interface.* \(3 times\)\n +Traceback \(most recent call last\)", told)
    assert_logs_are_there(told)
    others = [line for line in output.splitlines()[1:] if not line.startswith(("[", "FAILED"))]
    assert others == []


def test_a_cell_out_of_memory_says_so_with_rays_cause_and_what_to_lower(tiny_sweep: ModuleType, tmp_path: Path) -> None:
    memory = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "100"}
    code, output = finish(start(tiny_sweep, tmp_path, TINY_SEEDS="1", **memory))
    assert code == 1, output
    (failed,) = (line for line in output.splitlines() if line.startswith("FAILED digits"))
    assert "low on memory" in failed
    assert "; lower batch_sizes" in failed
    told = "\n".join(explained(Store(str(tmp_path)), "digits"))
    assert f"  given up: {failed.partition(': ')[2]}" in told
    assert re.search(r"^ +(worker group: )?.*low on memory.*\n {6}", told, re.MULTILINE)  # and all that Ray says of it
    assert_logs_are_there(told)
    assert [line for line in output.splitlines()[1:] if not line.startswith(("[", "FAILED"))] == []


def test_a_killed_driver_continues_and_recomputes_nothing(
    uninterrupted: tuple[Store, str], tiny_sweep: ModuleType, tmp_path: Path
) -> None:
    """Of three cells on two slots the third has not begun: workers may go on for a moment without their driver."""
    store = Store(str(tmp_path))
    plan = tiny_sweep.tiny_plan(store, seeds=3)
    process = start(tiny_sweep, tmp_path, TINY_SEEDS="3")
    wait_for(lambda: len(store.markers(run for cell in plan.cells for run in cell.runs)) >= 2, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = store.markers(run for cell in plan.cells for run in cell.runs)
    total = len({run.identity for cell in plan.cells for run in cell.runs})
    assert len(before) < total
    assert len(list((tmp_path / "runs").iterdir())) == 1
    code, output = finish(start(tiny_sweep, tmp_path, TINY_SEEDS="3"))
    assert code == 0, output
    assert not list((tmp_path / "runs").iterdir())
    after = store.markers(run for cell in plan.cells for run in cell.runs)
    assert len(after) == total
    assert {identity: after[identity].attempt for identity in before} == {
        identity: marker.attempt for identity, marker in before.items()
    }
    assert_same_results(store, uninterrupted[0], [cell for cell in plan.cells if cell.cell.seed < 2])


DIVERGED = "FAILED digits χ=2 batch=32 seed=1: DivergedError: the loss became"


def test_a_killed_worker_resumes_bit_identical_and_a_failing_cell_stands_alone(
    uninterrupted: tuple[Store, str], tiny_sweep: ModuleType, tmp_path: Path
) -> None:
    store = Store(str(tmp_path))
    plan = tiny_sweep.tiny_plan(store)
    process = start(tiny_sweep, tmp_path, TINY_DIVERGE="1")
    wait_for(lambda: checkpointed(store, plan), process)
    for worker in train_workers(process):
        worker.kill()
    code, output = finish(process)
    assert code == 1, output
    assert DIVERGED in output
    assert [cell.cell.seed for cell in tiny_sweep.tiny_plan(store).pending] == [1]
    assert_same_results(store, uninterrupted[0], plan.cells[:1])
    (call,) = Watch(store).look()
    assert (call.done, call.total, call.alive) == (1, 2, False)
    assert [DIVERGED.endswith(cause.partition(" nan")[0]) for cause in call.failed.values()] == [True]
    diverged, killed = ("\n".join(explained(store, label)) for label in ("seed=1", "seed=0"))
    assert DIVERGED.partition(": ")[2] in diverged
    assert re.search(r"DivergedError: .*\n +Traceback \(most recent call last\)", diverged)
    assert "in specialization, after step 0" in diverged
    (folder, worker) = re.findall(r"Ray's logs: [^:]*:(/.*), files (\S+) in it and in train/", diverged)[0]
    assert glob.glob(f"{folder}/{worker}")
    assert glob.glob(f"{folder}/train/{worker}")
    assert "  attempt 2: " in killed
    assert re.search(r"reached specialization, \d+ stage runs missing, a checkpoint at step \d+\n", killed)
    assert re.search(r"    worker group: WorkerHealthCheckFailedError: .*\n {6}", killed)
    assert "worker process has died" in killed


def test_two_workers_of_which_one_is_killed_compute_what_one_computes(
    uninterrupted: tuple[Store, str], tiny_sweep: ModuleType, tmp_path: Path
) -> None:
    """The other rank sees a broken connection before Ray sees the death; that must not fail the cell."""
    store = Store(str(tmp_path))
    plan = tiny_sweep.tiny_plan(store, seeds=1)
    process = start(tiny_sweep, tmp_path, "2", TINY_SEEDS="1")
    wait_for(lambda: checkpointed(store, plan), process)
    train_workers(process)[0].kill()
    code, output = finish(process)
    assert code == 0, output
    run = plan.cells[0].training
    one, two = (pd.read_parquet(io.BytesIO(s.artifact(run, "rows.parquet"))) for s in (uninterrupted[0], store))
    # float32, and rounding differences grow with the steps: the first 20 within 1e-4.
    pd.testing.assert_frame_equal(one[:20], two[:20], rtol=1e-4, atol=1e-5)
    assert len(one) == len(two)
    assert store.markers([run])[run.identity].provenance["workers"] == 2


def test_a_sweep_on_throttled_object_storage_computes_what_it_computes_on_a_disk(
    uninterrupted: tuple[Store, str], tiny_sweep: ModuleType, object_storage: ObjectStorage, tmp_path: Path
) -> None:
    draw, throttled = random.Random(0), object_storage.faults.THROTTLED
    object_storage.fault = lambda method, path: throttled if draw.random() < 0.2 else None
    code, output = finish(start(tiny_sweep, object_storage.uri, TINY_SEEDS="1", XDG_CACHE_HOME=str(tmp_path)))
    assert code == 0, output
    assert "[1/1] done" in output
    object_storage.fault = lambda method, path: None
    store = Store(object_storage.uri)
    plan = tiny_sweep.tiny_plan(store, seeds=1)
    assert plan.pending == ()
    assert_same_results(store, uninterrupted[0], plan.cells)
    places = {key.partition("/")[0] for key in object_storage.objects()}
    assert places == {"artifacts", "claims", "data", "environments", "tensorboard", "timing"}
