"""What befalls drivers (processes.py): kills, stops, disks, object storage, damage, wrong clocks; each in a scene."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from object_storage import BROKEN, DENIED, DROPPED, THROTTLED, ObjectStorage
from processes import DONE, GAVE_UP, Driver, Nursery, Process
from s3ray.errors import UserError
from s3ray.execution.audit import audit
from s3ray.execution.drift import record_drift
from s3ray.execution.logs import explained
from s3ray.execution.status import Watch
from s3ray.stages.stage import StageRun
from s3ray.store import Store

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
UNFINISHED = {"checkpoint": "checkpoints/*/*.pt", "claim": "claims/*/claim.json*", "call": "runs/**/*"}


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
        victims = sorted(filter(Path.is_file, scene.base.glob((FINISHED | UNFINISHED)[what])))
        if not victims and what == "drift":  # of a run that was taken away
            return
        victim = scene.draw.choice(victims)
        content = victim.read_bytes()
        victim.write_bytes(HARMS[scene.number % len(HARMS)](scene.draw, content))
        scene.is_damaged = True
        if what in ("environment", "manifest", "arrays", "table", "info", "weights", "rows", "marker"):
            shutil.copytree(scene.base, scene.folder / "as it is")
            assert audit(Store(str(scene.folder / "as it is"))).faults != []
        if what == "call":
            Watch(scene.store).look()
            with suppress(UserError):  # nobody knows of a cell whose plan is damaged
                explained(scene.store, "seed=0")
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
