"""`s3ray why`: what made a sweep's cells run, or be taken from the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated

import typer

from s3ray.cli.console import user_errors
from s3ray.cli.options import (
    DEFAULT_STORAGE,
    SEARCHED_GRANULARITY,
    CalibrationOption,
    ConfigOption,
    DataOption,
    DatasetOption,
    DatasetsOption,
    GranularityOption,
    MaxStepsOption,
    MethodOption,
    MetricOption,
    ModalitiesOption,
    ScaleOption,
    StorageOption,
)
from s3ray.cli.sweeps import PlanFormat, planned
from s3ray.errors import meant
from s3ray.sweep import CellPlan, Plan
from s3ray.sweep.why import Reason, Why, cached, grouped_runs, made
from s3ray.sweep.why import why as why_of
from s3ray.terminal import Terminal


def why(
    sweep_file: Annotated[str, typer.Argument(metavar="SWEEP", help="A name such as full_grid, or a file.")],
    cell: Annotated[
        str, typer.Argument(metavar="CELL", help="As s3ray names it, or words of that; default: all.")
    ] = "",
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
    output: Annotated[PlanFormat, typer.Option("--format")] = PlanFormat.text,
) -> None:
    """Say why a sweep's cells would run, or what they are taken from; runs nothing.

    The settings, versions, data and parents of what is missing are held against the nearest result of the storage.
    """
    with user_errors():
        request = planned(
            sweep_file,
            datasets,
            dataset,
            data,
            modalities,
            scale,
            storage,
            config,
            method=method,
            granularity=granularity,
            metric=metric,
            no_calibration=no_calibration,
            max_steps=max_steps,
        )
        plan = request.plan
        cells = [_named(plan, cell)] if cell else list(plan.cells)
        found = why_of(plan, request.store, cells)
        if output is PlanFormat.json:
            print(json.dumps({"reasons": [*_told(found, plan, cells)], "notes": [*found.notes()]}, indent=2))
        elif cell:
            _print_cell(plan, cells[0], found)
        else:
            _print_reasons([*found.reasons, *found.claimed, *cached(plan)], found)


def _told(found: Why, plan: Plan, cells: list[CellPlan]) -> Iterator[dict[str, object]]:
    for state, reasons in {"to run": found.reasons, "running": found.claimed, "cached": cached(plan, cells)}.items():
        for reason in reasons:
            yield {"state": state, "reason": reason.sentence, "cells": [str(cell) for cell in reason.cells]}


def _named(plan: Plan, text: str) -> CellPlan:
    """The cell that a text names; UserError if it is none, or several."""
    by_label = {str(cell.cell): cell for cell in plan.cells}
    return by_label[meant(text, by_label, f"a cell of {plan.sweep.name}")]


def _print_cell(plan: Plan, cell: CellPlan, found: Why) -> None:
    console = Terminal(highlight=False, soft_wrap=True)
    console.print(str(cell.cell))
    causes = found.causes.get(cell.cell, [])
    for stages, sentence in grouped_runs(causes, cell.cell):
        console.print(f"  to run: {stages}: {sentence}")
    for cause in causes:
        if cause.nearest and cause.run.stage.trains:
            console.print(f"  nearest: {cause.run.stage.name} {cause.nearest[:12]}")
    missing = cell.missing(plan.committed)
    if follows := len({run.identity for run in missing} - {cause.run.identity for cause in causes}):
        console.print(f"  to run: {follows} stage run{'s' if follows > 1 else ''} that stand on these")
    for reason in found.claimed:
        console.print(f"  {reason.sentence}")
    if markers := [plan.committed[run.identity] for run in cell.runs if run.identity in plan.committed]:
        stages = ", ".join(dict.fromkeys(marker.stage for marker in markers))
        console.print(f"  cached: {stages}: {made(markers)}")
    _print_notes(found, console)


def _print_reasons(reasons: list[Reason], found: Why) -> None:
    from rich.table import Table

    console = Terminal()
    table = Table(box=None, pad_edge=False)
    table.add_column("cells", justify="right")
    table.add_column("why", overflow="fold")
    table.add_column("such as", overflow="fold")
    for reason in reasons:
        table.add_row(str(len(reason.cells)), reason.sentence, str(reason.cells[0]))
    if reasons:
        console.print(table)
    else:
        console.print("nothing is computed, so nothing is missing", highlight=False)
    _print_notes(found, console)


def _print_notes(found: Why, console: Terminal) -> None:
    for note in found.notes():
        console.print(note, highlight=False, soft_wrap=True)
