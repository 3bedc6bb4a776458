"""What all commands share at the terminal: errors in one sentence, progress in one line."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from typer.core import TyperCommand

from s3ray.config import UserError


@contextmanager
def user_errors() -> Iterator[None]:
    """One sentence and exit code 2 for bad input; nothing lost and 128 + its number for a signal that ends us.

    Ctrl-C, SIGTERM (what schedulers and `ray job stop` send) and SIGHUP (the terminal is gone) are one thing. Those
    that follow while we clean up are ignored: they would cut the cleaning short.
    """
    received: list[int] = []

    def leave(number: int, frame: object) -> None:
        if not received:
            received.append(number)
            raise KeyboardInterrupt

    earlier = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a job in the background of a script
                earlier[number] = signal.signal(number, leave)
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        with suppress(OSError):  # nobody may listen any more
            print("interrupted; what was committed stays, run again to continue", file=sys.stderr)
        raise SystemExit(128 + (received or [signal.SIGINT])[0]) from None
    finally:
        if not received:
            for number, handler in earlier.items():
                signal.signal(number, handler)


class OnceCommand(TyperCommand):
    """A command that refuses an option which is given twice, where the last one would count in silence."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with user_errors():
            _, _, given = self.make_parser(ctx).parse_args(args=list(args))
            for parameter in given:
                once = not (getattr(parameter, "multiple", False) or getattr(parameter, "is_flag", False))
                if once and parameter.param_type_name == "option" and given.count(parameter) > 1:
                    raise UserError(f"{parameter.opts[0]}: is given more than once; give it once")
        return super().parse_args(ctx, args)


@contextmanager
def byte_progress(label: str, console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A line that says how far in bytes; where output is no terminal, a line at every quarter.

    Yields:
        The function to tell (what is being done, bytes done, bytes in all).
    """
    if not console.is_terminal:
        last: dict[str, int] = {}

        def note(what: str, done: int, total: int) -> None:
            quarter = 4 * done // max(total, 1)
            if quarter > last.get(what, 0):
                last[what] = quarter
                size = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"
                console.print(f"{label}: {what}, {size}", highlight=False, soft_wrap=True)

        yield note
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, TaskID] = {}

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"{label}: {what}", total=total)
            bar.update(tasks[what], completed=done)

        yield update
