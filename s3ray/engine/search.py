"""Run a search: one Tune trial = one configuration = its cells, seed after seed.

Optuna's TPE suggests configurations, the scale's own first. After every seed the trial reports the mean over its
seeds so far, and ASHA stops it if it is in the worse half of what was seen after as many. So the resource that
is halved is seeds: a race, in which all start from the same draws and so differ by their settings. Epochs would not
do: the learning rate's schedule ends with them, so that a run cut short is another configuration, and they are
themselves searched.

Each seed has a worker group of its own. That costs its start again, but a trial is stopped when it has none: killing
a trial kills Train's controller, and Ray frees the placement group only where its dashboard runs.

The study is a journal in the store, and one process at a time works on it. A search that was killed goes on: its
results are in the store, ASHA gets to see what it saw, and the configurations that were running are tried again.
"""

from __future__ import annotations

import datetime as dt
import math
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import optuna
import ray
import ray.tune
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from rich.console import Console

from s3ray.data import Dataset
from s3ray.engine.cluster import check_nodes_can_write, connected
from s3ray.engine.preflight import Capacity, Execution, check_storage
from s3ray.engine.run import cause, finish
from s3ray.engine.worker import Ledger, Pack
from s3ray.errors import UserError
from s3ray.stages import DivergedError
from s3ray.store import Claims, HeldError, Store
from s3ray.store.journal import StudyStorage, journal_storage
from s3ray.sweep.cost import duration
from s3ray.sweep.search import Search, readable, score, validation_curve

REDUCTION = 2  # of three seeds: a half goes on after the first, a half of those after the second
_COUNTED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """How a search stands.

    Attributes:
        best: the best of the configurations that ran on all seeds; None if there is none.
        default: the scale's own configuration, if it ran on all seeds.
        complete, stopped: numbers of trials over all calls.
        diverged: those whose loss or parameters became infinite, over all calls.
        failures: causes of the trials of this call that ended without a verdict; the next call makes up for them.
    """

    best: FrozenTrial | None
    default: FrozenTrial | None
    complete: int
    stopped: int
    diverged: Sequence[FrozenTrial]
    failures: Sequence[str]

    def lines(self, search: Search) -> list[str]:
        """The outcome for people, and for the file with the best configuration."""
        diverged = len(self.diverged)
        counts = f"{self.complete} on all {search.seeds} seeds, {self.stopped} stopped, {diverged} diverged"
        tried = f"{search.dataset}: {self.complete + self.stopped + diverged} configurations tried: {counts}"
        if self.best is None:
            return [f"{tried}; {self._why_none(search)}"]
        own = f" (the scale's own: {_value(self.default):.1%})" if self.default else ""
        if self.default and self.default.number == self.best.number:
            own = ", which is the scale's own configuration"
        return [
            tried,
            f"best on validation: {_value(self.best):.1%} at p={self.best.user_attrs['p']:g}{own}",
            "that is optimistic, since the best of many is chosen by its luck too; test was not read",
        ]

    def _why_none(self, search: Search) -> str:
        """Why there is no best configuration, and what to do about it."""
        if self.failures:  # the next call makes up for them
            ((cause, _),) = Counter(self.failures).most_common(1)
            return f"{len(self.failures)} failed ({cause}); mend that and run again"
        if not self.diverged:
            return "none ran on all seeds yet; raise --trials"
        # Where most of them did: what that stage's settings were.
        ((stage, times),) = Counter(_stage(trial) for trial in self.diverged).most_common(1)
        there = [trial for trial in self.diverged if _stage(trial) == stage]
        ((what, _),) = Counter(_what(trial) for trial in there).most_common(1)
        at = [f"{path} {_tried(there, path, own)}" for path, own in search.stability(stage).items()]
        remedy = "lower that learning rate or raise that temperature in --config"
        if self.stopped:
            remedy += ", or raise --trials"
        return f"{what} in {stage}, in {times} of {len(self.diverged)}, at {' and '.join(at)}; {remedy}"


def _stage(trial: FrozenTrial) -> str:
    stage: str = trial.user_attrs.get("stage", "specialization")
    return stage


