"""What a search file runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from s3ray.cli.console import user_errors
from s3ray.cli.options import (
    DEFAULT_STORAGE,
    SEARCHED_GRANULARITY,
    ConfigOption,
    DataOption,
    DatasetOption,
    DatasetsOption,
    GpusOption,
    GranularityOption,
    MaxStepsOption,
    MethodOption,
    ModalitiesOption,
    ScaleOption,
    StorageOption,
    VerboseOption,
    VersionOption,
    WorkersOption,
    names_in,
    resolve,
    searched,
)
from s3ray.cli.sweeps import print_study, run_file
from s3ray.methods import METHODS, S3
from s3ray.sweep import Sweep
from s3ray.terminal import Terminal


def run_search(sweep: Sweep, space: Mapping[str, float]) -> None:
    """The command line of a search file: search every dataset, write its best configuration.

    Args:
        sweep: cells on which a configuration is tried, a dataset's in the order of seeds.
        space: S3's, per setting (dotted path) the factor by which it may leave the scale's own value; a prior method
            declares its own.

    Exit codes: 0; 1 if a trial ended without a verdict or none ran on all seeds; 2 for bad input, before anything is
    started.
    """

    def command(
        datasets: DatasetsOption = "",
        dataset: DatasetOption = None,
        data: DataOption = None,
        modalities: ModalitiesOption = None,
        scale: ScaleOption = None,
        storage: StorageOption = DEFAULT_STORAGE,
        trials: Annotated[
            int,
            typer.Option("--trials", metavar="N", min=1, help="Configurations per dataset, earlier calls' included."),
        ] = 30,
        granularity: GranularityOption = SEARCHED_GRANULARITY,
        method: MethodOption = S3,
        seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, max=2**31, help="Of the sampler.")] = 0,
        workers_per_trial: WorkersOption = 1,
        gpus_per_worker: GpusOption = 0.0,
        config: ConfigOption = None,
        max_steps: MaxStepsOption = None,
        verbose: VerboseOption = False,
        version: VersionOption = False,
    ) -> None:
        from s3ray.engine.preflight import Execution
        from s3ray.search.command import search_all

        with user_errors():
            spaces = {name: space if name == S3 else _space(name) for name in names_in(method) or [""]}
            request = resolve(
                searched(sweep, method, granularity),
                datasets,
                dataset,
                data,
                modalities,
                scale,
                storage,
                config,
                gpus_per_worker,
                no_calibration=True,
                max_steps=max_steps,
            )
            plan, store, console = request.plan, request.store, Terminal()
            print_study(plan, store, console)
            execution = Execution(workers_per_trial=workers_per_trial, gpus_per_worker=gpus_per_worker, verbose=verbose)
            limits: dict[str, Any] = {"trials": trials, "seed": seed, "console": console}
            failed = search_all(plan, store, plan.study.data, spaces, config or [], execution, **limits)
        if failed:
            raise SystemExit(1)

    run_file(command, sweep)


def _space(method: str) -> dict[str, float]:
    """A prior method's space, with dotted paths."""
    return {f"method.{method}.{name}": factor for name, factor in METHODS[method].space.items()}
