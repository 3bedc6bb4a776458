"""The command line: `s3ray plan`, `s3ray report`, `s3ray data`, and what every sweep file runs."""

import typer

from s3ray.cli import data
from s3ray.cli.audit import audit, certify
from s3ray.cli.console import OnceCommand
from s3ray.cli.results import compare, params, report, results, tensorboard
from s3ray.cli.search import run_search
from s3ray.cli.status import logs, status
from s3ray.cli.sweeps import plan, run_sweep

__all__ = ["app", "main", "run_search", "run_sweep"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(data.app, name="data")
for command in (plan, status, logs, params, results, report, compare, audit, certify, tensorboard):
    app.command(cls=OnceCommand)(command)


def main() -> None:
    app()
