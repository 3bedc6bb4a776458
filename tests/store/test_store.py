import threading

import pytest

from s3ray.config import UserError
from s3ray.store import StageRun, Store

RUN = StageRun("selection", 1, {"seed": 0}, "parent", "data")


@pytest.fixture
def local_store(tmp_path):
    return Store(str(tmp_path / "store"))


@pytest.fixture(params=["local", "s3"])
def store(request, monkeypatch, tmp_path):
    """What holds on a disk holds on an object store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "s3":
        return Store(request.getfixturevalue("object_storage").uri)
    return request.getfixturevalue("local_store")


def commit(store, content=b"payload", **changes):
    store.commit(RUN, {"a.bin": content, "b.bin": content} | changes, seconds=1.5, provenance={"torch": "x"})


def test_a_result_counts_once_its_marker_is_there(store):
    assert store.marker(RUN) is None
    assert store.markers([RUN, RUN]) == {}
    with pytest.raises(FileNotFoundError, match="not committed"):
        store.artifact(RUN, "a.bin")
    commit(store)
    marker = store.marker(RUN)
    assert marker is not None
    assert (marker.identity, marker.seconds, marker.provenance) == (RUN.identity, 1.5, {"torch": "x"})
    assert marker.document == RUN.document
    assert store.artifact(RUN, "a.bin") == b"payload"
    assert set(store.markers([RUN, RUN])) == {RUN.identity}


def test_a_writer_that_dies_before_the_marker_leaves_nothing_that_counts(store, monkeypatch):
    write = Store.write

    def dies_at_marker(self, content, *parts):
        if parts[-1] == "commit.json":
            raise KeyboardInterrupt
        write(self, content, *parts)

    monkeypatch.setattr(Store, "write", dies_at_marker)
    with pytest.raises(KeyboardInterrupt):
        commit(store)
    monkeypatch.undo()
    assert store.marker(RUN) is None
    commit(store, b"second")
    assert store.artifact(RUN, "a.bin") == b"second"


def test_two_writers_of_one_identity_never_mix(store):
    """Whoever's marker lands last, both files come from the same writer."""
    contents = [bytes([letter]) * 200_000 for letter in b"xyz"]
    for _ in range(5 if store.is_local else 2):
        threads = [threading.Thread(target=commit, args=(store, content)) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.artifact(RUN, "a.bin") == store.artifact(RUN, "b.bin")
        assert store.artifact(RUN, "a.bin") in contents


class FullDisk:
    """A file system on which a finished file can no longer be put in place."""

    def __init__(self, fs):
        self._fs = fs

    def __getattr__(self, name):
        return getattr(self._fs, name)

    def move(self, *_):
        raise OSError("no space left")


def test_a_write_that_fails_leaves_no_file_and_the_old_content(local_store, tmp_path):
    store = local_store
    store.write("old", "folder", "name")
    store.fs = FullDisk(store.fs)
    with pytest.raises(OSError, match="no space"):
        store.write("new", "folder", "name")
    assert [path.name for path in (tmp_path / "store" / "folder").iterdir()] == ["name"]
    assert store.read("folder", "name") == b"old"


def test_checkpoints_keep_the_latest_and_vanish_with_the_commit(store):
    assert store.latest_checkpoint(RUN) is None
    store.save_checkpoint(RUN, 9, b"nine")
    store.save_checkpoint(RUN, 10, b"ten")
    assert store.latest_checkpoint(RUN) == b"ten"
    assert store.checkpoint_step(RUN) == 10
    assert store.names("checkpoints", RUN.identity) == ["000000010.pt"]
    commit(store)
    assert store.latest_checkpoint(RUN) is None


def test_another_writer_may_drop_checkpoints_first(store, monkeypatch):
    store.save_checkpoint(RUN, 1, b"one")
    names = store.names
    monkeypatch.setattr(store, "names", lambda *parts: ["000000000.pt", *names(*parts)])  # listed, then gone
    store.save_checkpoint(RUN, 2, b"two")
    assert store.latest_checkpoint(RUN) == b"two"
    store.drop_checkpoints(RUN)
    store.drop_checkpoints(RUN)


def test_a_marker_that_was_cut_off_does_not_count(store):
    commit(store)
    store.write('{"identity": "', "artifacts", RUN.stage, RUN.identity, "commit.json")
    assert store.marker(RUN) is None
    assert store.markers([RUN]) == {}


def test_writable(store, tmp_path):
    store.check_writable()
    assert store.names() == []
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot be written .*; choose a place"):
        Store(str(tmp_path / "file" / "store")).check_writable()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nosuch://bucket/path", "not a storage URI"),
        ("s3://key:hidden@bucket/path", "holds credentials"),
        ("s3://bucket/path?secret_key=hidden", "holds credentials"),
        ("s3://bucket/path?access_key=hidden", "holds credentials"),
    ],
)
def test_bad_uris_are_refused_without_showing_secrets(uri, message):
    with pytest.raises(UserError, match=message) as refusal:
        Store(uri)
    assert "hidden" not in str(refusal.value)


def test_published_datasets_come_back_memory_mapped(store, tiny_dataset):
    fingerprint = tiny_dataset.fingerprint()
    store.publish_dataset(tiny_dataset, fingerprint)
    store.publish_dataset(tiny_dataset, fingerprint)  # a second sweep: nothing happens
    assert store.fetch_dataset(fingerprint).fingerprint() == fingerprint
