"""A finished sweep without a single stage run: every run of a plan committed with results that are known by formula.

All accuracies are in percent; seeds 0, 1 and 2 lie a deviation apart, so that means are those of seed 1.
"""

import functools
import io
import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from s3ray.data.facts import DataFacts
from s3ray.data.multibench import FILES
from s3ray.methods import METHODS
from s3ray.results import labels
from s3ray.results.published import published_table
from s3ray.settings import PAPER_DATASETS, default_scale, settings_for
from s3ray.stages.factors import FactorPoint
from s3ray.stages.stage import StageRun
from s3ray.store import Store
from s3ray.sweep import Study, StudyDataset, make_plan
from toy_runs import commit_all

RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
EMBEDDED = ("digits", "latent_factors")
PROVENANCE = {
    "code_revision": "4eaefb1229cb3b2cb19e46d01482a358a950ee57",
    "s3ray": "0.1.0",
    "torch": "2.13.0+cpu",
    "scikit_learn": "1.9.1",
    "ray": "2.60.0",
    "python": "3.11.7",
    "machine": "cpu x86_64 AVX2",
    "hardware": "x86_64 cpu",
    "workers": 1,
    "environment": "0123456789abcdef",
}
# Of a curve of ten ratios 10.
SECONDS = {"specialization": 60.0, "selection": 20.0, "probe": 1.0, "sparsification": 1.0, "factors": 0.5}
SECONDS |= dict.fromkeys(METHODS, 30.0)
FACTORS = {
    "shared_0": "shared relevant",
    "shared_1": "shared other",
    "first_unique_0": "unique relevant",
    "second_unique_0": "unique other",
    "first_nuisance_0": "nuisance",
}
STEPS = 8  # of Specialization and Selection
# Points that a control loses on its curve per tenth pruned.
LOST = {"random": 1.0, "smallest": 2.0, "contribution": 0.5}
# Percent, of every cell, seed and split.
FLOORS = {"no expert": 45.0, "untrained": 35.0}


def formula(cell: Any, branch: Any, ratio: Any, split: Any) -> Any:
    """digits 60, latent_factors 50, and a hundredth of the batch size; a point between seeds.

    S3 adds half of χ. Without Selection a curve loses a point per tenth pruned. Selection adds 2 (suff+min), 1
    (suff), 0 (min) at p = 1 on test; then a curve rises a point per tenth to its peak, at p = .4 on test (6 points up)
    and p = .5 on valid, and falls as steeply.
    """
    height = {"digits": 60.0, "latent_factors": 50.0}[cell.dataset] + cell.batch_size / 100 + cell.seed - 1
    if cell.method != "s3":
        return height - 1 + labels.prior_methods().index((cell.method, branch))
    height += cell.granularity / 2
    if branch == "none":
        return height - 10 * (1 - ratio)
    peak = 0.4 if split == "test" else 0.5
    return height + {"suff+min": 8, "suff": 7, "min": 6}.get(branch, 5) - 10 * abs(ratio - peak)


def as_printed(cell: Any, branch: Any, ratio: Any, split: Any) -> Any:
    """The paper's means and deviations at a dataset's usual batch size, less at others; validation a point below.

    What the paper does not print continues in its manner; references that use labels get 80.
    """
    mean, deviation = _printed(cell.dataset, cell.method, cell.granularity, branch, ratio)
    usual = _usual_batch_size(cell.dataset)
    return mean + (cell.seed - 1) * deviation - abs(cell.batch_size - usual) / 200 - (split == "valid")


@functools.cache
def _usual_batch_size(dataset: Any) -> Any:
    return settings_for(dataset, "paper").batch_sizes[0]


@functools.cache
def _published(number: Any, *keys: Any) -> Any:
    table = published_table(number).set_index(list(keys))[["accuracy_mean", "accuracy_std"]].astype(float)
    return {key: tuple(values) for key, values in zip(table.index, table.to_numpy(), strict=True)}


def _printed(dataset: Any, method: Any, granularity: Any, branch: Any, ratio: Any) -> Any:
    if method != "s3":
        return _published(2, "dataset", "method").get((dataset, labels.title(method, branch)), (80.0, 1.0))
    if branch in ("suff", "min"):
        mean, deviation = _published(3, "dataset", "selection_loss")[dataset, branch]
        return mean - 10 * (1 - ratio), deviation
    table = _published(1, "dataset", "granularity", "stage", "preservation_ratio")
    if branch == "none":
        mean, deviation = table[dataset, str(granularity), "specialization", "1.0"]
        return mean - 10 * (1 - ratio), deviation
    return table[dataset, str(granularity), "selection" if ratio == 1.0 else "sparsification", f"{ratio:.1f}"]


