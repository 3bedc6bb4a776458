"""The tiny sweep as processes of its own: started, waited for, and held against another one's results."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import psutil
import pytest

from s3ray.store import Store
from s3ray.sweep import Plan

TIMEOUT = 600  # seconds; only catches a hang


def start(tiny_sweep: ModuleType, storage: Path | str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """The tiny sweep as a process of its own, on a Ray of its own."""
    return subprocess.Popen(
        [sys.executable, tiny_sweep.__file__, str(storage), *arguments],
        env={**os.environ, "RAY_ADDRESS": "local", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=TIMEOUT)
    finally:
        process.kill()
    return process.returncode, output


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str], pause: float = 0.02) -> Any:
    deadline = time.monotonic() + TIMEOUT
    while not (found := condition()):
        assert process.poll() is None, process.communicate()[0]
        if time.monotonic() > deadline:
            process.kill()
            pytest.fail("timed out")
        time.sleep(pause)
    return found


def train_workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = [p for p in psutil.Process(process.pid).children(recursive=True) if "RayTrainWorker" in p.name()]
    assert found
    return found


def checkpointed(store: Store, plan: Plan) -> bool:
    return any(store.checkpoint_step(cell.training) for cell in plan.cells)


def assert_same_results(store: Store, expected: Store, cells: Any) -> None:
    for cell in cells:
        for run in cell.runs:
            for name in ["weights.safetensors", "rows.parquet"] if run.stage.trains else ["rows.parquet"]:
                found, wanted = store.artifact(run, name), expected.artifact(run, name)
                if not run.stage.trains:  # how long it took differs
                    tables = (pd.read_parquet(io.BytesIO(b)) for b in (found, wanted))
                    found, wanted = (table.filter(regex="(?<!seconds)$").to_csv() for table in tables)
                assert found == wanted, (cell.cell, run.stage.name, name)
