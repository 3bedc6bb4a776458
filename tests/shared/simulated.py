"""Processes and their store in simulated time, one event after another: what happens is what is asked to happen.

The code is the real one: `Store` and its conditional writes as on object storage, `Claims` with its keeper,
checkpoints, published data, leftovers. Below it stand requests in place of pyarrow's and obstore's. What a process asks
of the storage is under way until it is carried out, once or more often, and its reply until it arrives, if it does;
anything may overtake anything. Each thread of a process is one of ours, and runs only while all else waits for it.
"""

from __future__ import annotations

import atexit
import copy
import dataclasses
import functools
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import threading
import types
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast
from unittest import mock

import numpy as np
import obstore
from obstore import exceptions as refused
from pyarrow import fs as pafs

from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.errors import UserError
from s3ray.execution import checkpoints
from s3ray.execution.checkpoints import StageMonitor
from s3ray.execution.tensorboard import Curve
from s3ray.stages.stage import Stage, StageRun
from s3ray.store import Claims, LeaseLostError, Marker, Store, claims, leftovers
from s3ray.store import store as store_module
from s3ray.store.claims import RENEW_SECONDS, Claim, Claimant
from toy_runs import ToyConfig

STEPS = 2  # of what trains, with a checkpoint between them; what measures has none
STEP_SECONDS = 2.0


def _never(*_: Any) -> Any:
    raise AssertionError("nothing is computed here")


_TRAINS = Stage("train", 1, ToyConfig, _never, _never, restore=_never)
_MEASURES = Stage("measure", 1, ToyConfig, _never, _never)
_MODEL = StageRun(_TRAINS, ToyConfig(seed=0), None, "data")
# What is computed; a measurement is claimed with the model that it measures.
RUNS: dict[str, StageRun] = {
    "model": _MODEL,
    "child": StageRun(_TRAINS, ToyConfig(seed=1), _MODEL, "data"),
    **{f"point{number}": StageRun(_MEASURES, ToyConfig(seed=number), _MODEL, "data") for number in (2, 3)},
}


class ViolationError(AssertionError):
    """Something that must never be."""


class _KilledError(BaseException):
    """Ends a thread of a process that was killed: nothing that it still asks is heard."""


_this = threading.local()


class Task:
    """A thread of a process. It runs only while `resume` waits for it."""

    def __init__(self, process: Process, function: Callable[[], object], wakes: float) -> None:
        self.process, self.done = process, False
        self.wakes: float | None = wakes  # when, if it sleeps
        self._function, self._failure, self._killed = function, list[BaseException](), False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._turn, self._back = threading.Lock(), threading.Lock()
        self._turn.acquire()
        self._back.acquire()

    def resume(self, answer: Any = None) -> Any:
        """Go on with the answer to what was asked, which raises if it is an exception; what is asked next."""
        self._answer = answer
        self._go_on()
        if self._failure:
            raise self._failure.pop()
        return self._asked

    def ask(self, *asked: Any) -> Any:
        """From within: hand over, until it is answered."""
        if not self._killed:
            self._asked = asked
            self._back.release()
            self._turn.acquire()
        if self._killed:
            raise _KilledError
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def kill(self) -> None:
        self._killed = True
        if not self.done and self._thread.ident is not None:
            self._go_on()

    def _go_on(self) -> None:
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._turn.release()
        self._back.acquire()

    def _run(self) -> None:
        _this.task = self
        try:
            self._function()
        except _KilledError:
            pass
        except BaseException as error:
            self._failure.append(error)
        finally:
            self.done, self._asked = True, None
            self._back.release()


def ask(*asked: Any) -> Any:
    """Of the simulation, from a thread of a process: a request to the storage, or `sleep` for seconds."""
    return _this.task.ask(*asked)


