"""Which sample is of train, valid or test.

The rule: shares are of samples, and every class is split by them (stratified). A class with too few samples for that
stays in train, and every class has samples there. With groups, whole groups are split: of 200 random draws of groups
by their number the one whose samples of each class come nearest to the shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s3ray.data.dataset import SPLITS
from s3ray.data.names import listed
from s3ray.errors import UserError

Names = NDArray[np.str_]

DEFAULT_SHARES = (0.6, 0.2, 0.2)
VALID_SHARE = 0.2  # of train, where a file is split without a validation split
_DRAWS = 200


@dataclass(frozen=True, slots=True)
class Draw:
    """By what chance samples are drawn, and what complaints begin with: the data, or the option of groups."""

    seed: int
    place: str
    group: str


def shares_in(text: str, option: str) -> tuple[float, float, float]:
    """Three shares that sum to 1, of `60/20/20`, `0.6/0.2/0.2` or `600/200/200`."""
    try:
        parts = [float(part) for part in text.split("/")]
    except ValueError:
        parts = []
    if len(parts) != 3 or not all(np.isfinite(parts)) or min(parts) <= 0:
        raise UserError(f"{option} {text}: must be three shares above 0 of train/valid/test, such as 60/20/20")
    train, valid, test = (part / sum(parts) for part in parts)
    return train, valid, test


def cut(
    labels: NDArray[np.int64], shares: tuple[float, float, float], draw: Draw, groups: NDArray[np.str_] | None
) -> tuple[Names, list[str]]:
    """(n,) split names, and what is to be said of them.

    Raises:
        UserError: too few samples or groups.
    """
    _, valid, test = shares
    names = np.full(len(labels), "train", dtype="U5")
    everything = np.arange(len(labels))
    in_test, said = _held_out(labels, test, draw, groups, "test")
    names[in_test] = "test"
    rest = np.setdiff1d(everything, in_test)
    in_valid, more = _held_out(
        labels[rest], valid / (1 - test), draw, None if groups is None else groups[rest], "valid"
    )
    names[rest[in_valid]] = "valid"
    return names, list(dict.fromkeys([*said, *more]))


def cut_valid(
    names: Names, labels: NDArray[np.int64], draw: Draw, groups: NDArray[np.str_] | None
) -> tuple[Names, list[str]]:
    """Where there are train and test alone: a validation split out of train."""
    train = np.flatnonzero(names == "train")
    held, said = _held_out(labels[train], VALID_SHARE, draw, None if groups is None else groups[train], "valid")
    names = names.copy()
    names[train[held]] = "valid"
    return names, said


def _held_out(
    labels: NDArray[np.int64], share: float, draw: Draw, groups: NDArray[np.str_] | None, split: str
) -> tuple[NDArray[np.int64], list[str]]:
    """Indices of what is held out."""
    if len(labels) < 2:
        raise UserError(f"{draw.place}: {len(labels)} sample is left to cut {split} from; give three samples or more")
    if groups is not None:
        return _by_group(labels, share, draw, groups, split), []
    from sklearn.model_selection import train_test_split

    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    size = max(1, round(share * len(labels)))
    frequent = counts[codes] >= 2
    said = []
    if rare := int((counts < 2).sum()):
        said.append(f"{rare} {'class has' if rare == 1 else 'classes have'} a single sample to split: kept in train")
    may = np.flatnonzero(frequent)
    enough = int((counts >= 2).sum())
    if enough and enough <= size <= len(may) - enough:
        kept, held = train_test_split(may, test_size=size, random_state=draw.seed, stratify=labels[may])
        # A small rest may have lost a class: it gets one sample back.
        classes_left, first = np.unique(labels[held], return_index=True)
        back = held[first[~np.isin(classes_left, labels[kept])]]
        return np.setdiff1d(held, back), said
    # Not even one sample of each class fits into both parts: train gets one of each, the rest is split at random.
    rng = np.random.default_rng(draw.seed)
    order = rng.permutation(len(labels))
    _, first = np.unique(labels[order], return_index=True)
    free = np.setdiff1d(np.arange(len(labels)), order[first])
    if not len(free):
        raise UserError(
            f"{draw.place}: {len(labels)} samples of {len(classes)} classes cannot be split: {split} needs a sample "
            f"whose class train has too; give more samples per class"
        )
    said.append(f"{split} is too small to hold every class: split at random, train has each")
    return np.sort(rng.permutation(free)[: min(size, len(free))]), said


def _by_group(
    labels: NDArray[np.int64], share: float, draw: Draw, groups: NDArray[np.str_], split: str
) -> NDArray[np.int64]:
    from sklearn.model_selection import ShuffleSplit

    names, of_sample = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"{draw.group}: one group ({names[0]}) is left to cut {split} from; three or more are needed")
    codes = np.unique(labels, return_inverse=True)[1]
    counts = np.zeros((len(names), codes.max() + 1))
    np.add.at(counts, (of_sample, codes), 1)
    total = counts.sum(axis=0)
    size = min(max(1, round(share * len(names))), len(names) - 1)
    best, chosen = np.inf, None
    for _, held in ShuffleSplit(n_splits=_DRAWS, test_size=size, random_state=draw.seed).split(names):
        inside = counts[held].sum(axis=0)
        uneven = float(np.abs(inside / total - share).mean() + abs(inside.sum() / total.sum() - share))
        if (inside < total).all() and uneven < best:
            best, chosen = uneven, held
    if chosen is None:
        raise UserError(
            f"{draw.group}: whole groups cannot be split so that train has every class ({len(names)} groups, "
            f"{len(total)} classes); give more groups, or leave it out"
        )
    return np.flatnonzero(np.isin(of_sample, chosen))


def shared_groups(names: Names, groups: NDArray[np.str_]) -> list[str]:
    """Which groups stand in two splits."""
    inside = {split: set(groups[names == split].tolist()) for split in SPLITS}
    warnings = []
    for later, earlier in (("valid", "train"), ("test", "train"), ("test", "valid")):
        if both := sorted(inside[later] & inside[earlier]):
            warnings.append(
                f"{len(both)} of {len(inside[later])} groups of {later} are in {earlier} too "
                f"({listed(both, shown=3)}): the splits leak"
            )
    return warnings


def sizes(names: Sequence[str] | Names) -> str:
    return "/".join(str(int(np.sum(np.asarray(names) == split))) for split in SPLITS)
