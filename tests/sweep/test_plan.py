"""The plan: what is shared, cached, refused, and what it will take."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toy_runs
from s3ray.configuration import document
from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.errors import UserError
from s3ray.methods import METHODS
from s3ray.model import Control, Pruning
from s3ray.model.config import ModelConfig
from s3ray.settings import settings_for
from s3ray.stages.sparsification import SparsificationSettings
from s3ray.stages.specialization import SpecializationSettings
from s3ray.stages.stage import StageRun
from s3ray.stages.training import OptimizerConfig
from s3ray.stages.variants import SelectionSettings
from s3ray.store import Store
from s3ray.sweep import (
    Cell,
    CellPlan,
    Plan,
    Study,
    StudyDataset,
    Sweep,
    curves,
    load_sweep,
    make_plan,
    packed,
    plan_cell,
    timing,
    union,
)

HERE, THERE = {"machine": "cpu here"}, {"machine": "cuda there"}


def grid(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        for granularity in (2, 4):
            for batch_size in study.batch_sizes(dataset):
                for seed in (0, 1, 2):
                    yield study.cell(dataset, granularity, batch_size, seed)


SWEEP = Sweep(name="grid", cells=grid, branches=("none", "suff+min"))


def study_of(data: Dataset, **changes: Any) -> Study:
    settings = dataclasses.replace(settings_for("digits", "smoke"), batch_sizes=(8, 16), **changes)
    return Study({"toy": StudyDataset(DataFacts.of(data), "smoke", settings)})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def commit(store: Store, run: StageRun, seconds: float = 1.0, provenance: dict[str, str] = HERE) -> None:
    toy_runs.commit(store, run, {}, seconds=seconds, provenance=provenance)


def test_each_specialization_stands_once_beside_the_naive_count(tiny_dataset: Dataset, store: Store) -> None:
    summary = make_plan(SWEEP, study_of(tiny_dataset), store).summary()
    # 2 χ × 2 batch sizes × 3 seeds = 12 cells, each with 2 branches.
    assert summary["cells"] == {"total": 12, "cached": 0, "to_run": 12}
    assert summary["stages"] == {
        "specialization": {"naive": 24, "unique": 12, "cached": 0, "to_run": 12},
        "selection": {"naive": 12, "unique": 12, "cached": 0, "to_run": 12},
        "probe": {"naive": 24, "unique": 24, "cached": 0, "to_run": 24},
        # Of 24 curves nine ratios below 1, ranked and at random; of 12 cells no expert at all.
        "sparsification": {"naive": 444, "unique": 444, "cached": 0, "to_run": 444},
        "untrained": {"naive": 12, "unique": 6, "cached": 0, "to_run": 6},  # 2 χ × 3 seeds
        "reference": {"naive": 12, "unique": 1, "cached": 0, "to_run": 1},  # one dataset
    }
    assert summary["estimated_worker_seconds"] > 0
    json.dumps(summary)


def test_what_is_committed_is_cached_and_costs_nothing(tiny_dataset: Dataset, store: Store) -> None:
    plan = make_plan(SWEEP, study_of(tiny_dataset), store)
    first, second = plan.cells[:2]
    for run in first.runs:
        commit(store, run, seconds=first.seconds[run.identity])
    commit(store, second.training, seconds=second.seconds[second.training.identity])
    again = make_plan(SWEEP, study_of(tiny_dataset), store)
    assert again.summary()["cells"] == {"total": 12, "cached": 1, "to_run": 11}
    assert first.cell not in [cell.cell for cell in again.pending]
    curve = ["probe", *["sparsification"] * 9, *["sparsification"] * 9]
    missing = again.cells[1].missing(again.committed)
    assert [run.stage.name for run in missing] == [*curve, "selection", *curve, "sparsification", "untrained"]
    assert again.seconds(again.cells[0]) == 0.0
    assert again.seconds(again.cells[1]) < plan.seconds(second)


def test_what_is_ready_of_a_cell_is_its_training_then_what_stands_on_it(tiny_dataset: Dataset, store: Store) -> None:
    cell = make_plan(SWEEP, study_of(tiny_dataset), store).cells[0]
    selection = cell.branches[1].trained
    shared = {cell.floors["untrained"].claim, cell.reference.claim}
    committed: set[str] = set()
    assert cell.ready(committed) == {cell.training.claim}
    committed.add(cell.training.identity)
    assert cell.ready(committed) == {cell.training.claim, selection.claim} | shared
    committed |= {run.identity for run in (*cell.branches[0].runs, *cell.floors.values(), cell.reference)}
    assert cell.ready(committed) == {selection.claim}
    committed.add(selection.identity)
    assert cell.ready(committed) == {selection.claim}  # its curve
    assert cell.ready({run.identity for run in cell.runs}) == set()


def test_measured_seconds_correct_the_estimates_of_their_stage(tiny_dataset: Dataset, store: Store) -> None:
    epochs = OptimizerConfig(epochs=2000, learning_rate=1e-3)
    long = {
        "specialization": SpecializationSettings(optimizer=epochs),
        "selection": SelectionSettings(optimizer=epochs),
    }
    plan = make_plan(SWEEP, study_of(tiny_dataset, **long), store)
    assert set(plan.speeds.values()) == {1.0}
    for cell in plan.cells[:6]:
        commit(store, cell.training, seconds=3 * cell.seconds[cell.training.identity])
    again = make_plan(SWEEP, study_of(tiny_dataset, **long), store)
    assert again.speeds["specialization"] == pytest.approx(3.0, rel=0.1)
    assert again.speeds["selection"] == pytest.approx(3.0, rel=0.15)  # trains as Specialization does
    for cell in plan.cells[:6]:
        commit(store, cell.branches[1].trained, seconds=cell.seconds[cell.branches[1].trained.identity])
    again = make_plan(SWEEP, study_of(tiny_dataset, **long), store)
    assert again.speeds["specialization"] == pytest.approx(3.0, rel=0.1)
    assert again.speeds["selection"] == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("seconds", [1e-3, 5.0])
def test_a_stage_of_no_length_says_nothing_of_the_others(tiny_dataset: Dataset, store: Store, seconds: float) -> None:
    """One cached stage took a hundredth of a second, and all else was estimated at a fifth of what it took."""
    before = make_plan(SWEEP, study_of(tiny_dataset), store)
    cell = before.cells[0]
    alone = [run for run in cell.runs if run.parent is None]
    commit(store, min(alone, key=lambda run: cell.seconds[run.identity]), seconds=seconds)
    after = make_plan(SWEEP, study_of(tiny_dataset), store)
    estimates = [plan.summary()["estimated_worker_seconds"] for plan in (before, after)]
    assert estimates[1] == pytest.approx(estimates[0], rel=0.1 if seconds > 1 else 0.05)


def test_what_cells_share_is_estimated_once(tiny_dataset: Dataset, store: Store) -> None:
    plan = make_plan(SWEEP, study_of(tiny_dataset), store)
    reference = plan.cells[0].seconds[plan.cells[0].reference.identity]
    # Batch sizes share an untrained model: 2 χ × 3 seeds have one each.
    untrained = sum(cell.seconds[cell.floors["untrained"].identity] for cell in plan.cells) / 2
    expected = sum(map(plan.seconds, plan.pending)) - 11 * reference - untrained
    assert sum(plan.shares) == pytest.approx(expected)


def test_the_time_until_it_ends_counts_the_start(tiny_dataset: Dataset, store: Store) -> None:
    plan = make_plan(SWEEP, study_of(tiny_dataset), store)
    start = timing.RAY_SECONDS + timing.GROUP_SECONDS
    assert plan.wall_seconds(1) == pytest.approx(start + sum(plan.shares))
    assert plan.wall_seconds(2) == pytest.approx(start + sum(plan.shares) / 2, rel=0.02)
    assert plan.wall_seconds(1, workers=2) == pytest.approx(start + sum(plan.shares) / 2)
    assert plan.wall_seconds(100) == pytest.approx(start + max(plan.shares))
    for cell in plan.cells:
        for run in cell.runs:
            commit(store, run)
    assert make_plan(SWEEP, study_of(tiny_dataset), store).wall_seconds(2) == 0.0


def test_attention_costs_the_square_of_the_length(tiny_dataset: Dataset) -> None:
    """A step over sequences of 1250 and 50 takes about twice as long as one over as many tokens in sequences of 20
    (benchmarks/RESULTS.md)."""
    samples, tokens = {"train": 320, "valid": 32, "test": 32}, 1300
    short, long = (
        dataclasses.replace(
            DataFacts.of(tiny_dataset),
            samples=samples,
            tokens={split: tokens * count for split, count in samples.items()},
            squares={split: square * count for split, count in samples.items()},
        )
        for square in (tokens * 20, 1250**2 + 50**2)
    )
    cell = Cell(dataset="mine", granularity=2, batch_size=32, seed=0, scale="smoke")
    plan = plan_cell(cell, settings_for("mine", "smoke"), short, curves(["suff+min"]))
    for run, factor in ((plan.training, 1.8), (plan.branches[0].trained, 1.8), (plan.branches[0].curve[0], 1.5)):
        assert run.stage.estimate(run, long) > factor * run.stage.estimate(run, short)


def test_another_kind_of_machine_says_nothing_of_this_one(tiny_dataset: Dataset, store: Store) -> None:
    """A GPU trains ten times faster; that corrects neither the probes of a CPU nor its training."""
    plan = make_plan(SWEEP, study_of(tiny_dataset), store)
    for cell in plan.cells[:6]:
        commit(store, cell.training, 0.1 * cell.seconds[cell.training.identity], THERE)
    assert set(make_plan(SWEEP, study_of(tiny_dataset), store, HERE["machine"]).speeds.values()) == {1.0}
    there = make_plan(SWEEP, study_of(tiny_dataset), store, THERE["machine"])
    assert there.speeds["specialization"] < 0.9
    # Where it is not known what will run it: the kind that worked last.
    assert make_plan(SWEEP, study_of(tiny_dataset), store).speeds == there.speeds


def test_branches_hang_on_one_specialization(tiny_dataset: Dataset, store: Store) -> None:
    cell = make_plan(SWEEP, study_of(tiny_dataset), store).cells[0]
    none, selected = cell.branches
    assert none.selection is None
    assert none.trained is cell.training
    assert selected.selection is selected.trained
    assert selected.trained.parent is cell.training
    for branch in (none, selected):
        assert [run.parent for run in branch.curve] == [branch.trained] * 10


@pytest.mark.parametrize(
    ("config", "fields", "field"),
    [
        (Pruning(ratio=0.5, pool=8), {"ratio", "pool"}, {"rule": "smallest"}),
        (Pruning(ratio=0.5, pool=8), {"ratio", "pool"}, {"rule": "random", "seed": 0}),
        (
            ModelConfig(expert_scale="one"),
            {field.name for field in dataclasses.fields(ModelConfig)}
            - {"expert_scale", "pooling", "padding", "router_input", "weights"},
            {"expert_scale": "variance"},
        ),
    ],
)
def test_what_was_computed_before_there_were_controls_and_scales_keeps_its_identity(
    config: Any, fields: set[str], field: dict[str, Any]
) -> None:
    assert document(config).keys() == fields
    assert document(dataclasses.replace(config, **field)) == {**document(config), **field}


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [
        ((), (), []),
        ((), ("random",), ["random"]),
        (("random",), ("random", "smallest", "contribution"), ["smallest", "contribution"]),
        (("random", "smallest"), ("smallest",), []),
    ],
)
def test_a_finished_plan_grows_by_its_new_controls_alone(
    tiny_dataset: Dataset, store: Store, before: tuple[Control, ...], after: tuple[Control, ...], new: list[str]
) -> None:
    def planned(controls: tuple[Control, ...]) -> Plan:
        settings = SparsificationSettings(ratios=(1.0, 0.5, 0.1), controls=controls)
        return make_plan(SWEEP, study_of(tiny_dataset, sparsification=settings), store)

    for cell in planned(before).cells:
        for run in cell.runs:
            commit(store, run)
    plan = planned(after)
    for cell in plan.cells:
        assert all(list(branch.controls) == list(after) for branch in cell.branches)
        missing = cell.missing(plan.committed)
        wanted = [(rule, ratio) for _ in cell.branches for rule in new for ratio in (0.5, 0.1)]
        assert [(run.config.pruning.rule, run.config.pruning.ratio) for run in missing] == wanted
        assert all(run.config.pruning.seed in (None, cell.cell.seed) for run in missing)


def test_floors_stand_below_all_branches_of_a_cell(tiny_dataset: Dataset, store: Store) -> None:
    for cell in make_plan(SWEEP, study_of(tiny_dataset), store).cells:
        assert list(cell.floors) == ["no expert", "untrained"]
        none, untrained = cell.floors.values()
        assert (none.parent, none.config.pruning.ratio) == (cell.training, 0.0)
        assert untrained.parent is None
        assert (untrained.config.model, untrained.config.seed) == (cell.training.config.model, cell.cell.seed)


@pytest.mark.parametrize("method", METHODS)
def test_a_prior_method_has_neither_floors_nor_controls(tiny_dataset: Dataset, store: Store, method: str) -> None:
    sweep = Sweep(name="one", cells=lambda s: [s.prior("toy", method, 8, 0)])
    (cell,) = make_plan(sweep, study_of(tiny_dataset), store).cells
    assert cell.floors == {}
    assert all(branch.controls == {} for branch in cell.branches)


def curve(cell: CellPlan, branch: int) -> set[str]:
    return {run.identity for run in cell.branches[branch].curve}


def test_a_changed_field_reruns_just_what_depends_on_it(tiny_dataset: Dataset, store: Store) -> None:
    settings = settings_for("digits", "smoke")
    before = make_plan(SWEEP, study_of(tiny_dataset), store).cells[0]
    probe = dataclasses.replace(settings.probe, inverse_regularization=2.0)
    after = make_plan(SWEEP, study_of(tiny_dataset, probe=probe), store).cells[0]
    assert after.training.identity == before.training.identity
    assert after.branches[1].trained.identity == before.branches[1].trained.identity
    assert not curve(after, 1) & curve(before, 1)
    selection = dataclasses.replace(settings.selection, temperature=0.7)
    after = make_plan(SWEEP, study_of(tiny_dataset, selection=selection), store).cells[0]
    assert curve(after, 0) == curve(before, 0)
    assert not curve(after, 1) & curve(before, 1)


def test_the_same_computation_under_two_names_runs_once(tiny_dataset: Dataset, store: Store) -> None:
    entry = study_of(tiny_dataset).entries["toy"]
    plan = make_plan(SWEEP, Study({"one": entry, "two": entry}), store)
    assert len(plan.cells) == 24
    assert {cell.cell.dataset for cell in plan.pending} == {"one"}
    assert plan.summary()["stages"]["specialization"]["unique"] == 12


def test_one_file_under_two_names_with_different_probes_shares_the_training(
    tiny_dataset: Dataset, store: Store
) -> None:
    one = study_of(tiny_dataset).entries["toy"]
    probe = dataclasses.replace(one.settings.probe, inverse_regularization=2.0)
    two = dataclasses.replace(one, settings=dataclasses.replace(one.settings, probe=probe))
    plan = make_plan(SWEEP, Study({"one": one, "two": two}), store)
    assert len(plan.pending) == 24
    for cell in plan.cells[:12]:
        for run in cell.runs:
            commit(store, run)
    again = make_plan(SWEEP, Study({"one": one, "two": two}), store)
    assert {cell.cell.dataset for cell in again.pending} == {"two"}
    assert again.summary()["cells"]["to_run"] == 12
    assert again.summary()["stages"]["specialization"]["to_run"] == 0


@pytest.mark.parametrize("batch_size", [1, 10_000])
def test_batch_sizes_must_fit(tiny_dataset: Dataset, store: Store, batch_size: int) -> None:
    study = study_of(tiny_dataset)
    entry = study.entries["toy"]
    settings = dataclasses.replace(entry.settings, batch_sizes=(batch_size,))
    wrong = Study({"toy": dataclasses.replace(entry, settings=settings)})
    with pytest.raises(UserError, match=rf"toy: batch size {batch_size} must lie between 2 and"):
        make_plan(SWEEP, wrong, store)


def test_granularity_must_divide(tiny_dataset: Dataset, store: Store) -> None:
    study = study_of(tiny_dataset, model=ModelConfig(width=24, heads=4, layers=2))
    sweep = Sweep(name="odd", cells=lambda s: [s.cell("toy", 5, 8, 0)], branches=("none",))
    with pytest.raises(UserError, match="granularity 5 does not divide the FFN width 96"):
        make_plan(sweep, study, store)


def test_a_sweep_without_cells_is_refused(tiny_dataset: Dataset, store: Store) -> None:
    with pytest.raises(UserError, match="yields no cell"):
        make_plan(Sweep(name="empty", cells=lambda s: [], branches=("none",)), study_of(tiny_dataset), store)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"branches": ("none", "suff", "none")}, "sweep grid: branches has 'none' more than once"),
        ({"exhibits": ("table1", "table1")}, "sweep grid: exhibits has 'table1' more than once"),
        ({"branches": ("none", "suf")}, "sweep grid: unknown branch 'suf'; did you mean 'suff'?"),
        ({"parts": (SWEEP, SWEEP)}, "sweep grid: parts has 'grid' more than once"),
        ({"name": "a/b"}, "sweep 'a/b': its results' folder has this name"),
        ({"name": ""}, "sweep '': its results' folder has this name"),
        ({"name": ".."}, "sweep '..': its results' folder has this name"),
    ],
)
def test_a_sweep_names_everything_once(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        Sweep(**{"name": "grid", **fields})
    assert str(error.value).startswith(message)


def test_a_sweep_yields_each_cell_once_and_parts_may_share_them(tiny_dataset: Dataset, store: Store) -> None:
    twice = Sweep(name="twice", cells=lambda s: [s.cell("toy", 2, 8, seed) for seed in (0, 1, 0)], branches=("none",))
    with pytest.raises(UserError, match=r"^sweep twice: yields toy χ=2 batch=8 seed=0 more than once; yield each"):
        make_plan(twice, study_of(tiny_dataset), store)
    shared = union("both", [SWEEP, dataclasses.replace(SWEEP, name="other")])
    assert len(make_plan(shared, study_of(tiny_dataset), store).cells) == 12


READINGS = {"heads: 2": {"model": {"heads": 2}}, "noise: on": {"selection": {"noise": True}}}


def _read(reading: str, **fields: Any) -> Sweep:
    return Sweep(
        name="read",
        cells=lambda s: [s.cell("toy", 2, 8, 0, reading)],
        readings=READINGS,
        **{"branches": ("none", "suff"), **fields},
    )


@pytest.mark.parametrize(
    ("reading", "heads", "noise"), [("", 1, False), ("heads: 2", 2, False), ("heads: 2 + noise: on", 2, True)]
)
def test_a_cell_is_read_as_its_name_says(
    reading: str, heads: int, noise: bool, tiny_dataset: Dataset, store: Store
) -> None:
    (cell,) = make_plan(_read(reading), study_of(tiny_dataset, model=ModelConfig(width=16, heads=1)), store).cells
    assert cell.training.config.model.heads == heads
    assert cell.branches[1].trained.config.noise == noise
    assert str(cell.cell) == f"toy χ=2 batch=8 seed=0{' ' * bool(reading)}{reading}"


@pytest.mark.parametrize(
    ("readings", "message"),
    [
        (READINGS, r"^sweep read: unknown reading 'heads: 3'; did you mean 'heads: 2'\?"),
        ({"heads: 3": {"model": {"heads": 3}}}, r"^toy, reading 'heads: 3': model: heads 3 does not divide width 16"),
    ],
)
def test_a_reading_that_cannot_be(readings: dict[str, Any], message: str, tiny_dataset: Dataset, store: Store) -> None:
    sweep = dataclasses.replace(_read("heads: 3"), readings=readings)
    with pytest.raises(UserError, match=message):
        make_plan(sweep, study_of(tiny_dataset, model=ModelConfig(width=16)), store)


def test_a_branch_that_is_probed_has_no_curve_unless_another_part_asks_for_it(
    tiny_dataset: Dataset, store: Store
) -> None:
    probed = _read("", probed=("none",))
    (cell,) = make_plan(probed, study_of(tiny_dataset), store).cells
    assert [len(branch.curve) for branch in cell.branches] == [1, 10]
    assert [list(branch.controls) for branch in cell.branches] == [[], ["random"]]
    for parts in ([probed, dataclasses.replace(_read(""), name="whole")], [_read(""), probed][::-1]):
        named = [dataclasses.replace(part, name=f"part{number}", readings={}) for number, part in enumerate(parts)]
        (cell,) = make_plan(union("both", named), study_of(tiny_dataset), store).cells
        assert [len(branch.curve) for branch in cell.branches] == [10, 10]


def test_cells_that_share_a_training_stand_in_one_pack(tiny_dataset: Dataset, store: Store) -> None:
    """So that it is trained once, however many groups work at once."""
    noise = {f"noise: {on}": {"selection": {"noise": on}} for on in (True, False)}
    sweep = Sweep(
        name="shared",
        cells=lambda s: [s.cell("toy", 2, 8, seed, read) for read in noise for seed in range(4)],
        readings=noise,
        branches=("suff",),
    )
    plan = make_plan(sweep, study_of(tiny_dataset), store)
    packs = packed(plan, slots=4)
    assert sorted(cell.cell.seed for pack in packs for cell in pack) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [len({cell.training.identity for cell in pack}) for pack in packs] == [1] * 4
    assert packed(dataclasses.replace(plan, cells=()), slots=4) == []


def test_a_sweep_with_readings_is_no_part_of_another() -> None:
    with pytest.raises(UserError, match=r"^sweep both: part read has readings of its own; run it by itself$"):
        union("both", [SWEEP, _read("heads: 2")])


def test_a_copied_sweep_file_needs_a_name_of_its_own(tmp_path: Path) -> None:
    text = "from s3ray.sweep import Sweep\nSWEEP = Sweep(name='grid', exhibits=('tables4_5',))\n"
    (tmp_path / "copy.py").write_text(text)
    assert load_sweep(tmp_path / "copy.py").name == "grid"
    (tmp_path / "grid.py").write_text(text)
    assert load_sweep(tmp_path / "grid.py").name == "grid"
    with pytest.raises(UserError, match=r"copy\.py: its SWEEP is named 'grid' as grid\.py is, whose results it would"):
        load_sweep(tmp_path / "copy.py")


@pytest.mark.parametrize("stage", ["specialization", "selection"])
def test_a_stage_has_no_more_steps_than_checkpoints_count(tiny_dataset: Dataset, store: Store, stage: str) -> None:
    config = getattr(settings_for("digits", "smoke"), stage)
    longer = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, epochs=2**31 - 1))
    with pytest.raises(UserError, match=rf"^toy: {stage}\.optimizer\.epochs 2147483647 make .* steps at batch size"):
        make_plan(SWEEP, study_of(tiny_dataset, **{stage: longer}), store)


def test_a_method_must_be_known(tiny_dataset: Dataset, store: Store) -> None:
    sweep = Sweep(name="one", cells=lambda s: [s.prior("toy", "clop", 8, 0)])
    with pytest.raises(UserError, match=r"^toy: unknown method 'clop'; did you mean 'clip'\?"):
        make_plan(sweep, study_of(tiny_dataset), store)


def test_integers_of_any_kind_make_one_cell(tiny_dataset: Dataset) -> None:
    study = study_of(tiny_dataset)
    (seed,) = np.arange(1)
    assert study.cell("toy", np.int64(2), 8, seed) == study.cell("toy", 2, 8, 0)
    assert type(study.cell("toy", 2, 8, seed).seed) is int
    with pytest.raises(UserError, match=r"^toy: seed 0\.5 of a cell is no integer; correct the sweep"):
        study.cell("toy", 2, 8, 0.5)  # type: ignore[arg-type]


def test_seconds_of_several_workers_count_for_each(tiny_dataset: Dataset, store: Store) -> None:
    """Four workers that share the work perfectly say that estimates are right, not that they are too long."""
    plan = make_plan(SWEEP, study_of(tiny_dataset), store)
    for cell in plan.cells[:6]:
        seconds = cell.seconds[cell.training.identity] / 4
        toy_runs.commit(store, cell.training, {}, seconds=seconds, provenance={**HERE, "workers": 4})
    assert make_plan(SWEEP, study_of(tiny_dataset), store).speeds["specialization"] == pytest.approx(1.0)
