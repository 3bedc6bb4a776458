"""A look at a dataset's values when they are read: what is finite but absurd, in one sentence each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The sum of 256 squares of this is just below float32's largest value: beyond it a LayerNorm of the encoder's
# width overflows.
LARGEST = 1e18

_LARGE = 1e4  # a root mean square that drowns other features
_SMALL = 1e-4  # its square is far below the 1e-5 that LayerNorm adds to a variance
_OFFSET = 100  # a mean of so many deviations hides them
_OTHER_UNIT = 100  # between the splits
_BLOCK_VALUES = 1 << 15  # they stay in the processor's cache

Looks = Mapping[str, Mapping[str, "Look"]]  # per split and modality


class Look:
    """What the values of one modality in one split are like; they come in pieces."""

    def __init__(self, features: int) -> None:
        self.digests: list[bytes] = []  # per sample
        self.zero: list[bool] = []  # per sample, whether it has no value but 0
        self.missing: list[bool] = []  # per sample, whether it has no step
        self.low, self.high = np.full(features, np.inf), np.full(features, -np.inf)
        self.error = np.zeros(features)  # largest that float32 makes
        self.beyond, self.most = 0, 0.0  # values beyond LARGEST, and the value of the largest magnitude
        self.most_count, self.second = 0, 0.0  # how often that magnitude occurs, and the next one
        # Sums are of distances from the first row, so that a large offset costs no digits.
        self._rows, self._origin = 0, np.zeros(features)
        self._sum, self._squares = np.zeros(features), np.zeros(features)

    def add(self, rows: NDArray[Any], lengths: NDArray[Any]) -> None:
        """Some samples' rows (Σ lengths, features) of finite numbers, as they are stored."""
        if len(rows) and not self._rows:
            self._origin = rows[0].astype(np.float64)
        single = np.ascontiguousarray(rows, dtype=np.float32)
        step = max(1, _BLOCK_VALUES // rows.shape[1])
        for start in range(0, len(rows), step):
            block = single[start : start + step]
            if rows.dtype != np.float32:
                exact = rows[start : start + step].astype(np.float64)
                np.maximum(self.error, np.abs(exact - block).max(axis=0), out=self.error)
                self._add_block(exact)
            else:
                self._add_block(block)
        occupied: NDArray[np.bool_] = np.asarray(single.any(axis=1))
        end = 0
        for length in lengths.tolist():
            start, end = end, end + length
            self.digests.append(hashlib.blake2b(single[start:end].data, digest_size=16).digest())
            self.zero.append(not occupied[start:end].any())
            self.missing.append(not length)

    def _add_block(self, values: NDArray[Any]) -> None:
        low, high = values.min(axis=0), values.max(axis=0)
        np.minimum(self.low, low, out=self.low)
        np.maximum(self.high, high, out=self.high)
        distance = values - self._origin.astype(values.dtype)
        self._rows += len(values)
        self._sum += distance.sum(axis=0, dtype=np.float64)
        with np.errstate(over="ignore"):  # such values are refused
            self._squares += np.square(distance, out=distance).sum(axis=0, dtype=np.float64)
        size = np.abs(values, out=distance)
        most, before = max(-float(low.min()), float(high.max()), abs(self.most)), abs(self.most)
        if most > LARGEST:
            self.beyond += int(np.count_nonzero(size > LARGEST))
        if most > before:
            self.second, self.most_count = before, 0
            self.most = most if most == float(high.max()) else -most
        less = size < most
        self.second = max(self.second, float(np.multiply(size, less, out=size).max()))
        self.most_count += less.size - int(np.count_nonzero(less))

    @property
    def samples(self) -> int:
        return len(self.digests)

    @property
    def present(self) -> list[bytes]:
        """The digests of the samples that have the modality."""
        return [digest for digest, missing in zip(self.digests, self.missing, strict=True) if not missing]

    @property
    def mean(self) -> NDArray[np.float64]:
        """(features,): over all steps."""
        return self._origin + self._sum / self._rows

    @property
    def deviation(self) -> NDArray[np.float64]:
        """(features,): standard deviation over all steps."""
        square = self._squares / self._rows - (self._sum / self._rows) ** 2
        return np.where(self.low == self.high, 0.0, np.sqrt(np.maximum(square, 0.0)))

    @property
    def scale(self) -> NDArray[np.float64]:
        """(features,): root mean square over all steps."""
        return np.sqrt(self.mean**2 + self.deviation**2)

    @property
    def mark(self) -> str:
        """The one value that lies far beyond all others, as numbers for 'no data' do; else nothing."""
        size = abs(self.most)
        far = size >= (10 if self.most_count > 1 else 100) * self.second
        everywhere = self.most_count >= self._rows  # a feature that is constant
        return f"{self.most:g}" if far and self.second > 0 and size >= 100 and not everywhere else ""

    def refusal(self, key: str) -> str:
        """Why float32 cannot hold these values, with the remedy; nothing if it can."""
        if self.beyond:
            return (
                f"{key} holds {self.beyond} values beyond ±{LARGEST:g}, such as {self.most:g}, whose squares overflow "
                f"float32; replace them if they mark missing values, else divide"
            )
        spread = self.high - self.low
        lost = np.flatnonzero((spread > 0) & (self.error > spread / 100))
        if not len(lost):
            return ""
        feature = int(lost[0])
        low, high, mean = float(self.low[feature]), float(self.high[feature]), float(self.mean[feature])
        remedy = f"subtract {mean:.0f}" if abs(mean) > 1 else "multiply"
        return (
            f"{key}: feature {feature} lies between {low!r} and {high!r}, which float32 cannot tell apart; "
            f"{remedy} before saving"
        )


def modality_warnings(looks: Looks, name: str, key: Callable[[str, str], str]) -> list[str]:
    """What is odd about the values of modality `name`, one sentence each, but for their units (`scale_warnings`).

    Args:
        key: what a split's array of a modality is called in the file.
    """
    mine = {split: of[name] for split, of in looks.items()}
    nothing = [split for split, look in mine.items() if all(look.zero)]
    same = [
        split
        for split, look in mine.items()
        if split not in nothing and len(present := look.present) > 1 and len(set(present)) == 1
    ]
    warnings = []
    if nothing:
        warnings.append(f"{name} is all zeros in every sample of {_and(nothing)}: it says nothing there")
    if same:
        warnings.append(f"{name} is the same in every sample of {_and(same)}: it says nothing there")
    some = {
        split: count
        for split, look in mine.items()
        if split not in nothing and (count := sum(look.zero) - sum(look.missing))
    }
    if some:
        shares = [
            f"{n} of {mine[s].samples} samples of {s} ({100 * n / mine[s].samples:.2g} %)" for s, n in some.items()
        ]
        warnings.append(f"{name} is all zeros in {', '.join(shares)}")
    marked = {split: look for split, look in mine.items() if look.mark}
    for split, look in marked.items():
        warnings.append(
            f"{key(split, name)} holds {look.mark} in {_number(look.most_count, 'value')}, "
            f"{abs(look.most) / look.second:.2g} times what the others reach: if it marks missing values, replace it"
        )
    train = mine["train"]
    if not marked and "train" not in nothing:
        warnings += [
            f"{key(split, name)} is {ratio:.2g} times as large as {key('train', name)}: are both in the same unit?"
            for split, look in mine.items()
            if split not in nothing
            and not 1 / _OTHER_UNIT < (ratio := float(look.scale.max() / train.scale.max())) < _OTHER_UNIT
        ]
    return warnings


def scale_warnings(train: Look, key: str, remedy: str) -> list[str]:
    """What is odd about the units of a modality's features, one sentence each.

    Args:
        train: the modality's values in the training split.
        key: what they are called in the file.
        remedy: how to bring features to a usual scale.
    """
    if train.mark or all(train.zero):
        return []
    scale, deviation = train.scale, train.deviation
    warnings = []
    offset = (np.abs(train.mean) > _OFFSET * deviation) & (deviation > 0) & (scale >= _SMALL)
    if offset.any():
        worst = int(np.argmax(np.where(offset, np.abs(train.mean), 0)))
        warnings.append(
            f"{key}: {_features(offset)} by far more around a mean than they vary, feature {worst} by "
            f"{deviation[worst]:.2g} around {train.mean[worst]:.4g}: {remedy}"
        )
    large = (scale > _LARGE) & ~offset
    if large.any():
        worst = int(np.argmax(np.where(large, scale, 0)))
        warnings.append(
            f"{key}: {_features(large)} at {_LARGE:g} or beyond, feature {worst} at {scale[worst]:.2g}: {remedy}"
        )
    if scale.max() < _SMALL:
        warnings.append(
            f"{key}: all values are tiny, {scale.max():.2g} on the average of the largest feature: {remedy}"
        )
    return warnings


def shared_samples(looks: Looks) -> list[str]:
    """Which splits hold the same samples, all modalities value for value; samples of zeros do not count."""
    samples = {}
    for split, of in looks.items():
        rows = zip(*(look.digests for look in of.values()), strict=True)
        empty = zip(*(look.zero for look in of.values()), strict=True)
        samples[split] = [row for row, zero in zip(rows, empty, strict=True) if not all(zero)]
    warnings = []
    names = list(looks)
    for i, later in enumerate(names):
        for earlier in names[:i]:
            known = set(samples[earlier])
            shared = sum(row in known for row in samples[later])
            if shared and shared == len(samples[later]) == len(samples[earlier]):
                warnings.append(f"{later} holds the samples of {earlier}, value for value: the splits leak")
            elif shared:
                total = len(looks[later][next(iter(looks[later]))].digests)
                warnings.append(
                    f"{shared} of {total} samples of {later} are in {earlier} too, value for value: the splits leak"
                )
    return warnings


def _and(names: list[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if names[1:] else "") + names[-1]


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _features(chosen: NDArray[np.bool_]) -> str:
    count = int(chosen.sum())
    return f"{count} of {len(chosen)} features {'lies' if count == 1 else 'lie'}"
