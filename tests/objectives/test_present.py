"""Losses where samples lack modalities: those of the samples that can be compared, and nothing of the others."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from s3ray.objectives.contrastive import coherence_loss, info_nce, representation_loss
from s3ray.objectives.routing import (
    RoutingStatistics,
    global_entropy_loss,
    importance_loss,
    load_loss,
    local_entropy_loss,
)
from s3ray.objectives.selection import Positives, compactness, minimality_loss, sufficiency_loss, sup_con

TAU = 0.3
LABELS = torch.tensor([2, 7, 0, 2, 0, 2, 7, 7])
# Of three modalities, eight samples: none lacks any, some do, one is had by one sample alone, one by nobody.
CASES = {
    "all": ["11111111"] * 3,
    "one lacks one": ["11111111", "11111111", "01111111"],
    "some": ["10110111", "11011101", "01101110"],
    "one has it": ["11111111", "00100000", "11111101"],
    "nobody has it": ["11111111", "00000000", "11011101"],
    "no two meet": ["11100000", "00011100", "00000011"],
}
every_case = pytest.mark.parametrize("case", CASES)


def _present(case: str) -> list[Tensor]:
    return [torch.tensor([flag == "1" for flag in row]) for row in CASES[case]]


@pytest.fixture
def z() -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    return [torch.randn(8, 3, dtype=torch.float64, generator=source, requires_grad=True) for _ in range(3)]


def _mean(terms: list[float]) -> float:
    return sum(terms) / len(terms) if terms else 0.0


@every_case
def test_contrastive_losses_are_those_of_the_pairs_that_exist(case: str, z: list[Tensor]) -> None:
    present = _present(case)
    own, across = [], []
    for m, other in itertools.product(range(3), repeat=2):
        both = present[m] & present[other]
        if both.any():
            (own if m == other else across).append(
                info_nce(z[m][both], z[2 - other if m == other else other][both], TAU).item()
            )
    views = z[::-1]
    assert representation_loss(z, views, TAU, present).item() == pytest.approx(sum(own) / 3, rel=1e-12)
    assert coherence_loss(z, TAU, present).item() == pytest.approx(sum(across) / 6, rel=1e-12)


def _naive_sup_con(a: Tensor, b: Tensor, has_a: Tensor, has_b: Tensor, without_itself: bool) -> list[float]:
    """Per anchor that has the one modality and a positive that has the other."""
    a, b = (x / x.norm(dim=1, keepdim=True) for x in (a.detach(), b.detach()))
    losses = []
    for i in torch.nonzero(has_a)[:, 0].tolist():
        others = [j for j in torch.nonzero(has_b)[:, 0].tolist() if not (without_itself and j == i)]
        denominator = sum(math.exp(float(a[i] @ b[j]) / TAU) for j in others)
        logs = [float(a[i] @ b[s]) / TAU - math.log(denominator) for s in others if LABELS[s] == LABELS[i]]
        losses += [-_mean(logs)] if logs else []
    return losses


@every_case
@pytest.mark.parametrize("positives", ["all", "others"])
def test_sufficiency_is_of_anchors_that_have_positives(case: str, positives: Positives, z: list[Tensor]) -> None:
    present = _present(case)
    terms = []
    for m, other in itertools.product(range(3), repeat=2):
        without = positives == "others" and m == other
        if losses := _naive_sup_con(z[m], z[other], present[m], present[other], without):
            terms.append(_mean(losses))
    loss = sufficiency_loss(z, LABELS, TAU, positives=positives, present=present)
    assert loss.item() == pytest.approx(sum(terms) / 9, rel=1e-12)


@every_case
def test_minimality_is_of_samples_whose_class_has_a_mean(case: str, z: list[Tensor]) -> None:
    present = _present(case)
    terms = []
    for (a, has_a), (b, has_b) in itertools.product(zip(z, present, strict=True), repeat=2):
        a, b = (x / x.norm(dim=1, keepdim=True) for x in (a.detach(), b.detach()))
        losses = []
        for i in torch.nonzero(has_a)[:, 0].tolist():
            members = b[has_b & (LABELS[i] == LABELS)]
            if len(members):
                losses.append(-float(a[i] @ (members.mean(0) / members.mean(0).norm())))
        if losses:
            terms.append(_mean(losses))
    assert minimality_loss(z, LABELS, present).item() == pytest.approx(sum(terms) / 9, rel=1e-12)


def test_where_nothing_is_missing_they_are_what_they_are_without_being_told(z: list[Tensor]) -> None:
    present = _present("all")
    for told, untold in (
        (representation_loss(z, z[::-1], TAU, present), representation_loss(z, z[::-1], TAU)),
        (coherence_loss(z, TAU, present), coherence_loss(z, TAU)),
        (sufficiency_loss(z, LABELS, TAU, present=present), sufficiency_loss(z, LABELS, TAU)),
        (minimality_loss(z, LABELS, present), minimality_loss(z, LABELS)),
    ):
        assert told.item() == pytest.approx(untold.item(), rel=1e-12)


@every_case
def test_what_is_missing_gets_gradient_0_and_the_rest_that_of_the_pairs_alone(case: str, z: list[Tensor]) -> None:
    """Whatever stands in the place of what is missing."""
    present = _present(case)
    places = torch.stack(present)[:, :, None].to(torch.float64)
    for loss in (
        lambda z: representation_loss(z, z[::-1], TAU, [p & q for p, q in zip(present, present[::-1], strict=True)]),
        lambda z: coherence_loss(z, TAU, present),
        lambda z: sufficiency_loss(z, LABELS, TAU, present=present),
        lambda z: sufficiency_loss(z, LABELS, TAU, positives="others", present=present),
        lambda z: minimality_loss(z, LABELS, present),
    ):
        gradients = torch.autograd.grad(loss(z), z)
        zeroed = [(z_BD.detach() * place).requires_grad_() for z_BD, place in zip(z, places, strict=True)]
        again = torch.autograd.grad(loss(zeroed), zeroed)
        for gradient, other, has_B in zip(gradients, again, present, strict=True):
            assert torch.isfinite(gradient).all()
            assert not gradient[~has_B].any()
            torch.testing.assert_close(gradient, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("having", ["11000000", "10000000", "00000000"])
def test_the_others_weigh_the_same_however_few_have_a_modality(having: str, z: list[Tensor]) -> None:
    """The gradient of the first two modalities is that of losses over all three, whoever has the third."""
    views = [x.detach().flip(0) for x in z]
    told = [*_present("all")[:2], torch.tensor([flag == "1" for flag in having])]
    whole = torch.autograd.grad(representation_loss(z, views, TAU), z)
    some = torch.autograd.grad(representation_loss(z, views, TAU, told), z)
    for gradient, expected in zip(some[:2], whole[:2], strict=True):
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-14)
    (pair,) = torch.autograd.grad(coherence_loss(z[:2], TAU), z[:1])
    nobody = [*_present("all")[:2], torch.zeros(8, dtype=torch.bool)]
    (alone,) = torch.autograd.grad(coherence_loss(z, TAU, nobody), z[:1])
    torch.testing.assert_close(6 * alone, 2 * pair, rtol=1e-12, atol=1e-14)


def test_of_nobody_they_are_0_with_gradient_0(z: list[Tensor]) -> None:
    nobody = [torch.zeros(8, dtype=torch.bool)] * 3
    for loss in (
        representation_loss(z, z, TAU, nobody),
        coherence_loss(z, TAU, nobody),
        sufficiency_loss(z, LABELS, TAU, present=nobody),
        minimality_loss(z, LABELS, nobody),
    ):
        assert loss.item() == 0.0
        assert not any(gradient.any() for gradient in torch.autograd.grad(loss, z))


def test_pairs_of_one_class_alone_have_no_other_positives(z: list[Tensor]) -> None:
    """One sample has each modality: within a modality it has no other, so no direction is left."""
    one = [torch.arange(8) == 3] * 3
    within = sufficiency_loss(z[:1], LABELS, TAU, positives="others", present=one[:1])
    assert within.item() == 0.0
    # Across modalities the same sample is the positive, alone among all: log 1.
    assert sufficiency_loss(z, LABELS, TAU, present=one).item() == pytest.approx(0.0, abs=1e-12)
    assert sup_con(z[0][3:4], z[0][3:4], LABELS[3:4], TAU).item() == pytest.approx(0.0, abs=1e-12)
    assert compactness(z[0][3:4], z[0][3:4], LABELS[3:4]).item() == pytest.approx(-1.0)


def test_auxiliary_losses_of_no_tokens_are_0() -> None:
    packed = torch.zeros(2, 10, dtype=torch.float64, requires_grad=True)  # two layers of four experts
    for term in (importance_loss, load_loss, local_entropy_loss, global_entropy_loss):
        loss = term(RoutingStatistics.unpack(packed))
        (gradient,) = torch.autograd.grad(loss, packed)
        assert loss.item() == 0.0
        assert torch.isfinite(gradient).all()
