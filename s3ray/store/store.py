"""The store: a folder on any `pyarrow.fs` URI.

    artifacts/<stage>/<identity>/commit.json      the marker, written last; it names the attempt that counts
    artifacts/<stage>/<identity>/<attempt>/…      payload; every writer has an attempt of its own
    checkpoints/<identity>/<step>.pt              progress of a stage that is not yet committed
    data/<fingerprint>/                           prepared datasets
    runs/<run>/                                   attempts and failures of one call

Two writers of one identity write different attempts; whichever marker lands last counts, and both are whole.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pyarrow import ArrowException
from pyarrow import fs as pafs

from s3ray.config import UserError
from s3ray.data.dataset import Dataset
from s3ray.store.identity import StageRun

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Marker:
    """A commit marker: the stage run's document, its files, seconds, and where they come from."""

    identity: str
    document: Mapping[str, Any]
    attempt: str
    seconds: float
    committed_at: str
    provenance: Mapping[str, Any]


class Store:
    def __init__(self, uri: str) -> None:
        """Open a store; nothing is created yet.

        Args:
            uri: a local path, or `s3://…`, `gs://…`, any URI that pyarrow reads.

        Raises:
            UserError: a URI that pyarrow does not know, or one with credentials in it (it would be shown in
                dashboards).
        """
        parts = urlsplit(uri)
        if parts.username or parts.password or "secret" in parts.query.lower():
            raise UserError(
                f"--storage {parts.scheme}://…: holds credentials, which dashboards would show; "
                f"give them through the environment"
            )
        self.uri = uri if parts.scheme else str(Path(uri).expanduser().resolve())
        try:
            self.fs, self.base = pafs.FileSystem.from_uri(self.uri)
        except (ArrowException, OSError, ValueError) as error:
            raise UserError(f"--storage {uri}: not a storage URI ({error}); use a path, s3://… or gs://…") from error
        self.base = self.base.rstrip("/")
        self.is_local = isinstance(self.fs, pafs.LocalFileSystem)

    def path(self, *parts: str) -> str:
        return "/".join([self.base, *parts])

    def locate(self, *parts: str) -> str:
        """The path or URI under which a user finds a file."""
        return "/".join([self.uri.rstrip("/"), *parts])

    def check_writable(self) -> None:
        """UserError unless a file can be written and deleted again."""
        probe = self.path(f".writable-{uuid.uuid4().hex}")
        try:
            self.write("write check", probe.removeprefix(self.base + "/"))
            self.fs.delete_file(probe)
        except (OSError, ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"--storage {self.uri}: cannot be written ({reason}); choose a place you may write to"
            ) from error

    def write(self, content: bytes | str, *parts: str) -> None:
        """Write a file that appears complete or not at all."""
        target = self.path(*parts)
        payload = content.encode() if isinstance(content, str) else content
        if not self.is_local:  # object stores publish an object when its upload is complete
            with self.fs.open_output_stream(target) as stream:
                stream.write(payload)
            return
        self.fs.create_dir(target.rpartition("/")[0], recursive=True)
        staging = f"{target}.{uuid.uuid4().hex}.tmp"
        try:
            with self.fs.open_output_stream(staging) as stream:
                stream.write(payload)
            self.fs.move(staging, target)
        except BaseException:
            Path(staging).unlink(missing_ok=True)
            raise

    def read(self, *parts: str) -> bytes:
        with self.fs.open_input_stream(self.path(*parts)) as stream:
            content: bytes = stream.read()
        return content

    def names(self, *parts: str) -> list[str]:
        """Names of the files directly in a folder; empty if it is not there."""
        selector = pafs.FileSelector(self.path(*parts), allow_not_found=True)
        infos = self.fs.get_file_info(selector)
        return sorted(i.base_name for i in infos if i.is_file and not i.base_name.endswith(".tmp"))

    def commit(
        self, run: StageRun, files: Mapping[str, bytes], *, seconds: float, provenance: Mapping[str, Any]
    ) -> None:
        """Write a stage run's payload, then its marker, then drop the checkpoints it no longer needs."""
        attempt = uuid.uuid4().hex[:12]
        for name, content in files.items():
            self.write(content, "artifacts", run.stage, run.identity, attempt, name)
        marker = {
            "identity": run.identity,
            "document": run.document,
            "attempt": attempt,
            "seconds": seconds,
            "committed_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "provenance": dict(provenance),
        }
        self.write(json.dumps(marker, indent=1), "artifacts", run.stage, run.identity, "commit.json")
        self.drop_checkpoints(run)

    def marker(self, run: StageRun) -> Marker | None:
        """The run's commit marker, or None if its result does not count (yet)."""
        try:
            return Marker(**json.loads(self.read("artifacts", run.stage, run.identity, "commit.json")))
        except FileNotFoundError:
            return None
        except (json.JSONDecodeError, TypeError):  # cut off while it was written to an object store
            return None

    def markers(self, runs: Iterable[StageRun]) -> dict[str, Marker]:
        """Markers of those runs that are committed, by identity; UserError for a store that cannot be read."""
        unique = list({run.identity: run for run in runs}.values())
        try:
            found = [marker for marker in self.parallel(self.marker, unique) if marker is not None]
        except (OSError, ArrowException) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"--storage {self.uri}: cannot be read ({reason}); check the place and your access to it"
            ) from error
        return {marker.identity: marker for marker in found}

    def parallel(self, read: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """`read` of every item, many at a time: object stores answer in tens of milliseconds."""
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(read, items))

    def artifact(self, run: StageRun, name: str) -> bytes:
        """A file of a committed run.

        Raises:
            FileNotFoundError: the run is not committed.
        """
        marker = self.marker(run)
        if marker is None:
            raise FileNotFoundError(f"{self.uri}: {run.stage} {run.identity[:12]} is not committed")
        return self.read("artifacts", run.stage, run.identity, marker.attempt, name)

    def save_checkpoint(self, run: StageRun, step: int, content: bytes) -> None:
        """Keep `content` as the run's progress and drop earlier progress."""
        name = f"{step:09d}.pt"
        self.write(content, "checkpoints", run.identity, name)
        for earlier in self.names("checkpoints", run.identity):
            if earlier < name:
                with suppress(OSError):  # another writer of this identity was first
                    self.fs.delete_file(self.path("checkpoints", run.identity, earlier))

    def checkpoint_step(self, run: StageRun) -> int | None:
        """Step of the latest checkpoint, or None."""
        names = self.names("checkpoints", run.identity)
        return int(names[-1].removesuffix(".pt")) if names else None

    def latest_checkpoint(self, run: StageRun) -> bytes | None:
        step = self.checkpoint_step(run)
        if step is None:
            return None
        try:
            return self.read("checkpoints", run.identity, f"{step:09d}.pt")
        except FileNotFoundError:  # another writer of this identity has just gone further
            return self.latest_checkpoint(run)

    def drop_checkpoints(self, run: StageRun) -> None:
        self._drop("checkpoints", run.identity)

    def drop_run(self, run: str) -> None:
        """Forget the attempts and Ray's own files of a run that left nothing to explain."""
        self._drop("runs", run)

    def _drop(self, *parts: str) -> None:
        with suppress(OSError):  # not there, or another writer drops it too; nothing reads it any more
            self.fs.delete_dir(self.path(*parts))

    def publish_dataset(self, data: Dataset, fingerprint: str) -> None:
        """Put a dataset where every worker can fetch it; nothing happens if it is there."""
        target = self.path("data", fingerprint)
        if self.fs.get_file_info(f"{target}/manifest.json").is_file:
            return
        if self.is_local:
            data.save(Path(target))
            return
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / fingerprint
            data.save(prepared)
            files = sorted(prepared.iterdir(), key=lambda path: path.name == "manifest.json")
            for file in files:  # the manifest last: it is this folder's commit marker
                pafs.copy_files(str(file), f"{target}/{file.name}", pafs.LocalFileSystem(), self.fs)

    def fetch_dataset(self, fingerprint: str) -> Dataset:
        """Map a published dataset; on remote storage, from a copy in this machine's cache."""
        source = self.path("data", fingerprint)
        if self.is_local:
            return Dataset.open(Path(source))
        cached = _cache_folder() / fingerprint
        if not cached.exists():
            cached.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cached.parent) as scratch:
                copy = Path(scratch) / fingerprint
                copy.mkdir()
                pafs.copy_files(source, str(copy), self.fs, pafs.LocalFileSystem())
                try:
                    os.replace(copy, cached)
                except OSError:  # another worker of this machine was first
                    shutil.rmtree(copy, ignore_errors=True)
        return Dataset.open(cached)


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "s3ray" / "data"
