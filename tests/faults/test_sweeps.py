"""Thirty faults on real sweeps, each on a Ray of its own or on one head that stands; `make faults`.

The number of a fault says what happens; when and to whom is drawn from the seed and this number. After each the same
command is given again. Then must hold, as a rule set before any of them was tried:

- the command ends with exit code 0, and its results are bit for bit those of a sweep that nothing befell;
- what counted when the fault came, and what counted when the command was given again, keeps its attempt, unless the
  fault deleted or damaged it; and nothing was computed twice, which would have left its drift;
- no process of the sweeps is left, no placement group, and in the store nothing that is not named.

What has no tag of its process is proved dead by 24 hours without a write alone: for those files time is turned back.
"""

import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest

from heads import Head, started_head
from object_storage import ObjectStorage
from real_sweeps import assert_same_results, checkpointed, finish, start, wait_for
from s3ray.errors import STAYS
from s3ray.execution.audit import audit
from s3ray.store import Store
from s3ray.store.claims import LEASE_SECONDS
from s3ray.store.leftovers import FAILED_HOURS, clear_leftovers
from s3ray.sweep import Plan

pytestmark = [pytest.mark.faults, pytest.mark.ray]

SEED = int(os.environ.get("S3RAY_SEED", 20260727))  # without one the same in every run
MARK = "S3RAY_FAULT"  # in the environment of all that a fault's sweeps start
SIZE = {"TINY_SEEDS": "1", "RAY_worker_niceness": "0"}  # not to be starved by what else runs on this machine
KILLABLE = ("worker", "trial", "controller", "driver", "raylet", "gcs_server")
NAMES = {"worker": "ray::RayTrainWorker", "trial": "ray::ImplicitFunc", "controller": "ray::TrainController"}
# What Ray itself starts on a head, once, and keeps: none of it belongs to a sweep.
_KEPT = ("IDLE", "DashboardAgent", "RuntimeEnvAgent", "TrainStateActor", "_AutoscalingCoordinatorActor")
OF_A_HEAD = tuple(f"ray::{name}" for name in _KEPT)


@dataclass
class Sweeps:
    """The sweeps of one fault, on one store.

    Attributes:
        kept: attempts that must stay the ones that count, by identity.
        head, raylet: what they connect to.
        server: the object storage that holds the store.
    """

    draw: random.Random
    module: ModuleType
    storage: str
    head: Head | None = None
    raylet: psutil.Process | None = None
    server: ObjectStorage | None = None
    environment: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.store = Store(self.storage)
        self.plan: Plan = self.module.tiny_plan(self.store, seeds=1)

    def start(self) -> subprocess.Popen[str]:
        known = self.head.environment if self.head else {}
        return start(self.module, self.storage, **{**known, **SIZE, **self.environment, MARK: self.mark})

    def processes(self) -> list[psutil.Process]:
        """All of them, the driver's children or not; workers of a head do not inherit the driver's environment."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):  # zombies have no environment
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        for process in self.raylet.children(recursive=True) if self.raylet else ():
            with contextlib.suppress(psutil.Error):
                if process.name().startswith("ray::") and not process.name().startswith(OF_A_HEAD):
                    found.append(process)
        return found

    def named(self, name: str) -> list[psutil.Process]:
        found = []
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                if process.name().startswith(name):
                    found.append(process)
        return found

    def attempts(self) -> dict[str, str]:
        runs = [run for cell in self.plan.cells for run in cell.runs]
        return {identity: marker.attempt for identity, marker in self.store.markers(runs).items()}

    def moment(self, process: subprocess.Popen[str]) -> None:
        """Wait for the moment that is drawn. What counts then is to stay."""
        moments: list[Callable[[], object]] = [
            lambda: self.named(NAMES["worker"]),
            lambda: checkpointed(self.store, self.plan),
            lambda: self.attempts(),
            lambda: len(self.attempts()) >= 2,  # of a training stage and the first two ratios of its curve
        ]
        # What cannot be followed closely on object storage is over by the time that it is seen.
        wait_for(self.draw.choice(moments[: 3 if self.server else 4]), process, pause=0.05)
        self.kept = self.attempts()

    def send(self, number: signal.Signals, victim: str, process: subprocess.Popen[str]) -> list[psutil.Process]:
        if victim == "driver":
            process.send_signal(number)
            return [psutil.Process(process.pid)]
        found = wait_for(lambda: self.named(NAMES.get(victim, victim)), process)
        for one in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)
        return found

    def ends_with(self, process: subprocess.Popen[str], *codes: int) -> None:
        """Wait for a command's end; whatever it says, it says in lines of its own."""
        if codes == (-signal.SIGKILL,):  # what it started may outlive it for a moment, with its standard output
            assert process.wait(timeout=60) in codes
            return
        code, output = finish(process)
        assert code in codes, output
        assert "Traceback" not in output
        said = [line for line in output.splitlines() if not line.startswith(("[", "FAILED ", "1 cells in 1 packs"))]
        if code == 0:
            assert said == [], output
        else:  # of one cause, or of cells, each with its own
            assert [line.endswith(STAYS) for line in said] == [True] or (not said and "FAILED " in output), output

    def kill(self, *victims: str) -> None:
        """Kill at the moment that is drawn, and wait for the end that this brings."""
        process = self.start()
        self.moment(process)
        for victim in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.send(signal.SIGKILL, victim, process)
        if "driver" in victims:
            self.ends_with(process, -signal.SIGKILL)
        else:
            # A sweep that is nearly done may be over before it notices that its Ray is dead.
            self.ends_with(process, *((0, 1) if {"raylet", "gcs_server"}.intersection(victims) else (0,)))

    def __enter__(self) -> "Sweeps":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


