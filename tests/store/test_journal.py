"""Optuna's journal in a store: a file that Optuna itself opens, on any storage."""

import subprocess
import sys

import optuna
import pytest
from pyarrow import fs as pafs

from s3ray.store import Store
from s3ray.store.journal import journal_storage

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(params=["local", "object store"])
def store(request, tmp_path):
    store = Store(str(tmp_path))
    if request.param == "object store":  # has neither rename nor append, and makes no folders
        (tmp_path / "search" / "study").mkdir(parents=True)
        store.is_local = False
    return store


def opened(store):
    return optuna.create_study(
        storage=journal_storage(store, "study"), study_name="study", direction="maximize", load_if_exists=True
    )


def fill(study, trials):
    study.optimize(lambda trial: -((trial.suggest_float("x", 1e-3, 1.0, log=True) - 0.1) ** 2), n_trials=trials)


def test_a_study_goes_on_in_another_process_of_its_own(store):
    study = opened(store)
    study.set_user_attr("dataset", "digits")
    fill(study, 3)
    again = opened(store)
    fill(again, 2)
    assert len(again.trials) == 5
    assert [trial.params for trial in again.trials[:3]] == [trial.params for trial in study.trials]
    assert opened(store).user_attrs == {"dataset": "digits"}


def test_optunas_own_tools_open_the_file(store, tmp_path):
    study = opened(store)
    fill(study, 4)
    study.enqueue_trial({"x": 0.5})
    program = f"""
import optuna
from optuna.storages.journal import JournalFileBackend
storage = optuna.storages.JournalStorage(JournalFileBackend({str(tmp_path / "search/study/journal.log")!r}))
study = optuna.load_study(study_name="study", storage=storage)
print(study.best_value, [trial.state.name for trial in study.trials])
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found == f"{study.best_value} {['COMPLETE'] * 4 + ['WAITING']}\n"


def test_a_reader_in_the_same_storage_sees_what_was_written_meanwhile(store):
    writer = opened(store)
    fill(writer, 2)
    reader = opened(store)
    fill(writer, 1)
    assert (len(reader.trials), len(opened(store).trials)) == (2, 3)


def test_a_write_that_fails_has_not_happened(store, monkeypatch):
    study = opened(store)
    fill(study, 2)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(OSError, match="no space"):
        study.ask()
    monkeypatch.undo()
    fill(study, 1)
    assert len(opened(store).trials) == len(study.trials)


def test_nothing_but_the_journal_is_left(tmp_path):
    store = Store(str(tmp_path))
    fill(opened(store), 1)
    names = {info.base_name for info in store.fs.get_file_info(pafs.FileSelector(str(tmp_path), recursive=True))}
    assert names == {"search", "study", "journal.log"}
