"""`s3ray data` as users meet it: from a simulated file to a plan, and one sentence for bad input."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from rich.console import Console
from typer.testing import CliRunner

from s3ray.cli import app
from s3ray.cli.console import byte_progress
from s3ray.data.dataset import Dataset

FULL_GRID = Path(__file__).parents[2] / "sweeps" / "full_grid.py"


def data(*arguments: object, columns: int = 200) -> Result:
    environment = {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, ["data", *map(str, arguments)], env=environment)


def said(*arguments: object, columns: int = 200) -> list[str]:
    """The lines that a command prints when all goes well."""
    result = data(*arguments, columns=columns)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return [line.rstrip() for line in result.stdout.splitlines()]


def plan(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["plan", str(FULL_GRID), *map(str, arguments), "--format", "json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds mosi_data.pkl of 60 samples and sarcasm.pkl of 12."""
    folder = tmp_path_factory.mktemp("simulated")
    data("simulate", "--like", "mosi", "--samples", 60, "--output", folder)
    data("simulate", "--like", "mustard", "--samples", 12, "--output", folder)
    return folder


@pytest.fixture(scope="module")
def prepared(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    data("prepare", "--root", simulated, "--output", folder)
    return folder


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    """mosi_data.pkl with 4 / 2 / 1 samples of 4 steps: vision 2 features, audio 1, text 1.

    Train's second sample has no text, the others 2, 4 and 1 steps of it, with labels 0, -2 and 3. An id of train is
    in valid too.
    """
    text = {
        "train": [[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 1]],
        "valid": [[0, 1, 1, 1], [0, 0, 1, 1]],
        "test": [[1, 1, 1, 1]],
    }
    labels = {"train": [0.0, 1.0, -2.0, 3.0], "valid": [-1.0, -1.0], "test": [1.0]}
    ids = {"train": ["a", "b", "c", "d"], "valid": ["c", "e"], "test": ["f"]}
    content = {
        split: {
            "vision": np.ones((len(rows), 4, 2)),
            "audio": np.ones((len(rows), 4, 1)),
            "text": np.array(rows, dtype=np.float64)[:, :, None],
            "labels": np.array(labels[split]).reshape(-1, 1, 1),
            "id": np.array(ids[split]),
        }
        for split, rows in text.items()
    }
    content["train"]["vision"][0, 3] = np.nan
    content["train"]["audio"][3, 3] = -np.inf
    (tmp_path / "mosi_data.pkl").write_bytes(pickle.dumps(content))
    return tmp_path


WARNING = "1 ids are in train and in valid: samples leak between the splits"


def test_progress_is_a_line_per_quarter_and_step_of_the_work() -> None:
    said = io.StringIO()
    with byte_progress("file.pkl", Console(file=said)) as progress:
        for done in (0, 24, 26, 49, 51, 90, 100):
            progress("reading", done * 10**6, 100 * 10**6)
        progress("converting", 8 * 10**6, 8 * 10**6)
        progress("nothing", 0, 0)
    assert said.getvalue().splitlines() == [
        "file.pkl: reading, 26 of 100 MB",
        "file.pkl: reading, 51 of 100 MB",
        "file.pkl: reading, 90 of 100 MB",
        "file.pkl: reading, 100 of 100 MB",
        "file.pkl: converting, 8 of 8 MB",
    ]


def test_progress_in_a_terminal_is_a_bar() -> None:
    said = io.StringIO()
    with byte_progress("file.pkl", Console(file=said, force_terminal=True, width=100)) as progress:
        progress("reading", 5 * 10**6, 10**7)
        progress("reading", 10**7, 10**7)
    assert "file.pkl: reading" in said.getvalue()
    assert "10.0/10.0 MB" in said.getvalue()


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("prepare", {"--root", "--datasets", "--output", "--neutral", "--z-norm", "--missing"}),
        (
            "import",
            {"--output", "--modality", "--label", "--group", "--sample", "--time", "--split", "--split-column"}
            | {"--seed", "--fill", "--missing", "--overwrite"},
        ),
        ("show", set()),
        ("simulate", {"--like", "--output", "--samples", "--seed"}),
    ],
)
def test_the_flags_are_few_and_frozen(command: str, flags: set[str]) -> None:
    help_text = "\n".join(said(command, "--help"))
    assert set(re.findall(r"^│[ *]+(--[a-z-]+)", help_text, re.MULTILINE)) == {"--help", *flags}


