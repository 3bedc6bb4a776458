"""`s3ray report`, `columns`, `compare` and `params` as users meet them."""

import io
import json
import os
import random
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from command_line import assert_one_sentence, s3ray
from object_storage import ObjectStorage
from s3ray.results import Results
from s3ray.results.collect import studies
from s3ray.results.columns import COLUMNS
from s3ray.store import Store
from s3ray.sweep import load_sweep

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_as_a_module() -> None:
    command = [sys.executable, "-m", "s3ray", "params", "--table", "4", "--format", "csv"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == (ROOT / "s3ray" / "published" / "table4.csv").read_text(), result.stderr


def test_params_prints_the_published_table() -> None:
    result = s3ray("params", "--table", "4", "--format", "csv")
    published = (ROOT / "s3ray" / "published" / "table4.csv").read_text()
    assert result.output == published


def test_columns_says_what_each_column_means() -> None:
    every = {(table, name): told for table, own in COLUMNS.items() for name, told in own.items()}
    read = pd.read_csv(io.StringIO(s3ray("columns", "--format", "csv").stdout))
    assert {(line.table, line.column): line.meaning for line in read.itertuples()} == every
    rows = json.loads(s3ray("columns", "rows.parquet", "--format", "json").stdout)
    assert {line["column"]: line["meaning"] for line in rows} == COLUMNS["rows"]
    told = s3ray("columns", "factors").stdout.splitlines()
    assert told[0] == "factors.parquet"
    assert [line.split()[0] for line in told[1:]] == list(COLUMNS["factors"])


def test_a_table_that_there_is_not_is_one_sentence() -> None:
    assert_one_sentence(s3ray("columns", "factor"), "'factor' is no table of a sweep; did you mean 'factors'")


def test_params_counts_the_modalities_that_are_chosen() -> None:
    def shares(*arguments: str) -> list[str]:
        return [line.split(",")[-1] for line in s3ray(*arguments).output.splitlines()[1:]]

    table = ("params", "--table", "4", "--format", "csv")
    usual, three, one = (
        shares(*table, *more) for more in ((), ("--modalities", "vision,audio,text"), ("--modalities", "text"))
    )
    assert usual == shares(*table, "--modalities", "vision,text") == shares(*table, "--modalities", "text,vision")
    assert all(len(other) == len(usual) == 12 and other != usual for other in (three, one))
    for names, sentence in (
        ("sound", "--modalities: mosei has no modality 'sound'; "),
        ("text,text", "--modalities text,text: name different modalities, such as vision,audio,text"),
        ("", "--modalities : name different modalities"),
    ):
        result = s3ray(*table, "--modalities", names)
        assert result.exit_code == 2
        assert sentence in result.output


@pytest.fixture(scope="module")
def made_up() -> Any:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "results" / "made_up.py")))


@pytest.fixture
def finished(made_up: SimpleNamespace, tmp_path: Path) -> Any:
    """A storage with the results of Table 3 over the given datasets, by a formula or as printed."""

    def fill(datasets: Any, accuracy: Any = None, storage: Any = tmp_path / "store", **more: Any) -> Any:
        sweep = load_sweep(ROOT / "sweeps" / "table3_selection_losses.py")
        overrides = {"sparsification": {"ratios": [1.0, 0.5]}, **more}
        plan, store = made_up.finished(sweep, datasets, storage, accuracy, overrides)
        Results.collect(plan, store).save(store)
        return str(storage)

    return fill


def test_report_writes_a_page_and_says_where(finished: Any, tmp_path: Path) -> None:
    result = s3ray("report", "--storage", finished(["digits"]), "--output", tmp_path / "deep" / "report")
    assert result.exit_code == 0, result.output
    page = tmp_path / "deep" / "report" / "index.html"
    (study,) = os.listdir(tmp_path / "store" / "results")
    assert result.stdout == f"{study}: {page}\n"
    assert "digits is embedded data (rows + columns, smoke scale)" in page.read_text(encoding="utf-8")
    # 60 + .64 + 4 without Selection, 2 more with it.
    lines = (page.parent / "tables" / "table3.csv").read_text().splitlines()
    assert lines[1:3] == ["64,none,64.64 (1.00)", "64,suff+min,66.64 (1.00)"]


