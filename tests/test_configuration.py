"""What is hashed of a configuration, and how it comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from reading import hashed
from s3ray.configuration import added, document, restored
from s3ray.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 1.0
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True, kw_only=True)
class Before:
    seed: int
    inner: Inner = Inner()
    other: Inner | None = None


@dataclass(frozen=True, kw_only=True)
class InnerAfter:
    rate: float = 1.0
    sizes: tuple[int, ...] = (1, 2)
    kind: str = added("linear", neutral="linear")


@dataclass(frozen=True, kw_only=True)
class After:
    """`Before` with fields that were added later, one of them inside."""

    seed: int
    inner: InnerAfter = InnerAfter()
    other: Inner | None = None
    steps: int = added(3, neutral=0)  # its default has changed since


def test_a_document_is_plain_and_of_the_declared_types() -> None:
    plain = {"seed": 3, "inner": {"rate": 2.0, "sizes": [4]}, "other": None}
    assert document(Before(seed=3, inner=Inner(rate=2, sizes=(4,)))) == plain
    assert isinstance(document(Inner(rate=2))["rate"], float)  # 2 and 2.0 are one identity
    assert document(Before(seed=1, other=Inner()))["other"] == {"rate": 1.0, "sizes": [1, 2]}


@dataclass(frozen=True, kw_only=True)
class Kinds:
    count: int = 1
    rate: float | None = added(None, neutral=None)
    pairs: tuple[tuple[int, float], ...] = ()
    flag: bool = False


def test_equal_values_have_one_document() -> None:
    assert document(Kinds(rate=1)) == document(Kinds(rate=1.0))
    assert str(document(Kinds(rate=-0.0))) == str(document(Kinds(rate=0.0)))
    assert document(Kinds(pairs=((1, 2),))) == {"count": 1, "pairs": [[1, 2.0]], "flag": False}
    assert isinstance(document(Kinds(pairs=((1, 2),)))["pairs"][0][1], float)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": np.int64(1)}, r"^count: np\.int64\(1\) of type int64 is no int; convert it"),
        ({"count": 1.0}, r"^count: 1\.0 of type float is no int"),
        ({"count": 0.9}, r"^count: 0\.9 of type float is no int"),
        ({"count": True}, r"^count: True of type bool is no int"),
        ({"flag": 1}, r"^flag: 1 of type int is no bool"),
        ({"pairs": [(1, 2.0)]}, r"^pairs: .* of type list is no tuple"),
        ({"rate": "1"}, r"^rate: '1' of type str is no "),
    ],
)
def test_what_would_be_computed_with_but_not_hashed_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        document(Kinds(**given))


def test_a_field_added_later_is_left_out_where_it_is_neutral() -> None:
    assert document(After(seed=1, steps=0)) == document(Before(seed=1))
    assert document(After(seed=1)) == {**document(Before(seed=1)), "steps": 3}
    bent = document(After(seed=1, steps=0, inner=InnerAfter(kind="bent")))
    assert bent["inner"] == {"rate": 1.0, "sizes": [1, 2], "kind": "bent"}


def test_what_is_left_out_where_it_is_neutral_counts_as_hashed() -> None:
    assert hashed(After(seed=1, steps=0)) == {"seed", "inner.rate", "inner.sizes", "inner.kind", "other", "steps"}


@pytest.mark.parametrize(
    "config",
    [After(seed=1), After(seed=2, steps=0, other=Inner(sizes=())), After(seed=3, inner=InnerAfter(kind="bent"))],
)
def test_a_configuration_comes_back(config: After) -> None:
    assert restored(After, document(config)) == config


def test_what_was_hashed_before_a_field_was_added_comes_back_with_its_neutral_value() -> None:
    assert restored(After, document(Before(seed=1))) == After(seed=1, steps=0)
