"""`s3ray status` and `s3ray logs` as users meet them."""

from __future__ import annotations

import importlib
import json
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

import calls
from command_line import assert_one_sentence, s3ray
from s3ray.store import Claims, Store
from toy_runs import commit

module = importlib.import_module("s3ray.cli.status")  # the package has its command by this name


def test_a_storage_without_anything(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    for options in ([], ["--watch"]):
        result = s3ray("status", "--storage", nothing, *options)
        assert (result.exit_code, result.output) == (0, f"nothing is stored at {nothing} yet\n")
    assert s3ray("status", "--storage", nothing, "--format", "json").output == "[]\n"
    assert_one_sentence(s3ray("logs", "digits", "--storage", nothing), "no sweep is at work on it")
    assert not nothing.exists()


def test_results_alone(tmp_path: Path) -> None:
    for sweep in ("a", "b"):
        Store(str(tmp_path)).write_folder({}, {}, "results", sweep)
    result = s3ray("status", "--storage", tmp_path)
    assert result.exit_code == 0
    first, second = result.output.splitlines()
    assert first == "nothing is at work, and nothing has failed"
    assert second == "has results of b, a; s3ray results lists them"


def test_how_a_sweep_stands(tmp_path: Path, tiny_sweep: ModuleType) -> None:
    store = Store(str(tmp_path))
    plan = tiny_sweep.tiny_plan(store, seeds=3)
    _, ledger = calls.begun(store, plan)
    done, failed, at_work = plan.cells
    for run in done.runs:
        commit(store, run)
    ledger.fail(failed, "DivergedError: \x1b[31mred")
    store.save_checkpoint(at_work.training, 40, b"")
    with Claims(store).take(at_work.training.claim):
        result = s3ray("status", "--storage", tmp_path)
        found = json.loads(s3ray("status", "--storage", tmp_path, "--format", "json").output)
    assert result.exit_code == 0
    sweep, counts, running, failure, more = result.output.splitlines()
    assert sweep.startswith("tiny, since 20")
    assert sweep.endswith(": goes on")
    assert counts.startswith("  1 of 3 cells done, 1 at work, 1 failed; about ")
    assert running.startswith(f"  at work  {at_work.cell}: specialization, checkpoint at step 40; process ")
    assert failure == f"  FAILED   {failed.cell}: DivergedError: \\x1b[31mred"
    assert more == f"  more of it: s3ray logs {failed.cell}"
    assert [(call["name"], call["done"], list(call["failed"])) for call in found] == [("tiny", 1, [str(failed.cell)])]
    explained = s3ray("logs", *str(failed.cell).split(), "--storage", tmp_path)
    assert explained.exit_code == 0
    assert "  given up: DivergedError: \\x1b[31mred\n" in explained.output
    ledger.end()
    sweep, counts, *_ = s3ray("status", "--storage", tmp_path).output.splitlines()
    assert sweep.endswith(", and something is left; run it again")
    assert counts == "  1 of 3 cells done, 0 at work, 1 failed"


def test_other_calls_are_said_in_a_sentence_each(tmp_path: Path, tiny_sweep: ModuleType) -> None:
    store = Store(str(tmp_path))
    store.write("x", "runs", "old-20261126-181500-abcdef", "failures", "f" * 64)
    plan = tiny_sweep.tiny_plan(store, seeds=1)
    calls.begun(store, plan, process=calls.DEAD)
    calls.claimed(store, plan.cells[0].training)
    calls.begun(store, plan, process=calls.ELSEWHERE)
    lines = s3ray("status", "--storage", tmp_path).output.splitlines()
    assert any(line.endswith(": its process has died; run it again") for line in lines)
    unknown = "not known from here whether it goes on; --watch sees it in some seconds"
    assert sum(line.endswith(unknown) for line in lines) == 2
    who = "claimed by process 17 on far, since 2026-11-26 18:15 UTC"
    assert f"  at work  {plan.cells[0].cell}: specialization; {who}" in lines
    assert any(line.startswith("  another version of s3ray runs or ran it") for line in lines)


def test_watching_ends_when_nothing_is_at_work_and_says_what_has_changed(
    tmp_path: Path, tiny_sweep: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    plan = tiny_sweep.tiny_plan(store, seeds=1)
    _, ledger = calls.begun(store, plan)
    ledger.fail(plan.cells[0], "OSError: disk")
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            ledger.end()

    monkeypatch.setattr(module.time, "sleep", sleep)
    result = s3ray("status", "--storage", tmp_path, "--watch")
    assert result.exit_code == 0
    assert looks == [module.SECONDS] * 3
    assert [line.rpartition(": ")[2][:5] for line in result.output.splitlines() if "since" in line] == [
        "goes ",
        "ended",
    ]
    assert_one_sentence(s3ray("status", "--storage", tmp_path, "--watch", "--format", "json"), "--watch: is for people")


def test_watching_what_goes_on_elsewhere_says_once_that_nobody_gives_a_sign_of_life_and_goes_on(
    tmp_path: Path, tiny_sweep: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    plan = tiny_sweep.tiny_plan(store, seeds=1)
    _, ledger = calls.begun(store, plan, process=calls.ELSEWHERE)
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds
        if now[0] < 1000:  # no machine has come
            return
        owner = "x" if now[0] < 1100 else ""  # released; then its machine goes
        calls.claimed(store, plan.cells[0].training, int(min(now[0], 1100)), owner=owner)
        if now[0] >= 2000:
            ledger.fail(plan.cells[0], "OSError: disk")
            ledger.end()

    monkeypatch.setattr(module.time, "sleep", sleep)
    monkeypatch.setattr(module, "Watch", partial(module.Watch, clock=lambda: now[0]))
    monkeypatch.setattr(module, "elapsed", lambda: now[0])
    result = s3ray("status", "--storage", tmp_path, "--watch")
    assert result.exit_code == 0
    silence = "nobody has given a sign of life for 5 min: a sweep whose machines have not come gives none; "
    silence += "if it is gone, run it again"
    assert result.output.splitlines().count(silence) == 2  # before a machine came, and after it went
    assert now[0] == 2000
