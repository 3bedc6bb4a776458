"""Where Ray is; and against a real head with dashboard, started for these tests on loopback."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heads import Head
from s3ray.engine.cluster import check_answers, check_temporary_folder, cluster_address
from s3ray.errors import UserError

FIGURE3 = Path(__file__).parents[2] / "sweeps" / "figure3_batch_size.py"
SHARED = Path(__file__).parents[1] / "shared"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("http://127.0.0.1:8265", "RAY_ADDRESS=http://127.0.0.1:8265: is a dashboard"),
        ("https://ray.example", "is a dashboard, to which jobs are submitted"),
        ("ray://127.0.0.1:10001", "RAY_ADDRESS=ray://127.0.0.1:10001: Ray Client and its like are not supported"),
        ("somewhere", "RAY_ADDRESS=somewhere: is no HOST:PORT"),
        ("somewhere:", "is no HOST:PORT"),
        ("somewhere:ray", "is no HOST:PORT"),
        ("127.0.0.1:99999", "is no HOST:PORT"),
    ],
)
def test_what_is_no_address(ray_folder: Any, monkeypatch: pytest.MonkeyPatch, value: Any, sentence: Any) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    with pytest.raises(UserError, match=r"RAY_ADDRESS=.*set .*RAY_ADDRESS=local to start Ray") as raised:
        cluster_address()
    assert sentence in str(raised.value)


@pytest.mark.parametrize("value", ["", "local", None])
def test_without_an_address_ray_is_started_here(ray_folder: Any, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    if value is not None:
        monkeypatch.setenv("RAY_ADDRESS", value)
    assert cluster_address() is None


def test_an_address_file_that_names_nothing_is_named(ray_folder: Any) -> None:
    file = ray_folder / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text("")
    with pytest.raises(UserError, match=f"{file}: is no HOST:PORT of a Ray; delete the file"):
        cluster_address()


def test_where_nothing_or_something_else_listens(ray_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ray_folder / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    with socket.socket() as silent, socket.socket() as dead:
        silent.bind(("", 0))
        silent.listen()
        dead.bind(("", 0))  # and does not listen
        file.write_text(f"127.0.0.1:{dead.getsockname()[1]}")
        with pytest.raises(UserError, match=f"{file}: no Ray answers at .*Connection refused.*delete the file"):
            check_answers(cluster_address(), seconds=0.2)
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(UserError, match=r"RAY_ADDRESS=127.*no answer in 0.2 s.*correct it, or set RAY_ADDRESS=loc"):
            check_answers(cluster_address(), seconds=0.2)


def test_ray_needs_a_short_folder_that_it_may_write(ray_folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    check_temporary_folder()
    monkeypatch.setenv("RAY_TMPDIR", f"{ray_folder}/{'deep/' * 20}")
    with pytest.raises(UserError, match=r"RAY_TMPDIR=.* bytes too long.*set RAY_TMPDIR to a short folder"):
        check_temporary_folder()
    (ray_folder / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", f"{ray_folder}/file")
    with pytest.raises(UserError, match=r"RAY_TMPDIR=.*/file: Ray cannot write there \(Not a directory\); set"):
        check_temporary_folder()


@pytest.mark.slow
def test_a_sweep_on_a_dead_cluster_ends_in_a_sentence(tmp_path: Path) -> None:
    """Ray itself tries for a quarter of an hour."""
    ended = subprocess.run(
        [sys.executable, str(FIGURE3), "--datasets", "digits", "--storage", str(tmp_path)],
        env=os.environ | {"RAY_ADDRESS": "127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: RAY_ADDRESS=127.0.0.1:1: no Ray answers")
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RAY_TRAIN_V2_ENABLED", "TUNE_DISABLE_SIGINT_HANDLER"])
def test_a_variable_of_another_project_that_we_cannot_run_with(name: str) -> None:
    program = "from s3ray.cli.console import user_errors\nwith user_errors():\n    import s3ray.engine"
    environment = os.environ | {name: "0"}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert run.stderr.startswith(f"error: {name}=0: ")
    assert run.stderr.endswith("; unset it, or set it to 1\n")


OWN_RAY = """
import logging, os, signal, sys, warnings
import ray
environment = dict(os.environ)
from rich.console import Console
from s3ray.engine.preflight import Execution
from s3ray.engine.run import run_plan
from s3ray.store import Store
from tiny_sweep import DATA, tiny_plan

def state():
    levels = [logging.getLogger(name).level for name in ("ray", "ray.tune", "ray.train")]
    private = ray._private.worker.print_to_stdstream, ray._private.utils.set_sigterm_handler
    return dict(os.environ), levels, list(warnings.filters), private, signal.getsignal(signal.SIGTERM)

