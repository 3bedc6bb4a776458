"""`s3ray gc`: what of a store nobody asks for, told and, on demand, deleted. No Ray here.

What is named is `s3ray.execution.stored`'s rule, and how a sweep that runs at the same time is not harmed
`s3ray.store.names`'s. What leftovers are, and what proves them dead, is `s3ray.store.leftovers`'s, which every start
clears anyway; here they are counted first, on object storage attempts, too.

The order: a result before what it stands on, of each first the marker, then its files. So whatever a kill leaves is
sound: results that count with all that they stand on, and files that no marker names, which a later gc deletes. Of a
study that is dropped the tables go first and the file with its names last, so that it can be dropped again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from s3ray.errors import UserError, nearest
from s3ray.execution.stored import (
    DATA_ASIDE,
    IDENTITY,
    Listing,
    Result,
    Size,
    goes_on,
    named_in,
    results_of,
    studies_of,
)
from s3ray.store import Claims, HeldError, Marker, Store
from s3ray.store.leftovers import HOURS, leftovers, storage_time
from s3ray.store.names import FILE, GC, Names, doom, doomed, spare
from s3ray.traces import named, sweep_of

UNNAMED = "results that nobody asks for"
ORPHANS = "results whose parent was computed anew"
ASIDE = "set aside as damaged"
ATTEMPTS = "attempts that no marker names"
CHECKPOINTS = "checkpoints of what nobody asks for"
CURVES = "training curves of what nobody asks for"
PUBLISHING = "datasets half published"
DEAD = "what dead processes left"
CLAIMS = "empty folders of claims"
STUDIES = "studies that were dropped"


@dataclass(frozen=True, slots=True)
class Garbage:
    """What would go.

    Attributes:
        path: within the store, of a file or folder.
        result: of a stage run, what lies in its folder.
    """

    reason: str
    path: str
    size: Size
    result: Result | None = None


@dataclass(frozen=True)
class Found:
    """What a store has that nobody needs.

    Attributes:
        unknown: sentences on those of whom it is not known what they ask for: while there is one, no result goes.
        undated: a sentence if the storage's time is not known, so that what only its age tells is left out; else empty.
    """

    garbage: tuple[Garbage, ...]
    names: Names
    unknown: tuple[str, ...]
    undated: str = ""

    def reasons(self) -> dict[str, Size]:
        """Per reason how many things, and their bytes."""
        counts = Counter(one.reason for one in self.garbage)
        return {why: Size(n, sum(g.size.bytes for g in self.garbage if g.reason == why)) for why, n in counts.items()}


def find(store: Store, dropped: Collection[str] = (), kept: Names | None = None) -> Found:
    """What would be deleted; nothing is. A file is written for a moment, to know the storage's time.

    Args:
        dropped: studies that are to go, with what they alone name.
        kept: what is named beside.

    Raises:
        UserError: the store cannot be read, there is no such study, or a call of it goes on, or may.
    """
    with store.explained("read", "check the place and your access to it"):
        listing = Listing(store)
        _check_dropped(store, dropped, listing)
        known = named_in(store, listing, dropped)
        names = {**known.everything, **(kept or {})}
        now, undated = _time(store) if listing.files else (None, "")
        results = results_of(listing)
        found: dict[str, Garbage] = {}

        def add(reason: str, path: str, result: Result | None = None) -> None:
            found.setdefault(path, Garbage(reason, path, listing.size(path), result))

        for study in dropped:
            add(STUDIES, f"results/{study}")
        committed = {identity for identity, one in results.items() if one.committed is not None}
        if not known.unknown:
            for identity in committed - names.keys():
                add(UNNAMED, results[identity].folder, results[identity])
            for identity in _orphans(store, results, names) - known.by_calls:
                add(ORPHANS, results[identity].folder, results[identity])

        def is_old(path: str) -> bool:
            return now is not None and now - listing.written(path) > HOURS * 3600

        for one in results.values():
            if one.folder in found:
                continue
            for path in one.aside:
                add(ASIDE, path)
            for attempt in _unnamed(store, one):
                if is_old(f"{one.folder}/{attempt}"):
                    add(ATTEMPTS, f"{one.folder}/{attempt}")
        for name in listing.inside("data"):
            if DATA_ASIDE.fullmatch(name):
                add(ASIDE, f"data/{name}")
            elif IDENTITY.fullmatch(name) and _is_half_published(listing, name) and is_old(f"data/{name}"):
                add(PUBLISHING, f"data/{name}")
        for identity in filter(IDENTITY.fullmatch, listing.inside("checkpoints")):
            if identity not in names and not known.unknown:
                add(CHECKPOINTS, f"checkpoints/{identity}")
        beginnings = {identity[:8] for identity in names}
        for folder in {path.rpartition("/")[0] for path in listing.below("tensorboard")}:
            beginning = re.fullmatch(r"tensorboard/[^/]+/[^/]+/[^/]+\.([0-9a-f]{8})", folder)
            if not known.unknown and beginning and beginning[1] not in beginnings:
                add(CURVES, folder)
        for folder, made in listing.folders.items():
            is_claims = re.fullmatch("claims/([0-9a-f]{64}|search-[^/]+)", folder) and not listing.below(folder)
            if is_claims and now is not None and now - made > HOURS * 3600:
                add(CLAIMS, folder)
        for path in leftovers(store, now):
            add(DEAD, path)
    return Found(tuple(found.values()), names, known.unknown, undated)


def _time(store: Store) -> tuple[float | None, str]:
    """The storage's time, or a sentence why it is not known."""
    try:
        return storage_time(store), ""
    except OSError as error:
        reason = str(error).partition("\n")[0]
        return None, (
            f"{store.uri}: its time is not known, since it takes no writes ({reason}), so what is known to be dead "
            f"only by its age is left out; give access that may write to see all"
        )