def entropy(cell: Any, modality: Any, scope: Any, step: Any) -> Any:
    """ln of the number of experts for global; local falls by a hundredth per step. 0.1 between seeds, 1 between
    modalities, and a hundredth of the batch size, which no plot of another batch size may show."""
    height = math.log(8 * cell.granularity) + 0.1 * (cell.seed - 1) + modality + cell.batch_size / 100
    return height - (0.01 * step if scope == "local" else 0.0)


def expert_share(cell: Any, modality: Any, layer: Any, step: Any, selected: bool) -> Any:
    """0.1 at the first step, 0.01 more per step, 0.2 more during Selection; a tenth between layers, a hundredth between
    modalities, a thousandth of χ and between seeds."""
    height = 0.1 + 0.01 * step + 0.2 * selected + 0.1 * layer + 0.01 * modality
    return height + 0.001 * (cell.granularity + cell.seed - 1)


def facts(dataset: Any) -> Any:
    """Of the embedded datasets and of MultiBench's: the numbers that planning and reports show."""
    if dataset not in PAPER_DATASETS:
        is_simulated = dataset == "latent_factors"
        samples = {"train": 1000, "valid": 300, "test": 300}
        return DataFacts(
            fingerprint=f"fingerprint of {dataset}",
            kind="simulated" if is_simulated else "embedded",
            features={"first": 8, "second": 8} if is_simulated else {"rows": 8, "columns": 8},
            classes=2 if is_simulated else 10,
            samples=samples,
            tokens={name: 16 * count for name, count in samples.items()},
            mean_steps=dict.fromkeys(("first", "second") if is_simulated else ("rows", "columns"), 8.0),
            most_steps=dict.fromkeys(("first", "second") if is_simulated else ("rows", "columns"), 8),
            squares={name: 128 * count for name, count in samples.items()},
            best_accuracy=0.9 if is_simulated else None,
            truth=f"truth of {dataset}" if is_simulated else None,
        )
    file = FILES[dataset]
    return DataFacts(
        fingerprint=f"fingerprint of {dataset}",
        kind="multibench",
        features={name: file.widths[name] for name in ("vision", "text")},
        classes=2,
        samples=file.samples,
        tokens={name: 2 * file.steps * count for name, count in file.samples.items()},
        mean_steps=dict.fromkeys(("vision", "text"), float(file.steps)),
        most_steps=dict.fromkeys(("vision", "text"), file.steps),
        squares={name: 2 * file.steps**2 * count for name, count in file.samples.items()},
        label_rule="sentiment of 0 is positive" if file.sentiment else None,
    )


def finished(sweep: Any, datasets: Any, folder: Any, accuracy: Any = None, overrides: Any = None) -> Any:
    """A store in `folder` with every run of a sweep over `datasets`; the plan over it, and the store."""
    accuracy = accuracy or (as_printed if set(datasets) <= set(PAPER_DATASETS) else formula)
    entries = {}
    for name in datasets:
        scale = default_scale(name)
        entries[name] = StudyDataset(facts(name), scale, settings_for(name, scale, overrides))
    store = Store(str(folder))
    study = Study(entries)
    done = {}
    for cell in make_plan(sweep, study, store).cells:
        for run, files in _results(cell, accuracy):
            if run.identity not in done:
                done[run.identity] = (run, files)
    contents = [(run, {name: _parquet(table) for name, table in files.items()}) for run, files in done.values()]
    commit_all(store, contents, seconds=lambda run: SECONDS.get(run.stage.name, 1.0), provenance=PROVENANCE)
    return make_plan(sweep, study, store), store


def _parquet(table: Any) -> Any:
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _results(plan: Any, accuracy: Any) -> Iterator[Any]:
    losses = pd.DataFrame({"step": range(STEPS), "loss": [1.0] * STEPS})
    yield plan.training, {"rows.parquet": _metrics(plan, selected=False) if plan.cell.method == "s3" else losses}
    for branch in plan.branches:
        if branch.selection:
            yield branch.selection, {"rows.parquet": _metrics(plan, selected=True)}
        curve = functools.partial(accuracy, plan.cell, branch.branch)
        for run in branch.curve:
            yield run, {"rows.parquet": _point(plan, _ratio(run), curve)}
        for control, runs in branch.controls.items():
            for run in runs:
                below = functools.partial(_control, curve, control)
                yield run, {"rows.parquet": _point(plan, _ratio(run), below)}
        for run in branch.factors:
            yield run, {"rows.parquet": _factors(plan, _ratio(run))}
    for floor, run in plan.floors.items():
        yield run, {"rows.parquet": _point(plan, _ratio(run), functools.partial(_floor, floor))}
    yield plan.reference, {"rows.parquet": _references(plan)}


