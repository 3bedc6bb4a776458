"""Events as TensorBoard itself reads them."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from heads import free_port
from s3ray.errors import UserError
from s3ray.execution import run_cell
from s3ray.execution.tensorboard import FOLDER, Curve, mirror, serve
from s3ray.stages.stage import StageRun
from s3ray.store import Store
from s3ray.sweep import CellPlan

pytestmark = pytest.mark.slow  # curves of a cell that was trained


@pytest.fixture(scope="module")
def finished(tiny_sweep: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, CellPlan]:
    """A store with one cell, whose stages wrote a part of their curve after every step; and the cell's plan."""
    store = Store(str(tmp_path_factory.mktemp("finished")))
    cell = tiny_sweep.tiny_plan(store, seeds=1).cells[0]
    run_cell(cell, tiny_sweep.DATA, store, lambda event: None, device=torch.device("cpu"), checkpoint_interval=0.0)
    return store, cell


def runs_of(cell: Any) -> dict[str, StageRun]:
    """Folder under tensorboard/ per run that trains."""
    selection = cell.branches[1].selection
    stages = {"specialization": cell.training, "selection_suff+min": selection}
    return {f"digits/chi2_batch32_seed0/{name}.{run.identity[:8]}": run for name, run in stages.items()}


def metrics_of(store: Store, run: StageRun) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(store.artifact(run, "rows.parquet"))).set_index("step")


def assert_curves(folder: Path, store: Store, run: StageRun) -> None:
    events = EventAccumulator(str(folder)).Reload()
    metrics = metrics_of(store, run)
    assert set(events.Tags()["scalars"]) == set(metrics.columns)
    for name in metrics:
        scalars = events.Scalars(name)
        assert [s.step for s in scalars] == metrics.index.tolist()
        assert [s.value for s in scalars] == pytest.approx(metrics[name].tolist(), rel=1e-6)  # float32
        assert [s.wall_time for s in scalars] == sorted(s.wall_time for s in scalars)


def test_parts_add_up_to_the_metrics(finished: tuple[Store, CellPlan]) -> None:
    store, cell = finished
    for name, run in runs_of(cell).items():
        folder = Path(store.path(FOLDER)) / name
        assert len(list(folder.iterdir())) == len(metrics_of(store, run))
        assert_curves(folder, store, run)


class Killed(BaseException):
    """Like a signal: nothing in the stages catches it."""


@pytest.mark.parametrize("method", ["write", "save_checkpoint"])
def test_a_resumed_stage_has_one_curve(
    finished: tuple[Store, CellPlan],
    tiny_sweep: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    """Die between writing a part and its checkpoint, or right after both; then run with other intervals."""
    store = Store(str(tmp_path))
    original = getattr(Store, method)

    def and_die(self: Store, *arguments: object) -> None:
        original(self, *arguments)
        if arguments[-1] == "events.out.tfevents.000000030" or arguments[1] == 30:
            raise Killed

    _, cell = finished
    training = {"device": torch.device("cpu"), "checkpoint_interval": 0.0}
    monkeypatch.setattr(Store, method, and_die)
    with pytest.raises(Killed):
        run_cell(cell, tiny_sweep.DATA, store, lambda event: None, **training)
    monkeypatch.undo()
    run_cell(cell, tiny_sweep.DATA, store, lambda event: None, **training | {"checkpoint_interval": 1e9})
    for name, run in runs_of(cell).items():
        assert_curves(tmp_path / FOLDER / name, store, run)


def test_a_stage_that_starts_afresh_replaces_its_curve(finished: tuple[Store, CellPlan], tmp_path: Path) -> None:
    plain, cell = finished
    store = Store(str(tmp_path))
    rows = metrics_of(plain, cell.training).reset_index().to_dict("records")
    for parts in ([10, 20, len(rows)], [len(rows)]):
        curve = Curve(store, cell.cell, cell.training, "specialization")
        curve.begin(0)
        for start, end in pairwise([0, *parts]):
            for _ in range(start, end):
                curve.stepped()
            curve.write(rows[:end])
        folder = tmp_path / FOLDER / next(iter(runs_of(cell)))
        assert len(list(folder.iterdir())) == len(parts)
        assert_curves(folder, plain, cell.training)


def test_the_mirror_follows(finished: tuple[Store, CellPlan], tmp_path: Path) -> None:
    store, cell = finished
    for _ in range(2):
        mirror(store, tmp_path)
        for name, run in runs_of(cell).items():
            assert_curves(tmp_path / name, store, run)
        next(tmp_path.rglob("*tfevents*")).unlink()


def get(url: str) -> Any:
    """The JSON that `url` answers with."""
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)


COMMAND = "from s3ray.cli import main; main()"
# An object store differs from a folder in that TensorBoard cannot read it.
REMOTE = """
import sys
from s3ray.execution.tensorboard import serve
from s3ray.store import Store

store = Store(sys.argv[3])
store.is_local = False
sys.exit(serve(store, int(sys.argv[5]), refresh=1.0))
"""


@pytest.mark.parametrize("code", [COMMAND, REMOTE], ids=["local", "remote"])
def test_one_command_opens_them_and_follows(finished: tuple[Store, CellPlan], tmp_path: Path, code: str) -> None:
    port = free_port()
    store, cell = finished
    runs = runs_of(cell)
    first, second = runs
    watched = Path(shutil.copytree(Path(store.path(FOLDER)) / first, tmp_path / FOLDER / first))
    late = sorted(watched.iterdir())[-1].rename(tmp_path / "late")
    process = subprocess.Popen(
        [sys.executable, "-c", code, "tensorboard", "--storage", str(tmp_path), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    url, deadline = f"http://localhost:{port}/data/plugin/scalars", time.monotonic() + 120

    def scalars(name: str, tag: str = "loss") -> Any:
        return get(f"{url}/scalars?{urlencode({'run': name, 'tag': tag})}")

    def wait_for(condition: Callable[[], Any]) -> None:
        while True:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            with suppress(OSError):
                if condition():
                    return
            time.sleep(0.2)

    try:
        wait_for(lambda: get(f"{url}/tags").keys() == {first})
        wait_for(lambda: len(scalars(first)) == len(metrics_of(store, runs[first])) - 1)
        late.rename(watched / f"events.out.tfevents.{len(metrics_of(store, runs[first])) - 1:09d}")
        shutil.copytree(Path(store.path(FOLDER)) / second, tmp_path / FOLDER / second)
        wait_for(lambda: get(f"{url}/tags").keys() == {first, second})
        for name, run in runs.items():
            metrics = metrics_of(store, run)
            assert set(get(f"{url}/tags")[name]) == set(metrics.columns)
            wait_for(lambda name=name, metrics=metrics: len(scalars(name)) == len(metrics))
            assert [step for _, step, _ in scalars(name)] == metrics.index.tolist()
            found = [value for _, _, value in scalars(name)]
            assert found == pytest.approx(metrics["loss"].tolist(), rel=1e-6)  # float32
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(30)
    assert process.returncode == 0


def test_what_is_missing_is_said(
    finished: tuple[Store, CellPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"holds no training curves; run a sweep on it first"):
        serve(Store(str(tmp_path)), 6006)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tensorboard: is not installed; pip install"):
        serve(finished[0], 6006)
