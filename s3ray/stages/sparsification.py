"""Sparsification (5.3): prune at inference, probe what is left. A run is one preservation ratio."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from s3ray.configuration import check_distinct, check_listed, check_whole
from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.errors import UserError
from s3ray.model import Control, Pruning, Scope, TrainedModel
from s3ray.stages.probe import ClassifierConfig, probed, probing_seconds
from s3ray.stages.stage import Context, Outcome, Stage, StageRun

PRESERVATION_RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsificationSettings:
    """The pool of (token, expert) pairs that is ranked is one evaluation batch; by default per layer and modality.

    Beside the ranked curve stand its controls: p = 0, where no expert is computed, always; and curves over the same
    ratios that keep other pairs than the router's first.

    Attributes:
        ratios: shares p of the pairs that are kept, each a point of the curve.
        batch_size: samples of a pool, among whose pairs the ranking is.
        controls: (ours) which curves stand beside the ranked one.
        scope: (ours) among which pairs the curve ranks; controls keep their share of every layer.
    """

    ratios: tuple[float, ...] = PRESERVATION_RATIOS
    batch_size: int = 256
    controls: tuple[Control, ...] = ("random",)
    scope: Scope = "layer"

    def __post_init__(self) -> None:
        check_listed(self, "ratios")
        check_distinct(self, "controls")
        if not all(0.0 < p <= 1.0 for p in self.ratios) or 1.0 not in self.ratios or len(self.ratios) < 2:
            raise UserError(
                f"ratios {list(self.ratios)} must lie in (0, 1], and hold 1.0 and at least one smaller; try 1.0 … 0.1 "
                f"(0, no expert at all, is measured beside them)"
            )
        check_whole(self, "batch_size")

    @property
    def prunings(self) -> list[Pruning]:
        """Below p = 1, where nothing is pruned."""
        return [Pruning(ratio=ratio, pool=self.batch_size, scope=self.scope) for ratio in self.ratios if ratio < 1.0]

    @property
    def no_expert(self) -> Pruning:
        """p = 0."""
        return Pruning(ratio=0.0, pool=self.batch_size)

    def controlled(self, seed: int) -> dict[str, list[Pruning]]:
        """Per control the prunings of its curve; `seed` is the cell's."""
        return {
            rule: [
                dataclasses.replace(pruning, rule=rule, seed=seed if rule == "random" else None, scope="layer")
                for pruning in self.prunings
            ]
            for rule in self.controls
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsificationConfig:
    """All that a point of a pruning curve reads beside the data and the trained model."""

    pruning: Pruning
    on_sphere: bool
    classifier: ClassifierConfig


def _run(config: SparsificationConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    assert parent is not None
    return probed(
        parent,
        data,
        config.classifier,
        output="none",
        on_sphere=config.on_sphere,
        pruning=config.pruning,
        begun=context.begun,
    )


def _estimate(run: StageRun, facts: DataFacts) -> float:
    pruning: Pruning = run.config.pruning
    # The norms of all outputs, or the weights of all layers, are asked for before any pair is left out.
    share = 1.0 + pruning.ratio if pruning.rule == "contribution" or pruning.across_layers else pruning.ratio
    return probing_seconds(run, facts, pruning.pool, share)


SPARSIFICATION = Stage("sparsification", 2, SparsificationConfig, _run, _estimate)
