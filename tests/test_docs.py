"""The pages: every command in them is one that there is, with options that it has; the site is built without a warning.

The pages of `cluster/` have tests of their own (tests/cluster/test_cluster_files.py).
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from command_line import sweep_here
from s3ray.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Commands of other programs, which the pages of `cluster/` try.
ELSEWHERE = {"ray", "cp", "grafana", "optuna-dashboard", "pip", "aws", "gcloud", "kubectl", "helm", "docker"}


def commands(page: Path) -> Iterator[list[str]]:
    """Words of every command in the page's blocks, and in its text as `s3ray …`; of output nothing."""
    text = page.read_text()
    blocks = re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    shown = any(line.startswith("$ ") for line in lines)
    lines = [line.removeprefix("$ ") for line in lines if re.match(r"\$ |s3ray |python |make |\.venv/bin/", line)]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += [
        line for line in re.findall(r"`([^`\n]+)`", prose) if re.match(r"(s3ray|python sweeps/\S+|make) [a-z-]", line)
    ]
    assert lines or not shown
    for line in lines:
        yield [word for word in shlex.split(line, comments=True) if word not in ("…", "...")]


def test_every_page_is_looked_at() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 40


def leaf(words: list[str]) -> tuple[set[str], list[str]]:
    """Options of the command that `s3ray` words name, and what is left of the words."""
    command = typer.main.get_command(app)
    words = list(words)
    while subcommands := getattr(command, "commands", None):
        assert {*words[:1]} <= subcommands.keys(), words
        command = subcommands[words.pop(0)]
    return {option for parameter in command.params for option in parameter.opts}, words


SWEEP_OPTIONS: dict[str, set[str]] = {}


def options_of(file: Path) -> set[str]:
    if file.name not in SWEEP_OPTIONS:
        text = sweep_here("--help", file=file).stdout
        SWEEP_OPTIONS[file.name] = set(re.findall(r"--[a-z][a-z-]+", text[text.index("Options") :]))
    return SWEEP_OPTIONS[file.name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_there_with_its_options(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for program, *words in commands(page):
        if program == "make":
            assert words[0] in targets, words
        elif Path(program).name == "s3ray":
            known, left = leaf(words)
            assert {word.partition("=")[0] for word in left if word.startswith("--")} <= known, (page.name, words)
        elif Path(program).name == "python" and words[0].startswith("sweeps/"):
            if (file := ROOT / words[0]).name != "FILE.py":
                asked = {word.partition("=")[0] for word in words if word.startswith("--")}
                assert asked - {"--help"} <= options_of(file), (page.name, words)
        else:
            assert program in ELSEWHERE, (page.name, program)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    for name in ("index", "settings", "columns", "commands", "equations", "exhibits", "aws", "benchmarks"):
        assert (tmp_path / f"{name}.html").is_file()
    assert "preservation_ratio" in (tmp_path / "columns.html").read_text()
    assert re.search(r"Eq|24", (tmp_path / "equations.html").read_text())


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
