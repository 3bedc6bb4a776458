"""What readings change, on a few answers that are followed by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from s3ray.data import Dataset
from s3ray.execution import run_cell
from s3ray.results import Results
from s3ray.results.columns import COLUMNS
from s3ray.results.compare import compare_results
from s3ray.results.crossed import Crossed, right
from s3ray.results.exhibits.open_choices import (
    change_chart,
    change_table,
    distance_table,
    elsewhere_table,
    sentence,
    shape_table,
)
from s3ray.results.published import published_table
from s3ray.results.readings import (
    changes,
    chosen_elsewhere,
    combinations,
    distances,
    drawn_shape,
    like_the_paper,
    matter_most,
    shapes,
)
from s3ray.results.rounds import with_second_round
from s3ray.store import Store
from s3ray.sweep import Cell, Study, Sweep, make_plan
from toy_configuration import TOY

SAMPLES = 10
# Per ratio how many of the samples are right; of each seed, if they differ.
Right = Mapping[float, int | tuple[int, ...]]
NOTHING = pd.DataFrame()


def measured(counts: Right, seeds: int = 3, **place: Any) -> pd.DataFrame:
    """The first so many samples are right, on validation as on test."""
    lines = []
    for ratio, of_seeds in counts.items():
        for seed in range(seeds):
            count = of_seeds[seed] if isinstance(of_seeds, tuple) else of_seeds
            correct = np.packbits(np.arange(SAMPLES) < count).tobytes()
            line = {"preservation_ratio": ratio, "seed": seed, "accuracy": count / SAMPLES, "correct": correct}
            lines += [{**TOY, **place, **line, "samples": SAMPLES, "split": split} for split in ("valid", "test")]
    return pd.DataFrame(lines)


def trained(reading: str, before: int | tuple[int, ...], after: Right, seeds: int = 3, **place: Any) -> pd.DataFrame:
    """Specialization's accuracy, and the curve after Selection."""
    place = {"reading": reading, "granularity": 2, **place}
    return together(measured({1.0: before}, seeds, **place, branch="none"), measured(after, seeds, **place))


def chance(reading: str, counts: Right, **place: Any) -> pd.DataFrame:
    return measured(counts, reading=reading, control="random", **{"granularity": 2, **place})


def together(*frames: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)


def line(found: pd.DataFrame, reading: str, effect: str, dataset: str = "") -> pd.Series[Any]:
    keys = {"reading": reading, "effect": effect, "dataset": dataset}
    (own,) = (row for _, row in found.iterrows() if dict(row[list(keys)]) == keys)
    return own


USUAL = trained("", 4, {1.0: 6, 0.5: 7, 0.1: 5})
OTHER = trained("heads: 8", (3, 4, 3), {1.0: (6, 8, 7), 0.5: 6, 0.1: (9, 8, 9)})
CHANCE = together(chance("", {0.5: 5, 0.1: 4}), chance("heads: 8", {0.5: 5, 0.1: (6, 6, 5)}))


def crossed(rows: pd.DataFrame, usual: pd.DataFrame) -> Crossed:
    """Selection's gain in one against the other."""

    def bits(own: pd.DataFrame, branch: str) -> pd.DataFrame:
        chosen = (own["branch"] == branch) & (own["preservation_ratio"] == 1.0) & (own["split"] == "test")
        return right(own[chosen])

    return Crossed.interaction(*(bits(own, branch) for own in (rows, usual) for branch in ("suff+min", "none")))


def test_effects_are_those_of_their_names() -> None:
    """p* is .5 as usual and .1 in the other reading."""
    found = changes(together(USUAL, OTHER), CHANCE)
    values = {(reading, effect): value for reading, effect, value in found[["reading", "effect", "value"]].to_numpy()}
    usual = {"selection": 2, "pruning": 1, "smallest": -1, "router": 2}
    assert {effect: 10 * values["", effect] for effect in usual} == pytest.approx(usual)
    other = {"selection": 11 / 3, "pruning": 5 / 3, "smallest": 5 / 3, "router": 3}
    assert {effect: 10 * values["heads: 8", effect] for effect in other} == pytest.approx(other)
    assert ("", "granularity") not in values  # one χ alone was run
    assert 10 * line(found, "heads: 8", "selection")["change"] == pytest.approx(5 / 3)
    assert found[found["reading"] == ""]["change"].isna().all()


