"""The affect datasets of MultiBench as their authors published them: one declaration each, and where its file is."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3ray.errors import UserError, nearest

MODALITIES = ("vision", "audio", "text")
# Ids of files made by `s3ray data simulate` start with this; what is prepared from them is named simulated.
SIMULATED = "simulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiBenchFile:
    """What is known beforehand of a published file."""

    names: tuple[str, ...]  # under which it is found, the usual one first
    widths: Mapping[str, int]  # per modality
    steps: int
    samples: Mapping[str, int]  # per split
    sentiment: bool  # labels are reals in [-3, 3]; otherwise 0/1 or ±1
    largest_label: float = 3  # what an artefact of the annotation reaches
    rebuilt: Mapping[str, int] | None = None  # the samples when built by the authors' own tools
    scales: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # its own settings per scale

    @property
    def layout(self) -> Layout:
        return dict(self.widths), self.steps

    @property
    def known_samples(self) -> list[Mapping[str, int]]:
        return [self.samples, *([self.rebuilt] if self.rebuilt else [])]


Layout = tuple[dict[str, int], int]  # features per modality, steps


def _file(
    names: str, vision: int, audio: int, steps: int, train: int, valid: int, test: int, *, sentiment: bool, **more: Any
) -> MultiBenchFile:
    return MultiBenchFile(
        **more,
        names=tuple(names.split()),
        widths={"vision": vision, "audio": audio, "text": 300},
        steps=steps,
        samples={"train": train, "valid": valid, "test": test},
        sentiment=sentiment,
    )


# MOSI as its own SDK builds it: 35/74/300 features, MOSEI's layout.
_SDK_MOSI = {"train": 1283, "valid": 214, "test": 686}

# 414 training samples: a batch of 512 does not exist, and 384 stands for it.
_MUSTARD = {"paper": {"model": {"width": 128}, "batch_sizes": (128, 64, 256, 384)}}

FILES: Mapping[str, MultiBenchFile] = {
    "mosei": _file(
        "mosei_senti_data.pkl mosei_raw.pkl mosei.hdf5", 35, 74, 50, 16265, 1869, 4643, sentiment=True, largest_label=5
    ),
    "mosi": _file("mosi_data.pkl mosi_raw.pkl mosi.hdf5", 20, 5, 50, 1284, 229, 686, sentiment=True, rebuilt=_SDK_MOSI),
    "ur_funny": _file("humor.pkl humor.hdf5", 371, 81, 20, 8074, 1034, 1058, sentiment=False),
    "mustard": _file("sarcasm.pkl sarcasm.hdf5", 371, 81, 50, 414, 138, 138, sentiment=False, scales=_MUSTARD),
}


def chosen_datasets(names: list[str]) -> list[str]:
    """`names`, or all; UserError for one that is no dataset of MultiBench."""
    for name in names:
        if name not in FILES:
            raise UserError(f"--datasets: unknown dataset {name!r}; {nearest(name, FILES)}")
    return names or list(FILES)


def packed_files(root: Path) -> list[Path]:
    """Files in `root` that are MultiBench's but for an ending or spelling, such as mosi_data.pkl.gz."""
    usual = [file.lower() for known in FILES.values() for file in known.names]
    return [
        path
        for path in sorted(root.iterdir())
        if path.is_file()
        and path.name not in usual
        and (path.name.lower().startswith(tuple(usual)) or difflib.get_close_matches(path.name.lower(), usual, 1, 0.8))
    ]


def find_file(name: str, root: Path) -> Path | None:
    """The file of dataset `name` in `root`, by the names it is known under."""
    paths = [root / file for file in FILES[name].names]
    return next((path for path in paths if os.path.lexists(path)), None)
