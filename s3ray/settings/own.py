"""What data of the user's need of a scale, whose settings were chosen on data of another size.

By rule, not by looking at results. All of it (ours); a `--config` file changes any of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from s3ray.data.dataset import Dataset

if TYPE_CHECKING:
    from s3ray.settings.settings import Settings

# Gradient steps below which a stage has not begun: a scale's epochs are few steps where samples are few.
STEPS: Mapping[str, int] = {"specialization": 400, "selection": 200}


def own_batch_sizes(data: Dataset, sizes: Sequence[int]) -> tuple[int, ...]:
    """Those of a scale's batch sizes that leave two batches or more per epoch; else the largest power of two so."""
    half = max(len(data.train) // 2, 2)
    return tuple(size for size in sizes if size <= half) or (2 ** int(math.log2(half)),)


def own_tables(data: Dataset, settings: Settings) -> dict[str, Any]:
    """The changes to a scale's settings that a dataset of the user's makes.

    - Epochs are the scale's, or as many more as make `STEPS` gradient steps at the first batch size.
    - Sequences get sinusoidal positions: without any, an encoder sees a bag of steps.

    Args:
        settings: of the scale, with what the user changes in it, and batch sizes that fit.
    """
    per_epoch = max(len(data.train) // settings.batch_sizes[0], 1)
    changes: dict[str, Any] = {}
    for stage, least in STEPS.items():
        epochs = getattr(settings, stage).optimizer.epochs
        changes[stage] = {"optimizer": {"epochs": max(epochs, math.ceil(least / per_epoch))}}
    if any(sequences.lengths.max() > 1 for sequences in data.train.modalities.values()):
        changes["model"] = {"positions": "sinusoidal"}
    return changes
