"""The prior methods of Table 2, and two that use labels throughout, behind one interface.

All of them train dense encoders of the S3 encoders' depth and FFN width with Specialization's optimizer, steps
and data, and are probed alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch

from s3ray.baselines.base import Baseline, train_baseline
from s3ray.baselines.disentangled import DisentangledSSL, JointOpt
from s3ray.baselines.factorcl import FactorCL
from s3ray.baselines.focal import Focal
from s3ray.baselines.single import Clip, CrossEntropy, SupCon
from s3ray.config import BaselineConfig, Method, ModelConfig

BASELINES: Mapping[Method, type[Baseline]] = MappingProxyType(
    {
        "clip": Clip,
        "factorcl": FactorCL,
        "focal": Focal,
        "jointopt": JointOpt,
        "disentangledssl": DisentangledSSL,
        "supcon": SupCon,
        "cross_entropy": CrossEntropy,
    }
)
USES_LABELS: frozenset[Method] = frozenset({"supcon", "cross_entropy"})

__all__ = ["BASELINES", "USES_LABELS", "Baseline", "build_baseline", "train_baseline"]


def build_baseline(
    method: Method, model: ModelConfig, config: BaselineConfig, features: Mapping[str, int], classes: int, seed: int
) -> Baseline:
    """A method's model initialised from `seed` alone; the caller's global random state is left as it was.

    Args:
        model: dense encoders, that is granularity 1 and expansion 1.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BASELINES[method](model, config, features, classes)
