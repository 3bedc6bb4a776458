"""What the printed curves of Table 1 can carry: the best p's gain over p = 1, beside what flat curves give by chance.

Computed from the paper's printed numbers alone; no training, no data, some seconds. It is no part of the full grid,
whose report would set the paper's numbers beside those of other data.

Expected: at χ = 2 the best p is 0.1 on all four datasets, so accuracy rises as experts go; at χ = 8 the peak is inside
on all four. More than white noise gives: MOSEI at every χ, MOSI at 2 and 8, UR-FUNNY at 2 (at 8 p is 0.055). More
than a random walk gives: MOSEI at χ = 2 alone, so that none of the printed peaks inside does.
"""

from s3ray.sweep import Sweep

SWEEP = Sweep(name="table1_oracle_gain", exhibits=("oracle_gain",))

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