def a_worker_is_killed(sweeps: Sweeps) -> None:
    sweeps.kill("worker")


def a_trial_is_killed(sweeps: Sweeps) -> None:
    sweeps.kill(sweeps.draw.choice(["trial", "controller"]))


def the_driver_is_killed(sweeps: Sweeps) -> None:
    sweeps.kill("driver")


def the_raylet_is_killed(sweeps: Sweeps) -> None:
    sweeps.kill("raylet")


def the_gcs_is_killed(sweeps: Sweeps) -> None:
    sweeps.kill("gcs_server")


def two_are_killed_at_once(sweeps: Sweeps) -> None:
    sweeps.kill(*sorted(sweeps.draw.sample(KILLABLE, 2), key="driver".__eq__))  # the driver last: who asks needs it


def one_of_two_drivers_is_killed(sweeps: Sweeps) -> None:
    both = [sweeps.start(), sweeps.start()]
    sweeps.moment(both[0])
    killed, other = sweeps.draw.sample(both, 2)
    killed.kill()
    sweeps.ends_with(killed, -signal.SIGKILL)
    sweeps.ends_with(other, 0)


def the_driver_is_stopped_while_another_runs(sweeps: Sweeps) -> None:
    """Its worker group lives, and keeps what it claimed: the other sweep waits, and both end once it goes on."""
    process = sweeps.start()
    sweeps.moment(process)
    (stopped,) = sweeps.send(signal.SIGSTOP, "driver", process)
    other = sweeps.start()
    time.sleep(2 * LEASE_SECONDS)
    sweeps.kept = sweeps.attempts()
    stopped.send_signal(signal.SIGCONT)
    sweeps.ends_with(other, 0)
    sweeps.ends_with(process, 0)


def a_worker_is_stopped_while_another_sweep_runs(sweeps: Sweeps) -> None:
    """Past its lease the other sweep does its work, and it changes nothing when it goes on."""
    process = sweeps.start()
    sweeps.moment(process)
    stopped = sweeps.send(signal.SIGSTOP, "worker", process)
    began = time.monotonic()
    try:
        sweeps.ends_with(sweeps.start(), 0)
        time.sleep(max(0.0, LEASE_SECONDS + 1 - (time.monotonic() - began)))
    finally:
        sweeps.kept = sweeps.attempts()
        for one in stopped:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(signal.SIGCONT)
    sweeps.ends_with(process, 0)


def a_signal_comes(sweeps: Sweeps) -> None:
    number = sweeps.draw.choice([signal.SIGINT, signal.SIGTERM])
    process = sweeps.start()
    sweeps.moment(process)
    process.send_signal(number)
    sweeps.ends_with(process, 128 + number)


def the_storage_server_goes_away(sweeps: Sweeps) -> None:
    assert sweeps.server is not None
    process = sweeps.start()
    sweeps.moment(process)
    for_a_moment = sweeps.draw.random() < 0.5
    sweeps.server.go_away()
    try:
        if for_a_moment:
            time.sleep(3)
        else:
            sweeps.ends_with(process, 1)
    finally:
        sweeps.server.come_back()
    if for_a_moment:
        sweeps.ends_with(process, 0)


