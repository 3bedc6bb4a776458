"""Every stage: what it reads is what is hashed, and what its version computes stays what it is."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from reading import Reads, hashed
from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.data.facts import DataFacts
from s3ray.methods import METHODS
from s3ray.model import Control, TrainedModel
from s3ray.settings import Settings, merged, override, settings_for
from s3ray.stages.stage import Context, Inputs, Outcome, StageRun
from s3ray.stages.variants import VARIANTS
from s3ray.sweep import STAGES, Cell, CellPlan, curves, plan_cell
from s3ray.sweep.grid import Asked

EVERYTHING = Asked(curve=True, factors=True, sentiment=True, modalities=True, missing=True)
GOLDEN = Path(__file__).with_name("golden.json")
# Every weight has a value of its own, so that two that are exchanged show.
TINY: dict[str, Any] = {
    "model": {"width": 16, "layers": 2, "heads": 2, "ffn_multiple": 2, "expansion": 2, "dropout": 0.1},
    "specialization": {
        "optimizer": {"epochs": 2},
        "views": "dropout",
        **{f"lambda_{n}": 0.5 + i / 8 for i, n in enumerate(("rep", "dsc", "aux", "imp", "load", "local", "global"))},
    },
    "selection": {"optimizer": {"epochs": 2}, "lambda_suff": 0.7, "lambda_min": 1.3},
    "sparsification": {"ratios": [1.0, 0.4], "batch_size": 8},
    "probe": {"inverse_regularization": 0.5},
    "method": {
        "factorcl": {"critic_width": 8},
        "focal": {"private_weight": 0.6, "orthogonality": 0.3},
        "jointopt": {"private_weight": 0.6, "orthogonality": 0.3},
        "disentangledssl": {"alignment": 0.6, "orthogonality": 0.3},
    },
}
# The other side of every switch.
OTHERWISE: dict[str, Any] = {
    "model": {"positions": "sinusoidal", "router_activation": "tanh", "dropout": 0.0, "expert_scale": "one"},
    "specialization": {"views": "same"},
    "probe": {"on_sphere": False, "standardize": False},
}


# What else the paper leaves open.
READ: dict[str, Any] = {
    "model": {"pooling": "first", "padding": "routed", "router_input": "raw", "weights": "renormalized"},
    "selection": {"positives": "others", "noise": True},
    "sparsification": {"scope": "model"},
}


def tiny_settings(*more: dict[str, Any]) -> Settings:
    settings = settings_for("tiny", "smoke")
    return override(settings, functools.reduce(merged, more, TINY), "tiny")


def with_factors(plain: Dataset) -> Dataset:
    """With known factors, the class' parity and one that nothing tells, expressed by every other token; so noisy that
    no probe is right throughout."""
    rng = np.random.default_rng(0)

    def noisy(sequences: Sequences) -> Sequences:
        noise = rng.normal(0.0, 6.0, sequences.values.shape)
        return Sequences((sequences.values + noise).astype(np.float32), sequences.offsets)

    def known(split: Split) -> Split:
        factors = np.stack([2.0 * (split.labels % 2) - 1.0, np.resize([1.0, 1.0, -1.0], len(split))], axis=1)
        modalities = {name: noisy(sequences) for name, sequences in split.modalities.items()}
        expressed = {name: np.arange(len(sequences.values)) % 2 for name, sequences in modalities.items()}
        scores = np.resize([-1.5, 0.0, 2.0, 0.5], len(split)).astype(np.float32)
        truth = factors.astype(np.float32)
        return dataclasses.replace(split, modalities=modalities, truth=truth, expressed=expressed, scores=scores)

    splits = {name: known(split) for name, split in plain.splits.items()}
    return dataclasses.replace(plain, **splits, truth_names=("shared_0", "shared_1"), relevant_factors=("shared_0",))


@pytest.fixture(scope="module")
def data(tiny_dataset: Dataset) -> Dataset:
    return with_factors(tiny_dataset)


def cells(facts: DataFacts) -> list[CellPlan]:
    """S3 with every variant, and every prior method with every output."""
    s3 = Cell(dataset="tiny", granularity=2, batch_size=8, seed=0, scale="smoke")
    plans = [plan_cell(s3, tiny_settings(), facts, dict.fromkeys(VARIANTS, EVERYTHING))]
    for name, method in METHODS.items():
        cell = dataclasses.replace(s3, method=name, granularity=1)
        plans.append(plan_cell(cell, tiny_settings(), facts, dict.fromkeys(method.outputs, EVERYTHING)))
    return plans


def controlled(facts: DataFacts) -> CellPlan:
    """S3 with every control."""
    cell = Cell(dataset="tiny", granularity=2, batch_size=8, seed=0, scale="smoke")
    every = {"sparsification": {"controls": list(get_args(Control))}}
    return plan_cell(cell, tiny_settings(every), facts, curves(["suff+min"]))


def otherwise(facts: DataFacts) -> CellPlan:
    """S3 with the other side of every switch."""
    cell = Cell(dataset="tiny", granularity=2, batch_size=8, seed=1, scale="smoke")
    return plan_cell(cell, tiny_settings(OTHERWISE), facts, {"suff+min": EVERYTHING})


def read(facts: DataFacts) -> CellPlan:
    """S3 in another reading."""
    cell = Cell(dataset="tiny", granularity=2, batch_size=8, seed=2, scale="smoke")
    return plan_cell(cell, tiny_settings(READ), facts, {"suff+min": EVERYTHING})


def label(cell: CellPlan, run: StageRun) -> str:
    """A run by what it is, not by its identity."""
    branch = next((b.branch for b in cell.branches if run in b.runs), "")  # floors are of all branches
    pruning = getattr(run.config, "pruning", None)
    rule, ratio = (pruning.rule, f"p={pruning.ratio}") if pruning else ("", "")
    parts = [f"{cell.cell.method}:", run.stage.name, branch, "" if rule == "ranked" else rule, ratio]
    return " ".join(part for part in parts if part)


class Computed:
    """All runs of some cells, each computed once, in float64."""

    def __init__(self, data: Dataset) -> None:
        self.data = data
        facts = DataFacts.of(data)
        self.runs = {label(cell, run): run for cell in [*cells(facts), controlled(facts)] for run in cell.runs}
        for name, other in (("otherwise", otherwise(facts)), ("read", read(facts))):
            self.runs |= {f"{name}, {label(other, run)}": run for run in other.runs if run not in self.runs.values()}
        self.outcomes: dict[str, Outcome] = {}
        self.reads: dict[str, Reads] = {}
        for run in self.runs.values():
            self.reads[run.identity] = reads = Reads()
            config = reads.of(run.config)
            parent = self.model(run.parent) if run.parent else None
            self.outcomes[run.identity] = run.stage.run(config, run.visible(data), parent, Context())
            if run.stage.restore is not None:
                parent = self.model(run.parent) if run.parent else None
                weights = self.outcomes[run.identity].weights
                assert weights is not None
                run.stage.restore(config, Inputs.of(data), parent, weights)

    def model(self, run: StageRun) -> TrainedModel:
        weights = self.outcomes[run.identity].weights
        assert weights is not None
        assert run.stage.restore is not None
        return run.stage.restore(
            run.config, Inputs.of(self.data), self.model(run.parent) if run.parent else None, weights
        )


@pytest.fixture(scope="module")
def computed(data: Dataset) -> Iterator[Computed]:
    torch.set_default_dtype(torch.float64)
    yield Computed(data)
    torch.set_default_dtype(torch.float32)


def test_every_stage_is_there(computed: Computed) -> None:
    assert {run.stage.name for run in computed.runs.values()} == set(STAGES)


def test_a_stage_reads_what_is_hashed_and_nothing_else(computed: Computed) -> None:
    for name, run in computed.runs.items():
        assert computed.reads[run.identity].paths == hashed(run.config), name


def test_a_stage_that_does_not_say_so_is_given_no_truth(data: Dataset) -> None:
    for stage in STAGES.values():
        seen = stage.visible(data)
        known = (seen.truth_names, seen.relevant_factors, *(split.truth is not None for split in seen.splits.values()))
        known += tuple(bool(split.expressed) for split in seen.splits.values())
        assert any(known) == stage.reads_truth
        assert all((split.scores is not None) == stage.reads_scores for split in seen.splits.values())
        assert seen.fingerprint() == data.fingerprint()
        assert not seen.facts


def checksum(weights: Mapping[str, Tensor]) -> float:
    """Of all numbers, their order included."""
    flat = torch.cat([weights[name].double().flatten() for name in sorted(weights)])
    return float((flat * torch.linspace(1.0, 2.0, len(flat), dtype=torch.float64)).sum())


def numbers(outcome: Outcome) -> dict[str, Any]:
    """What a run's result is known by: the last step's loss and the weights, or all that was measured."""
    if outcome.weights is not None:
        return {"loss": outcome.rows[-1]["loss"], "weights": checksum(outcome.weights)}
    columns = dict.fromkeys(name for row in outcome.rows for name in row if not name.endswith("seconds"))
    return {name: _column([row[name] for row in outcome.rows]) for name in columns}


def _column(values: list[Any]) -> float | str:
    """A column by itself, so that large numbers hide no small ones."""
    values = [value.hex() if isinstance(value, bytes) else value for value in values]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        known = np.nan_to_num(np.array(values, dtype=float), nan=7.0)
        return float((known * np.linspace(1.0, 2.0, len(known))).sum())
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def golden(computed: Computed) -> dict[str, Any]:
    return {
        name: {"version": run.stage.version, **numbers(computed.outcomes[run.identity])}
        for name, run in computed.runs.items()
    }


def test_a_version_computes_what_it_always_did(computed: Computed) -> None:
    """If this fails, a stage computes something else: restore it, or raise its version beside its code.

    After raising a version, write the new numbers with `python tests/sweep/test_stages.py`.
    """
    written = json.loads(GOLDEN.read_text())
    found = golden(computed)
    assert found.keys() == written.keys()
    for name, expected in written.items():
        # What is measured is measured of representations in single precision.
        exact = 1e-9 if "weights" in expected else 1e-5
        for key, value in expected.items():
            same = value if isinstance(value, str) else pytest.approx(value, rel=exact, abs=exact)
            assert found[name][key] == same, f"{name}: raise the version or restore ({key})"


def test_an_identity_is_what_its_document_says(data: Dataset) -> None:
    for cell in cells(DataFacts.of(data)):
        for run in cell.runs:
            again = pickle.loads(pickle.dumps(run))  # as it reaches a worker
            assert again.identity == run.identity
            written = json.loads(json.dumps(run.document))
            assert written == run.document
            assert run.stage.restored(written["config"]) == run.config
            for change in ({"data": "e" * 64}, {"stage": dataclasses.replace(run.stage, version=99)}):
                assert dataclasses.replace(run, **change).identity != run.identity
            if run.parent is not None:
                other = dataclasses.replace(run.parent, data="e" * 64)
                assert dataclasses.replace(run, parent=other).identity != run.identity


def test_a_value_that_json_cannot_hold_is_refused(data: Dataset) -> None:
    run = cells(DataFacts.of(data))[0].reference
    config = dataclasses.replace(run.config)
    object.__setattr__(config, "inverse_regularization", float("nan"))
    with pytest.raises(ValueError, match="JSON"):
        _ = dataclasses.replace(run, config=config).identity


def test_changed_truth_changes_what_is_measured_of_it_alone(data: Dataset) -> None:
    other = dataclasses.replace(data, relevant_factors=("shared_1",))
    for before, after in zip(cells(DataFacts.of(data)), cells(DataFacts.of(other)), strict=True):
        for one, two in zip(before.runs, after.runs, strict=True):
            assert (one.identity == two.identity) == (one.stage.name != "factors")


def test_changed_scores_change_what_is_regressed_on_them_alone(data: Dataset) -> None:
    assert data.valid.scores is not None
    other = dataclasses.replace(data, valid=dataclasses.replace(data.valid, scores=data.valid.scores + 1))
    for before, after in zip(cells(DataFacts.of(data)), cells(DataFacts.of(other)), strict=True):
        for one, two in zip(before.runs, after.runs, strict=True):
            assert (one.identity == two.identity) == (one.stage.name != "sentiment")


def test_another_methods_settings_train_nothing_again(data: Dataset) -> None:
    facts = DataFacts.of(data)
    changed = override(tiny_settings(), {"method": {"factorcl": {"critic_width": 12}}}, "changed")
    for cell in cells(facts):
        branches = [branch.branch for branch in cell.branches]
        again = plan_cell(cell.cell, changed, facts, dict.fromkeys(branches, EVERYTHING))
        same = [one.identity == two.identity for one, two in zip(cell.runs, again.runs, strict=True)]
        wanted = [cell.cell.method != "factorcl" or run.stage.name == "reference" for run in cell.runs]
        assert same == wanted, cell.cell


if __name__ == "__main__":
    from tiny_data import tiny_dataset

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    GOLDEN.write_text(json.dumps(golden(Computed(with_factors(tiny_dataset()))), indent=1) + "\n")
