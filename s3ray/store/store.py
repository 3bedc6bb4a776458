"""The store: a folder on any `pyarrow.fs` URI.

    artifacts/<stage>/<identity>/commit.json      the marker, written last; names the attempt that counts, its files
    artifacts/<stage>/<identity>/<attempt>/…      payload; every writer has an attempt of its own
    artifacts/<stage>/<identity>/drift-….json     how far a later writer's result was from the one that counts
    checkpoints/<identity>/<step>-<sha256>.pt     progress of a stage that is not yet committed, the latest two
    data/<content>/                               prepared datasets
    runs/<run>/                                   plan, attempts and failures of one call (execution/ledger.py)
    environments/<digest>.txt                     packages that results ran with, named by their provenance
    claims/<what is computed>/                    who is at work on it (store/claims.py)
    results/<study>/                              tables and figures of one study, listed in its info.json, written last
    results/<study>/names.json                    what a study asks for, as calls and searches say, too (store/names.py)
    tensorboard/<dataset>/<cell>/<stage run>/     training curves to look at; no result depends on them

Two writers of one identity write different attempts. The first marker counts for good (store/conditional.py); the
other writer's attempt goes, and it goes on from the first one's result. Where the storage has no conditional writes, a
marker is looked for before it is written: of two writers within one request the last one's counts.

A marker counts only as a whole. It is read with its own sha256, names all files with theirs, and the attempt of its
parent, whose marker must count and name that attempt. One that does not count may be replaced: the stage runs again.
What is damaged is set aside under a name that ends in `.damaged`, and computed or published again. A checkpoint that is
damaged is none.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar
from urllib.parse import SplitResult, parse_qs, quote, urlsplit

import pyarrow as pa
from pyarrow import ArrowException
from pyarrow import fs as pafs

from s3ray.data.dataset import Dataset, FormatError, array_digest, parsed_manifest, put_in_place
from s3ray.digests import digest_of, signed
from s3ray.errors import DamagedError, UserError
from s3ray.paths import local_path, sync_folder, sync_made_folders
from s3ray.stages.stage import Inputs, StageRun
from s3ray.store.conditional import DELETED, Conditional, conditional
from s3ray.store.marker import Marker
from s3ray.traces import tag

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# What the names of URI parameters with credentials have in them, or are.
_CREDENTIALS = ("secret", "key", "token", "password", "credential", "signature")
_SECRET, _OPEN = {"sig"}, {"credential_kind"}


_LOOKS = 6  # at published data that are replaced again and again
_CHECKPOINT = re.compile(r"(\d{9})-([0-9a-f]{64})\.pt")


class Identified(Protocol):
    """A stage run, or what is known of one."""

    @property
    def identity(self) -> str: ...


class Committed(NamedTuple):
    """What counts after a commit.

    Attributes:
        marker: of this result, or of the one that was there first.
        files: its payload.
        is_first: whether it is this result.
    """

    marker: Marker
    files: Mapping[str, bytes]
    is_first: bool


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
        if parts.scheme and holds_credentials(parts):
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

    @cached_property
    def conditional(self) -> Conditional:
        """Its conditional writes; keys are paths below its base."""
        return conditional(self.fs, self.base)

    @cached_property
    def honours_conditions(self) -> bool:
        """Whether it has conditional writes; tried once."""
        return self.conditional.probe()

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

    def write(self, content: bytes | str | pa.Buffer, *parts: str, durable: bool = False) -> None:
        """Write a file that appears complete or not at all; `durable` as of `_write`."""
        self._write({self.path(*parts): content.encode() if isinstance(content, str) else content}, durable=durable)

    def _write(self, files: Mapping[str, bytes | pa.Buffer], *, durable: bool = False) -> None:
        """Write files at these paths. On a disk none appears unless all of them could be written.

        Args:
            durable: they outlast a power failure once this returns.
        """
        if not self.is_local:
            # An object appears when its stream is closed, and leaving the stream early closes it too, even through
            # its destructor. In a thread of its own no Ctrl-C can come between opening and writing.
            with ThreadPoolExecutor(1) as pool:
                for target, payload in files.items():
                    pool.submit(self._upload, target, payload).result()
            return
        staged: dict[str, str] = {}
        folders = dict.fromkeys(Path(target).parent for target in files)
        try:
            for target, payload in files.items():
                folder = Path(target).parent
                if durable:
                    sync_made_folders(folder)
                else:
                    folder.mkdir(parents=True, exist_ok=True)
                # Nothing of the final name, by which TensorBoard finds files.
                staged[target] = f"{folder}/{tag()}-{uuid.uuid4().hex}.tmp"
                with open(staged[target], "xb") as stream:
                    stream.write(payload)
                    if durable:
                        stream.flush()
                        os.fsync(stream.fileno())
            for target, staging in staged.items():
                os.replace(staging, target)
            if durable:
                for folder in folders:
                    sync_folder(folder)
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
        self.write(json.dumps(signed(told), indent=1), *parts, listing)

    def folder_info(self, *parts: str, listing: str = "info.json") -> dict[str, Any]:
        """What `write_folder` wrote last.

        Raises:
            FileNotFoundError: nothing yet.
            UserError: it is damaged.
        """
        content = self.read(*parts, listing)
        try:
            info: dict[str, Any] = json.loads(content)
            if info.pop("digest") != digest_of(info) or not isinstance(info["files"], dict):
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

    def folders(self, *parts: str) -> list[str]:
        """Names of the folders directly in a folder; empty if it is not there."""
        selector = pafs.FileSelector(self.path(*parts), allow_not_found=True)
        return sorted(info.base_name for info in self.fs.get_file_info(selector) if not info.is_file)

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
        parent: Marker | None = None,
    ) -> Committed:
        """Write a stage run's payload, then its marker, then drop the checkpoints it no longer needs.

        A marker that counts already stays; this result goes then.

        Args:
            parent: marker of the result of `run.parent` that this one was computed from.
        """
        assert (parent and parent.identity) == (run.parent and run.parent.identity)
        marker = Marker(
            identity=run.identity,
            document=run.document,
            parent_stage=run.parent.stage.name if run.parent else None,
            parent_attempt=parent.attempt if parent else None,
            inputs=dataclasses.asdict(inputs) if inputs else None,
            attempt=uuid.uuid4().hex[:12],
            files={name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in files.items()},
            seconds=seconds,
            committed_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            provenance=dict(provenance),
        )
        attempt = ("artifacts", run.stage.name, run.identity, marker.attempt)
        self._write({self.path(*attempt, name): content for name, content in files.items()}, durable=True)
        first = self._put_marker(run, marker)
        if first is not None:
            self.drop(*attempt)
        self.drop_checkpoints(run)
        return first or Committed(marker, files, is_first=True)

    def _put_marker(self, run: StageRun, marker: Marker) -> Committed | None:
        """Put a marker in its place; what counts there already, if anything does."""
        folder, content = ("artifacts", run.stage.name, run.identity), marker.content()
        key = "/".join((*folder, "commit.json"))
        if not self.honours_conditions:
            if (first := self._counting(run)) is None:
                self._write({self.path(key): content}, durable=True)
            return first
        while self.conditional.create(key, content) is None:
            there = self.conditional.read(key)
            if there is None:
                continue  # somebody has just deleted it
            if (first := self._counting(run)) is not None:
                return first
            if Marker.of(there[0], run.stage.name, run.identity) is None:
                self.write(there[0], *folder, f"commit-{marker.attempt}.damaged")
            if self.conditional.replace(key, content, there[1]) is not None:
                break
        return None

    def _counting(self, run: StageRun) -> Committed | None:
        """A run's result, read and compared with its digests; None if it does not count."""
        if (marker := self.marker(run)) is None:
            return None
        try:
            files = {name: self.payload(marker, name) for name in marker.files}
        except DamagedError:
            return None
        return Committed(marker, files, is_first=False)

    def marker(self, run: StageRun) -> Marker | None:
        """The run's commit marker, or None if its result does not count: see above."""
        return self.markers([run]).get(run.identity)

    def marker_of(self, stage: str, identity: str) -> Marker | None:
        """`marker` of a run that is known by name."""
        marker = self._listed(stage, identity)
        if marker is None or marker.parent_stage is None:
            return marker
        parent = self.marker_of(marker.parent_stage, marker.document["parent"])
        return marker if parent is not None and parent.attempt == marker.parent_attempt else None

    def _listed(self, stage: str, identity: str) -> Marker | None:
        """A run's marker if it is whole and all files that it names are there, whatever became of its parent."""
        content = self.marker_content(stage, identity)
        marker = Marker.of(content, stage, identity) if content is not None else None
        if marker is None:
            return None
        sizes = {name: size for name, (size, _) in marker.files.items()}
        # Only now: an attempt is whole before the marker that names it appears.
        there = self.sizes("artifacts", stage, identity, marker.attempt) if sizes else {}
        return marker if sizes.items() <= there.items() else None

    def marker_content(self, stage: str, identity: str) -> bytes | None:
        """The marker's file, whatever is in it; None if there is none."""
        return self.current("artifacts", stage, identity, "commit.json")

    def current(self, *parts: str) -> bytes | None:
        """What a file holds that is written on condition; None if it is not there. Looking writes nothing."""
        if self.is_local:  # where one that was replaced has a number behind its name
            there = self.conditional.read("/".join(parts))
            return there[0] if there else None
        try:
            content = self.read(*parts)
        except FileNotFoundError:
            return None
        return content if content != DELETED else None

    def markers(self, runs: Iterable[StageRun]) -> dict[str, Marker]:
        """Markers of those runs whose results count, by identity; UserError for a store that cannot be read.

        Those of their parents are read along, each once, since a result counts only with the one it stands on.
        """
        return self.markers_of(
            {run.identity: [(part.stage.name, part.identity) for part in (run, *run.ancestors)] for run in runs}
        )

    def markers_of(self, lines: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, Marker]:
        """`markers` of runs that are known by name.

        Args:
            lines: by identity the stage and identity of a run and of its ancestors, in this order.
        """
        unique = list({part: None for line in lines.values() for part in line})
        with self.explained("read", "check the place and your access to it"):
            read = self.parallel(lambda part: self._listed(*part), unique)
        found = dict(zip(unique, read, strict=True))
        counting: dict[str, Marker] = {}
        for identity, parts in lines.items():
            line = [found[part] for part in parts]
            attempts = [marker.attempt if marker else None for marker in line]
            parents = [marker.parent_attempt if marker else None for marker in line]
            if (marker := line[0]) and None not in attempts and parents == [*attempts[1:], None]:
                counting[identity] = marker
        return counting

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
            DamagedError: the file is not the one that was committed. The run counts as missing from now on.
        """
        marker = marker or self.marker(run)
        if marker is None:
            raise FileNotFoundError(f"{self.uri}: {run.stage.name} {run.identity[:12]} is not committed")
        return self.payload(marker, name)

    def payload(self, marker: Marker, name: str) -> bytes:
        """A file that a marker names; DamagedError as of `artifact`."""
        attempt = ("artifacts", marker.stage, marker.identity, marker.attempt)
        for _ in range(2):  # what reading alone has damaged is whole the second time
            try:
                content = self.read(*attempt, name)
            except FileNotFoundError as error:
                if self.names(*attempt[:-1], f"{marker.attempt}.damaged"):
                    break  # another reader was first
                raise DamagedError(f"{self.address(*attempt, name)}: missing; run again to compute it again") from error
            if hashlib.sha256(content).hexdigest() == marker.files[name][1]:
                return content
        self._set_aside(*attempt)
        raise DamagedError(
            f"{self.address(*attempt, name)}: damaged, and set aside as {marker.attempt}.damaged; run again to compute "
            f"it again"
        )

    def _set_aside(self, *attempt: str) -> None:
        """Rename an attempt, which nobody writes any more, so that its marker no longer counts."""
        aside = (*attempt[:-1], f"{attempt[-1]}.damaged")
        with suppress(OSError):  # another reader was first
            if self.is_local:
                os.rename(self.path(*attempt), self.path(*aside))
            else:
                for name in self.names(*attempt):
                    self.fs.move(self.path(*attempt, name), self.path(*aside, name))

    def save_checkpoint(self, run: StageRun, step: int, content: bytes) -> None:
        """Keep `content` as the run's progress, and of earlier progress the latest, should this one be damaged."""
        name = f"{step:09d}-{hashlib.sha256(content).hexdigest()}.pt"
        self._write({self.path("checkpoints", run.identity, name): content}, durable=True)
        earlier = [other for other in self._checkpoints(run) if other < name]
        for outdated in earlier[:-1]:
            self.drop_checkpoint(run, outdated)

    def _checkpoints(self, run: Identified) -> list[str]:
        """Names of a run's checkpoints, the latest last."""
        return [name for name in self.names("checkpoints", run.identity) if _CHECKPOINT.fullmatch(name)]

    def checkpoint_step(self, run: Identified) -> int | None:
        """Step of the latest checkpoint, or None."""
        names = self._checkpoints(run)
        return int(names[-1].partition("-")[0]) if names else None

    def checkpoints(
        self, run: StageRun, tell: Callable[[str], None] = lambda sentence: None
    ) -> Iterator[tuple[str, bytes]]:
        """Name and content of a run's checkpoints, the latest first.

        Args:
            tell: gets a sentence per checkpoint that is damaged; it is deleted.
        """
        for name in reversed(self._checkpoints(run)):
            try:
                content = self.read("checkpoints", run.identity, name)
            except FileNotFoundError:  # another writer of this identity has just gone further
                continue
            if is_whole_checkpoint(name, content):
                yield name, content
            else:
                tell(f"{self.address('checkpoints', run.identity, name)}: damaged, and deleted; an earlier one serves")
                self.drop_checkpoint(run, name)

    def drop_checkpoint(self, run: StageRun, name: str) -> None:
        with suppress(OSError):  # another writer of this identity was first
            self.fs.delete_file(self.path("checkpoints", run.identity, name))

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

        Files of a prepared dataset on the store's own disk are linked, not copied. What is there and damaged is set
        aside: on a disk all of it is read to know; of remote storage only the manifest, whose readers look at the rest.

        Raises:
            UserError: it is not what was prepared, or what is there cannot be read or is of another version.
        """
        content = data.content()
        if self._is_published(data, content):
            return
        if self.is_local:
            place = Path(self.path("data", content))
            try:
                data.save(place, link=True)  # what another publisher has put there meanwhile stays
            except OSError:
                if not place.exists() or (place / "manifest.json").exists():
                    raise
                data.save(place, replace=True, link=True)  # a folder without its manifest is in the way
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
        if self.is_local:
            with suppress(DamagedError):
                self.fetch_dataset(content)
                return True
            return False
        try:
            manifest = parsed_manifest(self.read("data", content, "manifest.json"))
        except (FileNotFoundError, DamagedError):
            return False
        except FormatError as error:
            raise self._of_another_version(content) from error
        digests = {name: data.digests.get(name) or array_digest(array) for name, array in data.arrays().items()}
        if "digest" not in manifest or manifest["arrays"] != digests:
            return False
        return data.file_sizes().items() <= self.sizes("data", content).items()

    def fetch_dataset(self, content: str, *, facts_alone: bool = False) -> Dataset:
        """Map a published dataset; on remote storage, from a copy in this machine's cache.

        The first time in a process all of it is read and compared with its digests: pages that training is about to
        read anyway, and that all processes of the machine share.

        Args:
            content: the dataset's `content()`.
            facts_alone: its arrays are not going to be read.

        Raises:
            DamagedError: it is not there, or not whole, and set aside.
            UserError: it cannot be read, or another version published it; it stays as it is.
        """
        if self.is_local:
            place = Path(self.path("data", content))
            return self._looked_at(lambda: _whole(place, content, facts_alone), content)
        cached = _cache_folder() / content
        with suppress(UserError):
            return _whole(cached, content, facts_alone)
        cached.parent.mkdir(parents=True, exist_ok=True)
        self._looked_at(lambda: self._copy(cached, content), content)
        return _whole(cached, content, facts_alone)

    def _copy(self, cached: Path, content: str) -> None:
        """Copy a published dataset from remote storage to this machine's cache; exceptions as of `_whole`."""
        with tempfile.TemporaryDirectory(dir=cached.parent) as scratch:
            copy = Path(scratch) / content
            copy.mkdir()
            pafs.copy_files(self.path("data", content), str(copy), self.fs, pafs.LocalFileSystem())
            _whole(copy, content, facts_alone=False)
            try:
                os.replace(copy, cached)
            except OSError:  # another worker of this machine was first, or what is there is damaged
                with suppress(UserError):
                    _whole(cached, content, facts_alone=False)
                    return
                put_in_place(copy, cached)

    def _looked_at(self, look: Callable[[], _Result], content: str) -> _Result:
        """What `look` gives. What is damaged is set aside, so that it is published again.

        That takes two looks in a row at the same manifest: reading alone may have damaged it, and whoever publishes it
        at the same time may have replaced it. Any other failure says nothing of the data.
        """
        judged = None
        for _ in range(_LOOKS):
            version = self._published_version(content)
            try:
                return look()
            except FormatError as error:
                raise self._of_another_version(content) from error
            except DamagedError as error:
                if version is None:
                    raise DamagedError(
                        f"{self.option} {self.address('data', content)}: the published dataset is not whole; "
                        f"run the sweep again, which publishes it again"
                    ) from error
                if version == judged == self._published_version(content):
                    self._set_dataset_aside(content)
                    raise DamagedError(
                        f"{self.option} {self.address('data', content)}: the published dataset is damaged ({error}), "
                        f"and set aside; run the sweep again, which publishes it again"
                    ) from error
                judged = version
        raise UserError(
            f"{self.option} {self.address('data', content)}: the published dataset is being replaced; run the sweep "
            f"again"
        )

    def _published_version(self, content: str) -> tuple[int, ...] | None:
        """What another manifest in the same place differs in; None if there is none that can be seen."""
        manifest = self.path("data", content, "manifest.json")
        with suppress(OSError):
            if self.is_local:
                known = os.stat(manifest)
                return known.st_dev, known.st_ino, known.st_mtime_ns
            info = self.fs.get_file_info(manifest)
            return (info.size, info.mtime_ns or 0) if info.is_file else None
        return None

    def _set_dataset_aside(self, content: str) -> None:
        aside = f"{content}-{uuid.uuid4().hex[:6]}.damaged"
        with suppress(OSError):  # another reader was first
            if self.is_local:
                os.rename(self.path("data", content), self.path("data", aside))
            else:
                self.fs.move(self.path("data", content, "manifest.json"), self.path("data", f"{aside}.json"))

    def _of_another_version(self, content: str) -> UserError:
        return UserError(
            f"{self.option} {self.address('data', content)}: another version of s3ray published this dataset; choose "
            f"another place, or delete this folder and run the sweep again, which publishes it again"
        )


