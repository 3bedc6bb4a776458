"""The command line: `s3ray plan`, `s3ray params`, `s3ray data`, and what every sweep file runs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit

import typer
from rich.console import Console

from s3ray import cli_data
from s3ray.console import OnceCommand, user_errors
from s3ray.data import EMBEDDED, Dataset, load_sources, resolve_sources
from s3ray.data.facts import DataFacts
from s3ray.data.sources import DEFAULT_PAIR
from s3ray.errors import UserError, nearest
from s3ray.paths import local_path
from s3ray.settings import PAPER_DATASETS, default_scale, read_overrides, settings_for
from s3ray.store import Store
from s3ray.sweep import Cell, Plan, Study, StudyDataset, Sweep, load_sweep, make_plan
from s3ray.sweep.grid import check_name

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
app.add_typer(cli_data.app, name="data")


class ScaleName(StrEnum):
    paper = "paper"
    smoke = "smoke"


class PlanFormat(StrEnum):
    text = "text"
    json = "json"


class TableFormat(StrEnum):
    text = "text"
    json = "json"
    csv = "csv"


class AccountingName(StrEnum):
    paper = "paper"
    all_layers = "all_layers"


DatasetsOption = Annotated[str, typer.Option("--datasets", metavar="NAMES", help="Comma-separated; default: all.")]
DatasetOption = Annotated[
    list[str] | None, typer.Option("--dataset", metavar="NAME=PATH", help="Your own .npz; may be repeated.")
]
DataOption = Annotated[
    str | None, typer.Option("--data", metavar="DIR", help="Folder of prepared datasets and NAME.npz files.")
]
ScaleOption = Annotated[
    ScaleName | None, typer.Option("--scale", help="Default: paper for the paper's datasets, else smoke.")
]
StorageOption = Annotated[
    str, typer.Option("--storage", metavar="URI", envvar="S3RAY_STORAGE", help="Path, s3://… or gs://…")
]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", metavar="FILE", help="TOML (path or URI) that overrides settings of the scale."),
]
ModalitiesOption = Annotated[
    str, typer.Option("--modalities", metavar="A,B", help="The pair taken of each prepared dataset.")
]
WorkersOption = Annotated[int, typer.Option("--workers-per-trial", metavar="N", help="DDP workers per worker group.")]
GpusOption = Annotated[float, typer.Option("--gpus-per-worker", metavar="F", help="May be a fraction, such as 0.25.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show Ray's own output too.")]
DEFAULT_MODALITIES = ",".join(DEFAULT_PAIR)
DEFAULT_STORAGE = "~/s3ray"


@dataclass(frozen=True)
class Request:
    """What a command line asks for, resolved: a plan, its store, and its data."""

    plan: Plan
    store: Store
    data: dict[str, Dataset]


def _resolve(
    sweep: Sweep,
    datasets: str,
    dataset: list[str] | None,
    data: str | None,
    modalities: str,
    scale: ScaleName | None,
    storage: str,
    config: str | None,
) -> Request:
    from s3ray.results.exhibits import asked_for

    asked_for(sweep.name, sweep.exhibits)
    overrides = _overrides(config)
    store = _store(storage)
    names, pair = _split(datasets), _split(modalities)
    folder = None if data is None else local_path(data, "--data")
    sources = resolve_sources(names, dataset or [], folder, pair)
    chosen_names = [source.name for source in sources]
    for name in overrides.get("dataset", {}):
        if name not in [*chosen_names, *EMBEDDED, *PAPER_DATASETS]:
            raise UserError(f"--config {config}: table [dataset.{name}] fits no dataset; {nearest(name, chosen_names)}")
    scales = {name: scale.value if scale else default_scale(name) for name in chosen_names}
    settings = {name: settings_for(name, scales[name], overrides, f"--config {config}") for name in chosen_names}
    loaded, left_out = load_sources(sources)
    for sentence in left_out:
        print(f"warning: {sentence}", file=sys.stderr)
    entries = {name: StudyDataset(DataFacts.of(data), scales[name], settings[name]) for name, data in loaded.items()}
    return Request(make_plan(sweep, Study(entries), store), store, loaded)


def _overrides(config: str | None) -> dict[str, Any]:
    return {} if config is None else read_overrides(config)


def _store(uri: str, option: str = "--storage") -> Store:
    """The store at a path or URI as people type it.

    Raises:
        UserError: nothing is given, or it can be opened neither as a path nor as a URI.
    """
    if option == "--storage" and uri == DEFAULT_STORAGE and os.environ.get("S3RAY_STORAGE") == "":
        raise UserError("S3RAY_STORAGE: is set but empty; unset it, or name a folder or URI")
    if not uri.strip():
        raise UserError(f"{option}: is empty; name a folder or URI, or leave the option out")
    if uri.startswith("file://") and " " in uri:
        uri = quote(uri, safe=":/%")  # pyarrow parses URIs strictly
    elif uri.startswith("~"):
        local_path(uri, option)
    elif urlsplit(uri).scheme not in ("", "file") and "://" not in uri:
        raise UserError(f"{option} {uri}: is no URI, which has :// after its scheme; write ./{uri} for a folder")
    return Store(uri, option)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def run_sweep(sweep: Sweep) -> None:
    """The command line of a sweep file: plan, run what is missing, write the results.

    Exit codes: 0; 1 if a cell failed; 2 for bad input, before anything is started.
    """

    def command(
        datasets: DatasetsOption = "",
        dataset: DatasetOption = None,
        data: DataOption = None,
        modalities: ModalitiesOption = DEFAULT_MODALITIES,
        scale: ScaleOption = None,
        storage: StorageOption = DEFAULT_STORAGE,
        workers_per_trial: WorkersOption = 1,
        gpus_per_worker: GpusOption = 0.0,
        config: ConfigOption = None,
        verbose: VerboseOption = False,
    ) -> None:
        with user_errors():
            request = _resolve(sweep, datasets, dataset, data, modalities, scale, storage, config)
            failed = _run(request, workers_per_trial, gpus_per_worker, verbose)
        if failed:
            raise SystemExit(1)

    _run_file(command, sweep)


def _run_file(command: Callable[..., None], sweep: Sweep) -> None:
    """Run a sweep file's command, its docstring the help."""
    with user_errors():
        check_name(sweep, Path(sys.argv[0]))
    file_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    file_app.command(cls=OnceCommand, help=sys.modules["__main__"].__doc__)(command)
    file_app()


