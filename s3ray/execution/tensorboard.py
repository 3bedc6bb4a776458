"""Training curves as TensorBoard events in the store, and TensorBoard on top of them. No Ray here.

tensorboard/<dataset>/<cell>/<stage>.<identity>/events.out.tfevents.<first step>
"""

from __future__ import annotations

import importlib.util
import re
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from google.protobuf.message import DecodeError
from pyarrow import fs as pafs
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from s3ray.errors import UserError
from s3ray.stages.stage import StageRun
from s3ray.stages.training import Metrics
from s3ray.store import Store
from s3ray.sweep import Cell

FOLDER = "tensorboard"


class Curve:
    """The events of one stage that trains, written in parts while it does.

    Object stores cannot append, and TensorBoard keeps reading the file that it once opened: every part is a file
    of its own. Its name is its first step, so that a stage which resumes replaces what it computes again.
    """

    def __init__(self, store: Store, cell: Cell, run: StageRun, label: str) -> None:
        """`label` is the stage's, such as `selection suff+min`. Cells of other settings or scales have the same
        label; their identities tell them apart."""
        self._store, self._folder = store, _folder(str(cell), cell.dataset, label, run.identity)
        self._first = 0
        self._times: list[float] = []  # of the steps from `_first` on

    def begin(self, step: int) -> None:
        """Training starts at `step`; at 0, what an earlier training left behind goes."""
        if step == 0:
            self._store.drop(*self._folder)
        self._first, self._times = step, []

    def stepped(self) -> None:
        """Called after every step, for its time."""
        self._times.append(time.time())

    def write(self, metrics: Metrics) -> None:
        """Write the steps that no earlier part has; `metrics` holds all steps up to the latest."""
        rows = metrics[self._first :]
        if rows:
            part = f"events.out.tfevents.{self._first:09d}"
            self._store.write(_events(rows, self._times), *self._folder, part)
            self.begin(len(metrics))


def _folder(cell: str, dataset: str, label: str, identity: str) -> tuple[str, ...]:
    name = cell.removeprefix(f"{dataset} ").replace("χ=", "chi").replace("=", "")
    stage = f"{label}.{identity[:8]}"
    return (FOLDER, *(re.sub(r"[^\w.+-]", "_", part) for part in (dataset, name, stage)))


def last_rows(store: Store, cell: str, dataset: str, label: str, identity: str, most: int = 5) -> Metrics:
    """The last steps of a stage's curve, as far as it is written; what is no events file counts for nothing.

    Args:
        cell, dataset: of its cell, as they are printed.
        label: of the stage, as `Curve` has it.
    """
    folder = _folder(cell, dataset, label, identity)
    rows: Metrics = []
    for part in reversed(store.names(*folder)):
        with suppress(OSError, struct.error, DecodeError):
            rows = [*_rows(store.read(*folder, part)), *rows]
        if len(rows) >= most:
            break
    return rows[-most:]


def _rows(content: bytes) -> Iterator[dict[str, float]]:
    """What `_events` made a file of."""
    position = 0
    while position < len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        event = Event.FromString(content[position + 12 : position + 12 + length])
        position += length + 16
        if event.HasField("summary"):
            yield {"step": float(event.step), **{value.tag: value.simple_value for value in event.summary.value}}


def _events(rows: Metrics, times: list[float]) -> bytes:
    """An events file: one event per row, one scalar per column."""
    events = [Event(wall_time=times[0], file_version="brain.Event:2")]
    for row, wall_time in zip(rows, times, strict=True):
        values = [Summary.Value(tag=name, simple_value=value) for name, value in row.items() if name != "step"]
        events.append(Event(wall_time=wall_time, step=int(row["step"]), summary=Summary(value=values)))
    return b"".join(_record(event.SerializeToString()) for event in events)


def _record(payload: bytes) -> bytes:
    """The TFRecord frame: length, its checksum, payload, its checksum."""
    length = struct.pack("<Q", len(payload))
    return b"".join(
        [length, struct.pack("<I", masked_crc32c(length)), payload, struct.pack("<I", masked_crc32c(payload))]
    )


def mirror(store: Store, folder: Path) -> None:
    """Copy every part that `folder` lacks, or has in another size."""

    def copy(info: pafs.FileInfo) -> None:
        target = folder / info.path.removeprefix(f"{base}/")
        if target.exists() and target.stat().st_size == info.size:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # a stage that starts afresh has just dropped it
            pafs.copy_files(info.path, str(target), store.fs, pafs.LocalFileSystem())

    base = store.path(FOLDER)
    infos = store.fs.get_file_info(pafs.FileSelector(base, recursive=True, allow_not_found=True))
    store.parallel(copy, (info for info in infos if info.is_file and not info.base_name.endswith(".tmp")))


def serve(store: Store, port: int, refresh: float = 30.0) -> int:
    """Run TensorBoard on the store's curves until it ends; its exit code.

    Args:
        refresh: seconds between copies of what is new; TensorBoard itself reads nothing but local files.

    Raises:
        UserError: TensorBoard is not installed, or there are no curves.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError("tensorboard: is not installed; pip install 'tensorboard>=2.21,<3'")
    if not store.fs.get_file_info(store.path(FOLDER)).type == pafs.FileType.Directory:
        raise UserError(f"--storage {store.uri}: holds no training curves; run a sweep on it first")
    with tempfile.TemporaryDirectory(prefix="s3ray-tensorboard-") as scratch:
        folder = Path(store.path(FOLDER)) if store.is_local else Path(scratch)
        if not store.is_local:
            mirror(store, folder)
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--port", str(port)]
        process = subprocess.Popen([*command, "--window_title", f"s3ray {store.uri}"])
        try:
            while True:
                try:
                    return process.wait(refresh)
                except subprocess.TimeoutExpired:
                    if not store.is_local:
                        mirror(store, folder)
        except KeyboardInterrupt:  # Ctrl-C is how one leaves; TensorBoard got it too
            return 0
        finally:
            process.terminate()
            process.wait()
