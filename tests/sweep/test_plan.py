import dataclasses
import json

import pytest

from s3ray.config import ModelConfig, OptimizerConfig, SelectionConfig, SpecializationConfig, settings_for
from s3ray.errors import UserError
from s3ray.store import Store
from s3ray.sweep import DataFacts, Study, StudyDataset, Sweep, cost, load_sweep, make_plan, union


def grid(study):
    for dataset in study.datasets:
        for granularity in (2, 4):
            for batch_size in study.batch_sizes(dataset):
                for seed in (0, 1, 2):
                    yield study.cell(dataset, granularity, batch_size, seed)


SWEEP = Sweep(name="grid", cells=grid, branches=("none", "suff+min"))


def study_of(data, **changes):
    settings = dataclasses.replace(settings_for("digits", "smoke"), batch_sizes=(8, 16), **changes)
    return Study({"toy": StudyDataset(DataFacts.of(data), "smoke", settings)})


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def commit(store, run, seconds=1.0):
    store.commit(run, {}, seconds=seconds, provenance={})


def test_each_specialization_stands_once_beside_the_naive_count(tiny_dataset, store):
    summary = make_plan(SWEEP, study_of(tiny_dataset), store).summary()
    # 2 χ × 2 batch sizes × 3 seeds = 12 cells, each with 2 branches.
    assert summary["cells"] == {"total": 12, "cached": 0, "to_run": 12}
    assert summary["stages"] == {
        "specialization": {"naive": 24, "unique": 12, "cached": 0, "to_run": 12},
        "selection": {"naive": 12, "unique": 12, "cached": 0, "to_run": 12},
        "sparsification": {"naive": 24, "unique": 24, "cached": 0, "to_run": 24},
        "reference": {"naive": 12, "unique": 1, "cached": 0, "to_run": 1},  # one dataset
    }
    assert summary["estimated_worker_seconds"] > 0
    json.dumps(summary)


def test_what_is_committed_is_cached_and_costs_nothing(tiny_dataset, store):
    plan = make_plan(SWEEP, study_of(tiny_dataset), store)
    first, second = plan.cells[:2]
    for run in first.runs:
        commit(store, run, seconds=first.seconds[run.identity])
    commit(store, second.training, seconds=second.seconds[second.training.identity])
    again = make_plan(SWEEP, study_of(tiny_dataset), store)
    assert again.summary()["cells"] == {"total": 12, "cached": 1, "to_run": 11}
    assert first.cell not in [cell.cell for cell in again.pending]
    assert [run.stage for run in again.cells[1].missing(again.committed)] == [
        "sparsification",
        "selection",
        "sparsification",
    ]
    assert again.seconds(again.cells[0]) == 0.0
    assert again.seconds(again.cells[1]) < plan.seconds(second)


def seconds_by_stage(plan, cell):
    return {run.stage: plan.speeds[run.stage] * cell.seconds[run.identity] for run in cell.runs}


def test_measured_seconds_correct_the_estimates_of_their_stage(tiny_dataset, store):
    epochs = OptimizerConfig(epochs=2000, learning_rate=1e-3)
    long = {"specialization": SpecializationConfig(optimizer=epochs), "selection": SelectionConfig(optimizer=epochs)}
    plan = make_plan(SWEEP, study_of(tiny_dataset, **long), store)
    assert set(plan.speeds.values()) == {1.0}
    for cell in plan.cells[:6]:
        commit(store, cell.training, seconds=3 * cell.seconds[cell.training.identity])
    again = make_plan(SWEEP, study_of(tiny_dataset, **long), store)
    assert again.speeds["specialization"] == pytest.approx(3.0, rel=0.1)
    assert again.speeds["selection"] == pytest.approx(3.0, rel=0.15)  # trains as Specialization does
    for cell in plan.cells[:6]:
        commit(store, cell.branches[1].selection, seconds=cell.seconds[cell.branches[1].selection.identity])
    again = make_plan(SWEEP, study_of(tiny_dataset, **long), store)
    assert again.speeds["specialization"] == pytest.approx(3.0, rel=0.1)
    assert again.speeds["selection"] == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("seconds", [1e-4, 5.0])
