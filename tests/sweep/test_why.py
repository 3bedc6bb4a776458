"""Why a cell runs: each cause is made, and said in one sentence."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

import tiny_sweep
from object_storage import ObjectStorage
from s3ray.cli.sweeps import reasons
from s3ray.data.facts import DataFacts
from s3ray.methods import METHODS
from s3ray.settings import Settings, override
from s3ray.settings.reference import reference
from s3ray.stages.stage import Inputs, StageRun
from s3ray.store import Store
from s3ray.store.claims import Claim, Claims
from s3ray.sweep import Plan, Study, StudyDataset, Sweep, make_plan
from s3ray.sweep.why import AXES, cached, grouped_runs, setting_of, why
from toy_runs import commit_all

FACTS = DataFacts.of(tiny_sweep.DATA)
FILES: Mapping[str, bytes] = {"rows": b"1"}


def planned(
    store: Store, tables: Mapping[str, Any] | None = None, seeds: Iterable[int] = (0, 1), facts: DataFacts = FACTS
) -> Plan:
    settings = override(tiny_sweep.settings(), tables or {}, "test")

    def cells(study: Study) -> list[Any]:
        own = [study.cell("digits", 2, 32, seed) for seed in seeds]
        return [*own, *(study.prior("digits", name, 32, 0) for name in (tables or {}).get("method", {}))]

    sweep = Sweep(name="tiny", cells=cells, branches=("none", "suff+min"))
    return make_plan(sweep, Study({"digits": StudyDataset(facts, "smoke", settings)}), store)


def told(store: Store, *arguments: Any, **options: Any) -> list[tuple[int, str]]:
    reasons = why(planned(store, *arguments, **options), store).reasons
    return [(len(reason.cells), reason.because) for reason in reasons]


def every(plan: Plan) -> list[StageRun]:
    return [run for cell in plan.cells for run in cell.runs]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def full(store: Store) -> Store:
    commit_all(store, [(run, FILES) for run in every(planned(store))], provenance={"machine": "cpu", "s3ray": "1.0"})
    return store


def test_where_nothing_is_missing_nothing_is_read(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(full)
    monkeypatch.setattr(Store, "folders", lambda self, *parts: pytest.fail("read"))
    assert why(plan, full).reasons == []
    (reason,) = cached(plan)
    assert len(reason.cells) == 2
    assert reason.sentence.startswith("cached: committed 20")
    assert reason.sentence.endswith(" UTC on cpu by s3ray 1.0 at unknown")


def test_in_an_empty_store_nothing_was_computed(store: Store) -> None:
    assert told(store) == [(2, ": never computed")]


@pytest.mark.parametrize(
    ("tables", "sentences"),
    [
        ({"specialization": {"optimizer": {"epochs": 9}}}, [", because specialization.optimizer.epochs 6 → 9"]),
        ({"model": {"positions": "none"}}, [', because model.positions "sinusoidal" → "none"']),
        # Left out of what is stored, since it does what was done before there was the field.
        ({"model": {"pooling": "last"}}, [', because model.pooling "mean" → "last"']),
        ({"selection": {"lambda_min": 0.5}}, [", because selection.lambda_min 1.0 → 0.5"]),
        ({"selection": {"optimizer": {"warmup": 0.2}}}, [", because selection.optimizer.warmup 0.05 → 0.2"]),
        ({"probe": {"on_sphere": False}}, [", because probe.on_sphere true → false"]),
        ({"probe": {"max_iterations": 9}}, [", because probe.max_iterations 1000 → 9"]),
        ({"sparsification": {"ratios": [1.0, 0.5, 0.3]}}, [": new, p 0.3"]),
        ({"sparsification": {"batch_size": 9}}, [", because sparsification.batch_size 256 → 9"]),
        ({"sparsification": {"controls": ["smallest"]}}, [": new, control smallest"]),
        (
            {"specialization": {"temperature": 0.5}, "probe": {"max_iterations": 9}},
            [", because probe.max_iterations 1000 → 9", ", because specialization.temperature 0.2 → 0.5"],
        ),
        (
            {"selection": {"lambda_min": 0.5}, "probe": {"inverse_regularization": 0.3}},
            [", because probe.inverse_regularization 0.1 → 0.3", ", because selection.lambda_min 1.0 → 0.5"],
        ),
    ],
)
def test_a_setting_is_named_as_the_configuration_file_has_it(
    full: Store, tables: Mapping[str, Any], sentences: list[str]
) -> None:
    assert sorted(told(full, tables)) == [(2, sentence) for sentence in sentences]


def test_what_a_grid_grows_by_is_new(full: Store) -> None:
    assert told(full, seeds=(0, 1, 2, 3)) == [(2, ": new, seed 2 and 3")]
    longer = {"specialization": {"optimizer": {"epochs": 9}}}
    both = ", because specialization.optimizer.epochs 6 → 9 (and new: seed 2)"
    assert told(full, longer, seeds=(0, 1, 2)) == [(2, ", because specialization.optimizer.epochs 6 → 9"), (1, both)]


def test_a_prior_method_has_the_words_of_its_own_table(store: Store) -> None:
    clip = {"method": {"clip": {"epochs": 3}}}
    commit_all(store, [(run, FILES) for run in every(planned(store, clip, seeds=()))])
    other = {"method": {"clip": {"epochs": 4, "temperature": 0.5}}, "specialization": {"optimizer": {"warmup": 0.2}}}
    ((_, because),) = told(store, other, seeds=())
    assert set(because.removeprefix(", because ").split(", ")) == {
        "specialization.optimizer.warmup 0.05 → 0.2",
        "method.clip.epochs 3 → 4",
        "method.clip.temperature 0.2 → 0.5",
    }


def test_what_stands_on_a_parent_that_changed_is_told_by_the_parent(full: Store) -> None:
    """Its training ran, and then the sweep was stopped."""
    longer = {"specialization": {"optimizer": {"epochs": 9}}}
    commit_all(full, [(cell.training, FILES) for cell in planned(full, longer).cells])
    assert told(full, longer) == [(2, ", because specialization.optimizer.epochs 6 → 9")]


def test_every_results_own_parent_is_told(store: Store) -> None:
    """Parents are read one after another: none is taken for one that was read before."""
    rates = {"probe": 0.002, "sparsification": 0.003, "selection": 0.004}
    for stage, rate in rates.items():
        (cell,) = planned(store, {"specialization": {"optimizer": {"learning_rate": rate}}}, [0]).cells
        commit_all(
            store, [(run, FILES) for run in cell.runs if run.stage.name == stage and run.parent is cell.training]
        )
    (cell,) = planned(store, seeds=[0]).cells
    commit_all(store, [(cell.training, FILES)])
    plan = planned(store, seeds=[0])
    (causes,) = why(plan, store).causes.values()
    told = {cause.run.stage.name: [change.old for change in cause.settings] for cause in causes if cause.run.parent}
    assert told == {stage: [rate] for stage, rate in rates.items()}


def test_of_a_new_branch_it_is_said_that_it_is_new_and_not_what_it_lacks(full: Store) -> None:
    plan = planned(full)
    more = dataclasses.replace(plan.sweep, branches=("none", "suff+min", "suff"))
    reasons = why(make_plan(more, plan.study, full), full).reasons
    assert [(len(reason.cells), reason.because) for reason in reasons] == [(2, ": new, branch suff")]


def test_another_version_is_named(store: Store) -> None:
    older = [
        dataclasses.replace(cell.training, stage=dataclasses.replace(cell.training.stage, version=0))
        for cell in planned(store).cells
    ]
    commit_all(store, [(run, FILES) for run in older])
    now = planned(store).cells[0].training.stage.version
    assert (2, f", because stage specialization version 0 → {now}") in told(store)


@pytest.mark.parametrize(("shape", "word"), [(True, "other samples"), (False, "new, dataset digits")])
def test_other_samples_of_a_dataset_are_told_from_another_dataset(store: Store, shape: bool, word: str) -> None:
    inputs = dataclasses.replace(Inputs.of(FACTS), classes=FACTS.classes + (not shape))
    for cell in planned(store, facts=dataclasses.replace(FACTS, fingerprint="a" * 64)).cells:
        store.commit(cell.training, FILES, seconds=1.0, provenance={}, inputs=inputs)
    (reason, *_) = told(store)
    assert word in reason[1]
    assert ("data digits aaaaaaaaaaaa → " + FACTS.fingerprint[:12] in reason[1]) is shape


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        ("marker", ": its marker is damaged, or of another version of s3ray"),
        ("payload", ": its files are gone, or not whole"),
        ("aside", ": its files were damaged, and set aside"),
        ("orphan", ": orphaned: its parent was computed anew"),
    ],
)
def test_a_result_that_does_not_count_says_why(full: Store, harm: str, sentence: str) -> None:
    cell = planned(full).cells[0]
    run = cell.training
    folder = Path(full.path("artifacts", run.stage.name, run.identity))
    marker = full.marker(run)
    assert marker is not None
    if harm == "marker":
        (folder / "commit.json").write_bytes(b"{")
    elif harm == "payload":
        (folder / marker.attempt / "rows").unlink()
    elif harm == "aside":
        (folder / marker.attempt).rename(folder / f"{marker.attempt}.damaged")
    else:
        (folder / "commit.json").unlink()
        full.commit(run, FILES, seconds=1.0, provenance={})
    assert told(full) == [(1, sentence)]


def test_who_works_on_a_cell_is_said_and_who_has_died_is_not(full: Store) -> None:
    plan = planned(full, seeds=(0, 1, 2))
    key = plan.cells[2].training.claim
    with Claims(full).take(key) as holds:
        assert holds is not None
        (reason,) = why(plan, full).claimed
        assert reason.sentence.startswith("running: claimed by process ")
        assert [cell.seed for cell in reason.cells] == [2]
        claim = json.loads(full.current("claims", key, "claim.json") or b"")
    assert why(plan, full).claimed == []
    claim["process"] = claim["process"].rpartition("-")[0] + "-1"  # that number's process began at another time
    place = Path(full.path("claims", key))
    for file in place.iterdir():
        file.write_text(json.dumps(claim))
    assert why(plan, full).claimed == []


def test_on_object_storage(object_storage: ObjectStorage) -> None:
    store = Store(object_storage.uri)
    plan = planned(store, seeds=(0,))
    for cell in plan.cells:
        store.commit(cell.training, FILES, seconds=1.0, provenance={})
        with Claims(store).take(cell.training.claim):
            found = why(planned(store, {"specialization": {"temperature": 0.5}}, seeds=(0,)), store)
            assert [reason.because for reason in found.reasons] == [", because specialization.temperature 0.2 → 0.5"]
            assert len(why(plan, store).claimed) == 1


def test_of_many_results_some_are_read_and_that_is_said(full: Store) -> None:
    plan = planned(full, {"specialization": {"temperature": 0.5}})
    found = why(plan, full, most=1)
    assert "specialization.temperature 0.2 → 0.5" in found.reasons[0].sentence
    assert (
        next(iter(found.notes()))
        == "specialization: compared with 1 of 2 results; a nearer one may be among the others"
    )
    assert "not all were looked at" in reasons(plan, full, most_results=1)[-1]


def test_what_was_deleted_is_not_counted(full: Store) -> None:
    plan = planned(full, {"specialization": {"temperature": 0.5}})
    key = f"artifacts/specialization/{min(full.folders('artifacts', 'specialization'))}/commit.json"
    _, version = full.conditional.read(key) or pytest.fail("it is there")
    assert full.conditional.delete(key, version)
    found = why(plan, full, most=1)
    assert "specialization.temperature 0.2 → 0.5" in found.reasons[0].sentence
    assert "specialization" not in found.left_out


def test_of_many_who_work_the_first_are_named_and_the_others_counted(store: Store) -> None:
    plan = planned(store, seeds=range(5))
    for number, cell in enumerate(plan.cells, 1):
        claim = Claim(1, str(number), who=f"process {number} elsewhere")
        store.write(claim.content(), "claims", cell.training.claim, "claim.json")
    *_, second, more = reasons(plan, store)
    assert second == "1 running: claimed by process 2 elsewhere"
    assert more.startswith("3 more owners of claims: s3ray why")


def test_of_one_cell_every_stage_is_told(full: Store) -> None:
    plan = planned(full, {"probe": {"inverse_regularization": 0.3}})
    cell = plan.cells[0].cell
    ((stages, sentence),) = grouped_runs(why(plan, full).causes[cell], cell)
    assert stages == "probe (2), sparsification (5), untrained, reference"
    assert sentence == "probe.inverse_regularization 0.1 → 0.3"


def test_every_field_of_a_stage_is_a_setting_a_point_of_the_grid_or_a_constant(store: Store) -> None:
    settings = {setting.path for setting in reference(Settings())}
    plan = planned(store, {"method": {name: {} for name in METHODS}})

    def paths(plain: Mapping[str, Any], *above: str) -> Iterable[str]:
        for name, value in plain.items():
            yield from paths(value, *above, name) if isinstance(value, dict) else [".".join((*above, name))]

    for run in every(plan):
        for path in paths(dataclasses.asdict(run.config)):
            place = setting_of(run.stage.name, path)
            assert place in settings or path in AXES or path in ("version", "pruning.seed"), (run.stage.name, path)
