import dataclasses
import errno
import json
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import fs as pafs

import toy_runs
from object_storage import ObjectStorage
from s3ray.data.dataset import Dataset
from s3ray.digests import signed
from s3ray.errors import UserError
from s3ray.store import DamagedError, Marker, Store
from toy_runs import toy_run

RUN = toy_run()
CHILD = toy_run(1, RUN)

Harm = Callable[[bytes], bytes]


def flipped(content: bytes) -> bytes:
    """One bit in the middle is another."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def zeroed(content: bytes) -> bytes:
    """A block of the disk was never written."""
    return content[: len(content) // 2] + bytes(min(4096, len(content) - len(content) // 2 - 1)) + content[-1:]


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


HARMS = [flipped, zeroed, cut]


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

    def dies_at_marker(key: str, content: bytes) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.conditional, "create", dies_at_marker)
    store.__dict__["honours_conditions"] = True  # known before
    with pytest.raises(KeyboardInterrupt):
        commit(store)
    monkeypatch.undo()
    assert store.marker(RUN) is None
    commit(store, b"second")
    assert store.artifact(RUN, "a.bin") == b"second"


def test_of_two_writers_the_first_counts_for_good(store: Store) -> None:
    """Whichever is first, both files come from the same writer, and the others leave nothing behind."""
    contents = [bytes([letter]) * 200_000 for letter in b"xyz"]
    for _ in range(5 if store.is_local else 2):
        threads = [threading.Thread(target=commit, args=(store, content)) for content in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        counts = store.artifact(RUN, "a.bin")
        assert counts == store.artifact(RUN, "b.bin")
        assert counts in contents
        marker = store.marker(RUN)
        for content in contents:
            late = store.commit(RUN, {"a.bin": content}, seconds=9.0, provenance={})
            assert (late.is_first, late.marker) == (False, marker)
            assert late.files == {"a.bin": counts, "b.bin": counts}
        assert store.marker(RUN) == marker
        attempts = store.fs.get_file_info(pafs.FileSelector(store.path("artifacts", "selection"), recursive=True))
        assert {info.path.split("/")[-2] for info in attempts if info.base_name == "a.bin"} == {marker.attempt}
        store.drop("artifacts")


def test_a_write_that_fails_leaves_no_file_and_the_old_content(
    local_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finished file can no longer be put in place."""

    def full(*_: object) -> None:
        raise OSError("no space left")

    store = local_store
    store.write("old", "folder", "name")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        store.write("new", "folder", "name")
    assert [path.name for path in (tmp_path / "store" / "folder").iterdir()] == ["name"]
    assert store.read("folder", "name") == b"old"


def latest(store: Store) -> bytes | None:
    return next((content for _, content in store.checkpoints(RUN)), None)


def test_checkpoints_keep_the_latest_two_and_vanish_with_the_commit(store: Store) -> None:
    assert latest(store) is None
    assert store.checkpoint_step(RUN) is None
    for step, content in ((9, b"nine"), (10, b"ten"), (11, b"eleven")):
        store.save_checkpoint(RUN, step, content)
    assert [content for _, content in store.checkpoints(RUN)] == [b"eleven", b"ten"]
    assert store.checkpoint_step(RUN) == 11
    commit(store)
    assert latest(store) is None


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_checkpoint_is_none_and_the_one_before_it_serves(store: Store, harm: Harm) -> None:
    store.save_checkpoint(RUN, 1, b"one" * 4000)
    store.save_checkpoint(RUN, 2, b"two" * 4000)
    name = store.names("checkpoints", RUN.identity)[-1]
    store.write(harm(b"two" * 4000), "checkpoints", RUN.identity, name)
    assert latest(store) == b"one" * 4000
    assert store.checkpoint_step(RUN) == 1  # so that the next ones are later than it
    store.save_checkpoint(RUN, 2, b"again")
    assert latest(store) == b"again"


