"""Results in MLflow: on a real tracking server, and what is refused before one is asked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from command_line import assert_one_sentence, s3ray, sweep_here
from s3ray.errors import UserError
from s3ray.results import Results
from s3ray.results.report import write_results
from s3ray.results.tracking import check, push
from s3ray.store import Store
from s3ray.sweep import load_sweep, union

if TYPE_CHECKING:
    from mlflow import MlflowClient

SWEEPS = Path(__file__).parents[2] / "sweeps"
PARAMETERS = SWEEPS / "tables4_5_parameters.py"


@pytest.fixture(scope="module")
def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes], Path]]:
    """`mlflow server` on SQLite, which takes seconds to start: its address, process and log.

    What it needs beside the client, moto and optuna bring.
    """
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder)]
    settings = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | settings, stdout=log, stderr=log)
    yield f"http://127.0.0.1:{port}", process, folder / "log"
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def study(starting: Any, made_up: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One cell of S3 and one of each prior method on digits, written as a sweep writes them."""
    sweep = union("tables", [load_sweep(SWEEPS / f"{name}.py") for name in ("table1_figure5", "table2_methods")])
    overrides = {"sparsification": {"ratios": [1.0, 0.5]}, "granularities": [8], "seeds": [0], "batch_sizes": [64]}
    plan, store = made_up.finished(sweep, ["digits"], tmp_path_factory.mktemp("store"), None, overrides)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, target, **_: target.write(b"painted"))
        results, _ = write_results(plan, store)
    return SimpleNamespace(plan=plan, store=store, results=Results.load(store, results.study))


@pytest.fixture(scope="module")
def server(starting: Any, study: Any) -> str:
    """Its address, once it answers."""
    address, process, log = starting
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"{address}/health"):
            return str(address)
        time.sleep(0.1)
    pytest.fail(log.read_text())


@pytest.fixture
def client(server: str) -> MlflowClient:
    from mlflow import MlflowClient  # seconds, which tests without a server need not wait

    return MlflowClient(tracking_uri=server)


def runs(client: MlflowClient, experiment: str) -> dict[str, Any]:
    """An experiment's runs by name; a name that two have fails."""
    there = client.get_experiment_by_name(experiment)
    assert there is not None
    found = client.search_runs([there.experiment_id], max_results=1000)
    named = {str(run.info.run_name): run for run in found}
    assert len(named) == len(found)
    return named


@pytest.mark.slow
def test_a_study_is_pushed_once_and_completed(
    server: str, client: MlflowClient, study: Any, made_up: SimpleNamespace
) -> None:
    results, cells = study.results, len(study.plan.cells)
    # Half of a curve first, and one cell less: as a sweep that was stopped leaves it.
    last = results.rows["method"] == results.rows["method"].iloc[-1]
    part = replace(results, rows=results.rows[(results.rows["preservation_ratio"] == 1.0) & ~last])
    first = push(part, study.store, server)
    assert (first.added, first.completed, first.unchanged) == (cells - 1, 0, 0)
    assert first.address.startswith(f"{server}/#/experiments/")
    assert len(runs(client, "s3ray/tables")) == cells
    again = s3ray("push", "--mlflow", f"{server}/", "--storage", study.store.uri)
    assert again.exit_code == 0, again.output
    assert again.output == f"MLflow: {first.address} (cells: 1 added, 1 completed, {cells - 2} there already)\n"
    there = runs(client, "s3ray/tables")
    assert len(there) == cells + 1

    def history(run: Any, metric: str) -> list[tuple[int, float]]:
        return sorted((point.step, point.value) for point in client.get_metric_history(run.info.run_id, metric))

    parent, cell = there[results.study], there["digits χ=8 batch=64 seed=0 (embedded data)"]
    assert cell.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.tags["s3ray.datasets"] == "digits (embedded data)"
    # 60 + .64 - 1 + 4, and 8 above it at p = 1 after Selection; from there to the peak at p = .4 five points up.
    assert dict(history(cell, "test_accuracy/none")) == pytest.approx({500: 0.5864, 1000: 0.6364})
    assert dict(history(cell, "test_accuracy/suff_min")) == pytest.approx({500: 0.7064, 1000: 0.6564})
    assert cell.data.metrics["valid_accuracy/none"] == pytest.approx(0.6364)
    entropies = history(cell, "selection suff_min/local_entropy/rows")
    s3 = study.plan.cells[0].cell
    assert entropies == [(step, made_up.entropy(s3, 0, "local", step)) for step in range(made_up.STEPS)]
    assert history(cell, "training/loss") == [(step, 1.0) for step in range(made_up.STEPS)]
    trained, settings = study.plan.cells[0].training, study.plan.study.entries["digits"].settings
    expected = {"identity": trained.identity, "kind": "embedded", "chi": "8", "batch_size": "64", "seed": "0"}
    expected |= {"method": "s3", "dataset": "digits", "code_revision": made_up.PROVENANCE["code_revision"]}
    expected |= {"study": results.study, "version": "0.1.0"}
    assert {name: cell.data.tags.get(f"s3ray.{name}") for name in expected} == expected
    assert cell.data.params["specialization.temperature"] == str(settings.specialization.temperature)
    assert not any(name.startswith("method.") for name in cell.data.params)
    prior = next(run for name, run in there.items() if "χ=8" not in name and run is not parent)
    assert {name.split(".")[1] for name in prior.data.params if name.startswith("method.")} == {
        prior.data.params["method"]
    }
    assert not any(name.startswith("selection.") for name in prior.data.params)
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"index.html", "figures", "tables", "rows.parquet"} <= files
    assert {file.path for file in client.list_artifacts(cell.info.run_id)} == {"rows.csv", "controls.csv"}
    assert (cell.info.status, parent.info.status) == ("FINISHED", "FINISHED")

    unchanged = push(results, study.store, server)
    assert (unchanged.added, unchanged.completed, unchanged.unchanged) == (0, 0, cells)
    # What a push that was cut short has written already is not there twice.
    client.set_tag(cell.info.run_id, "s3ray.content", "")
    ours = results.rows[results.rows["method"] == "s3"]
    selection = study.store.marker_of(*ours[["trained_stage", "trained_identity"]].iloc[-1])
    place = ("artifacts", selection.stage, selection.identity, selection.attempt, "rows.parquet")
    content = study.store.read(*place)
    study.store.write(content[::-1], *place)
    (damaged,) = push(results, study.store, server).left_out
    assert "rows.parquet: damaged, and set aside" in damaged
    attempt = Path(study.store.path(*place[:-1]))
    attempt.with_name(f"{attempt.name}.damaged").rename(attempt)
    study.store.write(content, *place)
    mended = push(results, study.store, server)
    assert (mended.completed, mended.left_out) == (1, ())
    assert runs(client, "s3ray/tables").keys() == there.keys()
    assert len(history(cell, "training/loss")) == made_up.STEPS