def _control(curve: Any, control: str, ratio: float, split: str) -> float:
    return curve(ratio, split) - LOST[control] * 10 * (1 - ratio)


def _floor(floor: str, ratio: float, split: str) -> float:
    return FLOORS[floor]


def _correct(accuracy: float, samples: int) -> bytes:
    """The first of the samples are those that the probe gets right, as many as nearest to the accuracy."""
    return np.packbits(np.arange(samples) < round(accuracy * samples)).tobytes()


def _ratio(run: StageRun) -> float:
    pruning = getattr(run.config, "pruning", None)
    return pruning.ratio if pruning else 1.0


def _point(plan: Any, ratio: float, accuracy: Any) -> Any:
    """`accuracy` is a function of ratio and split, in percent."""
    return pd.DataFrame(
        {
            "preservation_ratio": ratio,
            "split": split,
            "accuracy": accuracy(ratio, split) / 100,
            "samples": plan.facts.samples[split],
            "spread": 0.9,
            "correct": _correct(accuracy(ratio, split) / 100, plan.facts.samples[split]),
            "pairs_kept": int(1000 * ratio),
            "pairs_routed": 1000,
            "encode_seconds": 0.1,
            "probe_seconds": 0.1,
            "probe_converged": True,
            "active_parameters": 1000 * (0.2 + 0.8 * ratio),
            "active_parameters_paper": 1000 * (0.6 + 0.4 * ratio),
        }
        for split in ("valid", "test")
    )


def _metrics(plan: Any, selected: bool) -> Any:
    names = {
        f"{scope}_entropy/{modality}": [entropy(plan.cell, number, scope, step) for step in range(STEPS)]
        for scope in ("local", "global")
        for number, modality in enumerate(plan.facts.features)
    }
    shares = {
        f"expert_share/{modality}/{layer}": [
            expert_share(plan.cell, number, layer, step, selected) for step in range(STEPS)
        ]
        for number, modality in enumerate(plan.facts.features)
        for layer in range(plan.training.config.model.layers)
    }
    return pd.DataFrame({"step": range(STEPS), "loss": [1.0] * STEPS, **names, **shares})


def _references(plan: Any) -> Any:
    """50 for the majority, 55 for raw features; validation 5 below."""
    return pd.DataFrame(
        {
            "reference": name,
            "split": split,
            "accuracy": (percent - 5 * (split == "valid")) / 100,
            "samples": plan.facts.samples[split],
            "correct": _correct((percent - 5 * (split == "valid")) / 100, plan.facts.samples[split]),
            "probe_converged": True,
        }
        for name, percent in (("majority class", 50), ("raw features", 55))
        for split in ("valid", "test")
    )


def _factors(plan: Any, ratio: float) -> Any:
    """R² falls with p from 0.9 for shared relevant factors, 0.8 for shared others, and so on; shares are a fifth."""
    points = []
    for split in ("valid", "test"):
        for number, (name, kind) in enumerate(FACTORS.items()):
            score = ratio * (0.9 - 0.1 * number) + 0.01 * (plan.cell.seed - 1)
            points += [
                (ratio, "R2", name, kind, split, score, None),
                (ratio, "share of variance", name, kind, split, 0.2, None),
            ]
            if plan.cell.method == "s3":
                points += [
                    (ratio, quantity, name, kind, split, value + 0.1 * layer * (ratio < 1), layer)
                    for layer in (0, 1)
                    for quantity, value in (
                        ("routing weight", 0.01 * number + 0.01 * plan.cell.seed),
                        ("share of pairs kept", ratio - 0.1 * (ratio < 1)),
                    )
                ]
            if kind.startswith("shared"):
                energies = {
                    "energy distance": 0.1,
                    "energy coefficient": 0.2,
                    "energy distance between values": 0.5,
                }
                points += [(ratio, quantity, name, kind, split, value, None) for quantity, value in energies.items()]
        nats = {
            "I(X;Z) bound": 1.0,
            "I(Z;Y) bound": 0.5,
            "I(Z;X|Y) surrogate": 2.0,
            "1 - cosine to class mean": 0.3,
        }
        points += [(ratio, quantity, "", "", split, value * ratio, None) for quantity, value in nats.items()]
    columns = ["preservation_ratio", "quantity", "factor", "factor_kind", "split", "value", "layer"]
    table = pd.DataFrame(points, columns=columns).assign(modality="both", samples=300)
    return table[["preservation_ratio", *(field.name for field in fields(FactorPoint))]]
