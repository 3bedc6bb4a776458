"""Sweep files and `s3ray plan` as users meet them: flags, bad input, and a sweep from nothing to results."""

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import FIGURE3, SEARCH, assert_one_sentence, assert_refused, s3ray, sweep, sweep_here
from object_storage import ObjectStorage

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
    "--max-steps",
    "--verbose",
    "--version",
}


@pytest.mark.parametrize(
    ("file", "flags"),
    [
        (FIGURE3, FLAGS | {"--no-calibration", "--metric", "--open", "--budget", "--cloud", "--json", "--mlflow"}),
        (SEARCH, FLAGS | {"--trials", "--granularity", "--method", "--seed"}),
    ],
)
def test_the_flags_are_few_and_frozen(file: Any, flags: Any) -> None:
    help_text = sweep_here("--help", file=file).stdout
    options = help_text[help_text.index("Options") :]
    assert set(re.findall(r"--[a-z][a-z-]+", options)) - {"--help"} == flags


def test_usage_says_how_a_sweep_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    told = sweep_here("--help", file=FIGURE3).stdout
    assert told.split("Usage: ")[1].startswith("s3ray sweep figure3_batch_size [OPTIONS]")  # by its path in full
    monkeypatch.chdir(FIGURE3.parents[1])
    told = sweep_here("--help", file=Path("sweeps") / FIGURE3.name).stdout
    assert told.split("Usage: ")[1].startswith("python sweeps/figure3_batch_size.py [OPTIONS]")


def test_a_sweep_file_by_its_path_imports_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    (tmp_path / "neighbour_of_a_sweep.py").write_text("WORDS = 'from beside'\n")
    (tmp_path / "own.py").write_text("from neighbour_of_a_sweep import WORDS\n\nprint(WORDS)\n")
    result = s3ray("sweep", tmp_path / "own.py")
    assert (result.exit_code, result.stdout) == (0, "from beside\n"), result.exception


def arrays(**changes: Any) -> Any:
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
def test_a_bad_file_is_one_sentence_and_exit_code_2(tmp_path: Path, changes: Any, message: str) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays(**changes))
    result = sweep_here("--dataset", f"mine={path}", "--storage", tmp_path / "store")
    assert_refused(result, tmp_path / "store", message, str(path))


BAD_CONFIG = {
    "granularity": ("[model]\nwidth = 4\nffn_multiple = 1\nheads = 2", "granularity 8 does not divide the FFN width 4"),
    "batch below 2": ("batch_sizes = [1]", "batch size 1 must lie between 2 and"),
    "batch above the training set": ("batch_sizes = [5000]", "batch size 5000 must lie between 2 and"),
    "unknown field": ("[model]\nwidht = 3", "unknown field 'widht'; did you mean 'width'?"),
    "unknown dataset": ("[dataset.digitz]\nbatch_sizes = [8]", "fits no dataset; did you mean 'digits'?"),
}


@pytest.mark.parametrize(("text", "message"), BAD_CONFIG.values(), ids=BAD_CONFIG)
def test_a_bad_config_is_refused(tmp_path: Path, text: Any, message: str) -> None:
    (tmp_path / "config.toml").write_text(text)
    result = sweep_here("--config", tmp_path / "config.toml", "--storage", tmp_path / "store")
    assert_refused(result, tmp_path / "store", message)


