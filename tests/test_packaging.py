"""What the project says of itself in several files, said alike."""

import tomllib
from pathlib import Path

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
