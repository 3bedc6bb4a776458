"""A trained model that represents samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from s3ray.data.arrays import split_from_arrays, split_without_zeros
from s3ray.data.dataset import Dataset, Missing, Split
from s3ray.data.padding import padded_split
from s3ray.data.standardize import Standardizer, standardized_split
from s3ray.data.subsample import subsampled_split
from s3ray.errors import UserError, nearest
from s3ray.model import Pruning, Ragged, S3Model, Scope, TrainedModel
from s3ray.model.parameters import ParameterCount
from s3ray.stages.encode import encode_split
from s3ray.stages.probe import ProbeConfig

Values = ArrayLike | Sequence[ArrayLike] | Ragged
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Model:
    """A trained model that represents samples.

    Attributes:
        module: the encoders; `encode` works where they are, and `module.to(device)` moves them.
        features: input width per modality.
        probe: what of the model its sweep probed, and how.
        pool, scope: the samples, and the layers, whose (token, expert) pairs its sweep ranked together when it pruned.
        standardizers: per modality how its sweep brought features to mean 0 and deviation 1; nothing if it did not.
        max_steps: per modality to how many steps its sweep subsampled longer sequences; nothing if it did not.
        padded: per modality to how many steps sequences are padded with zeros; nothing if padding is not routed.
        missing: `zeros`: of its data a sample whose values of a modality were all 0 lacked it, and new ones do, too.
    """

    module: TrainedModel
    features: Mapping[str, int]
    probe: ProbeConfig
    pool: int
    scope: Scope
    standardizers: Mapping[str, Standardizer] = field(default_factory=dict)
    max_steps: Mapping[str, int] = field(default_factory=dict)
    padded: Mapping[str, int] = field(default_factory=dict)
    missing: Missing = "declared"

    @property
    def modalities(self) -> tuple[str, ...]:
        """In the order of `encode`'s columns."""
        return tuple(self.features)

    @property
    def parameters(self) -> ParameterCount:
        """Of the modules that `encode` runs."""
        return ParameterCount.of(*self.module.used(self.probe.output))

    @overload
    def encode(
        self, data: Dataset, preservation_ratio: float = 1.0, *, pool: int | None = None, on_sphere: bool | None = None
    ) -> dict[str, Vectors]: ...
    @overload
    def encode(
        self,
        data: Split | Mapping[str, Values],
        preservation_ratio: float = 1.0,
        *,
        pool: int | None = None,
        on_sphere: bool | None = None,
    ) -> Vectors: ...
    def encode(
        self,
        data: Dataset | Split | Mapping[str, Values],
        preservation_ratio: float = 1.0,
        *,
        pool: int | None = None,
        on_sphere: bool | None = None,
    ) -> Vectors | dict[str, Vectors]:
        """Represent samples as the sweep did before it probed: without noise or training, features and steps alike.

        Args:
            data: a dataset; one of its splits; or a batch, per modality (n, features), (n, steps, features), n arrays
                (steps, features) of different lengths, or `s3ray.model.Ragged`. What the model does not know of
                modalities is left aside.
            preservation_ratio: p, the share of a pool's (token, expert) pairs that is kept, ranked as in the sweep. A
                sample's representation below 1 depends on the others of its pool.
            pool: samples per pool, in their order; by default those of a batch all together, of a dataset or split
                as many as in the sweep (`Model.pool`).
            on_sphere: every modality's representation is l2-normalised; by default if the sweep probed it so.

        Returns:
            (n, D), the modalities' representations side by side; of a dataset one such array per split.

        Raises:
            UserError: a modality is not given or has another width, a sample lacks all, the values cannot be read, the
                ratio is outside [0, 1], or below 1 for a prior method, whose encoders have no experts to leave out.
        """
        if preservation_ratio != 1.0 and not isinstance(self.module, S3Model):
            raise UserError(
                f"encode: preservation ratio {preservation_ratio} leaves experts out, and a prior method's "
                f"encoders are dense; leave it at 1"
            )
        if isinstance(data, Dataset):
            splits = {name: self._known(split, f"{data.name}, {name}") for name, split in data.splits.items()}
        else:
            splits = {"": self._samples(data)}
        pruning = self._pruning(data, splits, preservation_ratio, pool)
        sphere = self.probe.on_sphere if on_sphere is None else on_sphere
        encoded = {
            name: encode_split(self.module, split, output=self.probe.output, on_sphere=sphere, pruning=pruning).z
            for name, split in splits.items()
        }
        return encoded if isinstance(data, Dataset) else next(iter(encoded.values()))

    def routing(
        self, data: Split | Mapping[str, Values], preservation_ratio: float = 1.0, *, pool: int | None = None
    ) -> pd.DataFrame:
        """Which experts every token is sent to, with which weights, and which of them pruning keeps.

        Args:
            data, preservation_ratio, pool: as of `encode`.

        Returns:
            One line per (token, expert) pair: `modality`; `sample`, its place in `data` from 0; `step`, of the token in
            the sample as it is encoded (subsampled and padded as in the sweep); `layer` and `expert`, from 0; `weight`,
            the router's (Eq. 20); `kept`, whether pruning leaves it. A token has as many lines per layer as experts
            that it is sent to, first the one with the largest weight. Modalities and layers have experts of their own:
            equal numbers do not mean the same one.

        Raises:
            UserError: of `encode`; or the model is a prior method's, which has no router.
        """
        if not isinstance(self.module, S3Model):
            raise UserError("routing: a prior method's encoders are dense and have no router; ask for an s3 model")
        split = self._samples(data)
        pruning = self._pruning(data, {"": split}, preservation_ratio, pool)
        encoded = encode_split(
            self.module, split, output=self.probe.output, on_sphere=True, pruning=pruning, pairs=True
        )
        frames = []
        for name, pairs_TLK3 in encoded.pairs.items():
            token, layer, _ = (index.reshape(-1) for index in np.indices(pairs_TLK3.shape[:3]))
            sequences = split.modalities[name]
            sample = np.repeat(np.arange(len(split)), sequences.lengths)[token]
            expert, weight, kept = pairs_TLK3.reshape(-1, 3).T
            columns = {
                "modality": name,
                "sample": sample,
                "step": token - sequences.offsets[sample],
                "layer": layer,
                "expert": expert.astype(np.int64),
                "weight": weight,
                "kept": kept > 0,
            }
            frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True)

    def _samples(self, data: Split | Mapping[str, Values]) -> Split:
        """A split or a batch as the model encodes it; UserError if it does not fit."""
        if isinstance(data, Split):
            return self._known(data, "split")
        self._check_names(data, "batch")
        given = split_from_arrays("batch", {name: _unjoined(data[name]) for name in self.features})
        return self._known(given, "batch")

    def _pruning(self, data: object, splits: Mapping[str, Split], ratio: float, pool: int | None) -> Pruning | None:
        """At a ratio; the samples of a batch are one pool."""
        if ratio == 1.0:
            return None
        whole = next(map(len, splits.values())) if isinstance(data, Mapping) else self.pool
        return Pruning(ratio=ratio, pool=pool or whole, scope=self.scope)

    def _known(self, split: Split, place: str) -> Split:
        """The modalities of a split that the model encodes; UserError if they do not fit."""
        self._check_names(split.modalities, place)
        for name, features in self.features.items():
            if (found := split.modalities[name].features) != features:
                raise UserError(
                    f"{place}: {name} has {found} features, the model was trained with {features}; give what it "
                    f"was trained with, or correct the names of {', '.join(self.features)}"
                )
        own = dataclasses.replace(split, modalities={name: split.modalities[name] for name in self.features})
        if self.missing == "zeros":
            own = split_without_zeros(own)
        own.check_missing(place, "what is given")
        known = standardized_split(subsampled_split(own, self.max_steps), self.standardizers)
        for name, steps in self.padded.items():
            if (given := int(known.modalities[name].lengths.max(initial=0))) > steps:
                raise UserError(
                    f"{place}: {name} has a sequence of {given} steps, and the model routes padding up to the {steps} "
                    f"of its data; cut it"
                )
        return padded_split(known, self.padded) if self.padded else known

    def _check_names(self, given: Collection[str], place: str) -> None:
        for name in self.features:
            if name not in given:
                raise UserError(f"{place}: lacks modality {name!r}, which the model encodes; {nearest(name, given)}")


def _unjoined(values: Values) -> ArrayLike | Sequence[ArrayLike]:
    """What `Ragged` holds, as an array (steps, features) per sample."""
    if not isinstance(values, Ragged):
        return values
    return np.split(values.values_TF.cpu().numpy(), np.cumsum(values.lengths_B.cpu().numpy())[:-1])
