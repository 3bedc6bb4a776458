"""Data for sweeps: import your own files, prepare MultiBench's, look at them, simulate some to try it with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from s3ray.cli.console import OnceCommand, byte_progress, user_errors
from s3ray.data.dataset import Dataset
from s3ray.data.foreign import foreign
from s3ray.data.multibench.files import FILES, chosen_datasets, find_file, packed_files
from s3ray.data.multibench.prepare import PrepareOptions
from s3ray.data.multibench.prepare import prepare as prepare_file
from s3ray.data.multibench.simulate import simulate as simulate_file
from s3ray.data.names import listed
from s3ray.data.sources import prepared_datasets
from s3ray.errors import UserError
from s3ray.paths import local_path
from s3ray.terminal import Terminal

app = typer.Typer(no_args_is_help=True, help=__doc__, epilog="Example: s3ray data show mine.npz")


class NeutralName(StrEnum):
    positive = "positive"
    negative = "negative"


class MissingRule(StrEnum):
    declared = "declared"
    zeros = "zeros"


class Fill(StrEnum):
    mean = "mean"


def _console() -> Console:
    width = max(Terminal().width, 160)  # a table's numbers are not to be cut where output is piped
    return Terminal(highlight=False, soft_wrap=True, width=width)


@app.command(cls=OnceCommand, epilog="Example: s3ray data prepare --root files")
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
    missing: Annotated[
        MissingRule,
        typer.Option("--missing", help="zeros: a sample whose vision or audio is all zeros lacks it."),
    ] = MissingRule.declared,
) -> None:
    """Convert MultiBench's files once to memory-mapped datasets for `--data DIR`."""
    with user_errors():
        console = _console()
        folder = local_path(root, "--root")
        target = folder if output is None else local_path(output, "--output")
        files = _files(datasets, folder)
        options = PrepareOptions(neutral=neutral.value, z_norm=z_norm, missing=missing.value)

        def one(name: str, path: Path) -> None:
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

        bad = _each(partial(one, name, path) for name, path in files.items())
        if len(bad) < len(files):
            console.print(f"next: s3ray sweep full_grid --data {target}")
        _refuse(bad)


