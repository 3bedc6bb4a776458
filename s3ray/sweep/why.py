"""Why a cell runs, or is taken from the store.

A stage run that is missing while its parent is there is where something began to be different. Of it the store has
either a result that does not count, and that is the cause; or none, and the cause is what tells it from the nearest
result of its stage. The rule, in this order: on the same data; differing in the fewest fields, its parent counted as
one; with the parent, seed, χ and batch size the same; the latest. Data without any result are held against data of the
same shape that the study does not have under another name: other samples of one dataset.

Reading is bounded: of a stage at most `MOST` results are looked at, those whose identities come first, which is chance.
What cannot be read, as where a result was deleted, is not counted, but no more than about `MOST` files are opened.
A disk gives some thousand a second. Object storage answers 16 at a time, each in some tens of milliseconds, so `MOST`
is smaller there. A sweep's start looks at `MOST_AT_START`, for it must not wait. Nothing is read where nothing is
missing.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from s3ray.methods import METHODS
from s3ray.methods.method import TRAINING
from s3ray.settings import flattened
from s3ray.stages.stage import Inputs, StageRun, identity_of
from s3ray.store import Marker, Store
from s3ray.store.claims import standing
from s3ray.sweep.cell import Cell
from s3ray.sweep.plan import CellPlan, Plan
from s3ray.traces import has_died

MOST_ON_DISK, MOST_REMOTE, MOST_AT_START = 5000, 1000, 300
_SHOWN = 4  # differences that a sentence names

# Fields of configurations that say which point of the grid it is, by the words in which people think of them.
AXES: Mapping[str, str] = {
    "seed": "seed",
    "batch_size": "batch size",
    "model.granularity": "χ",
    "pruning.ratio": "p",
    "pruning.rule": "control",
    "variant": "branch",
    "output": "branch",
}
_FOLLOWS = {"pruning.seed"}  # from the rule and the cell's seed
# Where --config has the other fields; of several the first that fits.
_PLACES = {
    "training.": "specialization.",
    "classifier.": "probe.",
    "on_sphere": "probe.on_sphere",
    "pruning.pool": "sparsification.batch_size",
    "pruning.scope": "sparsification.scope",
}
_OWN_PLACES: Mapping[str, Mapping[str, str]] = {
    "selection": {"loss.": "selection.", "optimizer.": "selection.optimizer.", "noise": "selection.noise"},
    "reference": {"": "probe."},
    **{
        name: {
            "loss.": f"method.{name}.",
            **{f"optimizer.{field}": f"method.{name}.{field}" for field in TRAINING},
            "optimizer.": "specialization.optimizer.",
        }
        for name in METHODS
    },
}


class Change(NamedTuple):
    """A difference between a run and the nearest result.

    Attributes:
        path: as --config has it, or in words.
        axis: whether it says which point of the grid it is; then the new value alone tells something.
    """

    path: str
    old: Any
    new: Any
    axis: bool = False

    def __str__(self) -> str:
        return f"{self.path} {_shown(self.old)} → {_shown(self.new)}"


@dataclass(frozen=True)
class Cause:
    """Why a run is missing whose parent is not.

    Attributes:
        fault: its result is there and does not count; why.
        changes: from the nearest result; empty: nothing comparable is there.
        nearest: identity of that one.
    """

    run: StageRun
    fault: str = ""
    changes: tuple[Change, ...] = ()
    nearest: str | None = None

    @property
    def settings(self) -> tuple[Change, ...]:
        """Changes of something else than the point of the grid."""
        return tuple(change for change in self.changes if not change.axis)

    @property
    def point(self) -> dict[str, Any]:
        """What of the point of the grid is new."""
        return {change.path: change.new for change in self.changes if change.axis}


@dataclass(frozen=True)
class Reason:
    """A sentence, and what it holds for."""

    sentence: str
    cells: tuple[Cell, ...]

    @property
    def because(self) -> str:
        """The sentence after "36 to run"."""
        return f", because {self.sentence}" if " → " in self.sentence else f": {self.sentence}"


@dataclass(frozen=True)
class Why:
    """What is known of a plan's missing cells.

    Attributes:
        causes: per cell with something missing, of the runs whose parents are there, the training's first.
        working: per such cell who has claimed something of it.
        left_out: per stage with more results than were looked at, how many were and how many there are.
    """

    causes: Mapping[Cell, Sequence[Cause]]
    working: Mapping[Cell, str]
    left_out: Mapping[str, tuple[int, int]]

    @property
    def reasons(self) -> list[Reason]:
        """Why cells run, most frequent first; beside a training that is missing only what changed elsewhere."""
        return _grouped({cell: _telling(causes) for cell, causes in self.causes.items()})

    @property
    def claimed(self) -> list[Reason]:
        """Who is at work."""
        cells = defaultdict(list)
        for cell, who in self.working.items():
            cells[f"running: claimed by {who}"].append(cell)
        return [Reason(sentence, tuple(own)) for sentence, own in cells.items()]

    def notes(self) -> Iterator[str]:
        for stage, (looked, there) in self.left_out.items():
            yield f"{stage}: compared with {looked} of {there} results; a nearer one may be among the others"


def why(plan: Plan, store: Store, cells: Collection[CellPlan] | None = None, most: int | None = None) -> Why:
    """Why a plan's cells, or these of them, are not all there.

    Args:
        most: results of a stage that are looked at, if not as many as this storage gives in some seconds.

    Raises:
        UserError: the store cannot be read.
    """
    plans = {cell.cell: cell for cell in (plan.cells if cells is None else cells)}
    roots = {cell: runs for cell, own in plans.items() if (runs := _roots(own, plan))}
    if not roots:
        return Why({}, {}, {})
    with store.explained("read", "check the place and your access to it"):
        most = most or _most(store)
        known = _Known(store, {run.stage.name for runs in roots.values() for run in runs}, plan, most)
        wanted = {run.identity: (run, plans[cell]) for cell, runs in reversed(roots.items()) for run in runs}
        causes = {identity: known.cause(run, cell) for identity, (run, cell) in wanted.items()}
        working = _claimed(store, roots)
    told = {cell: [causes[run.identity] for run in runs] for cell, runs in roots.items()}
    return Why(told, working, known.left_out)


def _most(store: Store) -> int:
    """Results that it gives in some seconds."""
    return MOST_ON_DISK if store.is_local else MOST_REMOTE


def grouped_runs(causes: Iterable[Cause], cell: Cell) -> list[tuple[str, str]]:
    """Of one cell: stages with how many runs, and the sentence why they are missing."""
    by_sentence: dict[str, Counter[str]] = defaultdict(Counter)
    together: dict[tuple[str, str], list[Cause]] = defaultdict(list)
    for cause in causes:
        together[cause.run.stage.name, str(_key(cause))].append(cause)
    for (stage, _), own in together.items():
        by_sentence[_sentence([(cell, cause) for cause in own])][stage] += len(own)
    return [
        (", ".join(stage + (f" ({count})" if count > 1 else "") for stage, count in stages.items()), sentence)
        for sentence, stages in by_sentence.items()
    ]


def made(markers: Iterable[Marker]) -> str:
    """When, on which machines and by which code results were computed."""
    found = list(markers)
    times = sorted(marker.committed_at[:16].replace("T", " ") for marker in found)
    machines = sorted({marker.machine or "an unknown machine" for marker in found})
    code = {f"s3ray {_of(marker, 's3ray')} at {_of(marker, 'code_revision')[:12]}" for marker in found}
    when = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
    return f"committed {when} UTC on {' and '.join(machines)} by {' and '.join(sorted(code))}"


def cached(plan: Plan, cells: Collection[CellPlan] | None = None) -> list[Reason]:
    """With what the cells are cached that miss nothing, by machine and code."""
    groups: dict[tuple[Any, ...], list[CellPlan]] = defaultdict(list)
    for cell in plan.cells if cells is None else cells:
        if not cell.missing(plan.committed):
            markers = [plan.committed[run.identity] for run in cell.runs]
            code = {(marker.machine, _of(marker, "s3ray"), _of(marker, "code_revision")) for marker in markers}
            groups[tuple(sorted(code, key=str))].append(cell)
    return [
        Reason(
            f"cached: {made(plan.committed[run.identity] for cell in own for run in cell.runs)}",
            tuple(cell.cell for cell in own),
        )
        for own in sorted(groups.values(), key=len, reverse=True)
    ]


def setting_of(stage: str, path: str) -> str:
    """Where --config has a field of a stage's configuration; a point of the grid in words."""
    if path in AXES:
        return AXES[path]
    for prefix, place in {**_OWN_PLACES.get(stage, {}), **_PLACES}.items():
        if path.startswith(prefix):
            return place + path.removeprefix(prefix)
    return path


