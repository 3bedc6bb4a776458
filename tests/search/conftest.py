"""A search over three seeds of the tiny dataset, and a store."""

from pathlib import Path

import pytest

import tiny_search
from s3ray.data import Dataset
from s3ray.search.space import Search
from s3ray.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def search(tiny_dataset: Dataset, store: Store) -> Search:
    return Search.of(tiny_search.plan_of(tiny_search.study_of(tiny_dataset), store), "digits", tiny_search.SPACE)
