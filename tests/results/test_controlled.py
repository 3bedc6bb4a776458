"""A curve beside its controls, on a few accuracies that are followed by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from s3ray.results.controlled import conclusion, controlled, warnings
from s3ray.results.crossed import Crossed
from s3ray.results.statistics import CONFIGURATION
from toy_configuration import TOY

DIFFERENCES = ("over_random", "over_smallest", "over_contribution", "over_no_expert", "full_over_no_expert")
DIFFERENCES += ("over_untrained", "full_over_untrained", "interaction")
TOLD = ("", "_low", "_high", "_p", "_seeds", "_samples")
Accuracies = Mapping[float, Sequence[float]]  # per ratio, those of seeds 0, 1, …
T_2 = 4.302653  # 0.975 quantile of Student's t with two degrees of freedom


def ranked(test: Accuracies, **place: Any) -> pd.DataFrame:
    """A curve whose p* is 0.5, or the largest ratio below 1 where that was not measured."""
    valid = {ratio: [0.9 if ratio == 0.5 else 0.1] * len(values) for ratio, values in test.items()}
    return pd.concat([_measured(valid, "valid", **place), _measured(test, "test", **place)], ignore_index=True)


def control(name: str, test: Accuracies, **place: Any) -> pd.DataFrame:
    """Its validation accuracies are no part of anything."""
    valid = {ratio: [0.99] * len(values) for ratio, values in test.items()}
    frames = [_measured(valid, "valid", **place), _measured(test, "test", **place)]
    return pd.concat(frames, ignore_index=True).assign(control=name)


def _measured(accuracies: Accuracies, split: str, **place: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {**TOY, **place, "preservation_ratio": ratio, "split": split, "seed": seed, "accuracy": accuracy}
        for ratio, values in accuracies.items()
        for seed, accuracy in enumerate(values)
    )


def both(*frames: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(frames, ignore_index=True)


def about(mean: float) -> list[float]:
    """Deviation 0.01."""
    return [mean - 0.01, mean, mean + 0.01]


ROWS = both(
    ranked({1.0: [0.70, 0.72, 0.74], 0.5: [0.80, 0.82, 0.84], 0.1: [0.6] * 3}),
    ranked({1.0: [0.70, 0.72, 0.74], 0.5: [0.70, 0.71, 0.72], 0.1: [0.5] * 3}, branch="none"),
)
CONTROLS = both(
    control("random", {0.5: [0.75, 0.76, 0.77], 0.1: [0.7] * 3}),
    control("smallest", {0.5: [0.78, 0.79, 0.80], 0.1: [0.7] * 3}),
    control("contribution", {0.5: [0.79, 0.81, 0.82], 0.1: [0.7] * 3}),
    control("no expert", {0.0: [0.61, 0.62, 0.63]}),
    control("untrained", {1.0: [0.31, 0.32, 0.33]}),
    control("random", {0.5: [0.68, 0.69, 0.70], 0.1: [0.7] * 3}, branch="none"),
)


def test_every_column_by_hand() -> None:
    judged = controlled(ROWS, CONTROLS)
    told = [f"{name}{suffix}" for name in DIFFERENCES for suffix in TOLD]
    means = ["n", "p_star", "test", "test_full", "no_expert", "untrained"]
    assert list(judged.columns) == [*CONFIGURATION, *means, *told, "experts", "training", "router"]
    curve = judged.set_index("branch").loc["suff+min"]
    assert {name: curve[name] for name in CONFIGURATION if name != "branch"} == {
        name: value for name, value in TOY.items() if name != "branch"
    }
    assert (curve["n"], curve["p_star"]) == (3, 0.5)
    assert list(curve[["test", "test_full", "no_expert", "untrained"]]) == pytest.approx([0.82, 0.72, 0.62, 0.32])
    # Differences of every seed, all but one with deviation 0.01.
    expected = {
        "over_random": 0.06,  # 5, 6 and 7 points
        "over_smallest": 0.03,  # 2, 3, 4
        "over_no_expert": 0.20,  # 19, 20, 21
        "full_over_no_expert": 0.10,  # 9, 10, 11
        "over_untrained": 0.50,  # 49, 50, 51
        "full_over_untrained": 0.40,  # 39, 40, 41
        "interaction": 0.04,  # (5, 6, 7) - (2, 2, 2)
    }
    for name, mean in expected.items():
        half_width = T_2 * 0.01 / math.sqrt(3)
        bounds = [mean, mean - half_width, mean + half_width]
        assert list(curve[[name, f"{name}_low", f"{name}_high"]]) == pytest.approx(bounds, abs=1e-7), name
        # With two degrees of freedom P(|T| > t) = 1 - t / √(t² + 2).
        t = mean / (0.01 / math.sqrt(3))
        assert curve[f"{name}_p"] == pytest.approx(1 - t / math.sqrt(t * t + 2), abs=1e-9), name
    # 1, 1 and 2 points: deviation 1/√3, error 1/3, t = 4.
    assert curve["over_contribution"] == pytest.approx(0.04 / 3)
    assert curve["over_contribution_high"] == pytest.approx(0.04 / 3 + T_2 * 0.01 / 3)
    assert curve["over_contribution_p"] == pytest.approx(1 - 4 / math.sqrt(18))
    assert (curve["experts"], curve["training"], curve["router"]) == ("yes", "yes", "yes")
    # These rows do not say which samples are right: seeds alone are random.
    assert [curve[f"{name}_seeds"] for name in DIFFERENCES] == [3] * len(DIFFERENCES)
    assert curve[[f"{name}_samples" for name in DIFFERENCES]].isna().all()


def test_before_selection_there_is_no_interaction() -> None:
    curve = controlled(ROWS, CONTROLS).set_index("branch").loc["none"]
    assert curve["over_random"] == pytest.approx(0.02)
    assert curve[["interaction", "interaction_low", "interaction_high", "interaction_p"]].isna().all()
    assert curve[["over_smallest", "over_no_expert", "no_expert", "untrained"]].isna().all()
    assert curve["experts"] == ""  # nobody measured p = 0 here


def test_an_accuracy_is_known_to_one_sample_and_the_interaction_to_twice_that_variance() -> None:
    """Three equal differences on a hundred samples are a coincidence, not certainty."""
    rows = both(ranked({1.0: [0.7] * 3, 0.5: [0.8] * 3}), ranked({1.0: [0.7] * 3, 0.5: [0.7] * 3}, branch="none"))
    controls = both(control("random", {0.5: [0.75] * 3}), control("random", {0.5: [0.69] * 3}, branch="none"))
    curve = controlled(rows.assign(samples=100), controls.assign(samples=100)).set_index("branch").loc["suff+min"]
    step = 0.01 / math.sqrt(6)
    assert curve["over_random_high"] - curve["over_random"] == pytest.approx(T_2 * step / math.sqrt(3), rel=1e-5)
    reach = curve["interaction_high"] - curve["interaction"]
    assert (curve["interaction"], reach) == pytest.approx((0.04, T_2 * step * math.sqrt(2 / 3)), rel=1e-5)


def judged(over_no_expert: Sequence[float], over_random: Sequence[float], margin: float = 1.0) -> pd.Series[Any]:
    """A curve that lies so many points above p = 0 at p = 1, and above random pruning at p*."""
    seeds = len(over_no_expert)
    rows = ranked({1.0: [0.7] * seeds, 0.5: [0.8] * seeds})
    controls = both(
        control("no expert", {0.0: [0.7 - d / 100 for d in over_no_expert]}),
        control("random", {0.5: [0.8 - d / 100 for d in over_random]}),
    )
    return controlled(rows, controls, margin).iloc[0]


@pytest.mark.parametrize(
    ("points", "answer"),
    [
        ([4.0, 5.0, 6.0], "yes"),
        ([0.2, 0.3, 0.4], "yes"),  # less than the margin, and above all the same
        ([-0.1, 0.0, 0.1], "no"),
        ([-6.0, -5.0, -4.0], "hurt"),  # below p = 0
        ([0.0, 2.0, 4.0], "undecided"),
        ([-3.0, 0.0, 3.0], "undecided"),
    ],
)
def test_whether_experts_matter(points: list[float], answer: str) -> None:
    assert judged(points, [0.0, 2.0, 4.0])["experts"] == answer


@pytest.mark.parametrize(
    ("points", "answer"),
    [
        ([4.0, 5.0, 6.0], "yes"),
        ([-0.1, 0.0, 0.1], "no"),  # equivalent
        ([-6.0, -5.0, -4.0], "no"),  # below
        ([0.0, 2.0, 4.0], "undecided"),
        ([-4.0, -2.0, 0.0], "undecided"),
    ],
)
def test_whether_it_is_the_routers_doing(points: list[float], answer: str) -> None:
    assert judged([0.0, 2.0, 4.0], points)["router"] == answer


def test_the_margin_is_in_points() -> None:
    doubtful = [-1.0, 0.0, 1.0]
    assert list(judged(doubtful, doubtful)[["experts", "router"]]) == ["undecided"] * 2
    assert list(judged(doubtful, doubtful, margin=3.0)[["experts", "router"]]) == ["no"] * 2


def test_one_seed_without_samples_has_no_interval_and_decides_nothing() -> None:
    curve = controlled(ROWS[ROWS["seed"] == 0], CONTROLS).set_index("branch").loc["suff+min"]
    assert (curve["n"], *curve[["experts", "training", "router"]]) == (1, *["one seed"] * 3)
    assert curve["over_random"] == pytest.approx(0.05)
    assert curve["interaction"] == pytest.approx(0.03)
    for name in DIFFERENCES:
        assert curve[[f"{name}_low", f"{name}_high", f"{name}_p"]].isna().all(), name


@pytest.mark.parametrize("lacking", ["rows", "controls"])
def test_only_seeds_that_both_have_are_compared(lacking: str) -> None:
    """Seeds 1 and 2 are left: 6 and 7 points over random pruning."""
    tables = {"rows": ROWS, "controls": CONTROLS}
    tables[lacking] = tables[lacking][tables[lacking]["seed"] > 0]
    curve = controlled(**tables).set_index("branch").loc["suff+min"]
    assert curve["over_random"] == pytest.approx(0.065)
    assert curve["interaction"] == pytest.approx(0.045)
    # t(0.975, 1) = 12.7062; the deviation of 6 and 7 is 1/√2, the error a half.
    assert curve["over_random_high"] == pytest.approx(0.065 + 12.7062 * 0.005, abs=1e-6)
    assert curve["n"] == (2 if lacking == "rows" else 3)  # seeds of the curve


def test_means_are_of_the_seeds_that_n_counts() -> None:
    """As in every other table of p* (`best_ratios`)."""
    lost = (ROWS["preservation_ratio"] == 0.5) & (ROWS["seed"] == 0) & (ROWS["split"] == "test")
    curve = controlled(ROWS[~lost], CONTROLS).set_index("branch").loc["suff+min"]
    assert curve["n"] == 2
    assert (curve["test"], curve["test_full"]) == pytest.approx((0.83, 0.73))


def test_an_accuracy_that_is_not_known_is_none() -> None:
    controls = CONTROLS.copy()
    controls.loc[(controls["control"] == "random") & (controls["seed"] == 0), "accuracy"] = math.nan
    assert controlled(ROWS, controls).set_index("branch").loc["suff+min", "over_random"] == pytest.approx(0.065)


@pytest.mark.parametrize("controls", [pd.DataFrame(), CONTROLS.iloc[:0]])
def test_without_controls_there_is_nothing_but_columns(controls: pd.DataFrame) -> None:
    nothing = controlled(ROWS, controls)
    assert nothing.empty
    assert list(nothing.columns) == list(controlled(ROWS, CONTROLS).columns)


@pytest.mark.parametrize("branch", ["none", "suff+min"])
def test_controls_of_one_branch_say_nothing_of_the_other(branch: str) -> None:
    (curve,) = controlled(ROWS, CONTROLS[CONTROLS["branch"] == branch]).to_dict("records")
    assert curve["branch"] == branch
    assert curve["over_random"] == pytest.approx({"none": 0.02, "suff+min": 0.06}[branch])
    assert math.isnan(curve["interaction"])


def test_a_curve_that_was_not_measured_before_selection_has_no_interaction() -> None:
    (curve,) = controlled(ROWS[ROWS["branch"] == "suff+min"], CONTROLS).to_dict("records")
    assert math.isnan(curve["interaction"])
    assert curve["router"] == "yes"


def test_what_has_no_p_star_is_left_out() -> None:
    unpruned = ranked({1.0: [0.7] * 3}, dataset="unpruned")
    pruned_only = ranked({0.5: [0.7] * 3}, dataset="pruned only")
    floors = [control("no expert", {0.0: [0.6] * 3}, dataset=name) for name in ("unpruned", "pruned only")]
    assert set(controlled(both(ROWS, unpruned, pruned_only), both(CONTROLS, *floors))["dataset"]) == {"toy"}
    assert controlled(unpruned, floors[0]).empty


def test_a_control_at_other_ratios_than_p_star_is_none() -> None:
    (curve,) = controlled(ROWS, control("random", {0.4: about(0.7)})).to_dict("records")
    assert math.isnan(curve["over_random"])
    assert curve["router"] == ""


@pytest.mark.parametrize(
    "other", [{"dataset": "other"}, {"granularity": 2}, {"batch_size": 128}, {"scale": "paper"}], ids=str
)
def test_places_do_not_mix(other: dict[str, Any]) -> None:
    rows = both(ROWS, ranked({1.0: [0.5] * 3, 0.5: about(0.5)}, **other))
    controls = both(
        CONTROLS, control("random", {0.5: [0.49] * 3}, **other), control("no expert", {0.0: [0.2] * 3}, **other)
    )
    judged = controlled(rows, controls)
    pd.testing.assert_frame_equal(judged.iloc[:2], controlled(ROWS, CONTROLS))
    (curve,) = judged.iloc[2:].to_dict("records")
    assert {name: curve[name] for name in other} == other
    assert (curve["over_random"], curve["full_over_no_expert"]) == pytest.approx((0.01, 0.3))


def samples(*right: int, of: int = 400) -> np.ndarray[Any, Any]:
    """Seeds × samples: of each seed so many of the first are right."""
    return np.stack([np.arange(of) < n for n in right])


def bits(frame: pd.DataFrame, arrays: Mapping[tuple[str, float], Any]) -> pd.DataFrame:
    """Test rows of one control (or `ranked`) and ratio each get their accuracies from such an array."""

    def known(row: pd.Series[Any]) -> pd.Series[Any]:
        array = arrays[str(row.get("control", "ranked")), row["preservation_ratio"]][row["seed"]]
        packed = np.packbits(array).tobytes()
        return pd.Series({**row, "accuracy": array.mean(), "samples": len(array), "correct": packed})

    return both(frame[frame["split"] == "valid"], frame[frame["split"] == "test"].apply(known, axis=1))


def measured(arrays: Mapping[tuple[str, float], Any], branch: str = "suff+min") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows and controls of seeds × samples."""

    def frame(name: str) -> pd.DataFrame:
        own: Any = {ratio: [0.0] * len(array) for (control_, ratio), array in arrays.items() if control_ == name}
        return ranked(own, branch=branch) if name == "ranked" else control(name, own, branch=branch)

    names = dict.fromkeys(name for name, _ in arrays if name != "ranked")
    return bits(frame("ranked"), arrays), both(*(bits(frame(name), arrays) for name in names))


