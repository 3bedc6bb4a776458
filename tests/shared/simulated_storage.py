"""The store's own code in simulated time: what stands below it, in place of pyarrow, obstore and `threading`.

`Store` and its conditional writes are the real ones, as on object storage, as are `Claims` with its keeper,
checkpoints, published data and leftovers. What a process asks of the storage is a request to whoever resumes its thread
(simulated.py); each thread of a process is one of ours, and runs only while all else waits for it.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import hashlib
import io
import json
import os
import shutil
import tempfile
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import numpy as np
import obstore
from obstore import exceptions as refused
from pyarrow import fs as pafs

from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.execution import checkpoints, gc, stored
from s3ray.store import Claims, Marker, Store, claims, leftovers, names
from s3ray.store import store as store_module
from s3ray.store.claims import Claim, Claimant

if TYPE_CHECKING:
    from simulated import World


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
    told: set[str] = field(default_factory=set)  # the runs whose results it knows of
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


class Files:
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


class _Prepared(Dataset):
    """Saved once for all: another copy is a link to that one's folder."""

    def save(self, directory: Path, *, replace: bool = False, link: bool = False) -> None:
        directory.symlink_to(prepared_data()[1])

    def content(self) -> str:
        return prepared_data()[2]


@functools.cache
def prepared_data() -> tuple[Dataset, Path, str]:
    place = cache_folder() / "prepared"
    split = Split({"only": Sequences.from_padded(np.ones((2, 1, 1)))}, np.arange(2))
    Dataset("tiny", "simulated", split, split, split).save(place)
    saved = Dataset.open(place)
    prepared = _Prepared(**{f.name: getattr(saved, f.name) for f in dataclasses.fields(saved) if f.init})
    object.__setattr__(prepared, "digests", saved.digests)
    return prepared, place, saved.content()


@functools.cache
def cache_folder() -> Path:
    """Of the one machine that all processes fetch data to."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


@functools.cache
def opened() -> Store:
    store = Store("s3://bucket?region=nowhere&endpoint_override=localhost:1")
    # Known before; asked of the real storage's client, which is never used.
    assert store.conditional is not None
    store.__dict__["honours_conditions"] = True
    return store


@contextmanager
def simulated() -> Iterator[None]:
    """The real code asks the simulation, in this context."""
    uuids = types.SimpleNamespace(uuid4=lambda: _process().world.uuid())
    sleeping = types.SimpleNamespace(sleep=lambda seconds: ask("sleep", seconds))
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
        *((module, "uuid", uuids) for module in (claims, names, store_module)),
        *((module, "time", sleeping) for module in (claims, names)),
        *((module, "Claims", lambda store: Claims(store, _process().clock)) for module in (gc, names)),
        *((module, "tag", lambda: _process().tag) for module in (claims, leftovers, store_module)),
        *((module, "has_died", lambda name: _process().world.has_died(name)) for module in (claims, leftovers, stored)),
    ]
    opened(), prepared_data()  # with the real ones
    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ, XDG_CACHE_HOME=str(cache_folder())))
        for owner, name, value in changes:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield
