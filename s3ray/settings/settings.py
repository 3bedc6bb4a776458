"""Settings: everything that is fixed for a dataset at a scale.

Whatever the paper leaves open is a named field with a default, marked *(ours)* in its comment. What a stage reads of
them is picked out when a cell is planned; workers get no settings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_type_hints

from s3ray.configuration import check_listed, check_not_negative, check_whole, comments
from s3ray.data.dataset import Dataset
from s3ray.data.embedded import EMBEDDED
from s3ray.errors import UserError, nearest
from s3ray.methods import METHODS, TRAINING, Method
from s3ray.model.config import ModelConfig
from s3ray.settings.overrides import merged, override, replaced, typed
from s3ray.settings.own import own_batch_sizes, own_tables
from s3ray.settings.scales import PAPER_DATASETS, default_scale, scale_tables
from s3ray.stages.probe import ProbeSettings
from s3ray.stages.sparsification import SparsificationSettings
from s3ray.stages.specialization import SpecializationSettings
from s3ray.stages.training import OptimizerConfig
from s3ray.stages.variants import SelectionSettings

_LARGEST_SEED = 2**63 - 1


def _table(method: Method) -> type[Any]:
    """A prior method's table: its own settings, and of its optimizer what is not to be Specialization's."""
    hints = get_type_hints(OptimizerConfig)
    budget = [(name, hints[name] | None, field(default=None)) for name in TRAINING]
    told = {name: f"{comments(OptimizerConfig)[name]} Left out: Specialization's." for name in TRAINING}
    name = f"{method.settings.__name__}Table"
    return dataclasses.make_dataclass(
        name, budget, bases=(method.settings,), namespace=_told(told), frozen=True, slots=True, kw_only=True
    )


def _told(comments: Mapping[str, str]) -> dict[str, Any]:
    """The docstring of a class that is made of declarations."""
    return {
        "__doc__": "Made of declarations.\n\nAttributes:\n"
        + "".join(f"    {name}: {text}\n" for name, text in comments.items())
    }


_TABLES = {name: _table(method) for name, method in METHODS.items()}
if TYPE_CHECKING:
    MethodTables = Any
else:
    MethodTables = dataclasses.make_dataclass(
        "MethodTables",
        [(name, table, field(default=table())) for name, table in _TABLES.items()],
        namespace=_told({name: f"{', '.join(method.outputs.values())}." for name, method in METHODS.items()}),
        frozen=True,
        slots=True,
        kw_only=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a (scale, dataset) pair fixes; a cell adds method, χ, batch size and seed.

    A finished grid grows by adding to what it fans out over (granularities, seeds, batch sizes): only what is new runs.

    Attributes:
        model: the shape of an encoder; the parameter counts of Tables 4 and 5 fix most of it.
        specialization: the first stage: all encoders, without labels.
        selection: the second stage: the routers alone, with labels.
        sparsification: the third stage: pruning at inference.
        probe: scikit-learn's logistic regression on the representations of all modalities.
        method: prior methods, a table each.
        granularities: χ that the grids fan out over.
        seeds: that the grids fan out over.
        batch_sizes: of Figure 3 and the full grid; the first is all other exhibits' (ours): the paper names none.
        standardize: (ours) of your own data: features get mean 0 and deviation 1.
        calibrate: (ours) of your own data: a few settings are tried before a sweep.
        max_steps: (ours) of your own data: longer sequences are subsampled evenly to so many steps.
        margin: (ours) points of accuracy within which a result counts as equal to the paper's.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    specialization: SpecializationSettings = field(default_factory=SpecializationSettings)
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    sparsification: SparsificationSettings = field(default_factory=SparsificationSettings)
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    method: MethodTables = field(default_factory=MethodTables)
    granularities: tuple[int, ...] = (2, 4, 8)
    seeds: tuple[int, ...] = (0, 1, 2)
    batch_sizes: tuple[int, ...] = (256, 64, 128, 512)
    standardize: bool = True
    calibrate: bool = True
    max_steps: int | None = None
    margin: float = 1.5

    def __post_init__(self) -> None:
        check_listed(self, "granularities", "seeds", "batch_sizes")
        check_not_negative(self, "margin")
        if self.max_steps is not None:
            check_whole(self, "max_steps")
        if min(self.seeds) < 0 or max(self.seeds) > _LARGEST_SEED:
            raise UserError(f"seeds {list(self.seeds)} must lie between 0 and 2^63 - 1; choose others")
        if self.specialization.views == "dropout" and self.model.dropout == 0.0:
            raise UserError("specialization.views 'dropout' needs two passes that differ; set model.dropout above 0")
        for method in METHODS:
            try:
                self.optimizer_of(method)
            except UserError as error:
                raise UserError(f"method.{method}: {error}") from None

    def optimizer_of(self, method: str) -> OptimizerConfig:
        """What trains a prior method: Specialization's optimizer, but for what the method's table sets."""
        table = getattr(self.method, method)
        own = {name: value for name in TRAINING if (value := getattr(table, name)) is not None}
        return dataclasses.replace(self.specialization.optimizer, **own)

    def loss_of(self, method: str) -> Any:
        """A prior method's own settings, of the type that it declares."""
        table, own = getattr(self.method, method), METHODS[method].settings
        return own(**{entry.name: getattr(table, entry.name) for entry in dataclasses.fields(own)})


