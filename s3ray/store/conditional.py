"""Files that are made or replaced only if nobody was faster: what markers and claims stand on.

pyarrow has no conditional writes, so they go past it: on S3, Google Cloud Storage and Azure by `If-None-Match: *` and
`If-Match` (obstore), on a disk by hard links, whose names can be made only once. Everything else of a store stays
with pyarrow.
"""

from __future__ import annotations

import configparser
import datetime as dt
import errno
import json
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore import exceptions as refused
from obstore.store import AzureStore, GCSStore, S3Store
from pyarrow import fs as pafs

from s3ray.paths import sync_folder, sync_made_folders
from s3ray.traces import tag

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_Answer = TypeVar("_Answer")

# What a disk says that has no hard links, and `_asked` of storage that does not know conditions.
_UNKNOWN = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}
# An object storage's "not implemented", which obstore tells in its text alone.
_NOT_IMPLEMENTED = re.compile(r"status code: (?:501|405)\b|status code: 400\b.*<Code>NotImplemented", re.DOTALL)
# Which of them it is depends on the storage and its haste: a conflict (409) befalls a replacement too.
_CONDITION_FAILED = (refused.AlreadyExistsError, refused.PreconditionError)
DELETED = b"deleted"  # what a key holds that holds nothing any more
# As patient as pyarrow's S3 (store/store.py): ten attempts within some 13 seconds.
_RETRIES: Any = {
    "max_retries": 9,
    "retry_timeout": dt.timedelta(seconds=60),
    "backoff": {"init_backoff": dt.timedelta(milliseconds=50), "max_backoff": dt.timedelta(seconds=4), "base": 2},
}


class Conditional(ABC):
    """Conditional writes below a store's base. A key is a path there; a version says which content a key holds.

    A key that holds nothing any more keeps a word, `DELETED`, for good: without it a request that comes late could
    delete, or stand before, what was written meanwhile.

    Every content must be its writer's own, by a random name in it for example: an answer can get lost, and the request
    that is repeated then finds its own content, which counts as won.
    """

    @abstractmethod
    def create(self, key: str, content: bytes) -> str | None:
        """Make a key that is not there; its version, or None if it is there, whoever made it."""

    def read(self, key: str) -> tuple[bytes, str] | None:
        """A key's content and version; None if it is not there."""
        there = self._there(key)
        return there if there is not None and there[0] != DELETED else None

    @abstractmethod
    def _there(self, key: str) -> tuple[bytes, str] | None:
        """Likewise, but `DELETED` of a key that holds nothing any more."""

    @abstractmethod
    def replace(self, key: str, content: bytes, version: str) -> str | None:
        """Put `content` in the place of `version`; the new version, or None if the key holds another, or nothing.

        None also if somebody has replaced `content` before this answer.
        """

    @abstractmethod
    def delete(self, key: str, version: str) -> bool:
        """Make a key hold nothing; False if it does not hold `version`. It outlasts a power failure."""

    def probe(self) -> bool:
        """Whether the storage honours conditions; tried on a key of its own, which is deleted again.

        Raises:
            OSError: it could not be asked: no access, no such bucket, too busy, a disk that cannot be written.
        """
        key = f".conditions-{tag()}-{uuid.uuid4().hex}"
        try:
            first = self.create(key, b"first")
            if first is None:
                raise OSError("it refuses to make a key that is not there")
            if self.create(key, b"second") is not None:
                return False
            second = self.replace(key, b"third", first)
            return second is not None and self.replace(key, b"fourth", first) is None
        except OSError as error:
            if error.errno in _UNKNOWN:
                return False
            raise
        finally:
            self._forget(key)

    @abstractmethod
    def _forget(self, key: str) -> None:
        """Delete a key that only this process knows."""


def conditional(fs: pafs.FileSystem, base: str) -> Conditional:
    """Conditional writes below `base` on what `fs` is connected to."""
    if isinstance(fs, pafs.LocalFileSystem):
        return _OnDisk(base)
    if _client_of(fs, base) is not None:
        return _OnObjects(fs, base)
    return _Nowhere()


