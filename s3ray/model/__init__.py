"""The S3 encoders: router, stacked experts, attention over ragged sequences, parameter accounting."""

from s3ray.model.batch import Layout, Ragged
from s3ray.model.config import ModelConfig
from s3ray.model.draws import Draws, Source
from s3ray.model.encoder import Encoded, Encoder, S3Model, build_model
from s3ray.model.pruning import Control, Keep, Pruning, Rule, Scope, ThresholdPruning
from s3ray.model.trained import Encoding, TrainedModel

__all__ = [
    "Control",
    "Draws",
    "Encoded",
    "Encoder",
    "Encoding",
    "Keep",
    "Layout",
    "ModelConfig",
    "Pruning",
    "Ragged",
    "Rule",
    "S3Model",
    "Scope",
    "Source",
    "ThresholdPruning",
    "TrainedModel",
    "build_model",
]