_KNOWN_WHOLE: set[tuple[int, int, int]] = set()  # data sets that this process has read, by their manifest's file


def _whole(directory: Path, content: str, facts_alone: bool) -> Dataset:
    """Map a published dataset; read all of it once in a process.

    Raises:
        DamagedError: it is not there, or not what its name and its manifest say; the text names the files.
        FormatError: another version published it.
        UserError: it cannot be read.
    """
    manifest = directory / "manifest.json"
    try:
        known = manifest.stat()
        data = Dataset.open(directory)
        is_signed = "digest" in parsed_manifest(manifest.read_bytes())
    except DamagedError as error:
        raise DamagedError(Path(str(error).partition(":")[0]).name) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DamagedError(manifest.name) from error
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):  # it went between the two
            raise DamagedError(manifest.name) from error
        raise
    except OSError as error:
        raise UserError(f"{manifest}: cannot be read ({error.strerror}); check your access to it") from error
    if not is_signed or data.content() != content:
        raise DamagedError(manifest.name)
    key = (known.st_dev, known.st_ino, known.st_mtime_ns)
    if not facts_alone and key not in _KNOWN_WHOLE:
        if damaged := data.damaged():
            raise DamagedError(", ".join(damaged))
        _KNOWN_WHOLE.add(key)
    return data


def _split(uri: str, option: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError as error:
        start = uri.partition("//")[0]  # what follows may hold credentials
        raise UserError(f"{option} {start}//…: not a storage URI ({error}); use a path, s3://… or gs://…") from None


def holds_credentials(parts: SplitResult) -> bool:
    """Whether a URI has any: in front of its host, as a parameter, or in an address that is a parameter."""
    parameters = {name.lower(): values for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    secret = any(name in _SECRET or any(word in name for word in _CREDENTIALS) for name in parameters.keys() - _OPEN)
    inside = any(re.search("(^|//)[^/]*@", value) for values in parameters.values() for value in values)
    # Of Azure's URIs a user is the account or the container.
    user = parts.username if parts.scheme not in ("abfs", "abfss") else None
    return bool(secret or inside or user or parts.password)


def is_whole_checkpoint(name: str, content: bytes) -> bool:
    """Whether that is what was saved under this name."""
    return name.endswith(f"-{hashlib.sha256(content).hexdigest()}.pt")


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
