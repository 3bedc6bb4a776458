"""Parameter accounting against the paper's Tables 4 and 5, and against a count by hand."""

from __future__ import annotations

import csv
import dataclasses
from importlib.resources import files
from typing import get_args

import pytest

from s3ray.model.config import ExpertScale, ModelConfig
from s3ray.model.parameters import ParameterCount, count_parameters
from s3ray.settings import settings_for

VISION = {"mosei": 35, "mosi": 20, "ur_funny": 371, "mustard": 371}
TEXT = 300
CELLS = [(dataset, granularity) for dataset in VISION for granularity in (2, 4, 8)]


def _count(dataset: str, granularity: int) -> ParameterCount:
    config = dataclasses.replace(settings_for(dataset, "paper").model, granularity=granularity)
    return count_parameters(config, {"vision": VISION[dataset], "text": TEXT})


def _published(table: str, dataset: str, granularity: int) -> list[dict[str, str]]:
    text = files("s3ray").joinpath("published", f"{table}.csv").read_text()
    rows = csv.DictReader(text.splitlines())
    return [row for row in rows if (row["dataset"], row["granularity"]) == (dataset, str(granularity))]


@pytest.mark.parametrize(("dataset", "granularity"), CELLS)
def test_table_4_in_every_printed_digit(dataset: str, granularity: int) -> None:
    (row,) = _published("table4", dataset, granularity)  # 12 rows, one per cell
    assert f"{100 * _count(dataset, granularity).router_share:.4f}" == row["router_parameters_percent"]


@pytest.mark.parametrize(("dataset", "granularity"), CELLS)
def test_table_5_in_every_printed_digit(dataset: str, granularity: int) -> None:
    rows = _published("table5", dataset, granularity)
    assert len(rows) == 9  # p = 0.9 … 0.1: 108 entries over the cells
    count = _count(dataset, granularity)
    printed = {row["preservation_ratio"]: row["active_parameters_percent"] for row in rows}
    assert {p: f"{100 * count.active_share(float(p), 'paper'):.2f}" for p in printed} == printed


def test_the_experts_scale_is_no_parameter() -> None:
    counts = [
        count_parameters(ModelConfig(granularity=8, expert_scale=scale), {"a": 3}) for scale in get_args(ExpertScale)
    ]
    assert counts[0] == counts[1]


def test_both_accountings_by_hand() -> None:
    """d = 8, two layers, χ = 2, ρ = 2: N = 4 experts of width 16 / 2 = 8, top-2."""
    config = ModelConfig(width=8, layers=2, granularity=2, expansion=2, ffn_multiple=2, heads=2)
    count = count_parameters(config, {"a": 3, "b": 5})
    # Per layer and encoder: attention 3·8² = 192, LayerNorm 16, router 8·4 + 4² = 48,
    # expert 2·8·8 + 8 + 3·8 = 160, four of them 640: 896. Outside: projection 3·8 or 5·8, final norm 16.
    assert count.total == (24 + 16 + 2 * 896) + (40 + 16 + 2 * 896) == 3680
    assert count.routers == 2 * 2 * 48
    assert count.experts == 2 * 2 * 640
    # Everything else: 3680 - 192 - 2560 = 928. Two of 160 routed in one layer of both encoders: 640.
    assert count.active(0.5, "paper") == 928 + 320
    assert count.active(0.5, "all_layers") == 928 + 640
    assert count.active_share(0.5, "paper") == (928 + 320) / (928 + 640)
    assert count.active_share(0.5, "all_layers") == (928 + 640) / (928 + 1280)
    assert count.active(0.0, "paper") == count.active(0.0, "all_layers") == 928
