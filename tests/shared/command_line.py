"""The command line as users meet it: sweep files as processes, `s3ray` in this one, and how bad input ends."""

from __future__ import annotations

import io
import os
import re
import runpy
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
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


def sweep_here(*arguments: object, file: Path = FIGURE3, **environment: str) -> subprocess.CompletedProcess[str]:
    """A sweep file in this process, for what ends before Ray: a start of Python and torch takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in {"RAY_ADDRESS": "local", "COLUMNS": "200", "NO_COLOR": "1", **environment}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", [str(file), *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(file), run_name="__main__")
    code = left.value.code
    return subprocess.CompletedProcess(sys.argv, code if isinstance(code, int) else 0, out.getvalue(), err.getvalue())


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