def settings_of(
    datasets: Mapping[str, Dataset],
    scale: str | None,
    overrides: Mapping[str, Any],
    source: str = "--config",
    chosen: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> dict[str, tuple[str, Settings]]:
    """Per dataset the scale that it runs at and the settings that follow.

    Args:
        scale: of all datasets; None: each dataset's own (`default_scale`).
        chosen: per dataset the tables that calibration chose; what `overrides` say goes before them.

    Raises:
        UserError: of `settings_for`, or overrides for a dataset that nobody knows.
    """
    for name in overrides.get("dataset", {}):
        if name not in [*datasets, *EMBEDDED, *PAPER_DATASETS]:
            raise UserError(f"{source}: table [dataset.{name}] fits no dataset; {nearest(name, datasets)}")
    scales = {name: scale or default_scale(name) for name in datasets}
    return {
        name: (at, settings_for(name, at, overrides, source, datasets[name], chosen.get(name, {})))
        for name, at in scales.items()
    }


def settings_for(
    dataset: str,
    scale: str,
    overrides: Mapping[str, Any] | None = None,
    source: str = "--config",
    data: Dataset | None = None,
    chosen: Mapping[str, Any] = MappingProxyType({}),
) -> Settings:
    """Resolve the settings of a dataset at a scale.

    Args:
        dataset: name, as in `--datasets` or `--dataset NAME=PATH`.
        scale: a key of SCALES.
        overrides: the content of a `--config` file: tables named as the fields of Settings, and
            `[dataset.NAME.…]` for one dataset alone.
        source: what complaints call `overrides`.
        data: the dataset itself; one of the user's has needs of its own (`own_tables`).
        chosen: of such a one, the tables that calibration chose.

    Raises:
        UserError: unknown scale or field, or a value its field refuses.
    """
    tables_of_scale = scale_tables(scale, dataset)
    given = dict(overrides or {})
    # Those of other datasets may be for another call; what they say is looked at all the same.
    tables = {
        name: typed(Settings, table, f"{source} [dataset.{name}]") for name, table in given.pop("dataset", {}).items()
    }
    settings = override(Settings(), tables_of_scale, f"scale {scale}, {dataset}")
    general, special = typed(Settings, given, source), tables.get(dataset, {})

    def where(path: Sequence[str]) -> str:
        """Whose values a table that does not hold together has; together, so that each may complete the other."""
        table: Any = reduce(lambda t, name: t.get(name, {}), path, special)
        return f"{source} [dataset.{dataset}]" if table else source

    if data is None or data.kind != "user":
        return replaced(settings, merged(general, special), where)
    at = f"scale {scale}, {dataset}"
    sized = override(settings, {"batch_sizes": own_batch_sizes(data, settings.batch_sizes)}, at)
    own = own_tables(data, replaced(sized, merged(general, special), where))
    return replaced(override(sized, merged(own, chosen), at), merged(general, special), where)