def test_where_rows_say_which_samples_are_right_those_are_random_as_well() -> None:
    """Two seeds, 11 and 21 points over random pruning: undecided by seeds alone, beyond doubt by samples."""
    gained, lost = np.zeros((2, 100), bool), np.zeros((2, 100), bool)
    gained[0, :38], lost[0, 38:65], gained[1, 50:90], lost[1, 90:], lost[1, :9] = True, True, True, True, True
    arrays = {
        ("ranked", 1.0): samples(80, 81, of=100),
        ("ranked", 0.5): ~lost,
        ("random", 0.5): ~gained,
        ("no expert", 0.0): samples(50, 50, of=100),
        ("untrained", 1.0): samples(95, 95, of=100),
    }
    rows, controls = measured(arrays)
    curve = controlled(rows, controls).iloc[0]
    expected = Crossed.between(pd.DataFrame(arrays["ranked", 0.5]), pd.DataFrame(arrays["random", 0.5]))
    low, high = expected.difference.interval(0.95)
    assert list(curve[[f"over_random{suffix}" for suffix in TOLD]]) == pytest.approx(
        [0.16, low, high, expected.difference.p_nonzero(), 2, 100]
    )
    assert (curve["router"], curve["experts"], curve["training"]) == ("yes", "yes", "hurt")
    seeds_alone = controlled(rows.drop(columns="correct"), controls).iloc[0]
    assert (seeds_alone["router"], seeds_alone["over_random"]) == ("undecided", pytest.approx(0.16))
    # Both sides must say so, of every seed that is compared.
    for frame in (controls, rows):
        one = frame["seed"] == 1
        frame.loc[one, "correct"] = None
        curve = controlled(rows, controls).iloc[0]
        assert (curve["router"], curve["over_random_seeds"]) == ("undecided", 2)
        assert math.isnan(curve["over_random_samples"])


