"""`s3ray status`, `s3ray logs`: how sweeps stand and why cells failed, from the storage alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from s3ray.cli.console import user_errors
from s3ray.cli.options import DEFAULT_STORAGE, StorageOption, open_store
from s3ray.cli.sweeps import PlanFormat
from s3ray.errors import UserError, printable
from s3ray.execution.ledger import shown
from s3ray.execution.logs import explained
from s3ray.execution.status import Call, Watch
from s3ray.store import Store
from s3ray.store.claims import elapsed
from s3ray.sweep.timing import duration
from s3ray.terminal import Terminal

SECONDS = 5.0  # between two looks
SILENCE = 300.0  # after so many without a sign of life from anybody it is said that there is none


def status(
    storage: StorageOption = DEFAULT_STORAGE,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every few seconds until nothing is at work, or Ctrl-C.")
    ] = False,
    output: Annotated[PlanFormat, typer.Option("--format")] = PlanFormat.text,
) -> None:
    """Show how sweeps and searches stand: done, at work where and since when, failed and why, what is left.

    From the storage alone, on any machine. What goes on elsewhere is known to be alive after some seconds of --watch.
    """
    with user_errors():
        if watch and output is PlanFormat.json:
            raise UserError("--watch: is for people; leave out --format json, or ask again and again")
        store = open_store(storage)
        looks = Watch(store)
        if output is PlanFormat.json:
            print(json.dumps([asdict(call) for call in looks.look()], indent=2))
        elif not watch:
            for line in _lines(looks.look(), store):
                print(printable(line))
        else:
            with suppress(KeyboardInterrupt):  # Ctrl-C is how one leaves
                _follow(looks, store)


def _follow(looks: Watch, store: Store) -> None:
    """Look until nothing is at work; on a terminal in one place, elsewhere what has changed in lines."""
    console, before = Terminal(highlight=False), list[str]()
    heard, is_said = elapsed(), False
    with Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:
        while True:
            calls = looks.look()
            lines = list(_lines(calls, store))
            if live is not None:
                live.update(Group(*(Text(printable(line)) for line in lines)), refresh=True)
            elif lines != before:
                for line in lines:
                    console.print(line, soft_wrap=True)
            if all(call.alive is False for call in calls):
                return
            if any(call.alive for call in calls):
                heard, is_said = elapsed(), False
            elif elapsed() - heard >= SILENCE and not is_said:
                is_said = True  # and looked at further: spot machines take hours to come
                silent = f"nobody has given a sign of life for {SILENCE / 60:.0f} min"
                waits = "a sweep whose machines have not come gives none; if it is gone, run it again"
                console.print(f"{silent}: {waits}", soft_wrap=True)
            before = lines
            time.sleep(SECONDS)


def logs(
    cell: Annotated[list[str], typer.Argument(metavar="CELL", help="As it is printed, or an unambiguous part of it.")],
    storage: StorageOption = DEFAULT_STORAGE,
) -> None:
    """Show all that is known of a cell that failed or is at work: attempts, tracebacks, last losses, Ray's logs."""
    with user_errors():
        for line in explained(open_store(storage), " ".join(cell)):
            print(printable(line, keep="\n\t"))


def _lines(calls: Sequence[Call], store: Store) -> Iterator[str]:
    from s3ray.results.collect import studies

    for call in calls:
        yield from _told(call)
    with store.explained("read", "check the place and your access to it"):
        finished = studies(store)
    if not calls:
        yield "nothing is at work, and nothing has failed" if finished else f"nothing is stored at {store.uri} yet"
    if finished:
        yield f"has results of {', '.join(finished)}; s3ray results lists them"


def _told(call: Call) -> Iterator[str]:
    yield f"{call.name}, since {shown(call.started)}{call.who and f', {call.who}'}: {_state(call)}"
    if not call.is_known:
        yield "  another version of s3ray runs or ran it, or it has left no plan: cells are not known"
    elif call.kind == "search":
        yield f"  a search, whose cells are not known beforehand: {call.done} of {call.total} so far done"
    else:
        counts = f"{call.done} of {call.total} cells done, {len(call.at_work)} at work, {len(call.failed)} failed"
        yield f"  {counts}{'' if call.alive is False else f'; {_left(call)}'}"
    for one in call.at_work:
        step = "" if one.step is None else f", checkpoint at step {one.step}"
        claimed = "" if one.alive else "claimed by "
        yield f"  at work  {one.cell}: {one.stage}{step}; {claimed}{one.who}"
    for cell, cause in call.failed.items():
        yield f"  FAILED   {cell}: {cause}"
    if call.failed:
        yield f"  more of it: s3ray logs {next(iter(call.failed))}"


def _state(call: Call) -> str:
    if call.ended:
        return f"ended {shown(call.ended)}, and something is left; run it again"
    if call.alive is None:
        return "not known from here whether it goes on; --watch sees it in some seconds"
    return "goes on" if call.alive else "its process has died; run it again"


def _left(call: Call) -> str:
    if call.seconds is None:
        return "time left unknown"
    least, most = map(duration, call.seconds)
    return f"about {least if least == most else f'{least} to {most}'} left"
