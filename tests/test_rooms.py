"""Imports go one way: a room knows those below it. That only `engine` imports Ray is ruff's to see, and it does."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "s3ray"
# From the top down; a room may import the later ones. Modules beside the rooms stand here like rooms.
ROOMS = (
    "__main__",
    "cli",
    "api",
    "results",
    "search",
    "engine",
    "execution",
    "sweep",
    "store",
    "settings",
    "methods",
    "stages",
    "data",
    "model",
    "objectives",
    "configuration",
    "registry",
    "paths",
    "terminal",
    "digests",
    "traces",
    "errors",
)


def imported(source: str) -> Iterator[str]:
    """The rooms that a file imports, also where it does so late; the package itself, with its version, is no room."""
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for package, *inside in (name.split(".") for name in names):
            if package == "s3ray" and inside and not inside[0].startswith("__"):
                yield inside[0]


def upwards(room: str, source: str) -> list[str]:
    """What of the imports goes up, or to a room that is not listed."""
    allowed = ROOMS[ROOMS.index(room) :]
    return sorted({to for to in imported(source) if to not in allowed})


def test_imports_go_one_way() -> None:
    wrong = []
    for file in sorted(PACKAGE.rglob("*.py")):
        inside = file.relative_to(PACKAGE)
        room = inside.parts[0].removesuffix(".py")
        if room == "__init__":  # the public API: above them all
            continue
        assert room in ROOMS, f"{inside}: a new room; give it its place in ROOMS"
        wrong += [f"{inside} imports s3ray.{to}" for to in upwards(room, file.read_text(encoding="utf-8"))]
    assert wrong == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from s3ray import __version__\nimport s3ray\nimport torch\nfrom s3ray.store import Store", []),
        ("from s3ray.engine.run import run_plan", ["engine"]),
        ("def late():\n    from s3ray import cli, data\n    import s3ray.results.report as r", ["cli", "results"]),
        ("from s3ray.attic import old", ["attic"]),
    ],
)
def test_an_import_upwards_is_noticed(source: str, found: list[str]) -> None:
    assert upwards("sweep", source) == found


@pytest.mark.parametrize(
    ("file", "line", "allowed"),
    [
        ("model/router.py", "import ray.tune as x", False),
        ("cli/sweeps.py", "def late():\n    from ray import tune as x\n\n    x()", False),
        ("engine/run.py", "import ray.tune as x", True),
        ("engine/run.py", "from ray._private import worker as x", False),
        ("engine/run.py", "import ray\n\nx = ray._private", False),
        ("engine/private.py", "from ray._private import worker as x", True),
    ],
)
def test_ray_stays_at_the_edge(file: str, line: str, allowed: bool) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251", "--stdin-filename", PACKAGE / file, "-"]
    result = subprocess.run(command, input=line + "\n", capture_output=True, text=True, cwd=PACKAGE.parent)
    assert result.returncode == (0 if allowed else 1), result.stdout + result.stderr
    assert ("TID251" in result.stdout) is not allowed
