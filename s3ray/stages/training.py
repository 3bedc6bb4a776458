"""The training loop of every stage that trains.

Everything random is a function of (seed, epoch) or (seed, step, modality), never of a running state. The step
number therefore *is* the random state: a resumed run continues bit for bit, and W workers draw what one worker
draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from s3ray.configuration import check_not_negative, check_positive, check_whole
from s3ray.data.dataset import Split
from s3ray.errors import UserError
from s3ray.model import Draws, Encoded, Ragged, Source
from s3ray.model.draws import generator, seed_of
from s3ray.objectives.present import Present
from s3ray.objectives.routing import RoutingStatistics, global_entropy_loss, local_entropy_loss
from s3ray.stages.collective import average_gradients, rank, sum_over_workers, workers

MOST_STEPS = 10**9  # of a stage: checkpoints are named by their step, in nine digits
_HUGE = 1e15  # of a feature: its square, summed over widths and samples, may leave float32
_LARGE = 1e4  # of a feature: so far from deviation 1 that training may fail of it
Metrics = list[dict[str, float]]  # one row per step
Snapshot = dict[str, Any]  # tensors, numbers, and containers of them: all that resuming needs


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW with linear warm-up and cosine decay to zero. All of it (ours): the paper names none.

    Attributes:
        epochs: passes over the training split.
        learning_rate: the largest, after warm-up.
        weight_decay: AdamW's, decoupled.
        warmup: share of the steps.
        gradient_clip: largest global norm of the gradient.
    """

    epochs: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup: float = 0.05
    gradient_clip: float = 1.0

    def __post_init__(self) -> None:
        check_whole(self, "epochs")
        if not 0.0 <= self.warmup < 1.0:
            raise UserError(f"warmup {self.warmup} is outside [0, 1); give a share of the steps")
        check_positive(self, learning_rate=1e-3, gradient_clip=1.0)
        check_not_negative(self, "weight_decay")


class DivergedError(RuntimeError):
    """A loss, or its gradient, that is no longer finite."""


class Monitor(Protocol):
    """What the caller wants to know of a running stage, and gives it to resume from."""

    def resume(self, fits: Callable[[Snapshot], bool]) -> Snapshot | None:
        """The latest snapshot that `fits`, to continue from, the same on every rank; None to start afresh."""

    def stepped(self, step: int, total: int, snapshot: Callable[[], Snapshot]) -> None:
        """Called on every rank after each step. What `snapshot()` returns is live: serialise it before returning."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A rank's shard of a global batch. The rest needs no communication: every rank knows the order."""

    shard: dict[str, Ragged]
    labels_B: Tensor  # of the whole global batch
    draws: dict[str, Draws]
    present: Present = None  # which samples of the global batch have which modality


Forward = Callable[..., list[dict[str, Encoded]]]
Loss = Callable[[Forward, Batch], tuple[Tensor, dict[str, Tensor]]]


@dataclass(frozen=True, slots=True)
class Objective:
    """Parameters, the loss that trains them, and the share of the steps in which it does.

    `loss` maps (forward, batch) to the global batch's loss and the terms to record.
    """

    parameters: Mapping[str, nn.Parameter]
    loss: Loss
    begin: float = 0.0
    end: float = 1.0


def weighted_sum(*terms: tuple[float, Tensor], outputs: Iterable[Tensor] = ()) -> Tensor:
    """Σ weight · term. What has weight 0 is left out: were its value or its slope infinite, 0 · ∞ would be NaN.

    Args:
        outputs: of the model. Where a term is left out, they see to it that every parameter still has a gradient,
            if only 0: DistributedDataParallel and weight decay count on it.
    """
    total = terms[0][1].new_zeros(())
    for weight, term in terms:
        if weight != 0.0:
            total = total + weight * term
    if any(weight == 0.0 for weight, _ in terms):
        for output in outputs:
            total = total + (0.0 * output).sum()
    return total