def _what(trial: FrozenTrial) -> str:
    """What diverged, without the step at which it did."""
    return str(trial.user_attrs["cause"]).partition(": ")[2].partition("; ")[0].partition(" at step")[0]


def _tried(trials: Sequence[FrozenTrial], path: str, own: float) -> str:
    """The range of a setting over trials."""
    values = [readable(trial.params.get(path, own)) for trial in trials]
    return f"{min(values):g}" + (f" … {max(values):g}" if max(values) > min(values) else "")


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value


def open_study(search: Search, store: Store) -> optuna.Study:
    """The search's study, created if it is not there, its first trial the scale's own configuration.

    Raises:
        UserError: its journal cannot be read or is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=journal_storage(store, search.name),
        study_name=search.name,
        direction="maximize",
        load_if_exists=True,
    )
    about = study.user_attrs
    for key, value in search.attributes.items():
        if key not in about:  # new, or killed before it had them all
            study.set_user_attr(key, value)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(search.defaults(), user_attrs={"default": True})
    return study


def counted(study: optuna.Study) -> int:
    """Trials that came to a verdict: best so far or not, stopped, diverged."""
    return len(study.get_trials(deepcopy=False, states=_COUNTED))


def try_again(study: optuna.Study) -> None:
    """Enqueue what a killed search left running; what it finished of it is in the store."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:  # not killed before it had any
            study.enqueue_trial(trial.params, user_attrs={**trial.user_attrs, "again": trial.number})


def run_searches(
    searches: Sequence[Search],
    store: Store,
    data: dict[str, Dataset],
    execution: Execution,
    *,
    trials: int,
    seed: int,
    console: Console,
) -> dict[str, SearchOutcome]:
    """Search until each study has `trials` trials; outcomes by dataset.

    One process at a time works on a study; what it was running is run again by the next. With several trials at once
    their order depends on which finishes first, and with it what is suggested: `seed` fixes the sampler, not the
    search.

    Raises:
        UserError: the cluster or the storage cannot be used, or another process is at work on one of the studies.
    """
    with ExitStack() as held:
        for search in searches:
            held.enter_context(_held(search, store, console))
        studies = {search.dataset: open_study(search, store) for search in searches}
        for study in studies.values():
            if cut := cast(StudyStorage, study._storage).cut:
                console.print(f"warning: {cut}", style="yellow", highlight=False, soft_wrap=True)
        failures: dict[str, list[str]] = {search.dataset: [] for search in searches}
        if any(counted(study) < trials for study in studies.values()):
            with connected(execution) as capacity:
                capacity.slots(execution)
                check_storage(store, capacity)
                if not capacity.is_local:
                    check_nodes_can_write(store.uri)
                for search in searches:
                    study = studies[search.dataset]
                    if counted(study) < trials:
                        store.publish_dataset(data[search.dataset], search.entry.facts.fingerprint)
                        try_again(study)
                        found = _tune(search, study, store, execution, capacity, trials, seed, console)
                        failures[search.dataset] = found
        return {dataset: _outcome(study, failures[dataset]) for dataset, study in studies.items()}


@contextmanager
def _held(search: Search, store: Store, console: Console) -> Iterator[None]:
    """The study is ours alone; UserError if another process is at work on it."""

    def waiting(holder: str) -> None:
        text = f"{search.name}: was claimed by {holder}; waiting some seconds for a sign of life"
        console.print(text, highlight=False, soft_wrap=True)

    claims = Claims(store, f"search-{uuid.uuid4().hex[:12]}")
    with ExitStack() as held:
        try:
            held.enter_context(claims.hold(f"search-{search.name}", waiting))
        except HeldError as error:
            raise UserError(
                f"study {search.name}: another search is at work on it ({error}); wait for it to end, then run again: "
                f"what it has found counts"
            ) from None
        yield


