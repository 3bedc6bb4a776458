"""`s3ray results`, `columns`, `report`, `compare`, `diff`, `params`, `tensorboard`, `push`: what was found."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from s3ray.cli.console import user_errors
from s3ray.cli.options import DEFAULT_STORAGE, MetricOption, StorageOption, SweepNameOption, names_in, open_store
from s3ray.data.sources import DEFAULT_PAIR
from s3ray.errors import UserError, nearest, printable

if TYPE_CHECKING:
    import pandas as pd


class TableFormat(StrEnum):
    text = "text"
    json = "json"
    csv = "csv"


class AccountingName(StrEnum):
    paper = "paper"
    all_layers = "all_layers"


def params(
    table: Annotated[int, typer.Option("--table", min=4, max=5, help="The paper's Table 4 or 5.")],
    output: Annotated[TableFormat, typer.Option("--format")] = TableFormat.text,
    accounting: Annotated[
        AccountingName, typer.Option("--accounting", help="all_layers adds the honest count.")
    ] = AccountingName.paper,
    modalities: Annotated[
        str, typer.Option("--modalities", metavar="A,B,…", help="Of vision, audio, text those encoded.")
    ] = ",".join(DEFAULT_PAIR),
) -> None:
    """Print the parameter shares of the paper's Tables 4 and 5, counted on instantiated models."""
    from s3ray.results.parameter_tables import parameter_table

    with user_errors():
        frame = parameter_table(
            table, all_layers=accounting is AccountingName.all_layers, modalities=names_in(modalities)
        )
    _write(frame, output, lambda: frame.to_string(index=False))


def columns(
    table: Annotated[str, typer.Argument(metavar="[TABLE]", help="rows, controls, …; default: all of them.")] = "",
    output: Annotated[TableFormat, typer.Option("--format")] = TableFormat.text,
) -> None:
    """Print what each column of a sweep's tables means: of rows.parquet and of those beside it."""
    import pandas as pd

    from s3ray.results.columns import COLUMNS

    with user_errors():
        if table and table.removesuffix(".parquet") not in COLUMNS:
            raise UserError(f"columns: {table!r} is no table of a sweep; {nearest(table, COLUMNS)}")
    chosen = {name: told for name, told in COLUMNS.items() if table.removesuffix(".parquet") in ("", name)}

    def text() -> str:
        width = max(len(name) for told in chosen.values() for name in told)
        blocks = (
            "\n".join([f"{name}.parquet", *(f"  {column:{width}}  {means}" for column, means in told.items())])
            for name, told in chosen.items()
        )
        return "\n\n".join(blocks)

    lines = [(name, column, means) for name, told in chosen.items() for column, means in told.items()]
    _write(pd.DataFrame(lines, columns=["table", "column", "meaning"]), output, text)


def _write(frame: pd.DataFrame, output: TableFormat, text: Callable[[], str]) -> None:
    renderers: dict[TableFormat, Callable[[], str]] = {
        TableFormat.csv: lambda: frame.to_csv(index=False),
        TableFormat.json: lambda: frame.to_json(orient="records", indent=1, force_ascii=False) + "\n",
        TableFormat.text: lambda: text() + "\n",
    }
    sys.stdout.write(renderers[output]())


def results(storage: StorageOption = DEFAULT_STORAGE) -> None:
    """List the studies that have results, the one written last first: a sweep over its data, with its settings."""
    from s3ray.results.collect import studies
    from s3ray.settings import flattened

    with user_errors():
        store = open_store(storage)
        with store.explained("read", "check the place and your access to it"):
            names = studies(store)
        if not names:
            print(f"{store.uri}: holds no results of any sweep; run a sweep first")
        for name in names:
            try:
                info = store.folder_info("results", name)
            except UserError as error:
                _warn(str(error))
                continue
            cells = info["plan"]["cells"]
            data = ", ".join(f"{dataset} ({facts['kind']})" for dataset, facts in info["datasets"].items())
            print(printable(f"{name}  {cells['cached']} of {cells['total']} cells  {data or 'no data'}"))
            for path, value in flattened(info.get("overrides", {})).items():
                print(printable(f"  {path} = {json.dumps(value)}"))


