"""The stages, an object and a file each: torch and scikit-learn only, no Ray, no store.

They run alone or on every rank of an initialised `torch.distributed` group; losses and statistics are those of the
global batch either way.
"""
