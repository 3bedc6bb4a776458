"""The pages: every command in them is one that there is, and does what it says; the site is built without a warning.

The pages of `cluster/` have tests of their own (tests/cluster/test_cluster_files.py).
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import typer
from scipy.io import savemat

import calls
from command_line import s3ray, sweep_here
from s3ray.cli import app
from s3ray.results import Results
from s3ray.sweep import Study, load_sweep, make_plan

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Commands of other programs, which the pages of `cluster/` try.
ELSEWHERE = {"ray", "cp", "grafana", "optuna-dashboard", "pip", "aws", "gcloud", "kubectl", "helm", "docker"}


@dataclass(frozen=True)
class Shown:
    """A command as a page has it: its words, and whether it stands in a block, which is to be typed, or in the text."""

    words: tuple[str, ...]
    in_block: bool


def commands(page: Path) -> Iterator[Shown]:
    """Every command in the page's blocks, and in its text as `s3ray …`; of output nothing."""
    text = page.read_text()
    fences = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
    blocks = [block for language, block in fences.findall(text) if language in ("", "sh", "bash")]
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines = [re.sub(r"^ray job submit .*? -- ", "", line) for line in lines]
    shown = any(line.startswith("$ ") for line in lines)
    typed = [line.removeprefix("$ ") for line in lines if re.match(r"\$ |s3ray |python |make |\.venv/bin/", line)]
    prose = fences.sub("", text)
    told = [
        line
        for line in re.findall(r"`([^`\n]+)`", prose)
        if re.match(r"((s3ray|make) [a-z-]|python sweeps/\w+\.py)", line)
    ]
    assert typed or not shown
    for line in [*typed, *told]:
        words = tuple(word for word in shlex.split(line, comments=True) if word not in ("…", "..."))
        yield Shown(words, line in typed)


def test_every_page_is_looked_at() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 40


def leaf(words: list[str]) -> tuple[set[str], list[str]]:
    """Options of the command that `s3ray` words name, and what is left of the words."""
    command = typer.main.get_command(app)
    words = list(words)
    while subcommands := getattr(command, "commands", None):
        assert {*words[:1]} <= subcommands.keys(), words
        command = subcommands[words.pop(0)]
    return {option for parameter in command.params for option in parameter.opts}, words


SWEEP_OPTIONS: dict[str, set[str]] = {}