def _roots(cell: CellPlan, plan: Plan) -> list[StageRun]:
    """Runs that are missing while their parents are there; the training first."""
    runs = {run.identity: run for run in cell.missing(plan.committed)}
    return [run for run in runs.values() if run.parent is None or run.parent.identity in plan.committed]


class _Result(NamedTuple):
    """What the marker of a stored result says, whether or not it counts."""

    identity: str
    plain: Mapping[str, Any]

    @property
    def document(self) -> Mapping[str, Any]:
        document: Mapping[str, Any] = self.plain["document"]
        return document

    @property
    def committed_at(self) -> str:
        return str(self.plain.get("committed_at"))


# Of one configuration the latest result per parent; of one data the configurations, each as numbers of its fields.
_Alike: TypeAlias = dict[str | None, _Result]
_Configurations: TypeAlias = dict[frozenset[int], _Alike]


class _Known:
    """What a store has of some stages.

    Results of one configuration on the same data are kept together: thousands of them are few configurations. Fields
    with their values are numbered, since comparing thousands of cells with them takes its time.
    """

    def __init__(self, store: Store, stages: Collection[str], plan: Plan, most: int) -> None:
        self._store, self._plan = store, plan
        ordered = sorted(stages)
        there = store.parallel(lambda stage: set(store.folders("artifacts", stage)), ordered)
        self._there = dict(zip(ordered, there, strict=True))
        self.left_out: dict[str, tuple[int, int]] = {}
        results = [result for stage in ordered for result in self._read(stage, most)]
        self._numbers: dict[tuple[str, str], int] = {}
        self._paths: list[str] = []
        self._alike: dict[str, dict[str, _Configurations]] = {stage: {} for stage in stages}
        self._found: dict[tuple[int, frozenset[int]], list[tuple[int, int, _Alike]]] = {}
        self._told: dict[tuple[str, frozenset[int], str], tuple[Change, ...]] = {}
        self._parents: dict[tuple[str, str], _Result | None] = {}
        for result in results:
            document = result.document
            fields = self._fields(document["config"], document["version"], result.plain.get("parent_stage"))
            alike = self._alike[document["stage"]].setdefault(document["data"], {}).setdefault(fields, {})
            other = alike.get(document["parent"])
            if other is None or other.committed_at < result.committed_at:
                alike[document["parent"]] = result

    def _read(self, stage: str, most: int) -> list[_Result]:
        names, read = sorted(self._there[stage]), 0
        found: list[_Result] = []
        while read < min(len(names), _most(self._store)) and len(found) < most:
            some = names[read : read + most]
            found += filter(None, self._store.parallel(lambda name: self._result(stage, name), some))
            read += len(some)
        if read < len(names):
            self.left_out[stage] = len(found), len(found) + len(names) - read
        return found

    def _result(self, stage: str, identity: str) -> _Result | None:
        content = self._store.marker_content(stage, identity)
        try:
            result = _Result(identity, json.loads(content or b""))
            document = result.document
            is_its = document["stage"] == stage and identity_of(document) == identity
            return result if is_its and isinstance(document["config"], dict) else None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    def _fields_of(self, run: StageRun) -> frozenset[int]:
        parent = run.parent.stage.name if run.parent else None
        return self._fields(run.document["config"], run.stage.version, parent)

    def _fields(self, config: Mapping[str, Any], version: int, parent_stage: str | None) -> frozenset[int]:
        """A configuration, and of what it is one, as the numbers of its fields with their values."""
        found = set()
        for path, value in [("stage version", version), ("parent stage", parent_stage), *flattened(config).items()]:
            if path in _FOLLOWS:
                continue
            key = path, repr(value)
            if key not in self._numbers:
                self._numbers[key] = len(self._paths)
                self._paths.append(path)
            found.add(self._numbers[key])
        return frozenset(found)

    def cause(self, run: StageRun, cell: CellPlan) -> Cause:
        if run.identity in self._there[run.stage.name] and (fault := self._fault(run)):
            return Cause(run, fault)
        by_data = self._alike[run.stage.name]
        known = by_data.get(run.data)
        moved: tuple[Change, ...] = ()
        if not known:
            known, moved = self._other_samples(run, cell)
        if not known:
            is_new = bool(by_data)
            return Cause(run, changes=(Change("dataset", None, cell.cell.dataset, axis=True),) if is_new else ())
        own = self._fields_of(run)
        found = self._nearest(own, run, known)
        changes = [*moved, *dict.fromkeys(self._changes(run, found, own))]
        # What other results have, too, is not new; unless nothing else tells them apart.
        new = [change for change in changes if not (change.axis and self._is_known(own, run, change.path))]
        return Cause(run, changes=tuple(new or changes), nearest=found.identity)

    def _nearest(self, own: frozenset[int], run: StageRun, known: _Configurations) -> _Result:
        if (id(known), own) not in self._found:
            self._found[id(known), own] = [(*self._apart(own, fields), alike) for fields, alike in known.items()]
        parent = run.parent.identity if run.parent else None
        far = [(count + (parent not in a), parent not in a, axes) for count, axes, a in self._found[id(known), own]]
        alike = self._found[id(known), own][far.index(min(far))][2]
        return alike[parent] if parent in alike else max(alike.values(), key=lambda result: result.committed_at)

    def _apart(self, own: frozenset[int], fields: frozenset[int]) -> tuple[int, int]:
        """In how many fields two configurations differ, and how many of these are of the point of the grid."""
        differing = {self._paths[number] for number in own ^ fields}
        return len(differing), sum(path in AXES for path in differing)

    def _is_known(self, own: frozenset[int], run: StageRun, axis: str) -> bool:
        """Whether any result on the same data stands there on an axis; a field that a document lacks is neutral."""

        def there(fields: frozenset[int]) -> set[int]:
            return {number for number in fields if AXES.get(self._paths[number]) == axis}

        configurations = self._alike[run.stage.name].get(run.data, {})
        place = there(own)
        return any(place <= fields if place else not there(fields) for fields in configurations)

    def _fault(self, run: StageRun) -> str:
        """Why a result that is there does not count; empty if none is there."""
        stage, identity = run.stage.name, run.identity
        content = self._store.marker_content(stage, identity)
        if content is None:
            return ""
        marker = Marker.of(content, stage, identity)
        if marker is None:
            return "its marker is damaged, or of another version of s3ray"
        if run.parent is not None and marker.parent_attempt != self._plan.committed[run.parent.identity].attempt:
            return "orphaned: its parent was computed anew"
        there = self._store.sizes("artifacts", stage, identity, marker.attempt) if marker.files else {}
        if not {name: size for name, (size, _) in marker.files.items()}.items() <= there.items():
            aside = f"{marker.attempt}.damaged" in self._store.folders("artifacts", stage, identity)
            return "its files were damaged, and set aside" if aside else "its files are gone, or not whole"
        return "committed meanwhile"

    def _other_samples(self, run: StageRun, cell: CellPlan) -> tuple[_Configurations, tuple[Change, ...]]:
        """Results on data of the same shape that the study has under no name, and the change of data; of training."""
        if not run.stage.trains or run.parent is not None:
            return {}, ()
        inputs = Inputs.of(cell.facts)
        others = {entry.facts.fingerprint for entry in self._plan.study.entries.values()}
        for data, known in self._alike[run.stage.name].items():
            shape = next(iter(next(iter(known.values())).values())).plain.get("inputs") or {}
            alike = (shape.get("features"), shape.get("classes")) == (dict(inputs.features), inputs.classes)
            if data not in others and alike:
                name = f"data {cell.cell.dataset}"
                return known, (Change(name, _Words(data[:12]), _Words(f"{run.data[:12]}: other samples")),)
        return {}, ()

    def _changes(self, run: StageRun, result: _Result, own: frozenset[int]) -> Iterator[Change]:
        """What is other of a run than of a result, and of its parents."""
        document = result.document
        key = run.stage.name, own, result.identity
        if key not in self._told:
            self._told[key] = tuple(_differences(run, document))
        yield from self._told[key]
        if run.parent is None or document["parent"] == run.parent.identity:
            return
        if result.plain.get("parent_stage") != run.parent.stage.name:
            return  # another branch, whose configuration says so
        stands_on = run.parent.stage.name, str(document["parent"])
        if stands_on not in self._parents:  # many results have one
            self._parents[stands_on] = self._result(*stands_on)
        parent = self._parents[stands_on]
        if parent is None:
            yield Change("parent", _Words("one that is gone"), _Words("another"))
        else:
            yield from self._changes(run.parent, parent, self._fields_of(run.parent))


