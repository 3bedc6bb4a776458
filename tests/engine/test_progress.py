import io
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from s3ray.engine import progress as progress_module
from s3ray.engine.progress import Progress
from s3ray.execution import Event
from s3ray.store import Store
from s3ray.sweep import Plan
from s3ray.sweep.timing import GROUP_SECONDS, duration
from toy_runs import commit


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7805, "2 h 10 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def plan(tiny_sweep: ModuleType, tmp_path: Path) -> Plan:
    store = Store(str(tmp_path))
    cells = tiny_sweep.tiny_plan(store, seeds=3).cells
    for run in cells[2].runs:  # one of three is cached
        commit(store, run, {}, seconds=1.0, provenance={})
    return tiny_sweep.tiny_plan(store, seeds=3)


def packs(plan: Plan) -> list[list[str]]:
    """Every pending cell alone."""
    return [[str(cell.cell)] for cell in plan.pending]


def cell_events(name: str, *, failed: bool = False) -> Iterator[Event]:
    yield Event(name, "digits", "started", "specialization")
    yield Event(name, "digits", "step", "specialization", step=5, total=10)
    yield Event(name, "digits", "finished", "specialization", seconds=2.0)
    yield (
        Event(name, "digits", "cell_failed", cause="ValueError: no")
        if failed
        else Event(name, "digits", "cell_finished")
    )


def test_without_a_terminal_there_is_one_line_per_event(plan: Plan) -> None:
    output = io.StringIO()
    names = [str(cell.cell) for cell in plan.pending]
    with Progress(plan, packs(plan), 2, Console(file=output, width=200)) as progress:
        progress.update(cell_events(names[0]))
        least, most = progress.eta()
        assert 0 < least <= most
        progress.update(cell_events(names[1], failed=True))
        assert progress.eta() is None
    lines = output.getvalue().splitlines()
    assert lines[0] == f"[1/3] running  {names[0]} specialization step 5/10"
    assert lines[1] == f"[1/3] finished {names[0]} specialization in 2.0 s"
    assert lines[2].startswith(f"[2/3] done     {names[0]} (about ")
    assert lines[-1] == f"[3/3] FAILED   {names[1]}: ValueError: no"
    assert progress.stage_seconds == 4.0


@pytest.mark.parametrize("is_terminal", [False, True])
def test_damage_is_named_where_a_table_is_drawn_too(plan: Plan, is_terminal: bool) -> None:
    output, name = io.StringIO(), str(plan.pending[0].cell)
    with Progress(plan, packs(plan), 2, Console(file=output, width=200, force_terminal=is_terminal)) as progress:
        progress.update([Event(name, "digits", "damaged", cause="rows.parquet: damaged, and set aside")])
    assert f"[1/3] damaged  {name}: rows.parquet: damaged, and set aside" in output.getvalue()


