import dataclasses
import hashlib
import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from object_storage import ObjectStorage
from s3ray.data.dataset import Dataset
from s3ray.errors import UserError
from s3ray.store import Marker, Store
from toy_runs import toy_run

RUN = toy_run()


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
    """What holds on a disk holds on an object store."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "s3":
        return Store(request.getfixturevalue("object_storage").uri)
    return request.getfixturevalue("local_store")


def commit(store: Store, content: bytes = b"payload", **changes: bytes) -> None:
    store.commit(RUN, {"a.bin": content, "b.bin": content} | changes, seconds=1.5, provenance={"torch": "x"})


def test_a_result_counts_once_its_marker_is_there(store: Store) -> None:
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


def test_a_writer_that_dies_before_the_marker_leaves_nothing_that_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store.write

    def dies_at_marker(self: Store, content: bytes, *parts: str) -> None:
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


def test_two_writers_of_one_identity_never_mix(store: Store) -> None:
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

    def __init__(self, fs: Any) -> None:
        self._fs = fs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fs, name)

    def move(self, *_: object) -> None:
        raise OSError("no space left")


def test_a_write_that_fails_leaves_no_file_and_the_old_content(local_store: Store, tmp_path: Path) -> None:
    store = local_store
    store.write("old", "folder", "name")
    store.fs = FullDisk(store.fs)
    with pytest.raises(OSError, match="no space"):
        store.write("new", "folder", "name")
    assert [path.name for path in (tmp_path / "store" / "folder").iterdir()] == ["name"]
    assert store.read("folder", "name") == b"old"


def test_checkpoints_keep_the_latest_and_vanish_with_the_commit(store: Store) -> None:
    assert store.latest_checkpoint(RUN) is None
    store.save_checkpoint(RUN, 9, b"nine")
    store.save_checkpoint(RUN, 10, b"ten")
    assert store.latest_checkpoint(RUN) == b"ten"
    assert store.checkpoint_step(RUN) == 10
    assert store.names("checkpoints", RUN.identity) == ["000000010.pt"]
    commit(store)
    assert store.latest_checkpoint(RUN) is None


def test_another_writer_may_drop_checkpoints_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save_checkpoint(RUN, 1, b"one")
    names = store.names
    monkeypatch.setattr(store, "names", lambda *parts: ["000000000.pt", *names(*parts)])  # listed, then gone
    store.save_checkpoint(RUN, 2, b"two")
    assert store.latest_checkpoint(RUN) == b"two"
    store.drop_checkpoints(RUN)
    store.drop_checkpoints(RUN)


def test_a_marker_that_was_cut_off_does_not_count(store: Store) -> None:
    commit(store)
    store.write('{"identity": "', "artifacts", RUN.stage.name, RUN.identity, "commit.json")
    assert store.marker(RUN) is None
    assert store.markers([RUN]) == {}


@pytest.mark.parametrize("harm", ["deleted", "emptied", "all deleted"])
def test_a_marker_whose_payload_is_gone_does_not_count(store: Store, harm: str) -> None:
    commit(store)
    attempt = store.marker(RUN).attempt
    folder = ("artifacts", RUN.stage.name, RUN.identity, attempt)
    if harm == "emptied":
        store.write(b"", *folder, "b.bin")
    for name in {"deleted": ["b.bin"], "all deleted": ["a.bin", "b.bin"]}.get(harm, []):
        store.fs.delete_file(store.path(*folder, name))
    assert store.markers([RUN]) == {}
    with pytest.raises(FileNotFoundError, match="not committed"):
        store.artifact(RUN, "a.bin")
    commit(store, b"again")
    assert store.artifact(RUN, "b.bin") == b"again"


def test_a_payload_that_is_damaged_at_equal_length_is_found_and_computed_again(store: Store) -> None:
    commit(store)
    folder = ("artifacts", RUN.stage.name, RUN.identity, store.marker(RUN).attempt)
    store.write(bytes(len(b"payload")), *folder, "b.bin")
    assert store.artifact(RUN, "a.bin") == b"payload"
    with pytest.raises(UserError, match=r"b\.bin: damaged, and left out from now on; run again to compute it again$"):
        store.artifact(RUN, "b.bin")
    assert store.markers([RUN]) == {}


def test_a_list_deletes_nothing_that_is_not_ours(store: Store, tmp_path: Path) -> None:
    """Somebody else's list, or one that was changed."""
    store.write("mine", "precious")
    store.write("mine", "folder", "thesis.tex")
    told = {"files": {"../precious": "x", "thesis.tex": "x", "/etc/hosts": "x"}}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    store.write(json.dumps({**told, "sha256": digest}), "folder", "info.json")
    assert store.folder_info("folder") == told
    store.write_folder({"table.csv": "1"}, {}, "folder")
    assert store.read("precious") == store.read("folder", "thesis.tex") == b"mine"


