"""Everything a sweep has measured, as tables: what exhibits, report, comparison and notebook read."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from itertools import zip_longest
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import fs as pafs

from s3ray.configuration import document
from s3ray.digests import digest_of
from s3ray.errors import UserError, meant, nearest
from s3ray.execution.drift import ROWS
from s3ray.methods import S3
from s3ray.results.collapse import equal_representations, one_expert, sentences
from s3ray.results.columns import COLUMNS
from s3ray.results.controlled import controlled
from s3ray.results.readings import changes, shapes
from s3ray.settings import Settings
from s3ray.stages.metrics import ClassMetrics, RegressionMetrics, SentimentAccuracies, check_metric
from s3ray.stages.selection import SELECTION
from s3ray.stages.stage import StageRun
from s3ray.store import Marker, Store
from s3ray.sweep import BranchPlan, CellPlan, Plan
from s3ray.traces import sweep_of

_Task = TypeVar("_Task")
_Found = TypeVar("_Found")
Lines = list[dict[str, Any]]


@dataclass(frozen=True)
class Results:
    """The tables of a sweep, whose columns `COLUMNS` describes; one that has no line has no columns either.

    Attributes:
        rows: per cell, branch, preservation ratio and split: test and validation accuracy.
        controls: as rows, of what a curve is held against; no p is chosen among them.
        references: per dataset, reference and split: accuracy without representation learning.
        entropies: per cell, branch, Selection step, modality and scope: router entropy.
        contributions: per cell, branch, stage, modality and layer: the variance that the experts add.
        factors: per cell, branch, preservation ratio, split, modality, quantity and factor: what representations
            hold of a simulation's factors.
        modalities: per cell, branch, preservation ratio, split and modality: what it carries alone, and what is lost
            without it.
        missing: per cell, branch, preservation ratio, share missing and split: accuracy where samples lack modalities.
        info: the sweep's name, title, exhibits and metric, and the study's; its datasets, with the settings that their
            numbers depend on, and which a user changed; counts and seconds per stage; a sentence per damaged file that
            was left out.
    """

    rows: pd.DataFrame
    controls: pd.DataFrame
    references: pd.DataFrame
    entropies: pd.DataFrame
    contributions: pd.DataFrame
    factors: pd.DataFrame
    modalities: pd.DataFrame
    missing: pd.DataFrame
    info: Mapping[str, Any]

    @classmethod
    def collect(cls, plan: Plan, store: Store) -> Results:
        """Read what a plan's cells have committed; a damaged file is left out, and named in `info`."""
        left_out: list[str] = []
        rows = collect(plan, store, left_out)
        return cls(
            rows,
            _controls(plan, store, left_out),
            references(plan, store, left_out),
            _entropies(plan, store, left_out),
            _contributions(plan, store, left_out),
            _at_ratios("factors", plan, store, left_out),
            _at_ratios("modalities", plan, store, left_out),
            _at_ratios("lacking", plan, store, left_out),
            # Last: what was left out is known by then.
            {**_info(plan), "left_out": sorted(set(left_out)), "collapsed": sentences(rows)},
        )

    def save(self, store: Store, more: Mapping[str, bytes | str] = MappingProxyType({})) -> list[str]:
        """Make `results/<study>/` hold the tables, where `load` finds them, and `more`; returns the names."""
        tables = {f"{name}.parquet": _parquet(name, table) for name, table in self.frames.items() if not table.empty}
        files: dict[str, bytes | str] = {**tables, **more}
        store.write_folder(files, self.info, "results", self.study)
        return [*files, "info.json"]

    def by(self, metric: str) -> Results:
        """The same, of which Tables 1 and 2 stand in a report by a metric beside accuracy, too.

        Raises:
            UserError: there is no such metric.
        """
        check_metric(metric)
        return replace(self, info={**self.info, "metric": metric})

    @property
    def study(self) -> str:
        """Name of its folder: the sweep's, and a digest of data and settings. Another study keeps its own."""
        name: str = self.info["study"]
        return name

    @property
    def metrics(self) -> list[str]:
        """By which Tables 1 and 2 stand in a report: accuracy, and the one that was asked for."""
        return list(dict.fromkeys(("accuracy", self.info.get("metric", "accuracy"))))

    @property
    def frames(self) -> dict[str, pd.DataFrame]:
        """The tables by name."""
        return {name: getattr(self, name) for name in COLUMNS}

    @cached_property
    def usual(self) -> Results:
        """Of the cells whose settings are as usual: a sweep may read a dataset's in several ways (`Sweep.readings`)."""
        frames: dict[str, Any] = {
            name: table[table["reading"] == ""] if "reading" in table else table for name, table in self.frames.items()
        }
        return replace(self, **frames)

    @cached_property
    def changed(self) -> pd.DataFrame:
        """What readings change on test (`s3ray.results.readings`)."""
        return changes(self.rows, self.controls)

    @cached_property
    def shapes(self) -> pd.DataFrame:
        """The shape of every curve after Selection, of every reading."""
        return shapes(self.rows, self.controls)

    @cached_property
    def controlled(self) -> pd.DataFrame:
        """Every curve beside its controls (`s3ray.results.controlled`), which several exhibits ask for."""
        return controlled(self.rows, self.controls)

    @classmethod
    def load(cls, store: Store, name: str | None = None) -> Results:
        """Read the tables of a study; by default of the one written last.

        Args:
            name: the study's, or its sweep's, of whose studies the one written last is meant.

        Raises:
            UserError: there are none, or the store cannot be read.
        """
        with store.explained("read", "check the place and your access to it"):
            written = studies(store)
            if not written:
                raise UserError(f"{store.option} {store.uri}: holds no results of any sweep; run a sweep first")
            found = name if name in written else next((s for s in written if name in (None, sweep_of(s))), None)
            if found is None:
                known = list(dict.fromkeys([*map(sweep_of, written), *written]))
                what = f"holds no results of {name!r}"
                raise UserError(f"{store.option} {store.uri}: {what}; {nearest(str(name), known)}")
            return cls._load(store, found)

    @classmethod
    def _load(cls, store: Store, study: str) -> Results:
        info = store.folder_info("results", study) | {"study": study}

        def table(frame: str) -> pd.DataFrame:
            if (file := f"{frame}.parquet") not in info["files"]:
                return pd.DataFrame()
            return pd.read_parquet(io.BytesIO(store.read_listed(info, file, "results", study)))

        return cls(**{name: table(name) for name in COLUMNS}, info=info)


