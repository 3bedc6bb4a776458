"""Every file of sweeps/: it loads, expands to the cells it promises, and its identities match the golden file.

After a wanted change of identities: `S3RAY_UPDATE_GOLDEN=1 python -m pytest tests/sweeps`.
"""

import json
import os
import runpy
from pathlib import Path
from typing import Any

import pytest

from s3ray.data.facts import DataFacts
from s3ray.methods import METHODS, S3
from s3ray.settings import default_scale, settings_for
from s3ray.store import Store
from s3ray.sweep import Plan, Study, StudyDataset, Sweep, load_sweep, make_plan
from toy_runs import commit_all

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "sweeps").glob("*.py"))
GOLDEN = Path(__file__).with_name("golden.json")
# The prior methods that the sweeps ask for, and those whose factors are measured.
PRIOR, MEASURED = (
    runpy.run_path(str(ROOT / "sweeps" / f"{name}.py"))["METHODS"] for name in ("table2_methods", "factors")
)
P, M = len(PRIOR), len(MEASURED)
V = len(load_sweep(ROOT / "sweeps" / "table3_selection_losses.py").branches) - 2  # beside none and suff+min
# Over mosei with four batch sizes, digits and latent_factors with two each; 3 χ, 3 seeds.
EXPECTED_CELLS = {
    "table1_figure5": 3 * 3 * 3,
    "table1_oracle_gain": 0,
    "effect": 3 * 3 * 3,
    "figure3_batch_size": (4 + 2 + 2) * 3 * 3,
    "table2_methods": 3 * 3 * (1 + P),
    "table3_selection_losses": 3 * 3,
    "figure6_no_selection": 3 * 3 * 3,
    "figures7_10_router_entropy": 3 * 3 * 3,
    "tables4_5_parameters": 0,
    "table2_tuned": 3 * 3 * (1 + P),
    "search_weights": 3 * 3,  # the scale's own configuration
    "factors": 3 * (3 + M),  # latent_factors alone has known factors
    "modalities": 3 * 2 * 2 * 3,  # the smallest and the largest χ, ranked in two ways
    "missing_modalities": 3 * 3,  # the largest χ
    # As usual, and in every reading that changes a setting; at the smallest and the largest χ.
    "open_choices": (23 + 24 + 24) * 2 * 3,
    "full_grid": (4 + 2 + 2) * 3 * (3 + P),
}


def study(names: Any = ("mosei", "digits", "latent_factors"), **overrides: Any) -> Study:
    def entry(name: str) -> StudyDataset:
        facts = DataFacts(
            fingerprint=f"fingerprint of {name}",
            kind="user",
            features={"vision": 35, "text": 300},
            classes=2,
            samples={"train": 1000, "valid": 100, "test": 100},
            tokens={"train": 50_000, "valid": 5_000, "test": 5_000},
            mean_steps={"vision": 25.0, "text": 25.0},
            most_steps={"vision": 50, "text": 50},
            squares={"train": 2_500_000, "valid": 250_000, "test": 250_000},
            truth="truth" if name == "latent_factors" else None,
        )
        return StudyDataset(facts, default_scale(name), settings_for(name, default_scale(name), overrides))

    return Study({name: entry(name) for name in names})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_cells_and_identities(path: Path, tmp_path: Path) -> None:
    sweep = load_sweep(path)
    assert sweep.name == path.stem
    plan = make_plan(sweep, study(), Store(str(tmp_path)))
    assert len(plan.cells) == EXPECTED_CELLS[path.stem]
    assert len({cell.identity for cell in plan.cells}) == len(plan.cells)
    # Readings of what is done after training share it.
    assert sweep.readings or len({cell.training.identity for cell in plan.cells}) == len(plan.cells)
    for cell in plan.cells:
        known = path.stem in ("factors", "full_grid") and cell.cell.dataset == "latent_factors"
        known &= cell.cell.method in (S3, *MEASURED)
        for branch in cell.branches:  # of branches that another part alone asks for, such as Table 3's, they are not
            asked = cell.cell.method != S3 or branch.branch in ("none", "suff+min")
            assert bool(branch.factors) == (known and asked)
    assert all(counts["unique"] <= counts["naive"] for counts in plan.summary()["stages"].values())
    # Of a cell: all of its stage runs.
    identities = {str(cell.cell): cell.identity[:16] for cell in plan.cells if cell.cell.seed == 0}
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("S3RAY_UPDATE_GOLDEN"):
        golden[path.stem] = identities
        GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    assert golden[path.stem] == identities


