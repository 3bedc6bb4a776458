"""170 faults on real processes over a store, without Ray: kills, stops, disks, object storage, damage, wrong clocks.

Each is drawn by its kind, its number and the seed, and befalls drivers (tests/shared/processes.py). Then the same
command comes again, undisturbed. What must hold, the rules:

- It ends well, and the tables are those of a sweep that nothing befell, bit for bit. Left out of this are columns that
  tell when and in how many seconds: `committed_at` and all that end in `seconds`.
- A run is computed after its result counted only if the fault damaged or deleted that result, or one that it stands
  on, or if the process that does so stood still meanwhile. No two processes work under one claim at once, the same
  excepted.
- A process ends well, or gives up with a sentence or an error of the storage; never with another exception.
- Nothing is left but what a finished sweep has. Attempts, which have no tag of their process, are proved dead by a day
  alone (s3ray/store/leftovers.py): the test sets their times back by one, and clears. On object storage they are not
  looked for. What was damaged and set aside stays, after damage alone.
- `audit` finds nothing. After damage it may find what nobody read, once: it is deleted where the sentence says so, then
  the same command mends the rest.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from object_storage import BROKEN, DENIED, DROPPED, THROTTLED, ObjectStorage
from processes import DONE, GAVE_UP, Driver, Nursery, Process, plan_of
from s3ray.execution.audit import audit
from s3ray.execution.drift import record_drift
from s3ray.results import Results
from s3ray.stages.stage import StageRun
from s3ray.store import Store
from s3ray.store.leftovers import clear_leftovers

SEED = int(os.environ.get("S3RAY_SEED", 20260727))  # without one the same in every run
RAM = Path("/dev/shm")  # where an fsync costs nothing
FOREVER = 10**9
LEASE = 3.0  # seconds, where a test waits for one
KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Undisturbed:
    """A sweep that nothing befell."""

    base: Path
    frames: Mapping[str, pd.DataFrame]
    points: Mapping[str, int]
    seconds: float
    runs: tuple[StageRun, ...]

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.base.rglob("*") if path.is_file())


@dataclass
class Scene:
    """A fault's own store, and who works on it.

    Attributes:
        again: identities of the runs whose results the fault took away.
        stopped: processes that stood still.
        is_damaged: whether the fault changed what was written.
    """

    draw: random.Random
    number: int
    nursery: Nursery
    usual: Undisturbed
    folder: Path
    request: pytest.FixtureRequest
    uri: str = ""
    interval: float = 0.0
    again: set[str] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)
    started: list[Process] = field(default_factory=list)
    is_damaged: bool = False

    def __post_init__(self) -> None:
        self.uri = str(self.folder / "store")

    @property
    def base(self) -> Path:
        return Path(self.uri)

    @property
    def store(self) -> Store:
        return Store(self.uri)

    @cached_property
    def objects(self) -> ObjectStorage:
        """Object storage, in which the store is from now on."""
        storage: ObjectStorage = self.request.getfixturevalue("object_storage")
        self.uri, self.interval = storage.uri, 0.3
        return storage

    def start(self, **how: Any) -> Process:
        driver = Driver(**{"uri": self.uri, "folder": str(self.folder), "interval": self.interval, **how})
        process = self.nursery.start(driver)
        self.started.append(process)
        return process

    def run(self, **how: Any) -> Process:
        process = self.start(**how)
        process.wait()
        return process

    def at(self, *points: str) -> dict[str, Any]:
        """One of the points, at one of the times that an undisturbed driver passes it."""
        point = self.draw.choice(points)
        return {"point": point, "nth": self.draw.randint(1, self.usual.points[point])}

    def paused(self, **how: Any) -> Process:
        """A driver that stands still at a point."""
        process = self.start(does="stop", **how)
        process.wait(until=process.stands_still)
        return process

    def wake(self, process: Process) -> None:
        self.stopped.add(process.number)
        process.signal(signal.SIGCONT)
        process.wait()

    def gone(self, run: str) -> None:
        """The fault took this run's result away, and with it all that stands on it."""
        above = {part.identity for part in self.usual.runs if run in {one.identity for one in (part, *part.ancestors)}}
        self.again |= above


