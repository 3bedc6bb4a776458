"""Fixtures shared by all tests: a model of a few hundred parameters, a dataset of a few dozen samples, S3."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import settings

import object_storage as s3_server
from object_storage import ObjectStorage
from s3ray.config import ModelConfig
from s3ray.data.dataset import Dataset, Sequences, Split

torch.set_num_threads(1)
# The same examples in every run, no memory of earlier ones, no time limit for the first (slow) call.
settings.register_profile("s3ray", deadline=None, derandomize=True, database=None)
settings.load_profile("s3ray")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest starts first, so that no worker is alone with it at the end."""
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in ("ray", "slow")])


@pytest.fixture(scope="session")
def tiny_model() -> ModelConfig:
    """N = 4 experts of width 16 over d = 16, top-2, in two layers."""
    return ModelConfig(width=16, layers=2, granularity=2, expansion=2, ffn_multiple=2, heads=2, positions="sinusoidal")


def _tiny_split(size: int, rng: np.random.Generator) -> Split:
    """Classes 0, 1, 2 in turn; every token carries its class in the first features. Lengths 1 to 6."""
    labels = np.arange(size) % 3
    modalities = {}
    for name, features in (("left", 5), ("right", 3)):
        values = rng.normal(size=(size, 6, features))
        values[:, :, :3] += 4.0 * np.eye(3)[labels][:, None, :]
        modalities[name] = Sequences.from_padded(values, rng.integers(1, 7, size))
    return Split(modalities, labels.astype(np.int64))


@pytest.fixture(scope="session")
def tiny_dataset() -> Dataset:
    """26 / 10 / 9 ragged samples of modalities left (5 features) and right (3 features) in three classes."""
    rng = np.random.default_rng(0)
    splits = {name: _tiny_split(size, rng) for name, size in (("train", 26), ("valid", 10), ("test", 9))}
    return Dataset("tiny", "simulated", **splits)


@pytest.fixture(scope="session")
def _object_storage() -> Iterator[s3_server.ObjectStorage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "made-up")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "made-up")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        server = s3_server.ObjectStorage()
        server.faults = s3_server
        yield server
        server.close()


@pytest.fixture
def object_storage(_object_storage: ObjectStorage) -> Iterator[s3_server.ObjectStorage]:
    """An S3-compatible server (object_storage.py); a place of its own per test, and nothing fails yet."""
    _object_storage.reset()
    yield _object_storage
    _object_storage.reset()
