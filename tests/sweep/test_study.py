"""What a study refuses before anything is planned."""

from __future__ import annotations

import dataclasses

import pytest

from s3ray.data import DataFacts, Dataset, Split
from s3ray.errors import UserError
from s3ray.settings import settings_for
from s3ray.sweep import Study, StudyDataset


@pytest.mark.parametrize(
    ("names", "found"),
    [(["left"], r"1 modality \(left\)"), (["left", "right", "back"], r"3 modalities \(left, right, back\)")],
)
def test_the_losses_compare_two_modalities(names: list[str], found: str, tiny_dataset: Dataset) -> None:
    def seen_through(split: Split) -> Split:
        given = split.modalities
        return dataclasses.replace(split, modalities={name: given.get(name, given["right"]) for name in names})

    splits = {name: seen_through(split) for name, split in tiny_dataset.splits.items()}
    facts = DataFacts.of(dataclasses.replace(tiny_dataset, **splits))
    study = Study({"toy": StudyDataset(facts, "smoke", settings_for("toy", "smoke"))})
    with pytest.raises(UserError, match=rf"^toy: has {found}, and the losses compare two; give two, of prepared data"):
        study.check(study.cell("toy", 2, 8, 0))
