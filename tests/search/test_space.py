"""A search's space, its score and its file, without Ray and without training."""

import io

import pandas as pd
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from s3ray.config import default_scale, read_overrides, settings_for
from s3ray.errors import UserError
from s3ray.results import best_ratios
from s3ray.search.space import Search, best_configuration, merged, nested, score, validation_curve
from s3ray.store import Store
from s3ray.sweep import DataFacts, Study, StudyDataset, Sweep, make_plan

SPACE = {"specialization.optimizer.learning_rate": 10, "specialization.optimizer.epochs": 2, "selection.lambda_min": 4}


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path))


def study(tiny_dataset, overrides=None, name="digits"):
    settings = settings_for(name, default_scale(name), {"batch_sizes": [8], **(overrides or {})})
    return Study({name: StudyDataset(DataFacts.of(tiny_dataset), default_scale(name), settings)})


def plan_of(study, store, seeds=3):
    sweep = Sweep(
        name="search",
        cells=lambda s: [s.cell(d, 8, s.batch_sizes(d)[0], seed) for d in s.datasets for seed in range(seeds)],
        branches=("suff+min",),
    )
    return make_plan(sweep, study, store)


@pytest.fixture
def search(tiny_dataset, store):
    return Search.of(plan_of(study(tiny_dataset), store), "digits", SPACE)


def test_the_space_lies_around_the_scales_own_settings(search):
    # Smoke: learning rate 5e-3, 8 epochs, λ_min 1.
    assert search.defaults() == {
        "specialization.optimizer.learning_rate": 5e-3,
        "specialization.optimizer.epochs": 8,
        "selection.lambda_min": 1.0,
    }
    assert search.distributions() == {
        "specialization.optimizer.learning_rate": FloatDistribution(5e-4, 5e-2, log=True),
        "specialization.optimizer.epochs": IntDistribution(4, 16, log=True),
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
def test_a_space_that_cannot_be_searched_is_refused(tiny_dataset, store, space, message):
    with pytest.raises(UserError, match=message):
        Search.of(plan_of(study(tiny_dataset), store), "digits", space)


def test_the_scales_own_configuration_is_the_ordinary_plan(search, tiny_dataset, store):
    ordinary = plan_of(study(tiny_dataset), store)
    assert [cell.identity for cell in search.plans(search.defaults())] == [cell.identity for cell in ordinary.cells]


def test_another_search_has_another_study(search, tiny_dataset, store):
    others = [
        Search.of(plan_of(study(tiny_dataset), store, seeds=2), "digits", SPACE),
        Search.of(plan_of(study(tiny_dataset, {"model": {"width": 16}}), store), "digits", SPACE),
        Search.of(plan_of(study(tiny_dataset), store), "digits", {**SPACE, "selection.lambda_suff": 2}),
    ]
    assert len({search.name, *(other.name for other in others)}) == 4
    assert Search.of(plan_of(study(tiny_dataset), store), "digits", dict(reversed(SPACE.items()))).name == search.name


def test_the_best_configuration_as_a_file_gives_the_cells_that_were_searched(search, tiny_dataset, store, tmp_path):
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
        again = plan_of(study(tiny_dataset, overrides), store)
        assert [cell.identity for cell in again.cells] == [cell.identity for cell in search.plans(parameters)]


def test_the_file_holds_what_the_search_itself_was_given(tiny_dataset, store, tmp_path):
    given = {
        "batch_sizes": [8],
        "model": {"width": 16, "positions": "sinusoidal"},
        "dataset": {"digits": {"model": {"width": 24}, "selection": {"lambda_min": 2.0}}, "mosi": {"margin": 2.0}},
    }
    search = Search.of(plan_of(study(tiny_dataset, given), store), "digits", SPACE)
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


def test_a_config_that_is_nowhere(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_overrides((tmp_path / "none.toml").as_uri())
    with pytest.raises(UserError, match="cannot be read"):
        read_overrides("nowhere://bucket/best.toml")


def test_merged_and_nested():
    assert merged({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "e": 5}) == {"a": {"b": 4, "c": 2}, "d": 3, "e": 5}
    assert nested({"a.b.c": 0.123456, "a.d": 12345}) == {"a": {"b": {"c": 0.123}, "d": 12345}}


def test_score_is_the_mean_at_the_ratio_where_it_is_highest():
    # Means: 0.5 at 0.9, 0.65 at 0.5, 0.65 at 0.1; of equal ones the larger ratio.
    assert score([{0.9: 0.4, 0.5: 0.7, 0.1: 0.6}, {0.9: 0.6, 0.5: 0.6, 0.1: 0.7}]) == (pytest.approx(0.65), 0.5)


def rows(accuracies):
    return pd.DataFrame(
        [
            {"preservation_ratio": p, "split": split, "accuracy": a if split == "valid" else 1.0 - a}
            for p, a in accuracies.items()
            for split in ("train", "valid", "test")
        ]
    )


def test_the_curve_of_a_cell_is_that_of_validation_and_p_that_of_all_results(search, store):
    measured = [{1.0: 0.9, 0.9: 0.3, 0.5: 0.5, 0.1: 0.4}, {1.0: 0.9, 0.9: 0.3, 0.5: 0.4, 0.1: 0.5001}]
    tables = []
    for cell, accuracies in zip(search.cells, measured, strict=False):
        buffer = io.BytesIO()
        rows(accuracies).to_parquet(buffer)
        store.commit(cell.branches[0].curve, {"rows.parquet": buffer.getvalue()}, seconds=1.0, provenance={})
        labels = {"dataset": "digits", "method": "s3", "kind": "embedded", "scale": "smoke", "granularity": 8}
        tables.append(rows(accuracies).assign(batch_size=8, branch="suff+min", seed=cell.cell.seed, **labels))
    curves = [validation_curve(store, cell) for cell in search.cells[:2]]
    assert curves == [{p: a for p, a in m.items() if p < 1} for m in measured]
    (best,) = best_ratios(pd.concat(tables)).to_dict("records")
    assert score(curves) == (pytest.approx(best["valid"]), best["p_star"])
