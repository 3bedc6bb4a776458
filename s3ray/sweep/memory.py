"""Whether what a plan still runs fits the memory of the machines that it would run on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from s3ray.methods import METHODS, S3
from s3ray.stages.cost import encoding_bytes, reference_bytes, training_bytes
from s3ray.stages.encode import SAMPLES_AT_ONCE, Begun
from s3ray.sweep.plan import CellPlan, Plan

_STEPS = (1000, 600, 400, 300, 200, 100, 60, 40, 30, 20, 10)  # what is tried as --max-steps


def worker_bytes(cell: CellPlan, workers: int = 1) -> float:
    """What a worker needs at its peak, training, encoding or fitting probes; `workers` share a batch."""
    model, method = cell.training.config.model, cell.cell.method
    facts = cell.facts.padded if cell.training.routes_padding else cell.facts
    two_views = method == S3 and cell.training.config.training.views == "dropout"
    passes = min(METHODS[method].passes, 2) if method != S3 else 1 + two_views  # objectives in turns hold one each
    pools = [run.config.pruning.pool for branch in cell.branches for run in branch.curve[1:]]
    training = training_bytes(model, facts, max(cell.cell.batch_size // workers, 1), passes)
    encoding = encoding_bytes(model, facts, max([SAMPLES_AT_ONCE, *pools]), Begun.ROOM)
    return max(training, encoding, reference_bytes(facts))


def largest(plan: Plan, workers: int = 1) -> tuple[float, CellPlan | None]:
    """Bytes of the pending cell whose worker needs most; 0 if there is none."""
    return max(
        ((worker_bytes(cell, workers), cell) for cell in plan.pending), key=lambda one: one[0], default=(0, None)
    )


def at_once(needed: float, nodes: Sequence[float], workers: int = 1) -> int:
    """How many groups of `workers` fit into nodes with so many free bytes each."""
    return int(sum(free // max(needed, 1.0) for free in nodes)) // workers


def refusal(plan: Plan, nodes: Sequence[float], workers: int = 1) -> str:
    """A sentence if a pending cell fits nowhere, with what would help; else empty."""
    needed, cell = largest(plan, workers)
    if cell is None or at_once(needed, nodes, workers):
        return ""
    facts, remedies = cell.facts, []
    for most in _STEPS if facts.kind == "user" else ():
        mean = {m: min(steps, most) for m, steps in facts.mean_steps.items()}
        longest = {m: min(steps, most) for m, steps in facts.most_steps.items()}
        shorter = dataclasses.replace(cell, facts=dataclasses.replace(facts, mean_steps=mean, most_steps=longest))
        if longest != facts.most_steps and at_once(worker_bytes(shorter, workers), nodes, workers):
            remedies.append(f"--max-steps {most}")
            break
    remedies += ["a smaller batch (batch_sizes in --config)", "fewer features", "a machine with more"]
    group = (
        f"{workers} workers need {needed / 1e9:.2g} GB of memory each"
        if workers > 1
        else (f"a worker needs {needed / 1e9:.2g} GB of memory")
    )
    free = f"{max(nodes) / 1e9:.2g} GB are free"
    return f"{cell.cell}: {group}, {free}; take {', '.join(remedies[:-1])} or {remedies[-1]}"
