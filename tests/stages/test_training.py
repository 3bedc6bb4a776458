"""The training loop, as Specialization and Selection run it: order, schedule, determinism, resuming, divergence."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import io
import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from recorder import Recorder, StoppedError, identical
from s3ray.data.dataset import Dataset, Sequences, Split
from s3ray.errors import UserError
from s3ray.model import ModelConfig, build_model
from s3ray.stages.selection import SELECTION, SelectionConfig
from s3ray.stages.specialization import (
    SPECIALIZATION,
    SpecializationConfig,
    SpecializationSettings,
    specialization_loss,
)
from s3ray.stages.stage import Context, Outcome
from s3ray.stages.training import DivergedError, Metrics, Objective, OptimizerConfig, Snapshot, train, weighted_sum
from s3ray.stages.variants import VARIANTS, SelectionSettings

# 26 samples in batches of 8: three steps an epoch, two samples left out; nine steps in all.
BATCH, STEPS_PER_EPOCH, STEPS = 8, 3, 9
OPTIMIZER = OptimizerConfig(epochs=3, learning_rate=1e-2)
SETTINGS = SpecializationSettings(optimizer=OPTIMIZER)
STAGES = ("specialization", "specialization, dropout views", "selection")
every_stage = pytest.mark.parametrize("name", STAGES)


def _specialized(
    model: ModelConfig,
    data: Dataset,
    settings: SpecializationSettings = SETTINGS,
    *,
    batch_size: int = BATCH,
    seed: int = 0,
    monitor: Recorder | None = None,
) -> Outcome:
    config = SpecializationConfig(model=model, training=settings, batch_size=batch_size, seed=seed)
    return SPECIALIZATION.run(config, data, None, Context(monitor=monitor))


def _selected(
    model: ModelConfig,
    data: Dataset,
    optimizer: OptimizerConfig = OPTIMIZER,
    *,
    batch_size: int = BATCH,
    seed: int = 0,
    monitor: Recorder | None = None,
) -> Outcome:
    loss = VARIANTS["suff+min"].configure
    assert loss is not None
    config = SelectionConfig(
        variant="suff+min",
        version=1,
        loss=loss(SelectionSettings()),
        optimizer=optimizer,
        batch_size=batch_size,
        seed=seed,
    )
    return SELECTION.run(config, data, build_model(model, data.features, seed=0), Context(monitor=monitor))


def _run(
    name: str, model: ModelConfig, data: Dataset, seed: int = 0, monitor: Recorder | None = None
) -> tuple[dict[str, Tensor], Metrics]:
    if name == "selection":
        outcome = _selected(model, data, seed=seed, monitor=monitor)
    elif name == "specialization":
        outcome = _specialized(model, data, seed=seed, monitor=monitor)
    else:
        dropping = dataclasses.replace(model, dropout=0.1)
        settings = dataclasses.replace(SETTINGS, views="dropout")
        outcome = _specialized(dropping, data, settings, seed=seed, monitor=monitor)
    assert outcome.weights is not None
    return dict(outcome.weights), outcome.rows


Undisturbed = Callable[[str], tuple[dict[str, Tensor], Metrics]]


@pytest.fixture(scope="module")
def undisturbed(tiny_model: ModelConfig, tiny_dataset: Dataset) -> Undisturbed:
    """A stage's run from start to end with seed 0, computed once."""
    return functools.cache(lambda name: _run(name, tiny_model, tiny_dataset))