def run_search(sweep: Sweep, space: Mapping[str, float]) -> None:
    """The command line of a search file: search every dataset, write its best configuration.

    Args:
        sweep: cells on which a configuration is tried, a dataset's in the order of seeds.
        space: per setting (dotted path) the factor by which it may leave the scale's own value.

    Exit codes: 0; 1 if a trial ended without a verdict or none ran on all seeds; 2 for bad input, before anything is
    started.
    """

    def command(
        datasets: DatasetsOption = "",
        dataset: DatasetOption = None,
        data: DataOption = None,
        modalities: ModalitiesOption = DEFAULT_MODALITIES,
        scale: ScaleOption = None,
        storage: StorageOption = DEFAULT_STORAGE,
        trials: Annotated[
            int,
            typer.Option("--trials", metavar="N", min=1, help="Configurations per dataset, earlier calls' included."),
        ] = 30,
        granularity: Annotated[int, typer.Option("--granularity", metavar="X", help="χ at which is searched.")] = 8,
        seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, max=2**31, help="Of the sampler.")] = 0,
        workers_per_trial: WorkersOption = 1,
        gpus_per_worker: GpusOption = 0.0,
        config: ConfigOption = None,
        verbose: VerboseOption = False,
    ) -> None:
        from s3ray.engine.preflight import Execution
        from s3ray.search.command import search_all

        with user_errors():
            at = replace(sweep, cells=lambda study: [replace(c, granularity=granularity) for c in sweep.cells(study)])
            request = _resolve(at, datasets, dataset, data, modalities, scale, storage, config)
            plan, store, console = request.plan, request.store, Console(markup=False)
            _print_study(plan, store, console)
            execution = Execution(workers_per_trial=workers_per_trial, gpus_per_worker=gpus_per_worker, verbose=verbose)
            limits: dict[str, Any] = {"trials": trials, "seed": seed, "console": console}
            failed = search_all(plan, store, request.data, space, _overrides(config), execution, **limits)
        if failed:
            raise SystemExit(1)

    _run_file(command, sweep)