def test_one_seed_has_an_interval_of_samples_and_decides_nothing() -> None:
    rows, controls = measured(
        {("ranked", 1.0): samples(280), ("ranked", 0.5): samples(300)}
        | {("random", 0.5): samples(236), ("no expert", 0.0): samples(290), ("untrained", 1.0): samples(200)}
    )
    curve = controlled(rows, controls).iloc[0]
    t = stats.ttest_rel(samples(300)[0].astype(int), samples(236)[0].astype(int)).confidence_interval()
    assert list(curve[["over_random_low", "over_random_high"]]) == pytest.approx([t.low, t.high])
    assert list(curve[["experts", "training", "router"]]) == ["one seed"] * 3
    assert conclusion(curve, "experts") == "experts are not shown to help (one seed)"
    assert conclusion(curve, "training") == ""


def test_few_samples_without_discordance_prove_nothing() -> None:
    """At a margin of one point at least 268 samples are needed (crossed.py)."""
    for of, answer in ((200, "undecided"), (400, "no")):
        same = samples(150, 150, 150, of=of)
        rows, controls = measured(
            dict.fromkeys(
                [("ranked", 1.0), ("ranked", 0.5), ("random", 0.5), ("no expert", 0.0), ("untrained", 1.0)], same
            )
        )
        curve = controlled(rows, controls).iloc[0]
        assert list(curve[["experts", "training", "router"]]) == [answer] * 3