def _parquet(name: str, frame: pd.DataFrame) -> bytes:
    """A table as a file whose columns say what they mean: the `description` in each field's metadata."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    told = COLUMNS[name]
    fields = [
        field.with_metadata({"description": told[field.name]}) if field.name in told else field
        for field in table.schema
    ]
    buffer = io.BytesIO()
    pq.write_table(table.cast(pa.schema(fields, table.schema.metadata)), buffer)
    return buffer.getvalue()


def studies(store: Store) -> list[str]:
    """Names of the studies that have results, the one written last first."""
    selector = pafs.FileSelector(store.path("results"), allow_not_found=True, recursive=True)
    written = [info for info in store.fs.get_file_info(selector) if info.base_name == "info.json"]
    return [info.path.split("/")[-2] for info in sorted(written, key=lambda info: -info.mtime_ns)]


def study_named(store: Store, text: str) -> str:
    """The study that a text names, which may be its beginning, or a part of three letters or more, that no other has.

    Raises:
        UserError: there is none, or there are several; or the store cannot be read.
    """
    with store.explained("read", "check the place and your access to it"):
        written = studies(store)
    at = f"{store.option} {store.uri}"
    if not written:
        raise UserError(f"{at}: holds no results of any sweep; run a sweep first")
    # One letter is part of many a digest; of a beginning it is enough.
    words, names = text.casefold(), [study.casefold() for study in written]
    if not any(name.startswith(words) or (len(words) >= 3 and words in name) for name in names):
        raise UserError(f"{at}: holds no results of {text!r}; {nearest(text, written)}")
    return meant(text, written, "a study")


def study_of(plan: Plan) -> str:
    """What names a plan's study: its sweep, and a digest of its data and of all settings."""
    asked = {
        "readings": plan.sweep.readings,
        "datasets": {
            name: [entry.facts.content, entry.scale, document(entry.settings)]
            for name, entry in plan.study.entries.items()
        },
    }
    return f"{plan.sweep.name}-{digest_of(asked)[:8]}"


