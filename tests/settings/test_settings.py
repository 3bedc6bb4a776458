"""Configuration: what resolves, in which order, and what is refused with which remedy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s3ray.errors import UserError, nearest
from s3ray.methods import METHODS
from s3ray.model.config import ModelConfig
from s3ray.settings import (
    PAPER_DATASETS,
    SCALES,
    Settings,
    default_scale,
    override,
    read_overrides,
    settings_for,
)
from s3ray.stages.sparsification import SparsificationSettings
from s3ray.stages.specialization import SpecializationSettings
from s3ray.stages.training import OptimizerConfig
from s3ray.stages.variants import SelectionSettings


@pytest.mark.parametrize("granularity", [2, 4, 8])
def test_granularity_fixes_experts_and_their_width(granularity: int) -> None:
    # d = 256: FFN width 1024 = χ · d_e (Eq. 21), N = ρ · χ with ρ = 8 (Eq. 22), top-k = χ.
    model = replace(Settings().model, granularity=granularity)
    assert (model.ffn_width, model.expert_width) == (1024, {2: 512, 4: 256, 8: 128}[granularity])
    assert (model.experts, model.top_k) == ({2: 16, 4: 32, 8: 64}[granularity], granularity)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"granularity": 3}, ["granularity 3", "1024"]),
        ({"granularity": 0}, ["granularity 0"]),
        ({"heads": 0}, ["heads 0"]),
        ({"layers": 0}, ["layers 0"]),
        ({"width": 30, "heads": 2, "granularity": 2}, ["width 30", "multiples of 4"]),
        ({"width": 32, "granularity": 64}, ["expert width 2", "multiples of 4"]),
        ({"heads": 7}, ["heads 7", "256"]),
        ({"dropout": 1.0}, ["dropout 1.0"]),
    ],
)
def test_impossible_models_are_refused(fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        ModelConfig(**fields)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: OptimizerConfig(epochs=0, learning_rate=1e-3), "epochs 0"),
        (lambda: OptimizerConfig(epochs=1, learning_rate=0.0), "learning_rate 0.0"),
        (lambda: SpecializationSettings(temperature=0.0), "temperature 0.0"),
        (lambda: SelectionSettings(temperature=-1.0), "temperature -1.0"),
        (lambda: SparsificationSettings(ratios=(1.0, 1.1)), "1.1"),
        (lambda: SparsificationSettings(ratios=()), "ratios is empty"),
        (lambda: SparsificationSettings(ratios=(1.0, 0.5, 0.5)), "ratios [1.0, 0.5, 0.5] has 0.5 more than once"),
        (lambda: SparsificationSettings(ratios=(0.5, 0.1)), "hold 1.0"),
        (lambda: OptimizerConfig(epochs=10**12, learning_rate=1e-3), "epochs 1000000000000 must lie between 1 and"),
        (lambda: OptimizerConfig(epochs=1, learning_rate=float("nan")), "learning_rate nan must be positive"),
        (lambda: OptimizerConfig(epochs=1, learning_rate=1.0, weight_decay=-1.0), "weight_decay -1.0 is negative"),
        (lambda: SpecializationSettings(lambda_load=-1.0), "lambda_load -1.0 is negative"),
        (lambda: SelectionSettings(lambda_min=float("nan")), "lambda_min nan is negative"),
        (lambda: ModelConfig(width=2**20), "parameters per encoder"),
        (lambda: Settings(seeds=()), "seeds is empty; give one or more"),
        (lambda: Settings(seeds=(0, 1, 0)), "seeds [0, 1, 0] has 0 more than once"),
        (lambda: Settings(granularities=()), "granularities is empty"),
        (lambda: Settings(batch_sizes=()), "batch_sizes is empty"),
        (lambda: Settings(batch_sizes=(64, 64)), "batch_sizes [64, 64] has 64 more than once"),
        (lambda: Settings(seeds=(-1,)), "must lie between 0 and 2^63 - 1"),
        (lambda: Settings(seeds=(2**63,)), "must lie between 0 and 2^63 - 1"),
        (lambda: Settings(specialization=SpecializationSettings(views="dropout")), "set model.dropout above 0"),
        (lambda: SparsificationSettings(batch_size=0), "batch_size 0"),
    ],
)
def test_values_out_of_range_are_refused(build: Any, word: str) -> None:
    with pytest.raises(UserError) as error:
        build()
    assert word in str(error.value)


def test_override_reaches_nested_fields_and_leaves_the_rest() -> None:
    changed = override(Settings(), {"specialization": {"optimizer": {"epochs": 7}}, "batch_sizes": [8]}, "f")
    assert changed.specialization.optimizer.epochs == 7
    assert changed.specialization.optimizer.learning_rate == Settings().specialization.optimizer.learning_rate
    assert changed.batch_sizes == (8,)
    assert changed.selection == Settings().selection


def test_override_reads_whole_numbers_where_fractions_are_meant() -> None:
    temperature = override(Settings(), {"selection": {"temperature": 1}}, "f").selection.temperature
    assert temperature == 1.0
    assert isinstance(temperature, float)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modle": {"width": 32}}, ["f:", "'modle'", "did you mean 'model'?"]),
        ({"model": {"widht": 32}}, ["f: model", "'widht'", "did you mean 'width'?"]),
        ({"model": {"xyz": 1}}, ["f: model", "'xyz'", "known: ", "granularity"]),
        ({"model": 3}, ["'model'", "table", "3"]),
        ({"model": {"width": 32.0}}, ["f: model.width", "an integer, got 32.0"]),
        ({"model": {"width": "32"}}, ["f: model.width", "an integer", "'32'"]),
        ({"model": {"width": True}}, ["f: model.width", "an integer, got true"]),
        ({"model": {"dropout": "no"}}, ["f: model.dropout", "a float", "'no'"]),
        ({"model": {"dropout": False}}, ["f: model.dropout", "a float, got false"]),
        ({"selection": {"temperature": float("nan")}}, ["f: selection.temperature", "nan"]),
        ({"selection": {"temperature": float("inf")}}, ["f: selection.temperature", "inf"]),
        ({"probe": {"on_sphere": 1}}, ["f: probe.on_sphere", "a boolean"]),
        ({"batch_sizes": 64}, ["f: batch_sizes", "a list of integers, such as [1, 2], got 64; write [64]"]),
        ({"batch_sizes": [64, "128"]}, ["f: batch_sizes", "an integer", "'128'"]),
        ({"model": {"positions": "sinusoid"}}, ["f: model.positions", "did you mean 'sinusoidal'?"]),
        ({"specialization": {"views": ["same"]}}, ["f: specialization.views", "dropout, same"]),
        ({"model": {"granularity": 3}}, ["f: model: granularity 3"]),
        ({"selection": {"optimizer": {"epochs": 0}}}, ["f: selection.optimizer: epochs 0 must lie"]),
        ({"seeds": []}, ["f: seeds is empty; give one or more"]),
        ({"batch_sizes": "64"}, ["f: batch_sizes: expected a list of integers, such as [1, 2], got '64'; correct"]),
        ({"sparsification": {"ratios": "0.5"}}, ["expected a list of numbers, such as [1.0, 0.5], got '0.5'; correct"]),
        (
            {"sparsification": {"controls": "random"}},
            ["expected a list of names, such as ['random', 'smallest'], got 'random'; correct the value"],
        ),
        ({"seeds": 3}, ["f: seeds: expected a list of integers, such as [1, 2], got 3; write [3]"]),
        ({"seeds": [0, 0]}, ["f: seeds [0, 0] has 0 more than once; give each once"]),
        ({"sparsification": {"ratios": [1, 1.0, 0.5]}}, ["ratios [1.0, 1.0, 0.5] has 1.0 more than once; give each"]),
        ({"granularities": [2, 2.0]}, ["f: granularities: expected an integer, got 2.0"]),
        ({"seeds": {"a": 1}}, ["f: seeds: expected a list of integers, such as [1, 2], got {'a': 1}"]),
        (
            {"learning_rate": 1e-3},
            ["mean specialization.optimizer.learning_rate or selection.optimizer.learning_rate?"],
        ),
        ({"learning_rat": 1e-3}, ["mean specialization.optimizer.learning_rate or"]),
        (
            {"specialization": {"learning_rate": 1e-3}},
            ["specialization: unknown field", "specialization.optimizer.lea"],
        ),
        ({"model": {"seeds": [0]}}, ["f: model: unknown field 'seeds'; did you mean seeds, above the first [table]?"]),
        (
            {"method": {"focal": {"optimizer": {"learning_rate": 0.001, "epochs": 3}}}},
            ["f: method.focal: unknown field 'optimizer'; learning_rate, epochs stand in [method.focal] itself"],
        ),
        (
            {"sparsification": {"controls": ["ranked"]}},
            ["'ranked' is the curve itself, which is always measured; name what it is held against; known: contr"],
        ),
        ({"sparsification": {"controls": ["all"]}}, ["'all' is no control; name each; known: contribution, random, "]),
        ({"optimizer": {"epochs": 3}}, ["did you mean specialization.optimizer or selection.optimizer?"]),
        ({"digits": {"seeds": [3]}}, ["settings of one dataset stand in [dataset.digits]"]),
        ({"selection": {"temperature": 1e300}}, ["f: selection.temperature: 1e+300 is beyond what a float32 holds"]),
        ({"selection": {"temperature": 10**400}}, ["f: selection.temperature: 1000", "beyond what a float32 holds"]),
    ],
)
def test_override_refuses(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        override(Settings(), changes, "f")
    assert all(word in str(error.value) for word in words), error.value


def test_nearest_suggests_only_what_is_near() -> None:
    assert nearest("moesi", ["mosi", "mustard"]) == "did you mean 'mosi'? known: mosi, mustard"
    assert nearest("zzz", ["mosi", "mustard"]) == "known: mosi, mustard"


def test_settings_precedence_rises_from_defaults_to_the_dataset_table() -> None:
    assert settings_for("mosei", "paper").model.width == 256  # the default
    assert settings_for("mosei", "smoke").model.width == 32  # the scale
    assert settings_for("mustard", "paper").model.width == 128  # the scale's preset for the dataset
    assert settings_for("mustard", "paper", {"model": {"width": 64}}).model.width == 64  # --config
    overrides = {"model": {"width": 64}, "dataset": {"mustard": {"model": {"width": 16}}}}
    assert settings_for("mustard", "paper", overrides).model.width == 16  # --config for the dataset
    assert settings_for("mosi", "paper", overrides).model.width == 64  # which leaves the others alone
    assert "dataset" in overrides  # and the caller's mapping as it was


@pytest.mark.parametrize(
    ("scale", "overrides", "words"),
    [
        ("papre", {}, ["--scale", "'papre'", "did you mean 'paper'?"]),
        ("paper", {"modle": {}}, ["--config", "'modle'", "did you mean 'model'?"]),
        ("paper", {"dataset": {"mosi": {"modle": {}}}}, ["--config [dataset.mosi]: unknown field 'modle'"]),
        (
            "paper",
            {"dataset": {"mosei": {"seeds": 3}}},
            ["--config [dataset.mosei]: seeds: expected a list of"],
        ),
    ],
)
def test_settings_for_refuses(scale: str, overrides: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        settings_for("mosi", scale, overrides)
    assert all(word in str(error.value) for word in words), error.value


def test_a_list_may_be_emptied_to_be_filled_per_dataset() -> None:
    overrides = {"seeds": [], "sparsification": {"ratios": []}}
    overrides["dataset"] = {"mosi": {"seeds": [7], "sparsification": {"ratios": [1.0, 0.5]}}}
    settings = settings_for("mosi", "paper", overrides)
    assert (settings.seeds, settings.sparsification.ratios) == ((7,), (1.0, 0.5))
    with pytest.raises(UserError, match=r"^--config c\.toml: sparsification: ratios is empty"):
        settings_for("mosei", "paper", overrides, "--config c.toml")


def test_what_tables_hold_together_is_judged_together() -> None:
    views = {"specialization": {"views": "dropout"}}
    assert settings_for("mosi", "paper", {**views, "dataset": {"mosi": {"model": {"dropout": 0.1}}}}).model.dropout
    with pytest.raises(UserError, match=r"^--config \[dataset\.mosi\]: specialization: lambda_rep -1\.0 is negative"):
        settings_for("mosi", "paper", {**views, "dataset": {"mosi": {"specialization": {"lambda_rep": -1}}}})


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dataset", [*PAPER_DATASETS, "digits", "latent_factors", "own"])
@pytest.mark.parametrize("granularity", [2, 4, 8])
def test_every_scale_resolves_for_every_dataset(scale: str, dataset: str, granularity: int) -> None:
    settings = settings_for(dataset, scale)
    assert replace(settings.model, granularity=granularity).top_k == granularity
    assert settings.sparsification.ratios == (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


def test_default_scales() -> None:
    assert {name: default_scale(name) for name in ("mosei", "mustard", "digits", "own")} == {
        "mosei": "paper",
        "mustard": "paper",
        "digits": "smoke",
        "own": "smoke",
    }


def test_read_overrides(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('batch_sizes = [8]\n[dataset.own.model]\npositions = "none"  # χ\n', encoding="utf-8")
    assert read_overrides(path) == {"batch_sizes": [8], "dataset": {"own": {"model": {"positions": "none"}}}}


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"[model\nwidth = 3",
        b"width = \xff",
        b"dataset = 3",
        b"[dataset]\nmosi = 3",
        b"seeds = " + b"9" * 5000,
        b"seeds = " + b"[" * 5000,
        b"#" * 2**21,
    ],
    ids=["missing", "no TOML", "no text", "no tables", "no table", "long integer", "deep", "huge"],
)
def test_unreadable_overrides_name_the_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"--config .*config\.toml: .+; (check|correct) the"):
        read_overrides(path)


def test_a_key_that_stands_twice_a_folder_and_a_windows_file(tmp_path: Path) -> None:
    (tmp_path / "twice.toml").write_text("seeds = [0]\nseeds = [1]\n")
    with pytest.raises(
        UserError, match=r"twice\.toml: not valid TOML \(a key stands twice: .*line 2.*; correct the file"
    ):
        read_overrides(tmp_path / "twice.toml")
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); check the path"):
        read_overrides(tmp_path)
    with pytest.raises(UserError, match="--config: is empty"):
        read_overrides("")
    (tmp_path / "notepad.toml").write_bytes(b"\xef\xbb\xbfseeds = [0]\r\n")
    assert read_overrides(tmp_path / "notepad.toml") == {"seeds": [0]}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [({"batch_size": 64}, "did you mean batch_sizes or "), ({"granularity": 2}, "did you mean granularit")],
)
def test_a_near_name_in_the_same_table_comes_first(typed: dict[str, Any], meant: str) -> None:
    with pytest.raises(UserError, match=meant):
        settings_for("digits", "smoke", typed)


def test_each_prior_method_has_a_table_of_its_own() -> None:
    smoke = settings_for("digits", "smoke")
    assert (smoke.method.clip.temperature, settings_for("digits", "paper").method.clip.temperature) == (0.2, 0.07)
    changed = settings_for("digits", "smoke", {"method": {"factorcl": {"critic_width": 32}}})
    assert changed.method.factorcl.critic_width == 32
    assert changed.method.clip == smoke.method.clip
    with pytest.raises(UserError, match=r"method\.clip: unknown field 'critic_width'; did you mean method\.factorcl\."):
        settings_for("digits", "smoke", {"method": {"clip": {"critic_width": 32}}})


def test_a_prior_method_trains_as_specialization_does_but_for_what_its_table_sets() -> None:
    changes = {"specialization": {"optimizer": {"epochs": 3, "weight_decay": 0.5}}, "method": {"focal": {"epochs": 5}}}
    settings = override(Settings(), changes, "f")
    assert settings.optimizer_of("clip") == settings.specialization.optimizer
    assert settings.optimizer_of("focal") == replace(settings.specialization.optimizer, epochs=5)
    assert type(settings.loss_of("focal")) is METHODS["focal"].settings
    assert settings.loss_of("focal") == METHODS["focal"].settings()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"epochs": 0}, "^f: method.focal: epochs 0 must lie between 1"),
        ({"learning_rate": -1}, "^f: method.focal: learning_rate -1.0 must be positive"),
        ({"learning_rate": "fast"}, "^f: method.focal.learning_rate: expected a float"),
        ({"epochs": 1.5}, "^f: method.focal.epochs: expected an integer"),
        ({"warmup": 0.1}, "^f: method.focal: unknown field 'warmup'"),
    ],
)
def test_a_methods_own_training_is_checked(table: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        override(Settings(), {"method": {"focal": table}}, "f")
