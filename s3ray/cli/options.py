"""The options that commands share, and what they ask for."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated

import typer

from s3ray import __version__
from s3ray.data import load_sources, resolve_sources
from s3ray.errors import UserError, nearest, printable
from s3ray.execution.provenance import code_revision, planned_machine
from s3ray.methods import METHODS, S3
from s3ray.paths import local_path
from s3ray.search.calibration import plan_calibrated
from s3ray.settings import merged, read_all
from s3ray.store import Store
from s3ray.sweep import Cell, Plan, Study, Sweep, make_plan


class ScaleName(StrEnum):
    paper = "paper"
    smoke = "smoke"


def _print_version(asked: bool) -> None:
    if asked:
        print(f"s3ray {__version__}, revision {code_revision()}")
        raise typer.Exit


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
SweepNameOption = Annotated[
    str | None, typer.Option("--sweep", metavar="NAME", help="Of `s3ray results`, or a sweep's. Default: written last.")
]
ConfigOption = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="TOML (path or URI) that overrides settings of the scale; may be repeated: later files win.",
    ),
]
ModalitiesOption = Annotated[
    str | None,
    typer.Option(
        "--modalities",
        metavar="A,B,…",
        help="Those taken: of your own .npz by default all, of prepared data vision,text.",
    ),
]
WorkersOption = Annotated[int, typer.Option("--workers-per-trial", metavar="N", help="DDP workers per worker group.")]
GpusOption = Annotated[float, typer.Option("--gpus-per-worker", metavar="F", help="May be a fraction, such as 0.25.")]
CalibrationOption = Annotated[
    bool, typer.Option("--no-calibration", help="Own data: the scale's own settings, none tried before.")
]
MetricOption = Annotated[
    str,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="Tables 1 and 2 by this metric, too: balanced_accuracy, macro_f1, weighted_f1, auroc; of data with "
        "sentiment scores acc2_nonnegative, acc2_nonzero, mae, pearson_r.",
    ),
]
MaxStepsOption = Annotated[
    int | None,
    typer.Option(
        "--max-steps", metavar="N", min=1, help="Own data: longer sequences are subsampled evenly to N steps."
    ),
]
BudgetOption = Annotated[
    str,
    typer.Option(
        "--budget", metavar="AMOUNT", help="Run what fits into 30min, 2h or, with --cloud, 20usd; the rest next time."
    ),
]
CloudOption = Annotated[
    str, typer.Option("--cloud", metavar="NAME", help="Say what it costs there: aws, gcp or kubernetes.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="For programs: a line of JSON per event on stdout, all words on stderr.")
]
MlflowOption = Annotated[
    str, typer.Option("--mlflow", metavar="URI", help="Put the results into this MLflow server, too, at the end.")
]
OpenOption = Annotated[bool, typer.Option("--open", help="Open the report in the browser at the end.")]
VerboseOption = Annotated[bool, typer.Option("--verbose", help="Show Ray's own output too.")]
VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show version and revision, and exit.")
]
MethodOption = Annotated[
    str,
    typer.Option("--method", metavar="NAMES", help="Of a search, comma-separated: s3, prior methods."),
]
GranularityOption = Annotated[int, typer.Option("--granularity", metavar="X", help="χ at which is searched.")]
SEARCHED_GRANULARITY = 8
DEFAULT_STORAGE = "~/s3ray"


@dataclass(frozen=True)
class Request:
    """What a command line asks for, resolved: a plan and its store."""

    plan: Plan
    store: Store


def resolve(
    sweep: Sweep,
    datasets: str,
    dataset: list[str] | None,
    data: str | None,
    modalities: str | None,
    scale: ScaleName | None,
    storage: str,
    config: Sequence[str] | None,
    gpus_per_worker: float = 0.0,
    *,
    no_calibration: bool = False,
    metric: str = "",
    max_steps: int | None = None,
) -> Request:
    """The request that the options make.

    Args:
        no_calibration: own data have the scale's own settings; else those that their calibration chose, where it is in
            the store already.
        metric: that Tables 1 and 2 are also shown by; empty: the sweep's own.
        max_steps: longer sequences of own data are subsampled evenly to so many steps.

    Raises:
        UserError: one of them is wrong, or its file or data is; nothing was started.
    """
    from s3ray.results.exhibits import asked_for
    from s3ray.results.rounds import with_second_round

    asked_for(sweep.name, sweep.exhibits)
    sweep = replace(sweep, metric=metric or sweep.metric)
    options = ({"calibrate": False} if no_calibration else {}) | ({"max_steps": max_steps} if max_steps else {})
    overrides = merged(read_all(config or []), options)
    store = open_store(storage)
    names, chosen = names_in(datasets), None if modalities is None else names_in(modalities)
    folder = None if data is None else local_path(data, "--data")
    if not sweep.computes:  # of printed numbers, or of what can be counted
        return Request(make_plan(sweep, Study({}), store, planned_machine(gpus_per_worker)), store)
    sources = resolve_sources(names, dataset or [], folder, chosen, sweep.datasets)
    loaded, left_out = load_sources(sources)
    for sentence in left_out:
        print(f"warning: {printable(sentence)}", file=sys.stderr)
    if max_steps and not any(one.kind == "user" for one in loaded.values()):
        raise UserError(
            f"--max-steps {max_steps}: is for your own data; give it with --dataset NAME=PATH, or leave it out"
        )
    source = " ".join(f"--config {file}" for file in config or [])
    study = Study.of(loaded, scale.value if scale else None, overrides, source)
    plan = plan_calibrated(sweep, study, store, planned_machine(gpus_per_worker))
    return Request(with_second_round(plan, store), store)


def searched(sweep: Sweep, methods: str, granularity: int) -> Sweep:
    """A search file's sweep over the cells of these methods, comma-separated, at this χ where one has it.

    Raises:
        UserError: a method that there is not.
    """
    names = names_in(methods) or [""]
    for name in names:
        if name != S3 and name not in METHODS:
            raise UserError(f"--method: unknown method {name!r}; {nearest(name, [S3, *METHODS])}")

    def cells(study: Study) -> Iterator[Cell]:
        for name in names:
            for cell in sweep.cells(study):
                yield replace(cell, method=name, granularity=granularity if name == S3 else 1)

    return replace(sweep, cells=cells)


def open_store(uri: str, option: str = "--storage") -> Store:
    """The store at a path or URI as people type it.

    Raises:
        UserError: nothing is given, or it can be opened neither as a path nor as a URI.
    """
    if option == "--storage" and uri == DEFAULT_STORAGE and os.environ.get("S3RAY_STORAGE") == "":
        raise UserError("S3RAY_STORAGE: is set but empty; unset it, or name a folder or URI")
    return Store.open(uri, option)


def names_in(text: str) -> list[str]:
    """Of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]
