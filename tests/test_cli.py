"""The command line as users meet it: flags, bad input, and a sweep from nothing to results."""

import json
import os
import random
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from object_storage import ObjectStorage
from s3ray.cli import app
from s3ray.results import Results
from s3ray.store import Store
from s3ray.sweep import load_sweep

ROOT = Path(__file__).parents[1]
FIGURE3 = ROOT / "sweeps" / "figure3_batch_size.py"
SEARCH = ROOT / "sweeps" / "search_weights.py"
TINY = """
batch_sizes = [100]
[model]
width = 16
heads = 2
[specialization.optimizer]
epochs = 1
[selection.optimizer]
epochs = 1
[sparsification]
ratios = [1.0, 0.5]
"""


def sweep(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Figure 3's file as a program of its own."""
    return subprocess.run(
        [sys.executable, str(FIGURE3), *map(str, arguments)],
        env={**os.environ, "RAY_ADDRESS": "local", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    returncode: object
    stdout: str
    stderr: str


Run = Callable[..., Ended]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A sweep file as a program, in this process, for what ends before Ray: a start of Python costs seconds."""
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object, file: Path = FIGURE3) -> Ended:
        monkeypatch.setattr(sys, "argv", [str(file), *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(file), run_name="__main__")
        return Ended(left.value.code, *capsys.readouterr())

    return run


FLAGS = {
    "--datasets",
    "--dataset",
    "--data",
    "--modalities",
    "--scale",
    "--storage",
    "--workers-per-trial",
    "--gpus-per-worker",
    "--config",
    "--verbose",
}


@pytest.mark.parametrize(
    ("file", "flags"), [(FIGURE3, FLAGS), (SEARCH, FLAGS | {"--trials", "--granularity", "--seed"})]
)
def test_the_flags_are_few_and_frozen(ended: Run, file: Path, flags: set[str]) -> None:
    help_text = ended("--help", file=file).stdout
    options = help_text[help_text.index("Options") :]
    assert set(re.findall(r"--[a-z][a-z-]+", options)) - {"--help"} == flags


def arrays(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    good = {
        f"{split}_{key}": value
        for split in ("train", "valid", "test")
        for key, value in {
            "image": rng.normal(size=(20, 3, 4)),
            "text": rng.normal(size=(20, 6)),
            "label": np.arange(20) % 2,
        }.items()
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


BAD_FILES = {
    "missing split": ({f"valid_{k}": None for k in ("image", "text", "label")}, "split valid is missing"),
    "mismatched lengths": ({"test_text": np.zeros((19, 6))}, "test_text has 19 samples, its labels 20"),
    "NaN": ({"train_image": np.full((20, 3, 4), np.nan)}, "train_image has 240 values that are NaN"),
    "unknown label": ({"valid_label": np.full(20, 7)}, "valid_label holds class 7, which train_label lacks"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_one_sentence_and_exit_code_2(
    ended: Run, tmp_path: Path, changes: dict[str, np.ndarray | None], message: str
) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays(**changes))
    result = ended("--dataset", f"mine={path}", "--storage", tmp_path / "store")
    assert_refused(result, tmp_path / "store", message, str(path))


BAD_CONFIG = {
    "granularity": ("[model]\nwidth = 4\nffn_multiple = 1\nheads = 2", "granularity 8 does not divide the FFN width 4"),
    "batch below 2": ("batch_sizes = [1]", "batch size 1 must lie between 2 and"),
    "batch above the training set": ("batch_sizes = [5000]", "batch size 5000 must lie between 2 and"),
    "unknown field": ("[model]\nwidht = 3", "unknown field 'widht'; did you mean 'width'?"),
    "unknown dataset": ("[dataset.digitz]\nbatch_sizes = [8]", "fits no dataset; did you mean 'digits'?"),
}


@pytest.mark.parametrize(("text", "message"), BAD_CONFIG.values(), ids=BAD_CONFIG)
def test_a_bad_config_is_refused(ended: Run, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    result = ended("--config", tmp_path / "config.toml", "--storage", tmp_path / "store")
    assert_refused(result, tmp_path / "store", message)


def test_a_search_refuses_what_a_sweep_refuses_and_zero_weights(ended: Run, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[selection]\nlambda_min = 0")
    for arguments, message in (
        (
            ["--config", tmp_path / "config.toml"],
            "'selection.lambda_min' is 0 and would be searched within a factor of",
        ),
        (["--granularity", 7], "granularity 7 does not divide the FFN width"),
        (["--workers-per-trial", 7], "does not divide batch size 64"),
    ):
        result = ended("--datasets", "digits", "--storage", tmp_path / "store", *arguments, file=SEARCH)
        assert_refused(result, tmp_path / "store" / "search", message)


def test_an_unknown_dataset_names_the_nearest(ended: Run, tmp_path: Path) -> None:
    result = ended("--datasets", "digit", "--storage", tmp_path / "store")
    assert_refused(result, tmp_path / "store", "unknown dataset 'digit'; did you mean 'digits'?")


def test_an_unknown_exhibit_names_the_nearest_before_anything_is_read(tmp_path):
    (tmp_path / "mine.py").write_text("from s3ray.sweep import Sweep\nSWEEP = Sweep('mine', exhibits=('tabel1',))\n")
    result = s3ray("plan", tmp_path / "mine.py", "--storage", tmp_path / "store")
    assert_one_sentence(result, "sweep mine: exhibits has 'tabel1', which there is not; did you mean 'table1'?")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("storage", "message"), [("file/store", "cannot be read"), ("/proc/store", "cannot be written")]
)
def test_storage_that_cannot_be_used(ended: Run, tmp_path: Path, storage: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    result = ended("--datasets", "digits", "--storage", tmp_path / storage)
    assert_refused(result, tmp_path / storage, message)


@pytest.mark.slow
def test_more_workers_than_the_machine_holds(tmp_path: Path) -> None:
    result = sweep("--datasets", "digits", "--storage", tmp_path / "store", "--workers-per-trial", 64)
    assert_refused(result, tmp_path / "store" / "data", "--workers-per-trial 64: needs 64 CPU, this machine holds at")


def assert_refused(result: Ended | subprocess.CompletedProcess[str], untouched: Path, *fragments: str) -> None:
    assert result.returncode == 2, result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for fragment in fragments:
        assert fragment in line
    assert not untouched.exists()


def test_plan_as_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["plan", str(FIGURE3), "--storage", str(tmp_path), "--format", "json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.output)
    # 2 datasets × 3 χ × 2 batch sizes × 3 seeds.
    assert summary["cells"] == {"total": 36, "cached": 0, "to_run": 36}
    assert summary["stages"]["specialization"] == {"naive": 72, "unique": 36, "cached": 0, "to_run": 36}
    assert summary["datasets"]["digits"]["kind"] == "embedded"
    cpus = len(os.sched_getaffinity(0))
    assert summary["estimated_seconds_on_this_machine"] > 40 + summary["estimated_worker_seconds"] / cpus / 1.01
    text = CliRunner().invoke(app, ["plan", str(FIGURE3), "--storage", str(tmp_path)]).output.splitlines()[-1]
    assert re.fullmatch(rf"estimated .* of one worker; .* on this machine's {cpus} CPUs, start-up included", text)
    assert summary["datasets"]["latent_factors"]["kind"] == "simulated"


def test_plan_of_a_file_that_is_no_sweep(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("x = 1\n")
    for path, message in ((tmp_path / "other.py", "defines no SWEEP"), (tmp_path / "none.py", "no such sweep file")):
        result = CliRunner().invoke(app, ["plan", str(path)])
        assert result.exit_code == 2
        assert message in result.stderr


def test_options_that_are_given_twice_are_refused(tmp_path: Path) -> None:
    plan = ["plan", FIGURE3, "--datasets", "digits", "--storage", tmp_path]
    assert_one_sentence(s3ray(*plan, "--config", "a.toml", "--config", "b.toml"), "--config: is given more than once")
    assert_one_sentence(s3ray(*plan, "--datasets", "digits"), "--datasets: is given more than once; give it once")
    assert_one_sentence(s3ray("report", "--output=a", "--output=b"), "--output: is given more than once")


def test_a_tilde_is_home_in_every_option_that_takes_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "mine.npz", **arrays())
    (tmp_path / "my config ü.toml").write_text("seeds = [0]\ngranularities = [2]\nbatch_sizes = [8]\n")
    (tmp_path / "sweep.py").write_text(FIGURE3.read_text().replace("figure3_batch_size", "sweep"))
    options = ["--config=~/my config ü.toml", "--storage=~/a b", "--format", "json"]
    for data in ("--data=~/data", "--dataset=mine=~/data/mine.npz"):
        result = s3ray("plan", "~/sweep.py", data, *options)
        assert result.exit_code == 0, result.output
        assert json.loads(result.output)["cells"]["total"] == 1
    result = s3ray("plan", FIGURE3, "--datasets", "digits", "--storage=~/a b")
    assert result.stdout.startswith(f"figure3_batch_size → {tmp_path}/a b\n")
    for arguments, message in (
        (["data", "prepare", "--root=~/data"], f"--root {tmp_path}/data: holds none of"),
        (["data", "show", "~/nothing"], f"{tmp_path}/nothing: no such folder"),
        (["report", "--storage=~/a b", "--output=~/report"], f"--storage {tmp_path}/a b: holds no results"),
        (["plan", "~nobody-here/sweep.py"], "SWEEP ~nobody-here/sweep.py: there is no such home; write the path"),
        (["plan", FIGURE3, "--storage=~nobody-here/x"], "--storage ~nobody-here/x: there is no such home"),
    ):
        assert_one_sentence(s3ray(*arguments), re.escape(message))
    result = s3ray("data", "simulate", "--like", "mosi", "--samples", "9", "--output=~/made")
    assert result.exit_code == 0, result.output
    assert list((tmp_path / "made").iterdir())


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("", "--storage: is empty; name a folder or URI, or leave the option out"),
        (" ", "--storage: is empty"),
        ("run:2026/a", "--storage run:2026/a: is no URI, .*; write ./run:2026/a for a folder"),
        ("s3:bucket/a", "--storage s3:bucket/a: is no URI"),
        ("ftp://a/b", "--storage ftp://a/b: not a storage URI"),
    ],
)
def test_storage_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert_one_sentence(s3ray("plan", FIGURE3, "--datasets", "digits", "--storage", storage), message)
    monkeypatch.setenv("S3RAY_STORAGE", "")
    assert_one_sentence(s3ray("compare", "--paper"), "S3RAY_STORAGE: is set but empty; unset it, or name a folder")


def test_storage_with_colons_and_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for storage in (
        "./run:2026/a",
        f"{tmp_path}/run:2026/a",
        "a b",
        f"file://{tmp_path}/a b",
        f"file://{tmp_path}/a%20b",
    ):
        result = s3ray("plan", FIGURE3, "--datasets", "digits", "--storage", storage)
        assert result.exit_code == 0, result.output


def test_the_config_file_and_its_table_are_named(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    for text, message in (
        ("[dataset.digits.selection]\nlambda_min = -1", r"\[dataset.digits\]: selection: lambda_min -1.0 is negative"),
        ("[model]\ngranularity = 3", r": model: granularity 3 does not divide the FFN width"),
        ("seeds = [18446744073709551616]", r": seeds \[18446744073709551616\] must lie between 0 and 2\^63 - 1"),
        ("batch_sizes = [10000000000000000000]", None),
        ("granularities = [0]", None),
    ):
        file.write_text(text)
        result = s3ray("plan", FIGURE3, "--datasets", "digits", "--config", file, "--storage", tmp_path / "store")
        expected = f"--config {file}" if message and message.startswith(":") else ""
        assert_one_sentence(result, expected + (message or "digits: .*; "))
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
@pytest.mark.parametrize("module", ["s3ray", "s3ray.cli"])
def test_as_a_module(module: str) -> None:
    command = [sys.executable, "-m", module, "params", "--table", "4", "--format", "csv"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == (ROOT / "s3ray" / "published" / "table4.csv").read_text(), result.stderr


def test_params_prints_the_published_table() -> None:
    result = CliRunner().invoke(app, ["params", "--table", "4", "--format", "csv"])
    published = (ROOT / "s3ray" / "published" / "table4.csv").read_text()
    assert result.output == published


@pytest.mark.ray
@pytest.mark.slow
def test_your_own_data_from_nothing_to_curves_and_again_from_the_store(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = {split: np.arange(size) % 2 for split, size in (("train", 120), ("valid", 40), ("test", 40))}
    data = {f"{split}_label": y for split, y in labels.items()}
    for split, y in labels.items():
        for name, shape in (("image", (len(y), 3, 4)), ("text", (len(y), 6))):
            data[f"{split}_{name}"] = rng.normal(size=shape) + 2.0 * y.reshape(-1, *[1] * (len(shape) - 1))
    np.savez(tmp_path / "mine.npz", **data)
    (tmp_path / "tiny.toml").write_text(TINY)
    arguments = ["--dataset", f"mine={tmp_path / 'mine.npz'}", "--config", tmp_path / "tiny.toml"]
    arguments += ["--storage", tmp_path / "store"]

    first = sweep(*arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "9 cells done, 0 failed" in first.stdout
    results = tmp_path / "store" / "results" / "figure3_batch_size"
    assert {"table1.md", "table1.csv", "rows.parquet", "figure3_mine.png", "figure3_mine.pdf"} <= {
        path.name for path in results.iterdir()
    }
    written = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "artifacts").rglob("*") if path.is_file()
    }

    started = time.monotonic()
    second = sweep(*arguments)
    assert second.returncode == 0, second.stdout + second.stderr
    assert re.search(r"cells +9 +9 +0$", second.stdout, re.MULTILINE)
    assert "finished" not in second.stdout
    assert time.monotonic() - started < 120  # no Ray, no training; the bound only catches a hang
    assert written == {path: path.stat().st_mtime_ns for path in written}


@pytest.fixture(scope="module")
def made_up() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "results" / "made_up.py")))


@pytest.fixture
def finished(made_up: SimpleNamespace, tmp_path: Path) -> Callable[..., str]:
    """A storage with the results of Table 3 over the given datasets, by a formula or as printed."""

    def fill(
        datasets: list[str], accuracy: Callable[..., float] | None = None, storage: Path | str = tmp_path / "store"
    ) -> str:
        sweep = load_sweep(ROOT / "sweeps" / "table3_selection_losses.py")
        overrides = {"sparsification": {"ratios": [1.0, 0.5]}}
        plan, store = made_up.finished(sweep, datasets, storage, accuracy, overrides)
        Results.collect(plan, store).save(store)
        return str(storage)

    return fill


def s3ray(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


def assert_one_sentence(result: Result, message: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert re.fullmatch(f"error: .*{message}.*\n", result.stderr), result.stderr


def test_report_writes_a_page_and_says_where(finished: Callable[..., str], tmp_path: Path) -> None:
    result = s3ray("report", "--storage", finished(["digits"]), "--output", tmp_path / "deep" / "report")
    assert result.exit_code == 0, result.output
    page = tmp_path / "deep" / "report" / "index.html"
    assert result.stdout == f"{page}\n"
    assert "digits is embedded data (rows + columns, smoke scale)" in page.read_text(encoding="utf-8")
    # 60 + .64 + 4 without Selection, 2 more with it.
    lines = (page.parent / "tables" / "table3.csv").read_text().splitlines()
    assert lines[1:3] == ["64,none,64.64 (1.00)", "64,suff+min,66.64 (1.00)"]


def test_report_from_object_storage_beside_its_results(
    finished: Callable[..., str], object_storage: ObjectStorage, tmp_path: Path
) -> None:
    storage = finished(["digits"], storage=object_storage.uri)
    draw, throttled = random.Random(0), object_storage.faults.THROTTLED
    object_storage.fault = lambda method, path: throttled if draw.random() < 0.3 else None
    published = storage.replace("?", "/report?")
    result = s3ray("report", "--storage", storage, "--output", published)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"s3://bucket/{object_storage.prefix}/report/index.html\n"
    assert s3ray("report", "--storage", finished(["digits"]), "--output", tmp_path / "report").exit_code == 0
    local = {str(path.relative_to(tmp_path)) for path in (tmp_path / "report").rglob("*") if path.is_file()}
    assert {key for key in object_storage.objects() if key.startswith("report/")} == local
    for name in ("report/tables/table3.csv", "report/tables/summary.md"):
        assert Store(storage).read(name) == (tmp_path / name).read_bytes()


def test_storage_that_fails_is_one_sentence(object_storage: ObjectStorage, tmp_path: Path) -> None:
    object_storage.fault = lambda method, path: object_storage.faults.DENIED
    output = ["--output", tmp_path / "report"]
    for arguments in (["plan", FIGURE3, "--datasets", "digits"], ["report", *output], ["compare", "--paper"]):
        result = s3ray(*arguments, "--storage", object_storage.uri)
        assert_one_sentence(result, r"--storage s3://bucket/.*: cannot be read \(.*ACCESS_DENIED.*\); check the place")


def test_report_to_a_place_that_cannot_be_written(finished: Callable[..., str], object_storage: ObjectStorage) -> None:
    object_storage.fault = lambda method, path: object_storage.faults.DENIED
    result = s3ray("report", "--storage", finished(["digits"]), "--output", object_storage.uri)
    assert_one_sentence(result, r"--output s3://bucket/.*: cannot be written \(.*ACCESS_DENIED.*\); choose a place")


def test_report_of_a_sweep_that_has_no_results(finished: Callable[..., str], tmp_path: Path) -> None:
    storage = finished(["digits"])
    for arguments, message in (
        (["--storage", storage, "--sweep", "full_grid"], "holds no results of sweep 'full_grid'; run a sweep first"),
        (["--storage", tmp_path / "empty"], "holds no results of any sweep; run a sweep first"),
    ):
        assert_one_sentence(s3ray("report", "--output", tmp_path / "report", *arguments), message)
    assert not (tmp_path / "report").exists()


def test_compare_without_anything_to_compare_with(tmp_path: Path) -> None:
    assert_one_sentence(s3ray("compare", "--storage", tmp_path), "nothing to compare with; add --paper")


@pytest.mark.parametrize(("dataset", "kind"), [("digits", "embedded"), ("latent_factors", "simulated")])
def test_compare_refuses_data_that_the_paper_does_not_have(
    finished: Callable[..., str], dataset: str, kind: str
) -> None:
    result = s3ray("compare", "--paper", "--storage", finished([dataset]))
    assert_one_sentence(result, f"{dataset} is {kind} data, and only MultiBench data can be compared")


def test_compare_says_that_the_papers_own_numbers_do_not_differ(finished: Callable[..., str]) -> None:
    result = s3ray("compare", "--paper", "--storage", finished(["mosei", "mustard"]))
    assert result.exit_code == 0, result.output
    *_, table1, table2, table3, table4, table5 = result.stdout.splitlines()
    # Of Table 1 at χ = 8: Specialization, Selection, p 0.5 of two datasets.
    assert table1.endswith(", 126 not run")
    assert table2.endswith(", 30 not run")
    # Printed deviations below 0.86 are reproduced with equal means: all of MOSEI, suff+min (0.72) of MUStARD.
    assert table3 == "Table 3: 5 reproduced, 3 underpowered, 8 not run"
    assert (table4, table5) == ("Table 4: 12 reproduced", "Table 5: 108 reproduced")


def test_compare_fails_if_results_differ_from_the_papers(
    finished: Callable[..., str], made_up: SimpleNamespace
) -> None:
    def worse(*point: object) -> float:
        return made_up.as_printed(*point) - 10

    result = s3ray("compare", "--paper", "--storage", finished(["mosei"], worse))
    assert result.exit_code == 3, result.output
    assert "Table 3: 4 differs, 12 not run" in result.stdout.splitlines()