def _is_half_published(listing: Listing, content: str) -> bool:
    return {f"data/{content}/manifest.json", f"data/{content}"}.isdisjoint(listing.files)


def _check_dropped(store: Store, dropped: Iterable[str], listing: Listing) -> None:
    studies = studies_of(listing)
    for study in dropped:
        if study not in studies:
            raise UserError(f"--study {study}: {store.uri} has no such study; {nearest(study, studies)}")
        sweep = sweep_of(study)
        for run in listing.inside("runs"):
            if (about := named(run)) is not None and about[0] == sweep and goes_on(run, listing):
                raise UserError(
                    f"--study {study}: a sweep {sweep} goes on, or may ({store.address('runs', run)}); wait until it "
                    f"ends, or delete that folder if nothing runs any more"
                )


def _unnamed(store: Store, result: Result) -> set[str]:
    """Attempts that the marker does not name."""
    attempts = set(result.attempts)
    if result.committed is None or len(attempts) < 2:
        return attempts if result.committed is None else set()
    content = store.marker_content(result.stage, result.identity)
    marker = Marker.of(content, result.stage, result.identity) if content is not None else None
    return attempts - {marker.attempt} if marker is not None else set()  # one that cannot be read may name any


def _orphans(store: Store, results: Mapping[str, Result], names: Names) -> set[str]:
    """Named results that count no more, since another attempt of their parent does.

    One is suspected if it was committed before its parent, or its parent is not there; then its marker is read. What
    stands on an orphan is one.
    """

    def committed(identity: str) -> float | None:
        return results[identity].committed if identity in results else None

    def is_one(identity: str) -> bool:
        stage, parent = names[identity]
        assert parent is not None
        own = Marker.of(store.marker_content(stage, identity) or b"", stage, identity)
        above = store.marker_content(names[parent][0], parent) if parent in names else None
        marker = Marker.of(above or b"", names[parent][0], parent) if above else None
        return own is not None and (marker is None or marker.attempt != own.parent_attempt)

    suspected = []
    for identity, (_, parent) in names.items():
        own = committed(identity)
        if own is not None and parent is not None:
            above = committed(parent)
            if above is None or above > own:
                suspected.append(identity)
    orphans = {i for i, is_orphan in zip(suspected, store.parallel(is_one, suspected), strict=True) if is_orphan}
    while more := {i for i, (_, p) in names.items() if p in orphans and committed(i) is not None} - orphans:
        orphans |= more
    return orphans


