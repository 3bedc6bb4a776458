"""A cell from start to finish without Ray, and its resumption."""

import io
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from s3ray.engine.cell import run_cell
from s3ray.stages import DivergedError
from s3ray.store import Store
from s3ray.sweep.plan import plan_cell


def run(plan, data, store, report=lambda event: None, interval=1e9):
    run_cell(plan, data, store, report, device=torch.device("cpu"), checkpoint_interval=interval)


@pytest.fixture(scope="module")
def finished(tiny_sweep, tmp_path_factory):
    """A store with one cell run without interruption, and its plan."""
    store = Store(str(tmp_path_factory.mktemp("finished")))
    cell = tiny_sweep.tiny_plan(store, seeds=1).cells[0]
    events = []
    run(cell, tiny_sweep.DATA, store, events.append)
    return store, cell, events


class Killed(BaseException):
    """Like a signal: nothing in the stages catches it."""


def test_every_stage_is_committed_once_and_in_order(finished, tiny_sweep):
    store, cell, events = finished
    assert set(store.markers(cell.runs)) == {run.identity for run in cell.runs}
    assert [(e.state, e.stage) for e in events if e.state == "finished"] == [
        ("finished", "specialization"),
        ("finished", "sparsification none"),
        ("finished", "selection suff+min"),
        ("finished", "sparsification suff+min"),
        ("finished", "reference"),
    ]
    again = []
    run(cell, tiny_sweep.DATA, store, again.append)
    assert again == []


def test_rows_and_metrics(finished):
    store, cell, _ = finished
    curve = pd.read_parquet(io.BytesIO(store.artifact(cell.branches[1].curve, "rows.parquet")))
    assert curve[["preservation_ratio", "split"]].to_numpy().tolist() == [
        [1.0, "valid"],
        [1.0, "test"],
        [0.5, "valid"],
        [0.5, "test"],
    ]
    assert curve["accuracy"].between(0.1, 1.0).all()
    half, full = curve.set_index("preservation_ratio").loc[[0.5, 1.0], "active_parameters"].groupby(level=0).mean()
    assert half < full
    metrics = pd.read_parquet(io.BytesIO(store.artifact(cell.training, "metrics.parquet")))
    # 397 training samples: 12 batches of 32 per epoch, 6 epochs.
    assert metrics["step"].tolist() == list(range(72))
    assert {"loss", "rep", "dsc", "local_entropy/rows", "global_entropy/columns"} <= set(metrics.columns)


@pytest.mark.parametrize("size", [0, 1000])
def test_a_checkpoint_that_was_cut_short_is_none(finished, tiny_sweep, tmp_path, size):
    plain, cell, _ = finished
    store = Store(str(tmp_path))
    checkpoint = io.BytesIO()
    torch.save({"step": 3, "metrics": [], "parameters": {"w": torch.ones(2000)}, "solvers": []}, checkpoint)
    store.save_checkpoint(cell.training, 3, checkpoint.getvalue()[:size])
    run(cell, tiny_sweep.DATA, store)
    name = "weights.safetensors"
    assert store.artifact(cell.training, name) == plain.artifact(cell.training, name)


@pytest.mark.parametrize(("stage", "checkpoint"), [("specialization", 1), ("specialization", 30), ("selection", 5)])
def test_a_killed_cell_resumes_and_ends_bit_identical(finished, tiny_sweep, tmp_path, monkeypatch, stage, checkpoint):
    """Die right after a checkpoint of `stage` is written; the next call continues from there."""
    store = Store(str(tmp_path))
    save = Store.save_checkpoint

    def save_and_die(self, run, step, content):
        save(self, run, step, content)
        if run.stage == stage and step >= checkpoint:
            raise Killed

    plain, cell, _ = finished
    monkeypatch.setattr(Store, "save_checkpoint", save_and_die)
    with pytest.raises(Killed):
        run(cell, tiny_sweep.DATA, store, interval=0.0)
    monkeypatch.undo()
    interrupted = cell.training if stage == "specialization" else cell.branches[1].selection
    assert store.checkpoint_step(interrupted) == checkpoint
    events = []
    run(cell, tiny_sweep.DATA, store, events.append)
    for part in (cell.training, cell.branches[1].selection):
        for name in ("weights.safetensors", "metrics.parquet"):
            assert store.artifact(part, name) == plain.artifact(part, name), (part.stage, name)
    measured = ["preservation_ratio", "split", "accuracy", "pairs_kept"]
    for branch in cell.branches:
        resumed, expected = (
            pd.read_parquet(io.BytesIO(s.artifact(branch.curve, "rows.parquet")))[measured] for s in (store, plain)
        )
        pd.testing.assert_frame_equal(resumed, expected)
    assert store.checkpoint_step(interrupted) is None
    started = [event.stage for event in events if event.state == "started"]
    assert ("specialization" in started) == (stage == "specialization")


def test_a_diverging_cell_says_so_and_commits_nothing(tiny_sweep, tmp_path):
    store = Store(str(tmp_path))
    cell = tiny_sweep.diverging(tiny_sweep.tiny_plan(store, seeds=1), 0).cells[0]
    with pytest.raises(
        DivergedError, match=r"the loss became (nan|inf) at step 1 of 72 \(rep, dsc\); no step was taken"
    ):
        run(cell, tiny_sweep.DATA, store)
    assert store.markers(cell.runs) == {}


@pytest.mark.parametrize("lost", ["commit.json", "weights.safetensors"])
def test_a_selection_that_was_lost_is_run_again_without_its_curve(finished, tiny_sweep, tmp_path, lost):
    plain, cell, _ = finished
    shutil.copytree(plain.base, tmp_path / "copy")
    store = Store(str(tmp_path / "copy"))
    selection = cell.branches[1].selection
    (file,) = Path(store.path("artifacts", selection.stage, selection.identity)).rglob(lost)
    file.unlink()
    events = []
    run(cell, tiny_sweep.DATA, store, events.append)
    assert [event.stage for event in events if event.state == "finished"] == ["selection suff+min"]
    assert store.artifact(selection, "weights.safetensors") == plain.artifact(selection, "weights.safetensors")


def test_weights_that_were_deleted_are_trained_again_for_another_branch(finished, tiny_sweep, tmp_path):
    plain, cell, _ = finished
    shutil.copytree(plain.base, tmp_path / "copy")
    store = Store(str(tmp_path / "copy"))
    (weights,) = Path(store.path("artifacts", "specialization", cell.training.identity)).rglob("weights.safetensors")
    weights.unlink()
    other = plan_cell(cell.cell, cell.settings, cell.facts, ("suff",))
    events = []
    run(other, tiny_sweep.DATA, store, events.append)
    stages = ["specialization", "selection suff", "sparsification suff"]
    assert [event.stage for event in events if event.state == "finished"] == stages
    assert store.artifact(cell.training, weights.name) == plain.artifact(cell.training, weights.name)