def the_storage_server_is_slow_or_throttles(sweeps: Sweeps) -> None:
    assert sweeps.server is not None
    slow, draw, throttled = sweeps.draw.random() < 0.5, random.Random(sweeps.draw.random()), (503, "SlowDown")

    def fault(method: str, path: str) -> tuple[int, str] | None:
        if slow:
            time.sleep(draw.uniform(0.05, 0.3))
        return throttled if not slow and draw.random() < 0.2 else None

    process = sweeps.start()
    sweeps.moment(process)
    sweeps.server.fault = fault
    sweeps.ends_with(process, 0)
    sweeps.server.fault = lambda method, path: None


def the_storage_is_deleted(sweeps: Sweeps) -> None:
    process = sweeps.start()
    sweeps.moment(process)
    sweeps.kept = {}
    storage = Path(sweeps.storage)
    shutil.rmtree(storage.rename(storage.with_name("deleted")))
    sweeps.ends_with(process, 0, 1)


def the_storage_turns_read_only(sweeps: Sweeps) -> None:
    process = sweeps.start()
    sweeps.moment(process)
    deadline = time.monotonic() + 30
    # Refused while a file is open for writing.
    while subprocess.run(["mount", "-o", "remount,bind,ro", sweeps.storage], capture_output=True).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        sweeps.ends_with(process, 1)
    finally:
        subprocess.run(["mount", "-o", "remount,bind,rw", sweeps.storage], check=True)


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def the_storage_is_full(sweeps: Sweeps) -> None:
    process = sweeps.start()
    sweeps.moment(process)
    filler = Path(sweeps.storage, "somebody's.bin")
    try:
        _fill(filler)
        sweeps.ends_with(process, 1)
    finally:
        filler.unlink()


def bits_flip(sweeps: Sweeps) -> None:
    """On the disk: pages of data that a process has mapped stay what it compared with their digests."""
    process = sweeps.start()
    sweeps.moment(process)
    places = (Path(sweeps.storage, folder) for folder in ("artifacts", "checkpoints", "claims", "data"))
    files = sorted(file for place in places for file in place.rglob("*") if file.is_file())
    for file in sweeps.draw.sample(files, min(len(files), sweeps.draw.randint(1, 4))):
        with contextlib.suppress(FileNotFoundError):  # a checkpoint, a claim: replaced meanwhile
            content = bytearray(file.read_bytes())
            content[sweeps.draw.randrange(len(content))] ^= 1 << sweeps.draw.randrange(8)
            if "data" in file.relative_to(sweeps.storage).parts:
                file.with_name("flipped").write_bytes(content)
                file.with_name("flipped").replace(file)
            else:
                with file.open("r+b") as opened:
                    opened.write(content)
    sweeps.ends_with(process, 0, 1)
    audit(sweeps.store)  # as whoever reads the tables does: what is damaged no longer counts
    sweeps.kept = {}


Kind = Callable[[Sweeps], None]
OWN: tuple[Kind, ...] = (
    *(a_worker_is_killed, a_trial_is_killed, the_driver_is_killed),
    *[the_raylet_is_killed, the_gcs_is_killed, one_of_two_drivers_is_killed, the_driver_is_stopped_while_another_runs]
    * 2,
    *[two_are_killed_at_once] * 3,
    *[a_worker_is_stopped_while_another_sweep_runs, the_storage_server_goes_away, bits_flip] * 2,
    *(a_signal_comes, the_storage_server_is_slow_or_throttles),
    *(the_storage_is_deleted, the_storage_turns_read_only, the_storage_is_full),
)
STANDING: tuple[Kind, ...] = (
    a_worker_is_killed,
    a_trial_is_killed,
    the_driver_is_killed,
    the_driver_is_killed,
    a_signal_comes,
)
NUMBERS = dict(enumerate((*OWN, *STANDING)))
WITH_SERVER = {the_storage_server_goes_away, the_storage_server_is_slow_or_throttles}
MOUNTED = {the_storage_turns_read_only, the_storage_is_full}
# Two compute the same there, if the first is stopped amid a stage; the second to commit tells how far it was off.
TWICE = {a_worker_is_stopped_while_another_sweep_runs}


def _names(sweeps: Sweeps) -> list[str]:
    """Files and folders of the store, of object storage files alone."""
    if sweeps.server is not None:
        return sweeps.server.objects()
    return [path.relative_to(sweeps.storage).as_posix() for path in Path(sweeps.storage).rglob("*")]