def test_the_commands_are_four() -> None:
    assert re.findall(r"^│ (\w+) ", data("--help").stdout, re.MULTILINE) == ["prepare", "import", "show", "simulate"]


def test_simulate_says_what_it_wrote(tmp_path: Path) -> None:
    lines = said("simulate", "--like", "mosi", "--samples", 60, "--output", tmp_path)
    path = tmp_path / "mosi_data.pkl"
    # 60 samples of 50 steps with 300 float32 and 25 float64 features: 4.2 MB.
    assert 4.2e6 < path.stat().st_size < 4.3e6
    assert lines[-1] == f"{path}: 60 simulated samples like mosi's, 4 MB"
    assert all(re.fullmatch(r"mosi_data\.pkl: writing, [1-4] of 4 MB", line) for line in lines[:-1])
    assert lines[-2] == "mosi_data.pkl: writing, 4 of 4 MB"


def test_simulate_draws_by_its_seed(tmp_path: Path) -> None:
    for seed in (0, 1):
        said("simulate", "--like", "mosi", "--samples", 6, "--output", tmp_path / str(seed), "--seed", seed)
    said("simulate", "--like", "mosi", "--samples", 6, "--output", tmp_path / "default")
    contents = [(tmp_path / name / "mosi_data.pkl").read_bytes() for name in ("default", "0", "1")]
    assert contents[0] == contents[1] != contents[2]


def test_prepare_says_how_far_it_is_and_what_came_out(simulated: Path, tmp_path: Path) -> None:
    lines = said("prepare", "--root", simulated, "--datasets", "mosi", "--output", tmp_path)
    raw = pickle.loads((simulated / "mosi_data.pkl").read_bytes())
    sizes = "/".join(str(int(np.any(raw[split]["text"], axis=(1, 2)).sum())) for split in ("train", "valid", "test"))
    assert lines == [
        "mosi_data.pkl: reading, 4 of 4 MB",
        "mosi_data.pkl: converting, 2 of 4 MB",  # 35 of the 60 samples are train's
        "mosi_data.pkl: converting, 4 of 4 MB",
        f"mosi: prepared from mosi_data.pkl, simulated data, {sizes} samples, vision 20 + audio 5 + text 300, "
        f"label >= 0 is positive",
        f"next: s3ray sweep full_grid --data {tmp_path}",
    ]


def test_prepare_takes_all_files_that_are_there_and_reuses_them(simulated: Path, tmp_path: Path) -> None:
    first = said("prepare", "--root", simulated, "--output", tmp_path)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    second = said("prepare", "--root", simulated, "--output", tmp_path)
    results = [line for line in first if " samples, " in line]
    assert [line.split(" from ")[0] for line in results] == ["mosi: prepared", "mustard: prepared"]
    assert results[1].endswith("vision 371 + audio 81 + text 300, label 1 is positive, 0 or -1 negative")
    assert [line for line in second if " samples, " in line] == [
        line.replace(": prepared ", ": was prepared already ") for line in results
    ]
    assert not any("converting" in line for line in second)
    assert written == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_prepare_writes_beside_the_files_unless_told(by_hand: Path) -> None:
    assert said("prepare", "--root", by_hand)[-1] == f"next: s3ray sweep full_grid --data {by_hand}"
    assert Dataset.open(by_hand / "mosi").name == "mosi"


@pytest.mark.parametrize(
    ("flags", "labels", "text", "facts"),
    [
        ([], [1, 0, 1], [1, 1], "label >= 0 is positive; raw scale"),
        (["--neutral", "negative"], [0, 0, 1], [1, 1], "label > 0 is positive; raw scale"),
        (["--z-norm"], [1, 0, 1], [0, 0], "label >= 0 is positive; z-normalised"),
    ],
)
def test_the_options_of_prepare_count(
    flags: list[str], labels: list[int], text: list[float], facts: str, by_hand: Path
) -> None:
    said("prepare", "--root", by_hand, *flags)
    opened = Dataset.open(by_hand / "mosi")
    assert opened.train.labels.tolist() == labels
    assert opened.train.modalities["text"].values[:2, 0].tolist() == text  # the first sample
    assert [line.strip() for line in said("show", by_hand) if "is positive" in line] == [facts]


