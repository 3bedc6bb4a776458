"""`s3ray store`, `s3ray gc`: what a storage holds and who asks for it; what nobody does, deleted on demand."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated

import typer

from s3ray.cli.console import user_errors
from s3ray.cli.options import DEFAULT_STORAGE, StorageOption, open_store, resolve
from s3ray.cli.sweeps import PlanFormat
from s3ray.errors import printable
from s3ray.execution.gc import Found, delete, find
from s3ray.execution.stored import NOTHING, Size, Stored, Use, stored
from s3ray.paths import local_path
from s3ray.search.calibration import asked_by
from s3ray.sweep import load_sweep


def store(
    storage: StorageOption = DEFAULT_STORAGE, output: Annotated[PlanFormat, typer.Option("--format")] = PlanFormat.text
) -> None:
    """Show what a storage holds and how large it is: per kind, and per study what it names and what it names alone.

    Listings alone are read, so it takes seconds on a disk, and some requests per thousand objects elsewhere.
    """
    with user_errors():
        opened = open_store(storage)
        found = stored(opened)
        if output is PlanFormat.json:
            print(json.dumps(found.plain(), indent=2))
            return
        for line in _lines(found, opened.uri):
            print(printable(line))


def gc(
    storage: StorageOption = DEFAULT_STORAGE,
    deletes: Annotated[bool, typer.Option("--delete", help="Delete it; else it is only told.")] = False,
    study: Annotated[
        list[str] | None,
        typer.Option(
            "--study", metavar="NAME", help="Of `s3ray store`: it goes, with what it alone names. May be repeated."
        ),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep", metavar="SWEEP", help="A sweep file whose results stay, at its default settings and data."
        ),
    ] = None,
    output: Annotated[PlanFormat, typer.Option("--format")] = PlanFormat.text,
) -> None:
    """Tell what of a storage nobody asks for, and delete it with --delete.

    Kept is what a study, a search, or a call that goes on or may go on, asks for. Sweeps may run at the same time.
    """
    from s3ray.results.rounds import with_second_round

    with user_errors():
        place, dropped = open_store(storage), list(dict.fromkeys(study or []))
        kept: dict[str, tuple[str, str | None]] = {}
        for file in keep or []:
            plan = resolve(load_sweep(local_path(file, "--keep")), "", None, None, None, None, storage, None).plan
            # Where cells are missing, the second round may have followed from less than all of the first.
            kept |= asked_by(with_second_round(plan, place, {cell.cell for cell in plan.pending}), place)

        def waiting(who: str) -> None:
            print(printable(f"another gc was begun by {who}; waiting some seconds for a sign of life"), file=sys.stderr)

        found = delete(place, dropped, kept, waiting) if deletes else find(place, dropped, kept)
        if output is PlanFormat.json:
            print(json.dumps(_plain(found, deleted=deletes), indent=2))
            return
        for line in _told(found, deleted=deletes):
            print(printable(line))


def _plain(found: Found, *, deleted: bool) -> dict[str, object]:
    reasons = {why: asdict(size) for why, size in found.reasons().items()}
    things = [{"reason": one.reason, "path": one.path, "bytes": one.size.bytes} for one in found.garbage]
    lacking = {"unknown": list(found.unknown), "undated": found.undated}
    return {"deleted": deleted, "reasons": reasons, "things": things, **lacking}


def _told(found: Found, *, deleted: bool) -> Iterator[str]:
    reasons = found.reasons()
    yield from _table([(why, *_sized(size)) for why, size in reasons.items()])
    if found.unknown:
        yield "no result is deleted while it is not known who asks for it:"
        yield from (f"  {sentence}" for sentence in found.unknown)
    if found.undated:
        yield found.undated
    size = sum(reasons.values(), NOTHING)
    if not reasons:
        yield "nothing to delete"
    elif deleted:
        yield f"deleted: {size.things} things, {_bytes(size.bytes)}"
    else:
        yield f"would be deleted: {size.things} things, {_bytes(size.bytes)}; --delete does it"


def _lines(found: Stored, place: str) -> Iterator[str]:
    if not found.total.things:
        yield f"nothing is stored at {place} yet"
        return
    rows = [(f"dataset {name} ({kind})", *_sized(size)) for name, kind, size in found.datasets.values()]
    rows += [(f"results of {stage}", *_sized(size)) for stage, size in found.results.items()]
    rows += [(what, *_sized(size)) for what, size in found.others.items() if size.things]
    yield from _table(rows)
    yield f"in all {found.total.things} files, {_bytes(found.total.bytes)}"
    for title, uses in {"study": found.studies, "search": found.searches, "call": found.calls}.items():
        for one in uses:
            yield f"{title} {one.name}: {_used(one)}"
    if found.unknown:
        yield from found.unknown
    elif found.unnamed.things:
        yield f"nobody asks for {_results(found.unnamed)}; s3ray gc tells what could go"


def _used(one: Use) -> str:
    own = f"{_bytes(one.own.bytes)} of its own, " if one.own.things else ""
    return f"{own}names {_results(one.results)}; alone {_results(one.alone)}"


def _results(size: Size) -> str:
    return f"{size.things} result{'' if size.things == 1 else 's'}, {_bytes(size.bytes)}"


def _sized(size: Size) -> tuple[str, str]:
    return str(size.things), _bytes(size.bytes)


def _bytes(count: int) -> str:
    value, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.3g} {units[0]}"


def _table(rows: list[tuple[str, str, str]]) -> Iterator[str]:
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for what, count, size in rows:
        yield f"{what:<{widths[0]}}  {count:>{widths[1]}}  {size:>{widths[2]}}"