def delete(
    store: Store,
    dropped: Collection[str] = (),
    kept: Names | None = None,
    waiting: Callable[[str], None] = lambda who: None,
) -> Found:
    """Delete what `find` finds; what was deleted.

    Args:
        waiting: told once whose claim stands in the way, while it is not known whether its owner lives.

    Raises:
        UserError: as of `find`; another gc is at work, this one stood still and lost its claim, or the storage has no
            conditional writes, or refuses to delete.
    """
    store.check_writable()
    with store.explained("changed", "give access that may write and delete, and run it again"):
        if not store.honours_conditions:
            raise UserError(
                f"{store.option} {store.uri}: has no conditional writes, without which sweeps that run meanwhile "
                f"could be harmed; delete folders by hand while nothing runs"
            )
        try:
            with Claims(store).hold(GC, waiting) as holds:
                found = find(store, dropped, kept)  # only now: who comes later waits
                _delete(store, found, dropped, holds)
        except HeldError as error:
            raise UserError(f"gc: another one is at work ({error}); wait until it ends") from None
    return found


def _delete(store: Store, found: Found, dropped: Collection[str], holds: Callable[[], bool]) -> None:
    def check() -> None:
        if not holds():
            raise UserError("gc: stood still for too long, so that others may go on; run it again")

    spare(store, found.names)
    results = [one.result for one in found.garbage if one.result is not None]
    lists = [*doomed(store), doom(store, {one.identity: (one.stage, None) for one in results})]

    def one_result(result: Result) -> None:
        check()
        _delete_result(store, result)

    for study in dropped:
        check()
        _delete_tables(store, study)
    for generation in _generations(store, results):
        store.parallel(one_result, generation)
    for one in sorted(found.garbage, key=lambda one: one.reason == STUDIES):
        if one.result is None:
            check()
            if one.reason == CLAIMS:
                with suppress(OSError):  # somebody has just made a claim in it
                    Path(store.path(one.path)).rmdir()
            else:
                remove(store, one.path)
    # What an earlier one was about to delete is gone as well, or was spared; if not, its list stays.
    for file in lists[-1:] if found.unknown else lists:
        remove(store, f"claims/{GC}/{file}")


def _generations(store: Store, results: list[Result]) -> list[list[Result]]:
    """Results in lists, none before what stands on it."""
    contents = store.parallel(lambda one: store.marker_content(one.stage, one.identity) or b"", results)
    parents: dict[str, str | None] = {}
    for one, content in zip(results, contents, strict=True):
        marker = Marker.of(content, one.stage, one.identity)
        parents[one.identity] = marker.document["parent"] if marker else None

    def depth(identity: str) -> int:
        parent = parents[identity]
        return 1 + depth(parent) if parent in parents else 0

    depths = {one.identity: depth(one.identity) for one in results}
    return [[one for one in results if depths[one.identity] == at] for at in sorted(set(depths.values()), reverse=True)]


def _delete_result(store: Store, result: Result) -> None:
    """The marker first; then the files, which nothing counts on any more."""
    key = f"{result.folder}/commit.json"
    there = store.conditional.read(key)
    if there is not None and not store.conditional.delete(key, there[1]):
        return  # somebody has replaced it
    for attempt in result.attempts:
        remove(store, f"{result.folder}/{attempt}")
    for path in result.aside:
        remove(store, path)
    for name in store.names("artifacts", result.stage, result.identity):
        if name.startswith("drift-"):
            remove(store, f"{result.folder}/{name}")


def _delete_tables(store: Store, study: str) -> None:
    """All of a study but its names: what says that it is there first."""
    folder = f"results/{study}"
    remove(store, f"{folder}/info.json")
    for name in {path[len(folder) + 1 :].partition("/")[0] for path in Listing(store).below(folder)} - {FILE}:
        remove(store, f"{folder}/{name}")


def remove(store: Store, path: str) -> None:
    """Delete a file or folder; nothing happens if it is gone."""
    place = store.path(path)
    with suppress(FileNotFoundError):
        (store.fs.delete_file if store.fs.get_file_info(place).is_file else store.fs.delete_dir)(place)
