"""Ray, and only here: preflight, Tune trials, Train worker groups, progress."""