def run(seeds):
    store = Store(sys.argv[1])
    return run_plan(tiny_plan(store, seeds), store, {"digits": DATA}, Execution(), Console())

assert not [n for n in os.environ.keys() - environment.keys() if n.startswith(("RAY_", "TUNE_"))]  # of imports
if sys.argv[2] == "own":
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR")
    actor = ray.remote(num_cpus=0)(type("Mine", (), {"alive": lambda self: True})).options(name="mine").remote()
    assert ray.get(actor.alive.remote())
before = state()
assert run(1).failures == {}
for was, is_now in zip(before, state(), strict=True):
    assert was == is_now, (was, is_now)
if sys.argv[2] == "own":
    assert ray.get(ray.get_actor("mine").alive.remote())
    assert ray.available_resources()["CPU"] == 1
else:
    assert not ray.is_initialized()
"""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("whose", ["own", "started"])
def test_a_run_leaves_the_process_as_it_was(ray_folder: Path, tmp_path: Path, whose: str) -> None:
    """As from a notebook: the Ray that it has stays, with its actors; one that was started for the run ends."""
    ended = subprocess.run(
        [sys.executable, "-c", OWN_RAY, str(tmp_path), whose],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(SHARED), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "[1/1] done" in ended.stdout


NOTES = """
import time
import ray
from s3ray.engine.cluster import connected
from s3ray.engine.preflight import Execution

def call():
    return 1

with connected(Execution()):
    assert ray.get([ray.remote(call).remote() for _ in range(3)]) == [1, 1, 1]
    time.sleep(3)  # Ray collects them every second
    print(len(ray.timeline()))
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_ray_that_a_sweep_starts_keeps_no_list_of_calls(ray_folder: Path) -> None:
    """Train's controllers make several a second, of which the head kept 100,000, some 4 kB each."""
    ended = subprocess.run([sys.executable, "-c", NOTES], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["0"]


HANGS = """
import atexit, os, time
import ray
from s3ray.engine.cluster import connected
from s3ray.engine.preflight import Execution

@ray.remote
class Worker:
    def number(self):
        atexit.register(time.sleep, 600)
        return os.getpid()

with connected(Execution()):
    worker = Worker.remote()
    print(ray.get(worker.number.remote()))
    del worker  # it is asked to exit, and says that it does
    time.sleep(3)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_that_hangs_in_its_exit_is_ended_with_the_ray_that_a_sweep_started(ray_folder: Path) -> None:
    """One in some dozens of Train's controllers was left for good, with half a gigabyte."""
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    number = int(ended.stdout)
    try:
        status = Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2]
        assert status.startswith("Z")
    except FileNotFoundError:
        pass
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


LEAK = """
@ray.remote(num_cpus=0)
class Survivor:
    "Outlives its job and holds placement groups, as what a dead driver leaves behind does."
    def hold(self):
        self.groups = [ray.util.placement_group([{"CPU": 1}], name=name) for name in ("", "somebody's")]
        ray.get([group.ready() for group in self.groups])
        return [group.id.hex() for group in self.groups]

ray.init(logging_level="ERROR")
survivor = Survivor.options(name="survivor", namespace="leak", lifetime="detached").remote()
print(*ray.get(survivor.hold.remote()))
"""

REAP = """
with connected(Execution()) as capacity:
    print(capacity.cpus, capacity.nodes, cluster_address() is not None)
    deadline = time.monotonic() + 30
    while (available := ray.available_resources().get("CPU", 0.0)) < 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    print(available)
    states = {group.placement_group_id: group.state for group in ray.util.state.list_placement_groups()}
    print(*(f"{identifier}:{state}" for identifier, state in states.items()))
"""


GROWS = """
import os
os.environ |= {"S3RAY_MAX_CPUS": "32", "S3RAY_MAX_GPUS": "8"}
with connected(Execution()) as capacity:
    print(capacity.cpus, capacity.gpus, capacity.nodes)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_that_grows_counts_as_what_its_file_says(head: Head) -> None:
    grown = head.python(GROWS)
    assert grown.stdout.split() == ["32.0", "8.0", "2"], grown.stderr


@pytest.mark.ray
@pytest.mark.slow
def test_leaked_placement_groups_are_removed_and_others_are_not(head: Head) -> None:
    leaked = head.python(LEAK)
    assert leaked.returncode == 0, leaked.stderr
    anonymous, named = leaked.stdout.split()
    reaped = head.python(REAP)
    assert reaped.returncode == 0, reaped.stderr
    capacity, available, states = reaped.stdout.splitlines()
    assert capacity == "2.0 1 True"
    assert float(available) == 1.0
    assert {f"{anonymous}:REMOVED", f"{named}:CREATED"} <= set(states.split())
