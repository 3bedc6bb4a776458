"""Whether a store holds what was committed to it, and whether that can be computed again: no Ray."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import pandas as pd
import torch
from pyarrow import fs as pafs
from safetensors import torch as safetensors
from threadpoolctl import threadpool_limits

from s3ray.data.dataset import Dataset
from s3ray.errors import UserError
from s3ray.execution.drift import ROWS, WEIGHTS, Difference, artifact_files, rows_of
from s3ray.execution.provenance import digest_of_environment, machine_kind
from s3ray.model import TrainedModel
from s3ray.stages.stage import Context, Inputs, StageRun
from s3ray.store import DamagedError, Marker, Store
from s3ray.store.store import is_whole_checkpoint
from s3ray.sweep import STAGES

# Largest difference, as a share of numbers above 1, of what is computed again on another kind of machine, or by another
# number of workers: of what measures, and of the first step of what trains, after which rounding grows with every step.
# On the same kind of machine, alone as it was before, all numbers and weights are equal bit for bit.
OTHER_MACHINE = 0.05
FIRST_STEP = 1e-3


@dataclass(frozen=True, slots=True)
class Sample:
    """A committed run that was computed again.

    Attributes:
        difference: largest of its numbers, as a share of those above 1.
        bound: what it may be.
        like: `bit for bit`, `rounding` or `first step`: what was compared.
    """

    stage: str
    identity: str
    machine: str
    difference: float
    bound: float
    like: str
    is_equal: bool

    @property
    def holds(self) -> bool:
        return self.is_equal if self.like == "bit for bit" else self.difference <= self.bound


@dataclass
class Audit:
    """What was found.

    Attributes:
        place: the storage's path or URI.
        results: committed results that count.
        files: that they and sweeps' tables consist of, and checkpoints.
        datasets: published and whole.
        unnamed: attempts that no marker names: of writers that died, or at work right now.
        set_aside: what was found damaged earlier, and kept as evidence.
        faults: a sentence each, with its remedy.
        drifts: a line per writer that came second: stage, identity, both machines, how far their results are apart.
        samples: what was computed again.
        skipped: a sentence per run that was drawn and cannot be computed again here.
    """

    place: str
    results: int = 0
    files: int = 0
    datasets: int = 0
    unnamed: int = 0
    set_aside: int = 0
    faults: list[str] = field(default_factory=list)
    drifts: list[dict[str, Any]] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.faults and all(sample.holds for sample in self.samples)

    def lines(self) -> list[str]:
        """For people."""
        if not (self.results or self.files or self.datasets or self.faults or self.unnamed or self.set_aside):
            return [f"nothing is stored at {self.place} yet"]
        told = [f"{self.results} results, {self.files} files, {self.datasets} datasets read and compared"]
        if self.unnamed:
            told.append(f"{self.unnamed} attempts that no marker names: their writers died, or are at work right now")
        if self.set_aside:
            told.append(f"{self.set_aside} found damaged earlier and set aside as .damaged; delete them when you like")
        tables = {"computed twice, the first result counts:": self.drifts, "computed again:": self.again}
        for title, table in tables.items():
            if table:
                told += [title, pd.DataFrame(table).to_string(index=False)]
        count = len(self.faults) + len(self.beyond)
        verdict = f"{count} fault{'s' if count > 1 else ''}" if count else "all is as it was committed"
        return [*told, *self.skipped, *self.faults, *self.beyond, verdict]

    @property
    def again(self) -> list[dict[str, Any]]:
        return [{f.name: getattr(sample, f.name) for f in fields(sample)} for sample in self.samples]

    @property
    def beyond(self) -> list[str]:
        """Samples that do not hold, a sentence each."""
        return [
            f"{sample.stage} {sample.identity}: computed again it is {sample.difference:.3g} away ({sample.like}, at "
            f"most {sample.bound:g}); delete its folder in artifacts/ and run the sweep again, or report it"
            for sample in self.samples
            if not sample.holds
        ]


def audit(
    store: Store, sample: int = 0, draw: random.Random | None = None, among: Collection[str] | None = None
) -> Audit:
    """Read all that counts in a store and compare it with its digests; what is damaged is set aside.

    Args:
        sample: compute that many committed runs again, drawn by `draw`.
        among: identities of the runs that are drawn from; by default all.

    Raises:
        UserError: the store cannot be read.
    """
    found = Audit(store.uri)
    with store.explained("read", "check the place and your access to it"):
        markers = _results(store, found)
        datasets = _datasets(store, found)
        _tables(store, found)
        _checkpoints(store, found)
        _environments(store, found)
        known = sorted(markers if among is None else markers.keys() & set(among))
        drawn = (draw or random.Random()).sample(known, min(sample, len(known)))
        for identity in drawn:
            _again(store, markers, identity, datasets, found)
    return found


def _results(store: Store, found: Audit) -> dict[str, Marker]:
    """Markers of the results that count, by identity."""
    folders: dict[tuple[str, str], list[list[str]]] = defaultdict(list)
    for parts in _below(store, "artifacts"):
        if len(parts) >= 3:
            folders[parts[0], parts[1]].append(parts[2:])
    read = store.parallel(lambda key: _read(store, *key, folders[key]), sorted(folders))
    markers = {marker.identity: marker for marker, *_ in read if marker is not None}
    named = {attempt for _, attempt, _, _ in read}
    for marker, _, faults, drifts in read:
        found.faults += faults
        found.drifts += drifts
        found.files += len(marker.files) if marker else 0
    for files in folders.values():
        attempts = {path[0] for path in files if len(path) > 1}
        aside = {name for name in attempts if name.endswith(".damaged")}
        found.set_aside += len(aside)
        found.unnamed += len(attempts - aside - named)
    for marker in markers.values():
        if (parent := marker.document["parent"]) is None:
            continue
        attempt = markers[parent].attempt if parent in markers else "not whole"
        if attempt != marker.parent_attempt:
            found.faults.append(
                f"{store.address('artifacts', marker.stage, marker.identity)}: stands on attempt "
                f"{marker.parent_attempt} of {marker.parent_stage}, which is now {attempt}; run the sweep again, which "
                f"computes it again"
            )

    def counts(marker: Marker) -> bool:
        parent = marker.document["parent"]
        above = markers.get(parent)
        return parent is None or (above is not None and above.attempt == marker.parent_attempt and counts(above))

    counting = {identity: marker for identity, marker in markers.items() if counts(marker)}
    found.results = len(counting)
    return counting


def _read(
    store: Store, stage: str, identity: str, files: Sequence[Sequence[str]]
) -> tuple[Marker | None, str, list[str], list[dict[str, Any]]]:
    """A run's marker if it and its payload are whole; the attempt that it names; faults; a line per drift."""
    folder = ("artifacts", stage, identity)
    faults, drifts = [], []
    for (name,) in [path for path in files if len(path) == 1 and path[0].startswith("drift-")]:
        try:
            drifts.append(_drift_line(stage, identity, json.loads(store.read(*folder, name))))
        except (ValueError, TypeError, KeyError, AttributeError):
            faults.append(f"{store.address(*folder, name)}: unreadable; no result depends on it, delete it")
    content = store.marker_content(stage, identity)
    if content is None:
        return None, "", faults, drifts
    marker = Marker.of(content, stage, identity)
    if marker is None:
        faults.append(
            f"{store.address(*folder, 'commit.json')}: damaged, or of another version; run the sweep again, which "
            f"computes it again"
        )
        return None, "", faults, drifts
    try:
        for name in marker.files:
            store.payload(marker, name)
    except DamagedError as error:
        return None, marker.attempt, [*faults, str(error)], drifts
    return marker, marker.attempt, faults, drifts