class _OnDisk(Conditional):
    """A key's contents are numbered files, the first without a number; the highest is what it holds.

    A number is taken by a hard link, which fails if the name is there. There is no lock, so a writer that is stopped
    or dies holds up nobody and leaves nothing but a temporary file. Lower numbers are deleted only after a higher one
    is there: a writer that slept meanwhile may take a deleted number again, but then sees the higher one, and has lost.
    A folder is read for each key, so a key that is often replaced should have one of its own.
    """

    def __init__(self, base: str) -> None:
        self._base = base

    def create(self, key: str, content: bytes) -> str | None:
        there = self._there(key)
        if there is None:
            return self._take(key, content, 0)
        return self.replace(key, content, there[1]) if there[0] == DELETED else None

    def _there(self, key: str) -> tuple[bytes, str] | None:
        while numbers := self._numbers(key):
            file = self._file(key, numbers[-1])
            try:
                return file.read_bytes(), str(numbers[-1])
            except FileNotFoundError:  # replaced since it was listed
                if file.is_symlink():
                    raise OSError(f"{file} is a link to nothing") from None
        return None

    def replace(self, key: str, content: bytes, version: str) -> str | None:
        if self._numbers(key)[-1:] != [int(version)]:
            return None
        taken = self._take(key, content, int(version) + 1)
        if taken is not None:
            self._delete(key, self._numbers(key)[:-1])
        return taken

    def delete(self, key: str, version: str) -> bool:
        return self.replace(key, DELETED, version) is not None

    def _take(self, key: str, content: bytes, number: int) -> str | None:
        target = self._file(key, number)
        sync_made_folders(target.parent)
        staged = target.parent / f"{tag()}-{uuid.uuid4().hex}.tmp"
        try:
            with staged.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(staged, target)
            except FileExistsError:
                # Over a network an answer can get lost, and the repeated link fails: the content tells.
                if self._there(key) != (content, str(number)):
                    return None
        finally:
            staged.unlink(missing_ok=True)
        sync_folder(target.parent)
        if self._numbers(key)[-1:] == [number]:
            return str(number)
        self._delete(key, [number])
        return None

    def _numbers(self, key: str) -> list[int]:
        """The numbers of the contents that are there, lowest first."""
        plain = Path(self._base, key)
        named = re.compile(re.escape(plain.name) + r"(?:\.~(\d+))?")
        try:
            names = [named.fullmatch(name) for name in os.listdir(plain.parent)]
        except FileNotFoundError:
            return []
        return sorted(int(match[1] or 0) for match in names if match)

    def _file(self, key: str, number: int) -> Path:
        return Path(self._base, f"{key}.~{number}" if number else key)

    def _delete(self, key: str, numbers: list[int]) -> None:
        for number in numbers:
            self._file(key, number).unlink(missing_ok=True)

    def _forget(self, key: str) -> None:
        with suppress(OSError):
            self._delete(key, self._numbers(key))


class _OnObjects(Conditional):
    """Keys are objects; the storage checks the conditions. Deleting knows none: the word is put there on condition."""

    def __init__(self, fs: pafs.FileSystem, base: str) -> None:
        self._fs, self._base = fs, base
        self._folder = base.partition("/")[2]
        self._known: ObjectStore | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_known": None}  # it may hold this process's credentials

    @property
    def _client(self) -> ObjectStore:
        if self._known is None:
            self._known = _client_of(self._fs, self._base)
            assert self._known is not None  # or this were `_Nowhere`
        return self._known

    def create(self, key: str, content: bytes) -> str | None:
        try:
            return self._put(key, content, "create")
        except _CONDITION_FAILED:
            there = self._there(key)
            if there is not None and there[0] == DELETED:
                return self.replace(key, content, there[1])
            return there[1] if there is not None and there[0] == content else None

    def delete(self, key: str, version: str) -> bool:
        try:
            self._put(key, DELETED, json.loads(version))
        except (*_CONDITION_FAILED, FileNotFoundError):  # or the first answer got lost
            there = self._there(key)
            return there is None or there[0] == DELETED
        return True

    def _there(self, key: str) -> tuple[bytes, str] | None:
        def get() -> tuple[bytes, str]:
            got = obstore.get(self._client, self._path(key))
            return bytes(got.bytes()), _version(got.meta)

        try:
            return _asked(get)
        except FileNotFoundError:
            return None

    def replace(self, key: str, content: bytes, version: str) -> str | None:
        try:
            return self._put(key, content, json.loads(version))
        except (*_CONDITION_FAILED, FileNotFoundError):
            return self._own(key, content)

    def _put(self, key: str, content: bytes, mode: Any) -> str:
        return _asked(lambda: _version(obstore.put(self._client, self._path(key), content, mode=mode)))

    def _own(self, key: str, content: bytes) -> str | None:
        """The key's version if it holds `content`: the first answer got lost, and the request was repeated."""
        there = self.read(key)
        return there[1] if there is not None and there[0] == content else None

    def _path(self, key: str) -> str:
        return f"{self._folder}/{key}" if self._folder else key

    def _forget(self, key: str) -> None:
        with suppress(OSError, refused.BaseError):
            obstore.delete(self._client, self._path(key))


