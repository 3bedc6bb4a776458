"""Whether anything grows with a sweep's cells, or with the minutes that many processes use one store.

    python benchmarks/load.py sweep [CELLS …]
    python benchmarks/load.py head [CELLS …]
    python benchmarks/load.py processes [SECONDS]

`sweep` runs sweeps of so many cells (20, 200, 2,000 and 20 again), one after another: real stages at the smallest size
that they allow. Each is a driver process of its own with an empty storage and a Ray of its own. `head` runs them on one
Ray with a dashboard. They print what passes between two cells of a pack beside their stages, in seconds and as a share
of the stages' (other work on the machine makes both longer), and how memory and open descriptors of Ray's processes and
the driver grow.

`processes` lets ten processes plan, claim, checkpoint, commit and collect on one store for so long (600 seconds).
Nothing is trained: results are those of one cell that was. It prints operations per minute at the start and at the end,
how memory and descriptors of every process grow, and what an audit finds afterwards.

Slopes are by least squares. Their standard errors take samples for independent, which those of memory are not: they
are a lower bound. Needs Linux (/proc).
"""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import random
import re
import secrets
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import torch
from rich.console import Console
from scipy.stats import linregress

from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.data.facts import DataFacts
from s3ray.execution import run_cell
from s3ray.execution.audit import audit
from s3ray.results.collect import Results
from s3ray.settings import Settings, override
from s3ray.store import Claims, Marker, Store
from s3ray.store.leftovers import clear_leftovers
from s3ray.sweep import CellPlan, Plan, Study, StudyDataset, Sweep, make_plan, packed

SLOTS = 2
EVERY = 2.0  # seconds between two looks at the processes
WARM_UP = 0.2  # of a sweep's cells, or of the time, which slopes leave out
# Of Ray. Train's controller looks for reports, of which a cell here has four, every 0.25 s as a rule: cells this small
# would only wait for it, and what grows would hide in that.
SETTINGS = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.05", "RAY_worker_niceness": "0"}
PROCESSES, ROUND = 10, 20  # and the cells that they plan at a time
# A model of width 8, and 2 steps of each training.
TRIVIAL = {
    "model": {"width": 8, "layers": 1, "heads": 2},
    "specialization": {"optimizer": {"epochs": 1}},
    "sparsification": {"ratios": [1.0, 0.5], "controls": []},
    "batch_sizes": [13],
    "granularities": [2],
}


def trivial_data() -> Dataset:
    """26 / 10 / 10 samples of two modalities with 6 steps in two classes."""
    rng = np.random.default_rng(0)

    def split(size: int) -> Split:
        values = {name: rng.normal(size=(size, 6, features)) for name, features in (("left", 5), ("right", 3))}
        return Split({name: Sequences.from_padded(value) for name, value in values.items()}, np.arange(size) % 2)

    return Dataset("trivial", "simulated", split(26), split(10), split(10))


def planned(store: Store, seeds: range, name: str = "load") -> Plan:
    data = trivial_data()
    settings = override(Settings(), TRIVIAL, "load")
    sweep = Sweep(name, lambda study: [study.cell("trivial", 2, 13, seed) for seed in seeds], branches=("none",))
    entry = StudyDataset(DataFacts.of(data), "smoke", settings)
    return make_plan(sweep, Study({"trivial": entry}, data={"trivial": data}), store)


class Line(NamedTuple):
    """A least-squares line's slope per unit, its standard error, the first and last value that it is drawn through."""

    slope: float
    error: float
    first: float
    last: float

    @classmethod
    def through(cls, x: Sequence[float], y: Sequence[float]) -> Line | None:
        """None where there are too few points."""
        if len(x) < 4 or len(set(x)) < 3:
            return None
        fit = linregress(x, y)
        return cls(float(fit.slope), float(fit.stderr), y[0], y[-1])

    def __str__(self) -> str:
        return f"{self.first:>8.1f} → {self.last:>8.1f}  {self.slope:>+8.3f} ± {self.error:.3f}"


