"""What names people type are taken for."""

from __future__ import annotations

import pytest

from s3ray.errors import UserError, meant

NAMES = [f"digits χ=8 batch=32 seed={seed}" for seed in (1, 10, 2)]


@pytest.mark.parametrize("label", [NAMES[0], "seed=1", "SEED=1 digits", "batch=32 seed=1"])
def test_a_cell_is_named_by_what_tells_it_apart(label: str) -> None:
    assert meant(label, NAMES, "a cell") == NAMES[0]


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        ("digits", f"digits: may be each of {', '.join(NAMES)}; name more of it"),
        ("ed=1", f"ed=1: may be each of {NAMES[0]}, {NAMES[1]}; name more of it"),
        ("digits χ=8 batch=32 seed=3", "is no name of a cell; the nearest: digits"),
    ],
)
def test_what_names_several_cells_or_none(label: str, sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        meant(label, NAMES, "a cell")
    assert sentence in str(raised.value)


def test_of_very_many_cells_the_first_are_named() -> None:
    with pytest.raises(UserError, match=r"seed=9 and 90 more; name more of it"):
        meant("digits", [f"digits seed={seed}" for seed in range(100)], "a cell")


def test_of_no_cells_none_is_meant() -> None:
    with pytest.raises(UserError, match="digits: is no name of a cell; there is none"):
        meant("digits", [], "a cell")
