"""What data of the user's need of a scale, whose settings were chosen on data of another size.

By rule, not by looking at results. All of it (ours); a `--config` file changes any of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from s3ray.data.dataset import Dataset

if TYPE_CHECKING:
    from s3ray.settings.settings import Settings

# Gradient steps below which a stage has not begun: a scale's epochs are few steps where samples are few.
STEPS: Mapping[str, int] = {"specialization": 400, "selection": 200}


def own_tables(data: Dataset, settings: Settings) -> dict[str, Any]:
    """The changes to a scale's settings that a dataset of the user's makes.

    - Batch sizes are those that leave two batches or more per epoch; where none does, the largest power of two that
      does.
    - Epochs are the scale's, or as many more as make `STEPS` gradient steps at the first batch size.
    - Sequences get sinusoidal positions: without any, an encoder sees a bag of steps.

    Args:
        settings: of the scale, with what the user changes in it.
    """
    samples = len(data.train)
    half = max(samples // 2, 2)
    sizes = tuple(size for size in settings.batch_sizes if size <= half) or (2 ** int(math.log2(half)),)
    per_epoch = max(samples // sizes[0], 1)
    changes: dict[str, Any] = {"batch_sizes": sizes}
    for stage, least in STEPS.items():
        epochs = getattr(settings, stage).optimizer.epochs
        changes[stage] = {"optimizer": {"epochs": max(epochs, math.ceil(least / per_epoch))}}
    if any(sequences.lengths.max() > 1 for sequences in data.train.modalities.values()):
        changes["model"] = {"positions": "sinusoidal"}
    return changes