@every_stage
def test_two_runs_are_bit_identical_and_seeds_differ(
    name: str, tiny_model: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    first, first_metrics = undisturbed(name)
    torch.rand(7)  # the caller's random state is none of the stage's concern
    before = torch.get_rng_state()
    second, second_metrics = _run(name, tiny_model, tiny_dataset)
    assert torch.equal(torch.get_rng_state(), before)
    other, other_metrics = _run(name, tiny_model, tiny_dataset, seed=1)
    assert identical(first, second)
    assert first_metrics == second_metrics
    assert not identical(first, other)
    assert first_metrics != other_metrics


@every_stage
@pytest.mark.parametrize("at", [1, STEPS_PER_EPOCH, STEPS_PER_EPOCH + 2, STEPS])
def test_a_resumed_run_ends_bit_identical(
    name: str, at: int, tiny_model: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    expected, expected_metrics = undisturbed(name)
    killed = Recorder(at, stop=True)
    with pytest.raises(StoppedError):
        _run(name, tiny_model, tiny_dataset, monitor=killed)
    resumed = Recorder(stored=killed.stored)
    state, metrics = _run(name, tiny_model, tiny_dataset, monitor=resumed)
    assert resumed.seen == [(step, STEPS) for step in range(at + 1, STEPS + 1)]  # nothing is done twice
    assert identical(state, expected)
    assert metrics == expected_metrics


class Doubtful(Recorder):
    """Starts afresh, and notes which of the snapshots it would have been let go on from."""

    def __init__(self, snapshots: list[Snapshot]) -> None:
        super().__init__()
        self.snapshots, self.fitting = snapshots, list[bool]()

    def resume(self, fits: Callable[[Snapshot], bool]) -> None:
        self.fitting = [fits(snapshot) for snapshot in self.snapshots]


@every_stage
def test_a_snapshot_of_another_training_is_refused(name: str, tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    """torch would broadcast parameters and moments of other shapes without a word."""
    recorder = Recorder(at=4, stop=True)
    with pytest.raises(StoppedError):
        _run(name, tiny_model, tiny_dataset, monitor=recorder)
    assert recorder.stored is not None

    def snapshot() -> Snapshot:
        assert recorder.stored is not None
        found: Snapshot = torch.load(io.BytesIO(recorder.stored), weights_only=True)
        return found

    good, flat = snapshot(), snapshot()
    for moments in flat["solvers"][0]["optimizer"]["state"].values():
        moments["exp_avg"] = moments["exp_avg"].mean()
    of_doubles = {name: tensor.double() for name, tensor in good["parameters"].items()}
    others = [
        {**good, "parameters": {name: tensor[:1] for name, tensor in good["parameters"].items()}},
        {**good, "parameters": {name: tensor.unsqueeze(0) for name, tensor in good["parameters"].items()}},
        {**good, "parameters": of_doubles},
        {**good, "parameters": {}},
        flat,
        {**good, "solvers": []},
        {**good, "solvers": [{}]},
        {**good, "step": 10**6},
        {**good, "metrics": good["metrics"][:-1]},
        {},
    ]
    doubtful = Doubtful([good, *others])
    _run(name, tiny_model, tiny_dataset, monitor=doubtful)
    assert doubtful.fitting == [True] + [False] * len(others)


@every_stage
def test_taking_snapshots_does_not_disturb_the_run(
    name: str, tiny_model: ModelConfig, tiny_dataset: Dataset, undisturbed: Undisturbed
) -> None:
    recorder = Recorder(at=4)
    watched, watched_metrics = _run(name, tiny_model, tiny_dataset, monitor=recorder)
    plain, plain_metrics = undisturbed(name)
    assert recorder.seen == [(step, STEPS) for step in range(1, STEPS + 1)]
    assert identical(watched, plain)
    assert watched_metrics == plain_metrics


@every_stage
def test_metrics_have_a_row_per_step_and_entropies_per_modality(name: str, undisturbed: Undisturbed) -> None:
    _, metrics = undisturbed(name)
    assert [row["step"] for row in metrics] == list(range(STEPS))
    terms = {"suff", "min"} if name == "selection" else {"rep", "dsc", "imp", "load", "local", "global"}
    entropies = {f"{kind}_entropy/{m}" for kind in ("local", "global") for m in ("left", "right")}
    shares = {f"expert_share/{m}/{layer}" for m in ("left", "right") for layer in (0, 1)}
    for row in metrics:
        assert row.keys() == {"step", "loss"} | terms | entropies | shares
        for modality in ("left", "right"):
            # Entropy is concave: the mean of entropies is at most the entropy of the mean, at most log N.
            local, overall = row[f"local_entropy/{modality}"], row[f"global_entropy/{modality}"]
            assert 0.0 < local <= overall + 1e-6 <= math.log(4) + 2e-6


def test_training_lowers_the_loss(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    longer = dataclasses.replace(OPTIMIZER, epochs=15)
    for outcome in (
        _specialized(tiny_model, tiny_dataset, dataclasses.replace(SETTINGS, optimizer=longer)),
        _selected(tiny_model, tiny_dataset, longer),
    ):
        losses = [row["loss"] for row in outcome.rows]
        assert sum(losses[-3:]) < sum(losses[:3])


def _poisoned(split: Split) -> Split:
    """The split with one value of `right` infinite."""
    right = split.modalities["right"]
    values = right.values.copy()
    values[0, 0] = np.inf
    return dataclasses.replace(split, modalities={**split.modalities, "right": Sequences(values, right.offsets)})


@every_stage
def test_a_diverging_loss_raises(name: str, tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    data = dataclasses.replace(tiny_dataset, train=_poisoned(tiny_dataset.train))
    terms = "suff, min" if name == "selection" else "rep, dsc, imp, load, local, global"
    cause = "features of right are not finite: replace them in the data"
    with pytest.raises(DivergedError, match=rf"^the loss became nan at step \d of 9 \({terms}\); {cause}$"):
        _run(name, tiny_model, data)


def _scaled(split: Split, factor: float) -> Split:
    """The split with `right` times `factor`."""
    right = split.modalities["right"]
    return dataclasses.replace(
        split, modalities={**split.modalities, "right": Sequences(right.values * np.float32(factor), right.offsets)}
    )


def _diverges(model: ModelConfig, data: Dataset, **settings: Any) -> str:
    """What the error says of a Specialization with these settings."""
    with pytest.raises(DivergedError) as raised:
        _specialized(model, data, dataclasses.replace(SETTINGS, **settings))
    return str(raised.value)


def test_a_run_that_blows_up_blames_the_learning_rate(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    said = _diverges(tiny_model, tiny_dataset, optimizer=dataclasses.replace(OPTIMIZER, learning_rate=1e30))
    assert "at step 2 of 9" in said
    assert said.endswith("; lower the learning rate or raise the temperature")
    said = _diverges(tiny_model, tiny_dataset, optimizer=dataclasses.replace(OPTIMIZER, learning_rate=1e39))
    assert "at step 2 of 9" in said
    assert said.endswith("; the step before made the parameters infinite: lower the learning rate")


def test_what_the_last_step_makes_infinite_is_no_result(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    once = OptimizerConfig(epochs=1, learning_rate=1e39)
    config = dataclasses.replace(SETTINGS, optimizer=once)
    with pytest.raises(
        DivergedError, match=r"^the parameters became infinite at step 1 of 1; lower the learning rate$"
    ):
        _specialized(tiny_model, tiny_dataset, config, batch_size=26)


def test_before_any_step_the_learning_rate_is_not_to_blame(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    said = _diverges(tiny_model, tiny_dataset, temperature=1e-45)
    assert said.startswith(
        "the loss became nan at step 1 of 9 (rep, dsc); no step was taken yet, so it is not the learning rate: "
    )
    # Finite, but too long for float32: the gradient's own step, not the one after.
    said = _diverges(tiny_model, tiny_dataset, temperature=1e-30)
    assert said.startswith("the gradient became inf at step 1 of 9 (gradient of dsc); no step was taken yet")
    assert said.endswith(": raise the temperature or standardise the features")


def test_features_too_large_give_advice_on_the_data(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    """Whether they show at the first step or make the learning rate look guilty later."""
    huge = dataclasses.replace(tiny_dataset, train=_scaled(tiny_dataset.train, 1e30))
    advice = "; features of right reach 6.8e+30: standardise them or give them in a larger unit"
    said = _diverges(tiny_model, huge)
    assert "at step 1 of 9" in said
    assert said.endswith(advice)
    steep = dataclasses.replace(OPTIMIZER, learning_rate=1e39)
    once = OptimizerConfig(epochs=1, learning_rate=1e39)
    # One sample, which only some batches have: the step that fails need not have read it.
    right = tiny_dataset.train.modalities["right"]
    values = right.values.copy()
    values[0, 0] = 1e17
    modalities = {**tiny_dataset.train.modalities, "right": Sequences(values, right.offsets)}
    one = dataclasses.replace(tiny_dataset, train=dataclasses.replace(tiny_dataset.train, modalities=modalities))
    advice = "; features of right reach 1e+17: standardise them or give them in a larger unit"
    assert _diverges(tiny_model, one, optimizer=steep).endswith(advice)
    with pytest.raises(DivergedError, match=f"^the parameters became infinite at step 1 of 1{re.escape(advice)}$"):
        _specialized(tiny_model, one, dataclasses.replace(SETTINGS, optimizer=once), batch_size=26)
    # Large ones can be trained on, so at a later step it may be either.
    large = dataclasses.replace(tiny_dataset, train=_scaled(tiny_dataset.train, 1e6))
    said = _diverges(tiny_model, large, optimizer=dataclasses.replace(OPTIMIZER, learning_rate=1e30))
    assert said.endswith(
        "; features of right reach 6.8e+06: standardise them or give them in a larger unit; if they are, lower the "
        "learning rate"
    )
    said = _diverges(tiny_model, large, temperature=1e-45)
    assert said.endswith("; features of right reach 6.8e+06: standardise them or give them in a larger unit")


def test_a_gradient_that_is_not_finite_stops_its_own_step_and_names_its_term(
    tiny_model: ModelConfig, tiny_dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("s3ray.stages.specialization")
    calls = itertools.count()

    def steep(statistics: Any) -> Tensor:
        """√ of 0 from the fourth step on (two modalities a step): 0, with an infinite slope."""
        total: Tensor = (0.0 * statistics.importance.sum() + (1.0 if next(calls) < 6 else 0.0)).sqrt()
        return total

    monkeypatch.setattr(module, "load_loss", steep)
    said = _diverges(tiny_model, tiny_dataset)
    assert said.startswith("the gradient became nan at step 4 of 9 (gradient of load); lower the learning rate")
    # With weight 0 it does no harm.
    assert len(_specialized(tiny_model, tiny_dataset, dataclasses.replace(SETTINGS, lambda_load=0.0)).rows) == STEPS


def _visited(run: Callable[[], object]) -> list[list[int]]:
    """The samples of every batch that a run reads."""
    visited: list[list[int]] = []
    original = Split.batch

    def recorded(self: Split, indices: NDArray[np.int64]) -> dict[str, Any]:
        visited.append(indices.tolist())
        return original(self, indices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Split, "batch", recorded)
        run()
    return visited


def test_an_epoch_visits_its_samples_once_and_in_a_new_order(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    visited = _visited(lambda: _specialized(tiny_model, tiny_dataset))
    starts = range(0, STEPS, STEPS_PER_EPOCH)
    epochs = [list(itertools.chain(*visited[start : start + STEPS_PER_EPOCH])) for start in starts]
    assert all(len(set(epoch)) == STEPS_PER_EPOCH * BATCH for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert _visited(lambda: _selected(tiny_model, tiny_dataset)) == visited  # a function of the seed alone
    assert _visited(lambda: _selected(tiny_model, tiny_dataset, seed=1)) != visited


def test_noise_is_a_function_of_the_seed(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    """One batch that is the whole split, from one start: but for rounding, the order does not count."""
    losses = []
    for seed in (0, 0, 1):
        model = build_model(tiny_model, tiny_dataset.features, seed=0)
        objective = Objective(dict(model.named_parameters()), specialization_loss(SETTINGS))
        once = dataclasses.replace(OPTIMIZER, epochs=1)
        (row,) = train(model, [objective], tiny_dataset.train, once, batch_size=26, seed=seed)
        losses.append((row["loss"], row["local"]))
    assert losses[0] == losses[1]
    assert losses[0][0] != pytest.approx(losses[2][0], rel=1e-4)
    assert losses[0][1] == pytest.approx(losses[2][1], rel=0.2)


def test_the_learning_rate_warms_up_and_decays_to_zero(tiny_model: ModelConfig, tiny_dataset: Dataset) -> None:
    rates: list[float] = []

    class Rates(Recorder):
        def stepped(self, step: int, total: int, snapshot: Callable[[], Snapshot]) -> None:
            rates.append(snapshot()["solvers"][0]["schedule"]["_last_lr"][0])

    optimizer = OptimizerConfig(epochs=4, learning_rate=1.0e-3, warmup=0.25)  # 12 steps, 3 of them warm-up
    _selected(tiny_model, tiny_dataset, optimizer, monitor=Rates())
    # Rates of steps 1, 2, …: 2/4 and 3/4 of the warm-up, the peak, then ½ (1 + cos(π n / 9)).
    assert rates[:3] == pytest.approx([0.5e-3, 0.75e-3, 1.0e-3])
    assert rates[3] == pytest.approx(0.5e-3 * (1 + math.cos(math.pi / 9)))
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] == 0.0


@pytest.mark.parametrize("batch_size", [27, 64])
def test_a_batch_larger_than_the_split_is_an_error_not_an_untrained_model(
    batch_size: int, tiny_model: ModelConfig, tiny_dataset: Dataset
) -> None:
    for run in (_specialized, _selected):
        with pytest.raises(AssertionError):
            run(tiny_model, tiny_dataset, batch_size=batch_size)


def test_weighted_sum_leaves_out_what_has_no_weight() -> None:
    x = torch.tensor([2.0, 3.0], requires_grad=True)
    poison = (x - x).sqrt().sum() * math.inf  # NaN, with an infinite slope
    total = weighted_sum((2.0, x.sum()), (0.0, poison), outputs=[x])
    total.backward()
    assert total.item() == 10.0
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]
    # Of no term at all, the outputs still have a gradient.
    x.grad = None
    weighted_sum((0.0, poison), outputs=[x]).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("epochs", 0, "epochs 0 must lie between 1 and 2147483647"),
        ("warmup", 1.0, r"warmup 1.0 is outside \[0, 1\)"),
        ("learning_rate", 0.0, "learning_rate 0.0 must be positive"),
        ("gradient_clip", 0.0, "gradient_clip 0.0 must be positive"),
        ("weight_decay", -0.1, "weight_decay -0.1 is negative"),
    ],
)
def test_an_optimizer_that_cannot_train_is_refused(field: str, value: float, said: str) -> None:
    with pytest.raises(UserError, match=said):
        dataclasses.replace(OPTIMIZER, **{field: value})
