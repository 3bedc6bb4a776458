"""What methods, branches and references are called, in which order they stand, and in which color."""

from __future__ import annotations

SELECTED, UNSELECTED, REFERENCE, STAR = "#1f5fa8", "#9a9a9a", "#2e7d32", "#c0392b"

_METHODS = {  # prior methods' outputs, in the order of Table 2
    ("clip", "none"): "CLIP",
    ("factorcl", "emb"): "FactorCL-emb",
    ("factorcl", "proj"): "FactorCL-proj",
    ("focal", "none"): "FOCAL",
    ("jointopt", "none"): "JointOpt",
    ("disentangledssl", "none"): "DisentangledSSL",
    ("supcon", "none"): "SupCon, end to end",
    ("cross_entropy", "none"): "Cross-entropy, end to end",
}
_WITH_LABELS = {"supcon", "cross_entropy"}
_BRANCHES = {
    "none": ("without Selection", UNSELECTED),
    "suff+min": ("after Selection", SELECTED),
    "suff": ("after Selection (suff)", "#7b4fa3"),
    "min": ("after Selection (min)", "#d9822b"),
}
_REFERENCES = {
    "majority class": "most frequent training class",
    "raw features": "logistic regression on mean-pooled raw features",
}


def prior_methods() -> tuple[tuple[str, str], ...]:
    """Method and branch of every prior method's output, in the order of Table 2."""
    return tuple(_METHODS)


def branches() -> tuple[str, ...]:
    """S3's branches: without Selection, then every Selection variant."""
    return tuple(_BRANCHES)


def branch_title(branch: str) -> str:
    return _BRANCHES[branch][0] if branch in _BRANCHES else branch


def branch_color(branch: str) -> str:
    return _BRANCHES[branch][1] if branch in _BRANCHES else SELECTED


def title(method: str, branch: str) -> str:
    """What a trained model is called in tables and figures."""
    if method == "s3":
        return f"S3, {branch_title(branch)}"
    return _METHODS.get((method, branch), method if branch == "none" else f"{method}-{branch}")


def uses_labels(method: str, branch: str) -> bool:
    """Whether training looks at labels; Selection does."""
    return branch != "none" if method == "s3" else method in _WITH_LABELS


def position(method: str, branch: str) -> int:
    """Sorts S3 by branch, then prior methods as Table 2 does, then any other."""
    order = [*(("s3", own) for own in _BRANCHES), *_METHODS]
    return order.index((method, branch)) if (method, branch) in order else len(order)


def references() -> tuple[str, ...]:
    """What needs no representation learning, the weakest first."""
    return tuple(_REFERENCES)


def reference_title(reference: str) -> str:
    return _REFERENCES[reference]
