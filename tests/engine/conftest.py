from __future__ import annotations

from collections.abc import Iterator

import pytest

from heads import Head, started_head


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A head with two CPUs."""
    with started_head(cpus=2) as head:
        yield head