def test_a_change_is_the_crossed_interaction() -> None:
    found = line(changes(together(USUAL, OTHER), CHANCE), "heads: 8", "selection", "toy")
    expected = crossed(OTHER, USUAL).difference
    told = [expected.mean, *expected.interval(0.95), expected.p_nonzero()]
    assert found[["change", "low", "high", "p"]].tolist() == pytest.approx(told)
    assert (found["seeds"], found["samples"]) == (3, SAMPLES)


def test_the_mean_over_chi_is_of_the_same_seeds_and_samples() -> None:
    """At χ 8 nothing changes: half of the change, half of the error, but for what the grid of accuracies leaves."""
    same = [trained(reading, 4, {1.0: 6, 0.5: 7, 0.1: 5}, granularity=8) for reading in ("", "heads: 8")]
    alone = line(changes(together(USUAL, OTHER), NOTHING), "heads: 8", "selection", "toy")
    both = line(changes(together(USUAL, OTHER, *same), NOTHING), "heads: 8", "selection", "toy")
    assert both["change"] == pytest.approx(alone["change"] / 2)
    assert both["high"] - both["low"] == pytest.approx((alone["high"] - alone["low"]) / 2)
    chi = line(changes(together(USUAL, OTHER, *same), NOTHING), "heads: 8", "granularity")
    assert 10 * chi["change"] == pytest.approx(-1.0)  # 7 at χ 2 with it and 6 at χ 8


def test_the_mean_over_datasets_adds_their_errors() -> None:
    other = [rows.assign(dataset="other") for rows in (USUAL, OTHER)]
    found = changes(together(USUAL, OTHER, *other), NOTHING)
    mean, one = (line(found, "heads: 8", "selection", dataset) for dataset in ("", "toy"))
    assert mean["change"] == pytest.approx(one["change"])
    alone = crossed(OTHER, USUAL).difference
    # An error smaller by √2, with twice the degrees of freedom.
    reach = stats.t.ppf(0.975, 2 * alone.freedom) * alone.error / math.sqrt(2)
    assert [mean["low"], mean["high"]] == pytest.approx([alone.mean - reach, alone.mean + reach])
    assert mean["p"] == pytest.approx(2 * stats.t.sf(alone.mean / alone.error * math.sqrt(2), 2 * alone.freedom))
    assert (mean["datasets"], mean["seeds"], mean["samples"]) == (2, 3, 2 * SAMPLES)


def test_what_a_dataset_lacks_is_not_in_its_mean() -> None:
    """The other reading was run on one of two."""
    found = changes(together(USUAL, OTHER, USUAL.assign(dataset="other")), NOTHING)
    mean, one = (line(found, "heads: 8", "selection", dataset) for dataset in ("", "toy"))
    assert mean["change"] == one["change"]
    assert len(found[found["dataset"] == "other"]) == 3  # effects as usual alone, without a control


@pytest.mark.parametrize("lost", [(0, "suff+min"), (1, "none"), (2, "suff+min")])
def test_a_seed_that_is_lost_on_one_side_counts_on_none(lost: tuple[int, str]) -> None:
    seed, branch = lost
    gone = (OTHER["seed"] == seed) & (OTHER["branch"] == branch)
    found = line(changes(together(USUAL, OTHER[~gone]), NOTHING), "heads: 8", "selection", "toy")
    kept = [rows[rows["seed"] != seed] for rows in (OTHER, USUAL)]
    expected = crossed(*kept).difference
    assert found[["change", "low"]].tolist() == pytest.approx([expected.mean, expected.interval(0.95)[0]])
    assert found["seeds"] == 2
    before, after = {0: (3, 6), 1: (4, 8), 2: (3, 7)}, [s for s in range(3) if s != seed]
    assert 10 * found["value"] == pytest.approx(np.mean([before[s][1] - before[s][0] for s in after]))


def test_other_values_of_chi_are_not_compared() -> None:
    elsewhere = trained("heads: 8", 4, {1.0: 9, 0.5: 9}, granularity=8)
    found = changes(together(USUAL, elsewhere), NOTHING)
    assert np.isnan(line(found, "heads: 8", "selection")["change"])
    both = changes(together(USUAL, OTHER, elsewhere), NOTHING)  # χ 8 as usual is lost
    assert (
        line(both, "heads: 8", "selection")["change"]
        == line(changes(together(USUAL, OTHER), NOTHING), "heads: 8", "selection")["change"]
    )


