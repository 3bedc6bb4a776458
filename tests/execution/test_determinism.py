"""The rows of a sweep do not depend on how it was run: in which order, in which packs, beside what, from what cache.

Of the columns those of the clock are left out: all seconds, and when a result was committed.

A second worker group is this file, run as a script: `python test_determinism.py STORAGE backwards`.
"""

from __future__ import annotations

import functools
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path

import pytest
import torch

from s3ray.data.facts import DataFacts
from s3ray.execution import run_cell
from s3ray.settings import Settings, override
from s3ray.store import Claims, Store
from s3ray.sweep import Cell, CellPlan, Plan, Study, StudyDataset, Sweep, make_packs, make_plan
from same_rows import assert_same_rows, tables
from tiny_data import tiny_dataset

pytestmark = pytest.mark.slow  # trains, starts processes

DATA = tiny_dataset()
GRID = [(2, 13, 0), (2, 26, 0), (4, 13, 1)]  # granularity, batch size, seed
TABLES = {
    "model": {"width": 8, "layers": 1, "heads": 2, "dropout": 0.1},
    "specialization": {"optimizer": {"epochs": 2}},
    "selection": {"optimizer": {"epochs": 2}},
    "sparsification": {"ratios": [1.0, 0.5]},
}


def planned(store: Store) -> Plan:
    """Cells of S3, two of which share their untrained encoder, and one of a prior method; all share a reference."""

    def cells(study: Study) -> list[Cell]:
        s3 = [study.cell("tiny", granularity, batch, seed) for granularity, batch, seed in GRID]
        return [*s3, study.prior("tiny", "supcon", 13, 0)]

    sweep = Sweep("tiny", cells, branches=("none", "suff+min"))
    entry = StudyDataset(DataFacts.of(DATA), "smoke", override(Settings(), TABLES, "changes"))
    return make_plan(sweep, Study({"tiny": entry}, data={"tiny": DATA}), store)


def run(cells: Iterable[CellPlan], store: Store, claims: Claims | None = None) -> bool:
    """As one worker group runs its pack; whether all is committed."""
    one = functools.partial(run_cell, device=torch.device("cpu"), checkpoint_interval=1e9, claims=claims)
    complete = [one(cell, DATA, store, lambda event: None) for cell in cells]  # all, whatever the first ones were
    return all(complete)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The sweep, its cells one after another in its own order."""
    store = Store(str(tmp_path_factory.mktemp("expected")))
    assert run(planned(store).cells, store)
    return store


def test_rows_are_there_and_differ_between_cells(expected: Store) -> None:
    """Else equal ones would say nothing."""
    found = tables(expected, planned(expected))
    assert {name for name, table in found.items() if not table.empty} == {
        "rows", "controls", "references", "entropies", "contributions",
    }  # fmt: skip
    rows = found["rows"]
    assert {"identity", "accuracy", "correct", "pairs_kept", "machine"} <= set(rows.columns)
    assert not {"committed_at", "curve_seconds", "encode_seconds"} & set(rows.columns)
    spreads = rows.groupby(["method", "granularity", "batch_size"])["spread"].agg(tuple)
    assert spreads.nunique() == len(GRID) + 1


@pytest.mark.parametrize(("target", "step", "sizes"), [(1, -1, [1, 1, 1, 1]), (2, 1, [2, 2])])
def test_packs_of_any_size_in_any_order(
    expected: Store, tmp_path: Path, target: float, step: int, sizes: list[int]
) -> None:
    store = Store(str(tmp_path))
    cells = planned(store).cells[::step]
    packs = make_packs(cells, [1.0] * len(cells), slots=1, target=target)
    assert [len(pack) for pack in packs] == sizes
    for pack in packs:
        assert run(pack, store, Claims(store))
    assert_same_rows(store, expected, planned(store))


def test_two_worker_groups_at_once_that_meet_at_every_cell(expected: Store, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, __file__, str(tmp_path), order] for order in ("forwards", "backwards")]
    groups = [subprocess.Popen(c, env=environment, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        for group in groups:
            _, errors = group.communicate(timeout=300)
            assert group.returncode == 0, errors
    finally:
        for group in groups:
            group.kill()
    assert_same_rows(store, expected, planned(store))


def test_any_half_of_the_results_cached(expected: Store, tmp_path: Path) -> None:
    """What goes on from a model that was read from the store gives what goes on from one just trained."""
    shutil.copytree(expected.base, tmp_path / "copy")
    store = Store(str(tmp_path / "copy"))
    plan = planned(store)
    runs = sorted({one.identity: one for cell in plan.cells for one in cell.runs}.values(), key=attrgetter("identity"))
    lost = random.Random(0).sample(runs, len(runs) // 2)
    assert {one.stage.trains for one in lost} == {True, False} == {one.stage.trains for one in runs if one not in lost}
    for one in lost:
        store.drop("artifacts", one.stage.name, one.identity)
    assert run(plan.cells, store)
    assert_same_rows(store, expected, planned(store))


if __name__ == "__main__":
    torch.set_num_threads(1)
    shared = Store(sys.argv[1])
    ours = planned(shared).cells[:: 1 if sys.argv[2] == "forwards" else -1]
    claims = Claims(shared)
    while not run(ours, shared, claims):
        time.sleep(0.5)  # the other one is at work on the rest