def _assert_nothing_is_left(sweeps: Sweeps) -> None:
    deadline = time.monotonic() + 120
    while left := sweeps.processes():
        assert time.monotonic() < deadline, left
        time.sleep(0.5)
    if sweeps.head is not None:
        status, answer = sweeps.head.get("/api/v0/placement_groups?limit=1000")
        groups = json.loads(answer)["data"]["result"]["result"]
        assert (status, [group for group in groups if group["state"] != "REMOVED"]) == (200, [])
    if sweeps.server is None:
        long_ago = time.time() - (FAILED_HOURS + 1) * 3600
        for name in _names(sweeps):
            os.utime(Path(sweeps.storage, name), (long_ago, long_ago))
        clear_leftovers(sweeps.store)
    names = _names(sweeps)
    assert [name for name in names if name.startswith(("runs/", ".")) or "/." in name or name.endswith(".tmp")] == []
    attempts = {match[1] for name in names if (match := re.fullmatch(r"artifacts/\w+/\w+/([0-9a-f]{12})", name))}
    assert attempts <= set(sweeps.attempts().values())


def _assert_survived(kind: Kind, sweeps: Sweeps, expected: Store) -> None:
    kind(sweeps)
    before = sweeps.attempts()
    assert sweeps.kept.items() <= before.items()
    pending = sweeps.module.tiny_plan(sweeps.store, seeds=1).pending
    sweeps.ends_with(sweeps.start(), 0)
    after = sweeps.attempts()
    assert before.items() <= after.items()
    assert_same_results(sweeps.store, expected, sweeps.plan.cells)
    if kind not in TWICE:
        assert [name for name in _names(sweeps) if "/drift-" in name] == []
    # What has the tag of a dead process is gone already, if there was something to do.
    assert not (clear_leftovers(sweeps.store) and pending)
    _assert_nothing_is_left(sweeps)


def _try(kind: Kind, sweeps: Sweeps, expected: Store, tally: Any) -> None:
    name = f"{'sweep, standing head' if sweeps.head else 'sweep'}: {kind.__name__.replace('_', ' ')}"
    try:
        with sweeps:
            _assert_survived(kind, sweeps, expected)
    except (Exception, pytest.fail.Exception):
        tally.add(name, False, SEED)
        raise
    tally.add(name, True, SEED)


@pytest.fixture(scope="module")
def expected(tiny_sweep: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store of a sweep that nothing befell."""
    storage = tmp_path_factory.mktemp("undisturbed")
    with tempfile.TemporaryDirectory(prefix="s3r", dir="/tmp") as folder:
        code, output = finish(start(tiny_sweep, storage, **SIZE, RAY_TMPDIR=folder))
    assert code == 0, output
    return Store(str(storage))


@pytest.fixture(scope="module")
def standing() -> Iterator[dict[str, Any]]:
    """A head with two CPUs, and its raylet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", SIZE["RAY_worker_niceness"])
        with started_head(cpus=2) as head:
            (raylet,) = head.raylets().values()
            yield {"head": head, "raylet": raylet}


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "mounted"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount file systems")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def _named(number: int) -> str:
    return f"{number}-{NUMBERS[number].__name__}"


@pytest.mark.parametrize("number", range(len(OWN)), ids=_named)
def test_a_sweep_on_a_ray_of_its_own(
    number: int,
    tiny_sweep: ModuleType,
    expected: Store,
    tmp_path: Path,
    ray_folder: Path,
    faults_tally: Any,
    request: pytest.FixtureRequest,
) -> None:
    kind, storage, server = NUMBERS[number], str(tmp_path / "storage"), None
    if kind in WITH_SERVER:
        server = request.getfixturevalue("object_storage")
        storage = server.uri
    if kind in MOUNTED:
        storage = str(request.getfixturevalue("mounted"))
    draw, environment = random.Random(f"{SEED}-{number}"), {"XDG_CACHE_HOME": str(tmp_path)}
    sweeps = Sweeps(draw, tiny_sweep, storage, server=server, environment=environment)
    _try(kind, sweeps, expected, faults_tally)


@pytest.mark.parametrize("number", range(len(OWN), len(NUMBERS)), ids=_named)
def test_a_sweep_on_a_standing_head(
    number: int,
    tiny_sweep: ModuleType,
    expected: Store,
    tmp_path: Path,
    standing: dict[str, Any],
    faults_tally: Any,
) -> None:
    draw = random.Random(f"{SEED}-{number}")
    sweeps = Sweeps(draw, tiny_sweep, str(tmp_path / "storage"), **standing)
    _try(NUMBERS[number], sweeps, expected, faults_tally)