class _Words(str):
    """A value that is shown as it is."""


def _differences(run: StageRun, document: Mapping[str, Any]) -> Iterator[Change]:
    """Between a run's version and configuration and those of a document of the same stage."""
    plain = document["config"]
    if document["version"] != run.stage.version:
        yield Change(f"stage {run.stage.name} version", document["version"], run.stage.version)
    try:
        old = flattened(dataclasses.asdict(run.stage.restored(plain)))
    except (TypeError, KeyError, ValueError, AttributeError):  # of an older version
        old = flattened(plain)
    new = flattened(dataclasses.asdict(run.config))
    # Another branch has fields of its own: that it is another one says enough.
    other_branch = old.get("variant") != new.get("variant")
    for path in [*new, *(old.keys() - new.keys())]:
        if other_branch and not old.keys() & new.keys() & {path}:
            continue
        before, after = old.get(path, _Words("unset")), new.get(path, _Words("unset"))
        if before == after or path in _FOLLOWS:
            continue
        if path == "version":
            yield Change(f"variant {new['variant']} version", before, after)
        else:
            yield Change(setting_of(run.stage.name, path), before, after, path in AXES)


def _claimed(store: Store, roots: Mapping[Cell, Sequence[StageRun]]) -> dict[Cell, str]:
    """Per cell whose missing work somebody has claimed: who. An owner that is known to have died is none."""
    there = set(store.folders("claims"))
    keys = {run.claim for runs in roots.values() for run in runs} & there
    claims = dict(zip(keys, store.parallel(lambda key: standing(store, key), keys), strict=True))
    who = {
        key: claim.who or "an unknown owner"
        for key, claim in claims.items()
        if claim is not None and claim.owner and has_died(claim.process) is not True
    }
    found = {}
    for cell, runs in roots.items():
        if owners := dict.fromkeys(who[run.claim] for run in runs if run.claim in who):
            found[cell] = " and ".join(owners)
    return found


