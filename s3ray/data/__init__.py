"""Ragged, memory-mapped, fingerprinted datasets: embedded, simulated, and brought by the user."""

from s3ray.data.arrays import from_arrays
from s3ray.data.dataset import DataKind, Dataset, Sequences, Split
from s3ray.data.embedded import EMBEDDED, Embedded
from s3ray.data.facts import DataFacts
from s3ray.data.sources import Source, load_sources, resolve_sources

__all__ = [
    "EMBEDDED",
    "DataFacts",
    "DataKind",
    "Dataset",
    "Embedded",
    "Sequences",
    "Source",
    "Split",
    "from_arrays",
    "load_sources",
    "resolve_sources",
]
