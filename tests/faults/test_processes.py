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
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from process_faults import FAULTS, FINISHED, KILLED, KINDS, LEASE, Scene, Undisturbed
from processes import DONE, GAVE_UP, Driver, Nursery, plan_of
from s3ray.execution.audit import audit
from s3ray.results import Results
from s3ray.store import Store
from s3ray.store.leftovers import clear_leftovers

SEED = int(os.environ.get("S3RAY_SEED", 20260727))  # without one the same in every run
RAM = Path("/dev/shm")  # where an fsync costs nothing


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
