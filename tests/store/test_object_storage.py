"""The store on an S3-compatible server that throttles, fails, refuses, and whose writers are killed."""

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs as pafs

from object_storage import ObjectStorage
from s3ray.data.dataset import Dataset
from s3ray.errors import UserError
from s3ray.store import Store
from toy_runs import toy_run

RUN = toy_run()
PATIENCE = 120  # seconds; only catches a hang
LARGE = 11 * 2**20  # bytes; pyarrow uploads it in two parts
WRITER = """
import sys
from s3ray.store import Store
from toy_runs import toy_run
run = toy_run()
store, size = Store(sys.argv[2]), int(sys.argv[3])
if sys.argv[1] == "commit":
    store.commit(run, {"a.bin": b"1" * size, "b.bin": b"1" * size}, seconds=1, provenance={})
else:
    store.save_checkpoint(run, 7, b"1" * size)
"""


@pytest.fixture
def store(object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Store(object_storage.uri)


def commit(store: Store, content: bytes = b"payload") -> None:
    store.commit(RUN, {"a.bin": content, "b.bin": content}, seconds=1.5, provenance={})


def throttled(storage: str, share: float = 0.3, answers: Any = None) -> None:
    """Every request fails with a chance of `share`, in an order that is the same in every run."""
    draw, answers = random.Random(0), answers or (storage.faults.THROTTLED,)
    storage.fault = lambda method, path: draw.choice(answers) if draw.random() < share else None


class Reached:
    """A fault that holds back the first request that `hits`, and drops it and its repetitions once released."""

    def __init__(self, storage: str, hits: Callable[[str, str], bool]) -> None:
        self._hits, self._dropped = hits, storage.faults.DROPPED
        self.reached, self.released = threading.Event(), threading.Event()

    def __call__(self, method: str, path: str) -> object:
        if not self._hits(method, path):
            return None
        self.reached.set()
        assert self.released.wait(PATIENCE)
        return self._dropped


def killed_at(storage: str, hits: Callable[[str, str], bool], *arguments: object) -> None:
    """A writer in a process of its own, killed while it waits for the answer to the request that `hits`."""
    storage.fault = fault = Reached(storage, hits)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, *map(str, arguments)], env=environment)
    try:
        assert fault.reached.wait(PATIENCE)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        fault.released.set()
    storage.fault = lambda method, path: None


def test_every_operation_survives_throttling(
    store: Store, object_storage: ObjectStorage, tiny_dataset: Dataset
) -> None:
    faults = object_storage.faults
    throttled(object_storage, answers=(faults.THROTTLED, faults.BROKEN, faults.DROPPED))
    store.check_writable()
    assert store.marker(RUN) is None
    assert store.names("nothing", "here") == []
    store.save_checkpoint(RUN, 1, b"one")
    store.save_checkpoint(RUN, 2, b"two")
    assert next(store.checkpoints(RUN))[1] == b"two"
    commit(store)
    assert store.artifact(RUN, "a.bin") == b"payload"
    assert store.checkpoint_step(RUN) is None
    fingerprint = tiny_dataset.fingerprint()
    store.publish_dataset(tiny_dataset)
    assert store.fetch_dataset(fingerprint).fingerprint() == fingerprint
    store.write("", "runs", "one", "attempts", "1")
    store.drop_run("one")
    object_storage.fault = lambda method, path: None
    assert [key for key in object_storage.objects() if key.startswith(("runs/", "checkpoints/", ".writable"))] == []


@pytest.mark.slow
def test_a_copy_that_ray_has_pickled_is_as_patient(store: Store, object_storage: ObjectStorage) -> None:
    """Seven refusals in a row; pyarrow's copies give up at the third."""
    for _ in range(2):  # Ray pickles copies of copies
        store.fs = pickle.loads(pickle.dumps(store.fs))
    left = [object_storage.faults.THROTTLED] * 7
    object_storage.fault = lambda method, path: left.pop() if left else None
    store.write("content", "folder", "name")
    assert store.read("folder", "name") == b"content"
    assert isinstance(store.fs, pafs.S3FileSystem)  # which Ray asks


@pytest.mark.slow
def test_a_server_that_is_down_is_said_to_be_so_soon(object_storage: ObjectStorage) -> None:
    throttled(object_storage, 1.0, (object_storage.faults.BROKEN, object_storage.faults.DROPPED))
    store, started = Store(object_storage.uri), time.monotonic()
    runs = [toy_run(seed) for seed in range(100)]
    with pytest.raises(UserError, match=r"^--storage s3://.*: cannot be read \(.*\); check the place and your access"):
        store.markers(runs)
    with pytest.raises(UserError, match=r"^--storage s3://.*: cannot be written \(.*\); choose a place"):
        store.check_writable()
    assert time.monotonic() - started < PATIENCE  # 13 seconds each on an idle machine


def test_no_access_is_said_at_once(store: Store, object_storage: ObjectStorage) -> None:
    object_storage.fault = lambda method, path: object_storage.faults.DENIED
    with pytest.raises(UserError, match=r"cannot be read \(.*ACCESS_DENIED.*\); check the place"):
        store.markers([RUN])
    with pytest.raises(UserError, match=r"cannot be written \(.*ACCESS_DENIED.*\); choose a place"):
        store.check_writable()
    assert len(object_storage.log) == 2  # a refusal is not tried again


