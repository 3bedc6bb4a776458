"""Fixtures shared by all tests: a model of a few hundred parameters, a dataset of a few dozen samples, S3."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from hypothesis import settings

import object_storage as s3_server
from object_storage import ObjectStorage
from s3ray.data.dataset import Dataset
from s3ray.model.config import ModelConfig
from tiny_data import tiny_dataset

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


@pytest.fixture(scope="session", name="tiny_dataset")
def _tiny_dataset() -> Dataset:
    return tiny_dataset()


@pytest.fixture(scope="session")
def tiny_sweep() -> ModuleType:
    """The module tests/shared/tiny_sweep.py; its __file__ is what subprocesses run."""
    return importlib.import_module("tiny_sweep")


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


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Ray's temporary folder, of this test alone; short, and nothing in it."""
    with tempfile.TemporaryDirectory(prefix="s3r", dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        yield Path(folder)
