"""Files that are made or replaced only if nobody was faster, on a disk and on S3."""

import datetime as dt
import itertools
import os
import pickle
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from obstore.store import S3Store
from pyarrow import fs as pafs

from object_storage import ObjectStorage
from s3ray.store import Store
from s3ray.store import conditional as module
from s3ray.store.conditional import Conditional, conditional

HASTY = {"max_retries": 1, "retry_timeout": dt.timedelta(seconds=60)}
KEY = "folder with spaces/ä.json"


def of(store: Store) -> Conditional:
    return conditional(store.fs, store.base)


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store") if request.param == "disk" else request.getfixturevalue("object_storage").uri)


def test_a_key_is_made_once_and_replaced_by_who_saw_it_last(place: Store) -> None:
    files = of(place)
    assert files.probe()
    assert files.read(KEY) is None
    assert files.replace(KEY, b"none", files.create("other", b"of another key") or "") is None
    first = files.create(KEY, b"first")
    assert first is not None
    assert files.create(KEY, b"late") is None
    assert files.read(KEY) == (b"first", first)
    assert place.read(KEY) == b"first"  # a plain file or object
    second = pickle.loads(pickle.dumps(files)).replace(KEY, b"second", first)
    assert second is not None
    assert files.replace(KEY, b"late", first) is None
    assert files.create(KEY, b"late") is None
    third = files.replace(KEY, b"third", second)
    assert files.read(KEY) == (b"third", third)
    assert len(place.names(KEY.partition("/")[0])) == 1
    assert [name for name in place.names() if "conditions" in name] == []


def test_a_key_is_deleted_by_who_saw_it_last_and_made_again(place: Store) -> None:
    files = of(place)
    first = files.create(KEY, b"first")
    assert first is not None
    second = files.replace(KEY, b"second", first)
    assert second is not None
    assert not files.delete(KEY, first)
    assert files.read(KEY) == (b"second", second)
    assert files.delete(KEY, second)
    assert files.read(KEY) is None
    assert place.current(*KEY.split("/")) is None
    assert files.replace(KEY, b"late", second) is None
    third = files.create(KEY, b"third")
    assert files.create(KEY, b"late") is None
    assert files.read(KEY) == (b"third", third)
    for version in (first, second):
        assert not files.delete(KEY, version)  # a request that comes late
    assert files.read(KEY) == (b"third", third)


@pytest.mark.parametrize("slow", ["delete", "replace"])
def test_wherever_one_stands_still_a_key_is_deleted_or_replaced(slow: str, tmp_path: Path) -> None:
    for at in itertools.count(1):
        files = of(Store(str(tmp_path / f"{at}")))
        won = with_a_pause(files, slow, at)
        if len(won) == 1:
            break  # it has no more steps
        assert won["delete"] != won["replace"], at
        there = files.read(KEY)
        assert (there and there[0]) == (b"spared" if won["replace"] else None), at
    assert at > 4


