"""Sparsification (5.3): prune at inference, probe what is left. A run is one preservation ratio."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from s3ray.configuration import check_listed, check_whole
from s3ray.data.dataset import Dataset
from s3ray.data.facts import DataFacts
from s3ray.errors import UserError
from s3ray.model import TrainedModel
from s3ray.stages.encode import Pruning
from s3ray.stages.probe import ClassifierConfig, curve_points, probing_seconds
from s3ray.stages.stage import Context, Outcome, Stage, StageRun

PRESERVATION_RATIOS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsificationSettings:
    """The pool of (token, expert) pairs that is ranked is one evaluation batch, per layer and modality."""

    ratios: tuple[float, ...] = PRESERVATION_RATIOS
    batch_size: int = 256

    def __post_init__(self) -> None:
        check_listed(self, "ratios")
        if not all(0.0 <= p <= 1.0 for p in self.ratios) or 1.0 not in self.ratios or len(self.ratios) < 2:
            raise UserError(
                f"ratios {list(self.ratios)} must lie in [0, 1], and hold 1.0 and at least one smaller; try 1.0 … 0.1"
            )
        check_whole(self, "batch_size")

    @property
    def prunings(self) -> list[Pruning]:
        """Below p = 1, where nothing is pruned."""
        return [Pruning(ratio=ratio, pool=self.batch_size) for ratio in self.ratios if ratio < 1.0]


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsificationConfig:
    """All that a point of a pruning curve reads beside the data and the trained model."""

    pruning: Pruning
    on_sphere: bool
    classifier: ClassifierConfig


def _run(config: SparsificationConfig, data: Dataset, parent: TrainedModel | None, context: Context) -> Outcome:
    assert parent is not None
    points = curve_points(
        parent, data, config.classifier, output="none", on_sphere=config.on_sphere, pruning=config.pruning
    )
    return Outcome([asdict(point) for point in points])


def _estimate(run: StageRun, facts: DataFacts) -> float:
    pruning: Pruning = run.config.pruning
    return probing_seconds(run, facts, pruning.pool, pruning.ratio)


SPARSIFICATION = Stage("sparsification", 1, SparsificationConfig, _run, _estimate)
