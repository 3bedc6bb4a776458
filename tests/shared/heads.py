"""Real Ray heads of this machine: with dashboard and token, and with an autoscaler if asked for."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

RAY = Path(sys.executable).with_name("ray")
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Head:
    """A head that runs: its addresses, and the environment of its clients."""

    address: str  # of the GCS
    dashboard: str
    environment: dict[str, str]
    folder: Path  # Ray's temporary files, session_latest among them

    def get(self, path: str, token: str | None = None) -> tuple[int, str]:
        """Status and body of a page of the dashboard."""
        token = self.environment["RAY_AUTH_TOKEN"] if token is None else token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(self.dashboard + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def python(self, code: str) -> subprocess.CompletedProcess:
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

    def submit(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """`ray job submit` of this checkout, from a client that knows the dashboard and its token alone."""
        own = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        return subprocess.Popen(
            [RAY, "job", "submit", "--address", self.dashboard, "--working-dir", ".", "--", *command],
            env={**own, **environment},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def raylets(self) -> dict[str, psutil.Process]:
        """The raylet of every node that this head or its autoscaler started, by node id."""
        found = {}
        for process in psutil.process_iter(["name", "cmdline"]):
            command = process.info["cmdline"] or []
            if process.info["name"] == "raylet" and any(self.address.rpartition(":")[2] in part for part in command):
                with contextlib.suppress(psutil.Error):
                    found[process.environ().get("RAY_OVERRIDE_NODE_ID_FOR_TESTING", "")] = process
        return found


@contextlib.contextmanager
def started_head(*, cpus: int, worker_types: dict[str, Any] | None = None, idle_seconds: float = 5) -> Iterator[Head]:
    """A head with dashboard and token; with `worker_types`, Ray's fake provider adds nodes of this machine.

    Its environment then says how many CPUs these may be, as a cluster's file does; that of its clients does not.

    The recipe of `ray.cluster_utils.AutoscalingCluster`, which is broken in the wheel and stops every Ray there is.
    """
    folder = tempfile.mkdtemp(prefix="s3r", dir="/tmp")  # short: Ray's socket paths must stay below 108 bytes
    port, dashboard_port = free_port(), free_port()
    address = f"127.0.0.1:{port}"
    client = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    client.pop("RAY_AUTH_TOKEN_PATH", None)
    # A submitted job's `python` is this one.
    environment = client | {"PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"}
    log = Path(folder) / "head.log"
    command = [
        RAY, "start", "--head", "--block", f"--port={port}", f"--num-cpus={cpus}",
        f"--dashboard-port={dashboard_port}", f"--temp-dir={folder}", "--disable-usage-stats",
        # Fixed by default, and a head ends when it does not get them; another one may run on this machine.
        f"--ray-client-server-port={free_port()}",
        f"--dashboard-agent-listen-port={free_port()}",
        "--object-store-memory=100000000",
    ]  # fmt: skip
    if worker_types is not None:
        # The name that Ray's fake provider gives the head's type.
        head_type = {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0}
        head_id = "f" * 51 + "0" * 5
        config = {
            "cluster_name": "fake",
            "max_workers": 8,
            "idle_timeout_minutes": idle_seconds / 60,
            "provider": {
                "type": "external",
                "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
                "launch_multiple": True,
                "head_node_id": head_id,
                "gcs_address": address,
            },
            "available_node_types": {"ray.head.default": head_type, **worker_types},
            "head_node_type": "ray.head.default",
            # A provider from outside has no file of defaults.
            **{key: [] for key in ("initialization_commands", "setup_commands", "head_setup_commands")},
            **{key: [] for key in ("worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")},
            "cluster_synced_files": [],
            **{key: {} for key in ("file_mounts", "docker", "auth")},
        }
        path = Path(folder) / "autoscaling.json"
        path.write_text(json.dumps(config))
        command.append(f"--autoscaling-config={path}")
        environment |= {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": head_id,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": head_id,
            "S3RAY_MAX_CPUS": str(cpus + sum(t["resources"]["CPU"] * t["max_workers"] for t in worker_types.values())),
        }
    process = subprocess.Popen(
        command, env=environment, stdout=log.open("w"), stderr=subprocess.STDOUT, start_new_session=True
    )
    head = Head(address, f"http://127.0.0.1:{dashboard_port}", client | {"RAY_ADDRESS": address}, Path(folder))
    try:
        deadline = time.monotonic() + 180
        while not _answers(head):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the head does not answer"
            time.sleep(0.5)
        yield head
    finally:
        # The nodes that the autoscaler started live in the sessions of their own processes.
        for raylet in head.raylets().values():
            for child in [*raylet.children(recursive=True), raylet]:
                with contextlib.suppress(psutil.Error):
                    child.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _answers(head: Head) -> bool:
    try:
        return head.get("/api/jobs/")[0] == 200
    except OSError:
        return False
