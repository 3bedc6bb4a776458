import dataclasses
from typing import Any

import pytest

from s3ray.store import UNHASHED, StageRun

RUN = StageRun(
    "specialization", 1, {"dataset": "digits", "scale": "smoke", "seed": 0, "model": {"width": 32}}, None, "d" * 64
)


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "selection"},
        {"version": 2},
        {"parent": "p"},
        {"data": "e" * 64},
        {"config": {**RUN.config, "seed": 1}},
        {"config": {**RUN.config, "model": {"width": 64}}},
        {"config": {**RUN.config, "new_field": None}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_hashes(change: Any) -> None:
    assert dataclasses.replace(RUN, **change).identity != RUN.identity


def test_only_the_exclusion_list_does_not_hash() -> None:
    assert {"dataset", "scale"} == UNHASHED
    relabelled = dataclasses.replace(RUN, config={**RUN.config, "dataset": "other", "scale": "paper"})
    assert relabelled.identity == RUN.identity


def test_order_of_fields_does_not_matter() -> None:
    reordered = dataclasses.replace(RUN, config=dict(reversed(RUN.config.items())))
    assert reordered.identity == RUN.identity


def test_a_value_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        _ = dataclasses.replace(RUN, config={"rate": float("nan")}).identity