class _Nowhere(Conditional):
    """Storage that cannot be asked; `probe` says so."""

    def create(self, key: str, content: bytes) -> str | None:
        raise OSError(errno.ENOTSUP, "no conditional writes are known of this storage")

    def _there(self, key: str) -> tuple[bytes, str] | None:
        raise OSError(errno.ENOTSUP, "no conditional writes are known of this storage")

    def replace(self, key: str, content: bytes, version: str) -> str | None:
        raise OSError(errno.ENOTSUP, "no conditional writes are known of this storage")

    def delete(self, key: str, version: str) -> bool:
        raise OSError(errno.ENOTSUP, "no conditional writes are known of this storage")

    def _forget(self, key: str) -> None:
        pass


def _asked(request: Callable[[], _Answer]) -> _Answer:
    """Its answer. A condition that fails raises as it is, all else as OSError, like pyarrow's failures."""
    try:
        return request()
    except _CONDITION_FAILED:
        raise
    except (refused.BaseError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        if isinstance(error, refused.NotFoundError):
            raise FileNotFoundError(reason) from error
        if isinstance(error, refused.NotSupportedError | NotImplementedError) or _NOT_IMPLEMENTED.search(str(error)):
            raise OSError(errno.ENOTSUP, reason) from error
        raise OSError(reason) from error


def _version(answered: Any) -> str:
    return json.dumps({name: answered[name] for name in ("e_tag", "version") if answered.get(name)})


def _client_of(fs: pafs.FileSystem, base: str) -> ObjectStore | None:
    """A client of the bucket that `fs` and `base` lead to, with the same endpoint and region; None if there is none."""
    bucket = base.partition("/")[0]
    patience: Any = {"timeout": "60s", "connect_timeout": "10s"}
    if isinstance(fs, pafs.S3FileSystem):
        options = pafs.S3FileSystem.__reduce__(fs)[1][0]
        endpoint, scheme = options["endpoint_override"], options["scheme"] or "https"
        if endpoint and "://" not in endpoint:
            endpoint = f"{scheme}://{endpoint}"
        config: Any = {
            **_shared_credentials(),
            "region": fs.region,
            "virtual_hosted_style_request": options["force_virtual_addressing"],
            "skip_signature": options["anonymous"],
        } | ({"endpoint": endpoint} if endpoint else {})
        client: Any = {**patience, "allow_http": scheme == "http"}
        return S3Store(bucket, config=config, client_options=client, retry_config=_RETRIES)
    if isinstance(fs, pafs.GcsFileSystem) and not fs.__reduce__()[1][0].get("endpoint_override"):
        return GCSStore(bucket, client_options=patience, retry_config=_RETRIES)
    if isinstance(fs, pafs.AzureFileSystem):
        account = fs.__reduce__()[1][0]["account_name"]
        return AzureStore(bucket, account_name=account, client_options=patience, retry_config=_RETRIES)
    return None


def _shared_credentials() -> dict[str, str]:
    """Keys of AWS's credentials file, which pyarrow reads and obstore does not; the environment goes first."""
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return {}
    file = configparser.RawConfigParser()
    with suppress(OSError, RuntimeError, configparser.Error, UnicodeDecodeError):
        file.read(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path.home() / ".aws" / "credentials")
    profile = os.environ.get("AWS_PROFILE", "default")
    keys = file[profile] if file.has_section(profile) else {}
    named = {"access_key_id", "secret_access_key", "session_token"}
    return {name: keys[f"aws_{name}"] for name in sorted(named) if f"aws_{name}" in keys}
