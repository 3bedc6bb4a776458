"""Ray's autoscaler for real, with nodes that are processes of this machine: growing, losing nodes, shrinking."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heads import Head

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
RAY = Path(sys.executable).with_name("ray")


def start(head: Head, *command: Any, **environment: Any) -> Any:
    """A sweep as a driver on the head. Its nodes share this machine's disk, and may be three of one CPU each."""
    environment = {"S3RAY_SHARED_FILESYSTEM": "1", "S3RAY_MAX_CPUS": "3", **environment}
    return subprocess.Popen(
        [sys.executable, *command],
        env=head.environment | environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def attempts(storage: Any) -> Any:
    """What the runs have noted: (cell, stages missing, step of the last checkpoint, node) of every start."""
    found = set()
    for file in Path(storage).glob("runs/*/attempts/*/" + "[0-9]" * 6):
        entry = json.loads(file.read_text())
        missing, step = entry["progress"].split("-")
        for node in entry["nodes"]:
            found.add((file.parent.name, int(missing), int(step), node))
    return found


def committed(storage: Any) -> Any:
    """The attempt that counts, by identity of the stage run."""
    markers = Path(storage).glob("artifacts/*/*/commit.json")
    return {file.parent.name: re.search(r'"attempt": "(\w+)"', file.read_text())[1] for file in markers}


def test_a_job_knows_how_far_its_cluster_may_grow(growing: Head, tmp_path: Path) -> None:
    """What a cluster's file says reaches a submitted job through its head; its client does not know it."""
    assert "S3RAY_MAX_CPUS" not in growing.environment
    storage = tmp_path / "storage"
    job = growing.submit("python", "sweeps/table1_figure5.py", "--storage", str(storage))
    output, _ = job.communicate(timeout=240)
    assert job.returncode != 0, output
    assert "a local path on a cluster of 2 nodes; use s3://…, gs://…" in output  # one is up
    assert not list(storage.glob("*"))


def test_nodes_come_one_is_lost_and_they_leave(growing: Any, wait_for: Any, tmp_path: Path) -> None:
    wait_for(lambda: len(growing.raylets()) == 1)  # the dashboard answers before it is up
    sweep = start(growing, "sweeps/table1_figure5.py", "--datasets", "latent_factors", "--storage", str(tmp_path))
    seen = SimpleNamespace(attempts=set())

    def watch() -> Any:
        seen.attempts |= attempts(tmp_path)
        # A cell at work whose Specialization is committed: attempts are noted with what was missing at their start.
        return len(committed(tmp_path)) >= 4 and seen.attempts

    wait_for(watch, sweep)
    assert 1 < len(growing.raylets()) <= 4
    before = committed(tmp_path)
    node = sorted(seen.attempts)[-1][-1]
    growing.raylets()[node].kill()

    def ended() -> Any:
        seen.attempts |= attempts(tmp_path)
        return sweep.poll() is not None

    wait_for(ended)
    output = sweep.communicate()[0]
    assert sweep.returncode == 0, output
    assert "9 cells in 3 packs, 3 at a time" in output  # the cluster's maximum, when it had no CPU at all
    assert "9 cells done, 0 failed" in output
    nodes = {node for *_, node in seen.attempts}
    assert len(nodes) >= 3  # those that came, and one for the lost one
    after = committed(tmp_path)
    assert {identity: after[identity] for identity in before} == before
    # Two trainings, two curves of ten ratios and a control below 1, no expert and untrained; the reference.
    assert len(after) == 9 * (2 + 2 * (10 + 9) + 2) + 1
    # The lost node's cell went on elsewhere.
    lost = {cell for cell, *_, at in seen.attempts if at == node}
    assert any(cell in lost and at != node for cell, *_, at in seen.attempts)
    wait_for(lambda: len(growing.raylets()) == 1)


def test_a_node_that_is_announced_to_leave_saves_its_work(
    growing: Any, wait_for: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tiny = ROOT / "tests/shared/tiny_sweep.py"
    # No checkpoint would be due for an hour.
    sweep = start(growing, str(tiny), str(tmp_path), TINY_EPOCHS="600", TINY_INTERVAL="3600", TINY_SEEDS="1")
    ((_, _, _, node),) = wait_for(lambda: attempts(tmp_path), sweep)
    subprocess.run(
        [RAY, "drain-node", "--address", growing.address, "--node-id", node, "--reason-message", "spot",
         "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds", "60"],
        env=growing.environment, check=True,
    )  # fmt: skip
    saved = wait_for(
        lambda: [int(file.stem.split("-")[0]) for file in Path(tmp_path).glob("checkpoints/*/*.pt")], sweep
    )
    if node in growing.raylets():
        growing.raylets()[node].kill()
    again = wait_for(lambda: {start for start in attempts(tmp_path) if start[-1] != node}, sweep)
    assert max(step for _, _, step, _ in again) >= max(saved)
    sweep.send_signal(signal.SIGINT)
    sweep.communicate()
