"""Tables 4 and 5: the share of router parameters, and of active parameters at every preservation ratio.

Counted on instantiated models; no training, no data, some seconds.

Expected: all 12 entries of Table 4 and all 108 of Table 5 to every printed digit. Table 5 counts the attention of
all layers and the experts of one; the column `all_layers_percent` is the honest count.
"""

from s3ray.sweep import Sweep

SWEEP = Sweep(name="tables4_5_parameters", exhibits=("tables4_5",))

if __name__ == "__main__":
    from s3ray.cli import run_sweep

    run_sweep(SWEEP)