# Where processes are killed: each of them is passed in every sweep.
STEPS = (
    "commit", "marker", "after marker", "after commit", "save_checkpoint open", "save_checkpoint fsync",
    "save_checkpoint replace", "publish_dataset open", "publish_dataset fsync", "publish_dataset replace",
    "write_folder open", "write_folder replace", "claim open", "claim link", "commit fsync", "commit replace",
    "marker link", "step", "fsync", "replace", "open", "write",
)  # fmt: skip
WORK = ("step", "commit", "marker", "after marker", "save_checkpoint replace", "commit fsync", "claim link")


def killed_at_a_step(scene: Scene) -> None:
    process = scene.run(does="kill", **scene.at(STEPS[scene.number % len(STEPS)]))
    assert process.poll() == KILLED, process.told()


def killed_at_any_moment(scene: Scene) -> None:
    process = scene.start()
    time.sleep(scene.draw.uniform(0.0, scene.usual.seconds))
    process.signal(signal.SIGKILL)
    process.wait()


def one_of_two_killed(scene: Scene) -> None:
    other = scene.start()
    scene.run(does="kill", **scene.at(*WORK))
    other.wait()
    assert other.poll() == DONE, other.told()


def two_killed(scene: Scene) -> None:
    for process in [scene.start(does="kill", **scene.at(*WORK)) for _ in range(2)]:
        process.wait()


def stopped_past_its_lease(scene: Scene) -> None:
    late = scene.paused(lease=LEASE, **scene.at(*WORK))
    assert late.stands_still(), late.told()
    other = scene.run(lease=LEASE)
    assert other.poll() == DONE, other.told()
    scene.wake(late)
    assert late.poll() == DONE, late.told()


def _mounted(scene: Scene, size: int) -> bool:
    """A small disk of its own for the store, where that is allowed."""
    scene.base.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", scene.uri]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        return False
    scene.request.addfinalizer(lambda: subprocess.run(["umount", "--lazy", scene.uri], check=True))
    return True


def _remount(scene: Scene, option: str) -> None:
    """Refused while a file is open for writing."""
    deadline = time.monotonic() + 10
    while subprocess.run(["mount", "-o", f"remount,{option}", scene.uri], capture_output=True).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def full_disk(scene: Scene) -> None:
    if _mounted(scene, int(scene.draw.uniform(0.1, 1.0) * scene.usual.size)):
        process = scene.run()
        _remount(scene, "size=64m")
    else:
        process = scene.run(does="ENOSPC", times=FOREVER, **scene.at("open"))
    assert process.poll() in (DONE, GAVE_UP), process.told()


def refused_writes(scene: Scene) -> None:
    name, times = scene.draw.choice(["ENOSPC", "EROFS", "EIO", "EDQUOT"]), scene.draw.choice([1, 1, 3, FOREVER])
    scene.run(does=name, times=times, **scene.at("open", "fsync", "link", "replace"))


def read_only(scene: Scene) -> None:
    if _mounted(scene, 64 << 20):
        # No fsync: its file is open, and the system refuses while one is.
        process = scene.paused(**scene.at(*(point for point in WORK if "fsync" not in point)))
        _remount(scene, "ro")
        scene.wake(process)
        _remount(scene, "rw")
    else:
        scene.run(does="EROFS", times=FOREVER, **scene.at("open"))


def deleted(scene: Scene) -> None:
    process = scene.paused(**scene.at(*WORK, "publish_dataset fsync"))
    aside = scene.folder / "aside"
    scene.base.rename(aside)
    shutil.rmtree(aside)
    scene.again |= {run.identity for run in scene.usual.runs}
    scene.wake(process)


def _failing(scene: Scene, *faults: Any) -> None:
    """Some requests in a row meet one of the faults each, of which a number is slowness in seconds."""
    first, number = scene.draw.randint(0, 150), itertools.count()
    last = first + scene.draw.randint(1, 40)
    drawn = random.Random(scene.draw.random())

    def fault(method: str, path: str) -> Any:
        if not first <= next(number) < last:
            return None
        found = drawn.choice(faults)
        if isinstance(found, float):
            time.sleep(found)
            return None
        return found

    scene.objects.fault = fault