def _info(plan: Plan) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    runs = {run.identity: run for cell in plan.cells for run in cell.runs}
    for identity, run in runs.items():
        if identity in plan.committed:
            stage = run.stage.name
            seconds[stage] = seconds.get(stage, 0.0) + plan.committed[identity].seconds
    return {
        "sweep": plan.sweep.name,
        "study": study_of(plan),
        "overrides": plan.study.given[1],
        "title": plan.sweep.title,
        "exhibits": list(plan.sweep.exhibits),
        "metric": plan.sweep.metric,
        "plan": plan.summary(),
        "versions": _versions(runs.values()),
        "stage_seconds": seconds,
        "readings": {name: dict(tables) for name, tables in plan.sweep.readings.items()},
        "datasets": {
            name: {
                "kind": entry.facts.kind,
                "scale": entry.scale,
                "calibrated": plan.study.chosen.get(name),
                "tried": dict(plan.study.tried.get(name, {})),
                "modalities": list(entry.facts.features),
                "subsampled": dict(entry.facts.subsampled),
                "missing": {name: dict(counts) for name, counts in entry.facts.missing.items()},
                "label_rule": entry.facts.label_rule,
                "best_accuracy": entry.facts.best_accuracy,
                "samples": dict(entry.facts.samples),
                "classes": entry.facts.classes,
                "label_names": list(entry.facts.label_names),
                "fingerprint": entry.facts.fingerprint,
                "content": entry.facts.content,
                "warnings": list(entry.facts.warnings),
                "batch_size": plan.study.batch_sizes(name)[0],
                "margin": entry.settings.margin,
                "settings": _settings(entry.settings, plan.study.batch_sizes(name)[0]),
            }
            for name, entry in plan.study.entries.items()
        },
    }


def _versions(runs: Iterable[StageRun]) -> dict[str, int]:
    """Of stages, and of the variants of Selection."""
    found = {run.stage.name: run.stage.version for run in runs}
    selections = (run.config for run in runs if run.stage is SELECTION)
    return dict(sorted((found | {f"variant {own.variant}": own.version for own in selections}).items()))


def _settings(settings: Settings, batch_size: int) -> dict[str, Any]:
    """What a cell's numbers depend on beside its place in the grid; not which ratios and seeds there are."""
    tables = ("model", "specialization", "selection", "probe", "method")
    pruned = {name: getattr(settings.sparsification, name) for name in ("batch_size", "scope")}
    own = {name: document(getattr(settings, name)) for name in tables}
    return {"batch_size": batch_size, "sparsification": pruned} | own


def collect(plan: Plan, store: Store, left_out: list[str] | None = None) -> pd.DataFrame:
    """The committed rows of a plan's cells; a curve that has not finished has none.

    Args:
        left_out: gets a sentence per damaged file, whose rows are not there; without it such a file is an error.
    """
    curves = [(cell, branch) for cell in plan.cells for branch in cell.branches if _is_whole(branch.curve, plan)]
    points = [(c, b, run, regressed) for c, b in curves for run, regressed in zip_longest(b.curve, b.sentiment)]
    trained = {branch.trained.identity: branch.trained for _, branch in curves}
    routed = dict(_read(store, lambda run: (run.identity, _one_expert(plan, store, run)), list(trained.values()), []))
    return _table(store, lambda task: _row(plan, store, routed, *task), points, left_out)


