"""Packs: which cells share a worker group."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import TypeVar

_Item = TypeVar("_Item")

# Starting a nested Tune trial and Train worker group costs some 15 seconds; a pack should be long beside it.
TARGET_SECONDS = 600.0


def make_packs(
    items: Sequence[_Item], seconds: Sequence[float], *, slots: int, target: float = TARGET_SECONDS
) -> list[list[_Item]]:
    """Distribute `items` over packs of about `target` seconds, the longest pack first.

    An item longer than the target gets a pack of its own. There are never fewer packs than `slots` (worker
    groups that fit the cluster at once) while items last, and their number is rounded up to a multiple of the
    slots, so that no slot idles while another works off the remainder.
    """
    if not items:
        return []
    wanted = math.ceil(sum(min(s, target) for s in seconds) / target)
    count = min(len(items), math.ceil(wanted / slots) * slots)
    packs: list[list[_Item]] = [[] for _ in range(count)]
    load = [(0.0, index) for index in range(count)]
    # Longest processing time first: each item goes to the least loaded pack.
    for position in sorted(range(len(items)), key=lambda i: -seconds[i]):
        total, index = heapq.heappop(load)
        packs[index].append(items[position])
        heapq.heappush(load, (total + seconds[position], index))
    totals = {index: total for total, index in load}
    return [packs[index] for index in sorted(totals, key=lambda index: -totals[index])]
