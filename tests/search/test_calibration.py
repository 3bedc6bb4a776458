"""Calibration: of named settings, those that are best on validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import toy_runs
from s3ray.data import Dataset, from_arrays
from s3ray.errors import UserError
from s3ray.search.calibration import CANDIDATES, LEAST, Calibration, asked_by, plan_calibrated, too_small
from s3ray.store import Store
from s3ray.sweep import CellPlan, Study, Sweep, make_plan
from tiny_search import commit

NAMES = list(CANDIDATES)


@pytest.fixture
def store(tmp_path: Any) -> Store:
    return Store(str(tmp_path / "store"))


def _data(name: str = "own", valid: int = LEAST) -> Dataset:
    def split(samples: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        values = np.arange(float(samples * 3)).reshape(samples, 3)
        return {"left": values, "right": values[:, :1]}, np.arange(samples) % 2

    return from_arrays(name, train=split(40), valid=split(valid), test=split(4))


def _study(*data: Dataset, **overrides: Any) -> Study:
    return Study.of({one.name: one for one in data or (_data(),)}, None, overrides)


def _calibration(study: Study, store: Store) -> Calibration:
    calibration = Calibration.of(study, store)
    assert calibration is not None
    return calibration


def _finish(store: Store, cell: CellPlan, accuracy: float) -> None:
    """The cell has run, with this accuracy on validation at p = 0.5."""
    curve = {run.identity for branch in cell.branches for run in branch.curve}
    commit(store, cell, {0.5: accuracy})
    for run in cell.runs:
        if run.identity not in curve:
            toy_runs.commit(store, run)


def test_the_candidate_that_is_best_on_validation_is_chosen(store: Store) -> None:
    study = _study()
    calibration = _calibration(study, store)
    assert [name for _, name in calibration.names.values()] == NAMES
    for cell, accuracy in zip(calibration.plan.cells, (0.5, 0.8, 0.7, 0.8, 0.6), strict=True):
        _finish(store, cell, accuracy)
    calibration = _calibration(study, store)
    assert calibration.plan.pending == ()
    settled = calibration.settled(store)
    assert settled.chosen == {"own": NAMES[1]}  # of equals the first
    assert settled.tried == {"own": dict(zip(NAMES, (0.5, 0.8, 0.7, 0.8, 0.6), strict=True))}
    assert settled.entries["own"].settings.specialization.optimizer.learning_rate == 3e-4
    assert settled.entries["own"].facts == study.entries["own"].facts
    (line,) = calibration.told(store)
    assert line.startswith(f"own: calibrated, {NAMES[1]}; validation accuracy after Selection: {NAMES[0]} 50.0%, ")
    assert Calibration.of(settled, store) is None


def test_until_all_candidates_have_run_the_scales_own_settings_stand(store: Store) -> None:
    study = _study()
    for cell in _calibration(study, store).plan.cells[:-1]:
        _finish(store, cell, 0.9)
    calibration = _calibration(study, store)
    assert len(calibration.plan.pending) == 1
    assert calibration.settled(store) == study
    assert "calibration first: 5 candidates for each of own, 1 cells to run, estimated" in calibration.announced()


def test_a_candidate_that_diverges_is_none_and_stays_none(store: Store) -> None:
    calibration = _calibration(_study(), store)
    *others, last = calibration.plan.cells
    for cell in others:
        _finish(store, cell, 0.5)
    tried = _calibration(_study(), store).plan
    calibration = calibration.after(tried, {last.cell: "DivergedError: the loss became nan"}, store)
    again = _calibration(_study(), store)
    for known in (calibration, again):
        assert known.plan.pending == ()
        assert known.settled(store).chosen == {"own": NAMES[0]}
        assert known.settled(store).tried["own"] == {**dict.fromkeys(NAMES, 0.5), NAMES[-1]: None}
        assert known.told(store)[0].endswith(f"{NAMES[-2]} 50.0%, {NAMES[-1]} diverged")


def test_if_all_diverge_the_scales_own_settings_stand(store: Store) -> None:
    calibration = _calibration(_study(), store)
    failures = {cell.cell: "DivergedError: the loss became nan" for cell in calibration.plan.cells}
    known = calibration.after(calibration.plan, failures, store)
    assert known.settled(store) == _study()
    assert known.told(store)[0].startswith("own: calibrated, no candidate can be trained")
    assert _calibration(_study(), store).plan.pending == ()


def test_a_candidate_of_which_nothing_is_known_stops_the_sweep(store: Store) -> None:
    calibration = _calibration(_study(), store)
    cell = calibration.plan.cells[0].cell
    with pytest.raises(
        UserError, match=r"^own \(two views\): calibration failed \(WorkerDied\); run again, or --no-cal"
    ):
        calibration.after(calibration.plan, {cell: "WorkerDied"}, store)
    assert len(_calibration(_study(), store).plan.pending) == 5


def test_each_dataset_is_calibrated_by_itself(store: Store) -> None:
    study = _study(_data("first", LEAST), _data("second", LEAST + 1))
    for cell in _calibration(study, store).plan.cells:
        dataset, candidate = _calibration(study, store).names[cell.cell.dataset]
        _finish(store, cell, 0.9 if candidate == {"first": NAMES[2], "second": NAMES[4]}[dataset] else 0.5)
    assert _calibration(study, store).settled(store).chosen == {"first": NAMES[2], "second": NAMES[4]}


def test_what_is_not_calibrated(store: Store, tiny_dataset: Dataset) -> None:
    assert Calibration.of(_study(_data(valid=LEAST - 1)), store) is None
    assert Calibration.of(_study(calibrate=False), store) is None
    assert Calibration.of(_study(tiny_dataset), store) is None  # not the user's
    assert Calibration.of(Study.of({"own": _data()}, "paper", {}), store) is None
    assert Calibration.of(Study(_study().entries), store) is None  # without data
    mixed = _study(_data(), _data("small", valid=4), tiny_dataset)
    assert {dataset for dataset, _ in _calibration(mixed, store).names.values()} == {"own"}


def test_data_with_too_few_validation_samples_are_told_why_they_are_not_calibrated(tiny_dataset: Dataset) -> None:
    small = _data("small", LEAST - 1)
    (sentence,) = too_small(_study(_data(), small, tiny_dataset))
    assert sentence.startswith("small: not calibrated, since among 5 candidates 99 validation samples, fewer than 100,")
    assert len(too_small(_study(small, _data("other", 1)))) == 2
    assert too_small(_study(small, calibrate=False)) == []
    assert too_small(Study.of({"small": small}, "paper", {})) == []


def test_what_the_user_sets_is_not_varied(store: Store) -> None:
    calibration = _calibration(_study(model={"width": 16}, granularities=[2, 4], seeds=[7]), store)
    settings = [entry.settings for entry in calibration.plan.study.entries.values()]
    assert {own.model.width for own in settings} == {16}
    assert {(c.cell.granularity, c.cell.seed) for c in calibration.plan.cells} == {(4, 7)}


def test_its_training_is_that_of_the_sweep(store: Store) -> None:
    """The cell of the best candidate has trained what the sweep needs."""
    study = _study()
    tried = _calibration(study, store).plan.cells[-1]
    assert NAMES[-1] == "the scale's own"
    sweep = Sweep("one", cells=lambda s: [s.cell("own", 8, tried.cell.batch_size, 0)], branches=("suff+min",))
    (cell,) = make_plan(sweep, study, store).cells
    assert cell.training.identity == tried.training.identity
    assert cell.branches[0].trained.identity == tried.branches[0].trained.identity
    assert {run.identity for run in tried.branches[0].curve} < {run.identity for run in cell.branches[0].curve}


def test_a_plan_has_the_chosen_settings_once_they_are_known(store: Store) -> None:
    sweep = Sweep("one", cells=lambda s: [s.cell("own", 8, s.batch_sizes("own")[0], 0)])
    study = _study()
    assert plan_calibrated(sweep, study, store).study == study
    for cell in _calibration(study, store).plan.cells:
        _finish(store, cell, 0.5)
    assert plan_calibrated(sweep, study, store).study.chosen == {"own": NAMES[0]}


def test_what_it_tried_is_asked_for_too(store: Store) -> None:
    """By whoever plans the sweep, also before it is known what is chosen; the candidates ask for themselves alone."""
    sweep = Sweep("one", cells=lambda s: [s.cell("own", 8, s.batch_sizes("own")[0], 0)])
    tried = _calibration(_study(), store).plan
    candidates = {run.identity for cell in tried.cells for run in cell.runs}
    for cell in tried.cells:
        asked = asked_by(plan := plan_calibrated(sweep, _study(), store), store)
        assert asked.keys() == candidates | {run.identity for cell in plan.cells for run in cell.runs}
        _finish(store, cell, 0.5)
    assert asked_by(tried, store).keys() == candidates


def test_what_may_follow_takes_from_the_scales_own_time_to_that_of_two_views(store: Store) -> None:
    sweep = Sweep("one", cells=lambda s: [s.cell("own", 8, s.batch_sizes("own")[0], 0)], branches=("none",))
    study = _study()
    plans = _calibration(study, store).may_follow(sweep, store)
    seconds = dict(zip(NAMES, [sum(plan.shares) for plan in plans], strict=True))
    assert seconds["the scale's own"] == sum(make_plan(sweep, study, store).shares) == min(seconds.values())
    assert max(seconds.values()) == seconds["two views"] > 1.5 * seconds["the scale's own"]
    for cell in _calibration(study, store).plan.cells:
        _finish(store, cell, 0.5)
    assert sum(plan_calibrated(sweep, study, store).shares) < seconds["two views"]  # its training is there


def test_complaints_name_the_users_dataset(store: Store) -> None:
    sweep = Sweep("one", cells=lambda s: [s.cell("own", 8, s.batch_sizes("own")[0], 0)])
    with pytest.raises(UserError, match=r"^own: batch size 50 must lie between 2 and the training split's 40 samples"):
        plan_calibrated(sweep, _study(batch_sizes=[50]), store)


@pytest.mark.parametrize("second", [LEAST, 4])
def test_tables_of_single_datasets_go_with_it(store: Store, second: int) -> None:
    """Also where nothing is settled yet, and where another dataset is not calibrated."""
    tables = {"first": {"selection": {"temperature": 0.7}}, "second": {"selection": {"temperature": 0.9}}}
    study = _study(_data("first", LEAST), _data("second", second), dataset=tables)
    plan_calibrated(Sweep("one", cells=lambda s: [s.cell("first", 8, 16, 0)]), study, store)
    for cell in _calibration(study, store).plan.cells:
        _finish(store, cell, 0.5)
    settled = _calibration(study, store).settled(store).entries
    assert [entry.settings.selection.temperature for entry in settled.values()] == [0.7, 0.9]
