"""Search: the settings that the paper leaves open, chosen on validation, of S3 and (`--method`) of prior methods.

Per dataset and method an Optuna study around the scale's own settings at χ = 8 (`--granularity`) and the first batch
size, with Selection: a configuration is tried on one cell per seed and judged by its validation accuracy at the
preservation ratio that validation chooses. Test is never read. What is bad after a seed is stopped (ASHA).

`--method focal` searches a prior method in the same way: same seeds, as many trials, epochs and learning rate within
the same factors, and of its own settings those that its file in s3ray/methods names. It is judged by its output's
validation accuracy, of several outputs (FactorCL's emb and proj) by the one that is best there. Its best.toml holds
its own table (method.focal) alone. All of Table 2, tuned against tuned, stands beside the same settings
(table2_methods.py) after

    python sweeps/search_weights.py --trials 10 \\
        --method s3,clip,factorcl,focal,jointopt,disentangledssl

and the command that this prints last: table2_tuned.py with a --config for each of the files.

The paper names no grid for any of these; prior work's learning rate (1e-4) and temperature (0.07) lie inside at
`--scale paper`. Only the ratios of the weights of one loss matter to AdamW, whose steps do not depend on the loss's
size: lines of good configurations are expected, not points.

Expected: a `best.toml` per dataset that `full_grid.py --config` runs over all seeds, and plots of what mattered in the
report. The best of N trials owes a part of its lead to luck: on test it will be less far ahead of the scale's own.

Costs, for N trials (`--trials`), up to N times what `s3ray plan sweeps/search_weights.py` shows for the scale's own
configuration (3 Specializations per dataset); ASHA leaves some 60 % of it.
"""

from collections.abc import Iterator

from s3ray.sweep import Cell, Study, Sweep

# How far a setting may leave the scale's own value: the factor either way, logarithmically.
SPACE = {
    "specialization.optimizer.learning_rate": 10,
    "specialization.optimizer.epochs": 2,
    "specialization.temperature": 5,
    "specialization.lambda_rep": 10,
    "specialization.lambda_dsc": 10,
    "specialization.lambda_aux": 10,
    "selection.optimizer.learning_rate": 10,
    "selection.optimizer.epochs": 2,
    "selection.temperature": 5,
    "selection.lambda_suff": 10,
    "selection.lambda_min": 10,
}


def cells(study: Study) -> Iterator[Cell]:
    for dataset in study.datasets:
        for seed in study.seeds(dataset):
            yield study.cell(dataset, 8, study.batch_sizes(dataset)[0], seed)


SWEEP = Sweep(name="search_weights", cells=cells, branches=("suff+min",))

if __name__ == "__main__":
    from s3ray.cli import run_search

    run_search(SWEEP, SPACE)