def _telling(causes: Sequence[Cause]) -> list[Cause]:
    """Those that say something: where a training is missing, that the cell's floors are new as well does not."""
    first, *others = causes
    is_training = first.run.stage.trains and first.run.parent is None
    return [first, *(cause for cause in others if cause.settings or not is_training)]


def _key(cause: Cause) -> tuple[Any, ...]:
    """What causes have in common that one sentence tells: of a new point the values may differ."""
    return cause.fault, tuple(map(str, cause.settings)), tuple(cause.point)


def _grouped(causes: Mapping[Cell, Sequence[Cause]]) -> list[Reason]:
    groups: dict[tuple[Any, ...], list[tuple[Cell, Cause]]] = defaultdict(list)
    for cell, own in causes.items():
        for cause in own:
            groups[_key(cause)].append((cell, cause))
    told = [Reason(_sentence(pairs), tuple(dict.fromkeys(cell for cell, _ in pairs))) for pairs in groups.values()]
    return sorted(told, key=lambda reason: len(reason.cells), reverse=True)


def _sentence(pairs: Sequence[tuple[Cell, Cause]]) -> str:
    """Why these are missing, which all have one `_key`."""
    first = pairs[0][1]
    if first.fault:
        return first.fault
    told = [str(change) for change in first.settings]
    if len(told) > _SHOWN:
        told = [*told[:_SHOWN], f"{len(told) - _SHOWN} more"]
    points: dict[str, list[Any]] = {}
    for _, cause in pairs:
        for axis, value in cause.point.items():
            points.setdefault(axis, [])
            if value not in points[axis]:
                points[axis].append(value)
    new = [f"{axis} {_listed(values)}" for axis, values in points.items()]
    if told:
        return ", ".join(told) + (f" (and new: {', '.join(new)})" if new else "")
    return f"new, {', '.join(new)}" if new else "never computed"


def _listed(values: Sequence[Any]) -> str:
    shown = [str(value) for value in (sorted(values) if all(isinstance(v, int | float) for v in values) else values)]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def _shown(value: Any) -> str:
    """A value as --config has it."""
    return str(value) if isinstance(value, _Words) else json.dumps(value, ensure_ascii=False)


def _of(marker: Marker, name: str) -> str:
    return str(marker.provenance.get(name, "unknown"))
