"""The full grid: Table 1, Figures 3, 5 and 6 of the paper, from one set of Specializations.

dataset × granularity χ × batch size × seed; after each Specialization a pruning curve without Selection
(Figure 6) and one after it (Table 1, Figures 3 and 5).

Expected, with the MultiBench files at `--scale paper` (Table 1, χ = 8, mean accuracy of three seeds):

                Specialization   + Selection   best p in 0.9 … 0.1 (oracle: chosen on test)
    mosei            75.78          77.36        77.95 at p 0.5
    mosi             63.56          64.29        66.13 at p 0.7
    ur_funny         63.61          63.52        64.87 at p 0.2
    mustard          58.70          61.59        62.56 at p 0.8

On the embedded data at `--scale smoke` it takes some minutes on two cores; see README.md for its curves.
`s3ray plan sweeps/full_grid.py` says what it costs for the data at hand.
"""

from collections.abc import Iterator

from s3ray.config import Cell
from s3ray.sweep import Study, Sweep

GRANULARITIES = (2, 4, 8)
SEEDS = (0, 1, 2)


def cells(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        for granularity in GRANULARITIES:
            for batch_size in study.batch_sizes(dataset):
                for seed in SEEDS:
                    yield study.cell(dataset, granularity, batch_size, seed)


SWEEP = Sweep(name="full_grid", cells=cells, branches=("none", "suff+min"))

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