def test_the_interaction_is_crossed_where_all_four_say_which_samples_are_right() -> None:
    after = {("ranked", 1.0): samples(280, 284, 282), ("ranked", 0.5): samples(300, 310, 305)}
    after[("random", 0.5)] = samples(236, 226, 230)
    before = {("ranked", 1.0): samples(270, 274, 272), ("ranked", 0.5): samples(280, 275, 285)}
    before[("random", 0.5)] = samples(260, 262, 265)
    (rows, controls), (earlier, chance) = measured(after), measured(before, branch="none")
    curve = controlled(both(rows, earlier), both(controls, chance)).set_index("branch").loc["suff+min"]
    sides = [pd.DataFrame(a) for own in (after, before) for a in (own["ranked", 0.5], own["random", 0.5])]
    expected = Crossed.interaction(*sides).difference
    assert (curve["interaction"], curve["interaction_p"]) == pytest.approx((expected.mean, expected.p_nonzero()))
    assert (curve["interaction_seeds"], curve["interaction_samples"]) == (3, 400)
    chance = chance.assign(correct=None)
    curve = controlled(both(rows, earlier), both(controls, chance)).set_index("branch").loc["suff+min"]
    assert curve["interaction"] == pytest.approx(expected.mean)
    assert math.isnan(curve["interaction_samples"])