def full_grid(names: Any) -> tuple[Sweep, Study]:
    return load_sweep(ROOT / "sweeps" / "full_grid.py"), study(names)


def test_the_full_grid_at_paper_scale_specializes_each_cell_once(tmp_path: Path) -> None:
    plan = make_plan(*full_grid(("mosei", "mosi", "ur_funny", "mustard")), Store(str(tmp_path)))
    stages = plan.summary()["stages"]
    # 4 datasets × 3 χ × 4 batch sizes × 3 seeds. Each curve would need its own: per dataset, batch size and seed, 6 of
    # Table 1, 6 of Figure 3, 2 of Table 2, one per variant of Table 3, 3 of Figure 6, 3 of Figures 7–10; the grid
    # has every batch size of Figure 3 once.
    assert stages["specialization"]["unique"] == 144
    assert stages["specialization"]["naive"] == 4 * 4 * 3 * (6 + 6 + 2 + (2 + V) + 3 + 3)
    # 3 χ with suff+min, and the other variants at χ = 8.
    assert stages["selection"]["unique"] == 4 * 4 * 3 * (3 + V)
    assert all(stages[method]["unique"] == 4 * 4 * 3 for method in PRIOR)
    # Of S3 without and with Selection at 3 χ, with its other variants at χ = 8; of prior methods, each output.
    outputs = sum(len(METHODS[method].outputs) for method in PRIOR)
    assert stages["probe"]["unique"] == 4 * 4 * 3 * (3 * 2 + V + outputs)
    # Nine ratios below 1, ranked and at random; and of each χ once no expert at all.
    assert stages["sparsification"]["unique"] == 4 * 4 * 3 * ((3 * 2 + V) * 2 * 9 + 3)
    assert stages["untrained"]["unique"] == 4 * 3 * 3  # whatever the batch size
    assert stages["reference"]["unique"] == 4


def test_variants_of_a_finished_table_1_train_no_specialization_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path))

    def plan(name: str) -> Plan:
        return make_plan(load_sweep(ROOT / "sweeps" / f"{name}.py"), study(), store)

    commit_all(store, [(run, {}) for cell in plan("table1_figure5").cells for run in cell.runs])
    to_run = {name: plan(name).summary()["stages"] for name in EXPECTED_CELLS if name != "full_grid"}
    for name in ("table3_selection_losses", "figure6_no_selection", "figures7_10_router_entropy"):
        assert to_run[name]["specialization"]["to_run"] == 0, name
    assert all(counts["to_run"] == 0 for counts in to_run["figure6_no_selection"].values())
    assert to_run["table3_selection_losses"]["selection"]["to_run"] == 3 * 3 * V
    assert to_run["table2_methods"]["specialization"]["to_run"] == 0
    assert all(counts["to_run"] == 0 for counts in to_run["search_weights"].values())


@pytest.mark.parametrize(
    ("overrides", "cells"),
    [
        ({"seeds": [0, 1, 2, 3]}, 2 * (3 + P)),  # 2 batch sizes, 3 χ and every prior method
        ({"granularities": [2, 4, 8, 16]}, 2 * 3),  # of dense encoders there is no other χ
        ({"batch_sizes": [64, 128, 32]}, 3 * (3 + P)),
        ({"seeds": [2, 1, 0], "granularities": [8, 4, 2]}, 0),
    ],
)
def test_a_finished_grid_grows_by_what_is_new(tmp_path: Path, overrides: Any, cells: Any) -> None:
    store, grid = Store(str(tmp_path)), load_sweep(ROOT / "sweeps" / "full_grid.py")
    finished = make_plan(grid, study(["digits"]), store)
    commit_all(store, [(run, {}) for cell in finished.cells for run in cell.runs])
    grown = make_plan(grid, study(["digits"], **overrides), store)
    old = {cell.cell for cell in finished.cells}
    assert len(grown.pending) == cells
    assert not old & {cell.cell for cell in grown.pending}
    assert grown.summary()["stages"]["reference"]["to_run"] == 0