def report(
    output: Annotated[
        str, typer.Option("--output", metavar="URI", help="Folder or URI where index.html, figures, tables go.")
    ],
    sweep: SweepNameOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    metric: MetricOption = "",
) -> None:
    """Write a sweep's results and the searches as one self-contained page, with its figures and tables as files."""
    from s3ray.results import Results
    from s3ray.results.report import write_report
    from s3ray.search.findings import load_searches

    with user_errors():
        store = open_store(storage)
        results = Results.load(store, sweep)
        results = results.by(metric) if metric else results
        target = open_store(output, "--output")
        target.check_writable()
        with target.explained("written", "make room or choose a place you may write to"):
            page = write_report(results, target, load_searches(store, _warn))
        print(f"{results.study}: {page}")


def _warn(text: str) -> None:
    print(f"warning: {printable(text)}", file=sys.stderr)


def compare(
    paper: Annotated[bool, typer.Option("--paper", help="Set results beside the paper's printed numbers.")] = False,
    sweep: SweepNameOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    also: Annotated[
        str | None,
        typer.Option(
            "--also", metavar="URI", help="A storage whose results have other settings, such as a search's best.toml."
        ),
    ] = None,
) -> None:
    """Test results against the paper's, cell by cell: reproduced, perhaps with other settings, differs, underpowered.

    Exit codes: 0; 2 for data that cannot be compared; 3 if anything differs.
    """
    from s3ray.results import Results
    from s3ray.results.compare import compare_results, differs, summary

    with user_errors():
        if not paper:
            raise UserError("compare: nothing to compare with; add --paper")
        results = Results.load(open_store(storage), sweep)
        others = Results.load(open_store(also, "--also"), results.info["sweep"]) if also else None
        table = compare_results(results, others, also or "")
        print(printable(table.to_string(index=False), keep="\n"))
        print(summary(table))
    if differs(table):
        raise SystemExit(3)


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A study of `s3ray results`, or a part of its name.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another, held against A.")],
    storage: StorageOption = DEFAULT_STORAGE,
    also: Annotated[str | None, typer.Option("--also", metavar="URI", help="The storage that has B.")] = None,
    output: Annotated[
        TableFormat, typer.Option("--format", help="json has all of it, csv all accuracies.")
    ] = TableFormat.text,
) -> None:
    """Say how a study differs from another: settings, data, code, environment, and accuracies on test, with tests.

    Differences are paired over seeds. Exit codes: 0; 2 for studies that have no dataset in common.
    """
    from s3ray.results.diff import diff as diff_of
    from s3ray.results.diff import in_words

    with user_errors():
        found = diff_of(a, b, open_store(storage), open_store(also, "--also") if also else None)
        if output is TableFormat.json:
            print(json.dumps(found.plain(), indent=1))
        elif output is TableFormat.csv:
            sys.stdout.write(found.rows.to_csv(index=False))
        else:
            for line in in_words(found):
                print(printable(line))


def tensorboard(
    storage: StorageOption = DEFAULT_STORAGE,
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535)] = 6006,
) -> None:
    """Open the training curves of all sweeps of a storage in TensorBoard, those that still grow included."""
    with user_errors():
        from s3ray.execution.tensorboard import serve

        raise SystemExit(serve(open_store(storage), port))


def push(
    mlflow: Annotated[
        str, typer.Option("--mlflow", metavar="URI", help="A tracking server, such as http://localhost:5000.")
    ],
    sweep: SweepNameOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Put a study into MLflow: a run per cell, with settings, curves and accuracies, below one with the report.

    Pushing again adds only what is new.
    """
    from s3ray.results import Results
    from s3ray.results.tracking import check
    from s3ray.results.tracking import push as push_to

    with user_errors():
        check(mlflow)
        store = open_store(storage)
        pushed = push_to(Results.load(store, sweep), store, mlflow)
        for sentence in pushed.left_out:
            _warn(sentence)
        print(pushed)
