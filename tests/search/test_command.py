"""What a search does around its trials: it holds its study, and says and writes what was found. Ray is not started."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

import tiny_search
from s3ray.data import Dataset
from s3ray.engine.preflight import Execution
from s3ray.errors import UserError
from s3ray.search.command import search_all
from s3ray.search.space import Search
from s3ray.settings import read_all, read_overrides
from s3ray.store import Claims, Store
from s3ray.store import claims as claims_module
from s3ray.store.claims import Claim
from s3ray.sweep import CellPlan


def run(dataset: Dataset, store: Store, trials: int) -> bool:
    """The search's command, over a study that has all its trials unless it is refused."""
    plan = tiny_search.plan_of(tiny_search.study_of(dataset), store)
    data, console, spaces = {"digits": dataset}, Console(width=1000), {"s3": tiny_search.SPACE}
    return search_all(plan, store, data, spaces, [], Execution(), trials=trials, seed=0, console=console)


def answering(accuracies: Iterator[float]) -> Callable[[CellPlan], float]:
    """An objective that gives one after another."""
    return lambda cell: next(accuracies)


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
        "that is optimistic, since the best of many owes a part of its lead to luck; test was not read",
        f"s3ray sweep full_grid --scale smoke --config {folder / 'best.toml'}",
    ]
    _, best, _ = tiny_search.opened(search, store).trials
    overrides = read_overrides(folder / "best.toml")
    again = tiny_search.plan_of(tiny_search.study_of(tiny_dataset, overrides), store)
    assert [cell.identity for cell in again.cells] == [cell.identity for cell in search.plans(best.params)]


def test_searches_of_several_methods_end_with_the_command_that_compares_them(
    tiny_dataset: Dataset, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files together are what every search found, though all searches were given the same file before."""
    base = tmp_path / "base.toml"
    base.write_text("specialization.optimizer.epochs = 5\nmethod.focal.temperature = 0.3\nmethod.factorcl.epochs = 3\n")
    study = tiny_search.study_of(tiny_dataset, read_all([str(base)]))
    methods = ["focal", "s3", "factorcl"]
    plan = tiny_search.plan_of(study, store, methods=methods)
    spaces = {name: tiny_search.space_of(name) for name in methods}
    searches = [Search.of(plan, "digits", spaces[name], name) for name in ("s3", "focal", "factorcl")]
    best = []
    for search in searches:
        accuracies = iter([0.4] * 3 + [0.6] * 3)  # the second is better than the scale's own
        tiny_search.searched(search, store, answering(accuracies), trials=2)
        best += search.plans(tiny_search.opened(search, store).trials[1].params)
    data, console = {"digits": tiny_dataset}, Console(width=1000)
    assert search_all(plan, store, data, spaces, [str(base)], Execution(), trials=2, seed=0, console=console) is False
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("best")] == [
        "best on validation: 60.0% at p=0.5 (the scale's own: 40.0%)",
        "best on validation: 60.0% (the scale's own: 40.0%)",
        "best on validation: 60.0% (emb) (the scale's own: 40.0%)",
    ]
    assert lines[3] == "digits, focal: 2 configurations tried: 2 on all 3 seeds, 0 stopped, 0 diverged"
    files = [str(base), *(str(Path(store.base) / "search" / one.name / "best.toml") for one in searches)]
    assert lines[-1] == f"s3ray sweep table2_tuned --scale smoke {' '.join(f'--config {file}' for file in files)}"
    tuned = tiny_search.study_of(tiny_dataset, read_all(files))
    again = tiny_search.plan_of(tuned, store, methods=["s3", "focal", "factorcl"])
    assert [cell.identity for cell in again.cells] == [cell.identity for cell in best]


def test_a_search_that_found_nothing_is_to_be_run_again(
    search: Search, tiny_dataset: Dataset, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_search.searched(search, store, lambda cell: "DivergedError: the loss became nan at step 1", trials=1)
    assert run(tiny_dataset, store, trials=1) is True
    assert "the loss became nan in specialization, in 1 of 1" in capsys.readouterr().out
    assert not (Path(store.base) / "search" / search.name / "best.toml").exists()


@pytest.mark.slow  # loads Ray
def test_storage_that_takes_no_claim_is_a_sentence(tiny_dataset: Dataset, store: Store) -> None:
    store.write("in the place of the folder", "claims")
    with pytest.raises(UserError, match=r"cannot be written \(.*\); make room or choose a place you may write to"):
        run(tiny_dataset, store, trials=1)


@pytest.mark.slow  # loads Ray
def test_a_second_search_beside_one_is_refused(search: Search, tiny_dataset: Dataset, store: Store) -> None:
    with Claims(store).hold(f"search-{search.name}"):
        at_work = rf"another search is at work on it \(process {os.getpid()} on \S+, since .* UTC\); wait for it to end"
        with pytest.raises(UserError, match=rf"^study {search.name}: {at_work}"):
            run(tiny_dataset, store, trials=1)
    assert not (Path(store.base) / "search").exists()


def test_the_claim_of_a_killed_search_is_awaited_and_a_cut_journal_said(
    search: Search,
    tiny_dataset: Dataset,
    store: Store,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny_search.searched(search, store, lambda cell: 0.5, trials=1)
    with (Path(store.base) / "search" / search.name / "journal.log").open("a") as file:
        file.write('{"op_code')
    killed = Claim(1, "killed", who="process 1 on elsewhere, since 2026-09-21 13:46 UTC")
    store.write(killed.content(), "claims", f"search-{search.name}", "claim.json")
    monkeypatch.setattr(claims_module, "LEASE_SECONDS", 1.0)
    assert run(tiny_dataset, store, trials=1) is False
    waited, cut, *_ = capsys.readouterr().out.splitlines()
    assert waited.startswith(f"{search.name}: was claimed by process 1 on elsewhere, since ")
    assert waited.endswith(" UTC; waiting some seconds for a sign of life")
    assert cut.startswith("warning: ")
    assert cut.endswith("journal.log: its last line was cut short and is left out")