def _on_objects(*faults: Any) -> Callable[[Scene], None]:
    def befall(scene: Scene) -> None:
        _failing(scene, *faults)
        scene.run()
        scene.objects.fault = lambda method, path: None

    return befall


def server_gone(scene: Scene) -> None:
    """For a while nobody answers; then it is back with its objects."""
    seconds = scene.draw.uniform(0.5, 3.0)
    storage = scene.objects
    process = scene.start()
    time.sleep(scene.draw.uniform(0.0, scene.usual.seconds))
    storage.fault = lambda method, path: DROPPED
    time.sleep(seconds)
    storage.fault = lambda method, path: None
    process.wait()


def two_on_failing_storage(scene: Scene) -> None:
    _failing(scene, 0.3, THROTTLED, BROKEN, DROPPED, None, None)
    for process in [scene.start() for _ in range(2)]:
        process.wait()
    scene.objects.fault = lambda method, path: None


def killed_on_objects(scene: Scene) -> None:
    scene.uri = scene.objects.uri
    scene.run(does="kill", **scene.at("commit", "marker", "after marker", "claim", "write"))


def wrong_clocks(scene: Scene) -> None:
    """Of two hosts; one of the drivers may be killed, or stand still past the other's lease."""

    def clocks() -> dict[str, Any]:
        far = [scene.draw.choice([1.0, -1.0]) * 10 ** scene.draw.uniform(0, 8.5) for _ in range(3)]
        return {"offsets": tuple(far), "rate": scene.draw.uniform(0.88, 1.14), "lease": LEASE}

    if scene.draw.random() < 0.5:
        late = scene.paused(**clocks(), **scene.at(*WORK))
        assert scene.run(**clocks()).poll() == DONE
        scene.wake(late)
    else:
        other = scene.start(**clocks())
        scene.run(does="kill", **clocks(), **scene.at(*WORK))
        other.wait()
        assert other.poll() == DONE, other.told()


def _flipped(draw: random.Random, content: bytes) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def _zeroed(draw: random.Random, content: bytes) -> bytes:
    at = draw.randrange(max(len(content) - 4096, 1))
    part = content[at : at + 4096]
    return content[:at] + bytes(len(part)) + content[at + 4096 :] if any(part) else _flipped(draw, content)


def _cut(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.randrange(len(content))]


HARMS = (_flipped, _zeroed, _cut)
# What a finished sweep has, and where.
FINISHED = {
    "marker": "artifacts/*/*/commit.json*",
    "weights": "artifacts/*/*/*/weights.safetensors",
    "rows": "artifacts/*/*/*/rows.parquet",
    "drift": "artifacts/*/*/drift-*.json",
    "arrays": "data/*/*.npy",
    "manifest": "data/*/manifest.json",
    "table": "results/*/*.parquet",
    "info": "results/*/info.json",
    "environment": "environments/*.txt",
    "curve": "tensorboard/**/events.*",
}
# What a killed one leaves beside.
UNFINISHED = {"checkpoint": "checkpoints/*/*.pt", "claim": "claims/*/claim.json*", "attempts": "runs/*/attempts/*"}


def _damaged(what: str) -> Callable[[Scene], None]:
    def befall(scene: Scene) -> None:
        if what in UNFINISHED:
            last = scene.usual.points["save_checkpoint"]
            killed = scene.run(point="after save_checkpoint", nth=scene.draw.randint(3, last), does="kill")
            assert killed.poll() == KILLED, killed.told()
        else:
            shutil.copytree(scene.usual.base, scene.base)
            if scene.draw.random() < 0.5:  # so that what these stand on is read
                measured = [run for run in scene.usual.runs if not run.stage.trains]
                for run in scene.draw.sample(measured, 2):
                    shutil.rmtree(scene.base / "artifacts" / run.stage.name / run.identity)
        if what == "drift":
            run = scene.draw.choice(scene.usual.runs)
            if (marker := scene.store.marker(run)) is not None:
                files = {name: scene.store.payload(marker, name) for name in marker.files}
                record_drift(scene.store, marker, files, files, marker.provenance)
        victims = sorted(scene.base.glob((FINISHED | UNFINISHED)[what]))
        if not victims and what == "drift":  # of a run that was taken away
            return
        victim = scene.draw.choice(victims)
        content = victim.read_bytes()
        victim.write_bytes(HARMS[scene.number % len(HARMS)](scene.draw, content))
        scene.is_damaged = True
        if what in ("environment", "manifest", "arrays", "table", "info", "weights", "rows", "marker"):
            shutil.copytree(scene.base, scene.folder / "as it is")
            assert audit(Store(str(scene.folder / "as it is"))).faults != []
        if what in ("marker", "weights", "rows"):
            scene.gone(victim.relative_to(scene.base).parts[2])

    return befall


