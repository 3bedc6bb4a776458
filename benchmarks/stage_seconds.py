"""Measured against estimated seconds of every stage: `python benchmarks/stage_seconds.py [DATASET …]`.

One thread, smoke scale, one seed, some steps of training scaled up to the configured number; seconds of the CPU, which
other work on the machine disturbs least. The estimates of `s3ray plan` are ratios of these, for a machine whose cores
are all busy; the store corrects them by what it has measured.

`long_300` and `long_1250` are made up: 64 samples whose first modality has as many steps, the second 50.
"""

import dataclasses
import sys
import time

import numpy as np
import torch

from s3ray.data import EMBEDDED
from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.data.facts import DataFacts
from s3ray.model import build_model
from s3ray.settings import settings_for
from s3ray.stages import pruning_curve, s3_representation, select, specialize
from s3ray.sweep import cost

EPOCHS = 2


def long(steps):
    rng = np.random.default_rng(0)

    def split(size):
        shapes = {"first": (size, steps, 20), "second": (size, 50, 20)}
        modalities = {name: Sequences.from_padded(rng.normal(size=shape)) for name, shape in shapes.items()}
        return Split(modalities, np.arange(size) % 2)

    return Dataset(f"long_{steps}", "simulated", split(64), split(16), split(16))


DATASETS = {
    **{name: embedded.load for name, embedded in EMBEDDED.items()},
    "long_300": lambda: long(300),
    "long_1250": lambda: long(1250),
}


def short(config):
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, epochs=EPOCHS))


def seconds(function, *arguments, **options):
    started = time.process_time()
    function(*arguments, **options)
    return time.process_time() - started


def main(names):
    torch.set_num_threads(1)
    print("dataset          χ batch  stage            measured  estimated  ratio")
    for name in names:
        data = DATASETS[name]()
        facts = DataFacts.of(data)
        for granularity in (2, 4, 8):
            for batch_size in (64, 128) if name in EMBEDDED else (32,):
                settings = settings_for(name, "smoke").for_granularity(granularity)
                model = build_model(settings.model, data.features, 0)
                options = {"batch_size": batch_size, "seed": 0}
                special, selection, pruning = settings.specialization, settings.selection, settings.sparsification
                specialize(model, data.train, short(special), **options)  # warm-up
                measured = {
                    "specialization": seconds(specialize, model, data.train, short(special), **options)
                    * (special.optimizer.epochs / EPOCHS),
                    "selection": seconds(select, model, data.train, short(selection), **options)
                    * (selection.optimizer.epochs / EPOCHS),
                    "sparsification": seconds(
                        pruning_curve,
                        s3_representation(model),
                        data,
                        pruning.ratios,
                        settings.probe,
                        batch_size=pruning.batch_size,
                    ),
                }
                estimated = {
                    "specialization": cost.specialization_seconds(settings, facts, batch_size),
                    "selection": cost.selection_seconds(settings, facts, batch_size),
                    "sparsification": cost.curve_seconds(settings, facts, pruning.ratios),
                }
                for stage, value in measured.items():
                    ratio = value / estimated[stage]
                    line = f"{name:<16} {granularity} {batch_size:>5}  {stage:<15} {value:>8.1f}s"
                    print(f"{line} {estimated[stage]:>9.1f}s {ratio:>6.2f}")


if __name__ == "__main__":
    main(sys.argv[1:] or list(DATASETS))
