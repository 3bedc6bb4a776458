"""Names of what a process may leave behind, by which others know whether it still lives."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import os
import re
import uuid
from contextlib import suppress
from pathlib import Path

_TAG = re.compile(r"(?:^|[.-])p([0-9a-f]{8})-(\d+)-(\d+)(?:[.-]|$)")

TAGGED = r"(?:p[0-9a-f]{8}-\d+-\d+-)?"  # in a regular expression: a tag, and a dash behind it; or none
_RUN = re.compile(rf"(?P<name>.+)-(?P<started>\d{{8}}-\d{{6}})-{TAGGED}[0-9a-f]{{6}}", re.ASCII)
_STUDY = re.compile("-[0-9a-f]{8}$")


def tag() -> str:
    """`p<machine>-<number>-<start>`: letters, digits and dashes, for a part of a file's name."""
    return f"p{_machine()}-{os.getpid()}-{_own_start()}"


def has_died(name: str) -> bool | None:
    """Whether the process is gone whose tag is in `name`; None where that cannot be known from here.

    It can if this machine has not been started again since, and both processes see the same process numbers. A number
    that was given again belongs to a process that started at another time.
    """
    found = _TAG.search(name)
    if found is None or found[1] != _machine():
        return None
    number = int(found[2])
    with suppress(OSError):
        return began_at(number) != int(found[3])
    try:  # other users' processes can be hidden from /proc, but not from this
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return None


def new_run(name: str) -> str:
    """A name for a call of a sweep or search, with when it started and which process it is."""
    return f"{name}-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}-{tag()}-{uuid.uuid4().hex[:6]}"


def named(run: str) -> tuple[str, str] | None:
    """The sweep or search in the name of a run, and when it started; None if that is no run's name."""
    match = _RUN.fullmatch(run)
    with suppress(ValueError):  # no such day
        if match is not None:
            started = dt.datetime.strptime(match["started"], "%Y%m%d-%H%M%S").replace(tzinfo=dt.UTC)
            return match["name"], started.isoformat()
    return None


def sweep_of(study: str) -> str:
    """The sweep that a study's name begins with."""
    return _STUDY.sub("", study)


@functools.cache
def _machine() -> str:
    """Of this start of the machine, and of this process's space of process numbers: containers have their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot} {os.stat('/proc/self/ns/pid').st_ino}".encode()).hexdigest()[:8]
    except OSError:  # a system that does not tell: this process is alone
        return os.urandom(4).hex()


def began_at(number: int) -> int | None:
    """When a process started, in ticks since the machine did; None if it has ended and is only not yet collected.

    Raises:
        OSError: there is no such process, or it is hidden.
    """
    state, *fields = Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2].split()
    return None if state in "ZX" else int(fields[18])


def _own_start() -> int:
    try:
        return began_at(os.getpid()) or 0
    except OSError:  # as `_machine`
        return 0
