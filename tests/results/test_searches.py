"""What the report says of a search: studies made up so that one setting decides."""

import json
from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from s3ray.results import Results
from s3ray.results.report import write_report
from s3ray.results.searches import load_searches
from s3ray.store import Store
from s3ray.store.journal import journal_storage
from s3ray.sweep import load_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"
ABOUT = {
    "dataset": "latent_factors",
    "kind": "simulated",
    "scale": "smoke",
    "granularity": 8,
    "batch_size": 64,
    "seeds": [0, 1, 2],
    "objective": "validation accuracy",
}
TEMPERATURE, WEIGHT = "specialization.temperature", "selection.lambda_min"
SPACE = {TEMPERATURE: FloatDistribution(0.04, 1.0, log=True), WEIGHT: FloatDistribution(0.1, 10.0, log=True)}


def add(study, number, state, accuracies, **attributes):
    """A trial whose accuracy falls with τ and does not know λ_min."""
    parameters = {TEMPERATURE: 0.04 * 1.3**number, WEIGHT: 0.1 + number * 7 % 11 * 0.9}
    study.add_trial(
        create_trial(
            state=state,
            params=parameters if accuracies or attributes else {},
            distributions=SPACE if accuracies or attributes else {},
            value=accuracies[-1] if accuracies else None,
            intermediate_values=dict(enumerate(accuracies, 1)),
            user_attrs=({"p": 0.5} if accuracies else {}) | attributes,
        )
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store(str(tmp_path_factory.mktemp("searched")))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=journal_storage(store, "made-up"), study_name="made-up", direction="maximize")
    for key, value in ABOUT.items():
        study.set_user_attr(key, value)
    for number in range(4):
        add(study, number, TrialState.COMPLETE, [0.80 - 0.01 * number, 0.79, 0.78 - 0.01 * number])
    for number in range(4, 11):
        add(study, number, TrialState.PRUNED, [0.80 - 0.01 * number])
    add(study, 11, TrialState.PRUNED, [], cause="DivergedError: the loss became nan")
    study.add_trial(create_trial(state=TrialState.FAIL))
    # A search that was killed before it had anything has nothing to show.
    optuna.create_study(storage=journal_storage(store, "empty"), study_name="empty", direction="maximize")
    return store


def test_every_trial_is_listed_the_best_first(store):
    (found,) = load_searches(store)
    table = found.trials
    assert table["outcome"].value_counts().to_dict() == {"all seeds": 4, "stopped": 7, "diverged": 1}
    best = table.iloc[0]
    assert (best["trial"], best["seeds"], best["accuracy"], best["p"]) == (0, 3, 78.0, 0.5)
    assert best[TEMPERATURE] == 0.04
    # Those after one seed come after those after three, however lucky they were.
    assert table["seeds"].tolist() == [3] * 4 + [1] * 7 + [0]
    assert found.title == "latent_factors (simulated data, smoke scale)"
    assert "χ = 8, batch size 64, seeds 0, 1, 2" in found.note
    assert "optimistic" in found.note


def test_what_decides_is_most_important_and_stopped_trials_count(store):
    (found,) = load_searches(store)
    (heading, importance), (_, parallel), (_, history) = found.figures
    assert "11 trials" in heading
    assert heading.endswith("a hint at best")
    shares = dict(zip(importance.data[0].y, importance.data[0].x, strict=True))
    assert shares["specialization<br>temperature"] > 0.6
    lines = [trace for trace in parallel.data if trace.mode == "lines"]
    assert len(lines) == 11
    # The mean over all seeds, and the best so far; NaN for trials that were stopped.
    assert [y for y in history.data[0].y if y == y] == [0.78, 0.77, 0.76, 0.75]


@pytest.fixture(scope="module")
def results(made_up, tmp_path_factory):
    """A small sweep's, for the page around the section."""
    sweep = load_sweep(SWEEPS / "search_weights.py")
    overrides = {"sparsification": {"ratios": [1.0, 0.5]}}
    return Results.collect(*made_up.finished(sweep, ["digits"], tmp_path_factory.mktemp("swept"), overrides=overrides))


def test_the_report_has_a_section_per_study_and_its_trials_as_a_file(store, results, tmp_path):
    page = write_report(results, Store(str(tmp_path)), load_searches(store))
    text = Path(page).read_text(encoding="utf-8")
    assert '<h2 id="search">Search</h2>' in text
    assert '<h3 id="search_made-up">latent_factors (simulated data, smoke scale)</h3>' in text
    section = text[text.index('<h2 id="search"') : text.index('<h2 id="tables"')]
    figures = [part.split("</script>")[0] for part in section.split('<script type="application/json">')[1:]]
    assert [len(json.loads(figure)["data"]) > 0 for figure in figures] == [True] * 3
    assert "<td>78.0</td>" in section
    assert pd.read_csv(tmp_path / "tables" / "search_made-up.csv")["accuracy"].iloc[0] == 78.0


def test_a_store_without_a_search_has_no_section(results, tmp_path):
    assert load_searches(Store(str(tmp_path))) == []
    assert 'id="search"' not in Path(write_report(results, Store(str(tmp_path)))).read_text(encoding="utf-8")


def test_a_damaged_journal_is_left_out_and_a_cut_one_said(store, tmp_path):
    """One study that cannot be read does not keep the others out of the report."""
    whole = (Path(store.base) / "search" / "made-up" / "journal.log").read_bytes()
    lines = whole.splitlines(keepends=True)
    mended = b"".join(line for line in lines if b'"scale"' not in line and b'"seeds"' not in line)
    copies = {
        "mended": mended,
        "cut": whole[:-5],
        "damaged": whole.replace(b"{", b"!", 1),
        "empty": b"",
        "whole": whole,
    }
    for name, content in copies.items():
        (tmp_path / "search" / name).mkdir(parents=True)
        (tmp_path / "search" / name / "journal.log").write_bytes(content.replace(b"made-up", name.encode()))
    said = []
    found = load_searches(Store(str(tmp_path)), said.append)
    assert [study.name for study in found] == ["search_cut", "search_mended", "search_whole"]
    assert found[0].note.endswith("The journal's last line was cut short and is left out.")
    assert found[1].title == "latent_factors (simulated data, unknown scale)"
    folder = tmp_path / "search"
    assert said[0] == f"{folder}/cut/journal.log: its last line was cut short and is left out"
    assert said[1].startswith(f"{folder}/damaged/journal.log: line 1 is damaged; ")
    assert len(said) == 2
