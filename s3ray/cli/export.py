"""`s3ray export`: a trained model for use elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from s3ray.cli.console import user_errors
from s3ray.cli.options import DEFAULT_STORAGE, StorageOption, SweepNameOption, open_store
from s3ray.errors import meant


def export(
    cell: Annotated[list[str], typer.Argument(metavar="CELL", help="As it is printed, or an unambiguous part of it.")],
    output: Annotated[str, typer.Option("--output", metavar="URI", help="Folder or URI that gets the model.")],
    ratio: Annotated[
        float | None, typer.Option("--ratio", metavar="P", help="Share of pairs kept. Default: p*, by validation.")
    ] = None,
    branch: Annotated[
        str | None, typer.Option("--branch", metavar="NAME", help="Such as suff+min; may be left out where it has one.")
    ] = None,
    sweep: SweepNameOption = None,
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Write a trained model as safetensors, its configuration and a model card: torch and safetensors alone read it.

    `s3ray.load_model(FOLDER)` does. A sample is represented alike alone and among others: pruned by fixed thresholds.
    """
    with user_errors():
        from s3ray.api.export import cells_of
        from s3ray.api.finished import FinishedStore

        store = FinishedStore(open_store(storage))
        results = store.results(sweep)
        cells = {str(own): own for own in cells_of(results)}
        found = cells[meant(" ".join(cell), cells, f"a cell of {results.study}")]
        card = store.export(
            output,
            ratio,
            dataset=found.dataset,
            method=found.method,
            granularity=found.granularity,
            batch_size=found.batch_size,
            seed=found.seed,
            reading=found.reading,
            branch=branch,
            sweep=results.study,
        )
        print(card)
