"""`s3ray data`: prepare MultiBench's files, look at what was prepared, make files to try it with."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s3ray.config import UserError, local_path
from s3ray.console import OnceCommand, byte_progress, user_errors
from s3ray.data.dataset import Dataset
from s3ray.data.multibench import FILES, chosen_datasets, find_file
from s3ray.data.prepare import PrepareOptions
from s3ray.data.prepare import prepare as prepare_file
from s3ray.data.simulate import simulate as simulate_file
from s3ray.data.sources import prepared_datasets

app = typer.Typer(no_args_is_help=True, help=__doc__)


class NeutralName(StrEnum):
    positive = "positive"
    negative = "negative"


def _console() -> Console:
    width = max(Console().width, 160)  # a table's numbers are not to be cut where output is piped
    return Console(markup=False, highlight=False, soft_wrap=True, width=width)


@app.command(cls=OnceCommand)
def prepare(
    root: Annotated[str, typer.Option("--root", metavar="DIR", help="Folder with mosi_data.pkl, humor.pkl, …")],
    datasets: Annotated[str, typer.Option("--datasets", metavar="NAMES", help="Default: all that are there.")] = "",
    output: Annotated[str | None, typer.Option("--output", metavar="DIR", help="Default: the --root folder.")] = None,
    neutral: Annotated[
        NeutralName, typer.Option("--neutral", help="Class of a sentiment of exactly 0: label >= 0, or label > 0.")
    ] = NeutralName.positive,
    z_norm: Annotated[
        bool, typer.Option("--z-norm", help="Every sample and feature to mean 0, deviation 1 over its steps.")
    ] = False,
) -> None:
    """Convert MultiBench's files once to memory-mapped datasets for `--data DIR`."""
    with user_errors():
        console = _console()
        folder = local_path(root, "--root")
        target = folder if output is None else local_path(output, "--output")
        files = _files(datasets, folder)
        options = PrepareOptions(neutral=neutral.value, z_norm=z_norm)
        for name, path in files.items():
            with byte_progress(path.name, console) as progress:
                prepared = prepare_file(name, path, target, options, progress)
            data = Dataset.open(prepared.directory)
            sizes = "/".join(str(len(split)) for split in data.splits.values())
            console.print(
                f"{name}: {'was prepared already' if prepared.reused else 'prepared'} from {path.name}, {data.kind} "
                f"data, {sizes} samples, {_features(data)}, {data.facts['label_rule']}"
            )
            for warning in prepared.warnings:
                console.print(f"warning: {path}: {warning}", style="yellow")
        console.print(f"next: python sweeps/full_grid.py --data {target}")


def _files(datasets: str, root: Path) -> dict[str, Path]:
    """The file of each dataset asked for, or of each that is in `root`."""
    if not root.is_dir():
        raise UserError(f"--root {root}: not a folder; give the folder that holds MultiBench's files")
    names = [name.strip() for name in datasets.split(",") if name.strip()]
    found = {name: path for name in chosen_datasets(names) if (path := find_file(name, root))}
    for name in names:
        if name not in found:
            raise UserError(f"--root {root}: holds no {' or '.join(FILES[name].names)}; put {name}'s file there")
    if not found:
        usual = ", ".join(known.names[0] for known in FILES.values())
        raise UserError(f"--root {root}: holds none of {usual}; put MultiBench's files there")
    return found


def _features(data: Dataset) -> str:
    return " + ".join(f"{name} {width}" for name, width in data.features.items())


@app.command(cls=OnceCommand)
def show(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Folder of prepared datasets.")],
) -> None:
    """Show what prepared datasets hold, whether they are whole, and how they compare with what is known."""
    from s3ray.results.datasets import print_dataset

    with user_errors():
        place = local_path(directory, "DIR")
        folders = prepared_datasets(place)
        if not folders:
            raise UserError(f"{place}: holds no prepared dataset; run s3ray data prepare --root {place}")
        console = _console()
        damaged = [name for name, folder in folders.items() if not print_dataset(folder, console)]
        if damaged:
            raise UserError(f"{place}: {', '.join(damaged)} damaged; delete and prepare again")


@app.command(cls=OnceCommand)
def simulate(
    like: Annotated[str, typer.Option("--like", metavar="NAME", help=f"One of {', '.join(FILES)}.")],
    output: Annotated[str, typer.Option("--output", metavar="DIR", help="Where the file goes, under its own name.")],
    samples: Annotated[int | None, typer.Option("--samples", metavar="N", help="Default: as many as the real.")] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0)] = 0,
) -> None:
    """Write a file with the structure of a MultiBench file and made-up content."""
    with user_errors():
        (name,) = chosen_datasets([like])
        console = _console()
        count = sum(FILES[name].samples.values()) if samples is None else samples
        with byte_progress(FILES[name].names[0], console) as progress:
            path = simulate_file(name, count, local_path(output, "--output"), seed=seed, progress=progress)
        console.print(f"{path}: {count} simulated samples like {name}'s, {path.stat().st_size / 1e6:.0f} MB")