def train(
    model: nn.Module,
    objectives: Sequence[Objective],
    data: Split,
    optimizer: OptimizerConfig,
    *,
    batch_size: int,
    seed: int,
    monitor: Monitor | None = None,
) -> Metrics:
    """Train the objectives' parameters of `model` in place on mini-batches of `data`; all others stay untouched.

    Several objectives take their steps one after another on every batch, each with its own AdamW and schedule.

    Args:
        batch_size: samples of the global batch; a multiple of the number of workers. The last, incomplete
            batch of an epoch is left out, since contrastive losses depend on the number of negatives.

    Raises:
        DivergedError: the loss or its gradient became NaN or infinite.
    """
    assert batch_size <= len(data)
    assert batch_size % workers() == 0
    batches = _Batches(data, batch_size, seed, next(model.parameters()))
    training = _Training(model, objectives, optimizer, len(batches) * optimizer.epochs)
    model.train()
    start = training.resume(monitor.resume(training.fits) if monitor is not None else None)
    for step in range(start, training.steps):
        training.step(step, batches)
        if monitor is not None:
            monitor.stepped(step + 1, training.steps, training.snapshot)
    training.check_parameters(data)
    model.eval()
    return training.metrics


class _Batches:
    """The global batches of a training split, each epoch in an order of its own."""

    def __init__(self, data: Split, size: int, seed: int, like: Tensor) -> None:
        self._data, self._size, self._seed, self._like = data, size, seed, like
        self._order, self._epoch = np.empty(0, dtype=np.int64), -1

    def __len__(self) -> int:
        return len(self._data) // self._size

    def indices(self, step: int) -> NDArray[np.int64]:
        """The samples of a step's batch."""
        epoch, position = divmod(step, len(self))
        if epoch != self._epoch:
            self._order, self._epoch = _order(len(self._data), self._seed, epoch), epoch
        return self._order[position * self._size : (position + 1) * self._size]

    def shard(self, step: int) -> Batch:
        """This rank's shard of a step's batch, its draws unused."""
        return _shard(self._data, self.indices(step), (self._seed, step), self._like.device, self._like.dtype)

    @property
    def data(self) -> Split:
        """What they are of."""
        return self._data


