"""Two studies side by side: what differs in what was asked for, and in what was measured. The rules.

Written before results, as all of this project's statistical rules.

- Settings, data, code and environment are what the two folders of results say. What only one of them says, as a study
  written by an earlier version does not say all, is no difference: it is named, and not compared.
- Accuracies are those on test: of every curve, and of p = 0, where no expert is computed. A line is a dataset with its
  kind, method, reading, granularity, batch size, branch and preservation ratio that both have. p* is each study's own,
  chosen on validation (`statistics`). Other metrics are not compared.
- The difference is B minus A, over the seeds that both have; so are the two means. Where the data are the same and both
  say which samples are right, seeds and samples are random (`crossed`); else seeds alone (`statistics`). Which of the
  two is a matter of what rows carry (`controlled.compared`). Degrees of freedom are never more than 2 (n - 1) of n
  seeds, as in `compare`: where few seeds happen to agree, the crossed analysis takes the degrees of the samples, and
  the smallest of many p-values is too small. Intervals are of 95 %, each for itself.
- Tested (two-sided) are the lines with two seeds or more in common. One seed in common says nothing of others. Without
  any, seeds are not paired, and the means of all that each side has stand side by side without a difference.
- Lines whose stage runs are the same on both sides, by their identities, are one computation and no finding: they are
  not tested. If their numbers are not equal, machines or packages differ by that much.
- The false discovery rate over all lines tested, shown or not, is held at 0.05 (Benjamini and Hochberg 1995), as in
  `compare`: `differs`, else `undecided`, which does not say that two accuracies are equal.

Simulated before the choice (a curve of ten ratios, 300 samples, 2, 3 and 5 seeds with no, small and large effects, with
and without samples that suit one study better; 150 pairs of studies each): where nothing differs, some line is said to
differ in 0 to 4 of 100 pairs. Without the bound in 1 to 42, by tests over seeds alone in 0 to 15. What it costs where
all lines differ by nine points: at 3 and 5 seeds at most 2 of 100 lines, at 2 seeds three fifths to five sixths of what
is found. Tests over seeds alone find 4 to 20 lines of 100 fewer at 3 seeds, as many at 5. Of twelve curves with five
ratios each some line is said to differ in 0 to 11 of 100 pairs, without the bound in 11 to 98; where seeds lie some ten
points apart in 0 (2 seeds), 26 (3) and 9 (5), by seeds alone in 0 to 7.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, cast, get_args, get_type_hints

import pandas as pd
from scipy.stats import false_discovery_control

from s3ray.configuration import restored
from s3ray.errors import UserError
from s3ray.execution.provenance import digest_of_environment
from s3ray.methods import S3
from s3ray.results import labels
from s3ray.results.collect import Results, study_named
from s3ray.results.columns import PROVENANCE
from s3ray.results.controlled import ONE_SEED, UNDECIDED, compared, points
from s3ray.results.formatting import summarized
from s3ray.results.statistics import ALPHA, CONFIGURATION, best_ratios
from s3ray.settings import Settings, flattened, merged
from s3ray.settings.reference import shown
from s3ray.store import Store

About = Literal["settings", "data", "code", "environment"]
_ASKED = ("settings", "data")
DIFFERS, SAME_RUNS, UNPAIRED = "differs", "same runs", "no seed in common"
_MARGIN = 0.01  # of equivalence, which `compared` also tests, and nothing here is said of
_SHOWN, _MOST = 5, 12  # names in a sentence, lines of a part

_PLACE = ["dataset", "kind", "method", "reading", "granularity", "batch_size", "branch"]
_LINE = [*_PLACE, "preservation_ratio"]
_EVERY = "any"  # branch of p = 0, where all of a cell's are one
_WORDS = {"granularity": "χ", "batch_size": "batch size", "preservation_ratio": "p"}
_COLUMNS = [*_LINE, "p_star", "mean_a", "std_a", "mean_b", "std_b", "seeds", "samples"]
_COLUMNS += ["difference", "difference_low", "difference_high", "p", "p_adjusted", "verdict"]

_DIGEST = re.compile("[0-9a-f]{13,}")

# What `Results.info` says of a dataset.
_DATA = ["fingerprint", "kind", "modalities", "samples", "classes", "label_names", "label_rule", "subsampled"]
_DATA += ["missing", "best_accuracy"]
_SETTINGS = ["scale", "calibrated", "margin"]
_CODE = ["s3ray", "code_revision"]
_RUN = ["identity", "data_fingerprint"]
_ELSEWHERE = {*_RUN, "committed_at"}
_PACKAGES = ["torch", "scikit_learn", "ray"]  # columns that the list of packages has, too


class Change(NamedTuple):
    """What the two studies do not have in common.

    Attributes:
        about: settings, data, code or environment.
        dataset: of which alone it holds; empty: of all that both have.
        path: of a setting as `--config` has it.
        old: in A.
        new: in B.
    """

    about: About
    dataset: str
    path: str
    old: Any
    new: Any

    def __str__(self) -> str:
        where = f"{self.dataset}: " if self.dataset else ""
        return f"{where}{self.path} {self._told(self.old)} → {self._told(self.new)}"

    def _told(self, value: Any) -> str:
        """As `--config` has it; of code and environment, which rows may have several of, those."""
        several = self.about in ("code", "environment")
        text = (", ".join(map(str, value)) or "none") if several else shown(value)
        return _DIGEST.sub(lambda found: found[0][:12], text)


@dataclass(frozen=True)
class StudyDiff:
    """How study B differs from study A.

    Attributes:
        a, b: names of the studies.
        changes: of settings, data, code and environment.
        rows: a line per test accuracy that both have. Beside its place: `p_star`, whose p* it is (`A`, `B`, `A and B`,
            or nobody's); means and deviations over `seeds` seeds in common, else over each side's own; `samples` that
            are random, too (missing: seeds alone); `difference`, B minus A, with `_low` and `_high`; `p`, and corrected
            `p_adjusted` (missing: not tested); `verdict`. Accuracies are shares.
        notes: sentences: what only one of them has, and what could not be compared.
    """

    a: str
    b: str
    changes: Sequence[Change]
    rows: pd.DataFrame
    notes: Sequence[str]

    @property
    def is_none(self) -> bool:
        """Whether nothing differs."""
        equal = self.rows["verdict"].eq(SAME_RUNS) & self.rows["difference"].eq(0.0)
        return not self.changes and not self.notes and bool(equal.all())

    def plain(self) -> dict[str, Any]:
        """All of it as what JSON knows."""
        lines = json.loads(self.rows.to_json(orient="records", double_precision=15))
        changes = [change._asdict() for change in self.changes]
        return {"a": self.a, "b": self.b, "changes": changes, "rows": lines, "notes": list(self.notes)}


class _Side(NamedTuple):
    """A study as it is read."""

    study: str
    results: Results
    store: Store

    @property
    def datasets(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.results.info.get("datasets", {})
        return found

    def among_rows(self, column: str) -> list[Any] | None:
        """Sorted values of a column of provenance; None where rows do not say."""
        rows = self.results.rows
        values = rows[column].dropna().unique().tolist() if column in rows else []
        return sorted(values) or None


def diff(a: str, b: str, store: Store, also: Store | None = None) -> StudyDiff:
    """Hold study B against study A.

    Args:
        a, b: names of studies, or parts of them that no other has.
        store: that has both.
        also: that has B, if it is another one.

    Raises:
        UserError: there is no such study, or several; a store cannot be read; the two have no dataset in common; rows
            are of a version that had other columns.
    """
    stores = (store, also or store)
    names = [study_named(own, text) for own, text in zip(stores, (a, b), strict=True)]
    first, second = (_Side(name, Results.load(own, name), own) for name, own in zip(names, stores, strict=True))
    if not first.datasets.keys() & second.datasets.keys():
        has = [f"{side.study} has {', '.join(side.datasets) or 'none'}" for side in (first, second)]
        raise UserError(f"diff: no dataset is in both: {' and '.join(has)}; name studies of the same data")
    measured = [_measured(side) for side in (first, second)]
    unsaid: dict[str, list[str]] = {"A": [], "B": []}
    changes = _changes(first, second, unsaid)
    notes = [f"{side} does not say, so not compared: {_few(paths)}." for side, paths in unsaid.items() if paths]
    notes += [*_only("A", "B", *measured), *_only("B", "A", *reversed(measured))]
    return StudyDiff(first.study, second.study, changes, _rows(*measured), notes)


_Facts = dict[tuple[About, str, str], Any]  # by what they are about, dataset and path


def _changes(first: _Side, second: _Side, unsaid: Mapping[str, list[str]]) -> list[Change]:
    """Everything but rows; `unsaid` gets, by the side that does not say it, what the other does."""
    both = [name for name in first.datasets if name in second.datasets]
    old, new = _facts(first, second, both), _facts(second, first, both)
    if first.results.rows.empty or second.results.rows.empty:  # whose code and machines are nobody's
        old, new = ({key: value for key, value in own.items() if key[0] in _ASKED} for own in (old, new))
    _note_packages(first, second, old, new)
    for side, own, other in (("A", old, new), ("B", new, old)):
        unsaid[side].extend(dict.fromkeys(_above(key, own) for key in other if key not in own))
    apart = [
        Change(about, dataset, path.removeprefix("settings."), value, new[about, dataset, path])
        for (about, dataset, path), value in old.items()
        if value != new.get((about, dataset, path), value)
    ]
    found: list[Change] = []
    for change in apart:
        everywhere = change._replace(dataset="")
        if not change.dataset or [c.dataset for c in apart if c._replace(dataset="") == everywhere] != both:
            found.append(change)
        elif everywhere not in found:
            found.append(everywhere)
    return sorted(found, key=lambda change: get_args(About).index(change.about))


def _facts(side: _Side, other: _Side, datasets: Sequence[str]) -> _Facts:
    """What a study says of itself; of what not every study has a name for, what the other has, too."""
    info, theirs = side.results.info, other.results.info
    found: _Facts = {("settings", "", name): info[name] for name in ("sweep", "metric") if name in info}
    for name, reading in info.get("readings", {}).items():
        if name in theirs.get("readings", {}):
            found["settings", "", f"readings.{name}"] = reading
    for dataset in datasets:
        facts = side.datasets[dataset]
        own = {name: facts[name] for name in _SETTINGS if name in facts}
        own |= flattened({"settings": _settings(facts)})
        found |= {("settings", dataset, path): value for path, value in own.items()}
        data = {name: facts[name] for name in _DATA if name in facts}
        data |= flattened({"samples": data.pop("samples", {})})
        found |= {("data", dataset, path): value for path, value in data.items()}
    for name, version in info.get("versions", {}).items():
        if name in theirs.get("versions", {name: version}):
            found["code", "", f"versions.{name}"] = [version]
    for column in PROVENANCE:
        if column not in _ELSEWHERE and (values := side.among_rows(column)):
            found["code" if column in _CODE else "environment", "", column] = values
    return found


def _settings(facts: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset's settings; a field that was left out of identities as neutral has that value."""
    tables = dict(facts.get("settings", {}))
    hints: Mapping[str, Any] = get_type_hints(Settings)
    for name, kind in hints.items():
        if dataclasses.is_dataclass(kind) and name in tables:
            try:
                whole = dataclasses.asdict(restored(cast(Any, kind), tables[name]))
            except (TypeError, KeyError, ValueError):  # of a version that had other fields
                continue
            # Lists as JSON has them; and fields that there are no more.
            tables[name] = merged(json.loads(json.dumps(whole)), tables[name])
    return tables


def _note_packages(first: _Side, second: _Side, old: _Facts, new: _Facts) -> None:
    """Packages in the place of digests of them, where the stores list what both ran with."""
    listed = [_packages(side) for side in (first, second)]
    if not all(listed):
        return
    for own, packages in zip((old, new), listed, strict=True):
        for column in (*_PACKAGES, "environment"):
            own.pop(("environment", "", column), None)
        for name in sorted({*listed[0], *listed[1]}, key=str.casefold):
            own["environment", "", name] = packages.get(name, [])


def _packages(side: _Side) -> dict[str, list[str]]:
    """Versions by package; empty where a list is not there, or not what its digest names."""
    found: dict[str, set[str]] = {}
    for digest in side.among_rows("environment") or []:
        try:
            listed = side.store.read("environments", f"{digest}.txt")
        except OSError:
            return {}
        if digest_of_environment(listed) != digest:
            return {}
        for name, version in (line.split("==", 1) for line in listed.decode().splitlines()):
            found.setdefault(name, set()).add(version)
    return {name: sorted(versions) for name, versions in found.items()}


def _above(key: tuple[About, str, str], own: _Facts) -> str:
    """A path that a study does not say, or the table of it of which it says nothing at all."""
    about, dataset, path = key
    said = [known[2] for known in own if known[:2] == (about, dataset)]
    parts = path.split(".")
    for count in range(1, len(parts)):
        if not any(known.split(".")[:count] == parts[:count] for known in said):
            path = ".".join(parts[:count])
            break
    return path.removeprefix("settings.")


def _measured(side: _Side) -> pd.DataFrame:
    """A line per accuracy on test of a curve, or at p = 0; `star` says whether it is at p*."""
    rows, controls = side.results.rows, side.results.controls
    needed = {*CONFIGURATION, "split", "seed", "preservation_ratio", "accuracy"}
    tables = [(rows, needed), (controls, {*needed, "control"})]
    if lacking := [name for table, own in tables if len(table) for name in sorted(own - {*table.columns})]:
        raise UserError(
            f"{side.store.address('results', side.study)}: written by another version, whose rows have no "
            f"{', '.join(dict.fromkeys(lacking))}; run the sweep again, which takes what it can from the store"
        )
    curves = [rows.assign(star=_are_stars(rows))] if len(rows) else []
    floors = controls[controls["control"] == "no expert"] if len(controls) else controls
    if len(floors):
        # One run serves all branches of a cell.
        curves.append(floors.assign(branch=_EVERY, star=False).drop_duplicates([*_LINE, "seed", "split"]))
    table = pd.concat(curves) if curves else pd.DataFrame(columns=["split", "accuracy"])
    table = table[(table["split"] == "test") & table["accuracy"].notna()]
    return table.reindex(columns=[*_LINE, "star", "seed", "accuracy", "samples", "correct", *_RUN])


def _are_stars(rows: pd.DataFrame) -> list[bool]:
    stars = best_ratios(rows)[[*_PLACE, "p_star"]].to_numpy().tolist()
    ratios = {tuple(place): p for *place, p in stars}
    lines = rows[_LINE].itertuples(index=False, name=None)
    return [ratios.get(tuple(place)) == p for *place, p in lines]


def _rows(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """The lines that both have, in the order of exhibits."""
    ours, theirs = (dict(list(table.groupby(_LINE, sort=False))) for table in (first, second))
    lines = pd.DataFrame(
        [_line(place, ours[place], theirs[place]) for place in sorted(ours.keys() & theirs.keys(), key=_order)],
        columns=_COLUMNS,
    )
    tested = lines["p"].notna()
    if tested.any():
        lines.loc[tested, "p_adjusted"] = false_discovery_control(lines.loc[tested, "p"])
        lines.loc[tested & (lines["p_adjusted"] < ALPHA), "verdict"] = DIFFERS
    return lines


def _order(place: Sequence[Any]) -> tuple[Any, ...]:
    own = dict(zip(_LINE, place, strict=True))
    cell = [own[name] for name in ("dataset", "kind", "reading", "granularity", "batch_size")]
    return (*cell, labels.position(own["method"], own["branch"]), own["branch"], -own["preservation_ratio"])


def _line(place: Any, ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    stars = [side for side, table in (("A", ours), ("B", theirs)) if table["star"].any()]
    line = {**dict(zip(_LINE, place, strict=True)), "p_star": " and ".join(stars)}
    if common := set(ours["seed"]) & set(theirs["seed"]):
        ours, theirs = (table[table["seed"].isin(common)].sort_values("seed") for table in (ours, theirs))
    line |= {f"mean_{side}": table["accuracy"].mean() for side, table in (("a", ours), ("b", theirs))}
    line |= {f"std_{side}": table["accuracy"].std(ddof=1) for side, table in (("a", ours), ("b", theirs))}
    line |= {"seeds": len(common)}
    if not common:
        return line | {"verdict": UNPAIRED}
    about = pd.concat([ours, theirs])[["data_fingerprint", "samples"]]
    if about.isna().any(axis=None) or len(about.drop_duplicates()) > 1:  # not known to be the same samples
        ours, theirs = ours.assign(correct=None), theirs.assign(correct=None)
    found = compared(_MARGIN, theirs, ours)
    if len(common) > 1:
        freedom = min(found.difference.freedom, 2 * (len(common) - 1))
        found = found._replace(difference=dataclasses.replace(found.difference, freedom=freedom))
    told = found.told("difference")
    line |= {name: told[name] for name in _COLUMNS if name in told} | {"samples": found.samples}
    if ours["identity"].notna().all() and ours["identity"].tolist() == theirs["identity"].tolist():
        return line | {"verdict": SAME_RUNS}
    if len(common) == 1:
        return line | {"verdict": ONE_SEED}
    return line | {"p": found.difference.p_nonzero(), "verdict": UNDECIDED}


def _only(side: str, other: str, ours: pd.DataFrame, theirs: pd.DataFrame) -> Iterator[str]:
    """What one study alone has measured, by what the other lacks there: a dataset, a method, …, a seed."""
    names = [*_LINE, "seed"]
    mine, known = ([*table[names].itertuples(index=False, name=None)] for table in (ours, theirs))
    if not mine:
        yield f"{side} has no accuracy on test."
    has = {key[: depth + 1] for key in known for depth in range(len(names))}
    alone = [key for key in mine if key not in has]
    if not alone or not known:
        return
    anywhere = {name: set(theirs[name]) for name in names}
    by_name: dict[str, dict[str, None]] = {name: {} for name in names}
    for key in alone:
        depth = next(depth for depth in range(len(names)) if key[: depth + 1] not in has)
        name, value = names[depth], key[depth]
        # That the other has it elsewhere is said, not where: names are many.
        somewhere = " in places" if value in anywhere[name] else ""
        by_name[name][f"{value:g}{somewhere}" if name == "preservation_ratio" else f"{value}{somewhere}"] = None
    told = [f"{_WORDS.get(name, name)} {_few(values)}" for name, values in by_name.items() if values]
    yield f"{side} alone has {len(alone)} of its {len(mine)} accuracies: {'; '.join(told)}."


def _few(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def in_words(found: StudyDiff) -> Iterator[str]:
    """Lines for people: what differs, the accuracies at p*, p = 1 and p = 0, and what is not among them."""
    yield f"A  {found.a}"
    yield f"B  {found.b}"
    if found.is_none:
        yield f"Nothing differs: {', '.join(get_args(About))}, and {len(found.rows)} accuracies are the same."
        return
    parts = {about: [change for change in found.changes if change.about == about] for about in get_args(About)}
    for about, changes in parts.items():
        yield from [about] if changes else []
        yield from (f"  {change}" for change in changes[:_MOST])
        if len(changes) > _MOST:
            yield f"  and {len(changes) - _MOST} more; --format json has them"
    if equal := [about for about, changes in parts.items() if not changes]:
        yield f"no difference in {', '.join(equal)}"
    yield from _rows_in_words(found.rows)
    yield from found.notes


def _rows_in_words(rows: pd.DataFrame) -> Iterator[str]:
    if rows.empty:
        yield "No accuracy is in both."
        return
    same = rows["verdict"].eq(SAME_RUNS)
    equal = same & rows["difference"].eq(0.0)
    ends = rows["preservation_ratio"].isin([0.0, 1.0]) | rows["p_star"].ne("")
    chosen = rows[ends & ~equal]
    if len(chosen):
        yield ""
        yield from _readable(chosen).to_string(index=False).splitlines()
        yield ""
    counts = {
        "at other p, which are not shown; --format csv has them": int((~ends & ~equal).sum()),
        "of the same stage runs and equal, not shown": int(equal.sum()),
        f"of the same stage runs computed twice, apart by up to {_points(rows[same])}, not tested": int(
            (same & ~equal).sum()
        ),
        "with one seed in common, which says nothing of others, not tested": int(rows["verdict"].eq(ONE_SEED).sum()),
        "with no seed in common, each mean of its side's own seeds, not tested": int(
            rows["verdict"].eq(UNPAIRED).sum()
        ),
    }
    yield f"Accuracies on test that both have: {len(rows)}."
    yield from (f"  {count} {what}" for what, count in counts.items() if count)
    if len(tested := rows[rows["p"].notna()]):
        crossed = int(tested["samples"].notna().sum())
        how = {0: "seeds", len(tested): "seeds and test samples"}.get(
            crossed, f"seeds, {crossed} also over test samples"
        )
        differ = int(tested["verdict"].eq(DIFFERS).sum())
        yield (
            f"  {len(tested)} tested, paired over {how}: {differ} differ, at a false discovery rate of {ALPHA} over "
            f"them all (Benjamini and Hochberg); undecided does not say equal"
        )


def _points(rows: pd.DataFrame) -> str:
    return f"{100 * rows['difference'].abs().max():.2f} points"


def _readable(rows: pd.DataFrame) -> pd.DataFrame:
    lines = []
    for _, line in rows.iterrows():
        star = f" (p* of {line['p_star']})" if line["p_star"] else ""
        lines.append(
            {
                "dataset": f"{line['dataset']} ({line['kind']} data)",
                "reading": line["reading"],
                "χ": line["granularity"],
                "batch size": line["batch_size"],
                "branch": line["branch"] if line["method"] == S3 else labels.title(line["method"], line["branch"]),
                "p": f"{line['preservation_ratio']:g}{star}",
                "A": summarized(line["mean_a"], line["std_a"]),
                "B": summarized(line["mean_b"], line["std_b"]),
                "B - A [95 %]": points(line, "difference"),
                "n": line["seeds"] or "",
                "p-value, corrected": "" if pd.isna(line["p_adjusted"]) else f"{line['p_adjusted']:.2g}",
                "verdict": line["verdict"],
            }
        )
    table = pd.DataFrame(lines)
    return table.drop(columns=[name for name in table if not table[name].astype(str).any()])
