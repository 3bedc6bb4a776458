"""A real search: killed, gone on with beside a configuration that diverges, and its best run by a sweep."""

import json
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

SEARCH = Path(__file__).parents[2] / "sweeps" / "search_weights.py"
TIMEOUT = 600  # seconds; only catches a hang
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


def command(folder: Path, trials: int) -> subprocess.Popen[str]:
    options = {"dataset": f"mine={folder / 'mine.npz'}", "config": folder / "tiny.toml", "storage": folder / "store"}
    return subprocess.Popen(
        [sys.executable, SEARCH, "--trials", str(trials), *(f"--{name}={value}" for name, value in options.items())],
        env={**os.environ, "RAY_ADDRESS": "local", "COLUMNS": "200", "PYTHONWARNINGS": "ignore:Fixed parameter"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def journal(folder: Path) -> tuple[optuna.Study, Path]:
    """The study as Optuna itself reads it, and its folder."""
    (path,) = (folder / "store" / "search").glob("*/journal.log")
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
    return optuna.load_study(study_name=path.parent.name, storage=storage), path.parent


def commits(folder: Path) -> dict[Path, str]:
    files = (folder / "store" / "artifacts").glob("*/*/commit.json")
    return {file: json.loads(file.read_text())["attempt"] for file in files}


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_that_is_killed_goes_on_and_its_best_is_a_config_whose_cells_are_there(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = {}
    for split, size in (("train", 60), ("valid", 30), ("test", 30)):
        y = np.arange(size) % 2
        data |= {f"{split}_label": y, f"{split}_text": rng.normal(size=(size, 6)) + y[:, None]}
        data |= {f"{split}_image": rng.normal(size=(size, 3, 4)) + y[:, None, None]}
    np.savez(tmp_path / "mine.npz", **data)
    (tmp_path / "tiny.toml").write_text(CONFIG)

    process = command(tmp_path, trials=1)
    deadline = time.monotonic() + TIMEOUT
    # Its first seed is through.
    while not any('"intermediate_value"' in log.read_text() for log in tmp_path.glob("store/search/*/journal.log")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = commits(tmp_path)
    study, folder = journal(tmp_path)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    assert before
    # The next call finds it first.
    study.enqueue_trial({"specialization.optimizer.learning_rate": 1e30})

    process = command(tmp_path, trials=2)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, output
    study, _ = journal(tmp_path)
    assert {file: attempt for file, attempt in commits(tmp_path).items() if file in before} == before
    killed, diverged, again = study.trials
    assert [trial.state.name for trial in study.trials] == ["FAIL", "PRUNED", "COMPLETE"]
    assert (again.params, again.user_attrs["again"]) == (killed.params, 0)
    assert diverged.user_attrs["stage"] == "specialization"
    assert diverged.user_attrs["cause"].startswith("DivergedError: ")
    # Every line is ours.
    head, _, warning, start, *lines = output.splitlines()
    assert head.startswith("search_weights → ")
    assert warning.startswith("  warning: mine: 30 test samples can tell little")
    assert re.fullmatch(rf"{folder.name}: 0 of 2 trials done, \d at a time; starting worker groups", start)
    events, found = sorted(re.sub(r"^\[\d/2\] ", "", line) for line in lines[:2]), lines[2:]
    assert re.match(r"\d+\.\d% at p=0.5 \(best ", events[0])
    assert events[1].startswith(f"diverged: {diverged.user_attrs['cause']}")
    assert found[0] == "mine: 2 configurations tried: 1 on all 2 seeds, 0 stopped, 1 diverged"
    assert found[1].endswith("which is the scale's own configuration")
    assert found[-1] == f"s3ray sweep full_grid --scale smoke --config {folder / 'best.toml'}"

    arguments = ["--dataset", f"mine={tmp_path / 'mine.npz'}", "--storage", str(tmp_path / "store"), "--format", "json"]
    planned = CliRunner().invoke(app, ["plan", str(SEARCH), *arguments, "--config", str(folder / "best.toml")])
    assert json.loads(planned.output)["cells"] == {"total": 2, "cached": 2, "to_run": 0}
