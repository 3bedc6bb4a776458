"""What must hold before a cluster is used, and what a cluster can hold."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s3ray.config import UserError
from s3ray.store import Store
from s3ray.sweep import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a sweep is run. Nothing here changes a result, so nothing here is part of an identity."""

    workers_per_trial: int = 1
    gpus_per_worker: float = 0.0
    verbose: bool = False
    checkpoint_interval: float = 60.0  # seconds

    def __post_init__(self) -> None:
        if self.workers_per_trial < 1:
            raise UserError(f"--workers-per-trial: {self.workers_per_trial} is below 1; use 1 or more")
        if self.gpus_per_worker < 0 or (self.gpus_per_worker > 1 and self.gpus_per_worker % 1):
            raise UserError(
                f"--gpus-per-worker: {self.gpus_per_worker} must be a fraction below 1 or a whole number; correct it"
            )

    @property
    def resources_per_worker(self) -> dict[str, float]:
        return {"CPU": 1.0} | ({"GPU": self.gpus_per_worker} if self.gpus_per_worker else {})


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a cluster can grow to."""

    cpus: float
    gpus: float
    nodes: int
    is_local: bool = False  # a Ray that this process starts on this machine

    def slots(self, execution: Execution) -> int:
        """How many worker groups fit at once.

        Train places its workers outside Tune's view, so this number is the only guard against overload.

        Raises:
            UserError: not even one.
        """
        needed = {name: execution.workers_per_trial * n for name, n in execution.resources_per_worker.items()}
        held = {"CPU": self.cpus, "GPU": self.gpus}
        workers = [math.floor(self.cpus)]
        if 0 < execution.gpus_per_worker < 1:  # a worker's share never spans two GPUs
            workers.append(math.floor(self.gpus) * math.floor(1 / execution.gpus_per_worker + 1e-9))
        elif execution.gpus_per_worker:
            workers.append(math.floor(self.gpus / execution.gpus_per_worker))
        slots = min(workers) // execution.workers_per_trial
        if slots < 1:
            wants = " and ".join(f"{amount:g} {name}" for name, amount in needed.items())
            where = "this machine" if self.is_local else "the cluster"
            holds = " and ".join(f"{held[name]:g} {name}" for name in needed)
            raise UserError(
                f"--workers-per-trial {execution.workers_per_trial}: needs {wants}, {where} holds at most "
                f"{holds}; use fewer workers or a larger cluster"
            )
        return slots


def cluster_capacity(present: Mapping[str, float], nodes: int, autoscaling: Mapping[str, Any] | None) -> Capacity:
    """What a cluster can grow to.

    Args:
        present: resources of all nodes that are up.
        nodes: how many that are.
        autoscaling: the autoscaler's configuration, as in a cluster YAML; None without one. The environment
            variable S3RAY_MAX_RESOURCES says it where the file is out of reach, as on Kubernetes: `CPU=32,GPU=8`.

    Raises:
        UserError: S3RAY_MAX_RESOURCES is not written like that.
    """
    largest = dict(present)
    declared = os.environ.get("S3RAY_MAX_RESOURCES")
    if declared:
        try:
            largest |= {name: float(amount) for name, amount in (part.split("=") for part in declared.split(","))}
        except ValueError as error:
            raise UserError(f"S3RAY_MAX_RESOURCES={declared!r}: write it like CPU=32,GPU=8") from error
    elif autoscaling is not None:
        limit, head = autoscaling["max_workers"], autoscaling["head_node_type"]
        kinds = [kind for name, kind in autoscaling["available_node_types"].items() if name != head]
        for resource in ("CPU", "GPU"):
            # Spot and on-demand types may each be allowed as many nodes as the whole cluster.
            held = [k["resources"].get(resource, 0) for k in kinds for _ in range(min(k.get("max_workers", 0), limit))]
            of_head = autoscaling["available_node_types"][head].get("resources", {}).get(resource, 0)
            most = of_head + sum(sorted(held, reverse=True)[:limit])
            largest[resource] = max(largest.get(resource, 0.0), most)
    # A cluster that can grow has several nodes sooner or later.
    can_grow = bool(declared or autoscaling)
    return Capacity(largest.get("CPU", 0.0), largest.get("GPU", 0.0), max(nodes, 2) if can_grow else nodes)


def check_plan(plan: Plan, store: Store, execution: Execution) -> None:
    """UserError unless every batch divides over the workers and the store takes writes."""
    for cell in plan.pending:
        if cell.cell.batch_size % execution.workers_per_trial:
            raise UserError(
                f"--workers-per-trial {execution.workers_per_trial}: does not divide batch size "
                f"{cell.cell.batch_size} of {cell.cell.dataset}; use a divisor, since losses span the global batch"
            )
    store.check_writable()


def check_storage(store: Store, capacity: Capacity) -> None:
    """UserError for a local path on a cluster of several nodes, whose workers could not share it."""
    if store.is_local and capacity.nodes > 1 and not os.environ.get("S3RAY_SHARED_FILESYSTEM"):
        raise UserError(
            f"--storage {store.uri}: a local path on a cluster of {capacity.nodes} nodes; use s3://…, gs://…, or "
            f"set S3RAY_SHARED_FILESYSTEM=1 if every node mounts it"
        )