def test_readings_are_of_one_batch_size() -> None:
    """Another part of a sweep may have the usual reading at others."""
    found = changes(together(USUAL, OTHER, USUAL.assign(batch_size=128)), NOTHING)
    assert (
        line(found, "heads: 8", "selection")["change"]
        == line(changes(together(USUAL, OTHER), NOTHING), "heads: 8", "selection")["change"]
    )


@pytest.mark.parametrize(
    ("rows", "readings"),
    [(NOTHING, set()), (USUAL, {""}), (OTHER, {"heads: 8"}), (trained("", 4, {1.0: 5, 0.5: 5}, seeds=1), {""})],
)
def test_none_one_and_no_usual_reading(rows: pd.DataFrame, readings: set[str]) -> None:
    found = changes(rows, NOTHING)
    assert set(found["reading"]) == readings
    assert found["change"].isna().all()
    assert change_chart(found).is_empty
    assert len(change_table(found)) == len(readings)
    assert matter_most(rows, NOTHING) == []


def test_one_seed_has_a_change_and_says_nothing_of_others() -> None:
    rows = together(*(trained(r, 4, {1.0: 5 + (r != ""), 0.5: 5}, seeds=1) for r in ("", "heads: 8")))
    found = line(changes(rows, NOTHING), "heads: 8", "selection")
    assert found["change"] == pytest.approx(0.1)
    assert found["seeds"] is None or found["low"] < 0 < found["high"]


def test_choices_that_matter_most_are_named_once_each_by_validation() -> None:
    """Beside the usual p 1 .5 at p* .5 right: what is further away, more surely, comes first; test does not count."""
    curves: dict[str, Right] = {
        "a: 1": {1.0: 6, 0.5: (9, 9, 8)},
        "a: 2": {1.0: 6, 0.5: (8, 9, 7)},
        "b: 1": {1.0: 6, 0.5: (8, 8, 9)},
        "c: 1": {1.0: 6, 0.5: (7, 8, 7)},
        "d: 1": {1.0: 6, 0.5: (7, 7, 7)},
        "a: 1 + b: 1": {1.0: 1, 0.5: 9},
    }
    usual = trained("", 4, {1.0: 6, 0.5: (6, 7, 6)})
    rows = together(usual, *(trained(reading, 4, counts) for reading, counts in curves.items()))
    chosen = matter_most(rows, NOTHING)
    assert len(chosen) == 3
    assert [reading[0] for reading in chosen] == sorted({reading[0] for reading in chosen})
    assert "a: 2" not in chosen
    test = rows["split"] == "test"
    assert matter_most(rows.assign(correct=rows["correct"].where(~test, b"\x00\x00")), NOTHING) == chosen


@pytest.mark.parametrize(
    ("readings", "combined"),
    [
        ([], []),
        (["a"], []),
        (["a", "b"], ["a + b"]),
        (["a", "b", "c"], ["a + b", "a + c", "b + c", "a + b + c"]),
    ],
)
def test_all_that_combine_two_or_more(readings: list[str], combined: list[str]) -> None:
    assert list(combinations(readings)) == combined


@pytest.mark.parametrize(
    ("curve", "shape"),
    [
        ({1.0: 0.7, 0.5: 0.8, 0.1: 0.6}, "peak inside"),
        ({1.0: 0.7, 0.5: 0.6, 0.1: 0.8}, "rising"),
        ({1.0: 0.7, 0.5: 0.6, 0.1: 0.7}, "falling"),  # of equals the larger ratio
        ({1.0: 0.7, 0.1: 0.7}, "falling"),
        ({1.0: 0.1 + 0.2, 0.5: 0.3}, "falling"),  # equal up to rounding
    ],
)
def test_shapes_as_drawn(curve: dict[float, float], shape: str) -> None:
    assert drawn_shape(curve) == shape


