"""Effect – beyond the paper: is it the router that makes the reverse U, or would any pruning do?

granularity χ × seed, pruned as the paper does and in three other ways: pairs kept at random, those with the smallest
weights, those with the largest contributions; without any expert; and with encoders that were never trained.
`make effect` gives it five seeds and larger splits (`effect.toml`).

Expected: after Selection the ranked curve lies above the random one, and both end where no expert is computed.

Costs as many trainings as Table 1 has; three controls make four curves of one.
"""

from collections.abc import Iterator

from s3ray.sweep import Cell, Study, Sweep


def cells(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        for granularity in study.granularities(dataset):
            for seed in study.seeds(dataset):
                yield study.cell(dataset, granularity, study.batch_sizes(dataset)[0], seed)


SWEEP = Sweep(
    name="effect",
    cells=cells,
    branches=("none", "suff+min"),
    exhibits=("controls", "table1", "figure5", "contributions"),
)

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
