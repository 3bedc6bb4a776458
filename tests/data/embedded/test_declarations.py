"""What every dataset without files declares."""

from __future__ import annotations

import pytest

from s3ray.data import EMBEDDED


def test_they_are_found_by_looking() -> None:
    assert {"digits", "latent_factors"} <= set(EMBEDDED)


@pytest.mark.parametrize("name", EMBEDDED)
def test_each_makes_the_dataset_that_it_names(name: str) -> None:
    data = EMBEDDED[name].load()
    assert data.name == name
    assert data.kind in ("embedded", "simulated")


@pytest.mark.parametrize("name", EMBEDDED)
def test_settings_are_for_scales_that_exist(name: str) -> None:
    assert EMBEDDED[name].scales.keys() <= {"paper", "smoke"}
