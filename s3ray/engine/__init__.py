"""Ray, and only here: preflight, Tune trials, Train worker groups, progress."""

import os
from pathlib import Path

from s3ray.errors import UserError

try:
    Path.home()
except RuntimeError:  # a user without a name, as in some containers; importing Ray fails without
    raise UserError(
        "HOME: there is no home folder, where Ray keeps files; set HOME to a folder that you may write to"
    ) from None

# What Ray is run with: set while a sweep runs, in its driver and wherever a trial runs. The user's own settings win,
# but for those that REQUIRED names.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # also the interval at which reports are picked up
    # A worker group waits for its place as long as it takes: for nodes to come, for another sweep to end.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(7 * 24 * 3600),
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial's results are our events, of no use as CSV or curves
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep instead of failing its cells
    # A job may bring variables of the same names, which Ray would otherwise refuse to combine with these.
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about workers without GPU
}
REQUIRED = {
    "RAY_TRAIN_V2_ENABLED": "worker groups are those of Ray Train's second version",
    "TUNE_DISABLE_SIGINT_HANDLER": "Ctrl-C would fail cells instead of ending the sweep",
}
for _name, _reason in REQUIRED.items():
    if os.environ.get(_name, "1").lower() not in ("1", "true"):
        raise UserError(f"{_name}={os.environ[_name]}: {_reason}; unset it, or set it to 1")
