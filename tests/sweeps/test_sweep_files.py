"""Every file of sweeps/: it loads, expands to the cells it promises, and its identities match the golden file.

After a wanted change of identities: `S3RAY_UPDATE_GOLDEN=1 python -m pytest tests/sweeps`.
"""

import json
import os
from pathlib import Path

import pytest

from s3ray.config import default_scale, settings_for
from s3ray.store import Store
from s3ray.sweep import DataFacts, Study, StudyDataset, load_sweep, make_plan

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "sweeps").glob("*.py"))
GOLDEN = Path(__file__).with_name("golden.json")
# Cells over one paper dataset and one embedded dataset: 3 χ × (4 + 2) batch sizes × 3 seeds.
EXPECTED_CELLS = {"full_grid": 3 * (4 + 2) * 3}


def study():
    def entry(name):
        facts = DataFacts(
            fingerprint=f"fingerprint of {name}",
            kind="user",
            features={"vision": 35, "text": 300},
            classes=2,
            samples={"train": 1000, "valid": 100, "test": 100},
            tokens={"train": 50_000, "valid": 5_000, "test": 5_000},
        )
        return StudyDataset(facts, default_scale(name), settings_for(name, default_scale(name)))

    return Study({name: entry(name) for name in ("mosei", "digits")})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_cells_and_identities(path, tmp_path):
    sweep = load_sweep(path)
    assert sweep.name == path.stem
    plan = make_plan(sweep, study(), Store(str(tmp_path)))
    assert len(plan.cells) == EXPECTED_CELLS[path.stem]
    assert len({cell.specialization.identity for cell in plan.cells}) == len(plan.cells)
    identities = {
        f"{cell.cell} {run.stage} {number}": run.identity[:16]
        for cell in plan.cells
        for number, run in enumerate(cell.runs)
        if cell.cell.seed == 0
    }
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("S3RAY_UPDATE_GOLDEN"):
        golden[path.stem] = identities
        GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
    assert golden[path.stem] == identities
