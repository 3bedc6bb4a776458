"""What every sweep file runs, and `s3ray plan`, which shows it."""

from __future__ import annotations

import ast
import json
import os
import runpy
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from s3ray.api.running import execute
from s3ray.cli.console import OnceCommand, user_errors
from s3ray.cli.options import (
    DEFAULT_STORAGE,
    SEARCHED_GRANULARITY,
    BudgetOption,
    CalibrationOption,
    CloudOption,
    ConfigOption,
    DataOption,
    DatasetOption,
    DatasetsOption,
    GpusOption,
    GranularityOption,
    JsonOption,
    MaxStepsOption,
    MethodOption,
    MetricOption,
    MlflowOption,
    ModalitiesOption,
    OpenOption,
    Request,
    ScaleOption,
    StorageOption,
    VerboseOption,
    VersionOption,
    WorkersOption,
    resolve,
    searched,
)
from s3ray.data import DataFacts
from s3ray.data.facts import told_missing
from s3ray.data.memory import free_memory
from s3ray.data.names import listed
from s3ray.errors import UserError
from s3ray.methods import S3
from s3ray.search.calibration import Calibration, too_small
from s3ray.store import Store
from s3ray.sweep import Plan, Sweep, load_sweep
from s3ray.sweep.budget import Budget, Groups, Prices
from s3ray.sweep.grid import check_name, known_sweeps, sweep_file
from s3ray.sweep.memory import at_once, largest, refusal
from s3ray.sweep.timing import between
from s3ray.sweep.why import MOST_AT_START, why
from s3ray.terminal import Terminal

_REASONS = 3  # that a plan says


class PlanFormat(StrEnum):
    text = "text"
    json = "json"


def run_sweep(sweep: Sweep) -> None:
    """The command line of a sweep file: plan, run what is missing, write the results.

    Exit codes: 0; 1 if a cell failed; 2 for bad input, before anything is started.
    """

    def command(
        datasets: DatasetsOption = "",
        dataset: DatasetOption = None,
        data: DataOption = None,
        modalities: ModalitiesOption = None,
        scale: ScaleOption = None,
        storage: StorageOption = DEFAULT_STORAGE,
        workers_per_trial: WorkersOption = 1,
        gpus_per_worker: GpusOption = 0.0,
        config: ConfigOption = None,
        metric: MetricOption = "",
        no_calibration: CalibrationOption = False,
        max_steps: MaxStepsOption = None,
        budget: BudgetOption = "",
        cloud: CloudOption = "",
        as_json: JsonOption = False,
        mlflow: MlflowOption = "",
        open_report: OpenOption = False,
        verbose: VerboseOption = False,
        version: VersionOption = False,
    ) -> None:
        with user_errors():
            prices = Prices.of(cloud) if cloud else None
            limit = Budget.of(budget, cloud) if budget else None
            request = resolve(
                sweep,
                datasets,
                dataset,
                data,
                modalities,
                scale,
                storage,
                config,
                gpus_per_worker,
                no_calibration=no_calibration,
                metric=metric,
                max_steps=max_steps,
            )
            console = Terminal(stderr=as_json)
            is_tracked = bool(mlflow) and _pushable(mlflow, console)
            print_plan(request.plan, request.store, console, workers_per_trial)
            ran = execute(
                request.plan,
                request.store,
                console,
                workers_per_trial=workers_per_trial,
                gpus_per_worker=gpus_per_worker,
                verbose=verbose,
                budget=limit,
                prices=prices,
                on_event=(lambda event: _print_json(asdict(event))) if as_json else None,
            )
            if is_tracked and ran.study:
                _push(request.store, ran.study, mlflow, console)
            if as_json:
                failed = {str(cell): cause for cell, cause in ran.failures.items()}
                page = request.store.address("results", ran.study, "index.html") if ran.study else None
                _print_json({"state": "ended", "failed": failed, "report": page})
            if open_report and ran.study:
                typer.launch(request.store.address("results", ran.study, "index.html"))
        if ran.failures:
            raise SystemExit(1)

    run_file(command, sweep)


def _pushable(uri: str, console: Console) -> bool:
    """Whether a push may succeed; if not, why not is said while it can still be mended."""
    from s3ray.results.tracking import check

    with _warned(console):
        check(uri)
        return True
    return False


