"""Optuna's journal in a store: a file that Optuna itself opens, on any storage."""

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from pyarrow import fs as pafs

from object_storage import ObjectStorage
from s3ray.errors import UserError
from s3ray.search.journal import journal_storage
from s3ray.store import Store

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(params=["local", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    if request.param == "object store":  # has neither rename nor append, and makes no folders
        (tmp_path / "search" / "study").mkdir(parents=True)
        store.is_local = False
    return store


def opened(store: Store) -> optuna.Study:
    return optuna.create_study(
        storage=journal_storage(store, "study"), study_name="study", direction="maximize", load_if_exists=True
    )


def fill(study: optuna.Study, trials: int) -> None:
    study.optimize(lambda trial: -((trial.suggest_float("x", 1e-3, 1.0, log=True) - 0.1) ** 2), n_trials=trials)


def test_a_study_goes_on_in_another_process_of_its_own(store: Store) -> None:
    study = opened(store)
    study.set_user_attr("dataset", "digits")
    fill(study, 3)
    again = opened(store)
    fill(again, 2)
    assert len(again.trials) == 5
    assert [trial.params for trial in again.trials[:3]] == [trial.params for trial in study.trials]
    assert opened(store).user_attrs == {"dataset": "digits"}


def test_optunas_own_tools_open_the_file(store: Store, tmp_path: Path) -> None:
    study = opened(store)
    fill(study, 2)
    again = opened(store)  # of object storage: a file of its own
    fill(again, 2)
    study = opened(store)
    study.enqueue_trial({"x": 0.5})
    files = sorted((tmp_path / "search" / "study").glob("journal.log*"))
    assert [file.name for file in files] == ["journal.log"] or not store.is_local
    whole = tmp_path / "whole.log"
    whole.write_bytes(b"".join(file.read_bytes() for file in files))
    program = f"""
import optuna
from optuna.storages.journal import JournalFileBackend
storage = optuna.storages.JournalStorage(JournalFileBackend({str(whole)!r}))
study = optuna.load_study(study_name="study", storage=storage)
print(study.best_value, [trial.state.name for trial in study.trials])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found == f"{study.best_value} {['COMPLETE'] * 4 + ['WAITING']}\n"


def test_a_reader_in_the_same_storage_sees_what_was_written_meanwhile(store: Store) -> None:
    writer = opened(store)
    fill(writer, 2)
    reader = opened(store)
    fill(writer, 1)
    assert (len(reader.trials), len(opened(store).trials)) == (2, 3)


def tried(study: optuna.Study, value: Any) -> None:
    trial = study.ask()
    trial.suggest_float("x", 0.0, 1.0)
    study.tell(trial, value)


def test_of_two_writers_trials_none_vanishes(store: Store) -> None:
    first = opened(store)
    tried(first, 0.70)
    second = opened(store)
    tried(first, 0.95)
    tried(second, 0.60)
    tried(first, 0.80)
    tried(second, 0.61)
    assert [trial.value for trial in opened(store).trials] == [0.70, 0.95, 0.60, 0.80, 0.61]
    assert first.best_value == second.best_value == 0.95
    assert [trial.number for trial in second.trials] == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_writers_of_several_processes_at_once_lose_nothing_on_a_local_disk(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    opened(store)
    program = f"""
from s3ray.errors import UserError
from s3ray.store import Store
from s3ray.search.journal import StoreJournal
journal = StoreJournal(Store({str(tmp_path)!r}), "study")
for number in range(20):
    journal.append_logs([{{"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {{str(number): "x" * 5000}}}}])
"""
    writers = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    lines = (tmp_path / "search" / "study" / "journal.log").read_text().splitlines()
    assert sum('"user_attr"' in line for line in lines) == 40
    assert all(json.loads(line) for line in lines)


def test_a_study_that_moves_between_disk_and_object_storage_goes_on(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for value, on_disk in ((0.1, True), (0.2, False), (0.3, True), (0.4, False)):
        store.is_local = on_disk
        tried(opened(store), value)
    assert [trial.value for trial in opened(store).trials] == [0.1, 0.2, 0.3, 0.4]


def test_of_two_writers_in_real_object_storage_no_trial_vanishes_though_requests_fail(
    object_storage: ObjectStorage,
) -> None:
    first = opened(Store(object_storage.uri))
    second = opened(Store(object_storage.uri))
    failed = []

    def deny(method: str, path: str) -> tuple[int, str] | None:
        if method == "PUT" and "journal.log" in path and not failed:
            failed.append(path)
            return object_storage.faults.DENIED
        return None

    tried(first, 0.7)
    object_storage.fault = deny
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        tried(second, 0.1)
    object_storage.fault = lambda method, path: None
    for number in range(3):
        tried(second, (2 + number) / 10)
        tried(first, 0.8)
    assert [trial.value for trial in opened(Store(object_storage.uri)).trials] == [0.7, 0.2, 0.8, 0.3, 0.8, 0.4, 0.8]


def test_a_writer_is_told_of_lines_between_those_it_knows(tmp_path: Path) -> None:
    """Two who append to object storage in the same moment: whoever did not see the other's line must not go on."""
    (tmp_path / "search" / "study").mkdir(parents=True)
    store = Store(str(tmp_path))
    store.is_local = False
    study = opened(store)
    tried(study, 0.5)
    (file,) = (tmp_path / "search" / "study").glob("journal.log*")
    other = opened(store)
    tried(other, 0.6)
    with file.open("ab") as stream:  # what the first wrote while the other had read
        stream.write(b'{"op_code":2,"worker_id":"w","study_id":0,"user_attr":{"a":1}}\n')
    with pytest.raises(UserError, match=r"journal\.log: another process wrote or deleted lines before those that this"):
        tried(other, 0.7)
    assert [trial.value for trial in opened(store).trials] == [0.5, 0.6]


def test_a_write_that_fails_has_not_happened(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    study = opened(store)
    fill(study, 2)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(*_: object) -> None:
        raise OSError("no space left")

    if store.is_local:  # half a line fits
        size = (Path(store.base) / "search" / "study" / "journal.log").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 30, limits[1]))
    else:
        monkeypatch.setattr(store, "write", full)
    try:
        with pytest.raises(OSError, match=r"no space|File too large"):
            study.ask()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        monkeypatch.undo()
    assert journal_storage(store, "study").cut is None
    fill(study, 1)
    assert len(opened(store).trials) == len(study.trials) == 3


def journal_file(tmp_path: Path, trials: int = 2) -> Path:
    study = opened(Store(str(tmp_path)))
    for number in range(trials):
        tried(study, number / 10)
    return tmp_path / "search" / "study" / "journal.log"


@pytest.mark.parametrize(
    ("damage", "cut"),
    [
        (lambda raw: raw[:-20], True),
        (lambda raw: raw[:-1], False),  # only the line feed is missing
        (lambda raw: raw[:-20] + b"\0" * 20, True),  # a power loss
        (lambda raw: raw[:-20] + b"\n", True),
        (lambda raw: raw + b"{", True),
    ],
)
def test_a_last_line_that_was_cut_short_is_left_out_and_the_study_goes_on(
    tmp_path: Path, damage: Callable[[bytes], bytes], cut: bool
) -> None:
    file = journal_file(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    cut_short = f"{file}: its last line was cut short and is left out"
    assert journal_storage(Store(str(tmp_path)), "study").cut == (cut_short if cut else None)
    tried(opened(Store(str(tmp_path))), 0.9)
    assert opened(Store(str(tmp_path))).best_value == 0.9
    assert journal_storage(Store(str(tmp_path)), "study").cut is None
    assert all(json.loads(line) for line in file.read_bytes().splitlines())


@pytest.mark.parametrize("content", [b"", b"\n", b'{"op_code":0,"study'])
def test_an_empty_journal_is_a_new_study(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "search" / "study" / "journal.log"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    study = opened(Store(str(tmp_path)))
    tried(study, 0.9)
    assert opened(Store(str(tmp_path))).best_value == 0.9


@pytest.mark.parametrize("line", [b"{ no", b"\xff\xfe", b"3", b"\0\0\0"])
def test_a_line_damaged_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    file = journal_file(tmp_path)
    lines = file.read_bytes().splitlines()
    lines[3] = line
    file.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(UserError, match=rf"^{file}: line 4 is damaged; .*\Z"):
        journal_storage(Store(str(tmp_path)), "study")
    assert file.read_bytes().splitlines() == lines


def test_lines_that_tell_of_no_study_are_refused(tmp_path: Path) -> None:
    file = journal_file(tmp_path)
    with file.open("a") as stream:
        stream.write('{"code": 1}\n')
    with pytest.raises(UserError, match=rf"^{file}: does not tell of a study"):
        journal_storage(Store(str(tmp_path)), "study")


def test_nothing_but_the_journal_is_left(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    fill(opened(store), 1)
    names = {info.base_name for info in store.fs.get_file_info(pafs.FileSelector(str(tmp_path), recursive=True))}
    assert names == {"search", "study", "journal.log"}
