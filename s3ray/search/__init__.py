"""Which settings are best on validation: space, trials, journal, findings. Optuna's, and only here."""
