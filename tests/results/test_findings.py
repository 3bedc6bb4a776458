"""What a sweep found, in sentences, on accuracies that are followed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import pytest

from s3ray.results import Results
from s3ray.results.findings import findings
from toy_configuration import TOY

Accuracies = Mapping[float, Sequence[float]]  # on test per ratio, those of seeds 0, 1, …


def curve(test: Accuracies, valid: Mapping[float, float] | None = None, **place: Any) -> pd.DataFrame:
    """A curve whose accuracy on validation is `valid`, else 0.9 at p 0.5 and 0.1 elsewhere, in every seed."""
    lines = []
    for ratio, values in test.items():
        on_valid = (valid or {0.5: 0.9}).get(ratio, 0.1)
        for seed, accuracy in enumerate(values):
            at = {**TOY, **place, "preservation_ratio": ratio, "seed": seed, "samples": 100}
            lines += [{**at, "split": "test", "accuracy": accuracy}, {**at, "split": "valid", "accuracy": on_valid}]
    return pd.DataFrame(lines)


def reference(name: str, valid: float, test: float, dataset: str = "toy") -> pd.DataFrame:
    at = {"dataset": dataset, "reference": name, "samples": 100}
    return pd.DataFrame([{**at, "split": "valid", "accuracy": valid}, {**at, "split": "test", "accuracy": test}])


def results(*rows: pd.DataFrame, controls: Sequence[pd.DataFrame] = (), references: Sequence[pd.DataFrame] = ()) -> Any:
    def united(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    empty = pd.DataFrame()
    return Results(united(rows), united(controls), united(references), empty, empty, empty, empty, empty, {})


AFTER = curve({1.0: [0.70, 0.72, 0.74], 0.5: [0.75, 0.76, 0.77], 0.1: [0.6] * 3})
BEFORE = curve({1.0: [0.60, 0.62, 0.64], 0.5: [0.60, 0.62, 0.64], 0.1: [0.5] * 3}, {0.5: 0.8}, branch="none")
RAW = [
    reference("majority class", 0.99, 0.1),
    reference("raw features", 0.5, 0.90),
    reference("raw vision", 0.6, 0.86),
]
CONTROLS = [
    curve({0.5: [0.70, 0.71, 0.72]}).assign(control="random"),
    curve({0.0: [0.80, 0.82, 0.84]}).assign(control="no expert"),
    curve({1.0: [0.30, 0.32, 0.34]}).assign(control="untrained"),
]


def test_every_sentence_by_hand() -> None:
    found = findings(results(AFTER, BEFORE, controls=CONTROLS, references=RAW))
    assert list(found) == ["toy"]
    # 76 at p* = 0.5. The raw features of vision, which validation chooses, reach 86: 10 points more, ± 2.5.
    assert found["toy"] == [
        "S3 reaches 76.0% on test (n = 3 seeds, 100 samples) with χ 8, batch size 64, after Selection (suff+min), p "
        "0.5, the best of 2 configurations on validation.",
        "Logistic regression on raw features (vision) gives 86.0%: S3 is 10.0 points below (95% interval 7.5 to 12.5).",
        'To try: fewer layers (model.layers), or model.expert_scale = "one", since experts gained nothing.',
        "Selection (suff+min): +10.0 points (95% interval +9.0 to +11.0) over Specialization alone, at p 1.",
        "Pruning to p 0.5: +4.0 points (95% interval +1.5 to +6.5); above random pruning there: +5.0 points (95% "
        "interval +4.0 to +6.0).",
        "Experts: -10.0 points (95% interval -11.0 to -9.0) over computing none, at p 1: experts hurt here; a pruning "
        "curve says nothing.",
        "Training: +40.0 points (95% interval +39.0 to +41.0) over untrained encoders, at p 1.",
        "Shapes of its pruning curves after Selection: 1 peak inside.",
    ]


def test_one_seed_has_no_interval_and_shows_nothing() -> None:
    one = curve({1.0: [0.70], 0.5: [0.75]})
    found = findings(results(one, controls=[CONTROLS[0][lambda f: f["seed"] == 0]], references=RAW))["toy"]
    assert found == [
        "S3 reaches 75.0% on test (one seed, 100 samples) with χ 8, batch size 64, after Selection (suff+min), p 0.5.",
        "Logistic regression on raw features (vision) gives 86.0%: S3 is 11.0 points below in this one seed, which "
        "shows nothing of others.",
        "Pruning to p 0.5: +5.0 points (one seed); over random pruning there: +5.0 points.",
        "Shapes of its pruning curves after Selection: 1 undecided.",
    ]


def test_without_controls_and_references_the_curve_alone_is_told() -> None:
    assert findings(results(BEFORE))["toy"] == [
        "S3 reaches 62.0% on test (n = 3 seeds, 100 samples) with χ 8, batch size 64, without Selection, p 0.5.",
        "Pruning to p 0.5: +0.0 points (95% interval -1.0 to +1.0).",
    ]


def test_above_the_raw_features_nothing_is_to_be_tried() -> None:
    weak = [reference("raw features", 0.5, 0.40)]
    found = findings(results(AFTER, references=weak))["toy"]
    assert found[1] == (
        "Logistic regression on raw features (all modalities) gives 40.0%: S3 is 36.0 points above (95% interval 33.5 "
        "to 38.5)."
    )
    assert not any(sentence.startswith("To try") for sentence in found)


def test_every_dataset_has_its_own_and_the_choice_is_validations() -> None:
    other = curve({1.0: [0.9, 0.9], 0.5: [0.99, 0.99]}, {0.5: 0.2}, dataset="other")
    better = curve({1.0: [0.5, 0.5], 0.5: [0.5, 0.5]}, {0.5: 0.3}, dataset="other", granularity=2)
    found = findings(results(AFTER, other, better))
    assert list(found) == ["toy", "other"]
    assert found["toy"][-1] == "Shapes of its pruning curves after Selection: 1 peak inside."
    assert found["other"][-1] == "Shapes of its pruning curves after Selection: 1 rising, 1 flat."
    assert found["other"][0].startswith("S3 reaches 50.0% on test (n = 2 seeds, 100 samples) with χ 2,")


def test_validation_chooses_p_1_too_and_pruning_that_hurts_is_told_of_p_star() -> None:
    rows = curve({1.0: [0.95] * 3, 0.5: [0.88] * 3}, {1.0: 0.9, 0.5: 0.8})
    found = findings(results(rows, references=[reference("raw features", 0.5, 0.91)]))["toy"]
    assert found[0].startswith("S3 reaches 95.0% on test")
    assert found[0].endswith("p 1.")
    assert "S3 is 4.0 points above" in found[1]
    assert found[-2].startswith("Pruning to p 0.5: -7.0 points")


def test_selection_is_told_of_where_validation_prefers_to_go_without_it() -> None:
    worse = curve({1.0: [0.40, 0.41], 0.5: [0.4, 0.4]}, {0.5: 0.2})
    without = curve({1.0: [0.60, 0.61], 0.5: [0.6, 0.6]}, {0.5: 0.8}, branch="none")
    found = findings(results(worse, without))["toy"]
    assert "without Selection" in found[0]
    assert found[1].startswith("Selection (suff+min): -20.0")


def test_what_is_not_above_the_most_frequent_class_is_said() -> None:
    found = findings(results(AFTER, references=[reference("majority class", 0.9, 0.9)]))["toy"]
    assert (
        found[1] == "Always the most frequent class gives 90.0%: S3 is 14.0 points below (95% interval 11.5 to 16.5)."
    )


@pytest.mark.parametrize(
    "rows", [pd.DataFrame(), curve({1.0: [0.5, 0.6]}), curve({1.0: [0.5], 0.5: [0.5]}, method="clip", branch="none")]
)
def test_without_a_pruning_curve_nothing_is_said(rows: pd.DataFrame) -> None:
    assert findings(results(rows)) == {}
