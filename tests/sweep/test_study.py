"""How many modalities a study takes, and whose cells are left out for that."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from lacking import lacking
from s3ray.data import DataFacts, Dataset, Split
from s3ray.errors import UserError
from s3ray.methods import METHODS
from s3ray.settings import settings_for
from s3ray.store import Store
from s3ray.sweep import Cell, Study, StudyDataset, Sweep, make_plan, union

PRIOR = tuple(METHODS)
TAKES_MISSING = tuple(name for name, method in METHODS.items() if method.takes_missing)


def _study(data: Dataset, names: list[str]) -> Study:
    def seen_through(split: Split) -> Split:
        given = split.modalities
        return dataclasses.replace(split, modalities={name: given.get(name, given["right"]) for name in names})

    splits = {name: seen_through(split) for name, split in data.splits.items()}
    settings = dataclasses.replace(settings_for("toy", "smoke"), batch_sizes=(8,))
    return Study({"toy": StudyDataset(DataFacts.of(dataclasses.replace(data, **splits)), "smoke", settings)})


def _cells(study: Study) -> Iterator[Cell]:
    yield study.cell("toy", 2, 8, 0)
    for method in PRIOR:
        yield study.prior("toy", method, 8, 0)


SWEEP = Sweep(name="mixed", cells=_cells, branches=("none",))


def test_what_each_method_is_defined_for() -> None:
    several = {"clip", "focal"}
    two = {"factorcl", "jointopt", "disentangledssl"}
    for name, method in METHODS.items():
        expected = (2, math.inf) if name in several else (2, 2) if name in two else (1, math.inf)
        assert method.modalities == expected


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (["left"], {"clip", "disentangledssl", "factorcl", "focal", "jointopt"}),
        (["left", "right"], set()),
        (["left", "right", "back"], {"disentangledssl", "factorcl", "jointopt"}),
    ],
)
def test_cells_of_methods_that_are_not_defined_are_left_out(
    names: list[str], left_out: set[str], tiny_dataset: Dataset, tmp_path: Path
) -> None:
    study = _study(tiny_dataset, names)
    for sweep in (SWEEP, union("parts", [SWEEP, dataclasses.replace(SWEEP, name="again")])):
        plan = make_plan(sweep, study, Store(str(tmp_path)))
        assert {cell.cell.method for cell in plan.cells} == {"s3", *PRIOR} - left_out
        assert plan.summary()["undefined"] == plan.undefined
        assert len(plan.undefined) == bool(left_out)
        for sentence in plan.undefined:
            count = f"{len(names)} {'modalities' if names[1:] else 'modality'} ({', '.join(names)})"
            assert sentence.startswith("toy: ")
            assert all(sentence.count(name) == 1 for name in left_out)
            assert f"are not defined for {count} and left out; give two, of your own and prepared data" in sentence


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (["left"], {"clip", "disentangledssl", "factorcl", "focal", "jointopt"}),
        (["left", "right"], {"disentangledssl", "factorcl", "focal", "jointopt"}),
        (["left", "right", "back"], {"disentangledssl", "factorcl", "focal", "jointopt"}),
    ],
)
def test_where_samples_lack_a_modality_those_take_part_whose_loss_is_defined(
    names: list[str], left_out: set[str], tiny_dataset: Dataset, tmp_path: Path
) -> None:
    data = lacking(tiny_dataset, valid={"right": [1]})
    if names == ["left"]:
        data = lacking(tiny_dataset, valid={"left": [1]})
    plan = make_plan(SWEEP, _study(data, names), Store(str(tmp_path)))
    assert {cell.cell.method for cell in plan.cells} == {"s3", *PRIOR} - left_out
    told = " ".join(plan.undefined)
    assert all(told.count(name) == 1 for name in left_out)
    which = "right, back" if "back" in names else "right"
    lacks = f"focal, jointopt are not defined for samples that lack a modality ({which}) and left out; take modalities"
    assert (lacks in told) == (names == ["left", "right"])


def test_asking_what_is_left_adds_stage_runs_where_there_is_something_to_lose(
    tiny_dataset: Dataset, tmp_path: Path
) -> None:
    for names in (["left"], ["left", "right"], ["left", "right", "back"]):
        store, study = Store(str(tmp_path)), _study(tiny_dataset, names)
        usual, asked = (make_plan(dataclasses.replace(SWEEP, missing=m), study, store) for m in (False, True))
        for before, after in zip(usual.cells, asked.cells, strict=True):
            others = [run.identity for run in after.runs if run.stage.name != "missing"]
            assert others == [run.identity for run in before.runs]
            for branch in after.branches:
                lost = names[1:] and after.cell.method in ("s3", *TAKES_MISSING)
                assert len(branch.lacking) == (len(branch.curve) if lost else 0)


def test_a_sweep_of_nothing_else_is_refused(tiny_dataset: Dataset, tmp_path: Path) -> None:
    alone = Sweep(name="alone", cells=lambda study: [study.prior("toy", "factorcl", 8, 0)])
    with pytest.raises(
        UserError, match=r"^toy: factorcl is not defined for 1 modality \(left\) and left out; give two"
    ):
        make_plan(alone, _study(tiny_dataset, ["left"]), Store(str(tmp_path)))


def test_of_one_modality_it_is_said_that_nothing_is_compared(tiny_dataset: Dataset) -> None:
    said = {
        len(n): " ".join(_study(tiny_dataset, n).entries["toy"].facts.warnings) for n in (["left"], ["left", "right"])
    }
    assert "has one modality, left: L_dsc, which compares different ones, is left out" in said[1]
    assert "L_dsc" not in said[2]


def test_asking_what_modalities_carry_adds_stage_runs_and_changes_none(tiny_dataset: Dataset, tmp_path: Path) -> None:
    store, study = Store(str(tmp_path)), _study(tiny_dataset, ["left", "right", "back"])
    usual, asked = (make_plan(dataclasses.replace(SWEEP, modalities=m), study, store) for m in (False, True))
    for before, after in zip(usual.cells, asked.cells, strict=True):
        others = [run.identity for run in after.runs if run.stage.name != "modalities"]
        assert others == [run.identity for run in before.runs]
        for branch in after.branches:  # one per point of its curve
            assert len(branch.modalities) == len(branch.curve)
