"""A cell from start to finish without Ray, and its resumption."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch

from s3ray.data.dataset import Dataset
from s3ray.execution import Event, run_cell
from s3ray.settings import override
from s3ray.stages.stage import StageRun
from s3ray.stages.training import DivergedError
from s3ray.store import Store
from s3ray.sweep import CellPlan, curves, plan_cell

pytestmark = pytest.mark.slow  # trains

Finished = tuple[Store, CellPlan, list[Event]]


def run(
    plan: CellPlan,
    data: Dataset,
    store: Store,
    report: Callable[[Event], None] = lambda event: None,
    interval: float = 1e9,
) -> None:
    run_cell(plan, data, store, report, device=torch.device("cpu"), checkpoint_interval=interval)


def rows_of(store: Store, *runs: StageRun) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(io.BytesIO(store.artifact(run, "rows.parquet"))) for run in runs])


@pytest.fixture(scope="module")
def finished(tiny_sweep: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A store with one cell run without interruption, and its plan."""
    store = Store(str(tmp_path_factory.mktemp("finished")))
    cell = tiny_sweep.tiny_plan(store, seeds=1).cells[0]
    events: list[Event] = []
    run(cell, tiny_sweep.DATA, store, events.append)
    return store, cell, events


class Killed(BaseException):
    """Like a signal: nothing in the stages catches it."""


def test_every_stage_is_committed_once_and_in_order(finished: Finished, tiny_sweep: ModuleType) -> None:
    store, cell, events = finished
    assert set(store.markers(cell.runs)) == {run.identity for run in cell.runs}
    assert [(e.state, e.stage) for e in events if e.state == "finished"] == [
        ("finished", "specialization"),
        ("finished", "sparsification none"),
        ("finished", "selection suff+min"),
        ("finished", "sparsification suff+min"),
        ("finished", "controls"),
        ("finished", "untrained"),
        ("finished", "reference"),
    ]
    again: list[Event] = []
    run(cell, tiny_sweep.DATA, store, again.append)
    assert again == []


def test_of_curves_alone_the_best_accuracy_is_said(finished: Finished, tiny_sweep: ModuleType, tmp_path: Path) -> None:
    plain, cell, events = finished
    told = [event.stage for event in events if "valid_accuracy" in event.metrics]
    assert told == ["sparsification none", "sparsification suff+min"]
    shutil.copytree(plain.base, tmp_path / "copy")
    store = Store(str(tmp_path / "copy"))
    for point in cell.branches[0].curve:
        store.drop("artifacts", point.stage.name, point.identity)
    # No class of the validation split is among those that the probe is fitted to.
    train, valid = tiny_sweep.DATA.train, tiny_sweep.DATA.valid
    data = replace(
        tiny_sweep.DATA,
        train=replace(train, labels=train.labels % 5),
        valid=replace(valid, labels=valid.labels % 5 + 5),
    )
    again: list[Event] = []
    run(cell, data, store, again.append)
    (finish,) = (event for event in again if event.state == "finished")
    assert finish.metrics == {"valid_accuracy": 0.0}


def test_rows_and_metrics(finished: Finished) -> None:
    store, cell, _ = finished
    curve = rows_of(store, *cell.branches[1].curve)
    assert curve[["preservation_ratio", "split"]].to_numpy().tolist() == [
        [1.0, "valid"],
        [1.0, "test"],
        [0.5, "valid"],
        [0.5, "test"],
    ]
    assert curve["accuracy"].between(0.1, 1.0).all()
    half, full = curve.set_index("preservation_ratio").loc[[0.5, 1.0], "active_parameters"].groupby(level=0).mean()
    assert half < full
    metrics = rows_of(store, cell.training)
    # 397 training samples: 12 batches of 32 per epoch, 6 epochs.
    assert metrics["step"].tolist() == list(range(72))
    assert {"loss", "rep", "dsc", "local_entropy/rows", "global_entropy/columns"} <= set(metrics.columns)


