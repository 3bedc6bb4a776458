"""What a store holds, how large, and who asks for it: of listings, not of a request per object. No Ray here.

The rule of what is named, which `s3ray gc` deletes nothing of: what a study of `results/`, a search, or a call that
goes on (or is not known to have ended) wrote of what it asks for, before it looked for it (`s3ray.store.names`). A
study is there from the first call of its sweep on these data with these settings, whether that came to an end or not.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

from pyarrow import fs as pafs

from s3ray.data.dataset import parsed_manifest
from s3ray.errors import UserError
from s3ray.execution.ledger import Ledger, calls
from s3ray.store import Store
from s3ray.store.conditional import DELETED
from s3ray.store.names import FILE, Names, read_names
from s3ray.traces import has_died

FOLDERS = (
    "artifacts",
    "calibration",
    "checkpoints",
    "claims",
    "data",
    "environments",
    "results",
    "runs",
    "search",
    "tensorboard",
    "timing",
)


# Names that we give: others' files may lie in the same folders.
IDENTITY = re.compile("[0-9a-f]{64}")
DATA_ASIDE = re.compile(r"[0-9a-f]{64}-[0-9a-f]{6}\.damaged(\.json)?")
_MARKER = re.compile(r"commit\.json(?:\.~(\d+))?")
_ATTEMPT, _ASIDE = re.compile("[0-9a-f]{12}"), re.compile(r"(commit-)?[0-9a-f]{12}\.damaged")


@dataclass(frozen=True, slots=True)
class Size:
    """How many things there are, and their bytes."""

    things: int = 0
    bytes: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.things + other.things, self.bytes + other.bytes)


NOTHING = Size()


@dataclass(frozen=True, slots=True)
class Naming:
    """Who asks for what.

    Attributes:
        by: a folder of the store: of a study, a search, a call.
    """

    by: str
    names: Names


class Listing:
    """All files of a store, a listing per folder; other people's beside them are not looked at.

    Attributes:
        calls: what those ask for that go on, or may; read before all else, since a call that ends hands over to its
            study.
        unknown: sentences on those of which that is not known.
        files: bytes, and when it was written by the storage's clock, by path within the store.
        folders: likewise when it was changed.
    """

    def __init__(self, store: Store) -> None:
        self.calls, self.unknown = _calls(store)

        def listed(folder: str) -> list[pafs.FileInfo]:
            selector = pafs.FileSelector(store.path(folder), allow_not_found=True, recursive=True)
            found: list[pafs.FileInfo] = store.fs.get_file_info(selector)
            return found

        infos = [info for found in store.parallel(listed, FOLDERS) for info in found]
        start = len(store.base) + 1
        files = {info.path[start:]: (info.size or 0, (info.mtime_ns or 0) / 1e9) for info in infos if info.is_file}
        self.files: Mapping[str, tuple[int, float]] = dict(sorted(files.items()))
        self.folders = {info.path[start:]: (info.mtime_ns or 0) / 1e9 for info in infos if not info.is_file}
        self._paths = list(self.files)
        self._bytes = [0, *accumulate(size for size, _ in self.files.values())]

    def size(self, path: str) -> Size:
        """Files of a folder, or one file."""
        if path in self.files:
            return Size(1, self.files[path][0])
        first, last = self._within(path)
        return Size(last - first, self._bytes[last] - self._bytes[first])

    def below(self, folder: str) -> list[str]:
        """Paths of all files in a folder."""
        first, last = self._within(folder)
        return self._paths[first:last]

    def inside(self, folder: str) -> list[str]:
        """Names directly in a folder that files have, or lie below."""
        return list(dict.fromkeys(path[len(folder) + 1 :].partition("/")[0] for path in self.below(folder)))

    def written(self, path: str) -> float:
        """When anything in a folder was written last."""
        return max(self.files[file][1] for file in ([path] if path in self.files else self.below(path)))

    def _within(self, folder: str) -> tuple[int, int]:
        return bisect_left(self._paths, f"{folder}/"), bisect_left(self._paths, f"{folder}0")  # "0" follows "/"


def _calls(store: Store) -> tuple[list[Naming], list[str]]:
    """What calls ask for that go on, or may, and a sentence for each of which that is not known."""
    namings, unknown = [], []
    for run in calls(store):
        if "ended" in store.names("runs", run) or has_died(run) is True:
            continue
        names, planned = read_names(store, "runs", run, FILE), dict(_planned(store, run))
        if names is not None or planned:
            namings.append(Naming(f"runs/{run}", {**planned, **(names or {})}))
        if names is None and (store.names("runs", run) or store.folders("runs", run)):  # it has not just ended
            unknown.append(
                f"{store.address('runs', run)}: a call that goes on, or may, of another version; wait until it ends"
            )
    return namings, unknown


def _planned(store: Store, run: str) -> Iterator[tuple[str, tuple[str, str | None]]]:
    ledger = Ledger(store, run)
    if record := ledger.planned():
        for cell in record.cells or ledger.added():
            yield from ((one.identity, (one.stage, one.parent)) for one in cell.runs)


@dataclass(frozen=True, slots=True)
class Result:
    """What lies in the folder of a stage run.

    Attributes:
        committed: when its marker was written; None if there is none.
        attempts: names of the folders that writers made; those set aside are not among them.
        aside: paths of what was found damaged and set aside.
    """

    stage: str
    identity: str
    size: Size
    committed: float | None
    attempts: tuple[str, ...]
    aside: tuple[str, ...]

    @property
    def folder(self) -> str:
        return f"artifacts/{self.stage}/{self.identity}"


def results_of(listing: Listing) -> dict[str, Result]:
    """By identity."""
    folders: dict[tuple[str, str], list[tuple[str, tuple[str, ...]]]] = defaultdict(list)
    for path in listing.below("artifacts"):
        _, stage, *rest = path.split("/")
        if len(rest) > 1 and IDENTITY.fullmatch(rest[0]):
            folders[stage, rest[0]].append((path, tuple(rest[1:])))
    found = {}
    for (stage, identity), files in folders.items():
        aside = {f"artifacts/{stage}/{identity}/{rest[0]}" for _, rest in files if _ASIDE.fullmatch(rest[0])}
        # On a disk one that was replaced has a number behind its name, and the highest is what counts.
        markers = [(int(m[1] or 0), listing.files[p]) for p, rest in files if (m := _MARKER.fullmatch("/".join(rest)))]
        _, (bytes_of_it, when) = max(markers, default=(0, (len(DELETED), 0.0)))
        committed = when if bytes_of_it != len(DELETED) else None  # where one was deleted, a word stays
        attempts = dict.fromkeys(rest[0] for _, rest in files if len(rest) > 1 and _ATTEMPT.fullmatch(rest[0]))
        size = Size(len(files), sum(listing.files[path][0] for path, _ in files))
        found[identity] = Result(stage, identity, size, committed, tuple(attempts), tuple(sorted(aside)))
    return found


@dataclass(frozen=True)
class Named:
    """All that is named.

    Attributes:
        unknown: sentences on those of whom it is not known what they ask for: while there is one, no result is unnamed.
    """

    namings: tuple[Naming, ...]
    unknown: tuple[str, ...]

    @cached_property
    def everything(self) -> dict[str, tuple[str, str | None]]:
        return {identity: about for naming in self.namings for identity, about in naming.names.items()}

    @cached_property
    def by_calls(self) -> set[str]:
        """What calls ask for that go on, or may."""
        return {identity for naming in self.namings if naming.by.startswith("runs/") for identity in naming.names}


def studies_of(listing: Listing) -> list[str]:
    """Those that have tables, or that a call has asked for."""
    names = listing.inside("results")
    return [
        name for name in names if not {f"results/{name}/{f}" for f in ("info.json", FILE)}.isdisjoint(listing.files)
    ]


def goes_on(run: str, listing: Listing) -> bool:
    """Whether a call does, or may: it has not said that it ended, and is not known to have died."""
    return f"runs/{run}/ended" not in listing.files and has_died(run) is not True


def named_in(store: Store, listing: Listing, dropped: Collection[str] = ()) -> Named:
    """What is named in a store.

    Args:
        dropped: studies that name nothing any more.
    """
    namings, unknown = list(listing.calls), list(listing.unknown)

    def read(path: str) -> Names | None:
        return read_names(store, *path.split("/"))

    for study in set(studies_of(listing)) - set(dropped):
        names = read(f"results/{study}/{FILE}")
        if names is not None:
            namings.append(Naming(f"results/{study}", names))
        else:
            unknown.append(
                f"{store.address('results', study)}: does not say which results it stands on, as of an earlier version "
                f"or damaged; run its sweep again, or drop it with --study {study}"
            )
    for search in listing.inside("search"):
        if not listing.below(f"search/{search}"):
            continue
        cells = listing.below(f"search/{search}/names")
        tried = store.parallel(read, cells)
        known = [names for names in tried if names is not None]
        namings.append(Naming(f"search/{search}", {k: v for names in known for k, v in names.items()}))
        if not cells or len(known) < len(cells):
            unknown.append(
                f"{store.address('search', search)}: does not say which results it stands on, as of an earlier version "
                f"or damaged; run its search again, or delete its folder"
            )
    if not namings and not unknown and not dropped and listing.below("artifacts"):
        unknown.append(
            f"{store.address('results')}: no sweep or search has said here what it asks for, as those of an earlier "
            f"version did not; run one again"
        )
    return Named(tuple(sorted(namings, key=lambda naming: naming.by)), tuple(sorted(unknown)))


@dataclass(frozen=True, slots=True)
class Use:
    """A study, search or call: its own files, the results that it names, and of these those that nobody else names."""

    name: str
    own: Size
    results: Size
    alone: Size


@dataclass
class Stored:
    """What a store holds. Sizes of results count results, all others files.

    Attributes:
        datasets: by content: name, kind and size.
        results: by stage.
        unnamed: results that nobody asks for; meaningless while anything is `unknown`.
        others: all else, by what it is.
        total: of all files.
    """

    datasets: dict[str, tuple[str, str, Size]] = field(default_factory=dict)
    results: dict[str, Size] = field(default_factory=dict)
    studies: list[Use] = field(default_factory=list)
    searches: list[Use] = field(default_factory=list)
    calls: list[Use] = field(default_factory=list)
    unnamed: Size = NOTHING
    others: dict[str, Size] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    total: Size = NOTHING

    def plain(self) -> dict[str, Any]:
        """For machines."""

        def use(one: Use) -> dict[str, Any]:
            sizes = {name: asdict(getattr(one, name)) for name in ("own", "results", "alone")}
            return {"name": one.name, **sizes}

        return {
            "total": asdict(self.total),
            "datasets": [
                {"content": content, "name": name, "kind": kind, **asdict(size)}
                for content, (name, kind, size) in self.datasets.items()
            ],
            "results": {stage: asdict(size) for stage, size in self.results.items()},
            **{name: [use(one) for one in getattr(self, name)] for name in ("studies", "searches", "calls")},
            "unnamed": None if self.unknown else asdict(self.unnamed),
            "others": {what: asdict(size) for what, size in self.others.items()},
            "unknown": list(self.unknown),
        }


def stored(store: Store) -> Stored:
    """What is there.

    Raises:
        UserError: the store cannot be read.
    """
    with store.explained("read", "check the place and your access to it"):
        listing = Listing(store)
        results, names = results_of(listing), named_in(store, listing)
        told = _datasets(store, listing)
    found = Stored(
        told, unknown=names.unknown, total=Size(len(listing.files), sum(s for s, _ in listing.files.values()))
    )
    counted = {identity: Size(1, one.size.bytes) for identity, one in results.items() if one.committed is not None}
    for identity in sorted(counted, key=lambda identity: results[identity].stage):
        stage = results[identity].stage
        found.results[stage] = found.results.get(stage, NOTHING) + counted[identity]
    times = Counter(identity for naming in names.namings for identity in naming.names)
    for naming in names.namings:
        there = counted.keys() & naming.names.keys()
        alone = [counted[identity] for identity in there if times[identity] == 1]
        folder, _, name = naming.by.partition("/")
        all_there = sum((counted[identity] for identity in there), NOTHING)
        use = Use(name, listing.size(naming.by), all_there, sum(alone, NOTHING))
        {"results": found.studies, "search": found.searches, "runs": found.calls}[folder].append(use)
    found.unnamed = sum((size for identity, size in counted.items() if identity not in times), NOTHING)
    halves = [one for one in results.values() if one.committed is None and one.attempts]
    aside = [path for one in results.values() for path in one.aside]
    aside += [f"data/{name}" for name in listing.inside("data") if DATA_ASIDE.fullmatch(name)]
    found.others = {
        "attempts without a marker": sum((one.size for one in halves), NOTHING),
        "set aside as damaged": sum(map(listing.size, aside), NOTHING),
        "checkpoints": listing.size("checkpoints"),
        "calls (runs/)": listing.size("runs"),
        "claims": listing.size("claims"),
        "training curves (tensorboard/)": listing.size("tensorboard"),
        "lists of packages (environments/)": listing.size("environments"),
        "how long runs took (timing/)": listing.size("timing"),
        "calibration": listing.size("calibration"),
    }
    return found


def _datasets(store: Store, listing: Listing) -> dict[str, tuple[str, str, Size]]:
    told = {}
    for content in listing.inside("data"):
        if f"data/{content}/manifest.json" not in listing.files or not IDENTITY.fullmatch(content):
            continue
        name, kind = "?", "cannot be read"
        with suppress(UserError, FileNotFoundError):
            manifest = parsed_manifest(store.read("data", content, "manifest.json"))
            name, kind = manifest["name"], manifest["kind"]
        told[content] = (name, kind, listing.size(f"data/{content}"))
    return told