@pytest.mark.parametrize(
    ("points", "experts", "training"),
    [
        ([4.0, 5.0, 6.0], "", ""),
        ([-0.1, 0.0, 0.1], "experts do not matter here; a pruning curve says nothing", "training gained nothing here"),
        ([-6.0, -5.0, -4.0], "experts hurt here; a pruning curve says nothing", "training hurt here"),
        (
            [-4.0, -2.0, 0.0],
            "experts are not shown to help (undecided)",
            "training is not shown to help (undecided)",
        ),
        ([0.0, 2.0, 4.0], "", ""),
    ],
)
def test_what_stands_before_a_shape(points: list[float], experts: str, training: str) -> None:
    floors = {ratio: [0.7 - d / 100 for d in points] for ratio in (0.0, 1.0)}
    controls = both(control("no expert", {0.0: floors[0.0]}), control("untrained", {1.0: floors[1.0]}))
    curve = controlled(ranked({1.0: [0.7] * 3, 0.5: [0.8] * 3}), controls).iloc[0]
    assert (conclusion(curve, "experts"), conclusion(curve, "training")) == (experts, training)
    told = warnings(controlled(ranked({1.0: [0.7] * 3, 0.5: [0.8] * 3}), controls))
    assert told.count("toy, χ 8, batch size 64, suff+min: ") == bool(experts) + bool(training)


