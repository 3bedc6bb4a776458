"""What is hashed is what is read: a stage reads every field of its configuration, the nested ones among them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from s3ray.data.dataset import Dataset
from s3ray.data.embedded.latent_factors import LatentFactorsConfig, latent_factors
from s3ray.methods import METHODS
from s3ray.methods.method import MethodConfig
from s3ray.model import ModelConfig, build_model
from s3ray.stages.encode import Pruning
from s3ray.stages.factors import FACTORS, FactorsConfig
from s3ray.stages.probe import PROBE, ClassifierConfig, ProbeConfig
from s3ray.stages.reference import REFERENCE
from s3ray.stages.selection import SELECTION, SelectionConfig
from s3ray.stages.sparsification import SPARSIFICATION, SparsificationConfig
from s3ray.stages.specialization import SPECIALIZATION, SpecializationConfig, SpecializationSettings
from s3ray.stages.stage import Context, Inputs, Stage
from s3ray.stages.training import OptimizerConfig
from s3ray.stages.variants import VARIANTS, SelectionSettings

MODEL = ModelConfig(width=16, layers=1, granularity=2, expansion=2, ffn_multiple=2, heads=2, dropout=0.1)
ONCE = OptimizerConfig(epochs=1, learning_rate=1e-3)
TRAINED = {"optimizer": ONCE, "batch_size": 16, "seed": 0}
PRUNING = Pruning(ratio=0.5, pool=8)
CLASSIFIER = ClassifierConfig()


def _runs() -> Iterator[tuple[str, Stage[Any], Any]]:
    """Every stage with a configuration that leaves nothing out."""
    training = SpecializationSettings(optimizer=ONCE, views="dropout")
    yield "specialization", SPECIALIZATION, SpecializationConfig(model=MODEL, training=training, batch_size=16, seed=0)
    for name, variant in VARIANTS.items():
        if variant.configure is not None:
            loss = variant.configure(SelectionSettings())
            yield f"selection {name}", SELECTION, SelectionConfig(variant=name, loss=loss, **TRAINED)
    yield "probe", PROBE, ProbeConfig(output="none", on_sphere=True, classifier=CLASSIFIER)
    sparsification = SparsificationConfig(pruning=PRUNING, on_sphere=True, classifier=CLASSIFIER)
    yield "sparsification", SPARSIFICATION, sparsification
    yield "factors", FACTORS, FactorsConfig(output="none", on_sphere=True, pruning=PRUNING)
    yield "reference", REFERENCE, CLASSIFIER
    for name, method in METHODS.items():
        yield name, method.stage, MethodConfig(model=MODEL.dense(), loss=method.settings(), **TRAINED)


RUNS = {name: (stage, config) for name, stage, config in _runs()}


@pytest.fixture(scope="module")
def data() -> Dataset:
    return latent_factors(LatentFactorsConfig(train=32, valid=20, test=20))


def _fields(config: Any) -> Iterator[tuple[type, str]]:
    for field in dataclasses.fields(config):
        yield type(config), field.name
        if dataclasses.is_dataclass(value := getattr(config, field.name)):
            yield from _fields(value)


@pytest.mark.parametrize("name", RUNS)
def test_a_stage_reads_all_of_its_configuration(name: str, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, config = RUNS[name]
    assert type(config) is stage.config
    fields, read = set(_fields(config)), set[tuple[type, str]]()
    starts = name in METHODS or stage in (SPECIALIZATION, REFERENCE)
    parent = None if starts else build_model(MODEL, data.features, seed=0)
    untouched = copy.deepcopy(parent)

    def reading(self: Any, attribute: str) -> Any:
        read.add((type(self), attribute))
        return object.__getattribute__(self, attribute)

    for kind in {kind for kind, _ in fields}:
        monkeypatch.setattr(kind, "__getattribute__", reading, raising=False)
    outcome = stage.run(config, data, parent, Context())
    assert stage.trains == (outcome.weights is not None)
    if stage.restore is not None:
        assert outcome.weights is not None
        stage.restore(config, Inputs.of(data), untouched, outcome.weights)
    assert fields - read == set()
