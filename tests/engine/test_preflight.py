from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from object_storage import ObjectStorage
from s3ray.engine.preflight import Capacity, Execution, check_plan, check_storage, cluster_capacity, unguarded
from s3ray.engine.run import run_plan
from s3ray.errors import UserError
from s3ray.store import Store


@pytest.mark.parametrize(
    ("execution", "capacity", "slots"),
    [
        (Execution(), Capacity(2, 0, 1), 2),
        (Execution(workers_per_trial=2), Capacity(5, 0, 1), 2),
        (Execution(gpus_per_worker=0.25), Capacity(64, 1, 1), 4),
        (Execution(gpus_per_worker=1, workers_per_trial=4), Capacity(64, 8, 2), 2),
        # 0.4 of a GPU: two workers on each of two GPUs, not five on both
        (Execution(gpus_per_worker=0.4), Capacity(64, 2, 1), 4),
        # ten GPUs' worth of quarter workers, but only eight CPUs
        (Execution(gpus_per_worker=0.25), Capacity(8, 10, 1), 8),
    ],
)
def test_slots(execution: Any, capacity: Any, slots: Any) -> None:
    assert capacity.slots(execution) == slots


def test_without_a_declaration_a_cluster_counts_as_what_is_there() -> None:
    assert cluster_capacity({"CPU": 2.0}, 1) == Capacity(2, 0, 1)
    with pytest.raises(
        UserError,
        match=r"needs 2 CPU and 2 GPU, the cluster has 2 CPU and 0 GPU now; use fewer workers or a larger cluster, or, "
        r"if it grows, say in its file how far \(S3RAY_MAX_CPUS and S3RAY_MAX_GPUS\)",
    ):
        cluster_capacity({"CPU": 2.0}, 1).slots(Execution(workers_per_trial=2, gpus_per_worker=1))


def test_the_maximum_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3RAY_MAX_CPUS", "32")
    # With nodes to come it has several, and what is there counts, however it came.
    assert cluster_capacity({"CPU": 0.0, "GPU": 1.0}, 1) == Capacity(32, 1, 2, is_declared=True)
    assert cluster_capacity({"CPU": 40.0}, 3) == Capacity(40, 0, 3, is_declared=True)
    with pytest.raises(UserError, match=r"the cluster holds at most 32 CPU; use fewer workers or a larger cluster$"):
        cluster_capacity({}, 1).slots(Execution(workers_per_trial=33))
    monkeypatch.setenv("S3RAY_MAX_GPUS", "many")
    with pytest.raises(UserError, match="S3RAY_MAX_GPUS=many: must be a whole number"):
        cluster_capacity({}, 1)


def test_more_workers_than_the_cluster_holds() -> None:
    with pytest.raises(UserError, match=r"--workers-per-trial 3: needs 3 CPU, this machine holds at most 2 CPU; use"):
        Capacity(2, 0, 1, is_local=True).slots(Execution(workers_per_trial=3))


@pytest.mark.parametrize("options", [{"workers_per_trial": 0}, {"gpus_per_worker": -1}, {"gpus_per_worker": 1.5}])
def test_impossible_execution(options: Any) -> None:
    with pytest.raises(UserError):
        Execution(**options)


def test_a_local_path_needs_a_single_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    check_storage(store, Capacity(2, 0, 1))
    with pytest.raises(UserError, match="a local path on a cluster of 3 nodes"):
        check_storage(store, Capacity(6, 0, 3))
    monkeypatch.setenv("S3RAY_SHARED_FILESYSTEM", "1")
    check_storage(store, Capacity(6, 0, 3))


def test_batches_divide_over_the_workers(tiny_sweep: ModuleType, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    plan = tiny_sweep.tiny_plan(store)
    check_plan(plan, store, Execution(workers_per_trial=2))
    with pytest.raises(UserError, match="does not divide batch size 32 of digits"):
        check_plan(plan, store, Execution(workers_per_trial=3))


def test_a_plan_with_nothing_left_starts_nothing(tiny_sweep: ModuleType, tmp_path: Path) -> None:
    """Workers may have finished a cell after their driver was killed."""
    store = Store(str(tmp_path))
    plan = replace(tiny_sweep.tiny_plan(store, seeds=1), cells=())
    outcome = run_plan(plan, store, {}, Execution(), Console())
    assert (outcome.cells, outcome.failures, outcome.plan) == (0, {}, plan)


def test_storage_that_could_not_be_asked_is_said_to_be_so(object_storage: ObjectStorage) -> None:
    """Not that it lacks something: pyarrow may know credentials that obstore does not."""
    object_storage.fault = lambda method, path: object_storage.faults.DENIED
    with pytest.raises(
        UserError, match=r"^--storage s3://.*: cannot be asked for conditional writes \(.*AccessDenied.*"
    ):
        unguarded(Store(object_storage.uri))


def test_storage_without_conditional_writes_is_said_to_be_so(object_storage: ObjectStorage, tmp_path: Path) -> None:
    assert unguarded(Store(str(tmp_path))) is None
    assert unguarded(Store(object_storage.uri)) is None
    object_storage.conditions = False
    said = unguarded(Store(object_storage.uri))
    assert said is not None
    assert said.startswith(f"s3://bucket/{object_storage.prefix}: has no conditional writes; two sweeps at once may ")
