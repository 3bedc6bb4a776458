"""What sweeps have left in a store: tables and trained models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import torch as safetensors

from s3ray.api.export import check_free, export
from s3ray.api.model import Model
from s3ray.data.dataset import Dataset
from s3ray.data.standardize import Standardizer
from s3ray.errors import UserError, nearest
from s3ray.execution.drift import WEIGHTS
from s3ray.methods import S3
from s3ray.model import Scope, TrainedModel
from s3ray.results import Results
from s3ray.results.collect import studies
from s3ray.results.diff import StudyDiff, diff
from s3ray.stages.encode import SAMPLES_AT_ONCE
from s3ray.stages.probe import PROBE
from s3ray.stages.sparsification import SPARSIFICATION
from s3ray.stages.stage import Inputs
from s3ray.store import Marker, Store
from s3ray.sweep import STAGES

# What names a branch of a cell within a sweep's results.
_NAMES = ("dataset", "method", "granularity", "batch_size", "seed", "reading", "branch")


def open_store(uri: str | Path) -> FinishedStore:
    """Open a store to read from it and to run on it; nothing is created yet.

    Args:
        uri: a path, or `s3://…`, `gs://…`, as `--storage` takes.

    Raises:
        UserError: it can be opened neither as a path nor as a URI.
    """
    return FinishedStore(Store.open(str(uri), "open_store"))


@dataclass(frozen=True)
class FinishedStore:
    """What sweeps have left in a store.

    Tables have the columns that `s3ray.COLUMNS` describes, by table; one without lines has no columns. `sweep` is a
    name of `studies`, or of a sweep, whose study written last is meant; by default the first.
    """

    store: Store

    def studies(self) -> list[str]:
        """Names of the studies that have results, the one written last first: a sweep over its data and settings.

        Raises:
            UserError: the store cannot be read.
        """
        with self.store.explained("read", "check the place and your access to it"):
            return studies(self.store)

    def results(self, sweep: str | None = None) -> Results:
        """All tables of a sweep, and what it was (`info`).

        Raises:
            UserError: there are none, or the store cannot be read.
        """
        return Results.load(self.store, sweep)

    def diff(self, a: str, b: str, also: FinishedStore | None = None) -> StudyDiff:
        """How study `b`, of `also` if that is given, differs from study `a`: settings, data, code, environment, rows.

        Names are those of `studies`, or a part that no other has.

        Raises:
            UserError: there is no such study, or several; the two have no dataset in common; a store cannot be read.
        """
        return diff(a, b, self.store, also.store if also else None)

    def rows(self, sweep: str | None = None) -> pd.DataFrame:
        """Accuracies per cell, branch, preservation ratio and split."""
        return self.results(sweep).rows

    def controls(self, sweep: str | None = None) -> pd.DataFrame:
        """Accuracies of what curves are held against, as rows."""
        return self.results(sweep).controls

    def references(self, sweep: str | None = None) -> pd.DataFrame:
        """Accuracies without representation learning, per dataset, reference and split."""
        return self.results(sweep).references

    def entropies(self, sweep: str | None = None) -> pd.DataFrame:
        """Router entropies per cell, branch, Selection step, modality and scope."""
        return self.results(sweep).entropies

    def contributions(self, sweep: str | None = None) -> pd.DataFrame:
        """The variance that experts add per cell, branch, stage, modality and layer."""
        return self.results(sweep).contributions

    def factors(self, sweep: str | None = None) -> pd.DataFrame:
        """What representations hold of a simulation's factors."""
        return self.results(sweep).factors

    def modalities(self, sweep: str | None = None) -> pd.DataFrame:
        """What each modality carries alone, and what the others carry without it."""
        return self.results(sweep).modalities

    def missing(self, sweep: str | None = None) -> pd.DataFrame:
        """What accuracy is left where samples lack modalities."""
        return self.results(sweep).missing

    def dataset(self, name: str | None = None, sweep: str | None = None) -> Dataset:
        """The data of a sweep, as its cells read them: standardised and subsampled where its settings say so.

        Args:
            name: of the dataset; it may be left out where the sweep has one.

        Raises:
            UserError: the sweep has no such dataset, or several; it is no longer in the store, or damaged.
        """
        datasets = self.results(sweep).info["datasets"]
        if name is None and len(datasets) == 1:
            (name,) = datasets
        if name not in datasets:
            asked = "which one is not said" if name is None else f"{name!r} is none of the sweep's"
            raise UserError(f"dataset: {asked}; {nearest(name or '', datasets)}")
        return self.store.fetch_dataset(datasets[name]["content"])

    def model(
        self,
        *,
        dataset: str | None = None,
        method: str | None = S3,
        granularity: int | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        reading: str | None = "",
        branch: str | None = None,
        sweep: str | None = None,
    ) -> Model:
        """The trained model of a branch of a cell, on the CPU.

        What is left out (of method and reading: None) may be anything, as long as one model fits.

        Raises:
            UserError: none fits, or several do; or the model's artifact is missing, damaged, or another version's.
        """
        asked = (dataset, method, granularity, batch_size, seed, reading, branch)
        results, curve = self._fitting("model", asked, sweep)
        return self._model(results, curve)

    def export(
        self,
        folder: str | Path,
        preservation_ratio: float | None = None,
        *,
        dataset: str | None = None,
        method: str | None = S3,
        granularity: int | None = None,
        batch_size: int | None = None,
        seed: int | None = None,
        reading: str | None = "",
        branch: str | None = None,
        sweep: str | None = None,
    ) -> str:
        """Write the model that `model` gives to a folder that `s3ray.load_model` reads, with its card.

        Args:
            folder: a path or URI, whose export of before is replaced; other files stay.
            preservation_ratio: p at which it is pruned; by default p*, as chosen on validation, or 1 without a curve.

        Returns:
            Where its card is.

        Raises:
            UserError: of `model`; or the ratio is outside [0, 1], or below 1 for a prior method; the method's
                representation is more than an encoder per modality; the dataset, of which thresholds are taken, is no
                longer in the store; the folder has files of others by these names, or cannot be written.
        """
        target = Store.open(str(folder), "export")
        check_free(target)
        asked = (dataset, method, granularity, batch_size, seed, reading, branch)
        results, curve = self._fitting("export", asked, sweep)
        trained = curve.iloc[0]
        marker = self._marker(trained["trained_stage"], trained["trained_identity"])
        return export(self.store, results, curve, marker, self._model(results, curve), target, preservation_ratio)

    def _fitting(self, what: str, asked: Sequence[Any], sweep: str | None) -> tuple[Results, pd.DataFrame]:
        """A sweep's results, and the rows of the one branch of a cell that is asked for by `_NAMES`."""
        results = self.results(sweep)
        given = {name: value for name, value in zip(_NAMES, asked, strict=True) if value is not None}
        return results, _fitting(results.rows, given, what)

    def _model(self, results: Results, curve: pd.DataFrame) -> Model:
        trained = curve.iloc[0]
        marker = self._marker(trained["trained_stage"], trained["trained_identity"])
        assert marker.inputs is not None
        measured = {point["preservation_ratio"]: point["identity"] for _, point in curve.iterrows()}
        probe = PROBE.restored(self._marker(PROBE.name, measured.pop(1.0)).document["config"])
        pool = SAMPLES_AT_ONCE
        scope: Scope = "layer"
        for identity in list(measured.values())[:1]:
            config = SPARSIFICATION.restored(self._marker(SPARSIFICATION.name, identity).document["config"])
            pool, scope = config.pruning.pool, config.pruning.scope
        inputs, standardizers = Inputs(**marker.inputs), dict[str, Standardizer]()
        if inputs.standardized:
            content = results.info["datasets"][trained["dataset"]]["content"]
            how = self.store.fetch_dataset(content, facts_alone=True).facts["standardized"]
            standardizers = {name: Standardizer.restored(plain) for name, plain in how.items()}
        module = self._restored(marker).eval()
        return Model(
            module,
            inputs.features,
            probe,
            pool,
            scope,
            standardizers,
            inputs.subsampled,
            inputs.padded,
            inputs.missing,
        )

    def _marker(self, stage: str, identity: str) -> Marker:
        marker = self.store.marker_of(stage, identity)
        if marker is None:
            raise UserError(
                f"{self.store.address('artifacts', stage, identity)}: not there, or not whole; run the sweep again, "
                f"which computes it again"
            )
        if stage not in STAGES or marker.document["version"] != STAGES[stage].version:
            raise UserError(
                f"{self.store.address('artifacts', stage, identity)}: of version {marker.document['version']} of "
                f"{stage}, which this s3ray does not have; run the sweep again, which computes it anew"
            )
        return marker

    def _restored(self, marker: Marker) -> TrainedModel:
        """The trained model of a marker, built on its parent's."""
        parent_stage, parent = marker.parent_stage, marker.document["parent"]
        start = self._restored(self._marker(parent_stage, parent)) if parent_stage else None
        stage = STAGES[marker.stage]
        assert stage.restore is not None
        assert marker.inputs is not None
        weights = safetensors.load(self.store.payload(marker, WEIGHTS))
        return stage.restore(stage.restored(marker.document["config"]), Inputs(**marker.inputs), start, weights)


def _fitting(rows: pd.DataFrame, asked: Mapping[str, Any], what: str) -> pd.DataFrame:
    """The rows of the one branch of a cell that is asked for by `what`."""
    if rows.empty:
        raise UserError(f"{what}: the sweep has no rows; run it again")
    said: list[str] = []
    for name, value in asked.items():
        found = rows[rows[name] == value]
        if found.empty:
            among = f" among those of {', '.join(said)}" if said else ""
            raise UserError(f"{what}: none has {name}={value!r}{among}; {nearest(str(value), _values(rows, name))}")
        rows, said = found, [*said, *([f"{name}={value!r}"] if value != "" else [])]
    if open_names := [name for name in _NAMES if rows[name].nunique() > 1]:
        count = len(rows.drop_duplicates(list(_NAMES)))
        choices = "; ".join(f"{name}: {', '.join(_values(rows, name))}" for name in open_names)
        raise UserError(f"{what}: {count} fit {', '.join(said) or 'so far'}; choose of {choices}")
    return rows


def _values(rows: pd.DataFrame, name: str) -> list[str]:
    return [str(value) for value in sorted(rows[name].unique())]
