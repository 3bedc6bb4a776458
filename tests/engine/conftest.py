import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from heads import Head, started_head

TINY_SWEEP = Path(__file__).with_name("tiny_sweep.py")


@pytest.fixture(scope="session")
def tiny_sweep() -> ModuleType:
    """The module tiny_sweep.py; its __file__ is what subprocesses run."""
    spec = importlib.util.spec_from_file_location("tiny_sweep", TINY_SWEEP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head with two CPUs."""
    with started_head(cpus=2) as head:
        yield head
