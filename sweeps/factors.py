"""Factors – beyond the paper: which of a simulation's factors a representation still holds.

For each stage, method and preservation ratio, on data whose factors are known (`latent_factors`): R² of every
shared, unique and nuisance factor, and its share of the representation's variance; the distance between the
modalities' representations of one shared factor's value (Distributional Semantic Coherence, Eq. 16); the paper's
bounds on I(Z;Y) and I(Z;X|Y) (Eqs. 61, 75, 92). And of the tokens that express a factor the routing weights and the
share of pairs that pruning keeps.

It asks: does contrastive training drop unique factors (Proposition 2.5), does Selection keep the relevant ones,
does pruning remove nuisance first? README.md says what came out.

granularity χ × seed, and every prior method. Costs no training that Tables 1 and 2 do not have; some six seconds
per curve.
"""

from collections.abc import Iterator

from s3ray.sweep import Cell, Study, Sweep

METHODS = ("clip", "factorcl", "focal", "jointopt", "disentangledssl", "supcon", "cross_entropy")


def cells(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        if study.entries[dataset].facts.truth is None:
            continue
        for batch_size in study.usual_batch_sizes(dataset):
            for seed in study.seeds(dataset):
                for granularity in study.granularities(dataset):
                    yield study.cell(dataset, granularity, batch_size, seed)
                for method in METHODS:
                    yield study.prior(dataset, method, batch_size, seed)


SWEEP = Sweep(name="factors", cells=cells, branches=("none", "suff+min"), exhibits=("factors", "pruned"), factors=True)

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