def test_another_writer_may_drop_checkpoints_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save_checkpoint(RUN, 1, b"one")
    names, gone = store.names, [f"{step:09d}-{'0' * 64}.pt" for step in (0, 3)]
    monkeypatch.setattr(store, "names", lambda *parts: sorted([*gone, *names(*parts)]))  # listed, then gone
    store.save_checkpoint(RUN, 2, b"two")
    assert latest(store) == b"two"
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
    with pytest.raises(DamagedError, match=r"b\.bin: damaged, and set aside as \w+\.damaged; run again to compute it"):
        store.artifact(RUN, "b.bin")
    assert store.markers([RUN]) == {}


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_payload_is_set_aside_and_the_next_writer_counts(store: Store, harm: Harm) -> None:
    commit(store, b"payload" * 2000)
    marker = store.marker(RUN)
    folder = ("artifacts", RUN.stage.name, RUN.identity)
    store.write(harm(b"payload" * 2000), *folder, marker.attempt, "b.bin")
    if store.marker(RUN) is not None:  # its length is as it was
        with pytest.raises(DamagedError):
            store.artifact(RUN, "b.bin")
        assert store.names(*folder, f"{marker.attempt}.damaged") == ["a.bin", "b.bin"]
        with pytest.raises(DamagedError, match="damaged, and set aside"):  # whoever still has its marker
            store.payload(marker, "a.bin")
    assert store.marker(RUN) is None
    commit(store, b"again")
    assert store.artifact(RUN, "b.bin") == b"again"


def test_a_late_writer_that_finds_the_first_result_damaged_counts(store: Store) -> None:
    commit(store)
    store.write(b"PAYLOAD", "artifacts", RUN.stage.name, RUN.identity, store.marker(RUN).attempt, "b.bin")
    assert store.commit(RUN, {"a.bin": b"late"}, seconds=1.0, provenance={}).is_first
    assert store.artifact(RUN, "a.bin") == b"late"


