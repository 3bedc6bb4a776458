import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

TINY_SWEEP = Path(__file__).with_name("tiny_sweep.py")


@pytest.fixture(scope="session")
def tiny_sweep():
    """The module tiny_sweep.py; its __file__ is what subprocesses run."""
    spec = importlib.util.spec_from_file_location("tiny_sweep", TINY_SWEEP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def free_port():
    return _free_port()


@dataclass(frozen=True)
class Head:
    """A head node with two CPUs and a dashboard, on loopback."""

    address: str
    dashboard: str  # URL
    folder: Path  # Ray's temporary files, session_latest among them

    @property
    def environment(self):
        """What a process needs to be a driver on this head."""
        return os.environ | {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled"}

    def python(self, code):
        """Run `code` as a driver of its own."""
        prelude = (
            "import time\nimport ray\nfrom s3ray.engine.cluster import *\n"
            "from s3ray.engine.preflight import Execution\n"
        )
        return subprocess.run(
            [sys.executable, "-c", prelude + textwrap.dedent(code)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )


@contextmanager
def started_head():
    folder = Path(tempfile.mkdtemp(prefix="s3r", dir="/tmp"))  # short: Ray's socket paths must stay below 108 bytes
    port, dashboard_port = _free_port(), _free_port()
    options = f"--port={port} --num-cpus=2 --node-ip-address=127.0.0.1 --dashboard-port={dashboard_port}"
    # Fixed by default, and a head ends when it does not get them; another one may run on this machine.
    options += f" --ray-client-server-port={_free_port()} --dashboard-agent-listen-port={_free_port()}"
    options += f" --temp-dir={folder} --disable-usage-stats --object-store-memory=100000000"
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", *options.split()],
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        head = Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard_port}", folder)
        deadline = time.monotonic() + 180
        while head.python("connect(Execution())").returncode:
            assert process.poll() is None
            assert time.monotonic() < deadline
        yield head
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def head():
    with started_head() as head:
        yield head
