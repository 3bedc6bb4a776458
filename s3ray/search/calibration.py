"""Calibration: of a handful of named settings, those that suit a dataset of the user's, chosen on validation.

A scale's settings were chosen on two embedded datasets. Of another one little is known beforehand: whether two
stochastic views are needed to hold what only one modality has, whether experts at full scale help or drown the rest,
how fast it may be trained. So before a sweep trains on it, each candidate is tried on one cell (χ 8 or the largest
that is asked for, the first batch size, the smallest seed). The cells are ordinary ones: results are found again in the
store, and the sweep's own cell with these settings is one of them.

The rules, written before results:

- Judged is what a search judges: validation accuracy after Selection at the p below 1 where it is highest. Test is
  never read. Of equal candidates the first wins.
- Below `LEAST` validation samples nothing is tried, and that is said: there the best of a handful is the luckiest.
- What a `--config` file sets is not varied.
- It is for the smoke scale, for which the candidates were made; at the paper's, its own settings stand.
- A candidate that diverges is none, and stays none in this store. If all do, the scale's own settings stand.
- Prior methods train with the chosen settings as far as they share them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from s3ray.errors import UserError
from s3ray.search.judge import Score, score, validation_curve
from s3ray.settings import merged
from s3ray.stages.training import DivergedError
from s3ray.store import Store
from s3ray.store.names import Names, names_of
from s3ray.sweep import Cell, CellPlan, Plan, Study, StudyDataset, Sweep, make_plan
from s3ray.sweep.timing import duration

LEAST = 100  # validation samples: below them two candidates differ by a handful of answers


def _candidate(*, learning_rate: float, expert_scale: str, two_views: bool) -> Mapping[str, Any]:
    """Wider than the smoke scale, since a sample of one step has no other way to keep what it holds; routers are
    trained more carefully, since a few hundred labels are soon learned by heart."""
    model: dict[str, Any] = {"width": 64, "expert_scale": expert_scale}
    specialization: dict[str, Any] = {"optimizer": {"learning_rate": learning_rate}}
    if two_views:
        model["dropout"] = 0.2
        specialization["views"] = "dropout"
    return {
        "model": model,
        "specialization": specialization,
        "selection": {"optimizer": {"learning_rate": 2e-4}},
    }


CANDIDATES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "two views": _candidate(learning_rate=1e-3, expert_scale="one", two_views=True),
        "two views slowly": _candidate(learning_rate=3e-4, expert_scale="one", two_views=True),
        "two views and scaled experts": _candidate(learning_rate=1e-3, expert_scale="variance", two_views=True),
        "one view slowly": _candidate(learning_rate=3e-4, expert_scale="one", two_views=False),
        "the scale's own": {},
    }
)

# Of a candidate's cell: enough of its curve to judge it by.
_SHORT = {"sparsification": {"ratios": (1.0, 0.8, 0.5, 0.2), "controls": ()}}


def _cells(study: Study) -> Iterator[Cell]:
    for candidate in study.datasets:
        granularity = max(study.granularities(candidate))
        yield study.cell(candidate, granularity, study.batch_sizes(candidate)[0], min(study.seeds(candidate)))


SWEEP = Sweep(name="calibration", cells=_cells, branches=("suff+min",))


@dataclass(frozen=True)
class Calibration:
    """The candidates of the datasets of a study that are calibrated, each with its cell.

    Attributes:
        plan: of their cells, in whose study a dataset and a candidate together are one dataset.
        names: of these, which dataset and which candidate they are.
    """

    study: Study
    plan: Plan
    names: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, study: Study, store: Store, machine: str | None = None) -> Calibration | None:
        """The calibration that a study asks for; None if none of its datasets is calibrated, or all have been."""
        known = study.data.keys() - study.chosen.keys()  # a study of facts alone has nothing to try on
        datasets = [name for name, entry in study.entries.items() if name in known and _asks(entry)]
        if not datasets:
            return None
        names, entries = {}, {}
        for candidate, tables in CANDIDATES.items():
            tables = merged(tables, _SHORT)
            for dataset, entry in study.with_settings(dict.fromkeys(datasets, tables)).items():
                label = f"{dataset} ({candidate})"
                names[label], entries[label] = (dataset, candidate), entry
        tried = Study(entries, data={label: study.data[dataset] for label, (dataset, _) in names.items()})
        diverged = set(store.names("calibration"))
        plan = make_plan(SWEEP, tried, store, machine)
        return cls(study, _without(plan, lambda cell: cell.identity in diverged), names)

    def may_follow(self, sweep: Sweep, store: Store) -> list[Plan]:
        """The plans of a sweep that calibration may lead to, one per candidate, of all datasets the same."""
        datasets = dict.fromkeys(dataset for dataset, _ in self.names.values())
        plans = []
        for tables in CANDIDATES.values():
            entries = {**self.study.entries, **self.study.with_settings(dict.fromkeys(datasets, tables))}
            plans.append(make_plan(sweep, replace(self.study, entries=entries), store, self.plan.machine))
        return plans

    def announced(self) -> str:
        """What is to be done first, in words."""
        datasets = dict.fromkeys(dataset for dataset, _ in self.names.values())
        cost = self.plan.summary()
        return (
            f"calibration first: {len(CANDIDATES)} candidates for each of {', '.join(datasets)}, "
            f"{cost['cells']['to_run']} cells to run, estimated {duration(cost['estimated_worker_seconds'])} of one "
            f"worker; what follows is counted with the scale's own settings until then, its time with each candidate's"
        )

    def told(self, store: Store) -> list[str]:
        """What was found, a sentence per dataset."""
        lines = []
        found = self.scores(store)
        for dataset in dict.fromkeys(dataset for dataset, _ in self.names.values()):
            scores = found.get(dataset, {})
            known = {name: f"{own.accuracy:.1%}" for name, own in scores.items()}
            tried = [f"{name} {known.get(name, 'diverged')}" for name in CANDIDATES]
            chosen = best_of(scores) if scores else "no candidate can be trained, so the scale's own settings stand"
            lines.append(f"{dataset}: calibrated, {chosen}; validation accuracy after Selection: {', '.join(tried)}")
        return lines

    def after(self, plan: Plan, failures: Mapping[Cell, str], store: Store) -> Calibration:
        """The calibration once its cells have run; candidates that diverged are remembered, and left out.

        Args:
            plan: of its cells, with what is in the store now.
            failures: cause per failed cell.

        Raises:
            UserError: one failed of something else, so that it is not known how good it is.
        """
        for cell in self.plan.cells:
            cause = failures.get(cell.cell, "")
            if cause.startswith(DivergedError.__name__):
                store.write(cause, "calibration", cell.identity)
            elif cause:
                raise UserError(f"{cell.cell.dataset}: calibration failed ({cause}); run again, or --no-calibration")
        tried = {cell.cell for cell in self.plan.cells} - failures.keys()
        return replace(self, plan=_without(plan, lambda cell: cell.cell not in tried))

    def scores(self, store: Store) -> dict[str, dict[str, Score]]:
        """Per dataset the candidates whose cells are in the store, in their order."""
        found: dict[str, dict[str, Score]] = {}
        for cell in self.plan.cells:
            if not cell.missing(self.plan.committed):
                dataset, candidate = self.names[cell.cell.dataset]
                found.setdefault(dataset, {})[candidate] = score([validation_curve(store, cell)])
        return found

    def settled(self, store: Store) -> Study:
        """The study with the settings that are known to be best; of datasets whose candidates still run, as it was."""
        running = {self.names[cell.cell.dataset][0] for cell in self.plan.pending}
        scores = {name: own for name, own in self.scores(store).items() if name not in running}
        chosen = {name: best_of(own) for name, own in scores.items()}
        tried = {name: {c: own[c].accuracy if c in own else None for c in CANDIDATES} for name, own in scores.items()}
        entries = self.study.with_settings({name: CANDIDATES[candidate] for name, candidate in chosen.items()})
        return replace(
            self.study,
            entries={**self.study.entries, **entries},
            chosen={**self.study.chosen, **chosen},
            tried={**self.study.tried, **tried},
        )


def _without(plan: Plan, left_out: Callable[[CellPlan], bool]) -> Plan:
    return replace(plan, cells=tuple(cell for cell in plan.cells if not left_out(cell)))


def best_of(scores: Mapping[str, Score]) -> str:
    """The candidate that is chosen."""
    return max(scores, key=lambda candidate: scores[candidate].accuracy)


def _asks(entry: StudyDataset) -> bool:
    return _would_ask(entry) and entry.facts.samples["valid"] >= LEAST


def _would_ask(entry: StudyDataset) -> bool:
    """If it had samples enough."""
    return entry.facts.kind == "user" and entry.scale == "smoke" and entry.settings.calibrate


def too_small(study: Study) -> list[str]:
    """A sentence per dataset that has too few validation samples to be calibrated."""
    return [
        f"{name}: not calibrated, since among {len(CANDIDATES)} candidates {entry.facts.samples['valid']} validation "
        f"samples, fewer than {LEAST}, would choose the luckiest; the scale's own settings stand"
        for name, entry in study.entries.items()
        if _would_ask(entry) and not _asks(entry)
    ]


def asked_by(plan: Plan, store: Store) -> Names:
    """What a call over a plan asks for: its runs, and those of the candidates that its own data were calibrated by."""
    plans = [plan]
    if plan.sweep is not SWEEP:  # candidates are not calibrated in their turn
        calibration = Calibration.of(replace(plan.study, chosen={}), store, plan.machine)
        plans += [calibration.plan] if calibration else []
    return names_of(run for one in plans for cell in one.cells for run in cell.runs)


def plan_calibrated(sweep: Sweep, study: Study, store: Store, machine: str | None = None) -> Plan:
    """`make_plan` with the settings that calibration chose, where it has been in this store already.

    Raises:
        UserError: of `make_plan`.
    """
    plan = make_plan(sweep, study, store, machine)  # first: it complains of what the user named
    if sweep.computes and (calibration := Calibration.of(study, store, machine)):
        return make_plan(sweep, calibration.settled(store), store, machine)
    return plan