def _outcome(study: optuna.Study, failures: Sequence[str]) -> SearchOutcome:
    trials = study.get_trials(states=_COUNTED)
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    diverged = [trial for trial in trials if "cause" in trial.user_attrs]
    return SearchOutcome(
        best=max(complete, key=_value, default=None),
        default=next((trial for trial in complete if trial.user_attrs.get("default")), None),
        complete=len(complete),
        stopped=len(trials) - len(complete) - len(diverged),
        diverged=diverged,
        failures=failures,
    )


def _tune(
    search: Search,
    study: optuna.Study,
    store: Store,
    execution: Execution,
    capacity: Capacity,
    trials: int,
    seed: int,
    console: Console,
) -> list[str]:
    """Run the trials that the study lacks; causes of those that ended without a verdict."""
    run = f"search-{search.name}-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"

    empty = Pack("", run, (), store.uri, execution.checkpoint_interval, not capacity.is_local)

    def trial(parameters: dict[str, Any]) -> None:
        try_configuration(search, parameters, store, execution, empty)

    left, slots = trials - counted(study), capacity.slots(execution)
    progress = _Progress(study, trials, search.seeds, console)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Another seed in every call: the same one would suggest again what the last call has tried. Running trials
        # count as bad, so that those suggested beside them lie elsewhere.
        sampler = TPESampler(seed=seed + len(study.get_trials(deepcopy=False)), constant_liar=True)
    searcher = OptunaTrials(
        search.seeds,
        space=search.distributions(),
        metric="accuracy",
        mode="max",
        sampler=sampler,
        study_name=study.study_name,
        storage=study._storage,
    )
    tuner = ray.tune.Tuner(
        # The trial only waits for its worker groups; it runs on the head and takes none of the workers' CPUs.
        ray.tune.with_resources(trial, {"node:__internal_head__": 0.001}),
        tune_config=ray.tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler(study, search.seeds),
            num_samples=left,
            max_concurrent_trials=slots,
            reuse_actors=True,
        ),
        run_config=ray.tune.RunConfig(
            name="tune",
            storage_path=store.path("runs", run),
            storage_filesystem=store.fs,
            callbacks=[progress],
            verbose=2 if execution.verbose else 0,
        ),
    )
    console.print(
        f"{search.name}: {trials - left} of {trials} trials done, {min(slots, left)} at a time; starting worker groups",
        highlight=False,
        soft_wrap=True,
    )
    try:
        tuner.fit()
    except Exception as error:  # Tune's own
        progress.failed(error)
    if searcher.lost:
        raise UserError(f"study {search.name}: {searcher.lost}")
    if not progress.failures:
        store.drop_run(run)
    return progress.failures


def try_configuration(
    search: Search, parameters: dict[str, float], store: Store, execution: Execution, empty: Pack
) -> None:
    """The Tune trial: run what the store lacks of the configuration, report after every seed.

    Args:
        empty: a pack without cells, of this call.
    """
    curves = []
    for seeds, cell in enumerate(search.plans(parameters), 1):
        finish(replace(empty, name=f"trial-{cell.identity[:8]}", cells=(cell,)), store, execution, relay=False)
        if (cause := Ledger(store, empty.run).failures().get(cell.identity)) is not None:
            # Without `seeds`: nothing for ASHA to compare. Tune insists on the metric.
            stage = next((run.stage for run in cell.missing(store.markers(cell.runs))), cell.training.stage)
            ray.tune.report({"accuracy": math.nan, "cause": cause, "stage": stage})
            return
        curves.append(validation_curve(store, cell))
        ray.tune.report({**score(curves)._asdict(), "seeds": seeds})


def scheduler(study: optuna.Study, seeds: int) -> AsyncHyperBandScheduler | None:
    """ASHA over seeds, having seen what the study has; None for a single seed, after which nothing is left to stop."""
    if seeds < 2:
        return None
    asha = AsyncHyperBandScheduler(
        time_attr="seeds",
        metric="accuracy",
        mode="max",
        max_t=seeds - 1,  # a decision after the last seed would stop what is finished
        reduction_factor=REDUCTION,
        stop_last_trials=False,
    )
    for trial in study.get_trials(deepcopy=False, states=_COUNTED):
        earlier: Any = SimpleNamespace(trial_id=f"earlier {trial.number}")
        asha.on_trial_add(None, earlier)  # type: ignore[arg-type]  # neither looks at the controller
        for step, value in sorted(trial.intermediate_values.items()):
            asha.on_trial_result(None, earlier, {"seeds": step, "accuracy": value})  # type: ignore[arg-type]
    return asha


