"""The crossed analysis: by hand, against the one-way tests that it holds, and by simulation of its promised rates."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from s3ray.results.controlled import controlled
from s3ray.results.crossed import SAMPLES, SEEDS, Crossed, discordances, right, seeds_can_decide
from s3ray.results.exhibits.crossed import crossed_table
from s3ray.results.exhibits.verdicts import verdict_table
from s3ray.results.statistics import Difference, verdicts
from toy_configuration import TOY

UNCONTROLLED = controlled(pd.DataFrame(), pd.DataFrame())


def zero(S: int, N: int) -> pd.DataFrame:
    return pd.DataFrame(np.zeros((S, N), np.int8))


def of(differences: Any) -> Crossed:
    """From values of -1, 0 and 1."""
    d = np.asarray(differences)
    return Crossed.between(pd.DataFrame((d == 1).astype(np.int8)), pd.DataFrame((d == -1).astype(np.int8)))


def test_by_hand() -> None:
    # Sums of squares about the mean 1/2: seeds 3 ((2/3 - 1/2)² + (1/3 - 1/2)²) = 1/6, samples 2 (1/4 + 1/4) = 1,
    # total 6/4, so rest 1/3. A = 1/6, B = 1/2, E = 1/6: seeds show nothing of their own, so B alone, on 2 degrees.
    found = of([[1, 1, 0], [1, 0, 0]])
    assert (found.seeds, found.samples, found.difference.mean) == (2, 3, 0.5)
    assert found.difference.error == pytest.approx(math.sqrt(1 / 2 / 6))
    assert found.difference.freedom == pytest.approx(2)
    assert (found.from_seeds, found.from_samples, found.from_both) == pytest.approx((0, 1 / 18, 1 / 36))
    assert found.reversed.difference.mean == -0.5
    # Both show effects of their own. Seeds have 5/9, 3/9 and 1/9 of nine samples: A = 9 · 2 (2/9)² / 2 = 4/9.
    d = np.array([[1, 1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0]])
    A, B = 9 * d.mean(1).var(ddof=1), 3 * d.mean(0).var(ddof=1)
    E = (26 * d.var(ddof=1) - 2 * A - 8 * B) / 16
    assert [A, B > E > 0] == [pytest.approx(4 / 9), True]
    assert A > E
    found = of(d)
    assert found.difference.error == pytest.approx(math.sqrt((A + B - E) / 27))
    assert found.difference.freedom == pytest.approx((A + B - E) ** 2 / (A**2 / 2 + B**2 / 8 + E**2 / 16))
    parts = np.array([A - E, B - E, E]) / 27
    assert (found.from_seeds, found.from_samples, found.from_both) == pytest.approx(tuple(parts))
    assert sum(parts) == pytest.approx(found.difference.error**2)


def values(S: int, N: int, seed: float = 0.0, sample: float = 0.0, noise: float = 1.0, shift: float = 0.0) -> Any:
    """Seeds × samples of right and wrong at two settings: a probit, whose effects have these deviations."""
    return next(_data(np.random.default_rng(0), 1, S, N, seed, sample, noise, shift))


def _data(generator: Any, R: int, S: int, N: int, seed: float, sample: float, noise: float, shift: float = 0.0) -> Any:
    total = math.sqrt(2 + seed**2 + sample**2 + noise**2)  # with the two parts that both settings share
    base = stats.norm.ppf(0.8)
    for _ in range(R):
        shared_SN = generator.normal(size=N) + generator.normal(size=(S, N))
        settings = []
        for mean in (stats.norm.ppf(0.8 + shift), base):
            own = seed * generator.normal(size=(S, 1)) + sample * generator.normal(size=N)
            own = own + noise * generator.normal(size=(S, N))
            settings.append(pd.DataFrame((mean * total + shared_SN + own > 0).astype(np.int8)))
        yield tuple(settings)


def test_one_seed_is_the_paired_t_test_over_samples_and_one_sample_that_over_seeds() -> None:
    first, second = values(1, 200)
    t, p = stats.ttest_rel(first.iloc[0], second.iloc[0])
    found = Crossed.between(first, second)
    assert found.difference.mean / found.difference.error == pytest.approx(t)
    assert (found.difference.p_nonzero(), found.difference.freedom) == (pytest.approx(p), 199)
    assert np.isnan([found.from_seeds, found.from_samples, found.from_both]).all()
    assert found.decided_by() in ("", SEEDS)
    first, second = values(40, 1)
    found = Crossed.between(first, second)
    assert found.difference.p_nonzero() == pytest.approx(stats.ttest_rel(first[0], second[0])[1])
    assert found.difference.freedom == 39


def test_where_only_one_of_them_has_effects_the_other_test_remains() -> None:
    # Samples agree over seeds, but for two: the t test over samples is left.
    d = np.array([[1, 1, 1, 0, 0, -1, 0, 0], [1, 1, 0, 1, 0, -1, 0, 0], [1, 1, 1, 0, 0, -1, 0, 0]])
    found = of(d)
    assert found.difference.p_nonzero() == pytest.approx(stats.ttest_1samp(d.mean(axis=0), 0).pvalue)
    assert (found.difference.freedom, found.from_seeds) == (pytest.approx(7), 0)
    # Samples that show nothing of their own leave the t test over seeds.
    d = np.array([[1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0, 1]])
    found = of(d)
    assert found.difference.p_nonzero() == pytest.approx(stats.ttest_1samp(d.mean(axis=1), 0).pvalue)
    assert (found.difference.freedom, found.from_samples) == (pytest.approx(2), 0)


def test_a_single_discordance_is_a_single_one_of_all_values() -> None:
    # All three mean squares are 1 / (S N): nothing is a seed's or a sample's own.
    for S, N in ((3, 300), (5, 4000), (3, 686), (2, 138)):
        lone = np.zeros((S, N))
        lone[1, N // 2] = 1
        found = of(lone).difference
        assert found.mean == pytest.approx(found.error, rel=1e-6)
        assert found.freedom == pytest.approx((S - 1) * (N - 1))


def test_equal_arrays_have_no_error() -> None:
    right_SN = pd.DataFrame(np.random.default_rng(0).integers(0, 2, (3, 500), dtype=np.int8))
    for rows in (right_SN, right_SN[:1]):
        same = Crossed.between(rows, rows)
        assert (same.difference.mean, same.difference.error, same.difference.p_nonzero()) == (0, 0, 1)
        assert same.difference.interval(0.95) == (0, 0)
        assert same.p_within(0.01) < 0.05
        assert same.decided_by() == ""
    # Gained everywhere is a coincidence of what was looked at, not certainty.
    assert of(np.ones((3, 4))).difference.error == pytest.approx(1 / (4 * math.sqrt(6 * 3)))


def test_none_one_and_missing_seeds() -> None:
    first, second = values(4, 50)
    with_holes = Crossed.between(first.loc[[3, 1, 0]], second.loc[[0, 1, 2, 3]])
    assert with_holes == Crossed.between(first.loc[[3, 1, 0]], second.loc[[3, 1, 0]])
    assert with_holes.seeds == 3
    for nothing in (Crossed.between(first[:2], second[2:]), Crossed.between(right(pd.DataFrame()), second)):
        assert nothing.seeds == 0
        assert np.isnan([nothing.difference.mean, nothing.difference.p_nonzero(), nothing.p_within(0.01)]).all()
        assert nothing.decided_by() == ""
    single = Crossed.between(first.iloc[:1, :1], second.iloc[:1, :1])
    assert math.isnan(single.difference.error)
    assert discordances(first[:2], second[2:]).empty
    with pytest.raises(ValueError, match="50 and 49 samples"):
        Crossed.between(first, second.iloc[:, 1:])


def test_discordances_and_their_exact_mid_p() -> None:
    first, second = zero(4, 12), zero(4, 12)
    first.loc[0, :7], second.loc[0, 10:] = 1, 1  # 8 gained, 2 lost
    first.loc[1, :2], second.loc[1, 3:5] = 1, 1  # 3 and 3
    first.loc[2, :4] = 1  # 5 and 0
    found = discordances(first, second)
    assert found["gained"].tolist() == [8, 3, 5, 0]
    assert found["lost"].tolist() == [2, 3, 0, 0]
    # Two-sided exact p less the probability of what was seen: of 10, (1 + 10) / 2^10 and half of 45 / 2^10, doubled.
    assert found["p"].tolist() == pytest.approx([2 * (11 + 45 / 2) / 1024, 1, 1 / 32, 1])
    exact = stats.binomtest(2, 10).pvalue
    assert found["p"][0] == pytest.approx(exact - stats.binom.pmf(2, 10, 0.5))


def test_an_interaction_is_the_difference_of_differences() -> None:
    (a, b), (c, d) = (next(_data(np.random.default_rng(k), 1, 3, 400, 0, 0.3, 0.5)) for k in (1, 2))
    found = Crossed.interaction(a, b, c, d)
    mean = (a.to_numpy(int) - b.to_numpy(int) - c.to_numpy(int) + d.to_numpy(int)).mean()
    assert found.difference.mean == pytest.approx(mean)
    # The same shift on both sides is none.
    assert Crossed.interaction(a, b, a, b).difference.error == 0
    assert Crossed.interaction(a, b, c, c) == Crossed.between(a, b)
    assert Crossed.interaction(a[:2], b, c, d[1:]).seeds == 1


def test_no_difference_on_few_samples_is_no_proof_of_none() -> None:
    # Zero of n differ although one in a hundred does: probability .99^n, 5 % at n = 299; by the normal law 268.
    assert of(np.zeros((3, 267))).p_within(0.01) > 0.05
    assert of(np.zeros((3, 268))).p_within(0.01) < 0.05
    # Where the margin is not rare, the crossed error alone decides.
    found = Crossed.between(*values(3, 4000))
    assert found.p_within(0.05) == found.difference.p_within(0.05)


def test_what_would_decide() -> None:
    # Samples agree over seeds: as many seeds as one likes are of no help.
    samples = of(np.tile([1] * 12 + [-1] * 8 + [0] * 180, (3, 1)))
    assert not samples.seeds_suffice()
    assert samples.decided_by() == SAMPLES
    assert samples.reversed.decided_by() == ""  # of the other sign
    # Seeds differ, samples don't: only seeds help.
    generator = np.random.default_rng(0)
    seeds = of(generator.random((3, 2000)) < np.array([[0.01], [0.15], [0.07]]))
    assert not seeds.samples_suffice()
    assert seeds.decided_by() == SEEDS
    # Nothing of their own, and too little of both: either helps. Much of each: neither alone does.
    noise = np.zeros((3, 200))
    for seed in range(3):  # 6 gained, 4 lost, no sample twice
        noise[seed, 20 * seed :][:10] = [1] * 6 + [-1] * 4
    assert of(noise).decided_by() == f"{SEEDS} or {SAMPLES}"
    each = np.tile([1] * 6 + [-1] * 5 + [0] * 29, (3, 1))
    each[0, 11:25], each[1, 11:21] = 1, -1
    assert of(each).decided_by() == f"{SEEDS} and {SAMPLES}"
    assert of(np.tile([1] * 100 + [0] * 100, (3, 1))).decided_by() == ""  # shown


EFFECTS: dict[str, tuple[float, float, float]] = {  # deviations of seeds, samples and the rest
    "none of seeds": (0, 0.5, 0.5),
    "large of seeds": (0.4, 0.3, 0.5),
    "none of samples": (0.02, 0, 0.7),
    "none": (0, 0, 0.7),
    "sparse": (0, 0.02, 0.02),
}


@pytest.mark.slow
@pytest.mark.parametrize(("S", "N"), [(3, 300), (5, 300), (3, 4000), (5, 4000)])
@pytest.mark.parametrize("effects", EFFECTS)
def test_no_more_than_the_promised_share_of_nulls_is_rejected(effects: str, S: int, N: int) -> None:
    repeats = 400 if N == 300 else 150
    pairs = _data(np.random.default_rng(S * N), repeats, S, N, *EFFECTS[effects])
    found = np.mean([Crossed.between(*pair).difference.p_nonzero() < 0.05 for pair in pairs])
    assert 0.005 <= found <= 0.08 + 3 * math.sqrt(0.08 * 0.92 / repeats)


@pytest.mark.slow
@pytest.mark.parametrize("S", [3, 5])
def test_intervals_hold_the_true_difference(S: int) -> None:
    pairs = list(_data(np.random.default_rng(S), 600, S, 300, 0.1, 0.3, 0.5, shift=0.05))
    intervals = np.array([Crossed.between(*pair).difference.interval(0.95) for pair in pairs])
    held = np.mean((intervals[:, 0] <= 0.05) & (intervals[:, 1] >= 0.05))
    assert held == pytest.approx(0.95, abs=0.03 + 3 * math.sqrt(0.05 * 0.95 / 600))


@pytest.mark.slow
def test_the_tests_over_seeds_alone_and_over_samples_alone_keep_no_promise() -> None:
    """What is tested on the same samples only says nothing of others; and the other way round."""
    by_seeds, by_crossed = [], []
    for first, second in _data(np.random.default_rng(0), 400, 5, 300, 0, 0.7, 0.05):
        over_seeds = Difference.paired(first.mean(axis=1), second.mean(axis=1), 1 / 300)
        by_seeds.append(over_seeds.p_nonzero() < 0.05)
        by_crossed.append(Crossed.between(first, second).difference.p_nonzero() < 0.05)
    assert np.mean(by_seeds) > 0.12 > 1.5 * np.mean(by_crossed)  # 20 and 5 in 100
    by_samples, by_crossed = [], []
    for first, second in _data(np.random.default_rng(0), 200, 5, 300, 0.4, 0.3, 0.5):
        by_samples.append(stats.ttest_rel(first.mean(axis=0), second.mean(axis=0)).pvalue < 0.05)
        by_crossed.append(Crossed.between(first, second).difference.p_nonzero() < 0.05)
    assert np.mean(by_samples) > 0.5 > 5 * np.mean(by_crossed)


@pytest.mark.slow
def test_a_true_difference_of_the_margin_is_rarely_called_flat() -> None:
    generator = np.random.default_rng(0)
    # One in a hundred is gained; at some samples by all seeds, or by each where it will.
    for common in (True, False):
        gained = (generator.random((1 if common else 3, 300)) < 0.01 for _ in range(800))
        flat = np.mean([of(np.broadcast_to(d, (3, 300))).p_within(0.01) < 0.05 for d in gained])
        assert flat <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 800)


def curve(test: dict[float, Any], **labels: Any) -> pd.DataFrame:
    """Rows of one curve from {ratio: seeds × samples}; on validation .5 is best."""
    lines = []
    for ratio, array in test.items():
        for seed, own in enumerate(np.asarray(array)):
            common = TOY | labels | {"preservation_ratio": ratio, "seed": seed, "samples": len(own)}
            packed = np.packbits(own.astype(bool)).tobytes()
            lines.append(common | {"split": "valid", "accuracy": float(ratio == 0.5), "correct": None})
            lines.append(common | {"split": "test", "accuracy": own.mean(), "correct": packed})
    return pd.DataFrame(lines)


def test_bits_of_rows_are_unpacked() -> None:
    array = np.random.default_rng(0).integers(0, 2, (3, 13))
    rows = curve({1.0: array})
    test = rows[rows["split"] == "test"]
    assert right(test).to_numpy().tolist() == array.tolist()
    assert right(test[::-1]).equals(right(test))
    assert right(test[1:2]).index.tolist() == [1]
    for without in (test[:0], test.drop(columns="correct"), rows[rows["split"] == "valid"]):
        assert right(without).empty
    with pytest.raises(ValueError, match="one line a seed"):
        right(pd.concat([test, test]))
    with pytest.raises(ValueError, match="one line a seed"):
        right(test.assign(samples=[13, 13, 12]))
    with pytest.raises(ValueError, match="17 samples take 3 bytes"):
        right(test.assign(samples=17))


def test_the_table_has_a_line_per_curve_that_says_which_samples_are_right() -> None:
    before = np.zeros((3, 400))
    after = before.copy()
    after[:, :12], before[:, 12:20] = 1, 1  # the same 12 gained and 8 lost at every seed
    rows = pd.concat(
        [
            curve({1.0: before, 0.5: after}),
            curve({1.0: before[:1], 0.5: after[:1]}, granularity=4),
            curve({1.0: before, 0.5: before}, granularity=2),
            curve({1.0: before, 0.5: after}, granularity=1).drop(columns="correct"),
            curve({1.0: before}, branch="none"),
        ]
    )
    table = crossed_table(rows).set_index("χ")
    assert list(table.index) == [8, 4, 2]
    line = table.loc[8]
    error = (after - before)[0].std(ddof=1) / math.sqrt(400)
    reach = 100 * stats.t.ppf(0.975, 399) * error
    assert (line["gain over p 1"], line["95 % interval"]) == ("+1.00", f"{1 - reach:+.2f} to {1 + reach:+.2f}")
    assert line["p-value"] == f"{2 * stats.t.sf(0.01 / error, 399):.2g}"
    assert (line["gained / lost"], line["seeds / samples / both (%)"]) == ("36 / 24", "0 / 100 / 0")
    assert line["needed"] == SAMPLES
    assert (line["seeds"], line["test samples"], line["p*"]) == (3, 400, "0.5")
    # Over seeds alone the same gain is beyond doubt, if for these 400 samples only.
    half = 100 * stats.t.ppf(0.975, 2) / 400 / math.sqrt(6 * 3)
    assert line["over seeds alone"] == f"+1.00 ± {half:.2f}"
    one = table.loc[4]
    assert (one["95 % interval"], one["over seeds alone"]) == (line["95 % interval"], "+1.00")
    assert (one["seeds / samples / both (%)"], one["needed"]) == ("", SEEDS)
    same = table.loc[2]
    assert (same["95 % interval"], same["gained / lost"], same["needed"]) == ("", "0 / 0", "")
    assert float(same["p-value of flat"]) < 0.05
    assert crossed_table(rows[:0]).empty


def test_an_undecided_verdict_asks_for_test_samples_where_seeds_cannot_decide() -> None:
    def at(*gained: int) -> Any:
        """400 samples, of which seeds get so many of the first right, and all of the last 200."""
        return np.stack([(np.arange(400) < n) | (np.arange(400) >= 200) for n in gained])

    # From p = 1 to the smallest ratio accuracy falls by 30, 30 and 10 samples of 400: two more seeds would show it.
    full, star, smallest = at(30, 40, 30), at(80, 100, 30), at(0, 10, 20)
    rows = curve({1.0: full, 0.5: star, 0.1: smallest})
    judged = verdicts(rows).iloc[0]
    assert judged["verdict"] == "undecided"
    claim = judged["claim"]
    assert (claim, judged["more_seeds"]) == ("falling", 2)
    table = verdict_table(rows, UNCONTROLLED)
    assert table["needed"].tolist() == ["2 more seeds for falling"]
    assert seeds_can_decide(rows, judged)
    # As much, but made of many gained and many lost, the same at every seed: the noise of samples.
    full[:, 300:350], star[:, 350:], smallest[:, 250:300] = False, False, False
    rows = curve({1.0: full, 0.5: star, 0.1: smallest})
    judged = verdicts(rows).iloc[0]
    assert (judged["verdict"], judged["claim"]) == ("undecided", claim)
    assert not seeds_can_decide(rows, judged)
    assert verdict_table(rows, UNCONTROLLED)["needed"].tolist() == [f"{SAMPLES} for {claim}"]
    # One seed's bits alone, too, and rows that do not say which samples are right, leave the words of seeds.
    single = rows.assign(correct=rows["correct"].where(rows["seed"] == 0))
    assert verdict_table(single, UNCONTROLLED)["needed"].tolist() == table["needed"].tolist()
    assert verdict_table(rows.drop(columns="correct"), UNCONTROLLED)["needed"].tolist() == table["needed"].tolist()