def options_of(file: Path) -> set[str]:
    if file.name not in SWEEP_OPTIONS:
        text = sweep_here("--help", file=file).stdout
        SWEEP_OPTIONS[file.name] = set(re.findall(r"--[a-z][a-z-]+", text[text.index("Options") :]))
    return SWEEP_OPTIONS[file.name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_there_with_its_options(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for program, *words in (shown.words for shown in commands(page)):
        if program == "make":
            assert words[0] in targets, words
        elif Path(program).name == "s3ray":
            known, left = leaf(words)
            assert {word.partition("=")[0] for word in left if word.startswith("--")} <= known, (page.name, words)
        elif Path(program).name == "python" and words[0].startswith("sweeps/"):
            if (file := ROOT / words[0]).name != "FILE.py":
                asked = {word.partition("=")[0] for word in words if word.startswith("--")}
                assert asked - {"--help"} <= options_of(file), (page.name, words)
        else:
            assert program in ELSEWHERE, (page.name, program)


# Words of the pages that stand for something, and what stands for them in `place`; a large number is a small one there.
PLACEHOLDERS = {
    "CELL": "mosi seed=2",
    "URI": "storage",
    "s3://bucket/s3ray": "storage",
    "DIR": "files",
    "OUTPUT": "certificate",
    "sweeps/FILE.py": "sweeps/table1_figure5.py",
    "STORAGE/search/STUDY/best.toml": "tiny.toml",
    "S3.toml": "tiny.toml",
    "FOCAL.toml": "tiny.toml",
    "600": "60",
}
# By their first words: what cannot be typed here, and why. All else is.
NOT_TYPED = {
    ("make",): "builds an environment, starts Ray, or runs tests; its targets are looked up",
    ("s3ray", "tensorboard"): "serves until it is stopped; tests/execution/test_tensorboard.py has it",
    ("s3ray", "push"): "asks for a server; tests/results/test_tracking.py starts one",
    ("s3ray", "export"): "asks for a trained model, which made-up results have not; tests/test_export.py has it",
}


def typed(shown: Shown) -> list[str]:
    """What is typed for a command, without `s3ray`: a sweep is planned at tiny settings, since Ray would run it."""
    program, *words = shown.words
    if program == "python" or (words[:1] == ["sweep"] and words[1:]):
        name, *options = words if program == "python" else words[1:]
        known, _ = leaf(["plan"])
        kept, drops = [], False
        for word in options:
            if word.startswith("--"):
                drops = word not in known
            if not drops:
                kept.append(word)
        words = ["plan", name, *kept, "--config", "tiny.toml"]
    elif words[:2] == ["data", "import"]:
        words = [*words, "--overwrite"]
    return words


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home and working directory in which all is that the pages name: two studies, a failed cell, data, settings."""
    here = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        patch.setenv("HOME", str(here))
        patch.delenv("S3RAY_STORAGE", raising=False)
        # Painting takes most of a report's time, and tests/results sees to it.
        patch.setattr("matplotlib.figure.Figure.savefig", lambda figure, target, **_: target.write(b"painted"))
        shutil.copytree(ROOT / "sweeps", here / "sweeps")
        (here / "tiny.toml").write_text("seeds = [0]\ngranularities = [2]\nbatch_sizes = [8]\n")
        fill_storage(here / "storage")
        shutil.copytree(here / "storage", here / "s3ray")
        own_files(here)
        for words in (
            "data import image_train.npy image_test.npy text_train.npy text_test.npy label_train.npy label_test.npy "
            "--output mine.npz",
            "data simulate --like mosi --samples 60 --output files",
            "data prepare --root files",
        ):
            done = s3ray(*words.split())
            assert done.exit_code == 0, done.output
        (here / "path" / "to").mkdir(parents=True)
        shutil.copy(here / "mine.npz", here / "path" / "to" / "mine.npz")
        yield here


def fill_storage(storage: Path) -> None:
    """Two studies of MOSI with the numbers that the paper prints, made up; and a call that left a failed cell."""
    made_up = SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "results" / "made_up.py")))
    packages = b"torch==2.13.0\n"
    made_up.PROVENANCE["environment"] = sha256(packages).hexdigest()[:16]
    sweep = load_sweep(ROOT / "sweeps" / "table1_figure5.py")
    usual: dict[str, Any] = {"seeds": [0, 1], "granularities": [2], "sparsification": {"ratios": [1.0, 0.5]}}
    for changed in ({"specialization": {"temperature": 0.3}}, {}):
        plan, store = made_up.finished(sweep, ["mosi"], storage, overrides={**usual, **changed})
        Results.collect(plan, store).save(store)
    store.write(packages, "environments", f"{made_up.PROVENANCE['environment']}.txt")
    entry = plan.study.entries["mosi"]
    more = replace(entry, settings=replace(entry.settings, seeds=(0, 1, 2)))
    plan = make_plan(sweep, Study({"mosi": more}), store)
    _, ledger = calls.begun(store, plan)
    (cell,) = plan.pending
    ledger.error(cell, calls.attempted(ledger, cell), "DivergedError: the loss became nan", "the traceback")
    ledger.fail(cell, "DivergedError: the loss became nan")
    ledger.end()


def own_files(here: Path) -> None:
    """Data of 30 samples and two classes, in the files that the pages import."""
    n = 30
    drawn = np.random.default_rng(0)
    classes = np.arange(n) % 2
    words = np.array(["run", "sit"])[classes]
    subjects = [f"subject {i // 3}" for i in range(n)]
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = drawn.normal(size=(n, 4)), drawn.normal(size=(n, 5))
    savemat(here / "features.mat", {"X": cells, "Y": classes[:, None] + 1})
    columns = ["acc_x", "acc_y", "acc_z", "gyro_x", "gyro_y", "gyro_z"]
    table = pd.DataFrame(drawn.normal(size=(n, 6)), columns=columns)
    table.assign(activity=words, subject=subjects).to_csv(here / "table.csv", index=False)
    steps = pd.DataFrame(drawn.normal(size=(4 * n, 6)), columns=columns)
    repeated = {"t": np.tile(np.arange(4), n), "subject": np.repeat(subjects, 4), "label": np.repeat(words, 4)}
    steps.assign(trial=np.repeat(np.arange(n), 4), **repeated).to_csv(here / "sensors.csv", index=False)
    names = [f"s{i:02}" for i in range(n)]
    for folder in ("clips", "faces"):
        (here / folder).mkdir()
        for name in names:
            np.save(here / folder / f"{name}.npy", drawn.normal(size=(3, 2)))
    pd.DataFrame({"id": names, "emotion": words}).to_csv(here / "labels.csv", index=False)
    for split, part in (("train", slice(0, 20)), ("test", slice(20, n))):
        np.save(here / f"image_{split}.npy", drawn.normal(size=(n, 3, 4))[part])
        np.save(here / f"text_{split}.npy", drawn.normal(size=(n, 5))[part])
        np.save(here / f"label_{split}.npy", classes[part])


SHOWN = list(dict.fromkeys(shown for page in PAGES for shown in commands(page)))


def is_typed(shown: Shown) -> bool:
    words = (Path(shown.words[0]).name, *shown.words[1:])
    return not any(words[: len(first)] == first for first in NOT_TYPED)


@pytest.mark.slow
@pytest.mark.parametrize("shown", list(filter(is_typed, SHOWN)), ids=lambda shown: " ".join(shown.words))
def test_every_command_does_what_the_page_says(shown: Shown, place: Path) -> None:
    studies = dict(zip("AB", sorted(path.name for path in (place / "storage" / "results").iterdir()), strict=True))
    words: list[str] = []
    for word in typed(shown):
        stands_for = PLACEHOLDERS | studies | ({"DIR": "out"} if words[-1:] == ["--output"] else {})
        words += stands_for.get(word, word).split()
    done = s3ray(*words)
    if not shown.in_block and re.search(r"Missing (argument|option)|requires an argument", done.stderr):
        return  # the text speaks of the command, and does not say what to type
    assert done.exit_code == 0, (words, done.output)
    assert done.stdout.strip()


def test_what_stands_in_the_tables_is_on_a_page() -> None:
    words = {word for shown in SHOWN for word in shown.words}
    assert PLACEHOLDERS.keys() <= words
    assert all(any(shown.words[: len(first)] == first for shown in SHOWN) for first in NOT_TYPED)
    assert 30 < len(list(filter(is_typed, SHOWN))) < len(SHOWN)


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [Path(sys.executable).with_name("mkdocs"), "build", "--strict", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    for name in ("index", "settings", "columns", "commands", "equations", "exhibits", "aws", "benchmarks"):
        assert (tmp_path / f"{name}.html").is_file()
    assert "preservation_ratio" in (tmp_path / "columns.html").read_text()
    assert re.search(r"Eq|24", (tmp_path / "equations.html").read_text())


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
