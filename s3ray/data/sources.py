"""From what the user typed to datasets: names, `NAME=PATH`, a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from s3ray.config import PAPER_DATASETS, UserError, nearest
from s3ray.data.dataset import Dataset
from s3ray.data.digits import digits
from s3ray.data.latent_factors import latent_factors
from s3ray.data.npz import read_npz

EMBEDDED: dict[str, Callable[[], Dataset]] = {"digits": digits, "latent_factors": latent_factors}


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset that can be loaded: its name and how."""

    name: str
    load: Callable[[], Dataset]


def resolve_sources(names: Sequence[str], assignments: Sequence[str], folder: Path | None) -> list[Source]:
    """The datasets that a command line asks for, in its order.

    Args:
        names: `--datasets`; any of the embedded names and of the files `NAME.npz` in `folder`. Empty: those
            of `assignments` and `folder`, or if there are none, all embedded ones.
        assignments: `--dataset NAME=PATH`, each a `.npz`.
        folder: `--data DIR`.

    Raises:
        UserError: an unknown name, a malformed assignment, an unreadable folder.
    """
    brought: dict[str, Source] = {}
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"--data {folder}: not a folder; give the folder that holds NAME.npz files")
        for path in sorted(folder.glob("*.npz")):
            brought[path.stem] = _npz_source(path.stem, path)
        if not brought:
            raise UserError(f"--data {folder}: holds no NAME.npz file; put datasets there or use --dataset NAME=PATH")
    for assignment in assignments:
        name, separator, path_text = assignment.partition("=")
        if not separator or not name.isidentifier() or not path_text:
            raise UserError(f"--dataset {assignment}: must read NAME=PATH with a plain word as NAME; rewrite it")
        brought[name] = _npz_source(name, Path(path_text))

    known = {name: Source(name, load) for name, load in EMBEDDED.items()} | brought
    chosen = list(dict.fromkeys([*names, *(a.partition("=")[0] for a in assignments)])) if names else list(brought)
    for name in chosen:
        if name not in known:
            hint = " (its file must lie in --data DIR)" if name in PAPER_DATASETS else ""
            raise UserError(f"--datasets: unknown dataset {name!r}{hint}; {nearest(name, known)}")
    return [known[name] for name in chosen or EMBEDDED]


def _npz_source(name: str, path: Path) -> Source:
    return Source(name, lambda: read_npz(name, path))