def _controls(plan: Plan, store: Store, left_out: list[str]) -> pd.DataFrame:
    """Curves that keep other pairs, one that has not finished left out; and what stands below all of a cell's."""
    tasks = [
        (cell, branch, control, run)
        for cell in plan.cells
        for branch in cell.branches
        for control, runs in branch.controls.items()
        if _is_whole(runs, plan)
        for run in runs
    ]
    tasks += [
        (cell, branch, floor, run)
        for cell in plan.cells
        for branch in cell.branches
        for floor, run in cell.floors.items()
        if run.identity in plan.committed
    ]

    def read(task: tuple[CellPlan, BranchPlan, str, StageRun]) -> Lines:
        cell, branch, control, run = task
        labels = {"sweep": plan.sweep.name, **_cell_labels(cell, branch), "control": control}
        return _probed(store, run, plan, cell, labels, _provenance(run, cell, plan.committed[run.identity]))

    return _table(store, read, tasks, left_out)


def _is_whole(runs: Iterable[StageRun], plan: Plan) -> bool:
    return all(run.identity in plan.committed for run in runs)


def references(plan: Plan, store: Store, left_out: list[str] | None = None) -> pd.DataFrame:
    """The committed reference accuracies, as usual: a reading may probe otherwise."""
    usual = [cell for cell in plan.cells if not cell.cell.reading]
    cells = {cell.cell.dataset: cell for cell in usual if cell.reference.identity in plan.committed}
    return _table(store, lambda cell: _references(plan, store, cell), list(cells.values()), left_out)


def _at_ratios(group: str, plan: Plan, store: Store, left_out: list[str]) -> pd.DataFrame:
    """What a group of a branch's runs measured, if it is whole.

    Args:
        group: an attribute of `BranchPlan`.
    """

    def read(task: tuple[CellPlan, BranchPlan, StageRun]) -> Lines:
        cell, branch, run = task
        return _measured(store, run, plan, _cell_labels(cell, branch), {"identity": run.identity})

    groups = [(c, b, getattr(b, group)) for c in plan.cells for b in c.branches]
    tasks = [(c, b, run) for c, b, runs in groups if _is_whole(runs, plan) for run in runs]
    return _table(store, read, tasks, left_out)


def _entropies(plan: Plan, store: Store, left_out: list[str]) -> pd.DataFrame:
    def read(task: tuple[CellPlan, BranchPlan, StageRun]) -> pd.DataFrame:
        cell, branch, run = task
        metrics = pd.DataFrame(_measured(store, run, plan, {}))
        entropies = metrics.filter(regex="^step$|_entropy/").melt("step", value_name="entropy")
        entropies = entropies.dropna(ignore_index=True)  # of batches in which nobody has the modality
        parts = entropies.pop("variable").str.extract("^(?P<scope>local|global)_entropy/(?P<modality>.+)$")
        labels = pd.DataFrame(_cell_labels(cell, branch), index=entropies.index)
        return pd.concat([labels, entropies, parts], axis=1).assign(identity=run.identity)

    runs = [
        (c, b, b.selection)
        for c in plan.cells
        for b in c.branches
        if b.selection and b.selection.identity in plan.committed
    ]
    frames = _read(store, read, runs, left_out)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _contributions(plan: Plan, store: Store, left_out: list[str]) -> pd.DataFrame:
    """Of what training monitors, its first step and each stage's last."""
    s3 = [cell for cell in plan.cells if cell.cell.method == S3]
    tasks = [(c, "none", c.training, {"initialisation": 0, "Specialization": -1}) for c in s3]
    tasks += [(c, b.branch, b.selection, {"Selection": -1}) for c in s3 for b in c.branches if b.selection]

    def read(task: tuple[CellPlan, str, StageRun, dict[str, int]]) -> Lines:
        cell, branch, run, steps = task
        metrics = _measured(store, run, plan, {})
        return [
            {**asdict(cell.cell), **_data_labels(cell), "branch": branch, "after": after}
            | {"modality": name.split("/")[1], "layer": int(name.split("/")[2]), "share": share}
            | {"identity": run.identity}
            for after, step in steps.items()
            for name, share in metrics[step].items()
            if name.startswith("expert_share/") and not math.isnan(share)  # nobody of the batch has the modality
        ]

    return _table(store, read, [task for task in tasks if task[2].identity in plan.committed], left_out)