def estimate(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> None:
    """What the plan estimates of its cells."""
    monkeypatch.setattr(Plan, "seconds", lambda plan, cell: seconds[str(cell.cell)])


def test_what_is_left_follows_from_what_finished_cells_took_and_running_ones_have_had(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (str(cell.cell) for cell in plan.pending)
    estimate(monkeypatch, {first: 100.0, second: 200.0})
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    with Progress(plan, packs(plan), 1, Console(file=io.StringIO())) as progress:
        progress.update([Event(first, "digits", "started", "specialization")])
        assert progress.eta() is None
        progress.update([Event(first, "digits", "finished", "specialization", seconds=210.0)])
        progress.update([Event(first, "digits", "cell_finished")])
        left, most = progress.eta()
        assert left == pytest.approx(2.1 * 200.0, rel=0.1)
        assert most == pytest.approx(left + GROUP_SECONDS)
        progress.update([Event(second, "digits", "started", "specialization")])
        now[0] += 300.0
        assert progress.eta() == pytest.approx((left - 300.0, left))  # at most it has just begun
        now[0] += 300.0  # takes longer than was estimated
        assert progress.eta() == pytest.approx((0.05 * left, left))


def test_what_is_left_is_that_of_packs_and_at_most_in_their_order(
    tiny_sweep: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_sweep.tiny_plan(Store(str(tmp_path)), seeds=7)
    first, *others = names = [str(cell.cell) for cell in plan.pending]
    estimate(monkeypatch, {first: 1000.0} | dict.fromkeys(others, 300.0))
    now = [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    with Progress(plan, [names[:4], names[4:6], names[6:]], 2, Console(file=io.StringIO())) as progress:
        for name in (first, names[4]):
            progress.update([Event(name, "digits", "started", "specialization")])
        progress.update([Event(first, "digits", "finished", "specialization", seconds=1000.0)])
        progress.update([Event(first, "digits", "cell_finished")])
        # Of the first pack three cells are left, one after the other, while the second and third pack take as long.
        assert progress.eta() == pytest.approx((900.0, 900.0 + GROUP_SECONDS))
        now[0] += 100.0
        # The first pack is between two cells.
        assert progress.eta() == pytest.approx((900.0, 900.0 + GROUP_SECONDS))
        progress.update([Event(names[1], "digits", "started", "specialization")])
        now[0] += 150.0
        assert progress.eta() == pytest.approx((750.0, 900.0 + GROUP_SECONDS))


def test_never_is_at_most_less_than_what_the_longest_pack_needs(
    tiny_sweep: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_sweep.tiny_plan(Store(str(tmp_path)), seeds=9)
    first, *others = names = [str(cell.cell) for cell in plan.pending]
    estimate(monkeypatch, dict.fromkeys(names, 100.0))
    with Progress(plan, [[first], others[:4], others[4:]], 3, Console(file=io.StringIO())) as progress:
        progress.update([Event(first, "digits", "started", "specialization")])
        progress.update([Event(first, "digits", "finished", "specialization", seconds=100.0)])
        progress.update([Event(first, "digits", "cell_finished")])
        # Eight cells on three groups would take 333 s by Graham's bound, but four stand in each pack.
        assert progress.eta() == pytest.approx((400.0, 400.0 + GROUP_SECONDS))


def test_a_cell_of_which_little_was_left_says_little_of_the_others(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (str(cell.cell) for cell in plan.pending)
    estimate(monkeypatch, {first: 0.05, second: 200.0})
    with Progress(plan, packs(plan), 1, Console(file=io.StringIO())) as progress:
        progress.update([Event(first, "digits", "finished", "reference", seconds=0.01)])
        progress.update([Event(first, "digits", "cell_finished")])
        assert progress.eta() == pytest.approx((200.0, 200.0 + GROUP_SECONDS), rel=0.01)


def test_waiting_is_said_when_nothing_runs_at_once_and_then_more_and_more_seldom(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, now = io.StringIO(), [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    name = str(plan.pending[0].cell)
    known = "2 worker groups wait for 2 CPU"
    with Progress(plan, packs(plan), 2, Console(file=output, width=40), waiting_for=lambda: known) as progress:
        for _ in range(300):
            now[0] += 1.0
            progress.update([])
        lines = output.getvalue().splitlines()
        assert lines[0] == f"[1/3] waiting  nothing has run for 5 s; {known}"
        waited = [duration(seconds) for seconds in (5, 10, 20, 40, 80, 140, 200, 260)]
        assert [line.partition(" for ")[2].partition(";")[0] for line in lines] == waited
        progress.update([Event(name, "digits", "started", "specialization")])
        now[0] += 100.0
        progress.update([])
        assert len(output.getvalue().splitlines()) == len(lines)


def drawn(output: io.StringIO) -> str:
    """The last picture, without what only a terminal sees."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue()).replace("\r", "")
    return text[text.rindex("χ 2") :]


def terminal(output: io.StringIO) -> Console:
    return Console(file=output, width=100, force_terminal=True)


def test_on_a_terminal_every_cell_has_a_sign(plan: Plan) -> None:
    output = io.StringIO()
    first, second = (str(cell.cell) for cell in plan.pending)
    with Progress(plan, packs(plan), 2, terminal(output)) as progress:
        progress.update([])
    picture = drawn(output)
    assert re.search(r"^digits +··□", picture, re.MULTILINE)
    assert "□ 1 from the store  · 2 to come" in picture
    assert "  2 worker groups start" in picture
    output = io.StringIO()
    with Progress(plan, packs(plan), 2, terminal(output)) as progress:
        progress.update(cell_events(first))
        accuracy = {"valid_accuracy": 0.876}
        progress.update([Event(second, "digits", "finished", "probe none", seconds=1.0, metrics=accuracy)])
        progress.update([Event(second, "digits", "step", "selection suff+min", step=3, total=9)])
    picture = drawn(output)
    assert re.search(r"^digits +■▶□", picture, re.MULTILINE)
    assert "■ 1 done  □ 1 from the store  ▶ 1 running" in picture
    assert "[2/3], 0 s elapsed, about " in picture
    assert f"  {second}  selection suff+min  step 3/9" in picture
    assert f"{second} probe none: at best 87.6% on validation" in picture
    output = io.StringIO()
    with Progress(plan, packs(plan), 2, terminal(output)) as progress:
        progress.update(cell_events(first, failed=True))
        for _ in range(9):
            progress.update([Event(second, "digits", "finished", "probe none", metrics=accuracy)])
    picture = drawn(output)
    assert re.search(r"^digits +✗·□", picture, re.MULTILINE)
    assert f"FAILED {first}: ValueError: no" in picture  # is not pushed out by what is well
    assert picture.count("on validation") == 2


def test_of_many_cells_in_one_place_the_numbers_are_drawn(tiny_sweep: ModuleType, tmp_path: Path) -> None:
    output = io.StringIO()
    plan = tiny_sweep.tiny_plan(Store(str(tmp_path)), seeds=30)
    names = [str(cell.cell) for cell in plan.pending]
    with Progress(plan, packs(plan), 2, terminal(output)) as progress:
        for name in names[:4]:
            progress.update(cell_events(name))
        progress.update([Event(names[4], "digits", "started", "specialization")])
    assert re.search(r"^digits +■4 ▶1 ·25", drawn(output), re.MULTILINE)


def test_a_terminal_says_what_is_waited_for(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    output, now = io.StringIO(), [100.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    known = "2 worker groups wait for 2 CPU"
    with Progress(plan, packs(plan), 2, terminal(output), waiting_for=lambda: known) as progress:
        now[0] += 6.0
        progress.update([])
    assert f"  {known}" in drawn(output)


def test_an_event_that_is_repeated_counts_once(plan: Plan) -> None:
    """A retried trial can report a cell again."""
    name = str(plan.pending[0].cell)
    output = io.StringIO()
    with Progress(plan, packs(plan), 2, Console(file=output, width=200)) as progress:
        progress.update([*cell_events(name), Event(name, "digits", "cell_finished")])
    done = [line for line in output.getvalue().splitlines() if " done " in line]
    assert [line[:5] for line in done] == ["[2/3]"]  # one cached, one done
    assert progress.states()["digits"]["done"] == 1


def test_whoever_watches_is_told_fresh_events_and_where_the_cells_stand(plan: Plan) -> None:
    told = []
    names = [str(cell.cell) for cell in plan.pending]

    def watch(events: Any, states: Any) -> None:
        told.append(([event.state for event in events], dict(states["digits"])))

    with Progress(plan, packs(plan), 2, Console(file=io.StringIO()), watch) as progress:
        progress.update([Event(names[0], "digits", "started", "specialization")])
        progress.update([*cell_events(names[0]), Event(names[0], "digits", "cell_finished")])
        progress.update(cell_events(names[1], failed=True))
    states = {"pending": 2, "running": 0, "done": 0, "cached": 1, "failed": 0}
    assert told == [
        ([], states),
        (["started"], states | {"pending": 1, "running": 1}),
        (["started", "step", "finished", "cell_finished"], states | {"pending": 1, "done": 1}),
        (["started", "step", "finished", "cell_failed"], states | {"pending": 0, "done": 1, "failed": 1}),
    ]
