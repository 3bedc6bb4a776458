"""A name of this process for what it may leave behind, by which others know whether it still lives."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

_TAG = re.compile(r"(?:^|[.-])p([0-9a-f]{8})-(\d+)-(\d+)(?:[.-]|$)")


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
        return _start(number) != int(found[3])
    try:  # other users' processes can be hidden from /proc, but not from this
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return None


@functools.cache
def _machine() -> str:
    """Of this start of the machine, and of this process's space of process numbers: containers have their own."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return hashlib.sha256(f"{boot} {os.stat('/proc/self/ns/pid').st_ino}".encode()).hexdigest()[:8]
    except OSError:  # a system that does not tell: this process is alone
        return os.urandom(4).hex()


def _start(number: int) -> int | None:
    """When a process started, in ticks since the machine did; None if it has ended and is only not yet collected."""
    state, *fields = Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2].split()
    return None if state in "ZX" else int(fields[18])


def _own_start() -> int:
    try:
        return _start(os.getpid()) or 0
    except OSError:  # as `_machine`
        return 0
