"""Settings per dataset and scale, and the changes that a `--config` file makes to them."""

from s3ray.settings.overrides import flattened, merged, override, read_all, read_overrides
from s3ray.settings.scales import PAPER_DATASETS, SCALES, default_scale
from s3ray.settings.settings import Settings, settings_for, settings_of

__all__ = [
    "PAPER_DATASETS",
    "SCALES",
    "Settings",
    "default_scale",
    "flattened",
    "merged",
    "override",
    "read_all",
    "read_overrides",
    "settings_for",
    "settings_of",
]
