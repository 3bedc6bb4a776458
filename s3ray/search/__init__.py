"""Which settings are best on validation: space, trials, journal, findings. Optuna's, and only here."""

import warnings

# Optuna imports tqdm's bar for notebooks, which complains where ipywidgets are missing; none of its bars is shown here.
warnings.filterwarnings("ignore", message="IProgress not found")