def test_warnings_are_shown_every_time(by_hand: Path) -> None:
    warning = f"warning: {by_hand / 'mosi_data.pkl'}: {WARNING}"
    assert warning in said("prepare", "--root", by_hand)
    assert warning in said("prepare", "--root", by_hand)
    assert f"  warning: {WARNING}" in said("show", by_hand)


def test_show_puts_what_was_read_beside_what_is_known(by_hand: Path) -> None:
    said("prepare", "--root", by_hand)
    lines = said("show", by_hand)
    assert lines[0] == "mosi: multibench data"
    assert lines[3] == "  features: vision 2, audio 1, text 1"
    fingerprint = Dataset.open(by_hand / "mosi", ("vision", "text")).fingerprint()[:12]
    assert lines[4] == f"  fingerprint {fingerprint} (vision + text); all files are as they were prepared"
    # samples, known, without text, steps, positive, neutral, majority class, truncated, replaced in each modality
    rows = {cells[0]: cells[1:] for cells in map(str.split, lines[6:9])}
    assert rows == {
        "train": ["3", "1284", "1", "1/2/4", "66.7%", "1", "66.67%", "0", "2", "1", "0"],
        "valid": ["2", "229", "0", "2/2.5/3", "0.0%", "0", "0.00%", "0", "0", "0", "0"],
        "test": ["1", "686", "0", "4/4/4", "100.0%", "0", "100.00%", "0", "0", "0", "0"],
    }
    assert "  sizes differ from the published file's 1284/229/686" in lines


def test_show_does_not_set_simulated_data_beside_the_paper(prepared: Path) -> None:
    lines = said("show", prepared)
    assert [line for line in lines if line.endswith(" data")] == ["mosi: simulated data", "mustard: simulated data"]
    assert lines.count("  simulated data are not compared with the paper's means") == 2
    assert not any("printed means" in line for line in lines)


def test_show_cuts_no_number_in_a_terminal_of_80_columns(by_hand: Path) -> None:
    said("prepare", "--root", by_hand)
    lines = said("show", by_hand, columns=80)
    assert not any("…" in line for line in lines)
    assert any("1284" in line and "66.67%" in line for line in lines)


def test_show_names_damage_and_ends_with_2(simulated: Path, tmp_path: Path) -> None:
    said("prepare", "--root", simulated, "--output", tmp_path)
    path = tmp_path / "mosi" / "valid.text.values.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = data("show", tmp_path)
    assert result.exit_code == 2
    assert result.stderr == f"error: {tmp_path}: mosi damaged; delete and prepare again\n"
    assert "; DAMAGED: valid.text.values\n" in result.stdout
    assert "mustard: simulated data" in result.stdout  # the others are shown all the same
    assert result.stdout.count("all files are as they were prepared") == 1


def test_show_of_a_dataset_that_cannot_be_opened(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "mosi").mkdir()
    (tmp_path / "mosi" / "manifest.json").write_text("{")
    assert_refused(data("show", tmp_path), f"{tmp_path / 'mosi'}/manifest.json: damaged", "prepare the dataset again")