def test_a_checkpoint_of_other_shapes_is_none(finished: Finished, tiny_sweep: ModuleType, tmp_path: Path) -> None:
    plain, cell, _ = finished
    store = Store(str(tmp_path))
    checkpoint = io.BytesIO()
    snapshot = {"step": 3, "metrics": [], "parameters": {"w": torch.ones(2000)}, "solvers": []}
    torch.save({"snapshot": snapshot, "seconds": 1.0}, checkpoint)
    store.save_checkpoint(cell.training, 2, b"another program's")
    store.save_checkpoint(cell.training, 3, checkpoint.getvalue())
    run(cell, tiny_sweep.DATA, store)
    name = "weights.safetensors"
    assert store.artifact(cell.training, name) == plain.artifact(cell.training, name)


@pytest.mark.parametrize(("stage", "checkpoint"), [("specialization", 1), ("specialization", 30), ("selection", 5)])
def test_a_killed_cell_resumes_and_ends_bit_identical(
    finished: Finished, tiny_sweep: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str,
    checkpoint: int,
) -> None:  # fmt: skip
    """Die right after a checkpoint of `stage` is written; the next call continues from there."""
    store = Store(str(tmp_path))
    save = Store.save_checkpoint

    def save_and_die(self: Store, run: StageRun, step: int, content: bytes) -> None:
        save(self, run, step, content)
        if run.stage.name == stage and step >= checkpoint:
            raise Killed

    plain, cell, _ = finished
    monkeypatch.setattr(Store, "save_checkpoint", save_and_die)
    with pytest.raises(Killed):
        run(cell, tiny_sweep.DATA, store, interval=0.0)
    monkeypatch.undo()
    interrupted = cell.training if stage == "specialization" else cell.branches[1].selection
    assert interrupted is not None
    assert store.checkpoint_step(interrupted) == checkpoint
    events: list[Event] = []
    run(cell, tiny_sweep.DATA, store, events.append)
    for part in (cell.training, cell.branches[1].trained):
        for name in ("weights.safetensors", "rows.parquet"):
            assert store.artifact(part, name) == plain.artifact(part, name), (part.stage.name, name)
    measured = ["preservation_ratio", "split", "accuracy", "pairs_kept"]
    for branch in cell.branches:
        resumed, expected = (rows_of(s, *branch.curve)[measured] for s in (store, plain))
        pd.testing.assert_frame_equal(resumed, expected)
    assert store.checkpoint_step(interrupted) is None
    started = [event.stage for event in events if event.state == "started"]
    assert ("specialization" in started) == (stage == "specialization")


