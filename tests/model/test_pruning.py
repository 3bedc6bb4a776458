"""Which pairs are kept, by every rule, against Python's own sort."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from s3ray.model import Keep, Pruning, Rule, Source, ThresholdPruning
from s3ray.model.draws import seed_of

CPU = torch.device("cpu")
RULES: tuple[Rule, ...] = get_args(Rule)


def _pruning(rule: Rule, ratio: float, seed: int = 7) -> Pruning:
    return Pruning(ratio=ratio, pool=4, rule=rule, seed=seed if rule == "random" else None)


def _pairs(keep: Keep, tokens: int, top_k: int = 2) -> set[int]:
    """What is kept where all weights are equal."""
    return set(keep.pairs(torch.ones(tokens, top_k), _never).tolist())


def _never() -> Tensor:
    raise AssertionError("only the contribution rule computes every expert")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("tenths", [0, 1, 5, 10])
@pytest.mark.parametrize(("tokens", "top_k"), [(1, 1), (1, 3), (10, 3)])
def test_pairs_against_a_sort(rule: Rule, tenths: int, tokens: int, top_k: int) -> None:
    """Weights and norms of three values each: most of them are ties, of which the earlier pair is kept."""
    source = torch.Generator().manual_seed(tokens * top_k)
    weights_TK = torch.randint(1, 4, (tokens, top_k), generator=source).double() / 4
    norms_P = torch.randint(1, 4, (tokens * top_k,), generator=source).double()
    keep = _pruning(rule, tenths / 10).keep("left", 0, CPU)
    got = keep.pairs(weights_TK, lambda: norms_P if rule == "contribution" else _never())
    weights = weights_TK.flatten().tolist()
    drawn = Source(seed_of("pruning", 7, "left", 0)).uniform(tokens, top_k).flatten().tolist()
    values = {
        "ranked": weights,
        "random": drawn,
        "smallest": [-weight for weight in weights],
        "contribution": [weight * norm for weight, norm in zip(weights, norms_P.tolist(), strict=True)],
    }[rule]
    count = -(-len(weights) * tenths // 10)
    expected = sorted(sorted(range(len(weights)), key=lambda pair: (-values[pair], pair))[:count])
    assert got.tolist() == expected


def test_random_pairs_are_the_same_again_and_others_elsewhere() -> None:
    """40 of 80 pairs are hardly ever the same twice by chance."""

    def kept(seed: int = 1, modality: str = "left", sample: int = 0) -> set[int]:
        return _pairs(_pruning("random", 0.5, seed).keep(modality, sample, CPU), 40)

    assert kept() == kept()
    others = [kept(seed=2), kept(modality="right"), kept(sample=4)]
    keep = _pruning("random", 0.5, 1).keep("left", 0, CPU)
    layers = [_pairs(keep, 40) for _ in range(3)]
    assert layers[0] == kept()
    assert len({frozenset(pairs) for pairs in (*layers, *others)}) == 6


def test_random_keeps_every_pair_equally_often() -> None:
    """Of 400 draws of 4 of 10 pairs: 160 each, with a deviation of 9.8."""
    counts = torch.zeros(10)
    for sample in range(400):
        counts[list(_pairs(_pruning("random", 0.4).keep("left", sample, CPU), 5))] += 1
    assert counts.sum() == 1600
    assert ((counts - 160).abs() < 4 * 9.8).all()


@pytest.mark.parametrize(("rule", "seed"), [("random", None), ("ranked", 0), ("smallest", 0), ("contribution", 0)])
def test_the_random_rule_has_a_seed_and_no_other_has(rule: Rule, seed: int | None) -> None:
    with pytest.raises(AssertionError, match="has a seed"):
        Pruning(ratio=0.5, pool=4, rule=rule, seed=seed)


@pytest.mark.parametrize(
    ("tenths", "threshold", "kept"),
    [
        (1, 0.45, {0}),
        (2, 0.3, {0, 1, 2, 3}),  # three equal ones: with the first of them all are kept
        (4, 0.3, {0, 1, 2, 3}),
        (5, 0.15, {0, 1, 2, 3, 4}),
        (10, 0.0, set(range(10))),  # weights of 0 are no smaller than any
    ],
)
def test_a_fixed_threshold_lies_halfway_to_what_is_left_out(tenths: int, threshold: float, kept: set[int]) -> None:
    weights_TK = torch.tensor([0.5, 0.4, 0.4, 0.4, 0.2, 0.1, 0.0, 0.0, 0.0, 0.0], dtype=torch.float64).view(5, 2)
    pruning = Pruning(ratio=tenths / 10, pool=5)
    least = pruning.fixed_thresholds({"left": [weights_TK], "right": [weights_TK[:0]]})
    assert least == {"left": pytest.approx(threshold)}
    fixed = ThresholdPruning(ratio=tenths / 10, pool=1, least={"left": [0.0, least["left"]]})
    keep = fixed.keep("left", 0, CPU)
    assert len(keep.pairs(weights_TK, _never)) == 10  # of the first layer everything
    assert set(keep.pairs(weights_TK, _never).tolist()) == kept


def test_where_no_pair_is_kept_no_threshold_is_needed() -> None:
    assert _pairs(ThresholdPruning(ratio=0.0, pool=1, least={}).keep("left", 0, CPU), 3) == set()
    assert ThresholdPruning(ratio=1.0, pool=1, least={}).keep("left", 0, CPU).everything