def test_a_warning_has_its_numbers() -> None:
    arrays = {("ranked", 1.0): samples(264, 265, of=300), ("ranked", 0.5): samples(264, 265, of=300)}
    rows, controls = measured(arrays | {("untrained", 1.0): samples(283, 284, of=300)})
    curve = controlled(rows, controls)
    low, high = (100 * curve[f"full_over_untrained_{end}"].iloc[0] for end in ("low", "high"))
    assert warnings(curve) == (
        "toy, χ 8, batch size 64, suff+min: untrained encoders reach 94.5 and the trained 88.2 "
        f"(-6.3 [{low:.1f}, {high:.1f}], n = 2 seeds, 300 samples): training hurt here."
    )
    one = rows["seed"] == 0
    assert "one seed, 300 samples): training is not shown to help (one seed)." in warnings(
        controlled(rows[one], controls)
    )
    assert warnings(controlled(pd.DataFrame(), pd.DataFrame())) == ""


EFFECTS = {  # deviations of seeds, samples and the rest, as in test_crossed.py
    "none of seeds": (0.0, 0.5, 0.5),
    "large of seeds": (0.4, 0.3, 0.5),
    "none of samples": (0.02, 0.0, 0.7),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("effects", "S"), [("none of seeds", 2), ("none of seeds", 3), ("large of seeds", 3), ("none of samples", 5)]
)
def test_answers_from_samples_are_wrong_as_rarely_as_the_level_says(effects: str, S: int) -> None:
    """Ranked and random, p = 1 and p = 0, trained and untrained are the same but for noise: no answer but no.

    One-sided, so of 100 that are equal 5 may be called better and, of floors, 5 worse.
    """
    draws, N = 80, 300
    seed, sample, noise = EFFECTS[effects]
    generator = np.random.default_rng(S)
    total = math.sqrt(2 + seed**2 + sample**2 + noise**2)

    def equal(count: int) -> list[Any]:
        shared = generator.normal(size=N) + generator.normal(size=(S, N)) + stats.norm.ppf(0.8) * total
        own = (seed * generator.normal(size=(S, 1)) + sample * generator.normal(size=N) for _ in range(count))
        return [shared + each + noise * generator.normal(size=(S, N)) > 0 for each in own]

    names = [("ranked", 1.0), ("ranked", 0.5), ("random", 0.5), ("no expert", 0.0), ("untrained", 1.0)]
    answers = [controlled(*measured(dict(zip(names, equal(len(names)), strict=True)))).iloc[0] for _ in range(draws)]
    # 5 of 100 (8 with effects of seeds, by crossed.py's own simulations) and three binomial deviations.
    most = 0.08 + 3 * math.sqrt(0.08 * 0.92 / draws)
    for name, wrong in (("router", "yes"), ("experts", "yes"), ("experts", "hurt"), ("training", "hurt")):
        assert np.mean([answer[name] == wrong for answer in answers]) <= most, (name, wrong)


@pytest.mark.slow
def test_errors_are_as_rare_as_the_level_says() -> None:
    """Noise of one point. Random pruning equals ranked, and p = 1 lies exactly the margin above p = 0."""
    draws, rng = 200, np.random.default_rng(0)

    def noisy(mean: float) -> list[float]:
        return list(rng.normal(mean, 0.01, 3))

    answers = [
        controlled(
            ranked({1.0: noisy(0.7), 0.5: noisy(0.7)}, branch="none"),
            both(
                control("random", {0.5: noisy(0.7)}, branch="none"),
                control("no expert", {0.0: noisy(0.69)}, branch="none"),
            ),
        ).iloc[0]
        for _ in range(draws)
    ]
    # 5 of 100, and three binomial deviations of the share found in so many draws.
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / draws)
    for name, wrong in (("router", "yes"), ("experts", "no")):
        assert np.mean([answer[name] == wrong for answer in answers]) <= most, name