def _run(request: Request, workers_per_trial: int, gpus_per_worker: float, verbose: bool) -> bool:
    # Ray takes seconds to import; a sweep whose every cell is cached never does.
    from s3ray.results import write_results

    console = Console(markup=False)
    plan, store = request.plan, request.store
    print_plan(plan, store, console, workers_per_trial)
    failures: Mapping[Cell, str] = {}
    if plan.pending:
        from s3ray.engine.preflight import Execution
        from s3ray.engine.run import run_plan
        from s3ray.sweep.cost import duration

        execution = Execution(workers_per_trial=workers_per_trial, gpus_per_worker=gpus_per_worker, verbose=verbose)
        outcome = run_plan(plan, store, request.data, execution, console)
        failures = outcome.failures
        per_cell = outcome.orchestration_seconds / outcome.cells
        busy = outcome.stage_seconds + outcome.orchestration_seconds
        console.print(
            f"{outcome.cells - len(failures)} cells done, {len(failures)} failed in "
            f"{duration(outcome.wall_seconds)}; orchestration {per_cell:.1f} s per cell "
            f"({outcome.orchestration_seconds / busy:.0%} of the worker time)",
            highlight=False,
            soft_wrap=True,
        )
        for cell, cause in failures.items():
            console.print(f"FAILED {cell}: {cause}", style="bold red", highlight=False, soft_wrap=True)
        plan = make_plan(plan.sweep, plan.study, store)
    with store.explained("written", "make room or choose a place you may write to; what was computed stays"):
        written = write_results(plan, store)
    if written:
        console.print(f"results: {store.address('results', plan.sweep.name)}", highlight=False, soft_wrap=True)
        stems = dict.fromkeys(name.partition(".")[0] for name in written)
        console.print("  " + ", ".join(stems), highlight=False, soft_wrap=True)
    return bool(failures)


