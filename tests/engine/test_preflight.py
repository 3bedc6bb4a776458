from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from heads import Head
from s3ray.engine.preflight import Capacity, Execution, check_plan, check_storage, cluster_capacity
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
def test_slots(execution: Execution, capacity: Capacity, slots: int) -> None:
    assert capacity.slots(execution) == slots


def autoscaling(limit: int, head: Head, **kinds: tuple[dict[str, float], int]) -> dict[str, Any]:
    types = {name: {"resources": resources, "max_workers": most} for name, (resources, most) in kinds.items()}
    types["head"] = {"resources": head}
    return {"max_workers": limit, "head_node_type": "head", "available_node_types": types}


GPU_NODE = {"CPU": 8, "GPU": 1}


@pytest.mark.parametrize(
    ("config", "cpus", "gpus"),
    [
        (None, 2, 0),
        (autoscaling(8, {}, worker=({"CPU": 4}, 3)), 12, 0),
        # A fallback type allows as many nodes as the first; the cluster's limit holds for both together.
        (autoscaling(3, {"CPU": 0}, spot=(GPU_NODE, 3), fallback=(GPU_NODE, 3)), 24, 3),
        # Each resource at its own most: one node of 8 GPUs, or the two with the most CPUs.
        (autoscaling(2, {"CPU": 2}, large=({"CPU": 4, "GPU": 8}, 1), small=({"CPU": 16}, 2)), 34, 8),
        # What is there counts, however it came.
        (autoscaling(1, {}, worker=({"CPU": 1}, 1)), 2, 0),
    ],
)
def test_a_cluster_counts_as_large_as_it_can_grow(config: dict[str, Any] | None, cpus: int, gpus: int) -> None:
    capacity = cluster_capacity({"CPU": 2.0}, 1, config)
    assert (capacity.cpus, capacity.gpus, capacity.nodes) == (cpus, gpus, 2 if config else 1)


def test_the_maximum_can_be_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3RAY_MAX_CPUS", "32")
    monkeypatch.setenv("S3RAY_MAX_GPUS", "8")
    assert cluster_capacity({"CPU": 0.0}, 1, None) == Capacity(32, 8, 2)
    monkeypatch.setenv("S3RAY_MAX_GPUS", "many")
    with pytest.raises(UserError, match="S3RAY_MAX_GPUS=many: must be a whole number"):
        cluster_capacity({"CPU": 0.0}, 1, None)


def test_more_workers_than_the_cluster_holds() -> None:
    with pytest.raises(UserError, match=r"--workers-per-trial 3: needs 3 CPU, this machine holds at most 2 CPU; use"):
        Capacity(2, 0, 1, is_local=True).slots(Execution(workers_per_trial=3))


@pytest.mark.parametrize("options", [{"workers_per_trial": 0}, {"gpus_per_worker": -1}, {"gpus_per_worker": 1.5}])
def test_impossible_execution(options: dict[str, Any]) -> None:
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
