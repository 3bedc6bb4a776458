"""The store: a folder on any `pyarrow.fs` URI.

    artifacts/<stage>/<identity>/commit.json      the marker, written last; names the attempt that counts, its files
    artifacts/<stage>/<identity>/<attempt>/…      payload; every writer has an attempt of its own
    checkpoints/<identity>/<step>.pt              progress of a stage that is not yet committed
    data/<content>/                               prepared datasets
    runs/<run>/                                   attempts and failures of one call
    claims/<cell>/                                who is at work on a cell (store/claims.py)
    results/<sweep>/                              tables and figures of one study, listed in its info.json, written last
    tensorboard/<dataset>/<cell>/<stage run>/     training curves to look at; no result depends on them

Two writers of one identity write different attempts; whichever marker lands last counts, and both are whole.

What is listed counts only if all of it is there. A marker whose payload was deleted or cut short counts as none: the
stage runs again. A published dataset that lacks an array is published again.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

import pyarrow as pa
from pyarrow import ArrowException
from pyarrow import fs as pafs

from s3ray.configuration import MANY
from s3ray.data.dataset import Dataset, array_digest, parsed_manifest, put_in_place
from s3ray.errors import UserError
from s3ray.paths import local_path
from s3ray.stages.stage import Inputs, StageRun, identity_of
from s3ray.traces import tag

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# What the names of URI parameters with credentials have in them, or are.
_CREDENTIALS = ("secret", "key", "token", "password", "credential", "signature")
_SECRET, _OPEN = {"sig"}, {"credential_kind"}


@dataclass(frozen=True, slots=True)
class Marker:
    """A commit marker: the stage run's document, its files, seconds, and where they come from.

    Attributes:
        seconds: of all attempts that the result stands on, those before a resumption included.
        parent_stage: name of the stage of the document's parent, whose folder has its artifact.
        inputs: of a trained model, what its shape takes from the data: `features` (width per modality) and
            `classes`.
    """

    identity: str
    document: Mapping[str, Any]
    parent_stage: str | None
    inputs: Mapping[str, Any] | None
    attempt: str
    files: Mapping[str, tuple[int, str]]  # bytes and sha256
    seconds: float
    committed_at: str
    provenance: Mapping[str, Any]

    @classmethod
    def parse(cls, content: bytes) -> Marker | None:
        """The marker that a file holds, every field of its type; None for anything else, such as one cut short."""
        try:
            plain = json.loads(content)
            if not isinstance(plain, dict) or plain.keys() != {field.name for field in dataclasses.fields(cls)}:
                return None
            marker = cls(**plain)
            files = {name: (size, digest) for name, (size, digest) in marker.files.items()}
            holds = (
                # It covers the document, whose fields need no look of their own.
                marker.identity == identity_of(marker.document)
                and isinstance(marker.document["stage"], str)
                and (marker.parent_stage is None or _is_name(marker.parent_stage))
                and (marker.parent_stage is None) == (marker.document["parent"] is None)
                and (marker.inputs is None or _are_inputs(Inputs(**marker.inputs)))
                and _is_name(marker.attempt)
                and all(_is_name(name) and _is_count(size, 0) for name, (size, _) in files.items())
                and all(re.fullmatch("[0-9a-f]{64}", digest, re.ASCII) for _, digest in files.values())
                and type(marker.seconds) in (int, float)
                and 0 <= marker.seconds <= MANY
                and dt.datetime.fromisoformat(marker.committed_at).tzinfo is not None
                and all(isinstance(value, str | int | float | None) for value in marker.provenance.values())
                and isinstance(marker.machine, str | None)
                and _is_count(marker.provenance.get("workers", 1))
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return dataclasses.replace(marker, files=files) if holds else None

    @property
    def stage(self) -> str:
        return str(self.document["stage"])

    @property
    def machine(self) -> str | None:
        """The kind of machine that it ran on."""
        return self.provenance.get("machine")

    @property
    def workers(self) -> int:
        """Of the group that ran it, each for `seconds`."""
        return int(self.provenance.get("workers", 1))


def _is_count(value: Any, least: int = 1) -> bool:
    return type(value) is int and least <= value <= 2**63 - 1


def _are_inputs(inputs: Inputs) -> bool:
    counts = (inputs.classes, *inputs.features.values(), *inputs.subsampled.values(), *inputs.padded.values())
    return bool(inputs.features) and all(map(_is_count, counts)) and isinstance(inputs.standardized, bool)


def _is_name(value: Any) -> bool:
    """Whether it names a file or folder directly in another."""
    return isinstance(value, str) and re.fullmatch(r"\w[\w.+-]*", value, re.ASCII) is not None


class Store:
    def __init__(self, uri: str, option: str = "--storage") -> None:
        """Open a store; nothing is created yet.

        Args:
            uri: a local path, or `s3://…`, `gs://…`, any URI that pyarrow reads.
            option: the command-line option that complaints name.

        Raises:
            UserError: a URI that pyarrow does not know, or one with credentials in it (it would be shown in
                dashboards).
        """
        parts = _split(uri, option)
        if parts.scheme and _holds_credentials(parts):
            raise UserError(
                f"{option} {parts.scheme}://…: holds credentials, which dashboards would show; "
                f"give them through the environment"
            )
        self.option = option
        try:
            self.uri = uri if parts.scheme else str(Path(uri).expanduser().resolve())
        except RuntimeError:  # a user without a name, as in some containers
            raise UserError(f"{option} {uri}: there is no home folder; set HOME, or {option} to another path") from None
        except ValueError as error:  # a zero byte
            raise UserError(f"{option} {uri}: is no path ({error}); choose another one") from None
        with self.explained("opened", "check the place and your access to it"):
            try:
                self.fs, self.base = pafs.FileSystem.from_uri(self.uri)
            except ValueError as error:
                # Of a parameter that nobody knows it is not known either whether it is secret.
                shown, reason = uri.partition("?")[0], str(error)
                reason = reason.replace(parts.query, "…") if parts.query else reason
                raise UserError(
                    f"{option} {shown}: not a storage URI ({reason}); use a path, s3://… or gs://…"
                ) from None
        if isinstance(self.fs, pafs.S3FileSystem):
            self.fs = _PatientS3(self.fs)
        self.base = self.base.rstrip("/")
        self.is_local = isinstance(self.fs, pafs.LocalFileSystem)

    @classmethod
    def open(cls, uri: str, option: str = "--storage") -> Store:
        """The store at a path or URI as people type it.

        Raises:
            UserError: nothing is given, or it can be opened neither as a path nor as a URI.
        """
        if not uri.strip():
            raise UserError(f"{option}: is empty; name a folder or URI")
        if uri.startswith("file://") and " " in uri:
            uri = quote(uri, safe=":/%")  # pyarrow parses URIs strictly
        elif uri.startswith("~"):
            local_path(uri, option)
        elif _split(uri, option).scheme not in ("", "file") and "://" not in uri:
            raise UserError(f"{option} {uri}: is no URI, which has :// after its scheme; write ./{uri} for a folder")
        return cls(uri, option)

    def path(self, *parts: str) -> str:
        return "/".join([self.base, *parts])

    def address(self, *parts: str) -> str:
        """Where something is, for people: a path, or a URI without its parameters."""
        return self.path(*parts) if self.is_local else f"{urlsplit(self.uri).scheme}://{self.path(*parts)}"

    def file_uri(self, *parts: str) -> str:
        """What finds a file again: a path, or a URI with its parameters."""
        query = urlsplit(self.uri).query
        return self.address(*parts) + (f"?{query}" if query and not self.is_local else "")

    @contextmanager
    def explained(self, verb: str, remedy: str) -> Iterator[None]:
        """UserError in one sentence if the storage fails."""
        try:
            yield
        except (OSError, ArrowException) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"{self.option} {self.uri}: cannot be {verb} ({reason}); {remedy}") from error

    def check_writable(self) -> None:
        """UserError unless a file can be written and deleted again."""
        name = f".writable-{tag()}-{uuid.uuid4().hex}"
        with self.explained("written", "choose a place you may write to"):
            self.write("write check", name)
            self.fs.delete_file(self.path(name))

    def write(self, content: bytes | str | pa.Buffer, *parts: str) -> None:
        """Write a file that appears complete or not at all."""
        self._write({self.path(*parts): content.encode() if isinstance(content, str) else content})

    def _write(self, files: Mapping[str, bytes | pa.Buffer]) -> None:
        """Write files at these paths. On a disk none appears unless all of them could be written."""
        if not self.is_local:
            # An object appears when its stream is closed, and leaving the stream early closes it too, even through
            # its destructor. In a thread of its own no Ctrl-C can come between opening and writing.
            with ThreadPoolExecutor(1) as pool:
                for target, payload in files.items():
                    pool.submit(self._upload, target, payload).result()
            return
        staged: dict[str, str] = {}
        try:
            for target, payload in files.items():
                folder = target.rpartition("/")[0]
                self.fs.create_dir(folder, recursive=True)
                # Nothing of the final name, by which TensorBoard finds files.
                staged[target] = f"{folder}/{tag()}-{uuid.uuid4().hex}.tmp"
                with self.fs.open_output_stream(staged[target]) as stream:
                    stream.write(payload)
            for target, staging in staged.items():
                self.fs.move(staging, target)
        except BaseException:
            for staging in staged.values():
                Path(staging).unlink(missing_ok=True)
            raise

    def _upload(self, target: str, payload: bytes | pa.Buffer) -> None:
        with self.fs.open_output_stream(target) as stream:
            stream.write(payload)

    def read(self, *parts: str) -> bytes:
        with self.fs.open_input_stream(self.path(*parts)) as stream:
            content: bytes = stream.read()
        return content

    def write_folder(
        self, files: Mapping[str, bytes | str], info: Mapping[str, Any], *parts: str, listing: str = "info.json"
    ) -> None:
        """Make a folder hold `files` and nothing of an earlier call; other people's files stay.

        `listing` is written last: `info`, under `files` the sha256 of each, and the sha256 of all this itself.
        """
        try:
            earlier = self.folder_info(*parts, listing=listing)
        except (FileNotFoundError, UserError):
            earlier = {"files": {}}
        contents = {name: content.encode() if isinstance(content, str) else content for name, content in files.items()}
        self._write({self.path(*parts, name): content for name, content in contents.items()})
        for name in earlier["files"].keys() - contents.keys():
            # Gone, or not what we wrote (a list may be somebody else's): not ours to delete.
            with suppress(OSError, UserError):
                self.read_listed(earlier, name, *parts)
                self.fs.delete_file(self.path(*parts, name))
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        told = {**info, "files": digests}
        self.write(json.dumps({**told, "sha256": _digest_of(told)}, indent=1), *parts, listing)

    def folder_info(self, *parts: str, listing: str = "info.json") -> dict[str, Any]:
        """What `write_folder` wrote last.

        Raises:
            FileNotFoundError: nothing yet.
            UserError: it is damaged.
        """
        content = self.read(*parts, listing)
        try:
            info: dict[str, Any] = json.loads(content)
            if info.pop("sha256") != _digest_of(info) or not isinstance(info["files"], dict):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise self._unlike_its_list(*parts, listing) from error
        return info

    def read_listed(self, info: Mapping[str, Any], name: str, *parts: str) -> bytes:
        """A file of a folder whose `folder_info` is `info`; UserError if it is not the one that was written."""
        if not set(name.split("/")).isdisjoint({"", ".", ".."}):
            raise self._unlike_its_list(*parts, name)  # it leads out of the folder
        try:
            content = self.read(*parts, name)
        except FileNotFoundError as error:
            raise self._unlike_its_list(*parts, name) from error
        if hashlib.sha256(content).hexdigest() != info["files"][name]:
            raise self._unlike_its_list(*parts, name)
        return content

    def _unlike_its_list(self, *parts: str) -> UserError:
        return UserError(
            f"{self.address(*parts)}: missing, damaged or being written; run the sweep again, which takes its results "
            f"from the store"
        )

    def names(self, *parts: str) -> list[str]:
        """Names of the files directly in a folder; empty if it is not there."""
        return sorted(self.modified(*parts))

    def modified(self, *parts: str) -> dict[str, float]:
        """When each file directly in a folder was written, in seconds by the storage's clock."""
        return {info.base_name: info.mtime_ns / 1e9 for info in self._files(*parts)}

    def sizes(self, *parts: str) -> dict[str, int]:
        """Bytes of each file directly in a folder; empty if it is not there."""
        return {info.base_name: info.size for info in self._files(*parts)}

    def _files(self, *parts: str) -> list[pafs.FileInfo]:
        selector = pafs.FileSelector(self.path(*parts), allow_not_found=True)
        infos = self.fs.get_file_info(selector)
        return [info for info in infos if info.is_file and not info.base_name.endswith(".tmp")]

    def commit(
        self,
        run: StageRun,
        files: Mapping[str, bytes],
        *,
        seconds: float,
        provenance: Mapping[str, Any],
        inputs: Inputs | None = None,
    ) -> None:
        """Write a stage run's payload, then its marker, then drop the checkpoints it no longer needs."""
        attempt = uuid.uuid4().hex[:12]
        for name, content in files.items():
            self.write(content, "artifacts", run.stage.name, run.identity, attempt, name)
        marker = {
            "identity": run.identity,
            "document": run.document,
            "parent_stage": run.parent.stage.name if run.parent else None,
            "inputs": dataclasses.asdict(inputs) if inputs else None,
            "attempt": attempt,
            "files": {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()},
            "seconds": seconds,
            "committed_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "provenance": dict(provenance),
        }
        self.write(json.dumps(marker, indent=1), "artifacts", run.stage.name, run.identity, "commit.json")
        self.drop_checkpoints(run)

    def marker(self, run: StageRun) -> Marker | None:
        """The run's commit marker, or None if its result does not count (yet), or no longer: payload is missing."""
        return self.marker_of(run.stage.name, run.identity)

    def marker_of(self, stage: str, identity: str) -> Marker | None:
        """`marker` of a run that is known by name."""
        folder = ("artifacts", stage, identity)
        try:
            marker = Marker.parse(self.read(*folder, "commit.json"))
        except FileNotFoundError:
            return None
        if marker is None or (marker.stage, marker.identity) != (stage, identity):
            return None
        sizes = {name: size for name, (size, _) in marker.files.items()}
        # Only now: an attempt is whole before the marker that names it appears.
        return marker if sizes.items() <= self.sizes(*folder, marker.attempt).items() else None

    def markers(self, runs: Iterable[StageRun]) -> dict[str, Marker]:
        """Markers of those runs that are committed, by identity; UserError for a store that cannot be read."""
        unique = list({run.identity: run for run in runs}.values())
        with self.explained("read", "check the place and your access to it"):
            found = [marker for marker in self.parallel(self.marker, unique) if marker is not None]
        return {marker.identity: marker for marker in found}

    def parallel(self, read: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """`read` of every item, many at a time: object stores answer in tens of milliseconds."""
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(read, items))

    def artifact(self, run: StageRun, name: str, marker: Marker | None = None) -> bytes:
        """A file of a committed run.

        Args:
            marker: the run's, where it is known.

        Raises:
            FileNotFoundError: the run is not committed.
            UserError: the file is not the one that was committed. Its marker is gone then: the run counts as missing.
        """
        marker = marker or self.marker(run)
        if marker is None:
            raise FileNotFoundError(f"{self.uri}: {run.stage.name} {run.identity[:12]} is not committed")
        return self.payload(marker, name)

    def payload(self, marker: Marker, name: str) -> bytes:
        """A file that a marker names; UserError as of `artifact`."""
        folder = ("artifacts", marker.stage, marker.identity)
        content = self.read(*folder, marker.attempt, name)
        if hashlib.sha256(content).hexdigest() != marker.files[name][1]:
            with suppress(OSError):  # another reader was first
                self.fs.delete_file(self.path(*folder, "commit.json"))
            raise UserError(
                f"{self.address(*folder, marker.attempt, name)}: damaged, and left out from now on; run again to "
                f"compute it again"
            )
        return content

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
        self.drop("checkpoints", run.identity)

    def drop_run(self, run: str) -> None:
        """Forget the attempts and Ray's own files of a run that left nothing to explain."""
        self.drop("runs", run)

    def drop(self, *parts: str) -> None:
        """Delete a folder with all that is in it."""
        with suppress(OSError):  # not there, or another writer drops it too; nothing reads it any more
            self.fs.delete_dir(self.path(*parts))

    def publish_dataset(self, data: Dataset) -> None:
        """Put a dataset where every worker can fetch it by its `content()`; nothing happens if it is there and whole.

        Files of a prepared dataset on the store's own disk are linked, not copied.

        Raises:
            UserError: it is not what was prepared.
        """
        content = data.content()
        if self._is_published(data, content):
            return
        if self.is_local:
            data.save(Path(self.path("data", content)), replace=True, link=True)
            return
        with tempfile.TemporaryDirectory() as scratch:
            prepared = Path(scratch) / content
            data.save(prepared, link=True)
            files = sorted(prepared.iterdir(), key=lambda path: path.name == "manifest.json")
            # The manifest last: it is this folder's commit marker. Not copy_files: it says nothing of an upload that
            # fails at its end.
            for file in files:
                with pa.memory_map(str(file)) as mapped:
                    self.write(mapped.read_buffer(), "data", content, file.name)

    def _is_published(self, data: Dataset, content: str) -> bool:
        try:
            digests = parsed_manifest(self.read("data", content, "manifest.json"))["arrays"]
        except (FileNotFoundError, ValueError):
            return False
        if digests != {name: data.digests.get(name) or array_digest(array) for name, array in data.arrays().items()}:
            return False
        return data.file_sizes().items() <= self.sizes("data", content).items()

    def fetch_dataset(self, content: str) -> Dataset:
        """Map a published dataset; on remote storage, from a copy in this machine's cache.

        Args:
            content: the dataset's `content()`.

        Raises:
            UserError: it is not there, or not whole.
        """
        if self.is_local:
            return self._opened(Path(self.path("data", content)), content)
        cached = _cache_folder() / content
        with suppress(UserError):
            return Dataset.open(cached)
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as scratch:
            copy = Path(scratch) / content
            copy.mkdir()
            pafs.copy_files(self.path("data", content), str(copy), self.fs, pafs.LocalFileSystem())
            self._opened(copy, content)
            try:
                os.replace(copy, cached)
            except OSError:  # another worker of this machine was first, or what is there is damaged
                with suppress(UserError):
                    return Dataset.open(cached)
                put_in_place(copy, cached)
        return Dataset.open(cached)

    def _opened(self, directory: Path, content: str) -> Dataset:
        try:
            return Dataset.open(directory)
        except UserError as error:
            raise UserError(
                f"{self.option} {self.address('data', content)}: the published dataset is not whole; "
                f"run the sweep again, which publishes it again"
            ) from error


