"""Ray, and only here: preflight, Tune trials, Train worker groups, progress."""

import os

# Read by Ray when it is imported or started, so set before any module of this package imports it; the user's
# own settings win.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",  # also the interval at which reports are picked up
    # A worker group waits for its place as long as it takes: for nodes to come, for another sweep to end.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(7 * 24 * 3600),
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # a trial's results are our events, of no use as CSV or curves
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep instead of failing its cells
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about workers without GPU
}
for _name, _value in ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
