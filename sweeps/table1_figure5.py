"""Table 1 and Figure 5: accuracy through the three stages, and pruning curves.

dataset × granularity χ × seed; after each Specialization a pruning curve after Selection, and one without.

Expected, with the MultiBench files at `--scale paper` (Table 1, χ = 8, mean accuracy of three seeds):

                Specialization   + Selection   best p (oracle: on test)
    mosei            75.78          77.36        77.95 at p 0.5
    mosi             63.56          64.29        66.13 at p 0.7
    ur_funny         63.61          63.52        64.87 at p 0.2
    mustard          58.70          61.59        62.56 at p 0.8

Costs 36 Specializations on the four datasets; on the embedded data, 18 cells, some three minutes on two cores.
"""

from collections.abc import Iterator

from s3ray.sweep import Cell, Study, Sweep


def cells(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        for granularity in study.granularities(dataset):
            for batch_size in study.usual_batch_sizes(dataset):
                for seed in study.seeds(dataset):
                    yield study.cell(dataset, granularity, batch_size, seed)


SWEEP = Sweep(
    name="table1_figure5",
    cells=cells,
    branches=("none", "suff+min"),
    exhibits=("controls", "table1", "figure5", "contributions"),
)

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
