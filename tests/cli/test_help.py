"""Every command's help fits a terminal of 80 columns and ends with an example; every command says its version."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import s3ray as package
from command_line import SWEEPS, s3ray, sweep_here
from s3ray.cli import app
from s3ray.cli.console import unwrapped


def commands() -> list[list[str]]:
    root = typer.main.get_command(app)
    found: list[list[str]] = [[]]
    for name, command in vars(root)["commands"].items():
        found += [[name], *([name, below] for below in vars(command).get("commands", {}))]
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_fits_and_ends_with_an_example(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    lines = [line.rstrip() for line in result.output.splitlines()]
    assert max(map(len, lines)) <= 80
    *_, last = filter(None, lines)
    assert last.strip().startswith(f"Example: s3ray {command[0] if command else 'plan'} ")
    assert "…" not in last  # nothing is cut
    told = result.output.replace("\n", " ")
    assert "Exit codes: 0; 3 if anything is wrong." in " ".join(told.split()) or command != ["audit"]


@pytest.mark.parametrize("file", sorted(SWEEPS.glob("*.py")), ids=lambda file: file.stem)
def test_help_of_a_sweep_file_fits_and_says_its_version(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    help_text = sweep_here("--help", file=file, COLUMNS="80").stdout
    lines = [line.rstrip() for line in help_text.splitlines()]
    assert max(map(len, lines)) <= 80
    *_, last = filter(None, lines)
    assert last.strip() == f"Example: s3ray sweep {file.stem} --storage storage"  # called by its path in full
    doc = inspect.cleandoc(ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "")
    tables = [line.rstrip() for line in doc.splitlines() if line.startswith("    ")]
    assert [line for line in tables if f" {line}" not in lines] == []  # none is wrapped
    said = sweep_here("--version", file=file).stdout
    assert said.startswith(f"s3ray {package.__version__}, revision ")


def test_version() -> None:
    result = s3ray("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"s3ray {package.__version__}, revision ")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ""),
        ("One.", "One."),
        ("One\ntwo.\n\nThree\nfour:\n\n    a  b\n    c", "One two.\n\nThree four:\n\n    a  b\n    c"),
        ("- a\n- b\nc", "- a\n- b c"),
    ],
)
def test_paragraphs_are_unwrapped_and_tables_stay(text: str, lines: str) -> None:
    assert unwrapped(text) == lines
