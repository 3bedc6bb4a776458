"""FactorCL, self-supervised (Liang et al. 2023): bounds on what the modalities share and what each has alone.

The lower bounds compare every x with all y, as the paper defines them; the authors' code compares every y with all x,
the softmax over the other axis of the scores. In expectation both bound the same information.

Shape suffixes: B samples, D width, H hidden units of a critic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from s3ray.configuration import check_whole
from s3ray.methods.method import Method
from s3ray.methods.prior import PriorModel, gather, two_views
from s3ray.model import ModelConfig, Ragged, S3Model
from s3ray.objectives.prior import club_bound, nce_bound
from s3ray.stages.training import Batch, Forward, Objective

# I(X1; X2), I(X1; X1'), I(X2; X2') and I(X1; X2 | X1', X2') from below, the first and the last also from above.
NCE_TERMS = ("nce", "nce_first", "nce_second", "nce_given_views")
CLUB_TERMS = ("club", "club_given_views")


class Critic(nn.Module):
    """f(x, y) of all pairs: an MLP on the concatenation, with two hidden layers as in the authors' code."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.enter = nn.Linear(2 * width, hidden)
        # No last bias: both bounds cancel a constant.
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1, bias=False))

    def forward(self, x_BD: Tensor, y_BD: Tensor) -> Tensor:
        """Scores (B, B)."""
        # The first layer is linear in the concatenation: its halves are computed per sample, not per pair.
        of_x_HD, of_y_HD = self.enter.weight.chunk(2, dim=1)
        hidden_BBH = (x_BD @ of_x_HD.T)[:, None] + (y_BD @ of_y_HD.T + self.enter.bias)
        scores_BB: Tensor = self.rest(hidden_BBH).squeeze(2)
        return scores_BB


class Term(nn.Module):
    """The critic of one bound and its own two-layer head per modality; one head if both sides are one modality's."""

    def __init__(self, width: int, hidden: int, *, heads: int = 2, given_views: bool = False) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(heads)
        )
        self.critic = Critic(2 * width if given_views else width, hidden)

    def forward(self, x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
        """Scores (B, B); each side is z (B, D), or z and the z of its augmented view to condition on it."""
        x_BD = torch.cat([self.heads[0](z_BD) for z_BD in x], dim=1)
        y_BD = torch.cat([self.heads[-1](z_BD) for z_BD in y], dim=1)
        scores_BB: Tensor = self.critic(x_BD, y_BD)
        return scores_BB


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorCLSettings:
    """What FactorCL's critics read.

    Attributes:
        critic_width: hidden units of a critic.
    """

    critic_width: int = 512

    def __post_init__(self) -> None:
        check_whole(self, "critic_width")


class FactorCL(PriorModel):
    """Six bounds on four informations; `emb` is the encoders' z, `proj` all heads' outputs."""

    def __init__(self, model: ModelConfig, settings: Any, features: Mapping[str, int], classes: int) -> None:
        super().__init__(model, settings, features, classes)
        D, H = model.width, settings.critic_width
        terms = {
            "nce": Term(D, H),
            "club": Term(D, H),
            "nce_first": Term(D, H, heads=1),
            "nce_second": Term(D, H, heads=1),
            "nce_given_views": Term(D, H, given_views=True),
            "club_given_views": Term(D, H, given_views=True),
        }
        self._terms = nn.ModuleDict(terms)

    @property
    def terms(self) -> Mapping[str, Term]:
        return cast(Mapping[str, Term], self._terms)

    def objectives(self) -> list[Objective]:
        """Per batch one step for encoders, heads and NCE critics, then one for the CLUB critics."""
        of_club = tuple(f"_terms.{term}.critic." for term in CLUB_TERMS)
        critics = {name: p for name, p in self.named_parameters() if name.startswith(of_club)}
        others = {name: p for name, p in self.named_parameters() if name not in critics}
        return [Objective(others, self.loss), Objective(critics, self.critic_loss)]

    def loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Minus the lower bounds, plus the upper ones."""
        z, z_view = gather(forward(two_views(batch), batch.draws))
        lower = {term: nce_bound(self.scores(term, z, z_view)) for term in NCE_TERMS}
        upper = {term: club_bound(self.scores(term, z, z_view)) for term in CLUB_TERMS}
        return torch.stack([*upper.values(), *(-bound for bound in lower.values())]).sum(), lower | upper

    def critic_loss(self, forward: Forward, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """CLUB is an upper bound if its critic is the best one of the lower bound."""
        z, z_view = gather(forward(two_views(batch), batch.draws))
        lower = {f"nce_of_{term}": nce_bound(self.scores(term, z, z_view)) for term in CLUB_TERMS}
        return -torch.stack(list(lower.values())).sum(), lower

    def scores(self, term: str, z: Sequence[Tensor], z_view: Sequence[Tensor]) -> Tensor:
        """A term's scores (B, B) of the modalities' z (B, D) and of those of their augmented view."""
        (z1, z2), (view1, view2) = z, z_view
        if term == "nce_first":
            sides = [z1], [view1]
        elif term == "nce_second":
            sides = [z2], [view2]
        elif term in ("nce_given_views", "club_given_views"):
            sides = [z1, view1], [z2, view2]
        else:
            sides = [z1], [z2]
        scores_BB: Tensor = self.terms[term](*sides)
        return scores_BB

    def parts(self, batch: Mapping[str, Ragged], output: str) -> list[Tensor]:
        z1, z2 = z = super().parts(batch, output)
        if output == "emb":
            return z
        of_first: list[Tensor] = [term.heads[0](z1) for name, term in self.terms.items() if name != "nce_second"]
        of_second: list[Tensor] = [term.heads[-1](z2) for name, term in self.terms.items() if name != "nce_first"]
        return of_first + of_second

    def encoders_alone(self, output: str) -> S3Model | None:
        return self.encoders if output == "emb" else None

    def used(self, output: str) -> list[nn.Module]:
        return super().used(output) + ([] if output == "emb" else [term.heads for term in self.terms.values()])


METHOD = Method(
    name="factorcl",
    version=1,
    outputs={"emb": "FactorCL-emb", "proj": "FactorCL-proj"},
    model=FactorCL,
    settings=FactorCLSettings,
    scales={"smoke": {"critic_width": 64}},
    modalities=(2, 2),
    passes=4.0,
)