KINDS: Mapping[str, tuple[int, Callable[[Scene], None]]] = {
    "killed at a step": (26, killed_at_a_step),
    "killed at any moment": (8, killed_at_any_moment),
    "two drivers, one killed": (12, one_of_two_killed),
    "two drivers, both killed": (8, two_killed),
    "stopped past its lease": (12, stopped_past_its_lease),
    "disk full": (10, full_disk),
    "writes refused": (10, refused_writes),
    "disk turned read-only": (5, read_only),
    "store deleted": (6, deleted),
    "objects: slow": (3, _on_objects(0.3)),
    "objects: throttled": (4, _on_objects(THROTTLED)),
    "objects: errors": (4, _on_objects(BROKEN)),
    "objects: dropped": (4, _on_objects(DROPPED)),
    "objects: denied": (3, _on_objects(DENIED)),
    "objects: server gone": (2, server_gone),
    "objects: two drivers, all of it": (4, two_on_failing_storage),
    "objects: killed": (2, killed_on_objects),
    "wrong clocks": (8, wrong_clocks),
    **{f"damaged: {what}": (3, _damaged(what)) for what in FINISHED | UNFINISHED},
}
FAULTS = [(kind, number) for kind, (count, _) in KINDS.items() for number in range(count)]
assert len(FAULTS) == 170


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with tempfile.TemporaryDirectory() as codes:
        started = Nursery(Path(codes))
        yield started
        started.close()


@pytest.fixture(scope="session")
def usual(nursery: Nursery) -> Iterator[Undisturbed]:
    with _folder() as folder:
        process = nursery.start(Driver(uri=f"{folder}/store", folder=folder))
        assert process.wait() == DONE, process.told()
        store = Store(f"{folder}/store")
        runs = tuple({run.identity: run for cell in plan_of(store).cells for run in cell.runs}.values())
        log = process.log()
        frames = _compared(store)
        yield Undisturbed(Path(store.base), frames, log[-1]["points"], seconds=log[-1]["at"] - log[0]["at"], runs=runs)


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(dir=RAM if os.access(RAM, os.W_OK) else None)


@pytest.fixture
def scene(nursery: Nursery, usual: Undisturbed, request: pytest.FixtureRequest) -> Iterator[Scene]:
    with _folder() as folder:
        made = Scene(random.Random(), 0, nursery, usual, Path(folder), request)
        yield made
        for process in made.started:
            if process.poll() is None:
                process.signal(signal.SIGKILL)
                process.wait()


def _compared(store: Store) -> dict[str, pd.DataFrame]:
    """A sweep's tables, without when and how long."""
    frames = Results.load(store, "tiny").frames

    def timed(column: str) -> bool:
        return column == "committed_at" or column.endswith("seconds")

    return {name: frame[[c for c in frame if not timed(c)]] for name, frame in frames.items()}


def _again(scene: Scene) -> None:
    """The same command, undisturbed."""
    lease = LEASE if any(process.driver.lease for process in scene.started) or scene.is_damaged else 0.0
    last = scene.run(lease=lease)
    assert last.poll() == DONE, last.told()
    if last.happened("left out"):
        assert scene.is_damaged
        last = scene.run(lease=lease)
        assert last.poll() == DONE, last.told()
        assert not last.happened("left out"), last.told()


