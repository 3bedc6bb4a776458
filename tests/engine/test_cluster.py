"""Against a real head with dashboard, started for these tests on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def head():
    """Address of a head node with two CPUs."""
    folder = tempfile.mkdtemp(prefix="s3r", dir="/tmp")  # short: Ray's socket paths must stay below 108 bytes
    port = free_port()
    ray = Path(sys.executable).with_name("ray")
    options = f"--port={port} --num-cpus=2 --node-ip-address=127.0.0.1 --dashboard-port={free_port()}"
    options += f" --temp-dir={folder} --disable-usage-stats --object-store-memory=100000000"
    process = subprocess.Popen(
        [ray, "start", "--head", "--block", *options.split()],
        env=os.environ | {"RAY_AUTH_MODE": "disabled"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while python(f"127.0.0.1:{port}", "connect(Execution())").returncode:
            assert process.poll() is None
            assert time.monotonic() < deadline
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def python(address, code):
    """Run `code` as a driver of its own."""
    prelude = (
        "import time\nimport ray\nfrom s3ray.engine.cluster import *\nfrom s3ray.engine.preflight import Execution\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + textwrap.dedent(code)],
        env=os.environ | {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        timeout=120,
    )


LEAK = """
@ray.remote(num_cpus=0)
class Survivor:
    "Outlives its job and holds placement groups, as what a dead driver leaves behind does."
    def hold(self):
        self.groups = [ray.util.placement_group([{"CPU": 1}], name=name) for name in ("", "somebody's")]
        ray.get([group.ready() for group in self.groups])
        return [group.id.hex() for group in self.groups]

ray.init(logging_level="ERROR")
survivor = Survivor.options(name="survivor", namespace="leak", lifetime="detached").remote()
print(*ray.get(survivor.hold.remote()))
"""

REAP = """
capacity = connect(Execution())
print(capacity.cpus, capacity.nodes, local_capacity())
deadline = time.monotonic() + 30
while (available := ray.available_resources().get("CPU", 0.0)) < 1 and time.monotonic() < deadline:
    time.sleep(0.2)
print(available)
states = {group.placement_group_id: group.state for group in ray.util.state.list_placement_groups()}
print(*(f"{identifier}:{state}" for identifier, state in states.items()))
"""


GROWS = """
import os
os.environ |= {"S3RAY_MAX_CPUS": "32", "S3RAY_MAX_GPUS": "8"}
capacity = connect(Execution())
print(capacity.cpus, capacity.gpus, capacity.nodes)
"""


def test_a_cluster_that_grows_counts_as_what_its_file_says(head):
    grown = python(head, GROWS)
    assert grown.stdout.split() == ["32.0", "8.0", "2"], grown.stderr


def test_leaked_placement_groups_are_removed_and_others_are_not(head):
    leaked = python(head, LEAK)
    assert leaked.returncode == 0, leaked.stderr
    anonymous, named = leaked.stdout.split()
    reaped = python(head, REAP)
    assert reaped.returncode == 0, reaped.stderr
    capacity, available, states = reaped.stdout.splitlines()
    assert capacity == "2.0 1 None"
    assert float(available) == 1.0
    assert {f"{anonymous}:REMOVED", f"{named}:CREATED"} <= set(states.split())
