"""Two gloo workers that run a test file's job, without Ray.

A test file that is run as a script is a worker; it ends with

    if __name__ == "__main__":
        be_worker(job)
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from s3ray.data.dataset import Dataset

WORKERS = 2
PATIENCE = 600  # seconds; only catches a hang


def run_workers(file: str, data: Dataset, folder: Path) -> list[dict[str, Any]]:
    """What the job of test file `file` returns on each rank."""
    data.save(folder / "data")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, file, str(rank), str(folder)] for rank in range(WORKERS)]
    processes = [subprocess.Popen(c, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=PATIENCE)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(WORKERS)]


def be_worker(job: Callable[[Dataset], dict[str, Any]]) -> None:
    """Run `job` as the rank that the command line names, and keep what it returns."""
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORKERS)
    torch.save(job(Dataset.open(folder / "data")), folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def gap(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The largest difference of a parameter tensor, relative to its largest entry."""
    return max(((first[k] - second[k]).abs().max() / second[k].abs().max()).item() for k in second)