def test_a_prepared_folder_is_planned_at_the_papers_scale(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("batch_sizes = [8]\n[dataset.mustard]\nbatch_sizes = [4, 6]\n")
    arguments = ["--data", prepared, "--config", tmp_path / "config.toml", "--storage", tmp_path / "store"]
    both = plan(*arguments)
    assert {name: (entry["kind"], entry["scale"]) for name, entry in both["datasets"].items()} == {
        "mosi": ("simulated", "paper"),
        "mustard": ("simulated", "paper"),
    }
    one = plan(*arguments, "--datasets", "mosi")
    # Mustard has two batch sizes, mosi one.
    assert both["cells"] == {"total": 3 * one["cells"]["total"], "cached": 0, "to_run": 3 * one["cells"]["total"]}
    assert one["datasets"] == {"mosi": both["datasets"]["mosi"]}
    opened = Dataset.open(prepared / "mosi", ("vision", "text"))
    assert one["datasets"]["mosi"]["fingerprint"] == opened.fingerprint()
    assert one["datasets"]["mosi"]["samples"] == {name: len(split) for name, split in opened.splits.items()}
    other = plan(*arguments, "--datasets", "mosi", "--modalities", "audio,text")
    assert other["datasets"]["mosi"]["fingerprint"] == Dataset.open(prepared / "mosi", ("audio", "text")).fingerprint()
    mixed = plan(*arguments, "--datasets", "digits,mosi", "--scale", "smoke")
    assert {name: entry["scale"] for name, entry in mixed["datasets"].items()} == {"digits": "smoke", "mosi": "smoke"}
    assert not (tmp_path / "store").exists()


def test_a_plan_over_files_that_are_not_prepared_says_how(simulated: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["plan", str(FULL_GRID), "--data", str(simulated), "--storage", str(tmp_path)])
    assert_refused(result, "mosi_data.pkl is not prepared; run s3ray data prepare --root")


def assert_refused(result: Result, *fragments: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    for fragment in fragments:
        assert fragment in line


def test_an_unknown_dataset_names_the_nearest(simulated: Path, tmp_path: Path) -> None:
    message = "unknown dataset 'mozi'; did you mean 'mosi'? known: mosei, mosi, mustard, ur_funny"
    assert_refused(data("prepare", "--root", simulated, "--datasets", "mustard,mozi"), message)
    assert_refused(data("simulate", "--like", "mozi", "--output", tmp_path), message)
    assert list(tmp_path.iterdir()) == []
    assert sorted(path.name for path in simulated.iterdir()) == ["mosi_data.pkl", "sarcasm.pkl"]


def test_a_dataset_whose_file_is_missing(simulated: Path, tmp_path: Path) -> None:
    result = data("prepare", "--root", simulated, "--datasets", "mosi,ur_funny", "--output", tmp_path)
    assert_refused(result, f"--root {simulated}: holds no humor.pkl or humor.hdf5; put ur_funny's file there")
    assert list(tmp_path.iterdir()) == []  # mosi was not begun


def test_a_root_without_files(tmp_path: Path) -> None:
    usual = "mosei_senti_data.pkl, mosi_data.pkl, humor.pkl, sarcasm.pkl"
    assert_refused(data("prepare", "--root", tmp_path), f"--root {tmp_path}: holds none of {usual}; put")


@pytest.mark.parametrize("root", ["absent", "file"])
def test_a_root_that_is_no_folder(root: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_refused(data("prepare", "--root", tmp_path / root), f"--root {tmp_path / root}: not a folder; give")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "holds no prepared dataset; run s3ray data prepare --root"),
        ("absent", "absent: no such folder or file; give"),
        ("mosi_data.pkl", "mosi's file of MultiBench, not an .npz; run s3ray data prepare --root"),
        ("notes.csv", "CSV, not an .npz of arrays; run s3ray data import "),
    ],
)
def test_show_of_nothing_that_it_can_show(path: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "mosi_data.pkl").touch()
    (tmp_path / "notes.csv").write_text("a,b")
    assert_refused(data("show", tmp_path / path), words)


def _own(**changes: Any) -> dict[str, Any]:
    """30 / 20 / 10 samples: a of 1 to 3 steps with 2 features, b of 4 features; classes 0 and 1."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, n in (("train", 30), ("valid", 20), ("test", 10)):
        arrays |= {f"{split}_a": rng.normal(size=(n, 3, 2)), f"{split}_a_length": np.arange(n) % 3 + 1}
        arrays |= {f"{split}_b": rng.normal(size=(n, 4)), f"{split}_label": np.arange(n) % 2}
    return arrays | changes


@pytest.fixture
def mixed(simulated: Path, tmp_path: Path) -> Path:
    """Holds good.npz, odd.npz (b is zeros in test), bad.npz, a prepared mosi and a damaged manifest of mustard's."""
    said("prepare", "--root", simulated, "--datasets", "mosi", "--output", tmp_path)
    np.savez(tmp_path / "good.npz", **_own())
    np.savez(tmp_path / "odd.npz", **_own(test_b=np.zeros((10, 4))))
    np.savez(tmp_path / "bad.npz", **{key.replace("label", "labels"): value for key, value in _own().items()})
    (tmp_path / "mustard").mkdir()
    (tmp_path / "mustard" / "manifest.json").write_text("[]")
    return tmp_path


ODD = "b is all zeros in every sample of test: it says nothing there"