@app.command(
    "import", cls=OnceCommand, epilog="Example: s3ray data import table.csv --label activity --output mine.npz"
)
def import_(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help=".npz, .npy, .mat, .csv, .tsv, .parquet, .h5, or a folder with a file per sample; one or several.",
        ),
    ],
    output: Annotated[str, typer.Option("--output", metavar="FILE", help="The .npz to write.")],
    modality: Annotated[
        list[str] | None,
        typer.Option(
            "--modality",
            metavar="NAME=WHAT",
            help="An array (X, X{1}), columns by place (cols:0-2) or by name (ax,ay or gyro_*); repeat for each.",
        ),
    ] = None,
    label: Annotated[str | None, typer.Option("--label", metavar="WHAT", help="Classes of any kind.")] = None,
    group: Annotated[
        str | None, typer.Option("--group", metavar="WHAT", help="Such as the subject: none is in two splits.")
    ] = None,
    sample: Annotated[
        str | None, typer.Option("--sample", metavar="COLUMNS", help="Of a row per step: what tells samples apart.")
    ] = None,
    time: Annotated[
        str | None, typer.Option("--time", metavar="COLUMN", help="Orders a sample's rows; default: as they come.")
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="SHARES", help="Default: 60/20/20 if nothing is split yet.")
    ] = None,
    split_column: Annotated[
        str | None, typer.Option("--split-column", metavar="WHAT", help="Says train, valid or test.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, max=2**32 - 1, help="Of the split.")] = 0,
    fill: Annotated[
        Fill | None, typer.Option("--fill", help="Missing values become train's means; default: refused.")
    ] = None,
    missing: Annotated[
        MissingRule,
        typer.Option("--missing", help="zeros: a sample whose values of a modality are all 0 lacks it."),
    ] = MissingRule.declared,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output.")] = False,
) -> None:
    """Make the .npz that sweeps take from files of yours; what is not said is looked for, and told."""
    from s3ray.data.importing import Wanted, import_files
    from s3ray.data.standardize import standardized

    with user_errors():
        wanted = Wanted(
            modalities=_modalities(modality or []),
            label=label,
            group=group,
            sample=sample,
            time=time,
            shares=split,
            split_column=split_column,
            seed=seed,
            fill=fill and fill.value,
            missing=missing.value,
        )
        target = local_path(output, "--output")
        data = import_files([local_path(file, "FILE") for file in files], target, wanted, overwrite=overwrite)
        console = _console()
        for line in data.facts["imported"]["said"]:
            console.print(line)
        for warning in standardized(data).warnings:  # as sweeps take it
            console.print(f"warning: {warning}", style="yellow")
        console.print(f"{target}: written, {target.stat().st_size / 1e6:.2g} MB; {_next(data, target)}")


def _modalities(assignments: list[str]) -> dict[str, str]:
    modalities: dict[str, str] = {}
    for assignment in assignments:
        name, separator, what = assignment.partition("=")
        if not separator or not name.isidentifier() or not what.strip():
            raise UserError(f"--modality {assignment}: must read NAME=WHAT with a plain word as NAME; rewrite it")
        if name in modalities:
            raise UserError(f"--modality {assignment}: {name} is given twice; give each its own name")
        modalities[name] = what
    return modalities


def _next(data: Dataset, path: Path) -> str:
    return f"next: s3ray sweep table1_figure5 --dataset {data.name}={path}"


def _each(works: Iterable[Callable[[], None]]) -> list[UserError]:
    """Do all, whatever becomes of one; what went wrong."""
    bad = []
    for work in works:
        try:
            work()
        except UserError as error:
            bad.append(error)
    return bad


def _refuse(bad: list[UserError]) -> None:
    """One line each, the last as the command's own end."""
    different = list({str(error): error for error in bad}.values())
    for error in different[:-1]:
        print(f"error: {error}", file=sys.stderr)
    if different:
        raise different[-1]


def _files(datasets: str, root: Path) -> dict[str, Path]:
    """The file of each dataset asked for, or of each that is in `root`."""
    if not root.is_dir():
        inside = root.is_file() and any(root.name in known.names for known in FILES.values())
        remedy = f"give its folder: --root {root.parent}" if inside else "give the folder that holds MultiBench's files"
        raise UserError(f"--root {root}: not a folder; {remedy}")
    names = [name.strip() for name in datasets.split(",") if name.strip()]
    found = {name: path for name in chosen_datasets(names) if (path := find_file(name, root))}
    for name in names:
        if name not in found:
            usual = " or ".join(FILES[name].names)
            remedy = _instead(root, f"put {name}'s file there")
            raise UserError(f"--root {root}: holds no {usual}; {remedy}")
    if not found:
        usual = ", ".join(known.names[0] for known in FILES.values())
        remedy = _instead(root, "put MultiBench's files there")
        raise UserError(f"--root {root}: holds none of {usual}; {remedy}")
    return found


def _instead(root: Path, usual: str) -> str:
    """What to do with what `root` holds in place of MultiBench's files, else `usual`."""
    if near := packed_files(root):
        kind = foreign(near[0])
        how = f"unpack it: {kind.command}" if kind and kind.command else "rename it"
        return f"found {listed([path.name for path in near])}, {how}"
    if (root / "manifest.json").is_file():
        return f"it is prepared already, look at it with s3ray data show {root}"
    if prepared := prepared_datasets(root):
        return f"{listed(list(prepared))} is prepared already: give --data {root}"
    if own := sorted(path.name for path in root.glob("*.npz")):
        return f"{listed(own)} needs no preparing: give --data {root}"
    return usual


def _features(data: Dataset) -> str:
    return " + ".join(f"{name} {width}" for name, width in data.features.items())


@app.command(cls=OnceCommand, epilog="Example: s3ray data show mine.npz")
def show(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Folders of datasets, prepared ones, .npz files of your own."),
    ],
) -> None:
    """Show what datasets hold, whether they are whole, and how they compare with what is known."""
    from s3ray.results.describe import print_npz, print_prepared

    with user_errors():
        console = _console()
        bad: list[UserError] = []
        for path in (local_path(text, "PATH") for text in paths):
            prepared, npz = _shown(path, bad)
            damaged: list[str] = []

            def one(name: str, folder: Path, damaged: list[str] = damaged) -> None:
                if not print_prepared(folder, console):
                    damaged.append(name)

            bad += _each(partial(one, name, folder) for name, folder in prepared.items())
            if damaged:
                bad.append(UserError(f"{path}: {', '.join(damaged)} damaged; delete and prepare again"))
            bad += _each(partial(print_npz, file, console) for file in npz)
        _refuse(bad)


def _shown(path: Path, bad: list[UserError]) -> tuple[dict[str, Path], list[Path]]:
    """The prepared datasets and `.npz` files that a path stands for; if none, a sentence goes to `bad`."""
    if not path.is_dir():
        if path.is_file():
            return {}, [path]
        bad.append(UserError(f"{path}: no such folder or file; give a folder of datasets or an .npz"))
        return {}, []
    if (path / "manifest.json").is_file():
        return {path.absolute().name: path}, []
    prepared, npz = prepared_datasets(path), sorted(path.glob("*.npz"))
    if not prepared and not npz:
        bad.append(
            UserError(f"{path}: holds no prepared dataset; run s3ray data prepare --root {path} or give an .npz")
        )
    return prepared, npz


@app.command(cls=OnceCommand, epilog="Example: s3ray data simulate --like mosi --samples 600 --output files")
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
