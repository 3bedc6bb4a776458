"""The first result counts for good: who comes second goes on from it, and nothing stands on what is gone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import torch as safetensors

from s3ray.execution import Event, run_cell
from s3ray.execution.audit import audit
from s3ray.stages.stage import StageRun
from s3ray.store import Committed, Store
from s3ray.sweep import CellPlan

pytestmark = pytest.mark.slow  # trains

PATIENCE = 240  # seconds; only catches a hang


def cell_of(tiny_sweep: ModuleType, store: Store) -> CellPlan:
    cell: CellPlan = tiny_sweep.tiny_plan(store, seeds=1, epochs=1).cells[0]
    return cell


def run(cell: CellPlan, tiny_sweep: ModuleType, store: Store) -> list[Event]:
    events: list[Event] = []
    run_cell(cell, tiny_sweep.DATA, store, events.append, device=torch.device("cpu"), checkpoint_interval=1e9)
    return events


@pytest.fixture(scope="module")
def filled(tiny_sweep: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(str(tmp_path_factory.mktemp("filled")))
    store.publish_dataset(tiny_sweep.DATA)
    run(cell_of(tiny_sweep, store), tiny_sweep, store)
    return store


@pytest.fixture
def store(filled: Store, tmp_path: Path) -> Store:
    shutil.copytree(filled.base, tmp_path / "copy")
    return Store(str(tmp_path / "copy"))


def assert_all_follows(store: Store, cell: CellPlan) -> None:
    """Everything is committed, and what measures is what the stored parents give, bit for bit."""
    assert store.markers(cell.runs).keys() == {run.identity for run in cell.runs}
    found = audit(store, sample=100, draw=random.Random(0))
    measured = [sample for sample in found.samples if sample.stage not in ("specialization", "selection")]
    assert measured
    assert found.faults == []
    assert all(sample.is_equal for sample in measured), found.lines()


def other_weights(content: bytes) -> bytes:
    """As another kind of machine may compute them, only further away."""
    tensors = safetensors.load(content)
    return safetensors.save({name: tensor + 0.01 for name, tensor in tensors.items()})


def test_who_comes_second_goes_on_from_the_first_result(
    filled: Store, tiny_sweep: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer commits both trainings while this one is at them."""
    store = Store(str(tmp_path))
    store.publish_dataset(tiny_sweep.DATA)
    cell, commit = cell_of(tiny_sweep, store), Store.commit
    faster: dict[str, Committed] = {}

    def beaten(self: Store, run: StageRun, files: Any, **more: Any) -> Committed:
        if run.stage.trains:
            theirs = {**files, "weights.safetensors": other_weights(files["weights.safetensors"])}
            faster[run.identity] = commit(self, run, theirs, **more)
        return commit(self, run, files, **more)

    monkeypatch.setattr(Store, "commit", beaten)
    run(cell, tiny_sweep, store)
    monkeypatch.undo()
    assert_all_follows(store, cell)
    markers = store.markers(cell.runs)
    selection = cell.branches[1].trained
    assert {identity: markers[identity] for identity in faster} == {i: c.marker for i, c in faster.items()}
    assert markers[selection.identity].parent_attempt == markers[cell.training.identity].attempt
    for part in (cell.training, selection):
        folder = ("artifacts", part.stage.name, part.identity)
        (drift,) = [name for name in store.names(*folder) if name.startswith("drift-")]
        written = json.loads(store.read(*folder, drift))
        assert written["weights"] == pytest.approx(0.01, rel=1e-3)
        assert (written["rows"], written["attempt"]) == (0.0, markers[part.identity].attempt)
        assert written["kept"]["machine"] == written["left"]["machine"]
    table = audit(store).drifts
    assert [line["stage"] for line in table] == ["selection", "specialization"]


@pytest.mark.parametrize("harm", ["weights.safetensors", "rows.parquet"])
def test_what_turns_out_damaged_is_computed_again_in_the_same_call(
    store: Store, tiny_sweep: ModuleType, harm: str
) -> None:
    """The weights of a parent, of which one child is missing; rows are looked at by whoever collects them."""
    cell = cell_of(tiny_sweep, store)
    missing = cell.branches[0].curve[-1]
    shutil.rmtree(store.path("artifacts", missing.stage.name, missing.identity))
    (file,) = Path(store.path("artifacts", "specialization", cell.training.identity)).rglob(harm)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    events = run(cell, tiny_sweep, store)
    damaged = [event.cause for event in events if event.state == "damaged"]
    finished = [event.stage for event in events if event.state == "finished"]
    if harm == "rows.parquet":
        assert (damaged, finished) == ([], ["sparsification none"])
        return
    assert [harm in cause and "set aside as" in cause for cause in damaged] == [True]
    assert finished[0] == "specialization"  # and all that stood on it
    assert {"selection suff+min", "sparsification suff+min"} <= set(finished)
    assert "reference" not in finished
    assert_all_follows(store, cell)
    assert audit(store).set_aside == 1


def test_what_was_computed_from_a_parent_that_is_gone_is_pending(store: Store, tiny_sweep: ModuleType) -> None:
    cell = cell_of(tiny_sweep, store)
    Path(store.path("artifacts", "specialization", cell.training.identity, "commit.json")).unlink()
    plan = tiny_sweep.tiny_plan(store, seeds=1, epochs=1)
    to_run = {stage: counts["to_run"] for stage, counts in plan.summary()["stages"].items()}
    assert to_run["specialization"] == to_run["selection"] == 1
    assert to_run["reference"] == to_run["untrained"] == 0
    children = {run.identity for run in cell.runs if cell.training in (run, *run.ancestors)}
    assert {run.identity for run in cell.missing(plan.committed)} == children
    run(cell, tiny_sweep, store)
    assert_all_follows(store, cell)


STOPPED = """
import os, signal, sys
import torch
import tiny_sweep
from s3ray.execution import run_cell
from s3ray.store import Store

torch.set_num_threads(1)
commit = Store.commit

def stopped(self, run, files, **more):
    if run.stage.name == sys.argv[2]:
        print("stopped", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    return commit(self, run, files, **more)

Store.commit = stopped
store = Store(sys.argv[1])
cell = tiny_sweep.tiny_plan(store, seeds=1, epochs=1).cells[0]
run_cell(cell, tiny_sweep.DATA, store, lambda event: None, device=torch.device("cpu"), checkpoint_interval=1e9)
"""


def test_a_writer_that_was_stopped_before_its_commit_changes_nothing(tiny_sweep: ModuleType, tmp_path: Path) -> None:
    """It computes with other kernels, sleeps until another process has finished the cell, and wakes up."""
    store = Store(str(tmp_path))
    store.publish_dataset(tiny_sweep.DATA)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "ATEN_CPU_CAPABILITY": "default"}
    command = [sys.executable, "-c", STOPPED, store.base, "specialization"]
    late = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert late.stdout is not None
        assert late.stdout.readline() == "stopped\n"
        cell = cell_of(tiny_sweep, store)
        run(cell, tiny_sweep, store)
        before = store.markers(cell.runs)
        late.send_signal(signal.SIGCONT)
        assert late.wait(PATIENCE) == 0
    finally:
        late.kill()
        late.wait()
    assert store.markers(cell.runs) == before
    assert_all_follows(store, cell)
    drifts = audit(store).drifts
    (drift,) = drifts  # it does nothing more of a cell that is done
    assert drift["stage"] == "specialization"
    assert drift["kept"] != drift["left"]