class Watch:
    """Looks at processes every few seconds: resident megabytes and open descriptors."""

    def __init__(self) -> None:
        self.samples: defaultdict[int, list[tuple[float, float, int]]] = defaultdict(list)  # at, MB, descriptors
        self.names: dict[int, str] = {}

    def look(self, processes: Sequence[psutil.Process], at: float) -> None:
        for process in processes:
            with suppress(psutil.Error):
                with process.oneshot():
                    name, memory = _title(process), process.memory_info().rss / 1e6
                self.samples[process.pid].append((at, memory, process.num_fds()))
                if name != "ray::IDLE" or process.pid not in self.names:  # what it was, not that it rests
                    self.names[process.pid] = name

    def lines(self, begin: float, unit: float, least: float) -> list[tuple[str, Line, Line]]:
        """Name, line of memory and of descriptors of every process that was seen over `least` or more, from `begin`
        on; slopes per `unit`."""
        found = []
        for pid, samples in self.samples.items():
            taken = [(at / unit, memory, files) for at, memory, files in samples if at >= begin]
            if not taken or (taken[-1][0] - taken[0][0]) * unit < least:
                continue
            at, memory, files = zip(*taken, strict=True)
            lines = Line.through(at, memory), Line.through(at, files)
            if lines[0] and lines[1]:
                found.append((self.names[pid], lines[0], lines[1]))
        return sorted(found)


def _title(process: psutil.Process) -> str:
    """What a process of Ray is: its actor, its script or its program."""
    command = process.cmdline() or [process.name()]
    if command[0].startswith("ray::"):
        return command[0].split(".")[0].split("(")[0].strip()
    script = next((Path(part).name for part in command if part.endswith(".py")), "")
    return script or Path(command[0].split(" ")[0]).name


def _tell(lines: Sequence[tuple[str, Line, Line]], unit: str) -> None:
    per = f"slope per {unit}"
    print(f"  {'process':<28} {'MB, first → last':>19}  {per:<24} {'descriptors':>19}  {per}")
    for name, memory, files in lines:
        print(f"  {name:<28} {memory!s:<45} {files}")


# A sweep on Ray.


@contextmanager
def head() -> Iterator[tuple[psutil.Process, Mapping[str, str]]]:
    """A Ray with a dashboard: its first process, and the environment of its drivers."""
    folder = tempfile.mkdtemp(prefix="s3l", dir="/tmp")  # short: Ray's sockets lie below it
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**os.environ, **secret, **SETTINGS}
    ports = [_free_port() for _ in range(4)]
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--num-cpus={SLOTS}",
        f"--temp-dir={folder}", "--disable-usage-stats", "--object-store-memory=100000000", f"--port={ports[0]}",
        f"--dashboard-port={ports[1]}", f"--ray-client-server-port={ports[2]}",
        f"--dashboard-agent-listen-port={ports[3]}",
    ]  # fmt: skip
    with Path(folder, "head.log").open("w") as log:
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _await(ports[1], started)
        yield psutil.Process(started.pid), {**environment, "RAY_ADDRESS": f"127.0.0.1:{ports[0]}"}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.5)
    raise SystemExit("Ray does not start")


def drive(uri: str, cells: int) -> None:
    """What the driver of a sweep does."""
    from s3ray.engine.preflight import Execution
    from s3ray.engine.run import run_plan

    store = Store(uri)
    plan = planned(store, range(cells))
    outcome = run_plan(plan, store, plan.study.data, Execution(), Console(width=200))
    for cell, cause in outcome.failures.items():
        print(f"FAILED {cell}: {cause}")
    print(f"took {outcome.wall_seconds} {outcome.orchestration_seconds / outcome.cells}", flush=True)


@dataclasses.dataclass
class Driven:
    """What was seen of a sweep: when each cell, by its seed, was done, and how many cells failed."""

    done: dict[int, float]
    failed: int = 0
    wall: float = 0.0
    orchestration: float = 0.0  # seconds per cell, start included

    def read(self, driver: subprocess.Popen[str]) -> None:
        assert driver.stdout is not None
        for line in driver.stdout:
            if match := re.search(r"\] done .* seed=(\d+)", line):
                self.done[int(match[1])] = time.monotonic()
            elif line.startswith("FAILED"):
                self.failed += 1
                print(f"  {line.rstrip()}")
            elif line.startswith("took"):
                self.wall, self.orchestration = map(float, line.split()[1:])


