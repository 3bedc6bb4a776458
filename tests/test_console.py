"""How commands end."""

import os
import signal
import time

import pytest

from s3ray.config import UserError
from s3ray.console import user_errors

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers():
    earlier = {number: signal.getsignal(number) for number in SIGNALS}
    yield earlier
    for number, handler in earlier.items():
        signal.signal(number, handler)


def interrupted(number, cleaned):
    """Work that a signal ends; while it cleans up, more of them come."""
    try:
        os.kill(os.getpid(), number)
        time.sleep(5)  # the signal comes first
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        cleaned.append(True)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_a_command_in_one_sentence(capsys, number):
    cleaned = []
    with pytest.raises(SystemExit) as end, user_errors():
        interrupted(number, cleaned)
    assert end.value.code == 128 + number
    assert capsys.readouterr().err == "interrupted; what was committed stays, run again to continue\n"
    assert cleaned == [True]


def test_a_signal_that_is_ignored_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    with user_errors():
        os.kill(os.getpid(), signal.SIGHUP)


def test_handlers_are_as_before_afterwards(handlers):
    with user_errors():
        pass
    with pytest.raises(SystemExit) as end, user_errors():
        raise UserError("it is wrong; correct it")
    assert end.value.code == 2
    assert {number: signal.getsignal(number) for number in SIGNALS} == handlers
