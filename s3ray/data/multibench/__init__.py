"""MultiBench's affect datasets: what their files are, how they are read, prepared and simulated."""

from s3ray.data.multibench.files import FILES, MODALITIES, MultiBenchFile

__all__ = ["FILES", "MODALITIES", "MultiBenchFile"]