def test_readings_that_look_like_the_paper_are_counted_beside_chance() -> None:
    rising, inside = {1.0: 5, 0.5: 6, 0.1: 7}, {1.0: 5, 0.5: 7, 0.1: 6}
    rows = together(
        *(trained(r, 4, rising, granularity=2) for r in ("", "a: 1 + b: 1", "a: 1 + c: 1")),
        trained("", 4, rising, granularity=8),
        *(trained(r, 4, inside, granularity=8) for r in ("a: 1 + b: 1", "a: 1 + c: 1")),
    )
    found = shapes(rows, NOTHING)
    assert set(found["drawn"]) == {"rising", "peak inside"}
    judged = like_the_paper(found)
    assert judged["drawn"].tolist() == [False, True, True]
    assert judged["chance"].tolist() == pytest.approx([1 / 9] * 3)  # the smallest of three, and the one inside
    assert judged["chance_walk"].tolist() == pytest.approx([3 / 8 * 1 / 4] * 3)  # of four walks of two steps
    floors = [measured({0.0: 6}, reading="a: 1 + b: 1", control="no expert", granularity=g) for g in (2, 8)]
    found = shapes(rows, together(*floors))
    assert 10 * found.loc[found["reading"] == "a: 1 + b: 1", "no_expert"].to_numpy() == pytest.approx([1, 1])
    said = sentence(found)
    assert "of 3 readings 2 draw rising at the smallest χ" in said
    assert "(0.3 to 0.3 of flat curves would); tests show it of 2." in said
    assert said.endswith(
        "on every dataset a: 1 + b: 1, a: 1 + c: 1 (0.28 to 0.33 of 3 flat ones would); they share the choice of a; "
        "no expert at all is above p = 1 in 2 of their 2 curves."
    )
    assert shape_table(found)["reading"].tolist()[:4] == ["the paper, as printed"] * 4


@pytest.mark.parametrize("rows", [NOTHING, USUAL])
def test_without_two_values_of_chi_no_shape_is_compared(rows: pd.DataFrame) -> None:
    assert sentence(shapes(rows, NOTHING)) == ""


def printed(reading: str, shift: float, datasets: tuple[str, ...] = ("mosi",)) -> pd.DataFrame:
    """The paper's own curves, `shift` printed standard errors too high."""
    table = published_table(1)
    lines = []
    for _, cell in table[(table["stage"] != "specialization") & table["dataset"].isin(datasets)].iterrows():
        mean, std = float(cell["accuracy_mean"]), float(cell["accuracy_std"])
        for seed in range(3):
            accuracy = (mean + (seed - 1) * std + shift) / 100
            labels = {"dataset": cell["dataset"], "granularity": int(cell["granularity"]), "kind": "multibench"}
            ratio = float(cell["preservation_ratio"])
            place = {"preservation_ratio": ratio, "seed": seed, "split": "test", "accuracy": accuracy}
            lines.append({**TOY, **labels, **place, "reading": reading})
    return pd.DataFrame(lines)


def test_distance_is_in_units_of_noise() -> None:
    rows = together(printed("near", 0.0), printed("far", 3.0))
    found = distances(rows).set_index("reading")
    assert found["distance"]["near"] == pytest.approx(0.0, abs=1e-9)
    table = published_table(1)
    std = table[(table["dataset"] == "mosi") & (table["stage"] != "specialization")].assign(
        variance=lambda t: t["accuracy_std"].astype(float) ** 2
    )
    error = std.groupby("granularity")["variance"].mean() * 2 / 3  # both sides', three seeds each
    assert found["distance"]["far"] == pytest.approx(math.sqrt((9 / error).mean()))
    assert (found["points"] == 30).all()
    assert distances(USUAL).empty
    assert distances(NOTHING).empty


def test_a_dataset_takes_the_reading_that_the_others_choose() -> None:
    far = {"a": (0.0, 4.0, 0.0), "b": (1.0, 1.0, 1.0)}
    datasets = ("mosi", "mosei", "mustard")
    rows = together(
        *(printed(r, shift, (d,)) for r, shifts in far.items() for d, shift in zip(datasets, shifts, strict=True))
    )
    found = chosen_elsewhere(distances(rows)).set_index("dataset")
    # Seen from mosei, a is exact elsewhere, and is last here; mosi and mustard see a's failure on mosei.
    assert found["reading"].to_dict() == {"mosi": "b", "mosei": "a", "mustard": "b"}
    assert found["place"].to_dict() == {"mosi": 2, "mosei": 2, "mustard": 2}
    assert len(elsewhere_table(found.reset_index())) == 3
    assert distance_table(distances(rows))["reading"].tolist() == ["b", "a"]


def test_a_reading_that_lacks_a_curve_is_compared_with_none() -> None:
    short = printed("short", 0.0)
    found = distances(together(printed("whole", 3.0), short[short["granularity"] == 2]))
    assert found["reading"].tolist() == ["whole"]


