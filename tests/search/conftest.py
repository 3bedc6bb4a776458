import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TINY_SWEEP = Path(__file__).parents[1] / "engine" / "tiny_sweep.py"


@pytest.fixture(scope="session")
def tiny_sweep() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tiny_sweep", TINY_SWEEP)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