def test_show_takes_npz_files_one_and_many(mixed: Path) -> None:
    lines = said("show", mixed / "good.npz")
    assert lines[0] == f"{mixed / 'good.npz'}: user data"
    assert "  train_a: float64 of shape (30, 3, 2)" in lines
    assert any(line.startswith("  features: a 2, b 4; 2 classes; fingerprint ") for line in lines)
    (row,) = [line.split() for line in lines if line.startswith("  train  ")]
    assert row == ["train", "30", "1/2/3", "1/1/1", "0:", "15,", "1:", "15", "50.00%"]
    assert not any("warning" in line for line in lines)
    both = said("show", mixed / "good.npz", mixed / "odd.npz", mixed / "mosi")
    assert f"  warning: {ODD}" in both
    assert "mosi: simulated data" in both


def test_show_takes_any_number_of_modalities(tmp_path: Path) -> None:
    third = {
        f"{split}_c": np.ones((n, 2)) * np.arange(n)[:, None]
        for split, n in (("train", 30), ("valid", 20), ("test", 10))
    }
    np.savez(tmp_path / "three.npz", **_own(**third))
    lines = said("show", tmp_path / "three.npz")
    assert any(line.startswith("  features: a 2, b 4, c 2; 2 classes; fingerprint ") for line in lines)
    (row,) = [line.split() for line in lines if line.startswith("  train  ")]
    assert row[:5] == ["train", "30", "1/2/3", "1/1/1", "1/1/1"]


def test_show_says_what_would_be_complained_of(mixed: Path) -> None:
    result = data("show", mixed / "bad.npz", mixed / "good.npz")
    assert_refused(result, "no key train_label; did you mean train_labels? rename it, and valid_labels, test_labels")
    assert "  train_labels: int64 of shape (30,)" in result.stdout
    assert "train_label: int64 of shape (30,)" in result.stdout  # of good.npz


def test_show_of_a_folder_shows_the_good_ones_beside_the_bad(mixed: Path) -> None:
    result = data("show", mixed)
    assert result.exit_code == 2
    assert [line.partition(": damaged (")[0].partition(": no key")[0] for line in result.stderr.splitlines()] == [
        f"error: {mixed / 'mustard' / 'manifest.json'}",
        f"error: {mixed / 'bad.npz'}",
    ]
    assert "mosi: simulated data" in result.stdout
    assert f"{mixed / 'good.npz'}: user data" in result.stdout
    assert f"  warning: {ODD}" in result.stdout


