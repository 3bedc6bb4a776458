"""Table 3: what the two terms of the Selection loss do, at χ = 8.

dataset × Selection loss {none, suff+min, suff, min} × seed, all four from one Specialization.

Expected, with the MultiBench files at `--scale paper` (Table 3, mean accuracy of three seeds):

                mosei    mosi   ur_funny   mustard
    none        75.78    63.56    63.61     58.70
    suff+min    77.36    64.29    63.52     61.59
    suff        77.53    65.31    64.08     61.11
    min         77.07    66.67    64.18     60.63

Costs no Specialization that Table 1 does not have; 24 Selections more on the four datasets, on the embedded data
some ten seconds each.
"""

from collections.abc import Iterator

from s3ray.sweep import Cell, Study, Sweep


def cells(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        for batch_size in study.usual_batch_sizes(dataset):
            for seed in study.seeds(dataset):
                yield study.cell(dataset, 8, batch_size, seed)


SWEEP = Sweep(
    name="table3_selection_losses",
    cells=cells,
    branches=("none", "suff+min", "suff", "min"),
    exhibits=("table3",),
)

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