def test_one_seed_scatters_as_the_printed_ones_do() -> None:
    rows = printed("one", 0.0)
    found = distances(rows[rows["seed"] == 1].assign(accuracy=lambda own: own["accuracy"] + 0.03))
    table = published_table(1)
    own = table[(table["dataset"] == "mosi") & (table["stage"] != "specialization")]
    variance = own.assign(v=own["accuracy_std"].astype(float) ** 2).groupby("granularity")["v"].mean()
    assert found["distance"].tolist() == pytest.approx([math.sqrt((9 / (variance * (1 + 1 / 3))).mean())])


def test_readings_are_not_compared_with_the_paper() -> None:
    """They may not be mixed with what is: a reading is another setting."""
    info = {"datasets": {"mosi": {"margin": 1.5, "batch_size": 64}}}
    frames = {name: NOTHING for name in COLUMNS if name != "rows"}
    usual, both = (
        Results(rows=rows, **frames, info=info)
        for rows in (printed("", 0.0), together(printed("", 0.0), printed("far", 3.0)))
    )
    pd.testing.assert_frame_equal(compare_results(usual), compare_results(both))


@pytest.mark.parametrize("rows", [NOTHING, printed("a", 0.0)])
def test_of_one_dataset_nothing_is_chosen_elsewhere(rows: pd.DataFrame) -> None:
    assert chosen_elsewhere(distances(rows)).empty


SHORT = {
    "specialization": {"optimizer": {"epochs": 1}},
    "selection": {"optimizer": {"epochs": 1}},
    "sparsification": {"ratios": [1.0, 0.5], "controls": []},
}


def test_references_are_those_of_the_usual_probe(tiny_dataset: Dataset, tmp_path: Path) -> None:
    study = Study.of({"toy": dataclasses.replace(tiny_dataset, name="toy")}, "smoke", SHORT)
    store, readings = Store(str(tmp_path)), {"probe C: 9": {"probe": {"inverse_regularization": 9.0}}}

    def cells(study: Study) -> Iterator[Cell]:
        for reading in ("", "probe C: 9"):
            yield study.cell("toy", 2, 8, 0, reading)

    plan = make_plan(Sweep("two", cells, ("none",), readings=readings), study, store)
    for cell in plan.cells:
        run_cell(cell, study.data["toy"], store, lambda _: None, device=torch.device("cpu"), checkpoint_interval=60)
    found = Results.collect(make_plan(plan.sweep, study, store), store).references
    (usual,) = (cell for cell in plan.cells if not cell.cell.reading)
    assert set(found["identity"]) == {usual.reference.identity}


def test_a_second_round_follows_once_the_first_is_there(tiny_dataset: Dataset, tmp_path: Path) -> None:
    study = Study.of({"toy": dataclasses.replace(tiny_dataset, name="toy")}, "smoke", SHORT)

    def first(study: Study) -> Iterator[Cell]:
        yield study.cell("toy", 2, 8, 0)

    def then(study: Study, results: Any) -> Iterator[Cell]:
        yield study.cell("toy", 2, 8, 0, "heads: 8")

    readings = {"heads: 8": {"model": {"heads": 8}}}
    store, sweep = Store(str(tmp_path)), Sweep("two", first, ("suff+min",), readings=readings, then=then)
    plan = make_plan(sweep, study, store)
    assert with_second_round(plan, store) is plan  # the first is still to do
    assert len(with_second_round(plan, store, {plan.cells[0].cell}).cells) == 2  # and what failed is not waited for
    run_cell(
        plan.cells[0], study.data["toy"], store, lambda _: None, device=torch.device("cpu"), checkpoint_interval=60
    )
    plan = make_plan(sweep, study, store)
    whole = with_second_round(plan, store)
    assert [cell.cell.reading for cell in whole.cells] == ["", "heads: 8"]
    assert whole.cells[1].training.config.model.heads == 8
    assert with_second_round(whole, store) is whole
    damaged = next((tmp_path / "artifacts" / "probe").rglob("rows.parquet"))
    damaged.write_bytes(b"")
    assert with_second_round(plan, store) is plan  # it would follow from less than was measured
    for none in (None, lambda study, results: []):
        without = make_plan(dataclasses.replace(sweep, then=none), study, store)
        assert with_second_round(without, store) is without