class OptunaTrials(OptunaSearch):
    """OptunaSearch that tells Optuna what was stopped.

    As it is, a stopped trial counts as complete: one lucky seed would then be the best configuration of all. And it
    wants a metric in every report, and calls a diverged trial complete at NaN.
    """

    def __init__(self, seeds: int, **options: Any) -> None:
        super().__init__(**options)
        self._seeds = seeds
        self.lost = ""  # why the study can no longer be told

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # as Searcher has it
        with self._ours():
            if not self.lost:
                suggestion: dict[str, Any] | None = super().suggest(trial_id)
                return suggestion
        return Searcher.FINISHED

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """A process that stood still for long is thought dead: another one has its trials failed and tried again."""
        try:
            yield
        except UpdateFinishedTrialError:
            self.lost = (
                "another search took it over while this one stood still, and runs again what ran here; wait for it to "
                "end, then run again"
            )
        except (OSError, UserError) as error:
            self.lost = f"its journal cannot be written ({error}); mend that, then run again"

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "seeds" in result and not result.get("done"):  # the last one comes twice
            with self._ours():
                self._note(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        with self._ours():
            self._complete(trial_id, result, error)

    def _complete(self, trial_id: str, result: dict[str, Any] | None, error: bool) -> None:
        if result and "cause" in result:
            for key in ("cause", "stage"):
                if key in result:
                    self._ot_trials[trial_id].set_user_attr(key, result[key])
            # A configuration that diverges is bad, which TPE should know; one whose worker died is not known.
            error = not diverged(result["cause"])
            result = None
        elif result and result.get("seeds", 0) < self._seeds:
            self._note(trial_id, result)  # Tune keeps the report that led to the stop from its searcher
            result = None  # Optuna takes the last value noted
        super().on_trial_complete(trial_id, result, error)

    def _note(self, trial_id: str, result: dict[str, Any]) -> None:
        trial = self._ot_trials[trial_id]
        trial.report(result["accuracy"], result["seeds"])
        trial.set_user_attr("p", result["p"])


def diverged(cause: str) -> bool:
    return cause.startswith(DivergedError.__name__)


class _Progress(ray.tune.Callback):
    """A line for every trial that ends."""

    def __init__(self, study: optuna.Study, trials: int, seeds: int, console: Console) -> None:
        self.failures: list[str] = []
        self._study, self._trials, self._seeds, self._console = study, trials, seeds, console
        self._before, self._started = counted(study), time.monotonic()

    def __getstate__(self) -> dict[str, Any]:
        # Tuner pickles its callbacks so that it could restore itself; a run here is never restored.
        return {}

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        # Tune told its searcher first: the study knows this trial.
        result = trial.last_result
        if (cause := result.get("cause")) is not None:
            if diverged(cause):
                self._line(f"diverged: {cause}")
            else:
                self._failed(cause)
            return
        text = f"{result['accuracy']:.1%} at p={result['p']:g}"
        if result["seeds"] < self._seeds:
            text += f" after {result['seeds']} of {self._seeds} seeds, stopped"
        self._line(text)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
        self.failed(trial.get_error())

    def failed(self, error: BaseException) -> None:
        self._failed(cause(error))

    def _failed(self, cause: str) -> None:
        self.failures.append(cause)
        self._line(f"FAILED {cause}")

    def _line(self, text: str) -> None:
        done = counted(self._study)
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        notes = [f"best {max(map(_value, complete)):.1%}"] if complete else []
        if self._before < done < self._trials:
            pace = (time.monotonic() - self._started) / (done - self._before)
            notes.append(f"about {duration(pace * (self._trials - done))} left")
        line = f"[{done}/{self._trials}] {text}" + (f" ({', '.join(notes)})" if notes else "")
        self._console.print(line, soft_wrap=True, highlight=False, markup=False)
