import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from heads import Head, started_head


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., Any]:
    return _wait_for


def _wait_for(condition: Callable[[], Any], process: subprocess.Popen[str] | None = None, seconds: float = 420) -> Any:
    """What `condition` returns once it is true; fails if `process` ends before."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head with two CPUs, dashboard and token."""
    with started_head(cpus=2) as head:
        yield head


@pytest.fixture(scope="module")
def growing() -> Iterator[Head]:
    """A head without CPUs whose autoscaler adds up to three nodes of one CPU each."""
    worker = {
        "resources": {"CPU": 1, "object_store_memory": 80_000_000},
        "node_config": {},
        "min_workers": 0,
        "max_workers": 3,
    }
    with started_head(cpus=0, worker_types={"worker": worker}) as head:
        yield head