def test_a_bad_one_in_a_folder_does_not_stop_the_good_ones(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("batch_sizes = [8]\n")
    arguments = ["plan", str(FULL_GRID), "--data", str(mixed), "--storage", str(tmp_path / "store")]
    arguments += ["--scale", "smoke", "--config", str(tmp_path / "c.toml")]
    named = CliRunner().invoke(app, [*arguments, "--datasets", "good,odd", "--format", "json"])
    assert (named.exit_code, named.stderr) == (0, "")
    told = {name: entry["warnings"] for name, entry in json.loads(named.stdout)["datasets"].items()}
    few = "10 test samples can tell little: of an accuracy of 75%, 27 points either way stay open (95% interval), "
    few += "whatever the number of seeds"
    assert told == {"good": [few], "odd": [ODD, few]}
    every = CliRunner().invoke(app, arguments)
    assert every.exit_code == 0, every.output
    assert [line.split(": ")[1] for line in every.stderr.splitlines()] == [
        f"{mixed / 'mustard' / 'manifest.json'}",
        f"{mixed / 'bad.npz'}",
    ]
    assert all(line.startswith("warning: ") for line in every.stderr.splitlines())
    assert every.stderr.count("(left out; going on with mosi, good, odd)") == 2
    assert f"  warning: odd: {ODD}\n" in every.stdout
    assert_refused(CliRunner().invoke(app, [*arguments, "--datasets", "good,bad"]), "bad.npz: no key train_label")


def test_prepare_prepares_the_good_files_beside_the_bad(simulated: Path, tmp_path: Path) -> None:
    (tmp_path / "humor.pkl").write_text("<html>")
    (tmp_path / "mosei_senti_data.pkl").touch()
    (tmp_path / "sarcasm.pkl").symlink_to(simulated / "sarcasm.pkl")
    result = data("prepare", "--root", tmp_path)
    assert result.exit_code == 2
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        str(tmp_path / "mosei_senti_data.pkl"),
        str(tmp_path / "humor.pkl"),
    ]
    assert Dataset.open(tmp_path / "mustard").kind == "simulated"
    assert result.stdout.splitlines()[-1] == f"next: s3ray sweep full_grid --data {tmp_path}"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["mosi_data.pkl.gz"], "found mosi_data.pkl.gz, unpack it: (cd "),
        (["Humor.pkl", "notes.txt"], "found Humor.pkl, rename it"),
        (["mine.npz"], "mine.npz needs no preparing: give --data "),
        (["notes.txt"], "put MultiBench's files there"),
    ],
)
def test_a_root_with_something_else_says_what_to_do_with_it(files: list[str], words: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(gzip.compress(pickle.dumps(1)) if name.endswith("gz") else b"\x80\x04")
    assert_refused(data("prepare", "--root", tmp_path), "holds none of mosei_senti_data.pkl", words)


def test_a_root_that_is_prepared_already(prepared: Path, simulated: Path) -> None:
    assert_refused(data("prepare", "--root", prepared), "mosi, mustard is prepared already: give --data ")
    assert_refused(data("prepare", "--root", prepared / "mosi"), "it is prepared already, look at it with s3ray data")
    assert_refused(data("prepare", "--root", simulated / "sarcasm.pkl"), f"give its folder: --root {simulated}")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("mine={0}", "a folder, not an .npz; for all that it holds, give --data {0}"),
        ("mine={0}/mosi", "a folder, not an .npz; it is prepared data: give --data {0} --datasets mosi"),
        ("mine={0}/god.npz", "no such file; did you mean good.npz? check --dataset mine=PATH"),
        ("mine={0}/table.csv", "CSV, not an .npz of arrays; run s3ray data import "),
        ("mine={0}/huge.npz", "huge.npz: train_b holds 1 values beyond ±1e+18, such as 3e+38, whose squares overflow"),
    ],
)
def test_what_a_dataset_is_given_in_place_of_an_npz(given: str, words: str, mixed: Path, tmp_path: Path) -> None:
    (mixed / "table.csv").write_text("label,a\n1,2\n")
    huge = _own()
    huge["train_b"][0, 0] = 3e38
    np.savez(mixed / "huge.npz", **huge)
    arguments = ["plan", str(FULL_GRID), "--dataset", given.format(mixed), "--storage", str(tmp_path / "store")]
    assert_refused(CliRunner().invoke(app, arguments), words.format(mixed))


def test_a_file_that_is_no_such_file(tmp_path: Path) -> None:
    (tmp_path / "sarcasm.pkl").write_text("<html>Sign in to continue</html>")
    assert_refused(data("prepare", "--root", tmp_path), f"{tmp_path / 'sarcasm.pkl'}: damaged or no pickle", "download")
    assert [path.name for path in tmp_path.iterdir()] == ["sarcasm.pkl"]


def test_a_file_under_another_datasets_name(simulated: Path, tmp_path: Path) -> None:
    (tmp_path / "mosi_data.pkl").symlink_to(simulated / "sarcasm.pkl")
    result = data("prepare", "--root", tmp_path)
    assert_refused(result, "are mustard's layout (not mosi's)", "if it is mustard's, name it sarcasm.pkl, else")
    assert [path.name for path in tmp_path.iterdir()] == ["mosi_data.pkl"]


def test_simulate_overwrites_nothing(simulated: Path) -> None:
    before = (simulated / "mosi_data.pkl").read_bytes()
    result = data("simulate", "--like", "mosi", "--output", simulated)
    assert_refused(result, "mosi_data.pkl: is there already and may be the real one; choose another --output")
    assert (simulated / "mosi_data.pkl").read_bytes() == before


def test_simulate_needs_samples_for_every_split(tmp_path: Path) -> None:
    result = data("simulate", "--like", "mosi", "--samples", 5, "--output", tmp_path)
    assert_refused(result, "--samples 5: give at least 6, two for each split")


def test_outputs_that_cannot_be_written(simulated: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = data("prepare", "--root", simulated, "--output", tmp_path / "file")
    assert_refused(result, f"{tmp_path / 'file'}: cannot be written (", "choose another --output")


@pytest.mark.parametrize("place", ["file", "file/deeper"])
def test_simulate_into_something_that_is_no_folder(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = data("simulate", "--like", "mosi", "--samples", 6, "--output", tmp_path / place)
    assert_refused(result, str(tmp_path / place), "choose another --output")
