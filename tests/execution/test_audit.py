"""What an audit finds of a store that was filled, harmed, or never used."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save

from s3ray.data.dataset import Dataset
from s3ray.execution import run_cell
from s3ray.execution.audit import Audit, Sample, audit
from s3ray.execution.drift import WEIGHTS, Difference
from s3ray.store import Store
from s3ray.sweep import CellPlan
from toy_runs import commit, toy_run

Finished = tuple[Store, CellPlan]


@pytest.fixture(scope="module")
def filled(tiny_sweep: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    store = Store(str(tmp_path_factory.mktemp("filled")))
    cell = tiny_sweep.tiny_plan(store, seeds=1, epochs=1).cells[0]
    store.publish_dataset(tiny_sweep.DATA)
    device = torch.device("cpu")
    run_cell(cell, tiny_sweep.DATA, store, lambda event: None, device=device, checkpoint_interval=1e9)
    store.write_folder({"table.csv": "1"}, {}, "results", "tiny")
    return store, cell


@pytest.fixture
def finished(filled: Finished, tmp_path: Path) -> Finished:
    shutil.copytree(filled[0].base, tmp_path / "copy")
    return Store(str(tmp_path / "copy")), filled[1]


def test_an_empty_store_has_nothing_wrong(tmp_path: Path) -> None:
    found = audit(Store(str(tmp_path / "store")), sample=3)
    assert found.holds
    assert found.lines() == [f"nothing is stored at {tmp_path / 'store'} yet"]


def test_one_marker_and_what_a_dead_writer_left(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    commit(store, toy_run(), {"a.bin": b"1"})
    store.write(b"1", "artifacts", "selection", toy_run().identity, "0123456789ab", "a.bin")
    found = audit(store, sample=3)
    assert (found.holds, found.results, found.unnamed) == (True, 1, 1)
    (skipped,) = found.skipped  # no stage that is known
    assert skipped.endswith("of another version, not computed again")


def test_no_dataset_stays_open(tmp_path: Path, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    for seed in range(3):
        labels = np.roll(tiny_dataset.train.labels, seed)
        data = dataclasses.replace(tiny_dataset, train=dataclasses.replace(tiny_dataset.train, labels=labels))
        store.publish_dataset(data)
    maps: list[int] = []
    fetch = Store.fetch_dataset

    def counted(self: Store, content: str) -> Dataset:
        maps.append(Path("/proc/self/maps").read_text().count(str(tmp_path)))
        return fetch(self, content)

    monkeypatch.setattr(Store, "fetch_dataset", counted)
    assert audit(store).datasets == 3
    assert maps == [0, 0, 0]


@pytest.mark.slow
def test_a_whole_store_is_whole_and_computes_again_what_it_has(filled: Finished) -> None:
    store, cell = filled
    count = len({run.identity for run in cell.runs})
    found = audit(store, sample=count, draw=random.Random(0))
    assert found.holds, found.lines()
    assert (found.results, found.datasets, found.drifts, found.skipped) == (count, 1, [], [])
    assert len(found.samples) == count
    assert all(sample.is_equal and sample.like == "bit for bit" for sample in found.samples)
    assert found.lines()[-1] == "all is as it was committed"


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("artifacts/selection/*/*/weights.safetensors", "damaged, and set aside as"),
        ("artifacts/reference/*/*/rows.parquet", "damaged, and set aside as"),
        ("artifacts/reference/*/commit.json", "damaged, or of another version"),
        ("data/*/train.rows.values.npy", "the published dataset is damaged"),
        ("data/*/manifest.json", "the published dataset is damaged"),
        ("results/tiny/table.csv", "missing, damaged or being written"),
        ("results/tiny/info.json", "missing, damaged or being written"),
        ("environments/*.txt", "damaged; no result depends on it"),
    ],
)
def test_every_kind_of_damage_is_a_sentence_with_its_remedy(finished: Finished, pattern: str, said: str) -> None:
    store, _ = finished
    file = next(Path(store.base).glob(pattern))
    if file.name == "info.json":
        file.write_text(file.read_text()[:-3])
    else:
        flip(file)
    found = audit(store)
    assert not found.holds
    assert [said in fault and "run" in fault for fault in found.faults if "stands on" not in fault] == [True]


@pytest.mark.slow
def test_children_of_another_attempt_are_named(finished: Finished) -> None:
    store, cell = finished
    folder = Path(store.path("artifacts", "specialization", cell.training.identity))
    store.conditional.replace(
        f"artifacts/specialization/{cell.training.identity}/commit.json", b"{}", "0"
    )  # which does not count
    committed = store.commit(
        cell.training,
        {file.name: file.read_bytes() for file in next(folder.glob("*/rows.parquet")).parent.iterdir()},
        seconds=1.0,
        provenance={},
    )
    assert committed.is_first
    found = audit(store)
    children = {run.identity for run in cell.runs if cell.training in run.ancestors}
    direct = {run.identity for run in cell.runs if run.parent is cell.training}
    assert len(found.faults) == len(direct)
    assert all("stands on attempt" in fault for fault in found.faults)
    assert found.results == len({run.identity for run in cell.runs} - children)


@pytest.mark.slow
def test_a_result_that_cannot_be_computed_again_is_a_fault(finished: Finished) -> None:
    """Whole by its digests, and wrong: what only computing again shows."""
    store, cell = finished
    run = cell.reference
    rows = store.artifact(run, "rows.parquet").replace(b"majority class", b"majority glass")
    Path(store.path("artifacts", "reference", run.identity, "commit.json")).unlink()
    shown = store.commit(run, {"rows.parquet": rows}, seconds=1.0, provenance=_provenance(store, cell))
    found = audit(store, sample=100)
    assert shown.is_first
    (wrong,) = [sample for sample in found.samples if not sample.holds]
    assert wrong.identity == run.identity
    assert found.beyond[0].startswith(f"reference {run.identity}: computed again it is")


def _provenance(store: Store, cell: CellPlan) -> dict[str, object]:
    marker = store.marker(cell.training)
    assert marker is not None
    return dict(marker.provenance)


@pytest.mark.parametrize(
    ("like", "difference", "is_equal", "holds"),
    [
        ("bit for bit", 0.0, False, False),
        ("bit for bit", 0.0, True, True),
        ("rounding", 0.04, False, True),
        ("rounding", 0.06, False, False),
    ],
)
def test_what_a_sample_may_differ_by(like: str, difference: float, is_equal: bool, holds: bool) -> None:
    sample = Sample("probe", "abc", "cpu", difference, 0.05, like, is_equal)
    assert sample.holds is holds
    assert Audit("here", samples=[sample]).holds is holds


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows, Difference()),
        (lambda rows: {**rows, "loss": [1.0, 4.0]}, Difference(rows=2.0, column="loss", share=1.0)),
        (lambda rows: {**rows, "encode_seconds": [9.0, 9.0]}, Difference()),
        (lambda rows: {**rows, "split": ["a", "c"]}, Difference(unlike=("split",))),
        (lambda rows: {**rows, "more": [1, 2]}, Difference(float("inf"), "loss", float("inf"), unlike=("more",))),
        (lambda rows: {**rows, "loss": [1.0, None]}, Difference(float("inf"), "loss", float("inf"))),
        (lambda rows: {k: v[:1] for k, v in rows.items()}, None),
    ],
)
def test_differences_of_rows(change: Callable[[dict[str, list[object]]], object], expected: Difference | None) -> None:
    rows: dict[str, list[object]] = {"loss": [1.0, 2.0], "split": ["a", "b"], "encode_seconds": [0.1, 0.2]}
    found = Difference.of({"rows.parquet": pa.table(rows)}, {"rows.parquet": pa.table(change(rows))})
    if expected is None:
        assert not found.is_none
    else:
        assert found == expected


def test_differences_of_weights() -> None:
    one = {"w": torch.zeros(3), "v": torch.ones(2)}
    assert Difference.of({WEIGHTS: save(one)}, {WEIGHTS: save(one)}).is_none
    other = {**one, "w": torch.tensor([0.0, -0.5, 0.25])}
    assert Difference.of({WEIGHTS: save(one)}, {WEIGHTS: save(other)}).weights == 0.5
    assert Difference.of({WEIGHTS: save(one)}, {WEIGHTS: save({"w": torch.zeros(3)})}).weights == float("inf")
