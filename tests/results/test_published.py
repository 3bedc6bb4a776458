"""Which printed means can be means of three seeds on so many test samples: counted again, one integer at a time."""

from __future__ import annotations

import csv
from importlib.resources import files
from typing import Any

import pytest

from s3ray.results.describe import comparison
from s3ray.results.published import fitting_means
from s3ray.settings import PAPER_DATASETS


def _printed(dataset: str, *tables: int) -> set[str]:
    """The distinct mean accuracies of a dataset in these tables."""
    means = set()
    for table in tables:
        with (files("s3ray") / "published" / f"table{table}.csv").open() as file:
            means |= {row["accuracy_mean"] for row in csv.DictReader(file) if row["dataset"] == dataset}
    return means


def _possible(means: set[str], samples: int) -> int:
    """How many of `means` some number of hits in three runs comes to, rounded to two digits up or down."""
    runs, shares = 3 * samples, set()
    for hits in range(runs + 1):
        down = 10_000 * hits // runs  # in hundredths of a percent
        shares |= {share for share in (down, down + 1) if 2 * abs(10_000 * hits - share * runs) <= runs}
    return len({int(mean.replace(".", "")) for mean in means} & shares)


# The sizes of the published files, some with samples left out, and others.
SIZES = [("mosi", n) for n in (686, 685, 683, 653, 1)]
SIZES += [("mustard", n) for n in (138, 137, 69)]
SIZES += [("ur_funny", n) for n in (1058, 1057, 1000)]
SIZES += [("mosei", n) for n in (4643, 1000)]


@pytest.mark.parametrize(("dataset", "samples"), SIZES)
def test_fitting_means_are_counted_as_by_brute_force(dataset: str, samples: int) -> None:
    means = _printed(dataset, 1, 2, 3)
    assert fitting_means(dataset, samples) == (_possible(means, samples), len(means))


@pytest.mark.parametrize("dataset", PAPER_DATASETS)
def test_fitting_means_are_counted_as_by_brute_force_for_any_few_samples(dataset: str) -> None:
    means = _printed(dataset, 1, 2, 3)
    for samples in range(1, 61):
        assert fitting_means(dataset, samples)[0] == _possible(means, samples), samples


def test_mosis_means_are_of_686_samples() -> None:
    assert fitting_means("mosi", 686) == (30, 37)
    assert fitting_means("mosi", 683) == (6, 37)
    fits = {samples: fitting_means("mosi", samples)[0] for samples in range(650, 725)}
    assert max(fits, key=lambda samples: fits[samples]) == 686
    assert sorted(fits.values())[-2] == 16  # the next best has half as many


def test_mustards_means_are_of_138_samples() -> None:
    first = _printed("mustard", 1)
    assert _possible(first, 138) == len(first) == 20
    # One of the other tables' is none: 61.60 of DisentangledSSL, between 255 and 256 hits of 414.
    assert fitting_means("mustard", 138) == (23, 24)
    assert f"{100 * 255 / 414:.2f}, {100 * 256 / 414:.2f}" == "61.59, 61.84"


def test_so_many_samples_fit_any_mean() -> None:
    # A hit of 3 · 4643 is 0.0072 points: every two digits are a mean of it.
    means = _printed("mosei", 1, 2, 3)
    assert fitting_means("mosei", 4643) == (len(means), len(means))


def test_every_dataset_of_the_paper_has_means() -> None:
    for dataset in PAPER_DATASETS:
        assert fitting_means(dataset, 1)[1] == len(_printed(dataset, 1, 2, 3)) > 20


def _splits(train: int, valid: int, test: int, *, without_text: int = 0, neutral: int = 0) -> Any:
    """As a manifest counts them; text and sentiment are missing in the test split alone."""
    sizes = {"train": train, "valid": valid, "test": test}
    splits = {name: {"samples": samples, "without_text": 0, "neutral": 0} for name, samples in sizes.items()}
    splits["test"] |= {"without_text": without_text, "neutral": neutral}
    return splits


def test_the_reading_that_fits_best_is_named() -> None:
    assert comparison("mosi", _splits(1284, 229, 686, without_text=3, neutral=30), "multibench") == [
        "sizes are those known of the published file",
        "all test samples: 686; 30 of 37 printed means fit",
        "those with text (as prepared): 683; 6 of 37 printed means fit",
        f"those with text and a sentiment other than 0: 653; {_possible(_printed('mosi', 1, 2, 3), 653)} of 37 "
        f"printed means fit",
        "the printed means fit best: all test samples",
        "label >= 0 or > 0 changes no size, so the means say nothing about it",
    ]


@pytest.mark.parametrize(
    ("test", "without_text", "neutral", "best"),
    [
        (700, 14, 3, "those with text (as prepared)"),
        (700, 4, 10, "those with text and a sentiment other than 0"),
        (686, 0, 5, "all test samples = those with text (as prepared)"),
        (700, 14, 0, "those with text (as prepared) = those with text and a sentiment other than 0"),
    ],
)
def test_686_samples_are_found_in_whatever_reading(test: int, without_text: int, neutral: int, best: str) -> None:
    lines = comparison("mosi", _splits(1284, 229, test, without_text=without_text, neutral=neutral), "multibench")
    assert f"the printed means fit best: {best}" in lines


def test_classification_has_no_neutral_reading() -> None:
    assert comparison("mustard", _splits(414, 138, 138, without_text=1, neutral=70), "multibench") == [
        "sizes are those known of the published file",
        "all test samples: 138; 23 of 24 printed means fit",
        "those with text (as prepared): 137; 0 of 24 printed means fit",
        "the printed means fit best: all test samples",
    ]


def test_readings_that_fit_equally_are_not_told_apart() -> None:
    lines = comparison("mosei", _splits(16265, 1869, 4643, without_text=2, neutral=1000), "multibench")
    assert lines[4] == (
        "the printed means cannot tell these apart: with 3 seeds and so many samples any two-digit mean fits"
    )
    # Neither 137 nor 136 fits any, but that is no matter of many samples.
    lines = comparison("mustard", _splits(414, 138, 137, without_text=1), "multibench")
    assert lines[0] == "sizes differ from the published file's 414/138/138"
    assert lines[-1] == "the printed means cannot tell these apart"


def test_sizes_that_differ_are_said() -> None:
    lines = comparison("mosi", _splits(1283, 229, 686), "multibench")
    assert lines[0] == "sizes differ from the published file's 1284/229/686"


def test_simulated_data_are_not_compared_with_the_papers_means() -> None:
    assert comparison("mosi", _splits(1284, 229, 686, without_text=3), "simulated") == [
        "sizes are those known of the published file",
        "simulated data are not compared with the paper's means",
    ]


def test_a_test_split_of_neutral_samples_alone() -> None:
    lines = comparison("mosi", _splits(6, 2, 3, without_text=1, neutral=2), "multibench")
    assert lines[-2] == "the printed means cannot tell these apart"