def test_a_bucket_that_does_not_exist(object_storage: ObjectStorage) -> None:
    with pytest.raises(UserError, match=r"cannot be written \(.*NO_SUCH_BUCKET.*\); choose a place"):
        Store(object_storage.uri_of("nosuchbucket/prefix")).check_writable()


def test_addresses_leave_parameters_out(store: Store, object_storage: ObjectStorage) -> None:
    assert store.address("results", "x") == f"s3://bucket/{object_storage.prefix}/results/x"


def test_a_small_file_is_one_request(store: Store, object_storage: ObjectStorage) -> None:
    store.write("content", "folder", "name")
    assert [method for method, _ in object_storage.log] == ["PUT"]


@pytest.mark.slow
def test_a_part_that_cannot_be_uploaded_leaves_no_object(store: Store, object_storage: ObjectStorage) -> None:
    object_storage.fault = lambda method, path: object_storage.faults.DENIED if "partNumber=2" in path else None
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        store.write(b"1" * LARGE, "folder", "name")
    object_storage.fault = lambda method, path: None
    assert object_storage.objects() == []


CTRL_C = """
import os, signal, sys
from s3ray.store import Store

class Interrupted:
    "A file system on which Ctrl-C comes when a stream has just been opened."
    def __init__(self, fs):
        self.fs = fs
    def open_output_stream(self, target):
        stream = self.fs.open_output_stream(target)
        os.kill(os.getpid(), signal.SIGINT)
        return stream

store = Store(sys.argv[1])
store.fs = Interrupted(store.fs)
try:
    store.write(b"1" * int(sys.argv[2]), "folder", "name")
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [7, LARGE])
def test_ctrl_c_never_publishes_a_part_of_a_file(store: Store, object_storage: ObjectStorage, size: int) -> None:
    command = [sys.executable, "-c", CTRL_C, object_storage.uri, str(size)]
    writer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert writer.stdout == "interrupted\n"
    assert len(store.read("folder", "name")) == size


def is_marker(method: str, path: str) -> bool:
    return method == "PUT" and "/commit.json" in path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hits", "size", "whole"),
    [
        (is_marker, 200_000, {"a.bin", "b.bin"}),
        (lambda method, path: method == "PUT" and "/b.bin" in path, 200_000, {"a.bin"}),
        (lambda method, path: method == "PUT" and "/a.bin" in path and "partNumber=2" in path, LARGE, set()),
        # All parts are there, the last request is not.
        (lambda method, path: method == "POST" and "/a.bin" in path and "uploads" not in path, LARGE, set()),
    ],
    ids=["before_the_marker", "between_files", "in_mid_file", "before_a_file_is_complete"],
)
def test_a_killed_writer_leaves_nothing_that_counts(
    store: Store, object_storage: ObjectStorage, hits: Callable[[str, str], bool], size: int, whole: set[str]
) -> None:
    killed_at(object_storage, hits, "commit", object_storage.uri, size)
    assert {key.rpartition("/")[2] for key in object_storage.objects()} == whole
    assert store.marker(RUN) is None
    assert store.markers([RUN]) == {}
    with pytest.raises(FileNotFoundError, match="not committed"):
        store.artifact(RUN, "a.bin")
    commit(store, b"second")
    assert [store.artifact(RUN, name) for name in ("a.bin", "b.bin")] == [b"second"] * 2
    if whole:  # the first attempt is as it was, and is not the one that counts
        sizes = sorted(len(store.read(key)) for key in object_storage.objects() if key.endswith(".bin"))
        assert sizes == [6, 6] + [size] * len(whole)


@pytest.mark.slow
def test_a_writer_killed_in_its_checkpoint_leaves_the_earlier_one(store: Store, object_storage: ObjectStorage) -> None:
    store.save_checkpoint(RUN, 6, b"six")
    killed_at(object_storage, lambda method, path: "partNumber=2" in path, "checkpoint", object_storage.uri, LARGE)
    assert store.checkpoint_step(RUN) == 6
    assert next(store.checkpoints(RUN))[1] == b"six"


def test_a_dataset_whose_publisher_was_stopped_is_published_by_the_next(
    store: Store, object_storage: ObjectStorage, tiny_dataset: Dataset
) -> None:
    fingerprint, faults = tiny_dataset.fingerprint(), object_storage.faults
    object_storage.fault = lambda method, path: faults.DENIED if method == "PUT" and "manifest" in path else None
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        store.publish_dataset(tiny_dataset)
    object_storage.fault = lambda method, path: None
    assert f"data/{fingerprint}/train.labels.npy" in object_storage.objects()
    store.publish_dataset(tiny_dataset)
    assert store.fetch_dataset(fingerprint).fingerprint() == fingerprint


def test_a_dataset_is_fetched_once(store: Store, object_storage: ObjectStorage, tiny_dataset: Dataset) -> None:
    fingerprint = tiny_dataset.fingerprint()
    threads = [threading.Thread(target=store.publish_dataset, args=(tiny_dataset,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.fetch_dataset(fingerprint)
    object_storage.log.clear()
    assert store.fetch_dataset(fingerprint).fingerprint() == fingerprint
    assert object_storage.log == []