def bits(content: bytes) -> list[bytes]:
    """`content` with one bit flipped, at 300 places."""
    places = np.random.default_rng(0).choice(8 * len(content), 300, replace=False)
    return [content[: p // 8] + bytes([content[p // 8] ^ 1 << p % 8]) + content[p // 8 + 1 :] for p in places]


def test_no_flipped_bit_of_a_marker_is_taken_for_another_result(local_store: Store) -> None:
    commit(local_store)
    plain = local_store.marker(RUN)
    for content in bits(local_store.marker_content(RUN.stage.name, RUN.identity)):
        assert Marker.of(content, RUN.stage.name, RUN.identity) in (None, plain)  # a space may be another one


def test_a_damaged_marker_is_kept_and_the_next_one_counts(store: Store) -> None:
    commit(store)
    folder = ("artifacts", RUN.stage.name, RUN.identity)
    damaged = store.marker_content(RUN.stage.name, RUN.identity).replace(b'"seconds": 1.5', b'"seconds": 2.5')
    store.write(damaged, *folder, "commit.json")
    assert store.marker(RUN) is None
    commit(store, b"again")
    assert store.artifact(RUN, "a.bin") == b"again"
    (aside,) = [name for name in store.names(*folder) if name.endswith(".damaged")]
    assert store.read(*folder, aside) == damaged


@pytest.mark.parametrize(
    "change",
    [
        {"attempt": "../../other"},
        {"attempt": ""},
        {"files": {"a/b": [1, "0" * 64]}},
        {"files": {"a": [1]}},
        {"files": {"a": ["1", "0" * 64]}},
        {"files": None},
        {"seconds": -1.0},
        {"seconds": None},
        {"committed_at": "yesterday"},
        {"committed_at": "2026-01-01T00:00:00"},
        {"provenance": []},
        {"parent_attempt": "abc"},
        {"document": {"stage": "selection"}},
        {"more": 1},
    ],
    ids=str,
)
def test_a_marker_that_its_digest_calls_whole_is_looked_at_all_the_same(local_store: Store, change: Any) -> None:
    commit(local_store)
    marker = local_store.marker(RUN)
    if change.keys() == {"more"}:
        content = json.dumps({**json.loads(marker.content()), **change}).encode()
    else:
        content = dataclasses.replace(marker, **change).content()
    assert Marker.of(content, RUN.stage.name, RUN.identity) is None
    assert Marker.of(marker.content(), RUN.stage.name, toy_run(9).identity) is None


def test_a_result_counts_only_with_the_one_that_it_stands_on(store: Store) -> None:
    """The parent was damaged, and computed again after its child."""
    commit(store)
    store.commit(CHILD, {"c.bin": b"child"}, seconds=1.0, provenance={}, parent=store.marker(RUN))
    assert set(store.markers([CHILD])) == {CHILD.identity}
    assert store.marker_of("selection", CHILD.identity) == store.marker(CHILD)
    store.write(b"PAYLOAD", "artifacts", RUN.stage.name, RUN.identity, store.marker(RUN).attempt, "b.bin")
    with pytest.raises(DamagedError):
        store.artifact(RUN, "b.bin")
    assert store.markers([RUN, CHILD]) == {}
    commit(store, b"another")
    assert set(store.markers([RUN, CHILD])) == {RUN.identity}
    assert store.marker_of("selection", CHILD.identity) is None
    again = store.commit(CHILD, {"c.bin": b"again"}, seconds=1.0, provenance={}, parent=store.marker(RUN))
    assert again.is_first
    assert store.artifact(CHILD, "c.bin") == b"again"
    assert len(store.markers([CHILD, RUN, CHILD])) == 2


def test_markers_of_thousands_of_children_read_their_parent_once(
    local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    children = [toy_run(seed, RUN) for seed in range(1, 51)]
    toy_runs.commit_all(local_store, [(run, {}) for run in children])
    read: list[str] = []
    content = Store.marker_content
    monkeypatch.setattr(Store, "marker_content", lambda self, *of: (read.append(of[1]), content(self, *of))[1])
    assert len(local_store.markers(children)) == 50
    assert sorted(read) == sorted(run.identity for run in [RUN, *children])


def test_without_conditional_writes_a_marker_is_looked_for(object_storage: ObjectStorage) -> None:
    object_storage.conditions = False
    store = Store(object_storage.uri)
    assert not store.honours_conditions
    commit(store)
    assert not store.commit(RUN, {"a.bin": b"late"}, seconds=1.0, provenance={}).is_first
    assert store.artifact(RUN, "a.bin") == b"payload"


def test_a_list_deletes_nothing_that_is_not_ours(store: Store, tmp_path: Path) -> None:
    """Somebody else's list, or one that was changed."""
    store.write("mine", "precious")
    store.write("mine", "folder", "thesis.tex")
    told = {"files": {"../precious": "x", "thesis.tex": "x", "/etc/hosts": "x"}}
    store.write(json.dumps(signed(told)), "folder", "info.json")
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
    marker = Marker.of(json.dumps(content, indent=3).encode(), RUN.stage.name, RUN.identity)
    assert marker == local_store.marker(RUN)
    assert marker is not None
    local_store.write(json.dumps(signed(content | changes)), *place)
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
    found = "not whole" if harm == "manifest deleted" else r"damaged \([\w.]+\), and set aside"
    with pytest.raises(UserError, match=f"/data/{fingerprint}: the published dataset is {found}; run the sweep"):
        store.fetch_dataset(fingerprint)
    store.publish_dataset(tiny_dataset)
    assert store.fetch_dataset(fingerprint).arrays()["train.left.values"].sum() == pytest.approx(
        tiny_dataset.train.modalities["left"].values.sum()
    )


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("file", ["train.left.values.npy", "test.labels.npy", "manifest.json"])
def test_damaged_data_are_never_used_and_published_again(
    store: Store, tiny_dataset: Dataset, harm: Harm, file: str
) -> None:
    content = tiny_dataset.content()
    store.publish_dataset(tiny_dataset)
    whole = store.read("data", content, file)
    store.write(harm(whole), "data", content, file)
    with pytest.raises(UserError, match=r"the published dataset is damaged \(.+\), and set aside; run the sweep again"):
        store.fetch_dataset(content)
    store.publish_dataset(tiny_dataset)
    assert store.fetch_dataset(content).damaged() == []
    assert store.read("data", content, file) == whole


def once(original: Callable[..., Any], first: Callable[[], Any]) -> Callable[..., Any]:
    """Does `first` at its first call, and what it should from then on."""
    left = [first]
    return lambda *args, **options: left.pop()() if left else original(*args, **options)


def fails(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.EIO])
def test_published_data_that_cannot_be_read_now_are_not_damaged(
    store: Store, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    content = tiny_dataset.content()
    store.publish_dataset(tiny_dataset)

    def there() -> set[tuple[str, int, int]]:
        infos = store.fs.get_file_info(pafs.FileSelector(store.path("data"), recursive=True))
        return {(info.path, info.size, info.mtime_ns) for info in infos}

    before = there()
    with monkeypatch.context() as patched:
        patched.setattr(np, "load", fails(OSError(number, os.strerror(number))))
        with pytest.raises(UserError, match=rf"\.npy: cannot be read \({os.strerror(number)}\); check"):
            store.fetch_dataset(content)
        if store.is_local:
            with pytest.raises(UserError, match="cannot be read"):
                store.publish_dataset(tiny_dataset)
    assert there() == before
    assert store.fetch_dataset(content).content() == content


def test_data_that_another_version_published_stay(store: Store, tiny_dataset: Dataset) -> None:
    store.publish_dataset(tiny_dataset)
    place = ("data", tiny_dataset.content(), "manifest.json")
    manifest = {**json.loads(store.read(*place)), "format": 3}
    theirs = json.dumps(signed(manifest))
    store.write(theirs, *place)
    for use in (lambda: store.fetch_dataset(place[1]), lambda: store.publish_dataset(tiny_dataset)):
        with pytest.raises(UserError, match=f"{place[1]}: another version of s3ray published this dataset; choose"):
            use()
    assert store.read(*place).decode() == theirs
    assert store.folders("data") == [place[1]]


@pytest.mark.parametrize("fault", ["a file is missing", "a file is cut short", "a bit differs"])
def test_data_that_are_damaged_at_one_look_alone_stay(
    store: Store, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    store.publish_dataset(tiny_dataset)
    match fault:
        case "a file is missing":
            monkeypatch.setattr(np, "load", once(np.load, fails(FileNotFoundError(errno.ENOENT, "No such file"))))
        case "a file is cut short":
            monkeypatch.setattr(np, "load", once(np.load, fails(ValueError("mmap length is greater than file size"))))
        case "a bit differs":
            wrong = once(Dataset.damaged, lambda: ["test.labels"])
            monkeypatch.setattr(Dataset, "damaged", lambda self: wrong(self))
    assert store.fetch_dataset(tiny_dataset.content()).content() == tiny_dataset.content()
    assert store.folders("data") == [tiny_dataset.content()]


def test_offsets_of_zeros_are_damage_and_no_samples_that_lack_all(store: Store, tiny_dataset: Dataset) -> None:
    content = tiny_dataset.content()
    store.publish_dataset(tiny_dataset)
    for modality in tiny_dataset.features:
        file = ("data", content, f"test.{modality}.offsets.npy")
        store.write(store.read(*file)[:128] + bytes(8 * (len(tiny_dataset.test) + 1)), *file)
    with pytest.raises(UserError, match=r"damaged \(test\.\w+\.offsets\.npy\), and set aside"):
        store.fetch_dataset(content)


def test_a_dataset_that_another_publisher_put_there_meanwhile_stays(
    local_store: Store, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Path(local_store.path("data", tiny_dataset.content(), "manifest.json"))
    save, first = Dataset.save, []

    def late(self: Dataset, *args: Any, **options: Any) -> None:
        save(self, manifest.parent)
        first.append(manifest.stat().st_ino)
        save(self, *args, **options)

    monkeypatch.setattr(Dataset, "save", late)
    local_store.publish_dataset(tiny_dataset)
    assert [manifest.stat().st_ino] == first
    assert [path.name for path in manifest.parent.parent.iterdir()] == [tiny_dataset.content()]


def test_a_dataset_that_is_replaced_between_two_looks_is_not_set_aside(
    local_store: Store, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, damaged = tiny_dataset.content(), Dataset.damaged
    local_store.publish_dataset(tiny_dataset)
    looks: list[None] = []

    def replaced(self: Dataset) -> list[str]:
        looks.append(None)
        if len(looks) > 2:
            return damaged(self)
        tiny_dataset.save(Path(local_store.path("data", content)), replace=True)
        return ["test.labels"]

    monkeypatch.setattr(Dataset, "damaged", replaced)
    assert local_store.fetch_dataset(content).content() == content
    assert local_store.folders("data") == [content]


def test_no_flipped_bit_of_a_manifest_is_used(
    local_store: Store, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tiny_dataset.content()
    local_store.publish_dataset(tiny_dataset)
    plain = Dataset.open(Path(local_store.path("data", content)))
    monkeypatch.setattr(os, "fsync", lambda file: None)
    for changed in bits(local_store.read("data", content, "manifest.json"))[:50]:
        local_store.publish_dataset(tiny_dataset)
        local_store.write(changed, "data", content, "manifest.json")
        try:
            found = local_store.fetch_dataset(content)
        except UserError:
            continue
        assert (found.name, found.kind, found.facts, found.content()) == (plain.name, plain.kind, plain.facts, content)


def test_a_worker_reads_all_of_a_dataset_once(
    store: Store, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[None] = []
    damaged = Dataset.damaged
    monkeypatch.setattr(Dataset, "damaged", lambda self: (read.append(None), damaged(self))[1])
    store.publish_dataset(tiny_dataset)
    for _ in range(3):
        store.fetch_dataset(tiny_dataset.content())
    assert len(read) == 1


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
