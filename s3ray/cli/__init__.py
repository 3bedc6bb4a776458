"""Sweeps of S3 on Ray: run them, see how they stand, and ask what stands behind their numbers."""

from collections.abc import Callable
from typing import Any

import typer

from s3ray.cli import data
from s3ray.cli.audit import audit, certify
from s3ray.cli.config import config
from s3ray.cli.console import OnceCommand
from s3ray.cli.export import export
from s3ray.cli.options import VersionOption
from s3ray.cli.results import columns, compare, diff, params, push, report, results, tensorboard
from s3ray.cli.search import run_search
from s3ray.cli.status import logs, status
from s3ray.cli.store import gc, store
from s3ray.cli.sweeps import plan, run_sweep, sweep
from s3ray.cli.why import why

__all__ = ["app", "main", "run_search", "run_sweep"]

_EXAMPLES: dict[Callable[..., Any], str] = {
    sweep: "sweep table1_figure5 --datasets digits --storage storage",
    plan: "plan sweeps/full_grid.py --storage storage",
    why: "why sweeps/table1_figure5.py 'digits χ=8 seed=0'",
    config: "config digits --scale smoke > digits.toml",
    status: "status --storage storage --watch",
    logs: "logs digits χ=8 seed=0 --storage storage",
    params: "params --table 4",
    results: "results --storage storage",
    columns: "columns rows",
    report: "report --storage storage --output report",
    compare: "compare --paper --storage storage",
    diff: "diff table1_figure5-3f2a table1_figure5-90bc --storage storage",
    audit: "audit --storage storage --sample 3",
    store: "store --storage storage",
    gc: "gc --storage storage",
    certify: "certify certificate --storage storage",
    export: "export digits χ=8 seed=0 --branch suff+min --output model",
    tensorboard: "tensorboard --storage storage",
    push: "push --mlflow http://localhost:5000 --storage storage",
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help=__doc__,
    pretty_exceptions_enable=False,
    epilog=f"Example: s3ray {_EXAMPLES[plan]}",
)
app.add_typer(data.app, name="data")
for command, example in _EXAMPLES.items():
    # What stands behind a sweep's name is for the sweep.
    settings = {"allow_interspersed_args": command is not sweep}
    app.command(cls=OnceCommand, epilog=f"Example: s3ray {example}", context_settings=settings)(command)


@app.callback()
def _options(version: VersionOption = False) -> None:
    pass


def main() -> None:
    app()
