"""What a sweep found, in sentences: the first thing that its terminal and its report say.

Of every dataset one configuration of S3 speaks, the one that is best *on validation* at its p*, itself chosen on
validation (`statistics`); all that is said of it is measured on test. Differences are of `controlled`, with seeds and
samples random wherever rows say which samples are right; "above" and "below" are said where a two-sided test at level
0.05 shows it, else that the two are not told apart. The raw features that it is held against are, of all references on
raw features, those that are best on validation. Where S3 is below them the first thing to try is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from s3ray.methods import S3
from s3ray.results import labels
from s3ray.results.collect import Results
from s3ray.results.controlled import ONE_SEED, Compared, Question, compared, conclusion, points
from s3ray.results.formatting import best_raw
from s3ray.results.statistics import ALPHA, CONFIGURATION, best_ratios

_MARGIN = 0.01  # of accuracy, within which two are called equal


def findings(results: Results) -> dict[str, list[str]]:
    """Per dataset with a pruning curve of S3, sentences; the first says where S3 stands."""
    rows = results.rows
    if rows.empty:
        return {}
    curves = best_ratios(rows[rows["method"] == S3])
    found = {}
    for dataset, own in curves.groupby("dataset", sort=False):
        known = own.dropna(subset=["valid", "test"])
        if len(known):
            best = known.sort_values("valid", ascending=False, kind="stable").iloc[0]
            found[str(dataset)] = list(_of(best, len(known), results))
    return found


def _of(best: pd.Series[Any], among: int, results: Results) -> Iterator[str]:
    curve = _same(results.rows, best)
    star = _at(curve, best["p_star"])
    samples = star["samples"].iloc[0]
    yield (
        f"S3 reaches {_percent(best['test'])} on test ({_seeds(best['n'])}, {samples} samples): χ "
        f"{best['granularity']}, batch size {best['batch_size']}, {_after(best['branch'])}, p {best['p_star']:g}"
        + (f", the best of {among} configurations on validation." if among > 1 else ".")
    )
    judged = results.controlled
    line = _same(judged, best).iloc[0] if len(judged) and len(_same(judged, best)) else None
    yield from _beside_raw(star, best, results.references, line)
    yield from _selection(curve, best, results.rows)
    yield _pruning(curve, star, best, line)
    if line is not None:
        yield from _floors(line)


def _beside_raw(
    star: pd.DataFrame, best: pd.Series[Any], references: pd.DataFrame, line: pd.Series[Any] | None
) -> Iterator[str]:
    """Above or below the best raw features, and what to try where it is below."""
    own = references[references["dataset"] == best["dataset"]] if len(references) else references
    raw = best_raw(own) if len(own) else None
    if raw is None:
        return
    reference = own[(own["reference"] == raw) & (own["split"] == "test")]
    if reference.empty or pd.isna(reference["accuracy"].iloc[0]):
        return
    # The reference has no seed: every seed is held against the same answers.
    beside = pd.concat([reference.assign(seed=seed) for seed in star["seed"]])
    difference = compared(_MARGIN, star, beside)
    name, accuracy = _sentence(labels.inputs_title(raw)), _percent(reference["accuracy"].iloc[0])
    yield f"{name}, reaches {accuracy}: S3 is {_stands(difference)}."
    if difference.difference.mean < 0 and _is_shown(difference):
        yield f"To try: {_remedy(line)}."


def _remedy(line: pd.Series[Any] | None) -> str:
    if line is not None and line["training"] in ("hurt", "no"):
        return "train more carefully (specialization.optimizer.learning_rate, epochs), since training gained nothing"
    if line is not None and line["experts"] in ("hurt", "no"):
        return 'fewer layers (model.layers), or model.expert_scale = "one", since experts gained nothing'
    return "other settings, by sweeps/search_weights.py; or leave it at the raw features"


def _selection(curve: pd.DataFrame, best: pd.Series[Any], rows: pd.DataFrame) -> Iterator[str]:
    if best["branch"] == "none":
        return
    before = _same(rows, {**best, "branch": "none"})
    difference = compared(_MARGIN, _at(curve, 1.0), _at(before, 1.0)) if len(before) else None
    if difference is not None and difference.seeds:
        yield f"Selection: {_difference(difference)} at p 1."


def _pruning(curve: pd.DataFrame, star: pd.DataFrame, best: pd.Series[Any], line: pd.Series[Any] | None) -> str:
    pruned = f"Pruning to p {best['p_star']:g}: {_difference(compared(_MARGIN, star, _at(curve, 1.0)))}"
    if line is None or pd.isna(line["over_random"]):
        return f"{pruned}."
    told = {"yes": "above random pruning", "no": "no better than random pruning"}
    return f"{pruned}; {told.get(line['router'], 'over random pruning')} there: {points(line, 'over_random')}."


def _floors(line: pd.Series[Any]) -> Iterator[str]:
    """What makes a curve meaningless; else by how much the experts matter."""
    floors: tuple[tuple[Question, str, str], ...] = (
        ("experts", "full_over_no_expert", "computing none"),
        ("training", "full_over_untrained", "untrained encoders"),
    )
    for question, name, floor in floors:
        if pd.notna(line[name]):
            said = conclusion(line, question)
            yield f"{_sentence(question)}: {points(line, name)} over {floor}, at p 1{': ' * bool(said)}{said}."


def _same(frame: pd.DataFrame, best: pd.Series[Any] | Mapping[str, Any]) -> pd.DataFrame:
    """The lines of one configuration."""
    own = (frame[CONFIGURATION] == pd.Series({name: best[name] for name in CONFIGURATION})).all(axis=1)
    return frame[own]


def _at(curve: pd.DataFrame, ratio: float) -> pd.DataFrame:
    """Test rows at a preservation ratio."""
    return curve[(curve["preservation_ratio"] == ratio) & (curve["split"] == "test") & curve["accuracy"].notna()]


def _stands(one: Compared) -> str:
    if not _is_shown(one):
        return f"not told apart from them ({_difference(one)})"
    mean, (low, high) = 100 * one.difference.mean, sorted(abs(100 * end) for end in one.difference.interval(0.95))
    return f"{abs(mean):.1f} points {'above' if mean > 0 else 'below'} ({low:.1f} to {high:.1f})"


def _is_shown(one: Compared) -> bool:
    return one.seeds > 1 and one.difference.p_nonzero() < ALPHA


def _difference(one: Compared) -> str:
    return f"{100 * one.difference.mean:+z.1f} {_interval(one)}".rstrip() + (f" ({ONE_SEED})" if one.seeds == 1 else "")


def _interval(one: Compared) -> str:
    low, high = one.difference.interval(0.95)
    return f"[{100 * low:+z.1f}, {100 * high:+z.1f}]" if pd.notna(low) else ""


def _after(branch: str) -> str:
    return "without Selection" if branch == "none" else f"after Selection ({branch})"


def _seeds(n: int) -> str:
    return ONE_SEED if n == 1 else f"n = {n} seeds"


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
