"""`latent_factors` with validation and test splits of 4,000 samples, so that their noise is not the story.

Prototypes and training samples are those of `latent_factors`.
"""

from __future__ import annotations

import dataclasses

from s3ray.data.dataset import Dataset
from s3ray.data.embedded.declaration import Embedded
from s3ray.data.embedded.latent_factors import DATASET as USUAL
from s3ray.data.embedded.latent_factors import LatentFactorsConfig, latent_factors


def latent_factors_large() -> Dataset:
    return dataclasses.replace(latent_factors(LatentFactorsConfig(valid=4000, test=4000)), name="latent_factors_large")


DATASET = Embedded(name="latent_factors_large", load=latent_factors_large, scales=USUAL.scales, usual=False)