def _table(
    store: Store, read: Callable[[_Task], Lines], tasks: list[_Task], left_out: list[str] | None = None
) -> pd.DataFrame:
    return pd.DataFrame([line for lines in _read(store, read, tasks, left_out) for line in lines])


def _read(
    store: Store, read: Callable[[_Task], _Found], tasks: list[_Task], left_out: list[str] | None
) -> list[_Found]:
    """What reading every task gives, those left out whose file is damaged or gone: the others are no worse for it."""
    if left_out is None:
        return list(store.parallel(read, tasks))

    def tried(task: _Task) -> list[_Found]:
        try:
            return [read(task)]
        except UserError as error:
            left_out.append(str(error))
        except FileNotFoundError as error:
            left_out.append(f"{str(error).splitlines()[0]}; delete its folder and run again to compute it again")
        return []

    return [found for one in store.parallel(tried, tasks) for found in one]


def _references(plan: Plan, store: Store, cell: CellPlan) -> Lines:
    labels = {"dataset": cell.cell.dataset, "scale": cell.cell.scale, **_data_labels(cell)}
    marker = plan.committed[cell.reference.identity]
    more = {"seconds": marker.seconds, **_provenance(cell.reference, cell, marker)}
    return _probed(store, cell.reference, plan, cell, labels, more)


def _row(
    plan: Plan,
    store: Store,
    routed: Mapping[str, str],
    cell: CellPlan,
    branch: BranchPlan,
    run: StageRun,
    regressed: StageRun | None,
) -> Lines:
    training = plan.committed.get(cell.training.identity)
    selection = plan.committed.get(branch.selection.identity) if branch.selection else None
    more = {
        "training_seconds": training.seconds if training else None,
        "selection_seconds": selection.seconds if selection else None,
        "curve_seconds": sum(plan.committed[point.identity].seconds for point in branch.curve),
        "trained_stage": branch.trained.stage.name,
        "trained_identity": branch.trained.identity,
        **_provenance(run, cell, plan.committed[run.identity]),
    }
    labels = {"sweep": plan.sweep.name, **_cell_labels(cell, branch)}
    on_one = routed.get(branch.trained.identity, "")
    measured = {}
    if regressed is not None and regressed.identity in plan.committed:
        measured = {line["split"]: line for line in _measured(store, regressed, plan, {})}
    return [
        {
            **line,
            **{field.name: measured.get(line.get("split"), {}).get(field.name) for field in fields(RegressionMetrics)},
            "sentiment_identity": regressed.identity if regressed and measured else None,
            "spread": line.get("spread"),
            "collapsed": "; ".join(filter(None, [equal_representations(line.get("spread")), on_one])),
        }
        for line in _probed(store, run, plan, cell, labels, more)
    ]


def _one_expert(plan: Plan, store: Store, trained: StageRun) -> str:
    """Of a trained model whose routing has collapsed; empty where its metrics are not there."""
    model = getattr(trained.root.config, "model", None)
    if model is None or trained.identity not in plan.committed:
        return ""
    return one_expert(_measured(store, trained, plan, {}), model.experts)


def _cell_labels(cell: CellPlan, branch: BranchPlan) -> dict[str, Any]:
    return {**asdict(cell.cell), **_data_labels(cell), "branch": branch.branch}


