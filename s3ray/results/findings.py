"""What a sweep found, in sentences: the first thing that its terminal and its report say.

Of every dataset one configuration of S3 speaks, at one p: the two that are best *on validation*, p = 1 among them (of
equals the first, and the larger p). All that is said of it is measured on test. Differences are of `controlled`, in
points with 95 % intervals, with seeds and samples random wherever rows say which samples are right; "above" and
"below" are said where a two-sided test at level 0.05 shows it, else that the two are not told apart; one seed shows
nothing. The raw features that it is held against are, of all references on raw features, those that are best on
validation. Where S3 is below them the first thing to try is named. What is said of pruning is said of p*, the best
below 1 on validation. Last, the verdicts on the shapes of all its curves after Selection are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import pandas as pd

from s3ray.methods import S3
from s3ray.results import labels
from s3ray.results.collect import Results
from s3ray.results.controlled import ONE_SEED, Compared, Question, compared, conclusion
from s3ray.results.formatting import best_raw
from s3ray.results.statistics import ALPHA, CONFIGURATION, best_ratios, verdicts
from s3ray.stages.reference import MAJORITY

_MARGIN = 0.01  # of accuracy, within which two are called equal
_SELECTED = "suff+min"  # the paper's Selection


def findings(results: Results) -> dict[str, list[str]]:
    """Per dataset with a pruning curve of S3, sentences; the first says where S3 stands."""
    results = results.usual
    rows = results.rows
    if rows.empty:
        return {}
    curves = best_ratios(rows[rows["method"] == S3]).dropna(subset=["valid", "test"])
    found = {}
    for dataset, own in curves.groupby("dataset", sort=False):
        best = max((_Spoken.of(line, rows) for _, line in own.iterrows()), key=lambda one: round(one.valid, 9))
        found[str(dataset)] = [*_sentences(best, len(own), results), *_shapes(rows[rows["dataset"] == dataset])]
    return found


def _shapes(rows: pd.DataFrame) -> Iterator[str]:
    selected = rows[(rows["method"] == S3) & (rows["branch"] == _SELECTED)]
    if len(selected) and len(judged := verdicts(selected)):
        counts = ", ".join(f"{count} {verdict}" for verdict, count in judged["verdict"].value_counts().items())
        yield f"Shapes of its pruning curves after Selection: {counts}."


class _Spoken(NamedTuple):
    """A configuration at the p that is best on validation."""

    line: pd.Series[Any]  # of `best_ratios`
    curve: pd.DataFrame
    ratio: float
    valid: float

    @classmethod
    def of(cls, line: pd.Series[Any], rows: pd.DataFrame) -> _Spoken:
        curve = _same(rows, line)
        unpruned = curve[(curve["preservation_ratio"] == 1.0) & (curve["split"] == "valid")]["accuracy"].mean()
        prunes = round(line["valid"], 9) > round(unpruned, 9) or pd.isna(unpruned)
        return cls(line, curve, line["p_star"] if prunes else 1.0, line["valid"] if prunes else unpruned)


def _sentences(best: _Spoken, among: int, results: Results) -> Iterator[str]:
    here, line, curve = _at(best.curve, best.ratio), best.line, best.curve
    yield (
        f"S3 reaches {_percent(here['accuracy'].mean())} on test ({_seeds(len(here))}, {here['samples'].iloc[0]} "
        f"samples) with χ {line['granularity']}, batch size {line['batch_size']}, {_after(line['branch'])}, p "
        f"{best.ratio:g}" + (f", the best of {among} configurations on validation." if among > 1 else ".")
    )
    judged = _same(results.controlled, line) if len(results.controlled) else results.controlled
    control = judged.iloc[0] if len(judged) else None
    yield from _beside_references(here, line["dataset"], results.references, control)
    yield from _selection(line, results.rows)
    yield _pruning(curve, line, control)
    if control is not None:
        yield from _floors(control)


def _beside_references(
    here: pd.DataFrame, dataset: str, references: pd.DataFrame, control: pd.Series[Any] | None
) -> Iterator[str]:
    """Beside the best raw features, with what to try where it is below, and where it is not above the majority."""
    own = references[(references["dataset"] == dataset)] if len(references) else references
    for name in filter(None, [best_raw(own), MAJORITY] if len(own) else []):
        on_test = own[(own["reference"] == name) & (own["split"] == "test") & own["accuracy"].notna()]
        if on_test.empty:
            continue
        # The reference has no seed: every seed is held against the same answers.
        beside = pd.concat([on_test.assign(seed=seed) for seed in here["seed"]])
        difference, accuracy = compared(_MARGIN, here, beside), _percent(on_test["accuracy"].iloc[0])
        if name != MAJORITY:
            yield f"{_sentence(labels.inputs_title(name))} gives {accuracy}: S3 is {_stands(difference)}."
            if difference.difference.mean < 0 and _is_shown(difference):
                yield f"To try: {_remedy(control)}."
        elif difference.difference.mean <= 0 or (difference.seeds > 1 and not _is_shown(difference)):
            yield f"Always the most frequent class gives {accuracy}: S3 is {_stands(difference)}."


def _remedy(control: pd.Series[Any] | None) -> str:
    if control is not None and control["training"] in ("hurt", "no"):
        return "train more carefully (specialization.optimizer.learning_rate, epochs), since training gained nothing"
    if control is not None and control["experts"] in ("hurt", "no"):
        return 'fewer layers (model.layers), or model.expert_scale = "one", since experts gained nothing'
    return "other settings, by sweeps/search_weights.py; or leave it at the raw features"


def _selection(line: pd.Series[Any], rows: pd.DataFrame) -> Iterator[str]:
    """What it does to the configuration that speaks, also where validation prefers to go without it."""
    before = _at(_same(rows, {**line, "branch": "none"}), 1.0)
    branch = _SELECTED if line["branch"] == "none" else line["branch"]
    after = _at(_same(rows, {**line, "branch": branch}), 1.0)
    if set(before["seed"]) & set(after["seed"]):
        difference = _difference(compared(_MARGIN, after, before))
        yield f"Selection ({branch}): {difference} over Specialization alone, at p 1."


def _pruning(curve: pd.DataFrame, line: pd.Series[Any], control: pd.Series[Any] | None) -> str:
    star = _at(curve, line["p_star"])
    pruned = f"Pruning to p {line['p_star']:g}: {_difference(compared(_MARGIN, star, _at(curve, 1.0)))}"
    if control is None or pd.isna(control["over_random"]):
        return f"{pruned}."
    told = {"yes": "above random pruning", "no": "no better than random pruning"}
    return f"{pruned}; {told.get(control['router'], 'over random pruning')} there: {_measured(control, 'over_random')}."


def _floors(line: pd.Series[Any]) -> Iterator[str]:
    """What makes a curve meaningless; else by how much the experts matter."""
    floors: tuple[tuple[Question, str, str], ...] = (
        ("experts", "full_over_no_expert", "computing none"),
        ("training", "full_over_untrained", "untrained encoders"),
    )
    for question, name, floor in floors:
        if pd.notna(line[name]):
            said = conclusion(line, question)
            yield f"{_sentence(question)}: {_measured(line, name)} over {floor}, at p 1{': ' * bool(said)}{said}."


def _same(frame: pd.DataFrame, best: pd.Series[Any] | Mapping[str, Any]) -> pd.DataFrame:
    """The lines of one configuration."""
    own = (frame[CONFIGURATION] == pd.Series({name: best[name] for name in CONFIGURATION})).all(axis=1)
    return frame[own]


def _at(curve: pd.DataFrame, ratio: float) -> pd.DataFrame:
    """Test rows at a preservation ratio."""
    return curve[(curve["preservation_ratio"] == ratio) & (curve["split"] == "test") & curve["accuracy"].notna()]


def _stands(one: Compared) -> str:
    mean, (low, high) = 100 * one.difference.mean, sorted(abs(100 * end) for end in one.difference.interval(0.95))
    side = "above" if mean > 0 else "below"
    if one.seeds == 1:
        return f"{abs(mean):.1f} points {side} in this one seed, which shows nothing of others"
    if _is_shown(one):
        return f"{abs(mean):.1f} points {side} (95% interval {low:.1f} to {high:.1f})"
    return f"not told apart from it, {_difference(one)}"


def _is_shown(one: Compared) -> bool:
    return one.seeds > 1 and one.difference.p_nonzero() < ALPHA


def _difference(one: Compared) -> str:
    told = _points(one.difference.mean, *one.difference.interval(0.95))
    return f"{told} ({ONE_SEED})" if one.seeds == 1 else told


def _measured(line: pd.Series[Any], name: str) -> str:
    """A difference of a line of `controlled`."""
    return _points(line[name], line[f"{name}_low"], line[f"{name}_high"])


def _points(mean: float, low: float, high: float) -> str:
    interval = f" (95% interval {100 * low:+z.1f} to {100 * high:+z.1f})" if pd.notna(low) else ""
    return f"{100 * mean:+z.1f} points{interval}"  # z: no -0.0


def _after(branch: str) -> str:
    return "without Selection" if branch == "none" else f"after Selection ({branch})"


def _seeds(n: int) -> str:
    return ONE_SEED if n == 1 else f"n = {n} seeds"


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:]


def _percent(share: float) -> str:
    return f"{share:.1%}"