def print_plan(plan: Plan, store: Store, console: Console, workers_per_trial: int = 1) -> None:
    """The plan as two lines and a table: to run, cached, at what cost, and how long that takes on this machine."""
    from rich.table import Table

    from s3ray.sweep.cost import duration

    summary = plan.summary()
    cells = summary["cells"]
    _print_study(plan, store, console)
    table = Table(box=None, pad_edge=False)
    for column in ("", "naive", "unique", "cached", "to run"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("cells", "", str(cells["total"]), str(cells["cached"]), str(cells["to_run"]))
    for stage, counts in summary["stages"].items():
        table.add_row(stage, *(str(counts[key]) for key in ("naive", "unique", "cached", "to_run")))
    console.print(table)
    if plan.pending:
        cpus = len(os.sched_getaffinity(0))
        workers = max(workers_per_trial, 1)  # what is no number of workers is said when Ray would start
        wall = duration(plan.wall_seconds(max(cpus // workers, 1), workers))
        console.print(
            f"estimated {duration(summary['estimated_worker_seconds'])} of one worker; {wall} on this machine's "
            f"{cpus} CPU{'s' if cpus != 1 else ''}, start-up included",
            highlight=False,
            soft_wrap=True,
        )


def _print_study(plan: Plan, store: Store, console: Console) -> None:
    """What is asked for, where it goes, and over which data."""
    console.print(f"{plan.sweep.name} → {store.uri}", highlight=False, soft_wrap=True)
    for name, entry in plan.study.entries.items():
        facts = entry.facts
        sizes = "/".join(str(facts.samples[split]) for split in ("train", "valid", "test"))
        console.print(
            f"  {name}: {facts.kind} data, {entry.scale} scale, {' + '.join(facts.features)}, "
            f"{facts.classes} classes, {sizes} samples, data {facts.fingerprint[:12]}",
            highlight=False,
            soft_wrap=True,
        )
        for warning in facts.warnings:
            console.print(f"  warning: {name}: {warning}", style="yellow", highlight=False, soft_wrap=True)


@app.command(cls=OnceCommand)
def plan(
    sweep_file: Annotated[str, typer.Argument(metavar="SWEEP", help="Such as sweeps/full_grid.py.")],
    datasets: DatasetsOption = "",
    dataset: DatasetOption = None,
    data: DataOption = None,
    modalities: ModalitiesOption = DEFAULT_MODALITIES,
    scale: ScaleOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    config: ConfigOption = None,
    output: Annotated[PlanFormat, typer.Option("--format")] = PlanFormat.text,
) -> None:
    """Show what a sweep would run and what the store already has; runs nothing."""
    with user_errors():
        declared = load_sweep(local_path(sweep_file, "SWEEP"))
        request = _resolve(declared, datasets, dataset, data, modalities, scale, storage, config)
        if output is PlanFormat.json:
            wall = round(request.plan.wall_seconds(len(os.sched_getaffinity(0))), 1)
            print(json.dumps({**request.plan.summary(), "estimated_seconds_on_this_machine": wall}, indent=2))
        else:
            print_plan(request.plan, request.store, Console(markup=False))


@app.command(cls=OnceCommand)
def params(
    table: Annotated[int, typer.Option("--table", min=4, max=5, help="The paper's Table 4 or 5.")],
    output: Annotated[TableFormat, typer.Option("--format")] = TableFormat.text,
    accounting: Annotated[
        AccountingName, typer.Option("--accounting", help="all_layers adds the honest count.")
    ] = AccountingName.paper,
) -> None:
    """Print the parameter shares of the paper's Tables 4 and 5, counted on instantiated models."""
    from s3ray.results.parameter_tables import parameter_table

    frame = parameter_table(table, all_layers=accounting is AccountingName.all_layers)
    renderers: dict[TableFormat, Callable[[], Any]] = {
        TableFormat.csv: lambda: frame.to_csv(index=False),
        TableFormat.json: lambda: frame.to_json(orient="records", indent=1) + "\n",
        TableFormat.text: lambda: frame.to_string(index=False) + "\n",
    }
    sys.stdout.write(renderers[output]())


SweepNameOption = Annotated[
    str | None, typer.Option("--sweep", metavar="NAME", help="Default: the sweep whose results were written last.")
]


@app.command(cls=OnceCommand)
def report(
    output: Annotated[
        str, typer.Option("--output", metavar="URI", help="Folder or URI where index.html, figures, tables go.")
    ],
    sweep: SweepNameOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Write a sweep's results and the searches as one self-contained page, with its figures and tables as files."""
    from s3ray.results import Results
    from s3ray.results.report import write_report
    from s3ray.search.findings import load_searches

    with user_errors():
        store = _store(storage)
        results = Results.load(store, sweep)
        target = _store(output, "--output")
        target.check_writable()
        with target.explained("written", "make room or choose a place you may write to"):
            print(write_report(results, target, load_searches(store, _warn)))


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)


@app.command(cls=OnceCommand)
def compare(
    paper: Annotated[bool, typer.Option("--paper", help="Set results beside the paper's printed numbers.")] = False,
    sweep: SweepNameOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Test results against the paper's, cell by cell: reproduced, differs, or underpowered.

    Exit codes: 0; 2 for data that cannot be compared; 3 if anything differs.
    """
    from s3ray.results import Results
    from s3ray.results.compare import compare_results, differs, summary

    with user_errors():
        if not paper:
            raise UserError("compare: nothing to compare with; add --paper")
        results = Results.load(_store(storage), sweep)
        table = compare_results(results)
        print(table.to_string(index=False))
        print(summary(table))
    if differs(table):
        raise SystemExit(3)


@app.command(cls=OnceCommand)
def tensorboard(
    storage: StorageOption = DEFAULT_STORAGE,
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535)] = 6006,
) -> None:
    """Open the training curves of all sweeps of a storage in TensorBoard, those that still grow included."""
    with user_errors():
        from s3ray.execution.tensorboard import serve

        raise SystemExit(serve(_store(storage), port))


def main() -> None:
    app()


if __name__ == "__main__":
    main()
