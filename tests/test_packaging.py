"""What the project says of itself in several files, said alike."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_exact_versions_lie_in_the_ranges() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    # A build's suffix (+cpu) or an address would fit one machine alone.
    assert [line for line in lines if line.count("==") != 1 or set(line) & set("+@;/ ")] == []
    exact = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    assert len(exact) == len(lines)
    extras = [entry for group in PROJECT["optional-dependencies"].values() for entry in group]
    ranges = [Requirement(entry) for entry in (*PROJECT["dependencies"], *extras)]
    wanted = [entry for entry in ranges if entry.name != PROJECT["name"]]
    assert len(wanted) > 20
    assert [
        str(entry) for entry in wanted if exact.get(canonicalize_name(entry.name), "0") not in entry.specifier
    ] == []


def test_the_citation_has_the_projects_license() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()  # what the format requires


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """s3ray as its wheel installs it; runs its command line in an empty folder."""
    place = tmp_path_factory.mktemp("installed")
    source, site, empty = place / "source", place / "site", place / "empty"
    parts = ["s3ray", "sweeps", "cluster"]
    for name in parts:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    options = ["--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "wheel", *options, "--wheel-dir", str(place), str(source)], check=True)
    (wheel,) = place.glob("*.whl")
    subprocess.run([*pip, "install", *options, "--target", str(site), str(wheel)], check=True)
    empty.mkdir()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "s3ray", *arguments]
        environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "80"}
        return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)

    told = run("--version")
    assert told.returncode == 0, told.stderr
    yield run
    assert sorted(path.name for path in empty.iterdir()) == ["storage"]


@pytest.mark.slow
def test_a_wheel_has_the_sweeps_and_runs_them_by_name(installed: Any) -> None:
    names = [file.stem for file in sorted((ROOT / "sweeps").glob("*.py"))]
    listed = installed("sweep")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == names
    help_text = installed("sweep", "table1_figure5", "--help").stdout
    assert help_text.rstrip().endswith("Example: s3ray sweep table1_figure5 --storage storage")
    told = installed("sweep", "tables4_5_parameters", "--storage", "storage")
    assert told.returncode == 0, told.stderr
    (report,) = [line for line in told.stdout.splitlines() if line.startswith("report: ")]
    assert Path(report.removeprefix("report: ")).expanduser().is_file()
    planned = installed("plan", "table1_figure5", "--datasets", "digits", "--format", "json")
    assert json.loads(planned.stdout)["cells"]["to_run"] == 9, planned.stderr
    wrong = installed("sweep", "table1_figur5")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: table1_figur5: no such sweep file; did you mean 'table1_figure5'? known: ")


@pytest.mark.slow
def test_a_sweep_file_of_ones_own_runs_by_its_path(installed: Any, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text((ROOT / "sweeps" / "tables4_5_parameters.py").read_text().replace("tables4_5_parameters", "own"))
    told = installed("sweep", str(file), "--storage", "storage")
    assert told.returncode == 0, told.stderr
    assert "/results/own-" in told.stdout
