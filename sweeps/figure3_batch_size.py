"""Figure 3: pruning curves over batch sizes.

dataset × granularity χ × batch size × seed, with Selection; the paper shows mosei alone (`--datasets mosei`).

Expected (Section 6.1): curves keep their shape over batch sizes 64 to 512 and change it with χ: at χ = 2 they
fall first and recover at small p, at χ = 8 they rise, peak inside, and fall.

Costs 36 Specializations per dataset at `--scale paper`; all 36 cells of the embedded data, some five minutes on
two cores.
"""

from collections.abc import Iterator

from s3ray.sweep import Cell, Study, Sweep


def cells(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        for granularity in study.granularities(dataset):
            for batch_size in sorted(study.batch_sizes(dataset)):
                for seed in study.seeds(dataset):
                    yield study.cell(dataset, granularity, batch_size, seed)


SWEEP = Sweep(
    name="figure3_batch_size",
    cells=cells,
    branches=("none", "suff+min"),
    exhibits=("controls", "figure3", "table1", "contributions"),
)

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
