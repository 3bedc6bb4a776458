"""The S3 encoders: router, stacked experts, attention over ragged sequences, parameter accounting."""

from s3ray.model.batch import Layout, Ragged
from s3ray.model.draws import Draws
from s3ray.model.encoder import Encoded, Encoder, S3Model, build_model

__all__ = ["Draws", "Encoded", "Encoder", "Layout", "Ragged", "S3Model", "build_model"]
