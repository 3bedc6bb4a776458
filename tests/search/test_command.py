"""What a search does around its trials: it holds its study, and says and writes what was found. Ray is not started."""

import os
import sys
from pathlib import Path

import pytest
from rich.console import Console

import tiny_search
from s3ray.data import Dataset
from s3ray.engine.preflight import Execution
from s3ray.errors import UserError
from s3ray.search.command import search_all
from s3ray.search.space import Search
from s3ray.settings import read_overrides
from s3ray.store import Claims, Store
from s3ray.store.claims import STALE_SECONDS


def run(dataset: Dataset, store: Store, trials: int) -> bool:
    """The search's command, over a study that has all its trials unless it is refused."""
    plan = tiny_search.plan_of(tiny_search.study_of(dataset), store)
    data, console = {"digits": dataset}, Console(width=1000)
    return search_all(plan, store, data, tiny_search.SPACE, {}, Execution(), trials=trials, seed=0, console=console)


def test_a_search_with_all_its_trials_says_what_it_found(
    search: Search, tiny_dataset: Dataset, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracies = iter([0.5, 0.5, 0.5, 0.6, 0.6, 0.6, 0.4])
    tiny_search.searched(search, store, lambda cell: next(accuracies), trials=3)
    imported = "s3ray.engine.run" in sys.modules
    assert run(tiny_dataset, store, trials=3) is False
    assert ("s3ray.engine.run" in sys.modules) == imported
    folder = Path(store.base) / "search" / search.name
    assert capsys.readouterr().out.splitlines() == [
        "digits: 3 configurations tried: 2 on all 3 seeds, 1 stopped, 0 diverged",
        "best on validation: 60.0% at p=0.5 (the scale's own: 50.0%)",
        "that is optimistic, since the best of many is chosen by its luck too; test was not read",
        f"python sweeps/full_grid.py --scale smoke --config {folder / 'best.toml'}",
    ]
    _, best, _ = tiny_search.opened(search, store).trials
    overrides = read_overrides(folder / "best.toml")
    again = tiny_search.plan_of(tiny_search.study_of(tiny_dataset, overrides), store)
    assert [cell.identity for cell in again.cells] == [cell.identity for cell in search.plans(best.params)]


def test_a_search_that_found_nothing_is_to_be_run_again(
    search: Search, tiny_dataset: Dataset, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_search.searched(search, store, lambda cell: "DivergedError: the loss became nan at step 1", trials=1)
    assert run(tiny_dataset, store, trials=1) is True
    assert "the loss became nan in specialization, in 1 of 1" in capsys.readouterr().out
    assert not (Path(store.base) / "search" / search.name / "best.toml").exists()


@pytest.mark.slow  # loads Ray
def test_a_second_search_beside_one_is_refused(search: Search, tiny_dataset: Dataset, store: Store) -> None:
    with Claims(store, "another").hold(f"search-{search.name}"):
        at_work = rf"another search is at work on it \(process {os.getpid()} on \S+, since .* UTC\); wait for it to end"
        with pytest.raises(UserError, match=rf"^study {search.name}: {at_work}"):
            run(tiny_dataset, store, trials=1)
    assert not (Path(store.base) / "search").exists()


def test_the_claim_of_a_killed_search_is_awaited_and_a_cut_journal_said(
    search: Search, tiny_dataset: Dataset, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_search.searched(search, store, lambda cell: 0.5, trials=1)
    with (Path(store.base) / "search" / search.name / "journal.log").open("a") as file:
        file.write('{"op_code')
    store.write("process 1 on elsewhere", "claims", f"search-{search.name}", "1790000000.000-killed")
    (claim,) = Path(store.base).glob("claims/*/*")
    seen = claim.stat().st_mtime - STALE_SECONDS + 1.0
    os.utime(claim, (seen, seen))
    assert run(tiny_dataset, store, trials=1) is False
    waited, cut, *_ = capsys.readouterr().out.splitlines()
    assert waited.startswith(f"{search.name}: was claimed by process 1 on elsewhere, since ")
    assert waited.endswith(" UTC; waiting some seconds for a sign of life")
    assert cut.startswith("warning: ")
    assert cut.endswith("journal.log: its last line was cut short and is left out")