def _drift_line(stage: str, identity: str, drift: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "stage": stage,
        "identity": identity[:12],
        "kept": drift["kept"].get("machine", ""),
        "left": drift["left"].get("machine", ""),
        "rows": float(drift["rows"]),
        "column": drift["column"],
        "weights": float(drift["weights"]),
    }


def _datasets(store: Store, found: Audit) -> dict[str, str]:
    """Content of the datasets that are whole, by each fingerprint. None is kept open: every array is an open file."""
    datasets: dict[str, str] = {}
    names = {parts[0] for parts in _below(store, "data")}
    found.set_aside += sum(".damaged" in name for name in names)
    for name in sorted(name for name in names if ".damaged" not in name and not name.startswith(".")):
        try:
            datasets |= dict.fromkeys(fingerprints(store.fetch_dataset(name)), name)
            found.datasets += 1
        except UserError as error:
            found.faults.append(str(error))
    return datasets


def _tables(store: Store, found: Audit) -> None:
    """What sweeps have written for people and notebooks."""
    for sweep in sorted({parts[0] for parts in _below(store, "results") if parts[1:] == ["info.json"]}):
        try:
            info = store.folder_info("results", sweep)
            names = list(info["files"])
        except UserError as error:
            found.faults.append(str(error))
            continue
        for name in names:
            try:
                store.read_listed(info, name, "results", sweep)
            except UserError as error:
                found.faults.append(str(error))
        found.files += len(names)


