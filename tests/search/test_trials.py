"""A search: what Optuna and ASHA are told, and the real thing, killed and gone on with."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from typer.testing import CliRunner

from s3ray.cli import app
from s3ray.engine import trials as engine
from s3ray.engine.preflight import Execution
from s3ray.engine.trials import OptunaTrials, open_study, scheduler, try_again, try_configuration
from s3ray.engine.worker import Ledger, Pack
from s3ray.search.space import Score, Search
from s3ray.store import Store

SEARCH = Path(__file__).parents[2] / "sweeps" / "search_weights.py"
SPACE = {"specialization.temperature": 5, "selection.lambda_min": 10}
TIMEOUT = 600  # seconds; only catches a hang


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


@pytest.fixture
def search(tiny_sweep, store):
    plan = tiny_sweep.tiny_plan(store, seeds=3)
    return Search.of(plan, "digits", SPACE)


DIVERGED = {
    "accuracy": math.nan,
    "cause": "DivergedError: the loss became nan at step 3 of 9; lower the learning rate or raise the temperature",
    "stage": "specialization",
}


def searcher(search, study, seed=0):
    return OptunaTrials(
        search.seeds,
        space=search.distributions(),
        metric="accuracy",
        mode="max",
        sampler=optuna.samplers.TPESampler(seed=seed),
        study_name=study.study_name,
        storage=study._storage,
    )


def told(number_of_seeds, accuracy, p=0.5):
    return {"accuracy": accuracy, "p": p, "seeds": number_of_seeds}


def run_trial(told_by, name, results, decide=lambda result: "CONTINUE"):
    """A trial as Tune tells its searcher of it: no report that leads to a stop, the last one twice."""
    for result in results:
        if decide(result) == "STOP":
            told_by.on_trial_complete(name, {**result, "done": True})
            return
        told_by.on_trial_result(name, dict(result))
    told_by.on_trial_result(name, {**results[-1], "done": True})
    told_by.on_trial_complete(name, {**results[-1], "done": True})


def test_the_first_configuration_is_the_scales_own(search, store):
    study = open_study(search, store)
    trials = searcher(search, study)
    assert trials.suggest("a") == search.defaults()
    assert trials.suggest("b") != search.defaults()
    assert open_study(search, store).user_attrs["seeds"] == [0, 1, 2]
    assert len(open_study(search, store).trials) == 2  # not enqueued again


def test_a_stopped_trial_is_pruned_and_never_the_best(search, store):
    study = open_study(search, store)
    trials = searcher(search, study)
    for name in ("whole", "stopped"):
        trials.suggest(name)
    run_trial(trials, "whole", [told(1, 0.80), told(2, 0.76), told(3, 0.75)])
    run_trial(trials, "stopped", [told(1, 0.79)], lambda _: "STOP")
    whole, stopped = study.trials
    assert (whole.state, whole.value, whole.intermediate_values) == (
        TrialState.COMPLETE,
        0.75,
        {1: 0.80, 2: 0.76, 3: 0.75},
    )
    assert (stopped.state, stopped.value, stopped.intermediate_values) == (TrialState.PRUNED, 0.79, {1: 0.79})
    assert study.best_trial.number == whole.number
    assert stopped.user_attrs["p"] == 0.5


def test_a_diverged_trial_counts_and_one_whose_worker_died_does_not(search, store):
    study = open_study(search, store)
    trials = searcher(search, study)
    for name in ("diverged", "died", "crashed"):
        trials.suggest(name)
    run_trial(trials, "diverged", [told(1, 0.7), DIVERGED])
    run_trial(trials, "died", [{"accuracy": math.nan, "cause": "its worker died; given up"}])
    trials.on_trial_complete("crashed", error=True)
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "FAIL", "FAIL"]
    assert engine.counted(study) == 1
    outcome = engine._outcome(study, ["its worker died"])
    assert (outcome.complete, outcome.stopped, len(outcome.diverged), outcome.best) == (0, 0, 1, None)
    assert outcome.lines(search) == [
        "digits: 1 configurations tried: 0 on all 3 seeds, 0 stopped, 1 diverged; 1 failed (its worker died); mend "
        "that and run again"
    ]


def test_a_search_without_a_best_says_why(search, store):
    study = open_study(search, store)
    trials = searcher(search, study)
    none = engine._outcome(study, [])
    assert none.lines(search)[0].endswith("; none ran on all seeds yet; raise --trials")
    for name in "abc":
        trials.suggest(name)
        run_trial(trials, name, [DIVERGED])
    taus = [trial.params["specialization.temperature"] for trial in study.trials]
    because = (
        f"the loss became nan in specialization, in 3 of 3, at specialization.optimizer.learning_rate 0.001 and "
        f"specialization.temperature {min(taus):.3g} … {max(taus):.3g}; lower that learning rate or raise that "
        f"temperature in --config"
    )
    (line,) = engine._outcome(study, []).lines(search)
    assert line == f"digits: 3 configurations tried: 0 on all 3 seeds, 0 stopped, 3 diverged; {because}"
    trials.suggest("stopped")
    run_trial(trials, "stopped", [told(1, 0.7)], lambda _: "STOP")
    (line,) = engine._outcome(study, []).lines(search)
    assert line.endswith(f"{because}, or raise --trials")


def test_a_study_that_lacks_attributes_gets_them(search, store):
    """Killed right after it was made, it has none; the report needs them."""
    storage = engine.journal_storage(store, search.name)
    optuna.create_study(storage=storage, study_name=search.name, direction="maximize")
    assert open_study(search, store).user_attrs == search.attributes


def decisions(asha, name, accuracies):
    trial = type("Trial", (), {"trial_id": name})()
    asha.on_trial_add(None, trial)
    return [asha.on_trial_result(None, trial, told(n, a)) for n, a in enumerate(accuracies, 1)]


def test_asha_halves_after_each_seed_and_remembers_earlier_calls(search, store):
    asha = scheduler(open_study(search, store), 3)
    assert decisions(asha, "first", [0.7, 0.7, 0.7]) == ["CONTINUE"] * 3
    assert decisions(asha, "worse", [0.6]) == ["STOP"]
    # Above the median after one seed, below it after two.
    assert decisions(asha, "lucky", [0.72, 0.65]) == ["CONTINUE", "STOP"]
    # Never stopped after its last seed, at which nothing is left to save.
    assert decisions(asha, "tired", [0.75, 0.74, 0.1]) == ["CONTINUE"] * 3

    study = open_study(search, store)
    trials = searcher(search, study)
    trials.suggest("first")
    run_trial(trials, "first", [told(1, 0.7), told(2, 0.7), told(3, 0.7)])
    assert decisions(scheduler(open_study(search, store), 3), "worse", [0.6]) == ["STOP"]
    assert scheduler(study, 1) is None


def test_what_a_killed_search_was_running_is_tried_again_first(search, store):
    trials = searcher(search, open_study(search, store))
    running = [trials.suggest(name) for name in ("a", "b")]
    study = open_study(search, store)
    try_again(study)
    try_again(study)  # killed again before it began
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "WAITING", "WAITING"]
    again = searcher(search, study)
    assert [again.suggest(name) for name in ("c", "d")] == running
    # The scale's own configuration is still known as such.
    assert [trial.user_attrs for trial in study.trials[2:]] == [{"default": True, "again": 0}, {"again": 1}]


def test_a_search_whose_study_another_took_over_ends(search, store):
    """A process that stood still (a laptop that slept) goes on when its claim is long stale."""
    first = searcher(search, open_study(search, store))
    for name in "ab":
        first.suggest(name)
    try_again(open_study(search, store))  # another process
    first.on_trial_result("a", told(1, 0.7))
    assert first.lost
    first.on_trial_complete("b", {**told(3, 0.7), "done": True})
    first.on_trial_complete("a", error=True)
    assert first.suggest("c") == "FINISHED"
    assert [trial.state.name for trial in open_study(search, store).trials] == ["FAIL", "FAIL", "WAITING", "WAITING"]


EMPTY = Pack("", "run", (), "", 60.0)


@pytest.fixture
def reports(monkeypatch):
    found = []
    monkeypatch.setattr(engine.ray.tune, "report", found.append)
    return found


def test_a_configuration_reports_the_mean_of_its_seeds_so_far(search, store, reports, monkeypatch):
    ran = []
    monkeypatch.setattr(engine, "finish", lambda pack, *_, relay: ran.append((*pack.cells, relay)))
    curves = iter([{0.9: 0.6, 0.5: 0.8}, {0.9: 0.9, 0.5: 0.4}, {0.9: 0.9, 0.5: 0.9}])
    monkeypatch.setattr(engine, "validation_curve", lambda *_: next(curves))
    try_configuration(search, {"specialization.temperature": 0.3}, store, Execution(), EMPTY)
    assert [(cell.cell.seed, cell.settings.specialization.temperature, relay) for cell, relay in ran] == [
        (seed, 0.3, False) for seed in range(3)
    ]
    # p is chosen anew each time, on the mean curve.
    assert [(Score(r["accuracy"], r["p"]), r["seeds"]) for r in reports] == [
        (Score(pytest.approx(a), p), n) for n, a, p in ((1, 0.8, 0.5), (2, 0.75, 0.9), (3, 0.8, 0.9))
    ]


def test_a_configuration_ends_with_its_first_failure(search, store, reports, monkeypatch):
    def fail(pack, store, execution, relay):
        Ledger(store, pack.run).fail(pack.cells[0], "DivergedError: the loss became nan")

    monkeypatch.setattr(engine, "finish", fail)
    try_configuration(search, {}, store, Execution(), EMPTY)
    (report,) = reports
    nan = pytest.approx(math.nan, nan_ok=True)
    assert report == {"accuracy": nan, "cause": "DivergedError: the loss became nan", "stage": "specialization"}


CONFIG = """
seeds = [0, 1]
batch_sizes = [30]
[model]
width = 16
heads = 2
[specialization.optimizer]
epochs = 2
[selection.optimizer]
epochs = 1
[sparsification]
ratios = [1.0, 0.5]
"""


def command(folder, trials):
    options = {"dataset": f"mine={folder / 'mine.npz'}", "config": folder / "tiny.toml", "storage": folder / "store"}
    return subprocess.Popen(
        [sys.executable, SEARCH, "--trials", str(trials), *(f"--{name}={value}" for name, value in options.items())],
        env={**os.environ, "RAY_ADDRESS": "local", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def journal(folder):
    (path,) = (folder / "store" / "search").glob("*/journal.log")
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name=path.parent.name, storage=storage), path.parent


def commits(folder):
    files = (folder / "store" / "artifacts").glob("*/*/commit.json")
    return {file: json.loads(file.read_text())["attempt"] for file in files}


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_its_best_is_a_config_whose_cells_are_there(tmp_path):
    rng = np.random.default_rng(0)
    data = {}
    for split, size in (("train", 60), ("valid", 30), ("test", 30)):
        y = np.arange(size) % 2
        data |= {f"{split}_label": y, f"{split}_text": rng.normal(size=(size, 6)) + y[:, None]}
        data |= {f"{split}_image": rng.normal(size=(size, 3, 4)) + y[:, None, None]}
    np.savez(tmp_path / "mine.npz", **data)
    (tmp_path / "tiny.toml").write_text(CONFIG)

    process = command(tmp_path, trials=3)
    deadline = time.monotonic() + TIMEOUT

    def wait_until(there):
        while not there():
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)

    # A second search beside it is refused, and leaves alone what the first is running.
    wait_until(lambda: list(tmp_path.glob("store/search/*/journal.log")))
    beside = command(tmp_path, trials=2)
    wait_until(lambda: any(file.parent.parent.name == "sparsification" for file in commits(tmp_path)))
    wait_until(lambda: beside.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    refused = beside.communicate()[0]
    assert beside.returncode == 2, refused
    at_work = rf"another search is at work on it \(process {process.pid} on \S+, since .* UTC\); wait for it to end"
    assert re.search(rf"^error: study mine-\w+: {at_work}", refused, re.MULTILINE), refused
    before = commits(tmp_path)
    study, _ = journal(tmp_path)
    running = [trial for trial in study.trials if trial.state is TrialState.RUNNING]
    done = engine.counted(study)
    assert running
    assert len(running) + done == len(study.trials)

    process = command(tmp_path, trials=3)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    study, folder = journal(tmp_path)
    assert {file: attempt for file, attempt in commits(tmp_path).items() if file in before} == before
    assert engine.counted(study) == 3
    failed = [trial for trial in study.trials if trial.state is TrialState.FAIL]
    again = [trial for trial in study.trials if "again" in trial.user_attrs]
    assert [t.number for t in failed] == [t.number for t in running] == [t.user_attrs["again"] for t in again]
    assert [t.params for t in failed] == [t.params for t in again]
    tried = [tuple(trial.params.values()) for trial in study.trials if trial.state is not TrialState.FAIL]
    assert len(set(tried)) == 3
    # Every line is ours.
    head, _, *waiting, start = output[: output.index("starting worker groups")].splitlines()
    events = output[output.index("starting worker groups") :].splitlines()[1:]
    assert head.startswith("search_weights → ")
    # The killed search's claim is awaited until it is stale.
    assert all(line.startswith(f"{folder.name}: was claimed by process ") for line in waiting)
    assert re.fullmatch(rf"{folder.name}: {done} of 3 trials done, \d+ at a time; ", start)
    assert [bool(re.match(r"\[\d/3\] \d+\.\d% at p=0.5", line)) for line in events[: 3 - done]] == [True] * (3 - done)
    assert events[3 - done].startswith("mine: 3 configurations tried: ")
    assert events[-1] == f"python sweeps/full_grid.py --scale smoke --config {folder / 'best.toml'}"

    arguments = ["--dataset", f"mine={tmp_path / 'mine.npz'}", "--storage", str(tmp_path / "store"), "--format", "json"]
    planned = CliRunner().invoke(app, ["plan", str(SEARCH), *arguments, "--config", str(folder / "best.toml")])
    assert json.loads(planned.output)["cells"] == {"total": 2, "cached": 2, "to_run": 0}
    # With nothing left to do Ray is not started.
    process = command(tmp_path, trials=3)
    assert process.communicate(timeout=TIMEOUT)[0].splitlines()[2:] == events[3 - done :]