def _assert_nothing_lost(scene: Scene) -> None:
    for process in scene.started:
        assert process.poll() in (DONE, GAVE_UP, KILLED), process.told()
    counted = set(scene.store.markers(scene.usual.runs)) - scene.again
    before = len(scene.started)
    _again(scene)
    if scene.is_damaged and (found := audit(scene.store)).faults:
        if scene.base.exists():
            for path in [*scene.base.glob(FINISHED["drift"]), *scene.base.glob(FINISHED["environment"])]:
                if any(path.name in fault and "delete it" in fault for fault in found.faults):
                    path.unlink()
        _again(scene)
    for process in scene.started[before:]:
        again = {line["identity"] for line in process.happened("computed")} & counted
        assert not again, f"computed again though they counted: {again}"
    _assert_nothing_twice(scene)
    _assert_one_at_a_time(scene)
    found = _compared(scene.store)
    assert found.keys() == scene.usual.frames.keys()
    for name, frame in scene.usual.frames.items():
        pd.testing.assert_frame_equal(found[name], frame, check_exact=True, obj=name)
    whole = audit(scene.store)
    assert whole.faults == []
    assert scene.is_damaged or whole.set_aside == 0
    for drift in whole.drifts:
        assert drift["rows"] == drift["weights"] == 0.0, drift
    _assert_nothing_left(scene)


def _assert_nothing_twice(scene: Scene) -> None:
    counted: dict[str, float] = {}
    lines = sorted((line for process in scene.started for line in process.log()), key=lambda line: line["at"])
    for line in lines:
        if line["event"] == "committed" and line["first"]:
            counted.setdefault(line["identity"], line["at"])
        if line["event"] == "computed" and line["process"] not in scene.stopped and line["identity"] in counted:
            about = [one for one in lines if one.get("claim") == line["claim"] or one["event"] in ("left", "befell")]
            assert line["identity"] in scene.again, f"computed again though it counted: {line} of {about}"


def _assert_one_at_a_time(scene: Scene) -> None:
    """Between its claim and the last thing that it does under it, nobody else claims the same."""
    held: dict[str, list[tuple[float, float, int]]] = {}
    for process in scene.started:
        if process.number in scene.stopped:
            continue
        claim = None
        for line in process.log():
            if line["event"] == "claimed":
                claim = line["claim"]
                held.setdefault(claim, []).append((line["at"], line["at"], process.number))
            elif claim is not None and line["event"] in ("step", "computed", "committed"):
                start, _, number = held[claim][-1]
                held[claim][-1] = (start, line["at"], number)
    for claim, times in held.items():
        for (_, end, one), (start, _, other) in itertools.pairwise(sorted(times)):
            assert start >= end or one == other, f"two at once on {claim}"


def _assert_nothing_left(scene: Scene) -> None:
    store = scene.store
    assert store.folders("runs") == []
    if not store.is_local:
        scene.objects.fault = lambda method, path: None
        left = [key for key in scene.objects.objects() if key.startswith((".", "checkpoints/"))]
        assert left == []
        return
    left = [path for path in scene.base.rglob("*") if path.name.endswith(".tmp") or path.name.startswith(".")]
    left += scene.base.glob("checkpoints/*/*")
    left += [path for path in scene.base.rglob("*.damaged") if not scene.is_damaged]
    assert left == []
    for path in scene.base.glob("artifacts/**/*"):
        os.utime(path, (time.time() - 25 * 3600,) * 2)
    clear_leftovers(store)
    assert audit(store).unnamed == 0


def try_fault(kind: str, number: int, seed: int, scene: Scene) -> None:
    scene.draw, scene.number = random.Random(f"{seed} {kind} {number}"), number
    KINDS[kind][1](scene)
    _assert_nothing_lost(scene)


@pytest.mark.faults
@pytest.mark.parametrize(("kind", "number"), FAULTS)
def test_a_fault(kind: str, number: int, scene: Scene, faults_tally: Any) -> None:
    survived = False
    try:
        try_fault(kind, number, SEED, scene)
        survived = True
    finally:
        faults_tally.add(kind, survived, SEED)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("killed at a step", 2),  # its marker is there, its checkpoints are, too
        ("two drivers, one killed", 0),
        ("stopped past its lease", 0),
        ("disk full", 0),
        ("damaged: weights", 0),
        ("objects: two drivers, all of it", 0),
    ],
)
def test_some_faults_in_every_run(kind: str, number: int, scene: Scene) -> None:
    try_fault(kind, number, 20260727, scene)