def test_report_by_a_metric_has_its_tables_beside_accuracys(made_up: SimpleNamespace, tmp_path: Path) -> None:
    sweep = load_sweep(ROOT / "sweeps" / "table1_figure5.py")
    overrides = {"sparsification": {"ratios": [1.0, 0.5]}, "granularities": [8], "seeds": [0]}
    plan, store = made_up.finished(sweep, ["digits"], tmp_path / "store", None, overrides)
    Results.collect(plan, store).save(store)
    report = ["report", "--storage", str(tmp_path / "store"), "--output", str(tmp_path / "report")]
    assert s3ray(*report, "--metric", "macro_f1").exit_code == 0
    tables = tmp_path / "report" / "tables"
    assert (tables / "table1.csv").read_text().startswith("dataset,batch size,χ,")
    # The made-up rows have accuracies alone, as those of earlier versions do.
    expected = "dataset,no macro F1\ndigits,computed before metrics were stored\n"
    assert (tables / "table1_macro_f1.csv").read_text() == expected
    assert s3ray(*report).exit_code == 0
    assert not (tables / "table1_macro_f1.csv").exists()
    assert_one_sentence(s3ray(*report, "--metric", "f1"), "metric 'f1': there is none of this name; known: acc2_nonn")


@pytest.mark.slow
def test_report_from_object_storage_beside_its_results(
    finished: Any, object_storage: ObjectStorage, tmp_path: Path
) -> None:
    storage = finished(["digits"], storage=object_storage.uri)
    draw, throttled = random.Random(0), object_storage.faults.THROTTLED
    object_storage.fault = lambda method, path: throttled if draw.random() < 0.3 else None
    published = storage.replace("?", "/report?")
    result = s3ray("report", "--storage", storage, "--output", published)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith(f": s3://bucket/{object_storage.prefix}/report/index.html\n")
    assert s3ray("report", "--storage", finished(["digits"]), "--output", tmp_path / "report").exit_code == 0
    local = {str(path.relative_to(tmp_path)) for path in (tmp_path / "report").rglob("*") if path.is_file()}
    assert {key for key in object_storage.objects() if key.startswith("report/")} == local
    for name in ("report/tables/table3.csv", "report/tables/summary.md"):
        assert Store(storage).read(name) == (tmp_path / name).read_bytes()


def test_report_to_a_place_that_cannot_be_written(finished: Any, object_storage: ObjectStorage) -> None:
    object_storage.fault = lambda method, path: object_storage.faults.DENIED
    result = s3ray("report", "--storage", finished(["digits"]), "--output", object_storage.uri)
    assert_one_sentence(result, r"--output s3://bucket/.*: cannot be written \(.*ACCESS_DENIED.*\); choose a place")


def test_report_of_a_sweep_that_has_no_results(finished: Any, tmp_path: Path) -> None:
    storage = finished(["digits"])
    for arguments, message in (
        (
            ["--storage", storage, "--sweep", "full_grid"],
            "holds no results of 'full_grid'; known: table3_selection_losses, table3_",
        ),
        (["--storage", tmp_path / "empty"], "holds no results of any sweep; run a sweep first"),
    ):
        assert_one_sentence(s3ray("report", "--output", tmp_path / "report", *arguments), message)
    assert not (tmp_path / "report").exists()