def test_a_search_refuses_what_a_sweep_refuses_and_zero_weights(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("[selection]\nlambda_min = 0")
    for arguments, message in (
        (
            ["--config", tmp_path / "config.toml"],
            "'selection.lambda_min' is 0 and would be searched within a factor of",
        ),
        (["--granularity", 7], "granularity 7 does not divide the FFN width"),
        (["--workers-per-trial", 7], "does not divide batch size 64"),
    ):
        result = sweep_here("--datasets", "digits", "--storage", tmp_path / "store", *arguments, file=SEARCH)
        assert_refused(result, tmp_path / "store" / "search", message)


def test_an_unknown_dataset_names_the_nearest(tmp_path: Path) -> None:
    result = sweep_here("--datasets", "digit", "--storage", tmp_path / "store")
    assert_refused(result, tmp_path / "store", "unknown dataset 'digit'; did you mean 'digits'?")


@pytest.mark.parametrize(
    ("storage", "message"), [("file/store", "cannot be read"), ("/proc/store", "cannot be written")]
)
def test_storage_that_cannot_be_used(tmp_path: Path, storage: Any, message: str) -> None:
    (tmp_path / "file").write_text("")
    result = sweep_here("--datasets", "digits", "--storage", tmp_path / storage)
    assert_refused(result, tmp_path / storage, message)


def test_more_workers_than_the_machine_holds(tmp_path: Path) -> None:
    result = sweep_here("--datasets", "digits", "--storage", tmp_path / "store", "--workers-per-trial", 64)
    assert_refused(result, tmp_path / "store" / "data", "--workers-per-trial 64: needs 64 CPU, this machine holds at")


def test_plan_as_json(tmp_path: Path) -> None:
    both = ("--datasets", "digits,latent_factors")
    result = s3ray("plan", FIGURE3, "--storage", tmp_path, *both, "--format", "json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.output)
    # 2 datasets × 3 χ × 2 batch sizes × 3 seeds.
    assert summary["cells"] == {"total": 36, "cached": 0, "to_run": 36}
    assert summary["stages"]["specialization"] == {"naive": 72, "unique": 36, "cached": 0, "to_run": 36}
    assert summary["datasets"]["digits"]["kind"] == "embedded"
    cpus = len(os.sched_getaffinity(0))
    least, most = summary["estimated_seconds_on_this_machine"]
    middle = 40 + summary["estimated_worker_seconds"] / cpus / 1.01
    assert least < middle < most == pytest.approx(4 * least, rel=0.01)  # nothing has been measured
    text = s3ray("plan", FIGURE3, "--storage", tmp_path, *both).output.splitlines()[-1]
    assert re.fullmatch(rf"estimated .* of one worker; .* on this machine's {cpus} CPUs, start-up included", text)
    assert summary["datasets"]["latent_factors"]["kind"] == "simulated"


def test_plan_with_a_budget_and_a_cloud(tmp_path: Path) -> None:
    plan = ["plan", FIGURE3, "--datasets", "digits", "--storage", tmp_path]
    *_, price, left_out = s3ray(*plan, "--cloud", "aws", "--budget", "4min").output.splitlines()
    assert price.startswith("on aws $0.0")
    assert re.match(r"--budget 4min: has room for \d+ of 18 cells; left out are digits χ=", left_out)
    summary = json.loads(s3ray(*plan, "--cloud", "aws", "--budget", "4min", "--format", "json").output)
    assert (summary["price"], summary["left_out"]) == (price, left_out)
    *_, price = s3ray(*plan, "--cloud", "gcp", "--gpus-per-worker", "1").output.splitlines()
    assert "with 2 g2-standard-4" in price  # one GPU each
    for form in ("json", "text"):
        assert s3ray(*plan, "--budget", "1s", "--format", form).exit_code == 2
    too_little = s3ray(*plan, "--budget", "1s")
    assert too_little.exit_code == 2
    assert too_little.stderr.startswith("error: --budget 1s: has no room for one cell, digits χ=2 batch=64 seed=0, ")
    for options, message in (
        (["--budget", "20usd"], "--budget 20usd: prices are a cloud's; say --cloud aws"),
        (["--budget", "soon"], "--budget soon: must be a time or a price"),
        (["--cloud", "azure"], "--cloud azure: has no prices in cluster/prices.toml; known: aws, gcp, kubernetes"),
    ):
        assert_one_sentence(s3ray(*plan, *options), message)


def test_plan_of_a_file_that_is_no_sweep(tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text("x = 1\n")
    for path, message in ((tmp_path / "other.py", "defines no SWEEP"), (tmp_path / "none.py", "no such sweep file")):
        result = s3ray("plan", path)
        assert result.exit_code == 2
        assert message in result.stderr


def test_options_that_are_given_twice_are_refused(tmp_path: Path) -> None:
    plan = ["plan", FIGURE3, "--datasets", "digits", "--storage", tmp_path]
    assert_one_sentence(s3ray(*plan, "--storage", "elsewhere"), "--storage: is given more than once; give it once")
    assert_one_sentence(s3ray(*plan, "--datasets", "digits"), "--datasets: is given more than once; give it once")
    assert_one_sentence(s3ray("report", "--output=a", "--output=b"), "--output: is given more than once")


def test_of_several_configs_the_later_ones_count(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("seeds = [0, 1]\ngranularities = [2]\n")
    (tmp_path / "b.toml").write_text("seeds = [0]\nbatch_sizes = [8]\n")
    plan = ["plan", FIGURE3, "--datasets", "digits", "--storage", tmp_path, "--format", "json"]
    totals = [
        json.loads(s3ray(*plan, *(f"--config={tmp_path / name}.toml" for name in names)).output)["cells"]["total"]
        for names in ("ab", "ba")
    ]
    assert totals == [1, 2]
    assert_one_sentence(s3ray(*plan, "--config", tmp_path / "a.toml", "--config", "none.toml"), "--config none.toml: ")


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
        ("", "--storage: is empty; name a folder or URI"),
        (" ", "--storage: is empty"),
        ("run:2026/a", "--storage run:2026/a: is no URI, .*; write ./run:2026/a for a folder"),
        ("s3:bucket/a", "--storage s3:bucket/a: is no URI"),
        ("ftp://a/b", "--storage ftp://a/b: not a storage URI"),
    ],
)
def test_storage_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, storage: Any, message: str) -> None:
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

    plan = json.loads(s3ray("plan", FIGURE3, *arguments, "--format", "json").stdout)
    budget = f"{plan['estimated_seconds_on_this_machine'][1] - 0.5:.1f}s"  # has no room for all
    trimmed = sweep(*arguments, "--json", "--budget", budget)
    assert trimmed.returncode == 0, trimmed.stdout + trimmed.stderr
    *events, end = map(json.loads, trimmed.stdout.splitlines())
    done = [event["cell"] for event in events if event["state"] == "cell_finished"]
    assert 1 <= len(done) == len(set(done)) < 9
    assert {event["stage"] for event in events} >= {"specialization", "sparsification suff+min", "reference"}
    assert end == {"state": "ended", "failed": {}, "report": end["report"]}
    assert f"--budget {budget}: has room for {len(done)} of 9 cells" in trimmed.stderr
    assert f"{len(done)} cells done, 0 failed, {9 - len(done)} left in " in trimmed.stderr

    first = sweep(*arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    assert f"{9 - len(done)} cells done, 0 failed in " in first.stdout
    assert "Computed last, of the sweep: " in Path(end["report"]).read_text()
    (results,) = (tmp_path / "store" / "results").iterdir()
    assert first.stdout.splitlines()[-1] == f"report: {results}/index.html"
    assert {
        "tables/table1.md", "tables/table1.csv", "rows.parquet", "figures/figure3_mine.png", "figures/figure3_mine.pdf"
    } <= {str(path.relative_to(results)) for path in results.rglob("*")}  # fmt: skip
    listed = s3ray("results", "--storage", tmp_path / "store").stdout
    assert listed.startswith(f"{results.name}  9 of 9 cells  mine (user)\n")
    assert "  specialization.optimizer.epochs = 1\n" in listed
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


def test_storage_that_fails_is_one_sentence(object_storage: ObjectStorage, tmp_path: Path) -> None:
    object_storage.fault = lambda method, path: object_storage.faults.DENIED
    output = ["--output", tmp_path / "report"]
    for arguments in (["plan", FIGURE3, "--datasets", "digits"], ["report", *output], ["compare", "--paper"]):
        result = s3ray(*arguments, "--storage", object_storage.uri)
        assert_one_sentence(result, r"--storage s3://bucket/.*: cannot be read \(.*ACCESS_DENIED.*\); check the place")


def test_a_search_is_planned_with_the_methods_that_it_would_search(tmp_path: Path) -> None:
    def planned(file: Path, *options: str) -> Any:
        return s3ray("plan", file, "--datasets", "digits", "--storage", tmp_path, *options)

    stages = json.loads(planned(SEARCH, "--method", "clip,focal", "--format", "json").stdout)["stages"]
    assert {"clip", "focal"} < set(stages)
    assert "specialization" not in stages
    assert "specialization" in json.loads(planned(SEARCH, "--granularity", "2", "--format", "json").stdout)["stages"]
    for option, value in (("--method", "clip"), ("--granularity", "2")):
        message = f"{option}: is for a search, such as sweeps/search_weights.py; leave it out"
        assert_one_sentence(planned(FIGURE3, option, value), message)
    assert "did you mean 'clip'?" in planned(SEARCH, "--method", "clop").stderr


def test_a_metric_is_planned_with_what_it_takes(tmp_path: Path) -> None:
    plan = ["plan", FIGURE3, "--datasets", "digits", "--storage", tmp_path]
    assert s3ray(*plan, "--metric", "auroc").stdout == s3ray(*plan).stdout
    assert_one_sentence(
        s3ray(*plan, "--metric", "mae"), "metric 'mae': needs sentiment scores, which none of digits has;"
    )
    assert_one_sentence(
        s3ray(*plan, "--metric", "mea"), "metric 'mea': there is none of this name; did you mean 'mae'?"
    )
    search = s3ray("plan", SEARCH, "--datasets", "digits", "--storage", tmp_path, "--metric", "auroc")
    assert_one_sentence(search, "--metric: is for tables, which a search has none of; leave it out")


def test_own_data_are_announced_to_be_calibrated_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, samples in (("train", 64), ("valid", 100), ("test", 10)):
        arrays |= {f"{split}_left": rng.normal(size=(samples, 3)), f"{split}_right": rng.normal(size=(samples, 2))}
        arrays[f"{split}_label"] = np.arange(samples) % 2
    np.savez(tmp_path / "own.npz", **arrays)
    asked = ["plan", str(FIGURE3), "--dataset", f"own={tmp_path / 'own.npz'}", "--storage", str(tmp_path / "store")]
    assert "calibration first: 5 candidates for each of own, 5 cells to run, estimated" in s3ray(*asked).stdout
    planned = s3ray(*asked).stdout.splitlines()
    assert re.match(
        r"estimated .+ to .+ of one worker; .+ to .+ on this machine's .* and calibration's own", planned[-1]
    )
    low, high = json.loads(s3ray(*asked, "--format", "json").stdout)["estimated_worker_seconds_after_calibration"]
    assert high > 1.5 * low
    assert "calibration" not in s3ray(*asked, "--no-calibration").stdout


def test_long_sequences_of_own_data_are_subsampled_if_asked_and_the_plan_says_so(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", **arrays())
    own = ["plan", str(FIGURE3), "--dataset", f"own={tmp_path / 'own.npz'}", "--storage", str(tmp_path / "store")]
    assert "image + text, image subsampled to 2 steps, 2 classes" in s3ray(*own, "--max-steps", "2").stdout
    assert "subsampled" not in s3ray(*own, "--max-steps", "3").stdout
    embedded = ["plan", str(FIGURE3), "--datasets", "digits", "--storage", str(tmp_path / "store"), "--max-steps", "2"]
    assert_one_sentence(s3ray(*embedded), "--max-steps 2: is for your own data; give it with --dataset NAME=PATH, or")


def test_the_plan_says_what_few_samples_cannot_tell(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", **arrays())
    asked = ["plan", str(FIGURE3), "--dataset", f"own={tmp_path / 'own.npz'}", "--storage", str(tmp_path / "store")]
    told = s3ray(*asked).stdout
    assert "warning: own: 20 test samples can tell little: of an accuracy of 75%, 19 points either way stay" in told
    assert "own: not calibrated, since among 5 candidates 20 validation samples, fewer than 100, would choose" in told
    assert "not calibrated" not in s3ray(*asked, "--no-calibration").stdout
