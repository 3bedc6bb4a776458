"""The report's section of searches."""

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import made_up_study
from s3ray.results import Results
from s3ray.results.report import write_report
from s3ray.search.findings import load_searches
from s3ray.store import Store
from s3ray.sweep import load_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"


@pytest.fixture(scope="module")
def results(made_up: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A small sweep's, for the page around the section."""
    sweep = load_sweep(SWEEPS / "search_weights.py")
    overrides = {"sparsification": {"ratios": [1.0, 0.5]}}
    return Results.collect(*made_up.finished(sweep, ["digits"], tmp_path_factory.mktemp("swept"), overrides=overrides))


def test_the_report_has_a_section_per_study_and_its_trials_as_a_file(results: Results, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "searched"))
    made_up_study.fill(store)
    page = write_report(results, Store(str(tmp_path)), load_searches(store))
    text = Path(page).read_text(encoding="utf-8")
    assert '<h2 id="search">Search</h2>' in text
    assert '<h3 id="search_made-up">latent_factors (simulated data, smoke scale)</h3>' in text
    section = text[text.index('<h2 id="search"') : text.index('<h2 id="tables"')]
    figures = [part.split("</script>")[0] for part in section.split('<script type="application/json">')[1:]]
    assert [len(json.loads(figure)["data"]) > 0 for figure in figures] == [True] * 3
    assert ">78.0</td>" in section
    assert pd.read_csv(tmp_path / "tables" / "search_made-up.csv")["accuracy"].iloc[0] == 78.0


def test_a_store_without_a_search_has_no_section(results: Results, tmp_path: Path) -> None:
    assert load_searches(Store(str(tmp_path))) == []
    assert 'id="search"' not in Path(write_report(results, Store(str(tmp_path)))).read_text(encoding="utf-8")
