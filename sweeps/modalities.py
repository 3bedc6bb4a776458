"""Modalities – beyond the paper: which modality carries what, and does pruning silence one?

For each stage and preservation ratio: probes of each modality's representation alone, and of all others' without it;
and the share of each modality's (token, expert) pairs that pruning keeps. Pairs are ranked among those of a layer and
modality, where by construction each modality keeps p; and among those of the whole model, where one may lose all.

Expected: nobody knows. With `--dataset mine=mine.npz` it answers for your own data; without data it takes a simulation
of three modalities whose factors are known (`three_modalities`).

The smallest and the largest χ × seed, twice, which share their training. A point of a curve takes as many more probes
as twice the modalities.
"""

from collections.abc import Iterator

from s3ray.sweep import Cell, Study, Sweep

READINGS = {"ranked among: model": {"sparsification": {"scope": "model"}}}


def cells(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        for reading in ("", *READINGS):
            for granularity in study.ends(dataset):
                for seed in study.seeds(dataset):
                    yield study.cell(dataset, granularity, study.batch_sizes(dataset)[0], seed, reading)


SWEEP = Sweep(
    name="modalities",
    cells=cells,
    branches=("none", "suff+min"),
    exhibits=("modalities",),
    readings=READINGS,
    datasets=("three_modalities",),
    modalities=True,
)

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