@dataclass
class Asked:
    """A request that is under way: an operation, its arguments, and the task that waits for the reply."""

    operation: str
    arguments: tuple[Any, ...]
    task: Task | None
    reply: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class Process:
    number: int
    offset: float  # of its clock
    rate: float
    world: World
    store: Store
    paused: bool = False
    run: str = ""  # its folder in runs/, once it is there
    claiming: str = ""  # what it asks for
    claimed: dict[Claimant, str] = field(default_factory=dict)  # what each of its claimants is for

    @property
    def tag(self) -> str:
        return f"p00000000-{self.number}-0"

    def clock(self) -> float:
        return self.offset + self.world.now * self.rate


class SimulatedStorage:
    """Keys and what they hold. A version is a checksum of the content, as on much object storage.

    Args:
        synced: what was written is on the disk before that is answered; otherwise a power failure may take it.
    """

    def __init__(self, *, synced: bool = True) -> None:
        self._synced = synced
        self.there: dict[str, tuple[bytes, float]] = {}  # content, and when it was written
        self.on_disk: dict[str, tuple[bytes, float]] = {}
        self.changed = False  # since somebody looked

    def do(self, now: float, operation: str, *arguments: Any) -> Any:
        key = arguments[0]
        if operation == "get":
            return self.there[key][0] if key in self.there else FileNotFoundError(key)
        if operation == "list":
            return {name: (len(at[0]), at[1]) for name, at in sorted(self.there.items()) if name.startswith(key)}
        self.changed = True
        if operation == "delete":
            for name in arguments:
                self.there.pop(name, None)
                self.sync(name, only=self._synced)
            return None
        _, content, version = arguments  # put; a version: over what, "" for nothing
        there = version_of(self.there[key][0]) if key in self.there else ""
        if version is not None and version != there:
            return False
        self.there[key] = content, now
        self.sync(key, only=self._synced)
        return True

    def sync(self, key: str, *, only: bool = True) -> None:
        if not only:
            return
        if key in self.there:
            self.on_disk[key] = self.there[key]
        else:
            self.on_disk.pop(key, None)

    def damage(self, key: str) -> None:
        content, written = self.there[key]
        self.there[key] = self.on_disk[key] = content[:-1] + bytes([content[-1] ^ 1]), written

    def power_failure(self) -> None:
        self.there, self.changed = dict(self.on_disk), True


@functools.lru_cache(4096)
def version_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@functools.lru_cache(4096)
def parsed(content: bytes) -> dict[str, Any]:
    marker: dict[str, Any] = json.loads(content)
    return marker


# What the store asks of pyarrow and obstore.


@dataclass(frozen=True)
class _Info:
    path: str
    is_file: bool = False
    size: int | None = None
    mtime_ns: int | None = None

    @property
    def base_name(self) -> str:
        return self.path.rpartition("/")[2]


def _info(path: str, size: int, written: float) -> _Info:
    return _Info(path, True, size, int(written * 1e9))


