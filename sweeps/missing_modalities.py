"""Missing modalities – beyond the paper: what accuracy is left where samples lack modalities at test time?

Of every sample each modality is dropped with probability 0, .1, .25, .5 and .75, one at least stays. The encoders are
those that were trained on the data as they are; the probe is fitted on a training split that lacks as much. After
Specialization, after Selection, and after Selection at p*, which is chosen on validation data as they are.

It asks: does Selection, which draws the modalities of a class together, make one modality do for another? And is what
pruning takes what would have replaced it? Nobody knows. Without data it takes a simulation of three modalities
(`three_modalities`); with `--dataset mine=mine.npz` your own, whose samples may lack modalities in training, too.

The largest χ × seed. A point of a curve takes five encodings and probes.
"""

from collections.abc import Iterator

from s3ray.sweep import Cell, Study, Sweep


def cells(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        for seed in study.seeds(dataset):
            yield study.cell(dataset, study.ends(dataset)[-1], study.batch_sizes(dataset)[0], seed)


SWEEP = Sweep(
    name="missing_modalities",
    cells=cells,
    branches=("none", "suff+min"),
    exhibits=("missing_modalities",),
    probed=("none",),
    datasets=("three_modalities",),
    missing=True,
)

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
