"""The scales: a switch on the same settings, never another code path.

What one dataset or one prior method needs of a scale stands in its own declaration.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from s3ray.data.embedded import EMBEDDED
from s3ray.data.multibench.files import FILES
from s3ray.errors import UserError, nearest
from s3ray.methods import METHODS
from s3ray.settings.overrides import merged

Tables = Mapping[str, Any]

SCALES: Mapping[str, Tables] = MappingProxyType(
    {
        # The paper's architecture and grids. Epochs and learning rates are open in the paper.
        "paper": {},
        # The same, small enough for two cores. Chosen on validation accuracy (docs/decisions.md).
        "smoke": {
            "model": {"width": 32, "layers": 2},
            "specialization": {
                "optimizer": {"epochs": 16, "learning_rate": 3e-3, "warmup": 0.1},
                "temperature": 0.2,
                "lambda_local": 0.3,
            },
            "selection": {"optimizer": {"epochs": 12, "learning_rate": 5e-3, "warmup": 0.1}, "temperature": 0.2},
            "probe": {"inverse_regularization": 0.1},
            "batch_sizes": (64, 128),
        },
    }
)

_DECLARED: list[Mapping[str, Tables]] = [
    *(method.scales for method in METHODS.values()),
    *(dataset.scales for dataset in EMBEDDED.values()),
    *(file.scales for file in FILES.values()),
]

# The paper's datasets default to its scale; everything else to the scale that a laptop finishes.
PAPER_DATASETS = tuple(FILES)


def default_scale(dataset: str) -> str:
    return "paper" if dataset in PAPER_DATASETS else "smoke"


def declared_by_methods(scale: str) -> dict[str, Tables]:
    """What each prior method needs of a scale."""
    return {name: method.scales[scale] for name, method in METHODS.items() if scale in method.scales}


def scale_tables(scale: str, dataset: str) -> Tables:
    """The changes to the default settings that a scale makes for a dataset.

    Raises:
        UserError: there is no such scale.
    """
    if scale not in SCALES:
        raise UserError(f"--scale: unknown scale {scale!r}; {nearest(scale, SCALES)}")
    assert all(set(given) <= SCALES.keys() for given in _DECLARED), "a declaration names a scale that there is not"
    own = EMBEDDED[dataset].scales if dataset in EMBEDDED else FILES[dataset].scales if dataset in FILES else {}
    return merged(merged(SCALES[scale], {"method": declared_by_methods(scale)}), own.get(scale, {}))
