"""What planning needs to know of a dataset, without its values.

The rule on few test samples, written before results: an accuracy of 75 % on n test samples is known to ± 1.96 ·
√(0.75 · 0.25 / n) (95 % interval of a proportion, normal approximation). Where that is above 10 points, for n up to
72, a warning says so. Seeds do not help: they are of the same samples.

The rule on who lacks a modality, written before results: whether a training sample lacks it and its class are held
against each other by Pearson's chi-square test of independence, without correction. Where p is below 0.001, a warning
says so, and in which classes the share that lacks it is the smallest and the largest. The test is not asked where it
does not hold (Cochran): an expected count is below 1, or more than a fifth of them are below 5.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from s3ray.data.dataset import DataKind, Dataset, content_of
from s3ray.data.padding import longest

_USUAL = 0.75  # accuracy at which the rule is applied
_UNKNOWN = 10.0  # points either way
_TELLS = 0.001  # level of the test


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """What planning needs to know of a dataset."""

    fingerprint: str  # of what training and probing see
    kind: DataKind
    features: Mapping[str, int]
    classes: int
    samples: Mapping[str, int]  # per split
    tokens: Mapping[str, int]  # per split, all modalities
    mean_steps: Mapping[str, float]  # per modality, of the training split
    most_steps: Mapping[str, int]  # per modality, of all splits
    squares: Mapping[str, int]  # per split, all modalities: pairs of tokens that attention looks at, padding included
    missing: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # per modality some lack, samples by split
    label_rule: str | None = None  # how classes follow from stored labels, where that is a choice
    label_names: tuple[str, ...] = ()  # of the classes 0, 1, …, where that is known
    subsampled: Mapping[str, int] = field(default_factory=dict)  # steps per modality whose longer sequences were cut
    best_accuracy: float | None = None  # the best achievable, where a simulation knows it
    truth: str | None = None  # fingerprint of the data with a simulation's factors, where they are known
    scores: str | None = None  # fingerprint of the data with their sentiment scores, where they have them
    warnings: tuple[str, ...] = ()  # what is odd about the data

    @property
    def content(self) -> str:
        """The name under which the data are published: `Dataset.content()`."""
        return content_of(self.fingerprint, self.truth, self.scores)

    @property
    def padded(self) -> DataFacts:
        """Of the data as encoders see them that route padding."""
        tokens = {
            name: sum(most * self._present(m, name) for m, most in self.most_steps.items()) for name in self.samples
        }
        mean_steps = {m: most * self.share_present(m) for m, most in self.most_steps.items()}
        return replace(self, tokens=tokens, mean_steps=mean_steps)

    def share_present(self, modality: str) -> float:
        """Of the training split's samples those that have a modality."""
        return self._present(modality, "train") / self.samples["train"]

    def _present(self, modality: str, split: str) -> int:
        return self.samples[split] - self.missing.get(modality, {}).get(split, 0)

    @classmethod
    def of(cls, data: Dataset) -> DataFacts:
        splits = data.splits
        return cls(
            fingerprint=data.fingerprint(),
            kind=data.kind,
            features=data.features,
            classes=data.classes,
            samples={name: len(split) for name, split in splits.items()},
            tokens={
                name: int(np.sum([s.offsets[-1] for s in split.modalities.values()])) for name, split in splits.items()
            },
            mean_steps={name: float(s.lengths.mean()) for name, s in data.train.modalities.items()},
            most_steps=longest(data),
            squares={
                # A batch is padded to its longest sequence, which in all but small batches is about the longest of all.
                name: sum(
                    int(np.count_nonzero(~s.missing)) * int(s.lengths.max()) ** 2 for s in split.modalities.values()
                )
                for name, split in splits.items()
            },
            missing=data.lacking,
            label_rule=data.facts.get("label_rule"),
            label_names=data.label_names,
            subsampled=data.facts.get("subsampled", {}),
            best_accuracy=data.facts.get("best_accuracy"),
            truth=data.truth_fingerprint(),
            scores=data.scores_fingerprint(),
            warnings=(*data.warnings, *_one_modality(data), *_few_samples(len(data.test)), *_telling(data)),
        )


def told_missing(missing: Mapping[str, Mapping[str, int]], samples: Mapping[str, int]) -> str:
    """Of each modality that samples lack the share of every split's that do, in words."""
    shares = {
        name: ", ".join(f"{100 * count / samples[split]:.1f}% of {split}" for split, count in of_splits.items())
        for name, of_splits in missing.items()
    }
    return "; ".join(f"{name} is missing in {of_splits}" for name, of_splits in shares.items())


def _telling(data: Dataset) -> Iterator[str]:
    """By the rule above."""
    if not data.lacking:
        return
    from scipy.stats import chi2_contingency  # takes a while to import, and few data lack anything

    classes, code_N = np.unique(data.train.labels, return_inverse=True)
    samples_K = np.bincount(code_N)
    for name, of_splits in data.lacking.items():
        if not 0 < of_splits["train"] < len(data.train):
            continue
        lacks_K = np.bincount(code_N[data.train.modalities[name].missing], minlength=len(classes))
        test = chi2_contingency([lacks_K, samples_K - lacks_K], correction=False)
        if test.expected_freq.min() < 1 or (test.expected_freq < 5).mean() > 0.2 or test.pvalue >= _TELLS:
            continue
        share_K = lacks_K / samples_K
        least, most = (
            f"{share_K[k]:.0%} of class {_called(data, classes[k])}" for k in (share_K.argmin(), share_K.argmax())
        )
        yield (
            f"who lacks {name} tells of the class: {least} and {most} in train do (chi-square test, p < {_TELLS}); "
            f"hold accuracies against the reference on what is missing"
        )


def _called(data: Dataset, label: int) -> str:
    return data.label_names[label] if 0 <= label < len(data.label_names) else str(label)


def _one_modality(data: Dataset) -> Iterator[str]:
    if len(data.features) == 1:
        yield f"has one modality, {next(iter(data.features))}: L_dsc, which compares different ones, is left out"


def _few_samples(test: int) -> Iterator[str]:
    """By the rule above."""
    reach = 100 * 1.96 * math.sqrt(_USUAL * (1 - _USUAL) / test)
    if reach > _UNKNOWN:
        yield (
            f"{test} test {'sample' if test == 1 else 'samples'} can tell little: of an accuracy of {_USUAL:.0%}, "
            f"{min(reach, 100):.0f} points either way stay open (95% interval), whatever the number of seeds"
        )
