"""`s3ray why` and `s3ray config` as users meet them."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import FIGURE3, SWEEPS, assert_one_sentence, s3ray
from s3ray.cli.options import resolve
from s3ray.data import load_sources, resolve_sources
from s3ray.settings import settings_for
from s3ray.sweep import load_sweep
from toy_runs import NO_FILES, commit_all

FIGURE5 = SWEEPS / "table1_figure5.py"
SMALL = "granularities = [8]\nseeds = [0, 1]\n[sparsification]\nratios = [1.0, 0.5]\n"


@pytest.fixture(scope="module", name="place")
def _place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with two finished cells of digits, and beside it the configuration that asks for them."""
    place = tmp_path_factory.mktemp("why")
    (place / "small.toml").write_text(SMALL)
    (place / "long.toml").write_text("[specialization.optimizer]\nepochs = 20\n")
    (place / "more.toml").write_text("seeds = [0, 1, 2]\n")
    small = [str(place / "small.toml")]
    asked = resolve(load_sweep(FIGURE5), "digits", None, None, None, None, str(place / "store"), small)
    commit_all(asked.store, [(run, NO_FILES) for cell in asked.plan.cells for run in cell.runs])
    return place


def asked(command: str, place: Path, *options: object, configs: tuple[str, ...] = (), cell: str = "") -> Any:
    files = [part for name in ("small", *configs) for part in ("--config", place / f"{name}.toml")]
    name = [cell] if cell else []
    return s3ray(command, FIGURE5, *name, "--datasets", "digits", "--storage", place / "store", *files, *options)


def test_a_plan_says_why_in_few_lines(place: Path) -> None:
    assert "to run," not in asked("plan", place).stdout
    assert (
        "2 to run, because specialization.optimizer.epochs 16 → 20\n" in asked("plan", place, configs=("long",)).stdout
    )
    assert "1 to run: new, seed 2\n" in asked("plan", place, configs=("more",)).stdout


def test_why_of_a_sweep_is_a_table_of_reasons(place: Path) -> None:
    lines = asked("why", place, configs=("more",)).stdout.splitlines()
    assert lines[0].split() == ["cells", "why", "such", "as"]
    assert lines[1].split()[:5] == ["1", "new,", "seed", "2", "digits"]
    assert lines[2].split()[:3] == ["2", "cached:", "committed"]
    told = json.loads(asked("why", place, "--format", "json", configs=("long", "more")).stdout)
    assert [(reason["state"], len(reason["cells"])) for reason in told["reasons"]] == [("to run", 2), ("to run", 1)]
    assert told["notes"] == []


def test_why_of_a_cell(place: Path) -> None:
    lines = asked("why", place, configs=("long",), cell="seed=1").stdout.splitlines()
    assert lines[0] == "digits χ=8 batch=64 seed=1"
    assert lines[1] == "  to run: specialization: specialization.optimizer.epochs 16 → 20"
    assert lines[2].startswith("  nearest: specialization ")
    assert lines[3].endswith(" stage runs that stand on these")
    assert lines[4].startswith("  cached: untrained, reference: committed ")
    assert asked("why", place, cell="digits χ=8 batch=64 seed=1").stdout.splitlines()[1].startswith("  cached: spec")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("χ=8", "χ=8: may be each of digits χ=8 batch=64 seed=0, digits χ=8 batch=64 seed=1; name more of it"),
        (
            "digits χ=8 batch=64 seed=7",
            "is no name of a cell of table1_figure5; the nearest: digits χ=8 batch=64 seed=",
        ),
    ],
)
def test_a_cell_that_is_none_or_several(place: Path, cell: str, message: str) -> None:
    assert_one_sentence(asked("why", place, cell=cell), message)


def test_why_where_nothing_is_computed(tmp_path: Path) -> None:
    tables = SWEEPS / "tables4_5_parameters.py"
    assert (
        s3ray("why", tables, "--storage", tmp_path / "store").stdout == "nothing is computed, so nothing is missing\n"
    )
    assert "never computed" in s3ray("why", FIGURE3, "--datasets", "digits", "--storage", tmp_path / "store").stdout
    assert not (tmp_path / "store").exists()


def test_config_prints_what_config_takes(place: Path) -> None:
    printed = s3ray("config", "digits", "--config", place / "small.toml")
    assert printed.exit_code == 0, printed.output
    assert printed.stdout.startswith("# digits, scale smoke.")
    tables = tomllib.loads(printed.stdout)
    assert settings_for("digits", "smoke", tables) == settings_for("digits", "smoke", tomllib.loads(SMALL))
    assert tomllib.loads(s3ray("config", "mosi", "--scale", "smoke").stdout)["model"]["width"] == 32


def test_config_of_own_data_has_what_they_need(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split in ("train", "valid", "test"):
        arrays |= {f"{split}_a": rng.normal(size=(40, 3)), f"{split}_label": np.arange(40) % 2}
    np.savez(tmp_path / "own.npz", **arrays)
    given = f"own={tmp_path / 'own.npz'}"
    tables = tomllib.loads(s3ray("config", "own", "--dataset", given).stdout)
    data = load_sources(resolve_sources([], [given], None))[0]["own"]
    assert tables["batch_sizes"] == [16]
    assert settings_for("own", "smoke", tables, data=data) == settings_for("own", "smoke", data=data)
    assert_one_sentence(
        s3ray("config", "own"), "config: unknown dataset 'own'; .*known: .*; of your own give --dataset"
    )
    assert_one_sentence(s3ray("config", "digit"), "did you mean 'digits'?")
