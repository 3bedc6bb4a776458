"""The command line as users meet it: flags, bad input, and a sweep from nothing to results."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from s3ray.cli import app

ROOT = Path(__file__).parents[1]
FIGURE3 = ROOT / "sweeps" / "figure3_batch_size.py"
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


def sweep(*arguments, **environment):
    return subprocess.run(
        [sys.executable, str(FIGURE3), *map(str, arguments)],
        env={**os.environ, "RAY_ADDRESS": "local", "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_the_flags_are_few_and_frozen():
    help_text = sweep("--help", NO_COLOR="1").stdout
    assert set(re.findall(r"--[a-z][a-z-]+", help_text)) - {"--help"} == {
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


def arrays(**changes):
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
    "missing split": ({f"valid_{k}": None for k in ("image", "text", "label")}, "valid_label is missing"),
    "mismatched lengths": ({"test_text": np.zeros((19, 6))}, "test_text has 19 samples, its labels 20"),
    "NaN": ({"train_image": np.full((20, 3, 4), np.nan)}, "train_image has 240 values that are NaN"),
    "unknown label": ({"valid_label": np.full(20, 7)}, "valid_label holds class 7, which train_label lacks"),
}


@pytest.mark.parametrize(("changes", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_one_sentence_and_exit_code_2(tmp_path, changes, message):
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays(**changes))
    result = sweep("--dataset", f"mine={path}", "--storage", tmp_path / "store")
    assert_refused(result, tmp_path / "store", message, str(path))


BAD_CONFIG = {
    "granularity": ("[model]\nwidth = 4\nffn_multiple = 1\nheads = 2", "granularity 8 does not divide the FFN width 4"),
    "batch below 2": ("batch_sizes = [1]", "batch size 1 must lie between 2 and"),
    "batch above the training set": ("batch_sizes = [5000]", "batch size 5000 must lie between 2 and"),
    "unknown field": ("[model]\nwidht = 3", "unknown field 'widht'; did you mean 'width'?"),
    "unknown dataset": ("[dataset.digitz]\nbatch_sizes = [8]", "fits no dataset; did you mean 'digits'?"),
}


@pytest.mark.parametrize(("text", "message"), BAD_CONFIG.values(), ids=BAD_CONFIG)
def test_a_bad_config_is_refused(tmp_path, text, message):
    (tmp_path / "config.toml").write_text(text)
    result = sweep("--config", tmp_path / "config.toml", "--storage", tmp_path / "store")
    assert_refused(result, tmp_path / "store", message)


def test_an_unknown_dataset_names_the_nearest(tmp_path):
    result = sweep("--datasets", "digit", "--storage", tmp_path / "store")
    assert_refused(result, tmp_path / "store", "unknown dataset 'digit'; did you mean 'digits'?")


@pytest.mark.parametrize(
    ("storage", "message"), [("file/store", "cannot be read"), ("/proc/store", "cannot be written")]
)
def test_storage_that_cannot_be_used(tmp_path, storage, message):
    (tmp_path / "file").write_text("")
    result = sweep("--datasets", "digits", "--storage", tmp_path / storage)
    assert_refused(result, tmp_path / storage, message)


def test_more_workers_than_the_machine_holds(tmp_path):
    result = sweep("--datasets", "digits", "--storage", tmp_path / "store", "--workers-per-trial", 64)
    assert_refused(result, tmp_path / "store" / "data", "--workers-per-trial 64: needs 64 CPU, this machine holds at")


def assert_refused(result, untouched, *fragments):
    assert result.returncode == 2, result.stdout + result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for fragment in fragments:
        assert fragment in line
    assert not untouched.exists()


def test_plan_as_json(tmp_path):
    result = CliRunner().invoke(app, ["plan", str(FIGURE3), "--storage", str(tmp_path), "--format", "json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.output)
    # 2 datasets × 3 χ × 2 batch sizes × 3 seeds.
    assert summary["cells"] == {"total": 36, "cached": 0, "to_run": 36}
    assert summary["stages"]["specialization"] == {"naive": 72, "unique": 36, "cached": 0, "to_run": 36}
    assert summary["datasets"]["digits"]["kind"] == "embedded"
    assert summary["datasets"]["latent_factors"]["kind"] == "simulated"


def test_plan_of_a_file_that_is_no_sweep(tmp_path):
    (tmp_path / "other.py").write_text("x = 1\n")
    for path, message in ((tmp_path / "other.py", "defines no SWEEP"), (tmp_path / "none.py", "no such sweep file")):
        result = CliRunner().invoke(app, ["plan", str(path)])
        assert result.exit_code == 2
        assert message in result.stderr


def test_params_prints_the_published_table():
    result = CliRunner().invoke(app, ["params", "--table", "4", "--format", "csv"])
    published = (ROOT / "s3ray" / "published" / "table4.csv").read_text()
    assert result.output == published


@pytest.mark.ray
@pytest.mark.slow
def test_your_own_data_from_nothing_to_curves_and_again_from_the_store(tmp_path):
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
