"""Table 2, tuned against tuned: every method with the settings that its own search has found.

The cells of table2_methods.py. `search_weights.py --method s3,clip,…` searches each method and prints this sweep's
command with a `--config` for each best.toml; a method without a file has the scale's own settings, and trains as long
as Specialization does. The results, `results/table2_tuned-…`, stand beside those at the same settings,
`results/table2_methods-…`; `info.json` names the settings that were changed.

Expected: no method below its row at the same settings by more than noise. The best of N trials owes a part of its
lead to luck, for each method alike.

Costs as table2_methods.py; what the searches have trained is there.
"""

from dataclasses import replace
from pathlib import Path

from s3ray.sweep import load_sweep

SWEEP = replace(load_sweep(Path(__file__).with_name("table2_methods.py")), name="table2_tuned")

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
