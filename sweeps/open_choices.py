"""Open choices – beyond the paper: which reading of what it leaves open makes the reverse U?

Tables 4 and 5 pin the parameters; heads, pooling, padding, positions, the router's input, the experts' scale, views and
more are open. First round: one choice at a time, changed from the defaults, at the smallest and the largest χ, over all
seeds. Second round: the three choices that matter most (`then` says by which rule), in every combination. A
choice that leaves a dataset's settings as they are, or padding where there is none, is left out.

Its exhibit tells per choice how Selection's gain, the best pruned accuracy over p = 1, the smallest p over p = 1,
ranked over random pruning, and the largest χ over the smallest change; and the shape of every reading's curves beside
the paper's printed ones.

Expected: nobody knows. With the paper's four files (`--data DIR`) the readings are ranked by their distance from the
printed curves.

Costs 426 cells on three embedded and simulated datasets at smoke scale, of which half share a trained encoder with
others, and some 70 in the second round: about an hour on two cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from s3ray.errors import UserError
from s3ray.results import Results
from s3ray.results.readings import combinations, matter_most
from s3ray.settings import override
from s3ray.sweep import Cell, Study, Sweep
from s3ray.sweep.grid import JOINED

_PRIOR_PROBE = {"standardize": False, "on_sphere": False, "inverse_regularization": 1.0}
_PRIOR_ENCODER = {"pooling": "first", "padding": "routed", "positions": "none"}
# By `choice: value`. Which value of a choice is the default, a dataset's settings say.
READINGS: dict[str, dict[str, Any]] = {
    "heads: 1": {"model": {"heads": 1}},
    "heads: 8": {"model": {"heads": 8}},
    "pooling: mean": {"model": {"pooling": "mean"}},
    "pooling: first": {"model": {"pooling": "first"}},
    "pooling: last": {"model": {"pooling": "last"}},
    "padding: routed": {"model": {"padding": "routed"}},
    "positions: none": {"model": {"positions": "none"}},
    "positions: sinusoidal": {"model": {"positions": "sinusoidal"}},
    "router reads: stream": {"model": {"router_input": "raw"}},
    "expert scale: 1": {"model": {"expert_scale": "one"}},
    "weights: renormalized": {"model": {"weights": "renormalized"}},
    "router: GELU": {"model": {"router_activation": "gelu"}},
    "views: dropout": {"model": {"dropout": 0.2}, "specialization": {"views": "dropout"}},
    "positives: others": {"selection": {"positives": "others"}},
    "Selection: with noise": {"selection": {"noise": True}},
    "ranked among: modality": {"sparsification": {"scope": "modality"}},
    "ranked among: model": {"sparsification": {"scope": "model"}},
    "pool: 64": {"sparsification": {"batch_size": 64}},
    "pool: split": {"sparsification": {"batch_size": 10**6}},
    "probe: not standardised": {"probe": {"standardize": False}},
    "probe: off the sphere": {"probe": {"on_sphere": False}},
    "probe C: 1": {"probe": {"inverse_regularization": 1.0}},
    "probe C: 0.01": {"probe": {"inverse_regularization": 0.01}},
    # Several at once, as the prior work has them whose data and settings the paper takes (docs/method.md).
    "as prior work: probe": {"probe": _PRIOR_PROBE},
    "as prior work: encoder": {"model": _PRIOR_ENCODER},
    "as prior work: both": {"probe": _PRIOR_PROBE, "model": _PRIOR_ENCODER},
}


def readings(study: Study, dataset: str) -> Iterator[str]:
    """Those that change something of a dataset, the usual one first; what its settings cannot be is left out."""
    entry = study.entries[dataset]
    seen = [entry.settings]
    yield ""
    for reading in READINGS:
        try:
            settings = SWEEP.settings(study, study.cell(dataset, 1, study.batch_sizes(dataset)[0], 0, reading))
        except UserError:  # such as 8 heads at a width that they do not divide
            continue
        if entry.facts.tokens == entry.facts.padded.tokens:  # nothing to route
            settings = override(settings, {"model": {"padding": "masked"}}, reading)
        if settings not in seen:
            seen.append(settings)
            yield reading


def cells(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        for reading in readings(study, dataset):
            yield from _at_both_ends(study, dataset, reading)


def then(study: Study, results: Results) -> Iterator[Cell]:
    combined = list(combinations(matter_most(results.rows, results.controls)))
    for dataset in study.datasets:
        known = set(readings(study, dataset))
        for reading in combined:
            if known.issuperset(reading.split(JOINED)):
                yield from _at_both_ends(study, dataset, reading)


def _at_both_ends(study: Study, dataset: str, reading: str) -> Iterator[Cell]:
    for granularity in study.ends(dataset):
        for seed in study.seeds(dataset):
            yield study.cell(dataset, granularity, study.batch_sizes(dataset)[0], seed, reading)


SWEEP = Sweep(
    name="open_choices",
    cells=cells,
    branches=("none", "suff+min"),
    probed=("none",),
    exhibits=("open_choices",),
    readings=READINGS,
    datasets=("digits", "latent_factors", "uneven_factors"),
    then=then,
)

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