def with_a_pause(files: Conditional, slow: str, at: int) -> dict[str, bool]:
    """Who wins if one request pauses before its step `at` on the disk, and the other is done in between."""
    first = files.create(KEY, b"first") or ""
    requests: dict[str, Callable[[], bool]] = {
        "delete": lambda: files.delete(KEY, first),
        "replace": lambda: files.replace(KEY, b"spared", first) is not None,
    }
    other = next(name for name in requests if name != slow)
    steps, won = itertools.count(1), dict[str, bool]()

    def paused(call: Callable[..., Any]) -> Callable[..., Any]:
        def after_the_other(*arguments: Any) -> Any:
            if next(steps) == at:
                won[other] = requests[other]()
            return call(*arguments)

        return after_the_other

    with ExitStack() as stack:
        for name in ("listdir", "link", "unlink"):
            stack.enter_context(mock.patch.object(os, name, paused(getattr(os, name))))
        won[slow] = requests[slow]()
    return won


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives up at the second failure."""
    monkeypatch.setattr(module, "S3Store", lambda *a, **options: S3Store(*a, **{**options, "retry_config": HASTY}))


def winners(attempts: list[Callable[[], str | None]]) -> int:
    won = [list[str | None]() for _ in attempts]
    start = threading.Barrier(len(attempts))

    def run(index: int) -> None:
        start.wait()
        won[index].append(attempts[index]())

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(attempts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(version is not None for (version,) in won)


def test_of_many_exactly_one_wins(place: Store) -> None:
    files = of(place)
    for race in range(10):
        key = f"races/{race}/it"
        assert winners([lambda n=n, key=key: files.create(key, b"%d" % n) for n in range(4)]) == 1
        for _ in range(3):
            read = files.read(key)
            assert read is not None
            now = read[1]
            attempts = [lambda n=n, key=key, now=now: files.replace(key, os.urandom(8), now) for n in range(4)]
            assert winners(attempts) == 1


def test_an_answer_that_is_lost_does_not_lose(object_storage: ObjectStorage) -> None:
    """The request is done, its answer never comes, and its repetition finds the key taken: by itself."""
    files, client = of(Store(object_storage.uri)), object_storage.client
    contents = iter([b"first"])

    def done_but_not_answered(method: str, path: str) -> object:
        if method != "PUT" or (content := next(contents, None)) is None:
            return None
        client.put_object(Bucket="bucket", Key=f"{object_storage.prefix}/key", Body=content)
        return object_storage.faults.BROKEN

    object_storage.fault = done_but_not_answered
    first = files.create("key", b"first")
    assert first is not None
    contents = iter([b"second"])
    assert files.replace("key", b"second", first) is not None


@pytest.mark.parametrize(
    "answer", [None, (501, "NotImplemented"), (405, "MethodNotAllowed"), (400, "NotImplemented")], ids=str
)
def test_storage_without_conditions_is_found_out(
    object_storage: ObjectStorage, answer: tuple[int, str] | None, hasty: None
) -> None:
    if answer is None:
        object_storage.conditions = False
    else:
        object_storage.fault = lambda method, path: answer if method == "PUT" else None
    assert not of(Store(object_storage.uri)).probe()
    object_storage.conditions = True
    object_storage.fault = lambda method, path: None
    assert object_storage.objects() == []


@pytest.mark.parametrize(
    ("before", "status", "code"),
    [
        (0, 503, "SlowDown"),
        (1, 503, "SlowDown"),
        (0, 500, "InternalError"),
        (0, 403, "AccessDenied"),
        (1, 403, "AccessDenied"),
        (0, 404, "NoSuchBucket"),
        (0, 400, "InvalidRequest"),
        (0, 409, "ConditionalRequestConflict"),
    ],
)
def test_storage_that_could_not_be_asked_is_not_taken_for_one_without_conditions(
    object_storage: ObjectStorage, before: int, status: int, code: str, hasty: None
) -> None:
    """The verdict is kept for as long as the process lives."""
    store, puts = Store(object_storage.uri), itertools.count()
    object_storage.fault = lambda method, path: (status, code) if method == "PUT" and next(puts) >= before else None
    with pytest.raises(OSError, match=f"{code}|refuses to make"):
        _ = store.honours_conditions
    object_storage.fault = lambda method, path: None
    assert store.honours_conditions


@pytest.mark.parametrize(("status", "code"), [(409, "ConditionalRequestConflict"), (412, "PreconditionFailed")])
def test_a_refusal_that_stays_is_lost_and_no_error(
    object_storage: ObjectStorage, status: int, code: str, hasty: None
) -> None:
    files = of(Store(object_storage.uri))
    first = files.create("key", b"first")
    assert first is not None
    object_storage.fault = lambda method, path: (status, code) if method == "PUT" else None
    assert files.create("key", b"second") is None
    assert files.replace("key", b"second", first) is None
    assert files.replace("key", b"first", first) == first  # its own


def test_a_file_system_without_a_client_has_no_conditions() -> None:
    nested = pafs.SubTreeFileSystem("/tmp", pafs.LocalFileSystem())
    assert not conditional(nested, "bucket/prefix").probe()


def test_a_disk_without_links_has_no_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    assert not of(Store(str(tmp_path))).probe()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        of(Store(str(tmp_path / "file" / "store"))).probe()


def test_a_link_to_nothing_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "commit.json").symlink_to(tmp_path / "nothing")
    with pytest.raises(OSError, match=r"commit\.json is a link to nothing"):
        of(Store(str(tmp_path))).read("commit.json")


def test_a_writer_that_slept_never_wins_against_later_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looked, slept while others went on, and their lower numbers are free again."""
    files = of(Store(str(tmp_path)))
    assert files.create("key/lease", b"0") == "0"
    link, sleeping = os.link, [True]

    def slow(source: str, target: str) -> None:
        if sleeping.pop() if sleeping else False:
            for number in itertools.count():
                if number == 3:
                    break
                assert files.replace("key/lease", b"other %d" % number, str(number)) == str(number + 1)
        link(source, target)

    monkeypatch.setattr(os, "link", slow)
    assert files.replace("key/lease", b"late", "0") is None
    assert files.read("key/lease") == (b"other 2", "3")
    assert os.listdir(tmp_path / "key") == ["lease.~3"]


def test_keys_of_the_shared_credentials_file(
    object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """pyarrow reads them by itself."""
    file = tmp_path / "credentials"
    file.write_text("[default]\n[other]\naws_access_key_id = a\naws_secret_access_key = b\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert of(Store(object_storage.uri)).probe()