def _data_labels(cell: CellPlan) -> dict[str, Any]:
    facts = cell.facts
    return {"kind": facts.kind, "modalities": "+".join(facts.features), "label_rule": facts.label_rule}


def _probed(
    store: Store, run: StageRun, plan: Plan, cell: CellPlan, labels: Mapping[str, Any], more: Mapping[str, Any]
) -> Lines:
    """A committed probe's rows with every metric that follows from them; what is not known is missing."""
    unknown = {field.name: None for field in fields(ClassMetrics)}
    return [
        {**labels, **unknown, **line, **_told_by_data(line, plan, cell), **more}
        for line in _measured(store, run, plan, {})
    ]


def _told_by_data(line: Mapping[str, Any], plan: Plan, cell: CellPlan) -> dict[str, Any]:
    """What follows from which samples a probe gets right, and from the data."""
    return _sentiment_accuracies(line, plan, cell) | _by_presence(line, plan, cell)


def _sentiment_accuracies(line: Mapping[str, Any], plan: Plan, cell: CellPlan) -> dict[str, Any]:
    """Acc-2 of a probe's row, where the data are at hand and have sentiment scores."""
    data = plan.study.data.get(cell.cell.dataset)
    split = data.splits[line["split"]] if data else None
    if split is None or split.scores is None or line.get("correct") is None:
        return {field.name: None for field in fields(SentimentAccuracies)} | {"scores_fingerprint": None}
    right_N = _right(line, len(split))
    # Of two classes, 0 and 1, whoever is wrong has said the other.
    positive_N = np.where(right_N, split.labels, 1 - split.labels) == 1
    return asdict(SentimentAccuracies.of(split.scores, positive_N)) | {"scores_fingerprint": cell.facts.scores}


def _by_presence(line: Mapping[str, Any], plan: Plan, cell: CellPlan) -> dict[str, Any]:
    """Accuracy of a probe's row by what samples lack, where the data are at hand and any lack something."""
    data = plan.study.data.get(cell.cell.dataset)
    split = data.splits[line["split"]] if data else None
    found: dict[str, Any] = dict.fromkeys(("accuracy_complete", "samples_complete", "accuracy_lacking"))
    if split is None or line.get("correct") is None:
        return found
    missing = {m: s.missing for m, s in split.modalities.items() if s.missing.any()}
    if missing:
        right_N = _right(line, len(split))
        complete = ~np.any(list(missing.values()), axis=0)
        found["accuracy_complete"] = float(right_N[complete].mean()) if complete.any() else None
        found["samples_complete"] = int(complete.sum())
        lacking = {m: {"accuracy": float(right_N[of].mean()), "samples": int(of.sum())} for m, of in missing.items()}
        found["accuracy_lacking"] = json.dumps(lacking)
    return found


def _right(line: Mapping[str, Any], samples: int) -> NDArray[np.bool_]:
    """(n,): which samples a row says are right."""
    return np.unpackbits(np.frombuffer(line["correct"], np.uint8), count=samples).astype(bool)


def _measured(
    store: Store, run: StageRun, plan: Plan, labels: Mapping[str, Any], more: Mapping[str, Any] = MappingProxyType({})
) -> Lines:
    """A committed run's rows, `labels` before and `more` behind what it measured."""
    content = store.artifact(run, ROWS, plan.committed[run.identity])
    try:
        rows = pq.read_table(pa.BufferReader(content)).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        folder = store.address("artifacts", run.stage.name, run.identity)
        raise UserError(f"{folder}: {ROWS} is no table; delete the folder and run again to compute it again") from error
    return [{**labels, **row, **more} for row in rows]


def _provenance(run: StageRun, cell: CellPlan, marker: Marker) -> dict[str, Any]:
    return {
        "identity": run.identity,
        "data_fingerprint": cell.facts.fingerprint,
        "committed_at": marker.committed_at,
        **marker.provenance,
    }
