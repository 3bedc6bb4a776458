"""The command line as users meet it: sweep files as processes, `s3ray` in this one, and how bad input ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from click.testing import Result
from typer.testing import CliRunner

from s3ray.cli import app

SWEEPS = Path(__file__).parents[2] / "sweeps"
FIGURE3 = SWEEPS / "figure3_batch_size.py"
SEARCH = SWEEPS / "search_weights.py"


def sweep(*arguments: object, file: Path = FIGURE3, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(file), *map(str, arguments)],
        env={**os.environ, "RAY_ADDRESS": "local", "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def s3ray(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def assert_one_sentence(result: Result, message: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.fullmatch(f"error: .*{message}.*\n", result.stderr), result.stderr


def assert_refused(result: subprocess.CompletedProcess[str], untouched: Path, *fragments: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for fragment in fragments:
        assert fragment in line
    assert not untouched.exists()
