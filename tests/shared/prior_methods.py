"""Configurations of prior methods for tests."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from s3ray.methods import METHODS, MethodConfig
from s3ray.model import ModelConfig
from s3ray.stages.training import OptimizerConfig


def configured(
    method: str, model: ModelConfig, optimizer: OptimizerConfig, values: dict[str, Any], *, batch_size: int, seed: int
) -> MethodConfig:
    """A method's configuration whose own settings take what they have of `values`, and nothing by default."""
    own = METHODS[method].settings
    loss = own(**{field.name: values[field.name] for field in fields(own)})
    return MethodConfig(model=model.dense(), optimizer=optimizer, loss=loss, batch_size=batch_size, seed=seed)
