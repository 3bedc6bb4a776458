"""`three_modalities`: `latent_factors` of three modalities, with factors that all, each two, and each alone express."""

from __future__ import annotations

import dataclasses

from s3ray.data.dataset import Dataset
from s3ray.data.embedded.declaration import Embedded
from s3ray.data.embedded.latent_factors import DATASET as OF_TWO
from s3ray.data.embedded.latent_factors import LatentFactorsConfig, latent_factors


def three_modalities() -> Dataset:
    # Seven factors are relevant, an odd number: one of all, one of each two, one of each alone.
    config = LatentFactorsConfig(modalities=3, shared=2, by_two=2, relevant_by_two=1)
    return dataclasses.replace(latent_factors(config), name="three_modalities")


DATASET = Embedded(name="three_modalities", load=three_modalities, scales=OF_TWO.scales, usual=False)