def test_results_of_a_version_that_kept_less_are_listed_and_reported(finished: Any, tmp_path: Path) -> None:
    store = Store(finished(["digits"]))
    (study,) = studies(store)
    info = store.folder_info("results", study)
    files = {name: store.read_listed(info, name, "results", study) for name in info["files"]}
    for name in ("study", "overrides", "files"):
        del info[name]
    store.write_folder(files, info, "results", study)
    listed = s3ray("results", "--storage", store.uri)
    assert (listed.exit_code, listed.output.split()[0]) == (0, study)
    report = s3ray("report", "--storage", store.uri, "--output", tmp_path / "report")
    assert report.exit_code == 0, report.output
    assert report.output.startswith(f"{study}: ")


def test_compare_without_anything_to_compare_with(tmp_path: Path) -> None:
    assert_one_sentence(s3ray("compare", "--storage", tmp_path), "nothing to compare with; add --paper")


@pytest.mark.parametrize(("dataset", "kind"), [("digits", "embedded"), ("latent_factors", "simulated")])
def test_compare_refuses_data_that_the_paper_does_not_have(finished: Any, dataset: str, kind: str) -> None:
    result = s3ray("compare", "--paper", "--storage", finished([dataset]))
    assert_one_sentence(result, f"{dataset} is {kind} data, and only MultiBench data can be compared")


def test_compare_says_that_the_papers_own_numbers_do_not_differ(finished: Any) -> None:
    result = s3ray("compare", "--paper", "--storage", finished(["mosei", "mustard"]))
    assert result.exit_code == 0, result.output
    *_, table1, table2, table3, table4, table5 = result.stdout.splitlines()
    # Of Table 1 at χ = 8: Specialization, Selection, p 0.5 of two datasets.
    assert table1.endswith(", 126 not run")
    assert table2.endswith(", 30 not run")
    # Printed deviations below 0.86 are reproduced with equal means: all of MOSEI, suff+min (0.72) of MUStARD.
    assert table3 == "Table 3: 5 reproduced, 3 underpowered, 8 not run"
    assert (table4, table5) == ("Table 4: 12 reproduced", "Table 5: 108 reproduced")


def test_compare_fails_if_results_differ_from_the_papers(finished: Any, made_up: SimpleNamespace) -> None:
    def worse(*point: Any) -> Any:
        return made_up.as_printed(*point) - 10

    result = s3ray("compare", "--paper", "--storage", finished(["mosei"], worse))
    assert result.exit_code == 3, result.output
    assert "Table 3: 4 differs, 12 not run" in result.stdout.splitlines()


def test_compare_names_the_settings_with_which_a_number_is_reproduced(
    finished: Any, made_up: SimpleNamespace, tmp_path: Path
) -> None:
    def worse(*point: Any) -> Any:
        return made_up.as_printed(*point) - 10

    storage = finished(["mosei"], worse)
    found = finished(["mosei"], storage=tmp_path / "found", selection={"temperature": 0.3})
    result = s3ray("compare", "--paper", "--storage", storage, "--also", found)
    assert result.exit_code == 3, result.output
    # Of what was made without Selection, Selection's settings are none.
    assert "Table 3: 3 reproduced with other settings, 1 differs, 12 not run" in result.stdout.splitlines()
    assert f"77.36 (0.29) with selection.temperature 0.3 ({found})" in result.stdout
    # A second try with the same settings proves nothing, nor do results that are no better.
    for other in (finished(["mosei"], storage=tmp_path / "same"), storage):
        result = s3ray("compare", "--paper", "--storage", storage, "--also", other)
        assert result.exit_code == 3, result.output
        assert "Table 3: 4 differs, 12 not run" in result.stdout.splitlines()
    # What is reproduced already stays so.
    result = s3ray("compare", "--paper", "--storage", found, "--also", storage)
    assert "Table 3: 4 reproduced, 12 not run" in result.stdout.splitlines()
    nothing = s3ray("compare", "--paper", "--storage", storage, "--also", tmp_path / "empty")
    assert_one_sentence(nothing, "--also .*: holds no results of any sweep; run a sweep first")
