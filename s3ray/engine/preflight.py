"""What must hold before a cluster is used, and what a cluster can hold."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass

from s3ray.errors import UserError
from s3ray.store import Store
from s3ray.sweep import Plan
from s3ray.sweep.memory import at_once, refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a sweep is run. Nothing here changes a result, so nothing here is part of an identity."""

    workers_per_trial: int = 1
    gpus_per_worker: float = 0.0
    verbose: bool = False
    checkpoint_interval: float = 60.0  # seconds
    memory_per_worker: float = 0.0  # bytes at its peak; 0: not known

    def __post_init__(self) -> None:
        if self.workers_per_trial < 1:
            raise UserError(f"--workers-per-trial: {self.workers_per_trial} is below 1; use 1 or more")
        if not 0 <= self.gpus_per_worker < math.inf or (self.gpus_per_worker > 1 and self.gpus_per_worker % 1):
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
    is_declared: bool = False  # by S3RAY_MAX_CPUS or S3RAY_MAX_GPUS; else it is what is there now
    memory: tuple[float, ...] = ()  # free bytes of each node; empty: not known, or nodes are still to come

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
            holds = " and ".join(f"{held[name]:g} {name}" for name in needed)
            where, remedy = f"the cluster has {holds} now", "use fewer workers or a larger cluster"
            if self.is_local or self.is_declared:
                where = f"{'this machine' if self.is_local else 'the cluster'} holds at most {holds}"
            else:
                unsaid = " and ".join(f"S3RAY_MAX_{name}S" for name in needed)
                remedy += f", or, if it grows, say in its file how far ({unsaid})"
            raise UserError(f"--workers-per-trial {execution.workers_per_trial}: needs {wants}, {where}; {remedy}")
        if self.memory and execution.memory_per_worker and not execution.gpus_per_worker:
            # Where not even one fits, `check_memory` has said so.
            slots = min(slots, max(at_once(execution.memory_per_worker, self.memory, execution.workers_per_trial), 1))
        return slots


def cluster_capacity(present: Mapping[str, float], nodes: int, memory: tuple[float, ...] = ()) -> Capacity:
    """What a cluster can grow to: what S3RAY_MAX_CPUS and S3RAY_MAX_GPUS say, else what is there.

    Ray tells nobody how far its autoscaler may go; the cluster's file says it, in the environment of its jobs.

    Args:
        present: resources of all nodes that are up.
        nodes: how many that are.
        memory: bytes of each that takes workers.

    Raises:
        UserError: a variable is no number.
    """
    most = {name: max(present.get(name, 0.0), _declared(name)) for name in ("CPU", "GPU")}
    declared = any(map(_declared, most))
    # A cluster that can grow has several nodes sooner or later.
    if declared:
        return Capacity(most["CPU"], most["GPU"], max(nodes, 2), is_declared=True)
    return Capacity(most["CPU"], most["GPU"], nodes, memory=memory)


def _declared(resource: str) -> float:
    value = os.environ.get(f"S3RAY_MAX_{resource}S") or "0"
    if not value.isdecimal():
        raise UserError(f"S3RAY_MAX_{resource}S={value}: must be a whole number; correct the cluster's file")
    return float(value)


def check_plan(plan: Plan, store: Store, execution: Execution) -> None:
    """UserError unless every batch divides over the workers and the store takes writes."""
    for cell in plan.pending:
        if cell.cell.batch_size % execution.workers_per_trial:
            raise UserError(
                f"--workers-per-trial {execution.workers_per_trial}: does not divide batch size "
                f"{cell.cell.batch_size} of {cell.cell.dataset}; use a divisor, since losses span the global batch"
            )
    store.check_writable()


def unguarded(store: Store) -> str | None:
    """What to know of storage without conditional writes; None if it has them.

    Raises:
        UserError: it could not be asked.
    """
    remedy = "try again, or give credentials through the environment, where its own client finds them too"
    with store.explained("asked for conditional writes", remedy):
        if store.honours_conditions:
            return None
    return (
        f"{store.address()}: has no conditional writes; two sweeps at once may compute the same thing twice, and the "
        f"later result may replace the earlier one"
    )


def check_memory(plan: Plan, execution: Execution, capacity: Capacity) -> None:
    """UserError if a worker would need more memory than there is. On a GPU it is the GPU's, which is not looked at."""
    if execution.gpus_per_worker or not capacity.memory:
        return
    if sentence := refusal(plan, capacity.memory, execution.workers_per_trial):
        raise UserError(sentence)


def check_storage(store: Store, capacity: Capacity) -> None:
    """UserError for a local path on a cluster of several nodes, whose workers could not share it."""
    if store.is_local and capacity.nodes > 1 and not os.environ.get("S3RAY_SHARED_FILESYSTEM"):
        raise UserError(
            f"--storage {store.uri}: a local path on a cluster of {capacity.nodes} nodes; use s3://…, gs://…, or "
            f"set S3RAY_SHARED_FILESYSTEM=1 if every node mounts it"
        )