def sweep(cells: int, ray: psutil.Process | None, environment: Mapping[str, str], watch: Watch, before: int) -> float:
    """Run a sweep of so many cells and tell of it; its overhead within packs, as a share of its stages' seconds.

    Args:
        ray: the first process of the Ray that they run on; None: they start one.
        before: cells that were run already.
    """
    with tempfile.TemporaryDirectory(prefix="s3l") as folder:
        store, driven = Store(folder), Driven({})
        packs = packed(planned(store, range(cells)), SLOTS)
        driver = subprocess.Popen(
            [sys.executable, __file__, "drive", folder, str(cells)], env=environment, stdout=subprocess.PIPE, text=True
        )
        reader = threading.Thread(target=driven.read, args=(driver,))
        reader.start()
        while driver.poll() is None:
            own = psutil.Process(driver.pid)
            rays = [*own.children(recursive=True), *(ray.children(recursive=True) if ray else [])]
            watch.look([own, *rays], before + len(driven.done))
            time.sleep(EVERY)
        reader.join()
        passed = between(planned(store, range(cells)), packs, driven.done)
        print(
            f"{cells} cells in {len(packs)} packs, {driven.failed} failed: {driven.wall:.0f} s, of which orchestration "
            f"{driven.orchestration:.2f} s per cell with the start of Ray's workers; between two cells of a pack:"
        )
        for part in np.array_split(np.array(passed), min(10, max(len(passed) // 50, 1))):
            stages, rest = part[:, 0].mean(), part[:, 1].mean()
            error = part[:, 1].std(ddof=1) / len(part) ** 0.5
            told = f"stages {stages:.3f} s, overhead {rest:.3f} ± {error:.3f} s, {rest / stages:.2f}"
            print(f"  {len(part):>5} cells: {told} of them")
        share = sum(rest for _, rest in passed) / sum(stages for stages, _ in passed)
        _scaling(store, cells)
    return share


def between(plan: Plan, packs: Sequence[Sequence[CellPlan]], done: Mapping[int, float]) -> list[tuple[float, float]]:
    """Of every cell, in the order in which they ended, the seconds of its stages and the others since the one before it
    in its pack.

    The first two of every pack are left out: its worker is new, and libraries begin slowly.
    """
    found = []
    for pack in packs:
        for earlier, cell in itertools.pairwise(pack[1:]):
            if {cell.cell.seed, earlier.cell.seed} <= done.keys():
                own = {run.identity for run in cell.runs} - {cell.reference.identity}
                stages, ended = sum(plan.committed[identity].seconds for identity in own), done[cell.cell.seed]
                found.append((ended, stages, ended - done[earlier.cell.seed] - stages))
    return [(stages, rest) for _, stages, rest in sorted(found)]


def _scaling(store: Store, cells: int) -> None:
    """What planning and collecting of a finished sweep take."""
    seconds = {}
    for name in ("plan", "pack", "collect", "clear leftovers"):
        started = time.process_time()
        if name == "plan":
            plan = planned(store, range(cells))
            plan.summary()
        elif name == "pack":
            fresh = dataclasses.replace(plan, committed={})
            packed(fresh, SLOTS)
        elif name == "collect":
            rows = len(Results.collect(plan, store).rows)
        else:
            clear_leftovers(store)
        seconds[name] = time.process_time() - started
    told = ", ".join(f"{name} {1000 * value / cells:.2f}" for name, value in seconds.items())
    print(f"  {rows} rows; milliseconds of the CPU per cell: {told}", flush=True)


def sweeps(counts: Sequence[int], *, on_head: bool) -> None:
    alone = os.environ | {"RAY_ADDRESS": "local", **SETTINGS}
    with head() if on_head else nullcontext((None, alone)) as (ray, environment):
        shares: dict[int, list[float]] = defaultdict(list)
        before = 0
        for cells in counts:
            watch = Watch()
            shares[cells].append(sweep(cells, ray, environment, watch, before))
            if cells >= 200:
                _tell(watch.lines(before + WARM_UP * cells, 1000, 0.25 * cells), "1,000 cells")
            before += cells
    few, many = (statistics.mean(shares[cells]) for cells in (min(shares), max(shares)))
    print(
        f"overhead over stages: {few:.2f} at {min(shares)} cells, {many:.2f} at {max(shares)}, {many / few:.2f} times"
    )


# Ten processes on one store.


class Templates(NamedTuple):
    """What a cell's runs left, in their order."""

    files: list[dict[str, bytes]]

    @classmethod
    def made(cls) -> Templates:
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder)
            plan = planned(store, range(1))
            (cell,) = plan.cells
            data = plan.study.data["trivial"]
            run_cell(cell, data, store, lambda _: None, device=torch.device("cpu"), checkpoint_interval=1e9)
            markers = store.markers(cell.runs)
            return cls([{name: store.artifact(run, name) for name in markers[run.identity].files} for run in cell.runs])


def work(
    index: int, uri: str, templates: Templates, seconds: float
) -> tuple[list[tuple[float, str]], Counter[str], Watch]:
    """Plan, claim, checkpoint, commit and collect, round after round; when each operation ended, errors, and what this
    process held after every round."""
    torch.set_num_threads(1)
    watch, me = Watch(), psutil.Process()
    operations, errors = list[tuple[float, str]](), Counter[str]()
    started, draw, number = time.monotonic(), random.Random(index), 0

    def note(name: str) -> None:
        operations.append((time.monotonic() - started, name))

    while time.monotonic() - started < seconds:
        try:
            store = Store(uri)
            store.publish_dataset(trivial_data())
            seeds, name = range(number * ROUND, (number + 1) * ROUND), f"load_{index}"
            plan = planned(store, seeds, name)
            note("plan")
            claims = Claims(store)
            while plan.pending:
                for cell in draw.sample(plan.pending, len(plan.pending)):
                    with claims.take(cell.training.claim) as holds:
                        if holds is not None:
                            note("claim")
                            _complete(cell, store, templates, note)
                plan = planned(store, seeds, name)
                note("plan")
            Results.collect(plan, store).save(store)
            rows = Results.load(store, name).rows
            note("collect")
            if len(rows) != ROUND * 4:  # two ratios, two splits
                errors[f"{len(rows)} rows"] += 1
        except Exception as error:
            errors[f"{type(error).__name__}: {str(error)[:300]}"] += 1
        number += 1
        watch.look([me], time.monotonic() - started)
    return operations, errors, watch


def _complete(cell: CellPlan, store: Store, templates: Templates, note: object) -> None:
    assert callable(note)
    markers: dict[str, Marker] = dict(store.markers(cell.runs))
    for run, files in zip(cell.runs, templates.files, strict=True):
        if run.identity in markers:
            continue
        if run.stage.trains:
            for step in (1, 2, 3):
                store.save_checkpoint(run, step, b"progress %d" % step)
                note("checkpoint")
        parent = markers[run.parent.identity] if run.parent else None
        markers[run.identity] = store.commit(run, files, seconds=0.1, provenance={"workers": 1}, parent=parent).marker
        note("commit")


def processes(seconds: float) -> None:
    templates = Templates.made()
    with tempfile.TemporaryDirectory(prefix="s3l") as folder:
        with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
            working = [pool.submit(work, index, folder, templates, seconds) for index in range(PROCESSES)]
            done = [future.result() for future in working]
        store = Store(folder)
        found = audit(store)
        cells = len(store.folders("artifacts", "specialization"))
        errors = sum((errors for _, errors, _ in done), Counter[str]())
        print(f"{PROCESSES} processes, {seconds:.0f} s, {cells} cells, {errors.total()} errors")
        for error, count in errors.items():
            print(f"  {count} × {error}")
        _tell_rates([operation for operations, *_ in done for operation in operations], seconds)
        lines = [line for *_, watch in done for line in watch.lines(WARM_UP * seconds, 600, 0.5 * seconds)]
        _tell(lines, "10 minutes")
        leftovers = clear_leftovers(store)
        print("audit: " + "; ".join(found.lines()))
        print(f"leftovers: {len(leftovers)}; checkpoints: {len(store.folders('checkpoints'))}")


def _tell_rates(operations: Sequence[tuple[float, str]], seconds: float) -> None:
    """Operations per minute of all processes, in the second and the last tenth of the time."""
    tenth = seconds / 10
    print(f"  {'operation':<12} {'in all':>8} {'per minute, start':>18} {'end':>8} {'ratio':>6}")
    for name in ("plan", "claim", "checkpoint", "commit", "collect"):
        times = [at for at, what in operations if what == name]
        start = sum(tenth <= at < 2 * tenth for at in times) * 60 / tenth
        end = sum(seconds - tenth <= at < seconds for at in times) * 60 / tenth
        ratio = end / start if start else float("nan")
        print(f"  {name:<12} {len(times):>8} {start:>18.0f} {end:>8.0f} {ratio:>6.2f}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["drive", storage, count]:
            drive(storage, int(count))
        case ["sweep" | "head" as where, *counts]:
            sweeps([int(count) for count in counts] or [20, 200, 2000, 20], on_head=where == "head")
        case ["processes", *duration]:
            processes(float(duration[0]) if duration else 600.0)
        case _:
            raise SystemExit(__doc__)