def test_a_stage_of_no_length_says_nothing_of_the_others(tiny_dataset, store, seconds):
    """One cached reference took a hundredth of a second, and all else was estimated at a fifth of what it took."""
    before = make_plan(SWEEP, study_of(tiny_dataset), store)
    commit(store, before.cells[0].reference, seconds=seconds)
    after = make_plan(SWEEP, study_of(tiny_dataset), store)
    estimates = [plan.summary()["estimated_worker_seconds"] for plan in (before, after)]
    assert estimates[1] == pytest.approx(estimates[0], rel=0.1 if seconds > 1 else 0.05)


def test_what_cells_share_is_estimated_once(tiny_dataset, store):
    plan = make_plan(SWEEP, study_of(tiny_dataset), store)
    reference = plan.cells[0].seconds[plan.cells[0].reference.identity]
    assert sum(plan.shares) == pytest.approx(sum(map(plan.seconds, plan.pending)) - 11 * reference)


def test_the_time_until_it_ends_counts_the_start(tiny_dataset, store):
    plan = make_plan(SWEEP, study_of(tiny_dataset), store)
    start = cost.RAY_SECONDS + cost.GROUP_SECONDS
    assert plan.wall_seconds(1) == pytest.approx(start + sum(plan.shares))
    assert plan.wall_seconds(2) == pytest.approx(start + sum(plan.shares) / 2, rel=0.02)
    assert plan.wall_seconds(1, workers=2) == pytest.approx(start + sum(plan.shares) / 2)
    assert plan.wall_seconds(100) == pytest.approx(start + max(plan.shares))
    for cell in plan.cells:
        for run in cell.runs:
            commit(store, run)
    assert make_plan(SWEEP, study_of(tiny_dataset), store).wall_seconds(2) == 0.0


def test_attention_costs_the_square_of_the_length(tiny_dataset):
    """A step over sequences of 1250 and 50 takes about twice as long as one over as many tokens in sequences of 20
    (benchmarks/RESULTS.md)."""
    settings = settings_for("mine", "smoke").for_granularity(2)
    samples, tokens = {"train": 320, "valid": 32, "test": 32}, 1300
    facts = {
        name: dataclasses.replace(
            DataFacts.of(tiny_dataset),
            samples=samples,
            tokens={split: tokens * count for split, count in samples.items()},
            squares={split: square * count for split, count in samples.items()},
        )
        for name, square in (("short", tokens * 20), ("long", 1250**2 + 50**2))
    }
    for estimate in (cost.specialization_seconds, cost.selection_seconds):
        assert estimate(settings, facts["long"], 32) > 1.8 * estimate(settings, facts["short"], 32)
    assert cost.curve_seconds(settings, facts["long"], (1.0,)) > 1.5 * cost.curve_seconds(
        settings, facts["short"], (1.0,)
    )


def test_branches_hang_on_one_specialization(tiny_dataset, store):
    cell = make_plan(SWEEP, study_of(tiny_dataset), store).cells[0]
    none, selected = cell.branches
    assert none.selection is None
    assert none.curve.parent == cell.training.identity
    assert selected.selection.parent == cell.training.identity
    assert selected.curve.parent == selected.selection.identity


def test_a_changed_field_reruns_just_what_depends_on_it(tiny_dataset, store):
    settings = settings_for("digits", "smoke")
    before = make_plan(SWEEP, study_of(tiny_dataset), store).cells[0]
    probe = dataclasses.replace(settings.probe, inverse_regularization=2.0)
    after = make_plan(SWEEP, study_of(tiny_dataset, probe=probe), store).cells[0]
    assert after.training.identity == before.training.identity
    assert after.branches[1].selection.identity == before.branches[1].selection.identity
    assert after.branches[1].curve.identity != before.branches[1].curve.identity
    selection = dataclasses.replace(settings.selection, temperature=0.7)
    after = make_plan(SWEEP, study_of(tiny_dataset, selection=selection), store).cells[0]
    assert after.branches[0].curve.identity == before.branches[0].curve.identity
    assert after.branches[1].curve.identity != before.branches[1].curve.identity