def test_a_result_without_files_counts(store: Store) -> None:
    store.commit(RUN, {}, seconds=1.0, provenance={})
    assert store.marker(RUN) is not None


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b"{}", b'{"files": []}', b"[" * 100_000])
def test_a_marker_that_is_no_marker_does_not_count(store: Store, content: bytes) -> None:
    store.write(content, "artifacts", RUN.stage.name, RUN.identity, "commit.json")
    assert store.marker(RUN) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": "0" * 64},
        {"document": {"stage": "selection"}},
        {"attempt": "../../elsewhere"},
        {"files": {"a.bin": [7, "not a digest"]}},
        {"files": {"../a.bin": [7, "0" * 64]}},
        {"files": {"a.bin": [True, "0" * 64]}},
        {"seconds": "1.5"},
        {"seconds": math.nan},
        {"seconds": 10**400},
        {"committed_at": "yesterday"},
        {"provenance": {"workers": 0}},
        {"provenance": {"machine": 1}},
        {"provenance": {"torch": ["2"]}},
        {"provenance": []},
        {"inputs": {"features": {"left": 0}, "classes": 2}},
        {"inputs": {"features": {"left": 1}, "classes": 2, "padded": {"left": "1"}}},
        {"inputs": {}},
        {"parent_stage": "specialization"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_marker_with_a_wrong_field_does_not_count(local_store: Store, changes: dict[str, Any]) -> None:
    commit(local_store)
    place = ("artifacts", RUN.stage.name, RUN.identity, "commit.json")
    content = json.loads(local_store.read(*place))
    assert Marker.parse(json.dumps(content, indent=3).encode()) == local_store.marker(RUN)
    assert Marker.parse(json.dumps(content | changes).encode()) is None
    local_store.write(json.dumps(content | changes), *place)
    assert local_store.markers([RUN]) == {}


def test_the_marker_of_another_run_does_not_count(local_store: Store) -> None:
    commit(local_store)
    other = toy_run(seed=1)
    for name in ("commit.json", f"{local_store.marker(RUN).attempt}/a.bin", f"{local_store.marker(RUN).attempt}/b.bin"):
        content = local_store.read("artifacts", RUN.stage.name, RUN.identity, name)
        local_store.write(content, "artifacts", other.stage.name, other.identity, name)
    assert set(local_store.markers([RUN, other])) == {RUN.identity}


def test_a_folder_holds_one_call_and_what_is_not_ours(store: Store) -> None:
    store.write("mine", "results", "grid", "notes.txt")
    store.write_folder({"table.csv": "1", "figures/old.png": b"old"}, {"sweep": "one"}, "results", "grid")
    store.write_folder({"table.csv": "2", "figures/new.png": b"new"}, {"sweep": "two"}, "results", "grid")
    assert store.names("results", "grid") == ["info.json", "notes.txt", "table.csv"]
    assert store.names("results", "grid", "figures") == ["new.png"]
    info = store.folder_info("results", "grid")
    assert (info["sweep"], set(info["files"])) == ("two", {"table.csv", "figures/new.png"})
    assert store.read_listed(info, "table.csv", "results", "grid") == b"2"


def test_what_a_folder_says_of_itself_comes_back_or_is_refused(store: Store) -> None:
    store.write_folder({}, {"counts": {2: 1, 10: (1, 2)}, "name": "grid"}, "results", "grid")
    info = store.folder_info("results", "grid")
    assert info == {"counts": {"2": 1, "10": [1, 2]}, "name": "grid", "files": {}}
    content = json.loads(store.read("results", "grid", "info.json"))
    store.write(json.dumps(dict(reversed(content.items())), indent=7), "results", "grid", "info.json")
    assert store.folder_info("results", "grid") == info
    store.write(json.dumps(content | {"name": "grip"}), "results", "grid", "info.json")
    with pytest.raises(UserError, match=r"results/grid/info\.json: missing, damaged"):
        store.folder_info("results", "grid")


@pytest.mark.parametrize("harm", ["changed", "deleted"])
def test_a_folder_that_is_not_what_its_list_says_is_one_sentence(store: Store, harm: str) -> None:
    store.write_folder({"table.csv": "1"}, {}, "results", "grid")
    if harm == "changed":
        store.write("2", "results", "grid", "table.csv")
    else:
        store.fs.delete_file(store.path("results", "grid", "table.csv"))
    with pytest.raises(UserError, match=r"results/grid/table\.csv: missing, damaged or being written; run the sweep"):
        store.read_listed(store.folder_info("results", "grid"), "table.csv", "results", "grid")
    store.write('{"files": ', "results", "grid", "info.json")
    with pytest.raises(UserError, match=r"results/grid/info\.json: missing, damaged"):
        store.folder_info("results", "grid")
    store.write_folder({"table.csv": "3"}, {}, "results", "grid")
    assert store.read_listed(store.folder_info("results", "grid"), "table.csv", "results", "grid") == b"3"


def test_a_folder_that_cannot_be_written_stays_as_it_was(local_store: Store, tmp_path: Path) -> None:
    local_store.write_folder({"a": "old", "b": "old"}, {}, "folder")
    (tmp_path / "store" / "folder" / "taken").write_text("a file")
    with pytest.raises(OSError, match=r".+"):
        local_store.write_folder({"a": "new", "taken/d": "new"}, {}, "folder")
    info = local_store.folder_info("folder")
    assert [local_store.read_listed(info, name, "folder") for name in ("a", "b")] == [b"old", b"old"]
    assert not list((tmp_path / "store" / "folder").glob("*.tmp"))


def test_writable(store: Store, tmp_path: Path) -> None:
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
        ("s3://bucket/path?endpoint_override=http://user:hidden@host:9000", "holds credentials"),
        ("s3://bucket/path?endpoint_override=http%3A%2F%2Fuser%3Ahidden%40host", "holds credentials"),
        ("s3://bucket/path?endpoint_override=user:hidden@host", "holds credentials"),
        ("abfs://container:hidden@account.dfs.core.windows.net/path", "holds credentials"),
        ("abfs://container@account.dfs.core.windows.net/path?sig=hidden", "holds credentials"),
        ("abfs://container@account.dfs.core.windows.net/path?client_secret=hidden", "holds credentials"),
        ("gs://bucket/path?unheard_of=hidden", "not a storage URI"),
        ("s3://user:hidden@[bucket/path", "not a storage URI"),
        ("store\0hidden", "is no path"),
    ],
)
def test_bad_uris_are_refused_without_showing_secrets(uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refusal:
        Store(uri)
    assert "is no path" in message or "hidden" not in str(refusal.value)


@pytest.mark.parametrize("scheme", ["abfs", "abfss"])
@pytest.mark.parametrize("query", ["", "?credential_kind=default"])
def test_azures_containers_stand_where_others_have_users(scheme: str, query: str) -> None:
    store = Store(f"{scheme}://container@account.dfs.core.windows.net/path{query}")
    assert (store.base, store.is_local) == ("container/path", False)


def test_published_datasets_come_back_memory_mapped(store: Store, tiny_dataset: Dataset) -> None:
    fingerprint = tiny_dataset.fingerprint()
    store.publish_dataset(tiny_dataset)
    store.publish_dataset(tiny_dataset)  # a second sweep: nothing happens
    assert store.fetch_dataset(fingerprint).fingerprint() == fingerprint


def _with_truth(data: Dataset, relevant: tuple[str, ...]) -> Dataset:
    splits = {
        name: dataclasses.replace(split, truth=np.ones((len(split), 1), np.float32))
        for name, split in data.splits.items()
    }
    return dataclasses.replace(data, **splits, truth_names=("u",), relevant_factors=relevant)


def test_data_published_without_their_truth_are_published_again_with_it(store: Store, tiny_dataset: Dataset) -> None:
    published = [tiny_dataset, _with_truth(tiny_dataset, ()), _with_truth(tiny_dataset, ("u",))]
    assert len({data.fingerprint() for data in published}) == 1
    for data in published:
        store.publish_dataset(data)
    for data in published:
        fetched = store.fetch_dataset(data.content())
        assert (fetched.truth_names, fetched.relevant_factors) == (data.truth_names, data.relevant_factors)


def test_a_prepared_dataset_is_linked_into_a_store_on_its_disk(tiny_dataset: Dataset, tmp_path: Path) -> None:
    tiny_dataset.save(tmp_path / "prepared")
    data = Dataset.open(tmp_path / "prepared")
    store = Store(str(tmp_path / "store"))
    store.publish_dataset(data)
    store.publish_dataset(data)
    published = tmp_path / "store" / "data" / data.content()
    for file in (tmp_path / "prepared").glob("*.npy"):
        assert (published / file.name).samefile(file)
    store.drop("data", data.content())
    assert data.damaged() == []


@pytest.mark.parametrize(
    "harm",
    [
        "array deleted",
        "array cut short",
        "manifest deleted",
        "manifest emptied",
        "manifest changed",
        "manifest of nothing",
    ],
)
def test_a_published_dataset_that_is_not_whole_is_published_again(
    store: Store, tiny_dataset: Dataset, harm: str
) -> None:
    fingerprint = tiny_dataset.fingerprint()
    store.publish_dataset(tiny_dataset)
    array = ("data", fingerprint, "train.left.values.npy")
    match harm:
        case "array deleted":
            store.fs.delete_file(store.path(*array))
        case "array cut short":
            store.write(store.read(*array)[:-1], *array)
        case "manifest emptied":
            store.write(b"", "data", fingerprint, "manifest.json")
        case "manifest deleted":
            store.fs.delete_file(store.path("data", fingerprint, "manifest.json"))
        case "manifest changed":
            manifest = store.read("data", fingerprint, "manifest.json")
            store.write(manifest.replace(b'"simulated"', b'"user"'), "data", fingerprint, "manifest.json")
        case "manifest of nothing":
            store.write(b"{}", "data", fingerprint, "manifest.json")
    with pytest.raises(
        UserError, match=rf"/data/{fingerprint}: the published dataset is not whole; run the sweep again"
    ):
        store.fetch_dataset(fingerprint)
    store.publish_dataset(tiny_dataset)
    assert store.fetch_dataset(fingerprint).arrays()["train.left.values"].sum() == pytest.approx(
        tiny_dataset.train.modalities["left"].values.sum()
    )


def test_a_cached_copy_that_is_not_whole_is_fetched_again(
    object_storage: ObjectStorage, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    store, fingerprint = Store(object_storage.uri), tiny_dataset.fingerprint()
    store.publish_dataset(tiny_dataset)
    store.fetch_dataset(fingerprint)
    cached = tmp_path / "s3ray" / "data" / fingerprint
    (cached / "test.labels.npy").write_bytes(b"")
    assert len(store.fetch_dataset(fingerprint).test) == len(tiny_dataset.test)
    assert [path.name for path in cached.parent.iterdir()] == [fingerprint]
