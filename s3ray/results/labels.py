"""What methods, branches and references are called, in which order they stand, and in which color."""

from __future__ import annotations

from s3ray.methods import METHODS, S3
from s3ray.results.chart import Marker
from s3ray.results.published import published_table
from s3ray.stages.reference import MISSING
from s3ray.stages.variants import VARIANTS

SELECTED, UNSELECTED, REFERENCE, STAR = VARIANTS["suff+min"].color, VARIANTS["none"].color, "#2e7d32", "#c0392b"


# Prior methods' outputs: first those that the paper prints, in its order.
_TITLES = {(m.name, output): title for m in METHODS.values() for output, title in m.outputs.items()}
_PRINTED = list(dict.fromkeys(published_table(2)["method"]))
_PRIOR = sorted(_TITLES, key=lambda key: _PRINTED.index(_TITLES[key]) if _TITLES[key] in _PRINTED else len(_PRINTED))
_BRANCHES = {v.name: v for v in sorted(VARIANTS.values(), key=lambda variant: variant.order)}
BEST_RAW = "best raw features"  # of the references on raw features the one that validation chooses
# Markers tell curves apart where colors do not: in print, and for eyes that see few of them.
_BRANCH_MARKERS: tuple[Marker, ...] = ("square", "circle", "triangle", "diamond")  # in the branches' order
_CONTROLS: dict[str, tuple[str, str, Marker]] = {
    "random": ("random pairs kept", "#d9822b", "triangle"),
    "smallest": ("smallest weights kept", "#8e44ad", "diamond"),
    "contribution": ("largest contributions kept", "#16a085", "square"),
    "no expert": ("no expert at all (p 0)", "#444444", ""),
    "untrained": ("untrained encoder", "#999999", ""),
}
_REFERENCES = {
    "majority class": "most frequent training class",
    BEST_RAW: "logistic regression on raw features, the best inputs",
}
_RAW = "logistic regression on raw features"


def prior_methods() -> tuple[tuple[str, str], ...]:
    """Method and branch of every prior method's output, in the order of Table 2."""
    return tuple(_PRIOR)


def branches() -> tuple[str, ...]:
    """S3's branches: without Selection, then every Selection variant."""
    return tuple(_BRANCHES)


def branch_title(branch: str) -> str:
    return _BRANCHES[branch].title if branch in _BRANCHES else branch


def branch_color(branch: str) -> str:
    return _BRANCHES[branch].color if branch in _BRANCHES else SELECTED


def branch_marker(branch: str) -> Marker:
    place = list(_BRANCHES).index(branch) if branch in _BRANCHES else 1
    return _BRANCH_MARKERS[place % len(_BRANCH_MARKERS)]


def title(method: str, branch: str) -> str:
    """What a trained model is called in tables and figures."""
    if method == S3:
        return f"S3, {branch_title(branch)}"
    return _TITLES.get((method, branch), method if branch == "none" else f"{method}-{branch}")


def uses_labels(method: str, branch: str) -> bool:
    """Whether training looks at labels; Selection does."""
    return VARIANTS[branch].config is not None if method == S3 else METHODS[method].uses_labels


def position(method: str, branch: str) -> int:
    """Sorts S3 by branch, then prior methods as Table 2 does, then any other."""
    order = [*((S3, own) for own in _BRANCHES), *_PRIOR]
    return order.index((method, branch)) if (method, branch) in order else len(order)


def control_title(control: str) -> str:
    return _CONTROLS[control][0]


def control_color(control: str) -> str:
    return _CONTROLS[control][1]


def control_marker(control: str) -> Marker:
    return _CONTROLS[control][2]


def references() -> tuple[str, ...]:
    """What results are held against that needs no representation learning, the weakest first."""
    return tuple(_REFERENCES)


def reference_title(reference: str) -> str:
    return _REFERENCES[reference]


def inputs_title(reference: str) -> str:
    """What a reference is called where all of them stand, by its inputs."""
    if reference == MISSING:
        return "logistic regression on which modalities are missing"
    if reference in _REFERENCES and reference != BEST_RAW:
        return _REFERENCES[reference]
    inputs = reference.removeprefix("raw ")
    return f"{_RAW} ({'all modalities' if inputs == 'features' else inputs})"