class _Training:
    """A model on its way: its objectives' solvers and what they have recorded."""

    def __init__(
        self, model: nn.Module, objectives: Sequence[Objective], optimizer: OptimizerConfig, steps: int
    ) -> None:
        self.model, self.steps, self.metrics = model, steps, Metrics()
        self.trained = {name: p for objective in objectives for name, p in objective.parameters.items()}
        self.solvers = [_Solver(objective, optimizer, steps) for objective in objectives]
        self.in_turns = len(objectives) > 1
        _require_gradients(model, self.trained)
        # DistributedDataParallel expects every parameter to get a gradient at every step.
        self.forward: Forward = DistributedDataParallel(model) if workers() > 1 and not self.in_turns else model

    def fits(self, snapshot: Snapshot) -> bool:
        """Whether a snapshot is one of this training: steps, parameters and moments are there, in the same shapes.

        torch would broadcast a tensor of another shape without a word.
        """
        try:
            step, rows, states = snapshot["step"], snapshot["metrics"], snapshot["solvers"]
            moments = [solver.fits(state) for solver, state in zip(self.solvers, states, strict=True)]
            return (
                0 <= step <= self.steps
                and [row["step"] for row in rows] == list(range(step))
                and _shapes(snapshot["parameters"]) == _shapes(self.trained)
                and all(moments)
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            return False

    def resume(self, snapshot: Snapshot | None) -> int:
        """Take up a snapshot; the step to go on with."""
        if snapshot is None:
            return 0
        self.metrics = list(snapshot["metrics"])
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(snapshot["parameters"][name])
        for solver, state in zip(self.solvers, snapshot["solvers"], strict=True):
            solver.load_state(state)
        return int(snapshot["step"])

    def snapshot(self) -> Snapshot:
        """All that resuming needs; live."""
        return {
            "step": len(self.metrics),
            "metrics": self.metrics,
            "parameters": {name: p.detach() for name, p in self.trained.items()},
            "solvers": [solver.state() for solver in self.solvers],
        }

    def step(self, step: int, batches: _Batches) -> None:
        """One step of every objective whose share of the steps it lies in."""
        row = {"step": float(step)}
        for solver in self.solvers:
            if not solver.steps.start <= step < solver.steps.stop:
                continue
            if self.in_turns:
                _require_gradients(self.model, solver.parameters)
            norm, value, terms = solver.gradients(self.forward, batches.shard(step), average=self.in_turns)
            # One transfer for all numbers: on a GPU each would wait for what is under way.
            length, *recorded = torch.stack([norm, value.detach(), *(t.detach() for t in terms.values())]).tolist()
            if not (math.isfinite(recorded[0]) and math.isfinite(length)):
                raise self._diverged(solver, step, batches, loss=recorded[0], length=length)
            solver.adamw.step()
            solver.schedule.step()
            for name, number in zip(["loss", *terms], recorded, strict=True):
                row.setdefault(name, number)
        self.metrics.append(row)

    def _diverged(self, solver: _Solver, step: int, batches: _Batches, *, loss: float, length: float) -> DivergedError:
        what = f"the gradient became {length}" if math.isfinite(loss) else f"the loss became {loss}"
        guilty = _not_finite(*solver.loss(self.model, batches.shard(step)), list(solver.parameters.values()))
        remedy = _remedy(self.trained.values(), batches.data, is_first=step == 0)
        return DivergedError(f"{what} at step {step + 1} of {self.steps}{guilty}; {remedy}")

    def check_parameters(self, data: Split) -> None:
        """DivergedError if the last step has made them infinite; every other one shows in the next loss."""
        if not _are_finite(self.trained.values()):
            remedy = _of_data(data, _HUGE) or "lower the learning rate"
            raise DivergedError(f"the parameters became infinite at step {self.steps} of {self.steps}; {remedy}")


class _Solver:
    """An objective's optimizer and schedule over its share of the steps."""

    def __init__(self, objective: Objective, config: OptimizerConfig, total: int) -> None:
        self.parameters, self.loss, self._clip = objective.parameters, objective.loss, config.gradient_clip
        self.steps = range(round(objective.begin * total), round(objective.end * total))
        self.adamw = torch.optim.AdamW(
            list(self.parameters.values()), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.adamw, lambda step: _rate(step, len(self.steps), config.warmup)
        )

    def gradients(self, forward: Forward, batch: Batch, *, average: bool) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Gradients of the global batch's loss, clipped; their length before, the loss and its terms.

        Args:
            average: over workers, where DistributedDataParallel does not.
        """
        self.adamw.zero_grad(set_to_none=True)
        value, terms = self.loss(forward, batch)
        value.backward()
        if average:
            average_gradients(self.parameters.values())
        return nn.utils.clip_grad_norm_(self.parameters.values(), self._clip), value, terms

    def state(self) -> Snapshot:
        return {"optimizer": self.adamw.state_dict(), "schedule": self.schedule.state_dict()}

    def fits(self, state: Snapshot) -> bool:
        """Whether a state is of these parameters, and its moments have their shapes."""
        ours, moments = self.adamw.state_dict(), state["optimizer"]["state"]
        shapes = [parameter.shape for parameter in self.parameters.values()]
        return (
            [group["params"] for group in state["optimizer"]["param_groups"]]
            == [group["params"] for group in ours["param_groups"]]
            and state["schedule"].keys() == self.schedule.state_dict().keys()
            and set(moments) <= set(range(len(shapes)))
            and all(moments[i][name].shape == shapes[i] for i in moments for name in ("exp_avg", "exp_avg_sq"))
        )

    def load_state(self, state: Snapshot) -> None:
        self.adamw.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def _require_gradients(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in parameters)


def reduce_statistics(views: list[dict[str, Encoded]]) -> dict[str, RoutingStatistics]:
    """Each modality's routing statistics over all views and all workers (they are sums over tokens)."""
    return {
        name: RoutingStatistics.unpack(
            sum_over_workers(torch.stack([view[name].statistics().pack() for view in views]).sum(0))
        )
        for name in views[0]
    }


def entropy_metrics(statistics: Mapping[str, RoutingStatistics]) -> dict[str, Tensor]:
    """Local and global router entropy (nats) per modality: Figures 7–10. NaN without tokens."""

    def known(value: Tensor, s: RoutingStatistics) -> Tensor:
        return torch.where((s.tokens > 0).all(), value, math.nan)

    local = {f"local_entropy/{name}": known(local_entropy_loss(s), s) for name, s in statistics.items()}
    return local | {f"global_entropy/{name}": known(-global_entropy_loss(s), s) for name, s in statistics.items()}


def expert_shares(views: list[dict[str, Encoded]]) -> dict[str, Tensor]:
    """Per modality and layer: the variance that the MoE adds, as a share of the residual stream's behind it.

    A token's variance is that over its features, as a LayerNorm sees it; means are over tokens, views and workers. NaN
    without tokens.
    """
    names = list(views[0])
    added_ML2 = sum_over_workers(torch.stack([torch.stack([v[name].added_L2 for v in views]).sum(0) for name in names]))
    behind_ML = added_ML2[..., 1]
    shares_ML = torch.where(behind_ML > 0, added_ML2[..., 0] / behind_ML, math.nan)
    return {
        f"expert_share/{name}/{layer}": share
        for name, shares_L in zip(names, shares_ML, strict=True)
        for layer, share in enumerate(shares_L)
    }


def _are_finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in tensors)


