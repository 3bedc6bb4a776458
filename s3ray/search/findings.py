"""What searches have found: Optuna's plots for the report, and every trial as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import optuna
import pandas as pd
from optuna import visualization
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState

from s3ray.errors import UserError
from s3ray.methods import S3
from s3ray.search.journal import journal_storage, journals
from s3ray.search.outcome import VERDICT
from s3ray.search.space import readable
from s3ray.store import Store

# Importance: what sets the better half of the trials apart. Where two of eleven settings decide, both come first in 5
# of 8 simulated studies of 30 trials, with the best quarter in 3, with the best tenth (Optuna's default) in none, by
# fANOVA in 2: a hint at best.
_GOOD = 0.5
_ENOUGH, _MANY = 8, 100  # trials
_ABOUT = ("kind", "scale", "granularity", "batch_size", "objective")  # a study that was mended by hand may lack some


@dataclass(frozen=True)
class SearchResults:
    """A study, for the report.

    Attributes:
        figures: heading and plotly figure.
        trials: a row per trial, the best first; accuracies are of validation, in percent.
    """

    name: str
    title: str
    note: str
    figures: list[tuple[str, Any]]
    trials: pd.DataFrame


def load_searches(store: Store, warn: Callable[[str], None] = lambda text: None) -> list[SearchResults]:
    """Every study in the store that has a trial with a verdict.

    Args:
        warn: told of each journal that is damaged and left out, or whose last line is.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return [found for name in journals(store) if (found := _load(store, name, warn)) is not None]


def _load(store: Store, name: str, warn: Callable[[str], None]) -> SearchResults | None:
    try:
        storage = journal_storage(store, name)
    except UserError as error:  # the others are in the report all the same
        warn(str(error))
        return None
    if cut := storage.cut:
        warn(cut)
    if name not in {study.study_name for study in storage.get_all_studies()}:  # killed before it had begun
        return None
    study = optuna.load_study(study_name=name, storage=storage)
    return _results(study, cut) if study.get_trials(deepcopy=False, states=VERDICT) else None


def _results(study: optuna.Study, cut: str | None) -> SearchResults:
    about = {"dataset": study.study_name, **dict.fromkeys(_ABOUT, "unknown"), "seeds": [], **study.user_attrs}
    method = about.get("method", S3)
    data = about["dataset"] if method == S3 else f"{about['dataset']}, {method}"
    encoders = f"χ = {about['granularity']}" if method == S3 else "dense encoders"
    where = f"{encoders}, batch size {about['batch_size']}, seeds {', '.join(map(str, about['seeds']))}"
    return SearchResults(
        name=f"search_{study.study_name}",
        title=f"{data} ({about['kind']} data, {about['scale']} scale)",
        note=f"Study {study.study_name}: {where}. Objective: {about['objective']}; what is bad after a seed is "
        f"stopped. The best value is optimistic, since luck had a part in being the best; test was not read."
        + (" The journal's last line was cut short and is left out." if cut else ""),
        figures=list(_figures(study)),
        trials=trials_table(study),
    )


def after_one_seed(study: optuna.Study) -> optuna.Study:
    """All trials with a verdict, by their accuracy in percent after the first seed, which all of them have.

    Those that ran on all seeds are the good ones: among them alone what matters most looks unimportant.
    """
    equal = optuna.create_study(direction="maximize")
    for trial in study.get_trials(states=VERDICT):
        if trial.intermediate_values:
            equal.add_trial(
                optuna.trial.create_trial(
                    params={_label(path): value for path, value in trial.params.items()},
                    distributions={_label(path): d for path, d in trial.distributions.items()},
                    value=100 * trial.intermediate_values[min(trial.intermediate_values)],
                )
            )
    return equal


def _label(path: str) -> str:
    return path.replace("optimizer.", "").replace("_", " ").replace(".", "<br>")


def _figures(study: optuna.Study) -> Iterator[tuple[str, Any]]:
    """Importance, parallel coordinates, history; those that the trials so far allow."""
    equal = after_one_seed(study)
    if len(equal.trials) >= _ENOUGH:
        evaluator = PedAnovaImportanceEvaluator(target_quantile=_GOOD)
        importance = visualization.plot_param_importances(equal, evaluator=evaluator)
        importance.update_layout(height=460, xaxis_title="importance (PED-ANOVA)", yaxis_title=None)
        importance.update_yaxes(automargin=True)
        heading = f"Importance: what sets the better half of {len(equal.trials)} trials apart after the first seed"
        yield heading + (", a hint at best" if len(equal.trials) < _MANY else ""), importance
    if equal.trials:
        parallel = visualization.plot_parallel_coordinate(equal, target_name="valid. (%)")
        parallel.update_layout(height=480)
        # Optuna sorts the settings and cuts their names short.
        names = sorted(equal.trials[0].params)
        parallel.update_xaxes(ticktext=["validation<br>(%)", *names], tickangle=0, tickfont={"size": 10})
        yield "Settings and validation accuracy after the first seed, all trials", parallel
    if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        history = visualization.plot_optimization_history(study, target_name="validation accuracy")
        history.update_layout(height=380, xaxis_title="trial", legend={"orientation": "h", "y": 1.12})
        history.update_yaxes(tickformat=".1%")
        yield "History: trials that ran on all seeds", history


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """The trials with a verdict, those on most seeds first, of them the best.

    Columns: `trial`; `outcome` (all seeds, stopped, diverged); `seeds`; `accuracy` (percent of validation, mean over
    those seeds) at `p`, or of `output` where a prior method has several; the settings.
    """
    rows = []
    trials = study.get_trials(deepcopy=False, states=VERDICT)
    noted = [name for name in ("p", "output") if any(name in trial.user_attrs for trial in trials)]
    for trial in trials:
        steps = trial.intermediate_values
        seeds = max(steps, default=0)
        rows.append(
            {
                "trial": trial.number,
                "outcome": _outcome(trial),
                "seeds": seeds,
                "accuracy": round(100 * steps[seeds], 2) if seeds else None,
                **{name: trial.user_attrs.get(name) for name in noted},
                **{path: readable(value) for path, value in trial.params.items()},
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values(["seeds", "accuracy"], ascending=False, kind="stable") if rows else table


def _outcome(trial: FrozenTrial) -> str:
    if trial.state is TrialState.COMPLETE:
        return "all seeds"
    return "diverged" if "cause" in trial.user_attrs else "stopped"
