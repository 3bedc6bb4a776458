"""How a search stands, and what to do where it found nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from s3ray.methods import S3
from s3ray.search.space import Search, readable, shown

VERDICT = (TrialState.COMPLETE, TrialState.PRUNED)  # a trial that failed or was killed is tried again


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

    @classmethod
    def of(cls, study: optuna.Study, failures: Sequence[str]) -> SearchOutcome:
        trials = study.get_trials(states=VERDICT)
        complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
        diverged = [trial for trial in trials if "cause" in trial.user_attrs]
        return cls(
            best=max(complete, key=value, default=None),
            default=next((trial for trial in complete if trial.user_attrs.get("default")), None),
            complete=len(complete),
            stopped=len(trials) - len(complete) - len(diverged),
            diverged=diverged,
            failures=failures,
        )

    def lines(self, search: Search) -> list[str]:
        """The outcome for people, and for the file with the best configuration."""
        diverged = len(self.diverged)
        counts = f"{self.complete} on all {search.seeds} seeds, {self.stopped} stopped, {diverged} diverged"
        about = search.dataset if search.method == S3 else f"{search.dataset}, {search.method}"
        tried = f"{about}: {self.complete + self.stopped + diverged} configurations tried: {counts}"
        if self.best is None:
            return [f"{tried}; {self._why_none(search)}"]
        own = f" (the scale's own: {value(self.default):.1%})" if self.default else ""
        if self.default and self.default.number == self.best.number:
            own = ", which is the scale's own configuration"
        return [
            tried,
            f"best on validation: {value(self.best):.1%}{shown(self.best.user_attrs)}{own}",
            "that is optimistic, since the best of many owes a part of its lead to luck; test was not read",
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
        settings = search.stability(stage)
        at = [f"{path} {_tried(there, path, own)}" for path, own in settings.items()]
        remedy = "lower that learning rate" + " or raise that temperature" * (len(settings) > 1) + " in --config"
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


def value(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value