def _checkpoints(store: Store, found: Audit) -> None:
    """Progress of what trains, or trained and was given up."""
    for identity, name in (parts for parts in _below(store, "checkpoints") if len(parts) == 2):
        try:
            content = store.read("checkpoints", identity, name)
        except FileNotFoundError:  # its stage has just gone further
            continue
        found.files += 1
        if not is_whole_checkpoint(name, content):
            found.faults.append(
                f"{store.address('checkpoints', identity, name)}: damaged; the next run of its sweep deletes it and "
                f"goes on from an earlier one"
            )


def _environments(store: Store, found: Audit) -> None:
    """The packages that results ran with: a list's name is its digest."""
    for name in store.names("environments"):
        named = re.fullmatch(r"([0-9a-f]{16})\.txt", name)
        if named and digest_of_environment(store.read("environments", name)) != named[1]:
            found.faults.append(
                f"{store.address('environments', name)}: damaged; no result depends on it, delete it, and the next run "
                f"with these packages writes it again"
            )


def _below(store: Store, folder: str) -> Iterable[list[str]]:
    """Paths of all files below a folder of the store, in parts."""
    base = store.path(folder)
    for info in store.fs.get_file_info(pafs.FileSelector(base, recursive=True, allow_not_found=True)):
        if info.is_file and not info.base_name.endswith(".tmp"):
            yield info.path.removeprefix(f"{base}/").split("/")


def _again(
    store: Store, markers: Mapping[str, Marker], identity: str, datasets: Mapping[str, str], found: Audit
) -> None:
    """Compute a run again and compare."""
    marker = markers[identity]
    name = f"{marker.stage} {identity}"
    run = _run_of(markers, identity)
    if run is None:
        found.skipped.append(f"{name}: of another version, not computed again")
        return
    if run.data not in datasets:
        found.skipped.append(f"{name}: its data are not in the store, not computed again")
        return
    data = store.fetch_dataset(datasets[run.data])
    on_cuda = (marker.machine or "").startswith("cuda") and torch.cuda.is_available()
    device = torch.device("cuda" if on_cuda else "cpu")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as workers have
    try:
        with threadpool_limits(1):
            parent = _model(store, markers, run.parent, data).to(device) if run.parent else None
            outcome = run.stage.run(run.config, run.visible(data), parent, Context(device))
    finally:
        torch.set_num_threads(threads)
    ours = {name: store.payload(marker, name) for name in marker.files}
    theirs = artifact_files(outcome)
    if marker.machine == machine_kind(device) and marker.workers == 1:
        difference, bound, like = Difference.of(ours, theirs), 0.0, "bit for bit"
    elif run.stage.trains:
        first = [{ROWS: rows_of(files[ROWS]).slice(0, 1)} for files in (ours, theirs)]
        difference, bound, like = Difference.of(*first), FIRST_STEP, "first step"
    else:
        difference, bound, like = Difference.of(ours, theirs), OTHER_MACHINE, "rounding"
    apart = max(difference.share, difference.weights if like == "bit for bit" else 0.0)
    found.samples.append(
        Sample(marker.stage, identity, marker.machine or "", apart, bound, like, is_equal=difference.is_none)
    )


def _run_of(markers: Mapping[str, Marker], identity: str) -> StageRun | None:
    """The run that a marker describes; None if this s3ray has none of its identity."""
    document = markers[identity].document
    stage = STAGES.get(document["stage"])
    parent = _run_of(markers, document["parent"]) if document["parent"] else None
    if stage is None or (parent is None) != (document["parent"] is None):
        return None
    try:
        run = StageRun(stage, stage.restored(document["config"]), parent, document["data"])
        return run if run.identity == identity else None
    except (UserError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _model(store: Store, markers: Mapping[str, Marker], run: StageRun, data: Dataset) -> TrainedModel:
    """The trained model of a run, of the weights that are stored."""
    parent = _model(store, markers, run.parent, data) if run.parent else None
    assert run.stage.restore is not None
    weights = safetensors.load(store.payload(markers[run.identity], WEIGHTS))
    return run.stage.restore(run.config, Inputs.of(data), parent, weights)


def fingerprints(data: Dataset) -> set[str]:
    """By which stage runs know it."""
    known = (data.fingerprint(), data.truth_fingerprint(), data.scores_fingerprint())
    return {fingerprint for fingerprint in known if fingerprint is not None}