def test_a_diverging_cell_says_so_and_commits_nothing(tiny_sweep: ModuleType, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    cell = tiny_sweep.diverging(tiny_sweep.tiny_plan(store, seeds=1), 0).cells[0]
    with pytest.raises(
        DivergedError, match=r"the loss became (nan|inf) at step 1 of 72 \(rep, dsc\); no step was taken"
    ):
        run(cell, tiny_sweep.DATA, store)
    assert store.markers(cell.runs) == {}


@pytest.mark.parametrize("lost", ["commit.json", "weights.safetensors"])
def test_a_selection_that_was_lost_is_run_again_with_all_that_stood_on_it(
    finished: Finished, tiny_sweep: ModuleType, tmp_path: Path, lost: str
) -> None:
    plain, cell, _ = finished
    shutil.copytree(plain.base, tmp_path / "copy")
    store = Store(str(tmp_path / "copy"))
    selection = cell.branches[1].trained
    (file,) = Path(store.path("artifacts", selection.stage.name, selection.identity)).rglob(lost)
    file.unlink()
    events: list[Event] = []
    run(cell, tiny_sweep.DATA, store, events.append)
    stages = ["selection suff+min", "sparsification suff+min"]
    assert [event.stage for event in events if event.state == "finished"] == stages
    assert store.artifact(selection, "weights.safetensors") == plain.artifact(selection, "weights.safetensors")


def test_weights_that_were_deleted_are_trained_again_for_another_branch(
    finished: Finished, tiny_sweep: ModuleType, tmp_path: Path
) -> None:
    plain, cell, _ = finished
    shutil.copytree(plain.base, tmp_path / "copy")
    store = Store(str(tmp_path / "copy"))
    (weights,) = Path(store.path("artifacts", "specialization", cell.training.identity)).rglob("weights.safetensors")
    weights.unlink()
    other = plan_cell(cell.cell, tiny_sweep.settings(), cell.facts, curves(["suff"]))
    events: list[Event] = []
    run(other, tiny_sweep.DATA, store, events.append)
    stages = ["specialization", "selection suff", "sparsification suff", "controls"]
    assert [event.stage for event in events if event.state == "finished"] == stages
    assert store.artifact(cell.training, weights.name) == plain.artifact(cell.training, weights.name)


def test_seconds_of_a_resumed_stage_are_those_of_all_its_attempts(
    tiny_sweep: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They feed estimates and costs: the last attempt alone would be what its last steps took."""
    store = Store(str(tmp_path))
    cell = tiny_sweep.tiny_plan(store, seeds=1).cells[0]
    save = Store.save_checkpoint

    def save_and_die(self: Store, run: StageRun, step: int, content: bytes) -> None:
        if step == 71:
            time.sleep(0.5)
            save(self, run, step, content)
            raise Killed

    monkeypatch.setattr(Store, "save_checkpoint", save_and_die)
    started = time.monotonic()
    with pytest.raises(Killed):
        run(cell, tiny_sweep.DATA, store, interval=0.0)
    first = time.monotonic() - started - 0.5  # asleep, it was saved already
    monkeypatch.undo()
    events: list[Event] = []
    run(cell, tiny_sweep.DATA, store, events.append)
    (finished,) = [event for event in events if event.state == "finished" and event.stage == "specialization"]
    marker = store.marker(cell.training)
    assert marker is not None
    assert marker.seconds > 0.5 * first
    assert finished.seconds == pytest.approx(marker.seconds)


def test_a_new_ratio_costs_that_ratio_and_a_new_probe_no_training(
    finished: Finished, tiny_sweep: ModuleType, tmp_path: Path
) -> None:
    plain, cell, _ = finished
    shutil.copytree(plain.base, tmp_path / "copy")
    store = Store(str(tmp_path / "copy"))
    branches = [branch.branch for branch in cell.branches]

    def committed_anew(**tables: Any) -> list[str]:
        settings = override(tiny_sweep.settings(), tables, "changes")
        again = plan_cell(cell.cell, settings, cell.facts, curves(branches))
        missing = [run.stage.name for run in again.missing(store.markers(again.runs))]
        run(again, tiny_sweep.DATA, store)
        return missing

    # Ranked and at random, of both branches.
    assert committed_anew(sparsification={"ratios": [1.0, 0.5, 0.2]}) == ["sparsification"] * 4
    # The same of p 0.5, and of p 0; where nothing is pruned there is no pool.
    assert committed_anew(sparsification={"batch_size": 128}) == ["sparsification"] * 5
    points = ["probe", "sparsification", "sparsification"] * 2
    floors = ["sparsification", "untrained"]
    assert committed_anew(probe={"inverse_regularization": 0.3}) == [*points, *floors, "reference"]
    assert committed_anew(sparsification={"controls": ["random", "smallest"]}) == ["sparsification"] * 2
    assert committed_anew(sparsification={"controls": []}) == []


def test_what_another_cell_has_committed_meanwhile_is_not_computed_again(
    finished: Finished, tiny_sweep: ModuleType, tmp_path: Path
) -> None:
    """The untrained encoder is that of all batch sizes, the reference that of all cells; the rest is the cell's own."""
    plain, cell, _ = finished
    shutil.copytree(plain.base, tmp_path / "copy")
    store = Store(str(tmp_path / "copy"))
    shared = [cell.floors["untrained"], cell.reference]
    committed = store.markers(shared)
    own = cell.floors["no expert"]
    store.drop("artifacts", own.stage.name, own.identity)
    found_before = {run.identity for run in cell.runs} - {run.identity for run in [own, *shared]}
    events: list[Event] = []
    run_cell(
        cell, tiny_sweep.DATA, store, events.append, found_before, device=torch.device("cpu"), checkpoint_interval=1e9
    )
    assert [event.stage for event in events if event.state == "finished"] == ["controls"]
    assert store.markers(shared) == committed
    events.clear()
    run_cell(
        cell,
        tiny_sweep.DATA,
        store,
        events.append,
        found_before | {own.identity},
        device=torch.device("cpu"),
        checkpoint_interval=1e9,
    )
    assert events == []