def _not_finite(value: Tensor, terms: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> str:
    """Names the loss's terms whose value or gradient is not finite; all ranks must ask together."""
    tracked = {name: term for name, term in terms.items() if term.requires_grad}
    if not tracked:
        return ""
    # Those of weight 0 and those that are only recorded have no part in the loss.
    shares = torch.autograd.grad(value, list(tracked.values()), retain_graph=True, allow_unused=True)
    used = [name for name, share in zip(tracked, shares, strict=True) if share is not None]
    bad = []
    for name in used:
        slopes = torch.autograd.grad(tracked[name], parameters, retain_graph=True, allow_unused=True)
        # Lengths, since finite numbers can have an infinite one: that stops training, too.
        lengths = torch.stack([slope.norm() for slope in slopes if slope is not None])
        bad.append([float(not _are_finite([tracked[name]])), float(not _are_finite([lengths.norm()]))])
    # A rank sees the gradient of its own shard alone.
    by_value, by_slope = sum_over_workers(torch.tensor(bad, device=value.device).reshape(-1, 2)).T.tolist()
    for flags, kind in ((by_value, ""), (by_slope, "gradient of ")):
        if guilty := [name for name, flag in zip(used, flags, strict=True) if flag]:
            return f" ({kind}{', '.join(guilty)})"
    return ""


def _remedy(parameters: Iterable[Tensor], data: Split, *, is_first: bool) -> str:
    """What helps, by what can have been the cause: data that no learning rate helps are named first."""
    if about_data := _of_data(data, _HUGE):
        return about_data
    if not _are_finite(parameters):
        return "the step before made the parameters infinite: lower the learning rate"
    if about_data := _of_data(data, _LARGE):
        return about_data if is_first else f"{about_data}; if they are, lower the learning rate"
    if is_first:
        return (
            "no step was taken yet, so it is not the learning rate: raise the temperature or standardise the features"
        )
    return "lower the learning rate or raise the temperature"


def _of_data(data: Split, limit: float) -> str:
    """Which features are not finite or reach beyond `limit`, and what to do about it; nothing if none does.

    All of the split is looked at, the same on every rank: a step that spoils the parameters may have read other samples
    than the one that shows it.
    """
    for name, sequences in data.modalities.items():
        largest = float(max(sequences.values.max(initial=0.0), -sequences.values.min(initial=0.0)))
        if not math.isfinite(largest):
            return f"features of {name} are not finite: replace them in the data"
        if largest > limit:
            return f"features of {name} reach {largest:.2g}: standardise them or give them in a larger unit"
    return ""


def _rate(step: int, total: int, warmup: float) -> float:
    ramp = warmup * total
    if step < ramp:
        return (step + 1) / (ramp + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - ramp) / max(total - ramp, 1)))


def _order(samples: int, seed: int, epoch: int) -> NDArray[np.int64]:
    permutation: NDArray[np.int64] = torch.randperm(samples, generator=generator("order", seed, epoch)).numpy()
    return permutation


def _shard(
    data: Split, indices: NDArray[np.int64], key: tuple[int, int], device: torch.device, dtype: torch.dtype
) -> Batch:
    own = len(indices) // workers()
    first = rank() * own
    shard = {name: ragged.to(device, dtype) for name, ragged in data.batch(indices[first : first + own]).items()}
    draws, present = {}, []
    for name, sequences in data.modalities.items():
        lengths = sequences.lengths[indices]
        present.append(torch.from_numpy(lengths > 0))
        tokens_before = np.concatenate([[0], np.cumsum(lengths)])
        rows = slice(int(tokens_before[first]), int(tokens_before[first + own]))
        draws[name] = Draws(Source(seed_of("step", *key, name), device), int(tokens_before[-1]), rows)
    labels_B = torch.from_numpy(data.labels[indices]).to(device)
    return Batch(shard, labels_B, draws, None if all(has_B.all() for has_B in present) else present)
