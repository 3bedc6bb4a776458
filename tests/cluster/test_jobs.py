"""`ray job submit` against a real head with dashboard and token auth on loopback."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from heads import Head
from s3ray.store.claims import Claim

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

# The full grid of one embedded dataset, at one batch size and two seeds, with short training.
SMALL = """
seeds = [0, 1]
batch_sizes = [64]
[sparsification]
ratios = [1.0, 0.5, 0.1]
[specialization.optimizer]
epochs = 2
[selection.optimizer]
epochs = 2
"""


def jobs(head: Head) -> Any:
    status, body = head.get("/api/jobs/")
    assert status == 200
    return {job["submission_id"]: job["status"] for job in json.loads(body)}


@pytest.mark.parametrize(("token", "status"), [("", 401), ("wrong" * 10, 403)])
def test_without_the_token_nothing_is_submitted(head: Head, token: Any, status: Any, tmp_path: Path) -> None:
    assert head.get("/api/jobs/", token=token)[0] == status
    client = head.submit("python", "-c", "pass", RAY_AUTH_TOKEN=token, HOME=str(tmp_path))
    output, _ = client.communicate(timeout=120)
    assert client.returncode != 0
    assert "RAY_AUTH_TOKEN" in output  # what to set
    assert jobs(head) == {}
    driver = subprocess.run(
        [sys.executable, "sweeps/table1_figure5.py", "--datasets", "digits", "--storage", str(tmp_path)],
        env=head.environment | {"RAY_AUTH_TOKEN": token, "HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert driver.returncode == 2
    assert driver.stderr.startswith(f"error: RAY_ADDRESS={head.address}: cannot be reached, since the cluster wants a")
    assert "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in driver.stderr
    assert driver.stderr.count("\n") == 1


def test_the_grid_is_submitted_goes_on_alone_and_is_cached(head: Head, wait_for: Any, tmp_path: Path) -> None:
    config = tmp_path / "small.toml"
    config.write_text(SMALL)
    storage = tmp_path / "storage"
    command = ("python", "sweeps/full_grid.py", "--datasets", "latent_factors", "--config", str(config))
    client = head.submit(*command, "--storage", str(storage))
    lines = []
    for line in client.stdout:  # its logs are followed
        lines.append(line)
        if "done     latent_factors" in line:
            break
    assert "cells in" in "".join(lines), "".join(lines)
    client.send_signal(signal.SIGKILL)
    client.communicate()
    ((job, status),) = jobs(head).items()
    assert status == "RUNNING"
    wait_for(lambda: jobs(head)[job] != "RUNNING")
    assert jobs(head)[job] == "SUCCEEDED"

    again = head.submit(*command, "--storage", str(storage))
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    assert "starting worker groups" not in output
    assert f"report: {storage}/results/full_grid-" in output

    report = tmp_path / "report"
    subprocess.run([BIN / "s3ray", "report", "--storage", str(storage), "--output", str(report)], check=True)
    page = (report / "index.html").read_text()
    assert "full grid" in page
    assert "simulated" in page


def test_two_sweeps_at_once_share_the_work(head: Head, wait_for: Any, tmp_path: Path) -> None:
    """One store, one cluster: what both ask for is computed once, and both end with all of it."""
    storage, tiny = tmp_path / "storage", str(ROOT / "tests/shared/tiny_sweep.py")
    environment = {**head.environment, "TINY_SEEDS": "4", "TINY_EPOCHS": "30"}
    sweeps = [
        subprocess.Popen(
            [sys.executable, tiny, str(storage)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(2)
    ]
    for sweep in sweeps:
        output, _ = sweep.communicate(timeout=600)
        assert sweep.returncode == 0, output
        assert "[4/4] done" in output
    # Every attempt at a stage leaves its payload, whether its marker counts or not.
    payloads = [p for p in storage.glob("artifacts/*/*/*") if p.is_dir()]
    stages = [p for p in storage.glob("artifacts/*/*") if (p / "commit.json").is_file()]
    # Two trainings, two curves of two ratios and a control below 1, no expert and untrained; the reference.
    assert len(stages) == 4 * (2 + 2 * (2 + 1) + 2) + 1
    assert len(payloads) == len(stages)
    claims = [Claim.parse(file.read_bytes()) for file in storage.glob("claims/*/*")]
    assert {claim.owner for claim in claims} == {""}  # all released
    assert not os.listdir(storage / "runs")
