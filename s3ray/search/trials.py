"""A search's trials: Optuna suggests a configuration, its cells run seed after seed, Optuna is told. No Ray here.

TPE suggests, the scale's own configuration first. After every seed a trial reports the mean over its seeds so far, and
is stopped if it is in the worse half of what was seen after as many. So the resource that is halved is seeds: a race,
in which all start from the same draws and so differ by their settings. Epochs would not do: the learning rate's
schedule ends with them, so that a run cut short is another configuration, and they are themselves searched.

The study is a journal in the store. A search that was killed goes on: its results are in the store, what the pruner
compares with is in the journal, and the configurations that were running are tried again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from s3ray.errors import UserError
from s3ray.search.journal import StudyStorage
from s3ray.search.judge import score, validation_curve
from s3ray.search.outcome import VERDICT, value
from s3ray.search.space import Search, noted, shown
from s3ray.stages.training import DivergedError
from s3ray.store import LeaseLostError, Store
from s3ray.store.names import await_gc, names_of, write_names
from s3ray.sweep import CellPlan
from s3ray.sweep.timing import duration

REDUCTION = 2  # of three seeds: a half goes on after the first, a half of those after the second

# A trial under way: yields a cell, is sent why that failed, or None.
_Steps: TypeAlias = Generator[CellPlan, str | None, None]


def open_study(search: Search, storage: StudyStorage) -> optuna.Study:
    """The search's study, created if it is not there, its first trial the scale's own configuration."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage,
        study_name=search.name,
        direction="maximize",
        load_if_exists=True,
        pruner=SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION),
    )
    about = study.user_attrs
    for key, attribute in search.attributes.items():
        if key not in about:  # new, or killed before it had them all
            study.set_user_attr(key, attribute)
    if not study.get_trials(deepcopy=False):
        study.enqueue_trial(search.defaults(), user_attrs={"default": True})
    return study


def counted(study: optuna.Study) -> int:
    """Trials that came to a verdict: best so far or not, stopped, diverged."""
    return len(study.get_trials(deepcopy=False, states=VERDICT))


