"""Figure 6: pruning right after Specialization, without Selection.

dataset × granularity χ × seed.

Expected: without Selection the router's scores say nothing about the task, so pruning costs accuracy or changes it
without a clear peak.

Costs nothing that Table 1 does not have.
"""

from collections.abc import Iterator

from s3ray.sweep import Cell, Study, Sweep


def cells(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        for granularity in study.granularities(dataset):
            for batch_size in study.usual_batch_sizes(dataset):
                for seed in study.seeds(dataset):
                    yield study.cell(dataset, granularity, batch_size, seed)


SWEEP = Sweep(name="figure6_no_selection", cells=cells, branches=("none",), exhibits=("figure6",))

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
