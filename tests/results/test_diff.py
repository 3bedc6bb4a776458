"""Two studies side by side, on results that are known by formula; the command that prints them."""

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from command_line import assert_one_sentence, s3ray
from s3ray.errors import UserError
from s3ray.results import Results
from s3ray.results.crossed import Crossed, on_test
from s3ray.results.diff import StudyDiff, diff, in_words
from s3ray.store import Store
from s3ray.sweep import Sweep

SHORT = {"sparsification": {"ratios": [1.0, 0.9, 0.5]}, "granularities": [8], "seeds": [0, 1, 2]}
SWEEP = Sweep(
    name="short",
    cells=lambda study: [study.cell(d, 8, 64, seed) for d in study.datasets for seed in study.seeds(d)],
    branches=("none", "suff+min"),
)
# Per seed: two branches at three ratios, and p = 0.
LINES = 2 * 3 + 1


@pytest.fixture(scope="module")
def run(made_up: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Results of the short sweep with other settings, in a store of their own."""

    def finished(datasets: Any = ("digits",), **overrides: Any) -> Results:
        folder = tmp_path_factory.mktemp("runs")
        plan, store = made_up.finished(SWEEP, datasets, folder, made_up.formula, {**SHORT, **overrides})
        return Results.collect(plan, store)

    return finished


@pytest.fixture(scope="module")
def usual(run: Any) -> Results:
    results: Results = run()
    return results


@pytest.fixture
def held(tmp_path: Path) -> Callable[[Results, Results], StudyDiff]:
    """The difference of two results, saved as studies `a` and `b`."""
    store = Store(str(tmp_path))

    def of(a: Results, b: Results) -> StudyDiff:
        named(a, study="short-a").save(store)
        named(b, study="short-b").save(store)
        return diff("short-a", "short-b", store)

    return of


def named(results: Results, **info: Any) -> Results:
    return dataclasses.replace(results, info={**results.info, **info})


def recomputed(results: Results, identity: str, accuracy: Callable[[pd.DataFrame], Any]) -> Results:
    """As by other runs, of which nothing is known but accuracies: seeds alone are random."""
    rows = results.rows.assign(accuracy=accuracy, identity=identity)
    return dataclasses.replace(results, rows=rows.drop(columns="correct"), controls=pd.DataFrame())


def told(found: StudyDiff) -> str:
    return "\n".join(in_words(found))


def at(found: StudyDiff, branch: str, ratio: float) -> Any:
    rows = found.rows
    (line,) = rows[(rows["branch"] == branch) & (rows["preservation_ratio"] == ratio)].to_dict("records")
    return line


def test_equal_studies_differ_in_nothing(usual: Results, held: Any) -> None:
    found = held(usual, usual)
    assert found.is_none
    assert told(found).splitlines()[2:] == [
        f"Nothing differs: settings, data, code, environment, and {LINES} accuracies are the same."
    ]


def test_a_setting_is_told_and_what_does_not_depend_on_it_is_the_same_runs(run: Any, usual: Results, held: Any) -> None:
    # `noise` was added later: at its default it stands in no study.
    found = held(usual, run(selection={"temperature": 0.3, "noise": True}))
    assert list(map(str, found.changes)) == ["selection.temperature 0.2 → 0.3", "selection.noise false → true"]
    verdicts = found.rows.groupby("branch")["verdict"].unique().map(list).to_dict()
    # Numbers by formula are equal, though the runs of `suff+min` are others.
    assert verdicts == {"none": ["same runs"], "any": ["same runs"], "suff+min": ["undecided"]}
    assert found.rows["p"].notna().sum() == 3
    assert set(found.rows["p"].dropna()) == {1.0}
    text = told(found)
    assert "no difference in data, code, environment" in text
    assert "  4 of the same stage runs and equal, not shown" in text
    assert "  3 tested, paired over seeds and test samples: 0 differ" in text
    # On validation the formula is highest at p = 0.5, and falls without Selection.
    assert (at(found, "suff+min", 0.5)["p_star"], at(found, "none", 0.9)["p_star"]) == ("A and B", "A and B")
    shown = [line.split()[5:7] for line in text.splitlines() if line.startswith("digits (embedded data)")]
    assert shown == [["suff+min", "1"], ["suff+min", "0.5"]]
    assert "  1 at other p, which are not shown; --format csv has them" in text


def test_the_test_is_of_pairs_and_corrected_over_all_lines(usual: Results, held: Any) -> None:
    # Points by seed. At p = 1 far more than their scatter, at p = .5 not, at p = .9 in between.
    gains = {1.0: (3.0, 3.4, 2.6), 0.9: (1.0, 2.0, 0.4), 0.5: (-2.0, 1.0, 2.5)}

    def better(rows: pd.DataFrame) -> Any:
        points = [gains[p][seed] for p, seed in zip(rows["preservation_ratio"], rows["seed"], strict=True)]
        return rows["accuracy"] + pd.Series(points, rows.index) / 100

    found = held(recomputed(usual, "old", lambda rows: rows["accuracy"]), recomputed(usual, "new", better))
    assert len(found.rows) == 6
    for ratio, points in gains.items():
        line = at(found, "none", ratio)
        mean, error = sum(points) / 3, pd.Series(points).std() / 3**0.5
        assert line["difference"] == pytest.approx(mean / 100)
        assert line["difference_high"] == pytest.approx((mean + stats.t.ppf(0.975, 2) * error) / 100)
        assert line["p"] == pytest.approx(stats.ttest_1samp(points, 0.0).pvalue)
        assert (line["seeds"], line["mean_b"] - line["mean_a"]) == (3, pytest.approx(mean / 100))
    # Six tests, of each gain two: the largest p of a rank counts, times 6 over its rank.
    p = sorted(found.rows["p"])
    expected = [min(6 * p[rank] / (rank + 1) for rank in range(place, 6)) for place in range(6)]
    assert sorted(found.rows["p_adjusted"]) == pytest.approx(expected)
    assert found.rows["verdict"].tolist() == ["differs", "undecided", "undecided"] * 2
    assert "6 tested, paired over seeds: 2 differ, at a false discovery rate of 0.05" in told(found)


def test_few_seeds_that_agree_do_not_lend_the_degrees_of_samples(usual: Results, held: Any) -> None:
    def better(correct: bytes) -> bytes:
        bits = np.unpackbits(np.frombuffer(correct, np.uint8), count=300)
        return np.packbits(np.arange(300) < bits.sum() + 15).tobytes()

    rows = usual.rows.assign(correct=usual.rows["correct"].map(better), identity="new")
    found = at(held(usual, dataclasses.replace(usual, rows=rows)), "none", 1.0)
    sides = [on_test(own[own["branch"] == "none"], 1.0) for own in (rows, usual.rows)]
    crossed = Crossed.between(*sides).difference
    assert crossed.freedom > 100
    assert found["difference"] == pytest.approx(0.05)
    assert found["p"] == pytest.approx(2 * stats.t.sf(0.05 / crossed.error, 4))
    assert found["difference_high"] == pytest.approx(0.05 + stats.t.ppf(0.975, 4) * crossed.error)


@pytest.mark.parametrize(
    ("seeds_a", "seeds_b", "n", "verdict", "sentence"),
    [
        ((0,), (0,), 1, "one seed", "  6 with one seed in common, which says nothing of others, not tested"),
        (
            (0,),
            (1, 2),
            0,
            "no seed in common",
            "  6 with no seed in common, each mean of its side's own seeds, not tested",
        ),
        ((0, 1, 2), (1, 2), 2, "undecided", "A alone has 6 of its 18 accuracies: seed 0."),
    ],
    ids=["one", "none", "two of three"],
)
def test_seeds_are_paired_or_it_is_said(
    usual: Results, held: Any, seeds_a: Any, seeds_b: Any, n: int, verdict: str, sentence: str
) -> None:
    def of(seeds: Any, more: float) -> Results:
        own = recomputed(usual, f"runs {more}", lambda rows: rows["accuracy"] + more * (rows["seed"] == 2))
        return dataclasses.replace(own, rows=own.rows[own.rows["seed"].isin(seeds)])

    found = held(of(seeds_a, 0.0), of(seeds_b, 0.01))
    assert set(found.rows["seeds"]) == {n}
    assert set(found.rows["verdict"]) == {verdict}
    assert found.rows["p"].isna().all() == found.rows["p_adjusted"].isna().all() == (n < 2)
    assert found.rows["difference"].isna().all() == (n == 0)
    assert sentence in told(found)
    # Seeds lie a point apart.
    common = set(seeds_a) & set(seeds_b) or set(seeds_a)
    assert at(found, "none", 1.0)["mean_a"] == pytest.approx(0.6364 + 0.01 * sum(common) / len(common))


def test_what_only_one_has_is_named(usual: Results, held: Any) -> None:
    rows = usual.rows
    lacks = (rows["seed"] == 0) & (rows["branch"] == "none") | (rows["preservation_ratio"] == 0.9)
    found = held(usual, dataclasses.replace(usual, rows=rows[~lacks], controls=pd.DataFrame()))
    assert found.notes == [
        f"A alone has {3 + 2 * 3 + 2} of its {3 * LINES} accuracies: branch any; p 0.9; seed 0 in places."
    ]


def test_other_samples_are_not_paired(usual: Results, held: Any) -> None:
    datasets = {"digits": {**usual.info["datasets"]["digits"], "fingerprint": "other", "samples": {"train": 999}}}
    rows = usual.rows.assign(data_fingerprint="other", identity="new")
    found = held(usual, named(dataclasses.replace(usual, rows=rows), datasets=datasets))
    changes = {change.path: str(change) for change in found.changes}
    assert changes["samples.train"] == "samples.train 1000 → 999"
    assert changes["fingerprint"].endswith(' → "other"')
    curves = found.rows[found.rows["branch"] != "any"]
    assert curves["samples"].isna().all()
    assert "B does not say, so not compared: samples.valid, samples.test." in found.notes


def test_several_datasets(run: Any, usual: Results, held: Any) -> None:
    both = run(("digits", "latent_factors"))
    found = held(usual, both)
    assert found.changes == []
    assert found.notes == [f"B alone has {3 * LINES} of its {6 * LINES} accuracies: dataset latent_factors."]
    other = run(("digits", "latent_factors"), margin=2.0, dataset={"digits": {"selection": {"temperature": 0.3}}})
    assert list(map(str, held(both, other).changes)) == [
        "margin 1.5 → 2.0",
        "digits: selection.temperature 0.2 → 0.3",
    ]
    refused = r"^diff: no dataset is in both: short-a has digits and short-b has latent_factors; name studies of"
    with pytest.raises(UserError, match=refused):
        held(usual, run(("latent_factors",)))


def test_data_of_another_kind_are_never_set_beside(usual: Results, held: Any) -> None:
    other = dataclasses.replace(usual, rows=usual.rows.assign(kind="user"), controls=pd.DataFrame())
    found = held(usual, named(other, datasets={"digits": {**usual.info["datasets"]["digits"], "kind": "user"}}))
    assert list(map(str, found.changes)) == ['kind "embedded" → "user"']
    assert found.rows.empty
    assert "No accuracy is in both." in told(found)
    assert f"A alone has {3 * LINES} of its {3 * LINES} accuracies: kind embedded." in found.notes


def test_a_study_without_rows(usual: Results, held: Any) -> None:
    empty = dataclasses.replace(usual, rows=pd.DataFrame(), controls=pd.DataFrame())
    found = held(usual, empty)
    assert found.notes == ["B has no accuracy on test."]
    assert told(found).splitlines()[2:] == [
        "no difference in settings, data, code, environment",
        "No accuracy is in both.",
        "B has no accuracy on test.",
    ]


def test_a_study_of_an_earlier_version(usual: Results, held: Any, tmp_path: Path) -> None:
    facts = {name: usual.info["datasets"]["digits"][name] for name in ("kind", "scale", "samples")}
    info = {"sweep": "short", "datasets": {"digits": facts}}
    rows = usual.rows.drop(columns=["identity", "data_fingerprint", "environment", "correct"])
    store = Store(str(tmp_path))
    tables = {"rows.parquet": rows.to_parquet(), "controls.parquet": usual.controls.to_parquet()}
    store.write_folder(tables, info, "results", "short")
    usual.save(store)  # of the sweep `short`, and written last
    found = diff(usual.study, "short", store)
    assert found.changes == []
    (note,) = found.notes
    assert note.startswith("B does not say, so not compared: metric, calibrated, margin, settings, ")
    lacking = dataclasses.replace(usual, rows=usual.rows.drop(columns="reading"))
    with pytest.raises(UserError, match=r"short-b: written by another version, whose rows have no reading; run the"):
        held(usual, lacking)


def test_settings_of_another_version_are_compared_as_they_are(usual: Results, held: Any) -> None:
    facts = json.loads(json.dumps(usual.info["datasets"]["digits"]))
    del facts["settings"]["specialization"]["temperature"]
    facts["settings"]["selection"]["gone"] = 1
    found = held(usual, named(usual, datasets={"digits": facts}))
    assert found.changes == []
    assert "A does not say, so not compared: selection.gone." in found.notes
    (note,) = [note for note in found.notes if note.startswith("B")]
    assert "specialization.temperature" in note


def test_code_and_environment(usual: Results, held: Any, tmp_path: Path) -> None:
    lists = [b"numpy==2.1\ntorch==2.13\n", b"numpy==2.2\nscipy==1.16\ntorch==2.13\n"]
    digests = [hashlib.sha256(listed).hexdigest()[:16] for listed in lists]
    store = Store(str(tmp_path))
    a, b = (
        dataclasses.replace(usual, rows=usual.rows.assign(environment=digest, s3ray=version))
        for digest, version in zip(digests, ("0.1.0", "0.2.0"), strict=True)
    )
    b = named(b, versions={**b.info["versions"], "probe": 9, "not run": 1})
    b.rows.loc[0, "machine"] = "cuda sm_90"

    def changes() -> list[str]:
        return [str(change) for change in held(a, b).changes]

    version = usual.info["versions"]["probe"]
    always = [f"versions.probe {version} → 9", "s3ray 0.1.0 → 0.2.0"]
    always += ["machine cpu x86_64 AVX2 → cpu x86_64 AVX2, cuda sm_90"]
    # Where packages are not listed, or not as their digest says, it is the digests that differ.
    told = f"environment {digests[0][:12]} → {digests[1][:12]}"
    assert changes() == [*always, told]
    for digest in digests:
        store.write(b"numpy==9\n", "environments", f"{digest}.txt")
    assert changes() == [*always, told]
    for digest, listed in zip(digests, lists, strict=True):
        store.write(listed, "environments", f"{digest}.txt")
    assert changes() == [*always, "numpy 2.1 → 2.2", "scipy none → 1.16"]


def test_the_same_runs_computed_twice_may_be_apart(usual: Results, tmp_path: Path) -> None:
    stores = [Store(str(tmp_path / name)) for name in ("here", "there")]
    drifted = dataclasses.replace(usual, rows=usual.rows.assign(accuracy=usual.rows["accuracy"] + 0.01, correct=None))
    usual.save(stores[0])
    drifted.save(stores[1])
    found = diff(usual.study, usual.study, *stores)
    assert found.rows["p"].isna().all()
    assert not found.is_none
    assert "6 of the same stage runs computed twice, apart by up to 1.00 points, not tested" in told(found)


def test_the_command(usual: Results, run: Any, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    usual.save(store)
    other = run(selection={"temperature": 0.3})
    other.save(store)
    command = ["diff", usual.study, other.study[-8:], "--storage", tmp_path]
    text = s3ray(*command)
    assert text.exit_code == 0, text.output
    lines = text.stdout.splitlines()
    assert lines[:4] == [f"A  {usual.study}", f"B  {other.study}", "settings", "  selection.temperature 0.2 → 0.3"]
    plain = json.loads(s3ray(*command, "--format", "json").stdout)
    setting = {"about": "settings", "dataset": "", "path": "selection.temperature", "old": 0.2, "new": 0.3}
    assert (plain["b"], plain["changes"], len(plain["rows"])) == (other.study, [setting], LINES)
    table = list(csv.DictReader(io.StringIO(s3ray(*command, "--format", "csv").stdout)))
    assert [float(line["mean_a"]) for line in table] == pytest.approx([line["mean_a"] for line in plain["rows"]])
    assert "Nothing differs" in s3ray("diff", usual.study, usual.study, "--storage", tmp_path).stdout


def test_the_command_refuses_names_that_are_none(usual: Results, tmp_path: Path) -> None:
    usual.save(Store(str(tmp_path)))
    named(usual, study="short-b").save(Store(str(tmp_path)))
    for b, more, message in (
        ("b", [], "--storage .*: holds no results of 'b'; .*known: .*short-b"),  # though one name alone has it
        ("long", [], "--storage .*: holds no results of 'long'; .*known: .*short-b"),
        ("short", [], "short: may be each of .*; name more of it"),
        ("short-b", ["--also", tmp_path / "empty"], "--also .*/empty: holds no results of any sweep; run a sweep"),
    ):
        assert_one_sentence(s3ray("diff", usual.study, b, "--storage", tmp_path, *more), message)
