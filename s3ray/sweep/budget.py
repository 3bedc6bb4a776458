"""What a plan costs before it runs, and which of its cells a budget of time or money has room for.

The rule of what is left out, written before results: cells of which nothing is missing stay. Of the others the first
seed of every point of the grid comes before the second of any, and so on, in the sweep's order; of that order the
longest beginning is run whose time or price, at most, fits. So all that is drawn has as many seeds as there is room
for.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from s3ray.errors import UserError
from s3ray.paths import project_folder
from s3ray.sweep.cell import Cell
from s3ray.sweep.plan import CellPlan, Plan
from s3ray.sweep.timing import duration

_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0}


class NoRoomError(UserError):
    """A budget has not even room for one cell."""


@dataclass(frozen=True)
class Groups:
    """The worker groups that run a plan.

    Attributes:
        slots: at a time.
        workers: of each.
        gpus_per_worker: may be a fraction; 0: a CPU each.
    """

    slots: int
    workers: int = 1
    gpus_per_worker: float = 0.0


@dataclass(frozen=True)
class Prices:
    """A cloud's list prices, US$ per hour, of `cluster/prices.toml`.

    Attributes:
        head: the cluster's fee included.
        cpus, gpus: of a worker machine.
    """

    cloud: str
    date: str
    machine: str
    head: float
    on_demand: float
    spot: float
    cpus: int
    gpus: int

    @classmethod
    def of(cls, cloud: str) -> Prices:
        """UserError for a cloud of which there are none."""
        table: dict[str, Any] = tomllib.loads((project_folder("cluster") / "prices.toml").read_text(encoding="utf-8"))
        date = str(table.pop("date"))
        if cloud not in table:
            raise UserError(f"--cloud {cloud}: has no prices in cluster/prices.toml; known: {', '.join(table)}")
        own, worker = table[cloud], table[cloud]["worker"]
        return cls(
            cloud,
            date,
            worker["type"],
            own["head"]["on_demand"] + own.get("fee", 0.0),
            worker["on_demand"],
            worker["spot"],
            worker["cpus"],
            worker["gpus"],
        )

    def machines(self, groups: Groups) -> int:
        """As many as hold these worker groups."""
        room = self.gpus / groups.gpus_per_worker + 1e-9 if groups.gpus_per_worker else self.cpus
        if room < 1:  # of whole GPUs, more than a machine has
            raise UserError(
                f"--gpus-per-worker {groups.gpus_per_worker:g}: a {self.machine} of {self.cloud} has {self.gpus}; "
                f"give no more"
            )
        return math.ceil(groups.slots * groups.workers / math.floor(room))

    def dollars(self, seconds: float, groups: Groups, *, spot: bool = False) -> float:
        """Of a cluster that is there for so long: its head, and as many machines as the worker groups need."""
        rate = self.spot if spot else self.on_demand
        return seconds / 3600 * (self.head + self.machines(groups) * rate)

    def told(self, plan: Plan, groups: Groups) -> str:
        """What a plan costs there, in words."""
        least, most = plan.wall_range(groups.slots, groups.workers)
        low, high = self.dollars(least, groups, spot=True), self.dollars(most, groups)
        count = self.machines(groups)
        return (
            f"on {self.cloud} ${low:.2f} (spot, at least) to ${high:.2f} (on demand, at most) with {count} "
            f"{self.machine}, if they are as fast as what was measured; list prices of {self.date}, without disks and "
            f"traffic"
        )


@dataclass(frozen=True)
class Budget:
    """Time until a sweep has ended, or what it costs.

    Attributes:
        text: as it was given.
        most: seconds, or US$ by `prices`.
    """

    text: str
    most: float
    prices: Prices | None = None

    @classmethod
    def of(cls, text: str, cloud: str = "") -> Budget:
        """Of `30min`, `2h`, `90s`, or, with a cloud, `20usd`; UserError for anything else."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(s|min|h|usd)", text, re.ASCII)
        if found is None or not float(found[1]):
            raise UserError(f"--budget {text}: must be a time or a price, such as 30min, 2h or 20usd; correct it")
        if found[2] != "usd":
            return cls(text, float(found[1]) * _UNITS[found[2]])
        if not cloud:
            raise UserError(f"--budget {text}: prices are a cloud's; say --cloud aws, or give a time such as 2h")
        return cls(text, float(found[1]), Prices.of(cloud))

    def fitting(self, plan: Plan, groups: Groups, spent: float = 0.0) -> Plan:
        """The plan with as many of its cells as there is room for.

        Args:
            spent: seconds of it that are gone.

        Raises:
            NoRoomError: not even one fits.
        """
        order = _by_seed(plan)

        def needed(count: int) -> float:
            """Seconds, at most; by one margin, lest what more cells tell of the others makes them fit."""
            return plan.margin * _with(plan, order[:count]).wall_seconds(groups.slots, groups.workers) + spent

        room, too_many = 0, len(order) + 1
        while too_many - room > 1:
            middle = (room + too_many) // 2
            if self._price(needed(middle), groups) <= self.most:
                room = middle
            else:
                too_many = middle
        if order and not room:
            needs = f"${self._price(needed(1), groups):.2f}" if self.prices else duration(needed(1))
            gone = f", {duration(spent)} spent before" if spent >= 1 else ""
            raise NoRoomError(
                f"--budget {self.text}: has no room for one cell, {order[0].cell}, which may take {needs}{gone}; give "
                f"more, or leave it out"
            )
        return _with(plan, order[:room])

    def _price(self, seconds: float, groups: Groups) -> float:
        return seconds if self.prices is None else self.prices.dollars(seconds, groups)

    def told(self, whole: Plan, plan: Plan) -> str:
        """What is left out, in words; empty if nothing is."""
        kept = {cell.cell for cell in plan.cells}
        out = [cell.cell for cell in whole.pending if cell.cell not in kept]
        if not out:
            return ""
        more = f" and {len(out) - 1} more" if len(out) > 1 else ""
        return (
            f"--budget {self.text}: has room for {len(plan.pending)} of {len(whole.pending)} cells; left out are "
            f"{out[0]}{more}, which the same command does next time"
        )


def _by_seed(plan: Plan) -> list[CellPlan]:
    """Pending cells, the first seed of every point first."""
    seen: Counter[Cell] = Counter()
    rank = {}
    for cell in plan.cells:
        point = replace(cell.cell, seed=0)
        rank[cell.cell] = seen[point]
        seen[point] += 1
    return sorted(plan.pending, key=lambda cell: rank[cell.cell])


def _with(plan: Plan, kept: list[CellPlan]) -> Plan:
    """A plan of what is there and these cells."""
    wanted = {cell.cell for cell in kept}
    cells = tuple(cell for cell in plan.cells if cell.cell in wanted or not cell.missing(plan.committed))
    return replace(plan, cells=cells)
