"""A search's space, its score and its file, without Ray and without training."""

import dataclasses
from pathlib import Path
from typing import cast

import pandas as pd
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from s3ray.data import Dataset
from s3ray.errors import UserError
from s3ray.methods import METHODS, S3
from s3ray.results import best_ratios
from s3ray.search.judge import score, validation_curve
from s3ray.search.space import Search, best_configuration, merged, nested, readable
from s3ray.settings import read_overrides
from s3ray.store import Store
from tiny_search import SPACE, commit, plan_of, rows, search_of, study_of


def test_the_space_lies_around_the_scales_own_settings(search: Search) -> None:
    # Smoke: learning rate 3e-3, 16 epochs, λ_min 1.
    assert search.defaults() == {
        "specialization.optimizer.learning_rate": 3e-3,
        "specialization.optimizer.epochs": 16,
        "selection.lambda_min": 1.0,
    }
    assert search.distributions() == {
        "specialization.optimizer.learning_rate": FloatDistribution(3e-3 / 10, 3e-3 * 10, log=True),
        "specialization.optimizer.epochs": IntDistribution(8, 32, log=True),
        "selection.lambda_min": FloatDistribution(0.25, 4.0, log=True),
    }


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"specialization.temprature": 2}, "is no setting; did you mean 'temperature'"),
        ({"specialization.views": 2}, "only numbers can be searched"),
        ({"model.dropout": 2}, "must be positive"),
        ({"selection.lambda_min": 1}, "the factor above 1"),
        # Smoke warms up over a tenth of the steps, and ten times that is all of them.
        ({"selection.optimizer.warmup": 10}, "search: selection.optimizer: warmup 1.0 is outside"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(
    tiny_dataset: Dataset, store: Store, space: dict[str, float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Search.of(plan_of(study_of(tiny_dataset), store), "digits", space)


def test_the_scales_own_configuration_is_the_ordinary_plan(search: Search, tiny_dataset: Dataset, store: Store) -> None:
    ordinary = plan_of(study_of(tiny_dataset), store)
    assert [cell.identity for cell in search.plans(search.defaults())] == [cell.identity for cell in ordinary.cells]


def test_another_search_has_another_study(search: Search, tiny_dataset: Dataset, store: Store) -> None:
    others = [
        Search.of(plan_of(study_of(tiny_dataset), store, seeds=2), "digits", SPACE),
        Search.of(plan_of(study_of(tiny_dataset, {"model": {"width": 16}}), store), "digits", SPACE),
        Search.of(plan_of(study_of(tiny_dataset), store), "digits", {**SPACE, "selection.lambda_suff": 2}),
    ]
    assert len({search.name, *(other.name for other in others)}) == 4
    assert (
        Search.of(plan_of(study_of(tiny_dataset), store), "digits", dict(reversed(SPACE.items()))).name == search.name
    )


def test_the_best_configuration_as_a_file_gives_the_cells_that_were_searched(
    search: Search, tiny_dataset: Dataset, store: Store, tmp_path: Path
) -> None:
    parameters = {
        "specialization.optimizer.learning_rate": 0.0012345678,
        "specialization.optimizer.epochs": 5,
        "selection.lambda_min": 3.0000001e-1,
    }
    (tmp_path / "best.toml").write_text(best_configuration(search, parameters, {}, ["chosen on validation"]))
    text = (tmp_path / "best.toml").read_text()
    assert text.startswith("# chosen on validation\n")
    assert "[dataset.digits.specialization.optimizer]\nlearning_rate = 0.00123\nepochs = 5\n" in text
    for path in (tmp_path / "best.toml", (tmp_path / "best.toml").as_uri()):
        overrides = read_overrides(path)
        again = plan_of(study_of(tiny_dataset, overrides), store)
        assert [cell.identity for cell in again.cells] == [cell.identity for cell in search.plans(parameters)]


def test_the_file_holds_what_the_search_itself_was_given(tiny_dataset: Dataset, store: Store, tmp_path: Path) -> None:
    given = {
        "batch_sizes": [8],
        "model": {"width": 16, "positions": "sinusoidal"},
        "dataset": {"digits": {"model": {"width": 24}, "selection": {"lambda_min": 2.0}}, "mosi": {"margin": 2.0}},
    }
    search = Search.of(plan_of(study_of(tiny_dataset, given), store), "digits", SPACE)
    (tmp_path / "best.toml").write_text(best_configuration(search, {"selection.lambda_min": 0.5}, given, []))
    assert read_overrides(tmp_path / "best.toml") == {
        "dataset": {
            "digits": {
                "batch_sizes": [8],
                "model": {"width": 24, "positions": "sinusoidal"},
                "selection": {"lambda_min": 0.5},
            }
        }
    }


@pytest.mark.parametrize("method", METHODS)
def test_a_prior_method_is_searched_around_the_settings_that_it_trains_with(
    method: str, search: Search, tiny_dataset: Dataset, store: Store
) -> None:
    study = study_of(tiny_dataset)
    of_method = search_of(study, store, method)
    ordinary = plan_of(study, store, methods=[method])
    assert [cell.identity for cell in of_method.plans(of_method.defaults())] == [c.identity for c in ordinary.cells]
    assert of_method.name.startswith(f"digits-{method}-")
    own = METHODS[method].settings()
    assert set(METHODS[method].search) <= {field.name for field in dataclasses.fields(own)}
    # As far as Specialization's are.
    optimizer = {path.rpartition(".")[2]: d for path, d in of_method.distributions().items()}
    assert optimizer["learning_rate"] == search.distributions()["specialization.optimizer.learning_rate"]
    assert optimizer["epochs"] == search.distributions()["specialization.optimizer.epochs"]


@pytest.mark.parametrize("method", METHODS)
def test_a_prior_methods_best_is_its_own_alone(
    method: str, tiny_dataset: Dataset, store: Store, tmp_path: Path
) -> None:
    of_method = search_of(study_of(tiny_dataset), store, method)
    ends = {path: readable(cast(FloatDistribution, d).high) for path, d in of_method.distributions().items()}
    (tmp_path / "best.toml").write_text(best_configuration(of_method, ends, {}, []))
    tuned = read_overrides(tmp_path / "best.toml")
    assert list(tuned["dataset"]["digits"]) == ["method"]
    everything = [S3, *METHODS]
    plans = [plan_of(study_of(tiny_dataset, o), store, seeds=1, methods=everything).cells for o in ({}, tuned)]
    changed = [one.cell.method for one, two in zip(*plans, strict=True) if one.training != two.training]
    assert changed == [method]
    assert plans[1][everything.index(method)].identity == of_method.plans(ends)[0].identity


def test_of_several_outputs_the_better_one_counts(tiny_dataset: Dataset, store: Store) -> None:
    (cell, *_) = search_of(study_of(tiny_dataset), store, "factorcl").cells
    for branch, accuracy in zip(cell.branches, (0.4, 0.7), strict=True):
        commit(store, dataclasses.replace(cell, branches=(branch,)), {1.0: accuracy})
    curve = validation_curve(store, cell)
    assert curve == {"emb": 0.4, "proj": 0.7}
    assert score([curve]) == (0.7, "proj")
    assert score([curve, {"emb": 0.7, "proj": 0.4}]).at == "emb"  # of equal ones the first


def test_a_config_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_overrides((tmp_path / "none.toml").as_uri())
    with pytest.raises(UserError, match="cannot be read"):
        read_overrides("nowhere://bucket/best.toml")


def test_merged_and_nested() -> None:
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "e": 5}) == {"a": {"b": 4, "c": 2}, "d": 3, "e": 5}
    assert nested({"a.b.c": 0.123456, "a.d": 12345}) == {"a": {"b": {"c": 0.123}, "d": 12345}}


def test_score_is_the_mean_at_the_ratio_where_it_is_highest() -> None:
    # Means: 0.5 at 0.9, 0.65 at 0.5, 0.65 at 0.1; of equal ones the larger ratio.
    assert score([{0.9: 0.4, 0.5: 0.7, 0.1: 0.6}, {0.9: 0.6, 0.5: 0.6, 0.1: 0.7}]) == (pytest.approx(0.65), 0.5)


def test_the_curve_of_a_cell_is_that_of_validation_and_p_that_of_all_results(search: Search, store: Store) -> None:
    measured = [{1.0: 0.9, 0.9: 0.3, 0.5: 0.5, 0.1: 0.4}, {1.0: 0.9, 0.9: 0.3, 0.5: 0.4, 0.1: 0.5001}]
    tables = []
    for cell, accuracies in zip(search.cells, measured, strict=False):
        commit(store, cell, accuracies)
        labels = {
            "dataset": "digits",
            "method": "s3",
            "kind": "embedded",
            "scale": "smoke",
            "granularity": 8,
            "reading": "",
        }
        tables.append(rows(accuracies).assign(batch_size=8, branch="suff+min", seed=cell.cell.seed, **labels))
    curves = [validation_curve(store, cell) for cell in search.cells[:2]]
    assert curves == [{p: a for p, a in m.items() if p < 1} for m in measured]
    (best,) = best_ratios(pd.concat(tables)).to_dict("records")
    assert score(curves) == (pytest.approx(best["valid"]), best["p_star"])
