"""`s3ray store` and `s3ray gc` as users meet them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import assert_one_sentence, s3ray
from s3ray.cli.options import resolve
from s3ray.data import Dataset
from s3ray.results.rounds import with_second_round
from s3ray.store import Store
from s3ray.store.names import FILE, names_of, write_names
from s3ray.sweep import load_sweep
from toy_runs import commit, commit_all, toy_run


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path))
    for seed in range(3):
        commit(store, toy_run(seed), {"rows": b"r" * 1000})
    store.write_folder({}, {}, "results", "grid-00000000")
    write_names(store, names_of([toy_run(0), toy_run(1)]), "results", "grid-00000000", FILE)
    return store


def test_a_storage_without_anything(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing"
    assert s3ray("store", "--storage", nothing).output == f"nothing is stored at {nothing} yet\n"
    assert s3ray("gc", "--storage", nothing).output == "nothing to delete\n"
    assert not nothing.exists()
    assert s3ray("gc", "--delete", "--storage", nothing).output == "nothing to delete\n"


def test_what_is_there(store: Store, tiny_dataset: Dataset) -> None:
    store.publish_dataset(tiny_dataset)
    first, second, *_, study, nobody = s3ray("store", "--storage", store.base).output.splitlines()
    assert first.startswith(f"dataset {tiny_dataset.name} ({tiny_dataset.kind})  ")
    assert second.split()[:4] == ["results", "of", "selection", "3"]
    assert study.startswith("study grid-00000000: ")
    assert " names 2 results, " in study
    assert nobody.startswith("nobody asks for 1 result, ")
    plain = json.loads(s3ray("store", "--storage", store.base, "--format", "json").output)
    assert [study["results"]["things"] for study in plain["studies"]] == [2]


def test_what_would_go_and_goes(store: Store) -> None:
    kind, told = s3ray("gc", "--storage", store.base).output.splitlines()
    assert kind.startswith("results that nobody asks for  1  ")
    assert told.startswith("would be deleted: 1 things, 1.")
    assert told.endswith(" kB; --delete does it")
    assert store.marker(toy_run(2)) is not None
    found = json.loads(s3ray("gc", "--storage", store.base, "--delete", "--format", "json").output)
    assert found["deleted"]
    assert [thing["path"] for thing in found["things"]] == [f"artifacts/selection/{toy_run(2).identity}"]
    assert [store.marker(toy_run(seed)) is None for seed in range(3)] == [False, False, True]
    last = s3ray("gc", "--storage", store.base, "--delete", "--study", "grid-00000000").output.splitlines()[-1]
    assert last.startswith("deleted: 3 things, ")
    assert_one_sentence(s3ray("gc", "--storage", store.base, "--study", "grid"), "has no such study")


def test_a_sweep_that_is_kept(store: Store) -> None:
    options = ["--study", "grid-00000000", "--keep", "sweeps/tables4_5_parameters.py"]  # asks for nothing
    assert "would be deleted: 4 things" in s3ray("gc", "--storage", store.base, *options).output
    assert_one_sentence(s3ray("gc", "--storage", store.base, "--keep", "nosuch.py"), "no such sweep file")
    assert_one_sentence(
        s3ray("plan", "table1_figure"), "no such sweep file; did you mean 'table1_figure5'. known: effect, "
    )


TWO_ROUNDS = """
from s3ray.sweep import Sweep


def cells(study):
    yield study.cell("digits", 2, 64, 0)


def then(study, results):
    yield study.cell("digits", 2, 64, 1)


SWEEP = Sweep(name="two", cells=cells, branches=("none",), datasets=("digits",), then=then)
"""


def test_the_second_round_of_a_sweep_is_kept_too(store: Store, tmp_path: Path) -> None:
    """A cell of the first has failed, or is gone."""
    file = tmp_path / "two.py"
    file.write_text(TWO_ROUNDS)
    request = resolve(load_sweep(file), "", None, None, None, None, store.base, None)
    (first,) = request.plan.cells
    (_, second) = with_second_round(request.plan, store, {first.cell}).cells
    commit_all(store, [(second.training, {})])
    place = f"artifacts/{second.training.stage.name}/{second.training.identity}"
    for options, is_told in ([], True), (["--keep", file], False):
        told = json.loads(s3ray("gc", "--storage", store.base, "--format", "json", *options).output)
        assert (place in [thing["path"] for thing in told["things"]]) == is_told


def test_a_storage_of_an_earlier_version(store: Store) -> None:
    Path(store.path("results", "grid-00000000", FILE)).unlink()
    told, which, last = s3ray("gc", "--storage", store.base, "--delete").output.splitlines()
    assert told == "no result is deleted while it is not known who asks for it:"
    assert "grid-00000000: does not say which results it stands on" in which
    assert last == "nothing to delete"