def try_again(study: optuna.Study) -> None:
    """Enqueue what a killed search left running; what it finished of it is in the store."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:  # not killed before it had any
            study.enqueue_trial(trial.params, user_attrs={**trial.user_attrs, "again": trial.number})


def name_cells(search: Search, store: Store, cells: Iterable[CellPlan]) -> None:
    """Say that the search asks for these cells, so that nothing of them is deleted, before it looks for them."""
    there = set(store.names("search", search.name, "names"))
    asked = {}
    for cell in cells:
        if (file := f"{cell.identity}.json") not in there:
            write_names(store, names := names_of(cell.runs), "search", search.name, "names", file)
            asked.update(names)
    await_gc(store, asked)


def name_trials(search: Search, study: optuna.Study, store: Store) -> None:
    """`name_cells` of all that a search has tried so far."""
    cells = list[CellPlan]()
    for trial in study.get_trials(deepcopy=False):
        if trial.params:  # not killed before it had any
            with suppress(UserError):  # values that cannot be had together
                cells += search.plans(trial.params)
    name_cells(search, store, cells)


class Trials:
    """The trials that a study lacks, cell by cell: whoever runs them tells how each ended.

    With several cells at once the order of trials depends on which ends first, and with it what is suggested: `seed`
    fixes the sampler, not the search.

    Args:
        trials: how many the study is to have, those of earlier calls included.
        seed: of the sampler.
        say: told a line for every trial that ends.
        holds: whether the study is still ours alone.

    Attributes:
        failures: causes of the trials that ended without a verdict; the next call makes up for them.
    """

    def __init__(
        self,
        search: Search,
        study: optuna.Study,
        store: Store,
        *,
        trials: int,
        seed: int,
        say: Callable[[str], None],
        holds: Callable[[], bool] = lambda: True,
    ) -> None:
        self.failures: list[str] = []
        self._search, self._study, self._store, self._say, self._holds = search, study, store, say, holds
        self._trials, self._before, self._started = trials, counted(study), time.monotonic()
        self._left = trials - self._before
        self._ready: deque[tuple[int, _Steps, CellPlan]] = deque()
        self._running: dict[int, _Steps] = {}
        # Another seed in every call: the same one would suggest again what the last call has tried. Running trials
        # count as bad, so that those suggested beside them lie elsewhere.
        study.sampler = TPESampler(seed=seed + len(study.get_trials(deepcopy=False)), constant_liar=True)

    def cells(self) -> Iterator[tuple[int, CellPlan] | None]:
        """Cells to run, each with its trial's number; None where none is known before another one has ended.

        Raises:
            UserError: the study cannot be told any more.
        """
        while self._left or self._ready or self._running:
            if self._left and not self._ready:
                self._left -= 1
                with self._ours():
                    trial = self._study.ask(self._search.distributions())
                    self._go_on(trial.number, self._steps(trial))
            if self._ready:
                number, steps, cell = self._ready.popleft()
                self._running[number] = steps
                yield number, cell
            else:
                yield None

    def tell(self, number: int, cause: str | None) -> None:
        """The cell that a trial needed is in the store, or failed of a cause.

        Raises:
            UserError: the study cannot be told any more.
        """
        with self._ours():
            self._go_on(number, self._running.pop(number), cause)

    def _go_on(self, number: int, steps: _Steps, cause: str | None = None) -> None:
        with suppress(StopIteration):
            self._ready.append((number, steps, steps.send(cause)))

    def _steps(self, trial: optuna.Trial) -> _Steps:
        try:
            cells = self._search.plans(trial.params)
        except UserError as error:  # values that can be had alone, but not together
            self._failed(trial, str(error))
            return
        name_cells(self._search, self._store, cells)
        curves = []
        for seeds, cell in enumerate(cells, 1):
            cause = yield cell
            if cause is None:
                try:
                    curves.append(validation_curve(self._store, cell))
                except (OSError, UserError) as error:
                    cause = str(error)
            if cause is not None:
                self._failed(trial, cause, cell)
                return
            accuracy, at = score(curves)
            trial.report(accuracy, seeds)
            for name, point in noted(at).items():
                trial.set_user_attr(name, point)
            text = f"{accuracy:.1%}{shown(noted(at))}"
            if seeds < self._search.seeds and trial.should_prune():
                self._study.tell(trial, state=TrialState.PRUNED)
                self._line(f"{text} after {seeds} of {self._search.seeds} seeds, stopped")
                return
        self._study.tell(trial, accuracy)
        self._line(text)

    def _failed(self, trial: optuna.Trial, cause: str, cell: CellPlan | None = None) -> None:
        trial.set_user_attr("cause", cause)
        # A configuration that diverges is bad, which TPE should know; one whose worker died is not known.
        if cell is not None and cause.startswith(DivergedError.__name__):
            missing = cell.missing(self._store.markers(cell.runs))
            trial.set_user_attr("stage", next(iter(missing), cell.training).stage.name)
            self._study.tell(trial, state=TrialState.PRUNED)
            self._line(f"diverged: {cause}")
        else:
            self._study.tell(trial, state=TrialState.FAIL)
            self.failures.append(cause)
            self._line(f"FAILED {cause}")

    def _line(self, text: str) -> None:
        done = counted(self._study)
        complete = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        notes = [f"best {max(map(value, complete)):.1%}"] if complete else []
        if self._before < done < self._trials:
            pace = (time.monotonic() - self._started) / (done - self._before)
            notes.append(f"about {duration(pace * (self._trials - done))} left")
        self._say(f"[{done}/{self._trials}] {text}" + (f" ({', '.join(notes)})" if notes else ""))

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """UserError if the study can no longer be told of trials."""
        try:
            if not self._holds():
                raise LeaseLostError
            yield
        except (LeaseLostError, UpdateFinishedTrialError):
            # A process that stood still for long is thought dead: another one has its trials failed and tried again.
            raise UserError(
                f"study {self._search.name}: another search took it over while this one stood still, and runs again "
                f"what ran here; wait for it to end, then run again"
            ) from None
        except (OSError, UserError) as error:
            raise UserError(
                f"study {self._search.name}: its journal cannot be written ({error}); mend that, then run again"
            ) from error