def _push(store: Store, study: str, uri: str, console: Console) -> None:
    """What fails here costs a warning: the results are in the store, and can be pushed from there."""
    from s3ray.results import Results
    from s3ray.results.tracking import push

    with _warned(console), console.status("putting the results into MLflow"):
        pushed = push(Results.load(store, study), store, uri)
        for sentence in (*(f"warning: {sentence}" for sentence in pushed.left_out), str(pushed)):
            console.print(sentence, highlight=False, soft_wrap=True)


@contextmanager
def _warned(console: Console) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        told = f"warning: {error}; s3ray push puts the results there later"
        console.print(told, style="yellow", highlight=False, soft_wrap=True)


def _print_json(told: dict[str, Any]) -> None:
    print(json.dumps(told), flush=True)


def run_file(command: Callable[..., None], sweep: Sweep) -> None:
    """Run a sweep file's command, its docstring the help."""
    with user_errors():
        check_name(sweep, Path(sys.argv[0]))
    file_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    file = Path(sys.argv[0])
    is_installed = known_sweeps().get(file.stem) == file  # `s3ray sweep` runs it
    called = f"s3ray sweep {file.stem}" if is_installed else f"python {'/'.join(file.parts[-2:])}"
    example = f"Example: {called} --storage storage"
    file_app.command(cls=OnceCommand, help=sys.modules["__main__"].__doc__, epilog=example)(command)
    file_app(prog_name=called)


def sweep(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's name, or the path of its file.")] = "",
    options: Annotated[list[str] | None, typer.Argument(metavar="[OPTION]…", help="Those of the sweep.")] = None,
) -> None:
    """Run a sweep that comes with s3ray by its name, or any by its file; without a name list those that come with it.

    The same as `python sweeps/NAME.py`; `s3ray sweep NAME --help` shows its options.
    """
    with user_errors():
        if not name:
            sweeps = known_sweeps()
            for known, path in sweeps.items():
                told = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
                print(f"{known:<{max(map(len, sweeps))}}  {told.splitlines()[0] if told else ''}")
            return
        file = sweep_file(name)
    sys.argv = [str(file), *(options or [])]
    sys.path.insert(0, str(file.resolve().parent))  # as python does: a file may import its neighbours
    runpy.run_path(str(file), run_name="__main__")


@dataclass(frozen=True)
class Cost:
    """What a plan takes on this machine, and what of it fits a budget.

    Attributes:
        shares: seconds of one worker, at least and at most.
        wall: seconds until it ends, at least and at most.
        price: in words; empty if none is asked for.
        left_out: in words; empty if nothing is.
    """

    shares: tuple[float, float]
    wall: tuple[float, float]
    price: str
    left_out: str

    @classmethod
    def of(
        cls, plans: Sequence[Plan], workers: int, gpus_per_worker: float, prices: Prices | None, budget: Budget | None
    ) -> Cost:
        """Of the plan, or of those that it may become; prices and budget go by the first.

        Raises:
            UserError: the budget has room for no cell.
        """
        cpus, plan = len(os.sched_getaffinity(0)), plans[0]
        shares = [sum(one.shares) for one in plans]
        ranges = [one.wall_range(_slots(one, cpus, workers), workers) for one in plans]
        groups = Groups(_slots(plan, cpus, workers), workers, gpus_per_worker)
        return cls(
            (min(shares), max(shares)),
            (min(low for low, _ in ranges), max(high for _, high in ranges)),
            prices.told(plan, groups) if prices else "",
            budget.told(plan, budget.fitting(plan, groups)) if budget else "",
        )


