"""What all commands share at the terminal: errors in one sentence, progress in one line."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from typer.core import TyperCommand

from s3ray.errors import STAYS, LostError, UserError

_SHUTDOWN_SECONDS = 20.0  # of an orderly end after a signal


@contextmanager
def user_errors() -> Iterator[None]:
    """One sentence and exit code 2 for bad input, 1 if Ray or storage is gone; 128 + signal for Ctrl-C and the like.

    SIGTERM (schedulers, `ray job stop`, docker stop) and SIGHUP (a terminal closed) end a command as Ctrl-C does, and
    nothing is lost. Once one came the others are ignored, so that an impatient second leaves nothing behind; an end
    that takes too long is cut short.
    """
    with _signals() as received:
        try:
            yield
        except UserError as error:
            if received:
                _interrupted(received[0])
            _say(f"error: {error}")
            raise SystemExit(1 if isinstance(error, LostError) else 2) from None
        except BaseException as error:
            # Whatever is raised on the way out follows from the signal, but for exit 0: there it is how one leaves.
            left = isinstance(error, SystemExit) and not error.code
            if (received and not left) or isinstance(error, KeyboardInterrupt):
                _interrupted(received[0] if received else signal.SIGINT)
            raise


def _interrupted(number: int) -> NoReturn:
    _say(_INTERRUPTED)
    raise SystemExit(128 + number) from None


_INTERRUPTED = f"interrupted; {STAYS}"


def _say(text: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        print(text, file=sys.stderr, flush=True)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """KeyboardInterrupt for the first signal that ends a process; it is in the list that is yielded."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    # What is ignored from outside, as by nohup, stays so.
    before = {n: h for n in numbers if (h := signal.getsignal(n)) not in (signal.SIG_IGN, None)}

    def cut_short() -> None:
        _say(_INTERRUPTED)
        os._exit(128 + received[0])

    def end(number: int, frame: FrameType | None) -> None:
        if received:
            return
        received.append(number)
        timer = threading.Timer(_SHUTDOWN_SECONDS, cut_short)
        timer.daemon = True
        timer.start()
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, end)
    try:
        yield received
    finally:
        if not received:
            for number, handler in before.items():
                signal.signal(number, handler)


def unwrapped(text: str) -> str:
    """A docstring with its paragraphs on one line each, for a terminal of any width; what is indented stays."""
    lines: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        is_new = not line or not lines or not lines[-1] or line.startswith((" ", "- ")) or lines[-1].startswith(" ")
        lines = [*lines, line] if is_new else [*lines[:-1], f"{lines[-1]} {line}"]
    return "\n".join(lines)


class OnceCommand(TyperCommand):
    """A command that refuses an option which is given twice, where the last one would count in silence."""

    def __init__(self, *arguments: Any, help: str | None = None, **options: Any) -> None:
        super().__init__(*arguments, help=unwrapped(help or ""), **options)

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
