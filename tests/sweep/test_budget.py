"""What a plan costs, what a budget has room for, and what runs before tell of it."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.engine.run import remember
from s3ray.engine.worker import Pack
from s3ray.errors import UserError
from s3ray.settings import settings_for
from s3ray.store import Marker, Store
from s3ray.sweep import Cell, Plan, Study, StudyDataset, Sweep, make_plan, timing
from s3ray.sweep.budget import Budget, Groups, Prices
from s3ray.sweep.timing import Experience, Took
from toy_runs import commit_all

PRICES = tomllib.loads((Path(__file__).parents[2] / "cluster" / "prices.toml").read_text())
CLOUDS = sorted(PRICES.keys() - {"date"})
ONE = Groups(1)


def plan_of(data: Dataset, store: Store, *, seeds: int = 3, machine: str | None = "cpu here") -> Plan:
    def cells(study: Study) -> Iterator[Cell]:
        for granularity in (2, 4):
            for seed in range(seeds):
                yield study.cell("toy", granularity, 8, seed)

    settings = dataclasses.replace(settings_for("digits", "smoke"), batch_sizes=(8,))
    study = Study({"toy": StudyDataset(DataFacts.of(data), "smoke", settings)})
    return make_plan(Sweep(name="grid", cells=cells, branches=("none",)), study, store, machine)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def plan(tiny_dataset: Dataset, store: Store) -> Plan:
    return plan_of(tiny_dataset, store)


def places(plan: Plan) -> list[tuple[int, int]]:
    return [(cell.cell.granularity, cell.cell.seed) for cell in plan.cells]


def needed(plan: Plan, count: int) -> float:
    """Seconds, at most, of the first cells in the order of a budget."""
    order = sorted(plan.cells, key=lambda cell: cell.cell.seed)
    return dataclasses.replace(plan, cells=tuple(order[:count])).wall_range(1)[1]


@pytest.mark.parametrize("count", range(1, 7))
def test_every_point_gets_its_first_seed_before_any_gets_its_second(plan: Plan, count: int) -> None:
    budget = Budget.of(f"{needed(plan, count) + 0.01:.2f}s")
    trimmed = budget.fitting(plan, ONE)
    first = sorted(places(plan), key=lambda place: place[1])[:count]
    assert places(trimmed) == sorted(first)
    told = budget.told(plan, trimmed)
    if count == 6:
        assert told == ""
    else:
        assert f"has room for {count} of 6 cells; left out are toy χ=" in told
        assert (f" and {5 - count} more, which" in told) == (count < 5)


def test_no_room_for_one_cell_is_refused_with_what_it_takes(plan: Plan) -> None:
    one = needed(plan, 1)
    message = re.escape(f"--budget 10s: has no room for one cell, {plan.cells[0].cell}, which may take ")
    with pytest.raises(UserError, match=message):
        Budget.of("10s").fitting(plan, ONE)
    enough = Budget.of(f"{one + 1:.0f}s")
    with pytest.raises(UserError, match="1 min 00 s spent before"):
        enough.fitting(plan, ONE, spent=60.0)
    with pytest.raises(UserError, match=r"which may take \$0\.\d\d; give more"):
        Budget.of("0.001usd", "aws").fitting(plan, ONE)


def test_what_is_there_costs_nothing_and_stays(tiny_dataset: Dataset, store: Store, plan: Plan) -> None:
    files = {"rows": b"1"}
    commit_all(store, [(run, files) for cell in plan.cells if cell.cell.seed for run in cell.runs])
    again = plan_of(tiny_dataset, store)
    assert places(Budget.of(f"{again.wall_range(1)[1] + 1:.0f}s").fitting(again, ONE)) == places(again)
    commit_all(store, [(run, files) for cell in plan.cells for run in cell.runs])
    whole = plan_of(tiny_dataset, store)
    assert places(Budget.of("1s").fitting(whole, ONE)) == places(whole)


@pytest.mark.parametrize("text", ["", "x", "2", "-1h", "0min", "1e3s", "2 hours", "nanh", "²h", "20$"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="must be a time or a price, such as 30min, 2h or 20usd; correct it"):
        Budget.of(text, "aws")


def test_units_and_clouds() -> None:
    assert [Budget.of(text).most for text in ("90s", "30min", "1.5h")] == [90.0, 1800.0, 5400.0]
    with pytest.raises(UserError, match="say --cloud aws"):
        Budget.of("20usd")
    with pytest.raises(UserError, match=r"--cloud azure: has no prices in cluster/prices\.toml; known: aws, gcp"):
        Budget.of("20usd", "azure")


@pytest.mark.parametrize("cloud", CLOUDS)
def test_dollars_are_of_the_head_and_of_the_machines_that_the_groups_need(cloud: str) -> None:
    own = PRICES[cloud]
    head, worker = own["head"]["on_demand"] + own.get("fee", 0), own["worker"]
    prices = Prices.of(cloud)
    # Four CPUs and one GPU a machine.
    for groups, machines in (
        (Groups(4), 1),
        (Groups(5), 2),
        (Groups(2, workers=4), 2),
        (Groups(4, gpus_per_worker=0.25), 1),
        (Groups(4, gpus_per_worker=1.0), 4),
        (Groups(3, gpus_per_worker=0.3), 1),
    ):
        assert prices.dollars(7200, groups) == pytest.approx(2 * (head + machines * worker["on_demand"]))
        assert prices.dollars(3600, groups, spot=True) == pytest.approx(head + machines * worker["spot"])
    with pytest.raises(UserError, match="has 1; give no more"):
        prices.dollars(3600, Groups(1, gpus_per_worker=2.0))


def test_what_a_plan_costs_in_words(plan: Plan) -> None:
    told = Prices.of("aws").told(plan, Groups(2))
    assert re.match(
        r"on aws \$0\.\d\d \(spot, at least\) to \$0\.\d\d \(on demand, at most\) with 1 g6\.xlarge, ", told
    )


def test_other_sweeps_of_a_machine_tell_how_long_a_plan_takes(tiny_dataset: Dataset, store: Store, plan: Plan) -> None:
    """Of a plan of which nothing is there."""
    least, most = plan.wall_range(1)
    assert most == pytest.approx(4 * least)
    stages = [(stage, Took(3000.0, 1000.0)) for stage in {run.stage.name for cell in plan.cells for run in cell.runs}]
    Experience().with_run(stages, Took(2000.0, 1000.0)).save(store, "cpu here")
    known = plan_of(tiny_dataset, store)
    assert sum(known.shares) == pytest.approx(3 * sum(plan.shares), rel=0.02)
    starts = timing.RAY_SECONDS + timing.GROUP_SECONDS
    assert known.wall_seconds(1) == pytest.approx(2 * starts + 3 * sum(plan.shares), rel=0.02)
    least, most = known.wall_range(1)
    assert most == pytest.approx(known.wall_seconds(1) * 1.25)
    assert least == pytest.approx(known.wall_seconds(1) / 1.25)
    assert plan_of(tiny_dataset, store, machine="cuda there").wall_range(1) == pytest.approx(plan.wall_range(1))
    assert plan_of(tiny_dataset, store, machine=None).wall_range(1) == pytest.approx(plan.wall_range(1))


def test_the_latest_runs_of_a_machine_count_most() -> None:
    known = Experience()
    for seconds in (100.0, 100.0, 400.0):
        known = known.with_run([("probe", Took(seconds, 100.0))], Took(seconds, 100.0))
    assert known.stages["probe"] == Took(475.0, 175.0)
    assert known.with_run([("selection", Took(1.0, 1.0))], Took()).stages["probe"] == known.stages["probe"]
    several = Experience().with_run([("probe", Took(1.0, 2.0)), ("probe", Took(3.0, 4.0))], Took(5.0, 6.0))
    assert several.stages == {"probe": Took(4.0, 6.0)}


def test_a_start_that_waited_for_machines_says_nothing_of_the_next() -> None:
    known = Experience().with_run([], Took(50.0, 40.0))
    assert known.with_run([("probe", Took(1.0, 1.0))], Took(600.0, 40.0)).starts == known.starts
    assert known.with_run([], Took(100.0, 40.0)).starts == Took(125.0, 60.0)


@pytest.mark.parametrize("content", ["", "[]", "{}", "\0", json.dumps({"stages": {}, "starts": {}, "digest": "x"})])
def test_experience_that_is_damaged_is_none(store: Store, content: str) -> None:
    Experience().with_run([("probe", Took(1.0, 2.0))], Took(3.0, 4.0)).save(store, "cpu here")
    assert Experience.load(store, "cpu here").starts == Took(3.0, 4.0)
    (file,) = store.names("timing")
    store.write(content, "timing", file)
    assert Experience.load(store, "cpu here") == Experience()


def test_what_others_of_the_same_sweep_did_meanwhile_is_no_experience_of_this_run(
    tiny_dataset: Dataset, store: Store, plan: Plan
) -> None:
    """A trimmed run beside another sweep's: the others' cells are in what counts afterwards."""
    trimmed = Budget.of(f"{needed(plan, 2) + 0.01:.2f}s").fitting(plan, ONE)
    assert len(trimmed.cells) == 2
    own = {run.identity: run for cell in trimmed.cells for run in cell.runs}
    provenance = {"machine": "cpu here"}
    commit_all(store, [(run, {"rows": b"1"}) for cell in plan.cells for run in cell.runs], provenance=provenance)
    packs = [Pack("pack-000", "run", trimmed.cells, store.uri, 60.0, conditions=True)]
    remember(trimmed, plan_of(tiny_dataset, store), packs, 1, 1, 100.0, store)
    stages = Experience.load(store, "cpu here").stages
    assert sum(took.measured for took in stages.values()) == pytest.approx(len(own))  # a second each


def test_a_kind_of_machine_that_is_not_known_is_looked_for_once(tiny_dataset: Dataset, store: Store) -> None:
    """It took the latest of all markers again for every marker."""
    plan = plan_of(tiny_dataset, store, machine=None)
    commit_all(store, [(run, {}) for cell in plan.cells for run in cell.runs])
    again = plan_of(tiny_dataset, store, machine=None)
    looks: list[int] = []

    class Counted(dict[str, Marker]):
        def values(self) -> Any:
            looks.append(1)
            return super().values()

    counted = dataclasses.replace(again, committed=Counted(again.committed))
    assert counted.speeds
    assert len(looks) == 1
