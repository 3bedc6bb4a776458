"""Pages that are made of the code, or lie elsewhere in the repository; mkdocs.yml names this file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files

from s3ray.cli import app
from s3ray.results.columns import COLUMNS
from s3ray.settings.reference import of_scale, reference, shown

ROOT = Path(__file__).parents[1]
ELSEWHERE = {
    "index.md": "README.md",
    "aws.md": "cluster/aws.md",
    "gcp.md": "cluster/gcp.md",
    "on_prem.md": "cluster/on_prem.md",
    "kuberay.md": "cluster/kuberay.md",
    "benchmarks.md": "benchmarks/RESULTS.md",
    "contributing.md": "CONTRIBUTING.md",
}
# What a sweep draws, as `docs/figures/<its name>.png`, or by another name.
PICTURES = {"effect": "controls_latent_factors"}
DATA = "On embedded and simulated data, smoke scale; not the paper's numbers."
PAGES = {source: page for page, source in ELSEWHERE.items()}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!\w+:|#)([^)#]+)(#[^)]*)?\)")
_EQUATION = re.compile(r"Eqs?\. ((?:\d+(?:\s*(?:,|–|and)\s*)?)+)")


def on_files(files: Files, config: Any) -> Files:
    """Add what is not in docs/."""
    made = {
        "settings.md": _settings(),
        "columns.md": _columns(),
        "equations.md": _equations(),
        "commands.md": _commands(),
    }
    taken = {name: (ROOT / source).read_text() for name, source in ELSEWHERE.items()}
    for name, text in {**made, **taken}.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to files that are pages here lead to these; of others the name stays. Sweeps tell of themselves."""
    folder = (ROOT / ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}")).parent

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        path = (folder / target).resolve()
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else target
        name = PAGES.get(name, name.removeprefix("docs/"))
        if files.get_file_from_path(name):
            return f"[{text}]({name}{anchor})"
        assert path.exists(), f"{page.file.src_uri}: {target} is not there"
        return text if text.startswith("`") else f"{text} (`{path.relative_to(ROOT).as_posix()}`)"

    told = markdown.replace("<!-- sweeps -->", _sweeps()).replace("](docs/figures/", "](figures/")
    return _LINK.sub(link, told)


def _sweeps() -> str:
    parts = []
    for file in sorted((ROOT / "sweeps").glob("*.py")):
        told = ast.get_docstring(ast.parse(file.read_text())) or ""
        parts.append(f"### {file.name}\n\n```\npython sweeps/{file.name}\n```\n\n{told}\n")
        picture = PICTURES.get(file.stem, file.stem)
        if (ROOT / "docs" / "figures" / f"{picture}.png").exists():
            parts.append(f"![{file.stem}](figures/{picture}.png)\n\n*{DATA}*\n")
    return "\n".join(parts)


def _settings() -> str:
    lines = [
        "# Settings",
        "",
        "What a `--config` file can say, above the first `[table]` or in the table of its path. `s3ray config DATASET` "
        "prints the values that a dataset has. Defaults are those of the smoke scale.",
        "",
        "| setting | type | default | |",
        "|---|---|---|---|",
        *(
            f"| `{one.path}` | {_cell(one.kind)} | `{shown(one.value)}` | {_cell(one.comment)} |"
            for one in reference(of_scale("smoke"))
        ),
    ]
    return "\n".join(lines) + "\n"


def _columns() -> str:
    lines = ["# Columns", "", "Of the tables in `results/<study>/`, and of `s3ray.COLUMNS`."]
    for table, columns in COLUMNS.items():
        lines += ["", f"## {table}.parquet", "", "| column | |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(told)} |" for name, told in columns.items()]
    return "\n".join(lines) + "\n"


def _equations() -> str:
    found: dict[int, list[str]] = {}
    for file in sorted((ROOT / "s3ray").rglob("*.py")):
        for name, told in _docstrings(file):
            for match in _EQUATION.finditer(told):
                first = re.sub(r"\s+", " ", told.split("\n\n")[0])
                for number in _numbers(match[1]):
                    line = f"| {number} | `{file.relative_to(ROOT).as_posix()}`: `{name}` | {_cell(first)} |"
                    found.setdefault(number, [])
                    if line not in found[number]:
                        found[number].append(line)
    lines = ["# Equations", "", "Where each equation of the paper is computed, by what the code says of itself.", ""]
    lines += [
        "| equation | function | |",
        "|---|---|---|",
        *(line for number in sorted(found) for line in found[number]),
    ]
    return "\n".join(lines) + "\n"


def _docstrings(file: Path) -> Iterator[tuple[str, str]]:
    tree = ast.parse(file.read_text())
    yield file.stem, ast.get_docstring(tree) or ""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, ast.get_docstring(node) or ""


def _numbers(text: str) -> Iterator[int]:
    for part in re.split(r",|and", text):
        if ends := re.findall(r"\d+", part):
            yield from range(int(ends[0]), int(ends[-1]) + 1)


def _commands() -> str:
    command = typer.main.get_command(app)
    lines = ["# Commands", "", "Every sweep file is a command, too: `python sweeps/table1_figure5.py --help`."]
    for name, one in _leaves(command, "s3ray"):
        lines += ["", f"## {name}", "", (one.help or "").strip(), "", "| option | |", "|---|---|"]
        for parameter in one.params:
            option = (
                ", ".join(parameter.opts)
                if parameter.param_type_name == "option"
                else (parameter.metavar or parameter.human_readable_name)
            )
            lines.append(f"| `{option}` | {_cell(getattr(parameter, 'help', None) or '')} |")
    return "\n".join(lines) + "\n"


def _leaves(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, one in getattr(command, "commands", {}).items():
        yield from _leaves(one, f"{path} {name}") if hasattr(one, "commands") else [(f"{path} {name}", one)]


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").replace("<", "&lt;")