def print_plan(
    plan: Plan,
    store: Store,
    console: Console,
    workers_per_trial: int = 1,
    gpus_per_worker: float = 0.0,
    prices: Prices | None = None,
    budget: Budget | None = None,
    most_results: int | None = MOST_AT_START,
) -> None:
    """The plan as two lines and a table: to run, why, cached, at what cost, and how long that takes on this machine.

    Args:
        prices: of the cloud that is asked for.
        budget: what it has no room for is said.
        most_results: of a stage that are looked at to say why.

    Raises:
        UserError: the budget has room for no cell.
    """
    from rich.table import Table

    say = partial(console.print, highlight=False, soft_wrap=True)
    summary = plan.summary()
    cells = summary["cells"]
    print_study(plan, store, console)
    for sentence in too_small(plan.study) if plan.sweep.computes else ():
        say(sentence)
    calibration = Calibration.of(plan.study, store, plan.machine) if plan.sweep.computes else None
    if calibration:
        say(calibration.announced())
    table = Table(box=None, pad_edge=False)
    for column in ("", "naive", "unique", "cached", "to run"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row("cells", "", str(cells["total"]), str(cells["cached"]), str(cells["to_run"]))
    for stage, counts in summary["stages"].items():
        table.add_row(stage, *(str(counts[key]) for key in ("naive", "unique", "cached", "to_run")))
    console.print(table)
    for line in reasons(plan, store, most_results):
        say(line)
    if plan.sweep.then and plan.pending:
        say("a second round of cells follows from what these come to")
    workers = max(workers_per_trial, 1)  # what is no number of workers is said when Ray would start
    if plan.pending:
        print_memory([plan, *([calibration.plan] if calibration else [])], console, workers)
        plans = [plan, *(calibration.may_follow(plan.sweep, store) if calibration else [])]
        cost = Cost.of(plans, workers, gpus_per_worker, prices, budget)
        cpus = len(os.sched_getaffinity(0))
        say(
            f"estimated {between(*cost.shares)} of one worker; {between(*cost.wall)} on this machine's "
            f"{cpus} CPU{'s' if cpus != 1 else ''}, start-up included"
            + (", and calibration's own beside" if calibration else "")
        )
        for line in filter(None, (cost.price, cost.left_out)):
            say(line)


def reasons(plan: Plan, store: Store, most_results: int | None = None) -> list[str]:
    """Why cells are to run, most frequent first, and who is at work: in few lines."""
    found = why(plan, store, most=most_results)
    told = _few([f"{len(reason.cells)} to run{reason.because}" for reason in found.reasons], "reasons")
    if found.left_out:
        told.append("a storage of so many results that not all were looked at: s3ray why looks at more")
    return told + _few([f"{len(reason.cells)} {reason.sentence}" for reason in found.claimed], "owners of claims")


def _few(told: list[str], what: str) -> list[str]:
    if len(told) <= _REASONS:
        return told
    return [*told[: _REASONS - 1], f"{len(told) - _REASONS + 1} more {what}: s3ray why, in place of s3ray plan"]


def print_memory(plans: Sequence[Plan], console: Console, workers: int) -> None:
    """What memory a worker needs at its peak, and whether this machine has it."""
    free = free_memory()
    needed = max(largest(plan, workers)[0] for plan in plans)
    room = "" if free is None else f", {free / 1e9:.2g} GB are free on this machine"
    few = min(_slots(plan, len(os.sched_getaffinity(0)), workers) for plan in plans)
    at_a_time = f", room for {few} at a time" if few < len(os.sched_getaffinity(0)) // workers else ""
    told = f"a worker needs up to {needed / 1e9:.2g} GB of memory{room}{at_a_time}"
    console.print(told, highlight=False, soft_wrap=True)
    sentences = [] if free is None else filter(None, (refusal(plan, [free], workers) for plan in plans))
    for sentence in list(sentences)[:1]:
        console.print(f"warning: {sentence}", style="yellow", highlight=False, soft_wrap=True)


def print_study(plan: Plan, store: Store, console: Console) -> None:
    """What is asked for, where it goes, and over which data."""
    console.print(f"{plan.sweep.name} → {store.uri}", highlight=False, soft_wrap=True)
    for name, entry in plan.study.entries.items():
        facts = entry.facts
        sizes = "/".join(str(facts.samples[split]) for split in ("train", "valid", "test"))
        console.print(
            f"  {name}: {facts.kind} data, {entry.scale} scale, {' + '.join(facts.features)}"
            f"{_subsampled(facts)}, {named_classes(facts)}, {sizes} samples, data {facts.fingerprint[:12]}"
            + (f", calibrated: {plan.study.chosen[name]} ({_tried(plan, name)})" if name in plan.study.chosen else ""),
            highlight=False,
            soft_wrap=True,
        )
        if facts.missing:
            told = told_missing(facts.missing, facts.samples)
            console.print(f"  {name}: {told}", highlight=False, soft_wrap=True)
        for warning in facts.warnings:
            console.print(f"  warning: {name}: {warning}", style="yellow", highlight=False, soft_wrap=True)
    for sentence in plan.undefined:
        console.print(f"  warning: {sentence}", style="yellow", highlight=False, soft_wrap=True)


def _slots(plan: Plan, cpus: int, workers: int) -> int:
    """Worker groups that this machine runs at a time, as far as CPUs and memory go; one at least."""
    free = free_memory()
    room = cpus if free is None else at_once(largest(plan, workers)[0], [free], workers)
    return max(min(cpus // workers, room), 1)


def _tried(plan: Plan, dataset: str) -> str:
    """Calibration's candidates with what they reached on validation."""
    tried = plan.study.tried[dataset].items()
    told = [f"{name} {'diverged' if accuracy is None else f'{accuracy:.1%}'}" for name, accuracy in tried]
    return f"on validation {', '.join(told)}"


def _subsampled(facts: DataFacts) -> str:
    cut = [f"{name} subsampled to {steps} steps" for name, steps in facts.subsampled.items()]
    return "".join(f", {one}" for one in cut)


def named_classes(facts: DataFacts) -> str:
    """How many classes there are, and what the first are called."""
    names = f" ({listed(facts.label_names, shown=5)})" if facts.label_names else ""
    return f"{facts.classes} classes{names}"


def plan(
    file: Annotated[str, typer.Argument(metavar="SWEEP", help="A name such as full_grid, or a file.")],
    datasets: DatasetsOption = "",
    dataset: DatasetOption = None,
    data: DataOption = None,
    modalities: ModalitiesOption = None,
    scale: ScaleOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
    config: ConfigOption = None,
    method: MethodOption = "",
    granularity: GranularityOption = SEARCHED_GRANULARITY,
    metric: MetricOption = "",
    no_calibration: CalibrationOption = False,
    max_steps: MaxStepsOption = None,
    workers_per_trial: WorkersOption = 1,
    gpus_per_worker: GpusOption = 0.0,
    budget: BudgetOption = "",
    cloud: CloudOption = "",
    output: Annotated[PlanFormat, typer.Option("--format")] = PlanFormat.text,
) -> None:
    """Show what a sweep would run and what the store already has; runs nothing."""
    with user_errors():
        prices = Prices.of(cloud) if cloud else None
        limit = Budget.of(budget, cloud) if budget else None
        request = planned(
            file,
            datasets,
            dataset,
            data,
            modalities,
            scale,
            storage,
            config,
            gpus_per_worker,
            method=method,
            granularity=granularity,
            metric=metric,
            no_calibration=no_calibration,
            max_steps=max_steps,
        )
        if output is PlanFormat.json:
            needed = round(largest(request.plan)[0])
            cost = Cost.of([request.plan], max(workers_per_trial, 1), gpus_per_worker, prices, limit)
            summary = {
                **request.plan.summary(),
                "estimated_seconds_on_this_machine": [round(seconds, 1) for seconds in cost.wall],
                "memory_bytes_of_a_worker": needed,
                "price": cost.price or None,
                "left_out": cost.left_out or None,
            }
            if calibration := Calibration.of(request.plan.study, request.store, request.plan.machine):
                may_follow = calibration.may_follow(request.plan.sweep, request.store)
                summary["calibration"] = calibration.plan.summary()
                seconds = [round(sum(one.shares), 1) for one in may_follow]
                summary["estimated_worker_seconds_after_calibration"] = [min(seconds), max(seconds)]
            print(json.dumps(summary, indent=2))
        else:
            print_plan(
                request.plan,
                request.store,
                Terminal(),
                workers_per_trial,
                gpus_per_worker,
                prices,
                limit,
                most_results=None,
            )


def planned(
    file: str,
    *data_and_settings: Any,
    method: str,
    granularity: int,
    metric: str,
    no_calibration: bool,
    max_steps: int | None,
) -> Request:
    """What a sweep file asks for, of a search with the methods that it would search.

    Args:
        data_and_settings: as of `resolve`, from its `datasets` on.

    Raises:
        UserError: of `resolve`; or an option that is for a search alone, or for none.
    """
    declared = load_sweep(file)
    is_search = not (declared.exhibits or declared.parts)  # whose settings are its own to find
    if method or granularity != SEARCHED_GRANULARITY:
        if not is_search:
            option = "--method" if method else "--granularity"
            raise UserError(f"{option}: is for a search, such as sweeps/search_weights.py; leave it out")
        declared = searched(declared, method or S3, granularity)
    if metric and is_search:
        raise UserError("--metric: is for tables, which a search has none of; leave it out")
    no_calibration = no_calibration or is_search
    return resolve(declared, *data_and_settings, no_calibration=no_calibration, metric=metric, max_steps=max_steps)
