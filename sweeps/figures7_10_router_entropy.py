"""Figures 7–10: local and global router entropy while Selection trains the routers.

dataset × granularity χ × seed; one figure per dataset, a panel per modality.

Expected: Selection does not optimise either entropy; they show whether routers get sharper per token (local) while
they keep using all experts (global).

Costs nothing that Table 1 does not have: the entropies are recorded at every step.
"""

from collections.abc import Iterator

from s3ray.sweep import Cell, Study, Sweep


def cells(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        for granularity in study.granularities(dataset):
            for batch_size in study.usual_batch_sizes(dataset):
                for seed in study.seeds(dataset):
                    yield study.cell(dataset, granularity, batch_size, seed)


SWEEP = Sweep(name="figures7_10_router_entropy", cells=cells, branches=("suff+min",), exhibits=("figures7_10",))

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
