"""`s3ray config`: what a dataset's settings come to."""

from __future__ import annotations

from typing import Annotated

import typer

from s3ray.cli.console import user_errors
from s3ray.cli.options import ConfigOption, DatasetOption, ScaleName, ScaleOption
from s3ray.data import load_sources, resolve_sources
from s3ray.data.embedded import EMBEDDED
from s3ray.errors import UserError, nearest
from s3ray.settings import PAPER_DATASETS, default_scale, read_all, settings_for
from s3ray.settings.reference import as_toml


def config(
    name: Annotated[str, typer.Argument(metavar="DATASET", help="Embedded, the paper's, or of --dataset.")],
    dataset: DatasetOption = None,
    scale: ScaleOption = None,
    config: ConfigOption = None,
) -> None:
    """Print a dataset's settings as TOML that --config takes, each with what it is and the scale's default.

    Of your own data they are those before calibration; what a --config file sets, calibration leaves.
    """
    with user_errors():
        print(_settings(name, dataset or [], scale, config or []), end="")


def _settings(name: str, assignments: list[str], scale: ScaleName | None, files: list[str]) -> str:
    own = {text.partition("=")[0]: text for text in assignments}
    if name not in [*EMBEDDED, *PAPER_DATASETS, *own]:
        known = nearest(name, [*EMBEDDED, *PAPER_DATASETS, *own])
        raise UserError(f"config: unknown dataset {name!r}; {known}; of your own give --dataset {name}=PATH")
    data = load_sources(resolve_sources([], [own[name]], None))[0][name] if name in own else None
    at = scale.value if scale else default_scale(name)
    source = " ".join(f"--config {file}" for file in files) or "--config"
    settings = settings_for(name, at, read_all(files), source, data)
    return (
        f"# {name}, scale {at}. A --config file needs only what it changes; of one dataset alone: [dataset.{name}].\n"
        f"# (ours): the paper leaves it open. Default: what the scale has for any dataset.\n\n{as_toml(settings, at)}"
    )
