"""Stores filled with results that are known by formula (made_up.py), each built once."""

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s3ray.results import Results
from s3ray.sweep import load_sweep, union

SWEEPS = Path(__file__).parents[2] / "sweeps"


@pytest.fixture
def without_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made but not painted, which takes most of the time, where a test looks at what lies beside them."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda figure, target, **_: target.write(b"painted"))


@pytest.fixture(scope="session")
def made_up() -> Any:
    """The module made_up.py."""
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("made_up.py"))))


def filled(made_up: SimpleNamespace, sweep: Any, datasets: Any, folder: Any, overrides: Any) -> Any:
    plan, store = made_up.finished(sweep, datasets, folder, overrides=overrides)
    return SimpleNamespace(plan=plan, store=store, results=Results.collect(plan, store))


@pytest.fixture(scope="session")
def embedded(made_up: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The full grid at five ratios over digits, batch sizes 64 and 128, and latent_factors, 64."""
    overrides = {
        "sparsification": {"ratios": [1.0, 0.9, 0.5, 0.4, 0.1]},
        "dataset": {"latent_factors": {"batch_sizes": [64]}},
    }
    sweep = load_sweep(SWEEPS / "full_grid.py")
    return filled(made_up, sweep, ["digits", "latent_factors"], tmp_path_factory.mktemp("embedded"), overrides)


@pytest.fixture(scope="session")
def multibench(made_up: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tables 1 to 3 over MOSI, with the numbers that the paper prints."""
    parts = ("table1_figure5", "table2_methods", "table3_selection_losses")
    sweep = union("tables", [load_sweep(SWEEPS / f"{part}.py") for part in parts])
    return filled(made_up, sweep, ["mosi"], tmp_path_factory.mktemp("multibench"), {"batch_sizes": [256]})
