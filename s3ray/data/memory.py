"""The memory of this machine."""

from __future__ import annotations

from pathlib import Path


def free_memory() -> int | None:
    """Bytes that this process may still take, container limits included; None where the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            used = int(Path("/sys/fs/cgroup/memory.current").read_text())
            stat = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
            # Files that were read or written lately count as used, and give way when memory is asked for.
            free = min(free, int(limit) - used + int(stat["inactive_file"]))
    except (OSError, KeyError, ValueError):
        pass
    return free
