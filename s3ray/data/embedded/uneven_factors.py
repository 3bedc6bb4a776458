"""`uneven_factors`: `latent_factors` with samples of very different lengths, to show what is done of padding.

Half of the sequences of a modality have 6 tokens, the others mostly 14 to 20, whatever the label and the other
modality are. Padded to the longest, 4 of 10 tokens are padding.
"""

from __future__ import annotations

import dataclasses

from s3ray.data.dataset import Dataset
from s3ray.data.embedded.declaration import Embedded
from s3ray.data.embedded.latent_factors import DATASET as EVEN
from s3ray.data.embedded.latent_factors import LatentFactorsConfig, latent_factors


def uneven_factors() -> Dataset:
    config = LatentFactorsConfig(nuisance=14, nuisance_kept=0.8, short=0.5)
    return dataclasses.replace(latent_factors(config), name="uneven_factors")


DATASET = Embedded(name="uneven_factors", load=uneven_factors, scales=EVEN.scales, usual=False)