@pytest.mark.slow
def test_two_pushes_at_once_add_every_run_once(
    server: str, client: MlflowClient, study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "at once")

    with ThreadPoolExecutor(2) as pool:
        pushes = [pool.submit(push, study.results, study.store, server) for _ in range(2)]
    failed = [str(error) for one in pushes if (error := one.exception())]
    # Of a push that takes no longer than it takes to see that it lives, the other one finds everything there.
    assert all("another push is at work on it (process" in error for error in failed)
    added = [one.result().added for one in pushes if not one.exception()]
    assert sorted(added)[-1:] == [len(study.plan.cells)] == [sum(added)]
    assert len(runs(client, "at once")) == len(study.plan.cells) + 1


@pytest.mark.slow
def test_a_sweep_pushes_what_it_wrote(server: str, client: MlflowClient, tmp_path: Path) -> None:
    pushed = sweep_here("--storage", tmp_path, "--mlflow", server, file=PARAMETERS)
    assert pushed.returncode == 0, pushed.stderr
    assert f"MLflow: {server}/#/experiments/" in pushed.stdout
    (name,) = runs(client, "s3ray/tables4_5_parameters")
    assert name.startswith("tables4_5_parameters-")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://127.0.0.1:1", "--mlflow http://127.0.0.1:1: cannot be reached (Connection refused); check"),
        ("mlruns", "--mlflow mlruns: is no server's address; give a tracking server's, such as http://localhost:5000"),
    ],
)
def test_a_server_that_is_not_there_costs_a_sweep_a_warning(uri: str, message: str, tmp_path: Path) -> None:
    told = sweep_here("--storage", tmp_path, "--mlflow", uri, file=PARAMETERS)
    assert told.returncode == 0, told.stderr
    assert [line.partition(message)[0] for line in told.stdout.splitlines() if "--mlflow" in line] == ["warning: "]
    assert "report: " in told.stdout


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", r"--mlflow : is no server's address; give a tracking server's"),
        ("localhost:5000", r"--mlflow localhost:5000: is no server's address"),
        ("http://", "is no server's address"),
        ("http://host:port", "--mlflow: is no address"),
        ("http://me:hunter2@host", r"--mlflow: the URI holds credentials, .* MLFLOW_TRACKING_PASSWORD"),
        ("me:hunter2@host:5000", r"--mlflow: the URI holds credentials"),
        ("https://host/?token=hunter2", r"--mlflow: the URI holds credentials"),
        ("https://host/?a=hunter2", r"--mlflow https://host/: is no server's address"),
        ("ftp://host/?a=hunter2", r"--mlflow ftp://host/: is no server's address"),
    ],
)
def test_what_is_no_servers_address(uri: str, message: str, tmp_path: Path) -> None:
    refused = s3ray("push", "--mlflow", uri, "--storage", tmp_path)
    assert_one_sentence(refused, message)
    assert "hunter2" not in refused.output


def test_a_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"client is not installed; pip install 'mlflow-skinny>=3\.17,<4'"):
        check("http://localhost:5000")


def test_a_storage_without_results_asks_no_server(tmp_path: Path) -> None:
    refused = s3ray("push", "--mlflow", "http://127.0.0.1:1", "--storage", Store(str(tmp_path)).uri)
    assert_one_sentence(refused, "holds no results of any sweep; run a sweep first")
