"""A search's study made up so that one setting decides, for tests of what is said of it."""

from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from s3ray.search.journal import journal_storage
from s3ray.store import Store

ABOUT = {
    "dataset": "latent_factors",
    "kind": "simulated",
    "scale": "smoke",
    "granularity": 8,
    "batch_size": 64,
    "seeds": [0, 1, 2],
    "objective": "validation accuracy",
}
TEMPERATURE, WEIGHT = "specialization.temperature", "selection.lambda_min"
SPACE = {TEMPERATURE: FloatDistribution(0.04, 1.0, log=True), WEIGHT: FloatDistribution(0.1, 10.0, log=True)}


def add(study: optuna.Study, number: int, state: TrialState, accuracies: list[float], **attributes: Any) -> None:
    """A trial whose accuracy falls with τ and does not know λ_min."""
    parameters = {TEMPERATURE: 0.04 * 1.3**number, WEIGHT: 0.1 + number * 7 % 11 * 0.9}
    study.add_trial(
        create_trial(
            state=state,
            params=parameters if accuracies or attributes else {},
            distributions=SPACE if accuracies or attributes else {},
            value=accuracies[-1] if accuracies else None,
            intermediate_values=dict(enumerate(accuracies, 1)),
            user_attrs=({"p": 0.5} if accuracies else {}) | attributes,
        )
    )


def fill(store: Store) -> None:
    """Studies `made-up`, of 12 trials with a verdict, and `empty`, which was killed before it had any."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=journal_storage(store, "made-up"), study_name="made-up", direction="maximize")
    for key, value in ABOUT.items():
        study.set_user_attr(key, value)
    for number in range(4):
        add(study, number, TrialState.COMPLETE, [0.80 - 0.01 * number, 0.79, 0.78 - 0.01 * number])
    for number in range(4, 11):
        add(study, number, TrialState.PRUNED, [0.80 - 0.01 * number])
    add(study, 11, TrialState.PRUNED, [], cause="DivergedError: the loss became nan")
    study.add_trial(create_trial(state=TrialState.FAIL))
    # A search that was killed before it had anything has nothing to show.
    optuna.create_study(storage=journal_storage(store, "empty"), study_name="empty", direction="maximize")
