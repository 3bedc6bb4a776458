"""How commands end. In processes of their own: whoever got a signal is ending for good, and sees to it."""

import signal
import subprocess
import sys
import textwrap

import pytest
from rich.table import Table

from s3ray.cli import console
from s3ray.errors import UserError
from s3ray.terminal import Terminal

PRELUDE = """
import os, signal, time
from s3ray.cli import console
from s3ray.errors import UserError
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    code = PRELUDE + textwrap.dedent(program)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_names_cannot_move_the_cursor_or_change_colours(capsys: pytest.CaptureFixture[str]) -> None:
    name = "\x1b[31mred\nline\udcff\u202e"
    shown = r"\x1b[31mred\nline\udcff\u202e"
    with pytest.raises(SystemExit) as left, console.user_errors():
        raise UserError(f"{name}: → is no file; give another")
    assert left.value.code == 2
    assert capsys.readouterr().err == f"error: {shown}: → is no file; give another\n"
    terminal = Terminal(width=100, force_terminal=True)
    table = Table(box=None)
    table.add_column(name)
    table.add_row(name)
    terminal.print(f"[b]{name}", highlight=False)
    terminal.print(table)
    said = capsys.readouterr().out
    assert "\x1b[31m" not in said
    assert said.count(r"\x1b[31mred") == 3
    assert "[b]" in said


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_in_one_sentence(number: int) -> None:
    """What follows the first signal does not cut the cleaning short, whatever is raised on the way out."""
    ended = run(
        f"""
        with console.user_errors():
            try:
                os.kill(os.getpid(), {number:d})
                time.sleep(30)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)
                print("cleaned")
                raise RuntimeError("of a library that was interrupted")
        """
    )
    assert ended.returncode == 128 + number
    assert ended.stdout == "cleaned\n"
    assert ended.stderr == "interrupted; what was committed stays, run again to continue\n"


@pytest.mark.slow
def test_an_end_that_hangs_is_cut_short() -> None:
    ended = run(
        """
        console._SHUTDOWN_SECONDS = 0.2
        with console.user_errors():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                time.sleep(30)
        """
    )
    assert ended.returncode == 128 + signal.SIGTERM
    assert ended.stderr == "interrupted; what was committed stays, run again to continue\n"


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored_and_handlers_are_as_before() -> None:
    ended = run(
        """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        with console.user_errors():
            os.kill(os.getpid(), signal.SIGHUP)
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
        with console.user_errors():
            raise UserError("it is wrong; correct it")
        """
    )
    assert ended.returncode == 2
    assert ended.stderr == "error: it is wrong; correct it\n"
