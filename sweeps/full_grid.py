"""The full grid: every exhibit of the paper, at every batch size, from one set of Specializations.

dataset × granularity χ × batch size × seed, with all Selection losses at χ = 8, and every prior method. What each
exhibit should give stands in its own file.

Costs, with the four MultiBench files at `--scale paper`: 144 Specializations (4 datasets × 3 χ × 4 batch sizes ×
3 seeds), 336 trainings of dense encoders; `s3ray plan sweeps/full_grid.py --data DIR` shows them beside the naive
count and says how long they take. On the embedded data, some fifteen minutes on two cores.
"""

from pathlib import Path

from s3ray.sweep import load_sweep, union

PARTS = (
    "table1_figure5",
    "figure3_batch_size",
    "table2_methods",
    "table3_selection_losses",
    "figure6_no_selection",
    "figures7_10_router_entropy",
    "tables4_5_parameters",
    "factors",
)

SWEEP = union("full_grid", [load_sweep(Path(__file__).with_name(f"{part}.py")) for part in PARTS])

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