def test_the_same_computation_under_two_names_runs_once(tiny_dataset, store):
    entry = study_of(tiny_dataset).entries["toy"]
    plan = make_plan(SWEEP, Study({"one": entry, "two": entry}), store)
    assert len(plan.cells) == 24
    assert {cell.cell.dataset for cell in plan.pending} == {"one"}
    assert plan.summary()["stages"]["specialization"]["unique"] == 12


def test_one_file_under_two_names_with_different_probes_shares_the_training(tiny_dataset, store):
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
def test_batch_sizes_must_fit(tiny_dataset, store, batch_size):
    study = study_of(tiny_dataset)
    entry = study.entries["toy"]
    settings = dataclasses.replace(entry.settings, batch_sizes=(batch_size,))
    wrong = Study({"toy": dataclasses.replace(entry, settings=settings)})
    with pytest.raises(UserError, match=rf"toy: batch size {batch_size} must lie between 2 and"):
        make_plan(SWEEP, wrong, store)


def test_granularity_must_divide(tiny_dataset, store):
    study = study_of(tiny_dataset, model=ModelConfig(width=24, heads=4, layers=2))
    sweep = Sweep(name="odd", cells=lambda s: [s.cell("toy", 5, 8, 0)], branches=("none",))
    with pytest.raises(UserError, match="granularity 5 does not divide the FFN width 96"):
        make_plan(sweep, study, store)


def test_a_sweep_without_cells_is_refused(tiny_dataset, store):
    with pytest.raises(UserError, match="yields no cell"):
        make_plan(Sweep(name="empty", cells=lambda s: [], branches=("none",)), study_of(tiny_dataset), store)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"branches": ("none", "suff", "none")}, "sweep grid: branches has 'none' more than once"),
        ({"exhibits": ("table1", "table1")}, "sweep grid: exhibits has 'table1' more than once"),
        ({"parts": (SWEEP, SWEEP)}, "sweep grid: parts has 'grid' more than once"),
        ({"name": "a/b"}, "sweep 'a/b': its results' folder has this name"),
        ({"name": ""}, "sweep '': its results' folder has this name"),
        ({"name": ".."}, "sweep '..': its results' folder has this name"),
    ],
)
def test_a_sweep_names_everything_once(fields, message):
    with pytest.raises(UserError) as error:
        Sweep(**{"name": "grid", **fields})
    assert str(error.value).startswith(message)


def test_a_sweep_yields_each_cell_once_and_parts_may_share_them(tiny_dataset, store):
    twice = Sweep(name="twice", cells=lambda s: [s.cell("toy", 2, 8, seed) for seed in (0, 1, 0)], branches=("none",))
    with pytest.raises(UserError, match=r"^sweep twice: yields toy χ=2 batch=8 seed=0 more than once; yield each"):
        make_plan(twice, study_of(tiny_dataset), store)
    shared = union("both", [SWEEP, dataclasses.replace(SWEEP, name="other")])
    assert len(make_plan(shared, study_of(tiny_dataset), store).cells) == 12


def test_a_copied_sweep_file_needs_a_name_of_its_own(tmp_path):
    text = "from s3ray.sweep import Sweep\nSWEEP = Sweep(name='grid', exhibits=('tables4_5',))\n"
    (tmp_path / "copy.py").write_text(text)
    assert load_sweep(tmp_path / "copy.py").name == "grid"
    (tmp_path / "grid.py").write_text(text)
    assert load_sweep(tmp_path / "grid.py").name == "grid"
    with pytest.raises(UserError, match=r"copy\.py: its SWEEP is named 'grid' as grid\.py is, whose results it would"):
        load_sweep(tmp_path / "copy.py")


@pytest.mark.parametrize("stage", ["specialization", "selection"])
def test_a_stage_has_no_more_steps_than_checkpoints_count(tiny_dataset, store, stage):
    config = getattr(settings_for("digits", "smoke"), stage)
    longer = dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, epochs=2**31 - 1))
    with pytest.raises(UserError, match=rf"^toy: {stage}\.optimizer\.epochs 2147483647 make .* steps at batch size"):
        make_plan(SWEEP, study_of(tiny_dataset, **{stage: longer}), store)
