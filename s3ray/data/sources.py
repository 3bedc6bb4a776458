"""From what the user typed to datasets: names, `NAME=PATH`, a folder of prepared datasets and `.npz` files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from s3ray.data.dataset import Dataset
from s3ray.data.embedded import EMBEDDED
from s3ray.data.multibench.files import FILES, find_file
from s3ray.data.names import listed
from s3ray.data.npz import read_npz
from s3ray.errors import UserError, nearest
from s3ray.paths import local_path


@dataclass(frozen=True, slots=True)
class Source:
    """A dataset that can be loaded: its name and how."""

    name: str
    load: Callable[[], Dataset]
    asked: bool = True  # by its name; otherwise it came with its folder


def load_sources(sources: Sequence[Source]) -> tuple[dict[str, Dataset], list[str]]:
    """The datasets by name, and a sentence for each that came with a folder and is left out since it is bad.

    Raises:
        UserError: one that was asked for is bad, or all are.
    """
    loaded: dict[str, Dataset] = {}
    bad: list[UserError] = []
    for source in sources:
        try:
            loaded[source.name] = source.load()
        except UserError as error:
            if source.asked:
                raise
            bad.append(error)
    if bad and not loaded:
        raise bad[0]
    return loaded, [f"{error} (left out; going on with {', '.join(loaded)})" for error in bad]


# The modalities that a prepared dataset is seen through unless told otherwise.
DEFAULT_PAIR = ("vision", "text")


def resolve_sources(
    names: Sequence[str],
    assignments: Sequence[str],
    folder: Path | None,
    modalities: Sequence[str] | None = None,
    embedded: Sequence[str] = (),
) -> list[Source]:
    """The datasets that a command line asks for, in its order.

    Args:
        names: `--datasets`; any of the embedded names and of what `folder` holds. Empty: those
            of `assignments` and `folder`, or if there are none, those of `embedded`.
        assignments: `--dataset NAME=PATH`, each a `.npz`.
        folder: `--data DIR`, which holds `NAME.npz` files and prepared datasets.
        modalities: `--modalities`, those that are taken, in this order, of each prepared dataset in `folder` (by
            default vision and text) and of each `.npz`; beside prepared ones, an `.npz` that has none of them is read
            whole.
        embedded: the embedded ones that stand for none; by default the usual ones.

    Raises:
        UserError: an unknown name, one name for two datasets, a malformed assignment, an unreadable folder.
    """
    brought: dict[str, Source] = {}
    places: dict[str, Path] = {}  # of the assignments
    if modalities is not None and (not modalities or len(set(modalities)) < len(modalities)):
        raise UserError(f"--modalities {','.join(modalities)}: name different modalities, such as vision,text")
    beside = folder is not None and bool(prepared_datasets(folder))
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"--data {folder}: not a folder; {_no_folder(folder)}")
        brought = _in_folder(folder, modalities)
    elif modalities is not None and not assignments:
        raise UserError(
            f"--modalities {','.join(modalities)}: is for your own and prepared datasets; give one with --dataset "
            f"NAME=PATH or --data DIR"
        )
    for assignment in assignments:
        name, separator, path_text = assignment.partition("=")
        if not separator or not name.isidentifier() or not path_text:
            raise UserError(f"--dataset {assignment}: must read NAME=PATH with a plain word as NAME; rewrite it")
        path = local_path(path_text, f"--dataset {name}")
        taken = [places[name]] if name in places else []
        if folder is not None:
            taken += [folder / f"{name}.npz", *filter(None, [prepared_datasets(folder).get(name)])]
        for other in taken:
            if other.exists() and other.resolve() != path.resolve():
                raise UserError(
                    f"--dataset {assignment}: {name} is the name of {other} too; give one of them another name"
                )
        places[name], brought[name] = path, _npz_source(name, path, modalities, beside)

    known = {name: Source(name, own.load) for name, own in EMBEDDED.items()} | brought
    chosen = list(dict.fromkeys([*names, *(a.partition("=")[0] for a in assignments)])) if names else list(brought)
    for name in chosen:
        if name in EMBEDDED and name in brought:
            place = f"--dataset {name}={places[name]}" if name in places else f"--data {folder}"
            raise UserError(f"{place}: {name} is the name of an embedded dataset; give yours another name")
        if name not in known:
            if name in FILES:
                raise UserError(
                    f"--datasets: {name} is not prepared in --data {folder or 'DIR'}; put {FILES[name].names[0]} into "
                    f"a folder DIR, run s3ray data prepare --root DIR, and give --data DIR"
                )
            raise UserError(f"--datasets: unknown dataset {name!r}; {nearest(name, known)}")
    asked = {*names, *(a.partition("=")[0] for a in assignments)}
    usual = embedded or [name for name, own in EMBEDDED.items() if own.usual]
    return [replace(known[name], asked=name in asked or name not in brought) for name in chosen or usual]


def prepared_datasets(folder: Path) -> dict[str, Path]:
    """Folders of prepared datasets in `folder`, by name; the paper's first, in its order."""
    found = {path.parent.name: path.parent for path in sorted(folder.glob("[!.]*/manifest.json"))}
    return {name: found[name] for name in [*FILES, *found] if name in found}


def _in_folder(folder: Path, modalities: Sequence[str] | None) -> dict[str, Source]:
    def prepared(path: Path) -> Callable[[], Dataset]:
        return lambda: Dataset.open(path, DEFAULT_PAIR if modalities is None else modalities)

    sources = {name: Source(name, prepared(path)) for name, path in prepared_datasets(folder).items()}
    beside = bool(sources)
    for path in sorted(folder.glob("*.npz")):
        if path.stem in sources:
            sources[path.stem] = Source(path.stem, _ambiguous(folder, path))
        else:
            sources[path.stem] = _npz_source(path.stem, path, modalities, beside)
    for name in sources:
        if not name.isprintable():
            raise UserError(f"--data {folder}: {name!r} has characters that cannot be shown in its name; rename it")
    if not sources:
        if (folder / "manifest.json").is_file():
            raise UserError(
                f"--data {folder}: is one prepared dataset; give its folder: --data {folder.absolute().parent}"
            )
        raw = [file.name for name in FILES if (file := find_file(name, folder))]
        if raw:
            raise UserError(f"--data {folder}: {raw[0]} is not prepared; run s3ray data prepare --root {folder}")
        others = [path.name for path in sorted(folder.glob("[!.]*"))]
        raise UserError(
            f"--data {folder}: holds no prepared dataset and no NAME.npz file (found {listed(others)}); put datasets "
            f"there or use --dataset NAME=PATH"
        )
    return sources


def _ambiguous(folder: Path, path: Path) -> Callable[[], Dataset]:
    def load() -> Dataset:
        raise UserError(f"--data {folder}: holds {path.name} and a prepared {path.stem}; rename one of them")

    return load


def _no_folder(path: Path) -> str:
    """What helps if `path` was given for a folder of datasets."""
    if path.suffix == ".npz" and path.is_file():
        return f"give the file with --dataset {path.stem}={path}"
    if any(path.name in known.names for known in FILES.values()):
        return f"run s3ray data prepare --root {path.parent} and give --data {path.parent}"
    return "give the folder that holds NAME.npz files and prepared datasets"


def _npz_source(name: str, path: Path, modalities: Sequence[str] | None, beside: bool) -> Source:
    return Source(name, lambda: read_npz(name, path, modalities, else_all=beside))