class _Upload:
    """An object appears when its stream is closed."""

    def __init__(self, path: str) -> None:
        self._path, self._content = path, b""

    def write(self, content: Any) -> None:
        self._content += bytes(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        ask("put", self._path, self._content, None)


class _Files:
    """A `pyarrow.fs.FileSystem` of object storage: a folder is what names begin with."""

    def open_input_stream(self, path: str) -> io.BytesIO:
        return io.BytesIO(ask("get", path))

    def open_output_stream(self, path: str) -> _Upload:
        return _Upload(path)

    def delete_file(self, path: str) -> None:
        ask("delete", path)

    def delete_dir(self, path: str) -> None:
        if there := ask("list", f"{path}/"):
            ask("delete", *there)

    def move(self, source: str, target: str) -> None:
        ask("put", target, ask("get", source), None)
        ask("delete", source)

    def get_file_info(self, asked: Any) -> Any:
        if isinstance(asked, str):
            there = ask("list", asked)
            return _info(asked, *there[asked]) if asked in there else _Info(asked)
        found = {}
        start = len(asked.base_dir) + 1
        for name, (size, written) in ask("list", f"{asked.base_dir}/").items():
            entry, _, below = name[start:].partition("/")
            if below and not asked.recursive:
                found[entry] = _Info(name[:start] + entry)
            else:
                found[name] = _info(name, size, written)
        return list(found.values())


def _copy_files(source: str, target: str, source_filesystem: Any, _: Any) -> None:
    for name in ask("list", f"{source}/"):
        Path(target, name.rpartition("/")[2]).write_bytes(source_filesystem.open_input_stream(name).read())


@contextmanager
def _refusals(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise refused.NotFoundError(key) from None
    except OSError as error:
        raise refused.GenericError(str(error)) from None


def _put(_: object, path: str, content: bytes, *, mode: Any) -> dict[str, str]:
    version = {"create": "", "overwrite": None}[mode] if isinstance(mode, str) else mode["e_tag"]
    with _refusals(path):
        if ask("put", f"bucket/{path}", content, version):
            return {"e_tag": version_of(content)}
    raise (refused.AlreadyExistsError if mode == "create" else refused.PreconditionError)(path)


def _get(_: object, path: str) -> Any:
    with _refusals(path):
        content = ask("get", f"bucket/{path}")
    return types.SimpleNamespace(bytes=lambda: content, meta={"e_tag": version_of(content)})


def _delete(_: object, path: str) -> None:
    with _refusals(path):
        ask("delete", f"bucket/{path}")


class _InLine:
    """A `ThreadPoolExecutor` without threads."""

    def __init__(self, _: int) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        result = function(*arguments)
        return types.SimpleNamespace(result=lambda: result)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
        return [function(item) for item in items]


# What claims ask of `threading`, in simulated time.


class _Lock:
    def __init__(self) -> None:
        self._taken = False

    def __enter__(self) -> None:
        while self._taken:
            ask("sleep", 0.5)
        self._taken = True

    def __exit__(self, *_: object) -> None:
        self._taken = False


class _Event:
    def __init__(self) -> None:
        self._is_set, self._waiting = False, list[Task]()

    def set(self) -> None:
        self._is_set = True
        for task in self._waiting:
            task.wakes = 0.0

    def wait(self, seconds: float) -> bool:
        self._waiting.append(_this.task)
        if not self._is_set:
            ask("sleep", seconds)
        self._waiting.clear()
        return self._is_set


class _Thread:
    def __init__(self, target: Callable[[], object], daemon: bool) -> None:
        self._target = target

    def start(self) -> None:
        process = _process()
        self._task = process.world.begin(process, self._target)

    def join(self) -> None:
        while not self._task.done:
            ask("sleep", 0.5)


class _KnownClaimant(Claimant):
    """Tells its process of itself."""

    def __init__(self, me: Claim, *arguments: Any) -> None:
        super().__init__(me, *arguments)
        process = _process()
        process.claimed[self] = process.claiming


def _process() -> Process:
    process: Process = _this.task.process
    return process


class _Curve:
    """Of a training that nobody looks at."""

    def begin(self, step: int) -> None: ...

    def stepped(self) -> None: ...

    def write(self, rows: object) -> None: ...


class _Prepared(Dataset):
    """Saved once for all: another copy is a link to that one's folder."""

    def save(self, directory: Path, *, replace: bool = False, link: bool = False) -> None:
        directory.symlink_to(_prepared()[1])

    def content(self) -> str:
        return _prepared()[2]


@functools.cache
def _prepared() -> tuple[Dataset, Path, str]:
    place = _cache() / "prepared"
    split = Split({"only": Sequences.from_padded(np.ones((2, 1, 1)))}, np.arange(2))
    Dataset("tiny", "simulated", split, split, split).save(place)
    saved = Dataset.open(place)
    prepared = _Prepared(**{f.name: getattr(saved, f.name) for f in dataclasses.fields(saved) if f.init})
    object.__setattr__(prepared, "digests", saved.digests)
    return prepared, place, saved.content()


@functools.cache
def _cache() -> Path:
    """Of the one machine that all processes fetch data to."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


@functools.cache
def _opened() -> Store:
    store = Store("s3://bucket?region=nowhere&endpoint_override=localhost:1")
    # Known before; asked of the real storage's client, which is never used.
    assert store.conditional is not None
    store.__dict__["honours_conditions"] = True
    return store


@contextmanager
def simulated() -> Iterator[None]:
    """The real code asks the simulation, in this context."""
    names = types.SimpleNamespace(uuid4=lambda: _process().world.uuid())
    threads = types.SimpleNamespace(Lock=_Lock, Event=_Event, Thread=_Thread)
    changes: list[tuple[Any, str, Any]] = [
        (obstore, "put", _put),
        (obstore, "get", _get),
        (obstore, "delete", _delete),
        (pafs, "copy_files", _copy_files),
        (store_module, "ThreadPoolExecutor", _InLine),
        (claims, "threading", threads),
        (claims, "Claimant", _KnownClaimant),
        (Marker, "of", functools.lru_cache(4096)(Marker.of)),  # of the same content always the same
        (checkpoints, "time", types.SimpleNamespace(monotonic=lambda: _process().clock())),
        *((module, "uuid", names) for module in (claims, store_module)),
        *((module, "tag", lambda: _process().tag) for module in (claims, leftovers, store_module)),
        *((module, "has_died", lambda name: _process().world.has_died(name)) for module in (claims, leftovers)),
    ]
    _opened(), _prepared()  # with the real ones
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, XDG_CACHE_HOME=str(_cache())))
        for owner, name, value in changes:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield


class World:
    """Everything, and what of it is known to be true for ever. Only within `simulated`.

    Attributes:
        known: per run the attempt that somebody was told of.
        harmed: attempts of which a file was damaged: they and what stands on them may be replaced, no others.
    """

    def __init__(self, clocks: list[tuple[float, float]], *, fetching: bool = False, synced: bool = True) -> None:
        """`clocks` are those of the first processes: their offsets and rates. `fetching`: they fetch the data, too."""
        self.storage, self.now, self.count = SimulatedStorage(synced=synced), 0.0, 0
        self.known: dict[str, str] = {}
        self.harmed: set[str] = set()
        self.under_way: list[Asked] = []
        self.tasks: list[Task] = []
        self.processes: list[Process] = []
        self.violated = False
        self._fetching, self._published = fetching, False
        for offset, rate in clocks:
            self.start(offset, rate)

    def uuid(self) -> uuid.UUID:
        self.count += 1
        return uuid.UUID(hashlib.md5(str(self.count).encode()).hexdigest())

    def has_died(self, name: str) -> bool | None:
        """Of every other process it is never known whether it lives."""
        found = re.search(r"p00000000-(\d+)-0", name)
        if found is None or int(found[1]) % 2:
            return None
        return not any(process.number == int(found[1]) for process in self.processes)

    def start(self, offset: float, rate: float) -> None:
        """A process with a sweep of its own; every other one does what it can in the other order."""
        self.count += 1
        store = copy.copy(_opened())
        store.fs = _Files()
        process = Process(self.count, offset, rate, self, store)
        self.processes.append(process)
        order = list(RUNS)[:: -1 if len(self.processes) % 2 else 1]
        self.begin(process, lambda: self._sweep(process, order))

    def begin(self, process: Process, function: Callable[[], object]) -> Task:
        """A thread of a process."""
        task = Task(process, function, self.now)
        self.tasks.append(task)
        return task

    def end(self) -> None:
        for task in self.tasks:
            task.kill()

    # What happens. Each takes a number, and does nothing if it fits nothing.

    def go_on(self, number: int) -> None:
        """What is next, for one of those that can go on; if nobody can, time passes until somebody does."""
        ready = [task for task in self.tasks if task.wakes is not None and task.wakes <= self.now and _runs(task)]
        # What a process asked before it stood still is carried out; the reply waits for it.
        asked = [asked for asked in self.under_way if asked.task is not None and (_runs(asked.task) or not asked.reply)]
        if not ready and not asked and number % 2:
            asked = [asked for asked in self.under_way if asked.task is None]
        if ready or asked:
            chosen = (ready + asked)[number % (len(ready) + len(asked))]
            if isinstance(chosen, Task):
                chosen.wakes = None
                self._resume(chosen)
            elif chosen.reply:
                self._answer(chosen)
            else:
                self._carry_out(chosen)
        else:
            waking = [task.wakes for task in self.tasks if task.wakes is not None and _runs(task)]
            if waking:
                self.now = max(self.now, min(waking))
        self.check()

    def carry_out(self, number: int) -> None:
        """Carry out any request, also one that was before; its sender hears nothing yet."""
        on_condition = [
            asked for asked in self.under_way if asked.operation == "put" and asked.arguments[2] is not None
        ]
        if asked := on_condition if on_condition and number % 2 else self.under_way:
            self._carry_out(asked[number // 2 % len(asked)])
            self.check()

    def time_out(self, number: int) -> None:
        """A reply does not come. The request may still be carried out, later and more than once."""
        waiting = [asked for asked in self.under_way if asked.task is not None and _runs(asked.task)]
        if waiting:
            asked = waiting[number % len(waiting)]
            task, asked.task = asked.task, None
            assert task is not None
            self._resume(task, OSError("timed out"))
            self.check()

    def lose(self, number: int) -> None:
        """A request or its reply is lost; whoever waits for it hears of that."""
        if self.under_way:
            asked = self.under_way.pop(number % len(self.under_way))
            if asked.task is not None:
                self._fail_soon(asked)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.check()

    def pause(self, number: int) -> None:
        """Stop a process, or let it go on."""
        process = self._one_of_them(number)
        process.paused = not process.paused

    def crash(self, number: int) -> None:
        """A process ends, and a new one starts; what the old one asked is still under way."""
        process = self._one_of_them(number)
        for asked in self.under_way:
            if asked.task is not None and asked.task.process is process:
                asked.task = None
        for task in self.tasks:
            if task.process is process:
                task.kill()
        self.tasks = [task for task in self.tasks if task.process is not process]
        self.processes.remove(process)
        self.start(process.offset, process.rate)

    def _one_of_them(self, number: int) -> Process:
        """Every other time one that is at work, if there is any."""
        working = [process for process in self.processes if any(c.held is not None for c in process.claimed)]
        chosen = working if working and number % 2 else self.processes
        return chosen[number // 2 % len(chosen)]

    def power_failure(self) -> None:
        """The storage starts again, with what is on its disk; what was under way is lost."""
        self.storage.power_failure()
        under_way, self.under_way = self.under_way, []
        for asked in under_way:
            if asked.task is not None:
                self._fail_soon(asked)
        self.check()

    def sync(self, number: int) -> None:
        """The storage's disk catches up with a key."""
        keys = sorted(self.storage.there.keys() | self.storage.on_disk.keys())
        if keys:
            self.storage.sync(keys[number % len(keys)])

    def damage(self, number: int) -> None:
        """A bit of a checkpoint or of a committed result flips; every other time of the one that others stand on."""
        markers = self._markers()
        folders = {marker["attempt"] for marker in markers.values()} | {run.identity for run in RUNS.values()}
        keys = [key for key in sorted(self.storage.there) if key.split("/")[-2] in folders and key[-5:] != ".json"]
        of_model = [key for key in keys if "model" in markers and key.split("/")[-2] == markers["model"]["attempt"]]
        if chosen := of_model if number % 2 else keys:
            key = chosen[number // 2 % len(chosen)]
            self.storage.damage(key)
            self.harmed.add(key.split("/")[-2])
            for run, marker in markers.items():
                if self._may_be_replaced(marker["attempt"], marker["parent_attempt"]):
                    self.known.pop(run, None)

    def settle(self) -> None:
        """Nothing fails any more: everybody goes on until all is done."""
        for process in self.processes:
            process.paused = False
        for turn in range(20_000):
            if all(task.done for task in self.tasks) and not self.under_way:
                break
            self.go_on(turn)
            self.tasks = [task for task in self.tasks if not task.done]
        else:
            raise self._violation(f"no end: {sorted(self.storage.there)}")
        markers = self._markers()
        for name in RUNS:
            parent = _parent(name)
            if name not in markers:
                raise self._violation(f"{name}: is not done")
            if parent and markers[name]["parent_attempt"] != markers[parent]["attempt"]:
                raise self._violation(f"{name}: all has ended, and its parent's attempt is another")

    # What must be true.

    def check(self) -> None:
        working = [p.claimed[c] for p in self.processes for c in p.claimed if c.held is not None and c.holds()]
        if len(working) > 1 and len(working) > len(set(working)):
            raise self._violation("two owners may work on the same")
        if self.storage.changed:
            self.storage.changed = False
            self._check_storage()

    def _check_storage(self) -> None:
        there, markers = self.storage.there, self._markers()
        for name, run in RUNS.items():
            marker = markers.get(name)
            if marker is None:
                if name in self.known:
                    raise self._violation(f"{name}: {self.known[name]} is lost")
                continue
            attempt = marker["attempt"]
            if self._may_be_replaced(marker["attempt"], marker["parent_attempt"]):
                continue
            if self.known.get(name, attempt) != attempt:
                raise self._violation(f"{name}: was {self.known[name]}, is {attempt}")
            for file, (_, sha256) in marker["files"].items():
                content, _ = there.get(f"bucket/artifacts/{run.stage.name}/{run.identity}/{attempt}/{file}", (b"", 0))
                if version_of(content) != sha256:
                    raise self._violation(f"{name}: {attempt} has not its payload")
            parent = _parent(name)
            if parent and (parent not in markers or markers[parent]["attempt"] != marker["parent_attempt"]):
                raise self._violation(f"{name}: its parent's attempt {marker['parent_attempt']} is lost")
        data = f"bucket/data/{_prepared()[2]}"
        if f"{data}/manifest.json" in there:
            listed = parsed(there[f"{data}/manifest.json"][0])["arrays"]
            if any(f"{data}/{name}.npy" not in there for name in listed):
                raise self._violation("published, but not whole")
        elif self._published:
            raise self._violation("what was published is lost")
        for process in self.processes:
            if process.run and f"bucket/runs/{process.run}/attempt.json" not in there:
                raise self._violation(f"{process.run}: cleared while it runs")

    def _markers(self) -> dict[str, dict[str, Any]]:
        """The markers that stand there, whether they count or not."""
        keys = {name: f"bucket/artifacts/{run.stage.name}/{run.identity}/commit.json" for name, run in RUNS.items()}
        there = self.storage.there
        return {name: parsed(there[key][0]) for name, key in keys.items() if key in there}

    def _may_be_replaced(self, attempt: str, of_parent: str | None) -> bool:
        return attempt in self.harmed or of_parent in self.harmed

    def _violation(self, sentence: str) -> ViolationError:
        self.violated = True
        return ViolationError(sentence)

    # How it goes on.

    def _carry_out(self, asked: Asked) -> None:
        reply = self.storage.do(self.now, asked.operation, *asked.arguments)
        if asked.task is None and asked.reply:  # of the second time nobody waits for a reply
            self.under_way.remove(asked)
        asked.reply = [reply]

    def _answer(self, asked: Asked) -> None:
        self.under_way.remove(asked)
        if asked.task is not None:
            self._resume(asked.task, asked.reply[0])

    def _fail_soon(self, asked: Asked) -> None:
        """As soon as its process runs, whoever waits hears that the request failed."""
        asked.reply = [OSError("lost")]
        self.under_way.append(asked)

    def _resume(self, task: Task, answer: Any = None) -> None:
        asked = task.resume(answer)
        if asked is None:
            return
        if asked[0] == "sleep":
            task.wakes = self.now + asked[1] / task.process.rate
        else:
            self.under_way.append(Asked(asked[0], asked[1:], task))

    # What a process does, as `s3ray/execution/cell.py` does it.

    def _sweep(self, process: Process, order: list[str]) -> None:
        store, claims = process.store, Claims(process.store, process.clock)
        is_prepared = False
        while True:
            try:
                if not is_prepared:
                    self._prepare(process)
                    is_prepared = True
                done = store.markers(RUNS.values())
                for name in order:
                    self._told(name, done.get(RUNS[name].identity))
                left = [name for name in order if RUNS[name].identity not in done]
                if not left:
                    break
                for name in left:
                    self._try(process, claims, name)
            except (OSError, UserError, LeaseLostError):
                pass
            ask("sleep", RENEW_SECONDS)
        run, process.run = process.run, ""
        store.drop_run(run)

    def _prepare(self, process: Process) -> None:
        store = process.store
        if not process.run:
            leftovers.clear_leftovers(store)
            run = f"sweep-20260101-000000-{process.tag}-{self.uuid().hex[:6]}"
            store.write("{}", "runs", run, "attempt.json")
            process.run = run
        data, _, content = _prepared()
        store.publish_dataset(data)
        self._published = True
        if self._fetching:
            shutil.rmtree(_cache() / "s3ray" / "data" / content, ignore_errors=True)
            store.fetch_dataset(content)

    def _try(self, process: Process, claims: Claims, name: str) -> None:
        """Compute and commit what a name stands for, if that can be done now."""
        run, store, parent = RUNS[name], process.store, None
        if run.parent is not None:
            parent = self._told("model", store.marker(run.parent))
            if parent is None:
                return
            store.payload(parent, "weights")
        process.claiming = run.claim
        with claims.take(run.claim) as holds:
            if holds is None:
                claims.free(run.claim)
            elif not self._told(name, store.marker(run)):  # done meanwhile
                self._compute(process, name, parent, holds)

    def _compute(self, process: Process, name: str, parent: Marker | None, holds: Callable[[], bool]) -> None:
        run, of_parent = RUNS[name], parent.attempt if parent else None
        if not holds():
            raise LeaseLostError
        if run.stage.trains:
            monitor = StageMonitor(process.store, run, of_parent, _CURVE, 0.0, _ignored, 0, holds=holds)
            begun = monitor.resume(lambda snapshot: True)
            if begun is not None and begun["stands_on"] != of_parent:
                raise self._violation(f"{name}: goes on from a checkpoint of a parent that is lost")
            for step in range(begun["step"] if begun else 0, STEPS):
                ask("sleep", STEP_SECONDS)
                snapshot = {"step": step + 1, "metrics": [], "stands_on": of_parent}
                monitor.stepped(step + 1, STEPS, lambda snapshot=snapshot: snapshot)
        else:
            ask("sleep", STEP_SECONDS)
        weights = f"{process.tag} {self.uuid()}".encode()
        committed = process.store.commit(run, {"weights": weights}, seconds=1.0, provenance={}, parent=parent)
        self._told(name, committed.marker)

    def _told(self, name: str, marker: Marker | None) -> Marker | None:
        """What somebody was told of counts for ever, unless it was damaged."""
        if marker is None or self._may_be_replaced(marker.attempt, marker.parent_attempt):
            return marker
        if self.known.setdefault(name, marker.attempt) != marker.attempt:
            raise self._violation(f"{name}: was {self.known[name]}, is {marker.attempt}")
        return marker


_CURVE = cast(Curve, _Curve())


def _ignored(*_: object) -> None: ...


def _parent(name: str) -> str | None:
    return next((other for other, run in RUNS.items() if run is RUNS[name].parent), None)


def _runs(task: Task) -> bool:
    return not task.process.paused
