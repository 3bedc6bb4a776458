"""What a cell misses, run and committed, on every rank of a worker group or alone: no Ray."""

from s3ray.execution.cell import Event, run_cell

__all__ = ["Event", "run_cell"]
