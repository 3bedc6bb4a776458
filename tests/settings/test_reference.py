"""Settings as TOML: what is printed makes the same settings again, and every field says what it is."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from typing import Any

import pytest

from s3ray.data.embedded import EMBEDDED
from s3ray.settings import PAPER_DATASETS, SCALES, Settings, default_scale, settings_for
from s3ray.settings.reference import as_toml, of_scale, reference, table_comments

EVERY = [*EMBEDDED, *PAPER_DATASETS]


@pytest.mark.parametrize("dataset", EVERY)
@pytest.mark.parametrize("scale", SCALES)
def test_what_is_printed_makes_the_same_settings_again(dataset: str, scale: str) -> None:
    settings = settings_for(dataset, scale)
    assert settings_for(dataset, scale, tomllib.loads(as_toml(settings, scale))) == settings


@pytest.mark.parametrize(
    "changes",
    [
        {"method": {"clip": {"epochs": 7}}, "max_steps": 9},
        {"sparsification": {"controls": []}},
        {"sparsification": {"controls": ["random", "smallest"], "scope": "model"}},
        {"specialization": {"optimizer": {"learning_rate": 1e-7}}, "seeds": [2**63 - 1]},
    ],
)
def test_so_does_what_a_configuration_file_changed(changes: dict[str, Any]) -> None:
    settings = settings_for("digits", "smoke", changes)
    assert settings_for("digits", "smoke", tomllib.loads(as_toml(settings, "smoke"))) == settings


def test_every_field_and_table_says_what_it_is_on_one_line() -> None:
    """A field without a line in the `Attributes:` of its class is a KeyError."""
    fields = list(reference(Settings()))
    for setting in fields:
        assert setting.comment.endswith(".")
        assert "\n" not in setting.comment
        assert setting.kind
    paths = [setting.path for setting in fields]
    assert len(set(paths)) == len(paths)
    assert {"seeds", "model.width", "selection.optimizer.epochs", "method.focal.learning_rate"} < set(paths)
    assert {path for path, _ in table_comments(Settings())} >= {setting.table for setting in fields} - {""}


def test_what_differs_from_the_scale_says_what_the_scale_has() -> None:
    text = as_toml(settings_for("latent_factors", "smoke", {"model": {"width": 64}}), "smoke")
    lines = {line.partition(" =")[0]: line for line in text.split("\n[specialization.optimizer]")[0].splitlines()}
    assert lines["width"] == "width = 64  # of tokens and representations, d. Default: 32."
    assert lines["layers"] == "layers = 2  # per encoder."
    assert lines["lambda_local"].endswith("Default: 0.3.")
    assert lines["# max_steps"].startswith("# max_steps =  # (ours) of your own data")
    assert lines["positions"].endswith('One of "none" | "sinusoidal".')
    assert "Default" not in as_toml(of_scale("smoke"), "smoke")


def test_the_default_scales_are_those_that_are_printed() -> None:
    assert {default_scale(name) for name in EVERY} == set(SCALES)


@pytest.mark.slow
def test_where_docstrings_are_left_out_settings_are_told_without_comments() -> None:
    command = [sys.executable, "-OO", "-m", "s3ray", "config", "digits"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "\nseeds = [" in result.stdout