def _split(uri: str, option: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError as error:
        start = uri.partition("//")[0]  # what follows may hold credentials
        raise UserError(f"{option} {start}//…: not a storage URI ({error}); use a path, s3://… or gs://…") from None


def _holds_credentials(parts: SplitResult) -> bool:
    """Whether a URI has any: in front of its host, as a parameter, or in an address that is a parameter."""
    parameters = {name.lower(): values for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    secret = any(name in _SECRET or any(word in name for word in _CREDENTIALS) for name in parameters.keys() - _OPEN)
    inside = any(re.search("(^|//)[^/]*@", value) for values in parameters.values() for value in values)
    # Of Azure's URIs a user is the account or the container.
    user = parts.username if parts.scheme not in ("abfs", "abfss") else None
    return bool(secret or inside or user or parts.password)


def _digest_of(info: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of what comes back when it is read."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(info)), sort_keys=True).encode()).hexdigest()


class _PatientS3(pafs.S3FileSystem):  # type: ignore[misc]  # pyarrow has no annotations
    """An S3 file system that outlasts throttling, and still does after Ray has pickled it for its workers.

    pyarrow's own gives up after 6 seconds, after three attempts once it was pickled (the retry strategy is not
    part of its state), and after 3 seconds without an answer. Waiting 25, 50, 100 ms … between ten attempts is
    some 13 seconds: throttling passes, and a server that is down is said to be so while the user still watches.
    """

    def __init__(self, original: pafs.S3FileSystem) -> None:
        self._original = original
        _, (options,) = original.__reduce__()
        super().__init__(
            **options
            | {
                "retry_strategy": pafs.AwsDefaultS3RetryStrategy(max_attempts=9),
                "connect_timeout": 10,
                "request_timeout": 60,
                "allow_delayed_open": True,  # a small object is one request, not the three of a multipart upload
            }
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return _PatientS3, (self._original,)


def _cache_folder() -> Path:
    """Where this machine keeps copies of datasets; with no home, or none that takes them, the temporary folder."""
    with suppress(OSError, RuntimeError):
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s3ray" / "data"
        home.mkdir(parents=True, exist_ok=True)
        if os.access(home, os.W_OK):
            return home
    return Path(tempfile.gettempdir()) / f"s3ray-{os.getuid()}" / "data"
