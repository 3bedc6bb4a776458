"""Fine-grained experts (Eqs. 18, 19) as stacked weights and a grouped matrix product.

Shape suffixes: T tokens, K top-k, P computed (token, expert) pairs, N experts, D width, E expert width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from s3ray.model.config import ModelConfig
from s3ray.model.pruning import Keep


def grouped_matmul(a_PD: Tensor, b_NDE: Tensor, ends_N: Tensor) -> Tensor:
    """Rows `ends[i-1]:ends[i]` of `a` times `b[i]`: (P, D) × (N, D, E) → (P, E).

    `torch.nn.functional.grouped_mm` takes no float64; there, the groups are multiplied one by one, so that
    equality tests can be exact. It has no gradient of no rows either.
    """
    if a_PD.dtype == torch.float64 or not len(a_PD):
        pieces = a_PD.tensor_split(ends_N.cpu()[:-1].long())
        return torch.cat([piece @ b for piece, b in zip(pieces, b_NDE, strict=True)])
    return F.grouped_mm(a_PD, b_NDE, offs=ends_N)


class _Dispatch(Function):
    """x_TD → one row per pair, sorted by expert. Its gradient gathers, where autograd would scatter."""

    @staticmethod
    def forward(ctx: Any, x_TD: Tensor, order_P: Tensor, inverse_P: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(order_P, inverse_P)
        ctx.top_k = top_k
        return x_TD.index_select(0, order_P // top_k)

    @staticmethod
    def backward(ctx: Any, grad_PD: Tensor) -> tuple[Tensor, None, None, None]:
        return _combine(grad_PD, *ctx.saved_tensors, ctx.top_k), None, None, None


class _Combine(Function):
    """The rows of all T·K pairs, sorted by expert → their sum per token: the transpose of `_Dispatch`."""

    @staticmethod
    def forward(ctx: Any, y_PD: Tensor, order_P: Tensor, inverse_P: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(order_P, inverse_P)
        ctx.top_k = top_k
        return y_PD.index_select(0, inverse_P).view(-1, top_k, y_PD.shape[1]).sum(1)

    @staticmethod
    def backward(ctx: Any, grad_TD: Tensor) -> tuple[Tensor, None, None, None]:
        return _dispatch(grad_TD, *ctx.saved_tensors, ctx.top_k), None, None, None


_dispatch: Callable[..., Tensor] = _Dispatch.apply
_combine: Callable[..., Tensor] = _Combine.apply


class Experts(nn.Module):
    """N experts e_i(x) = W2 GELU(W1 LN(x) + b1) + b2, each with a LayerNorm of its own on its input (ours).

    The LayerNorm's statistics do not depend on the expert, so tokens come in already standardised and the
    expert's scale and shift fold into W1 and b1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        N, D, E = config.experts, config.width, config.expert_width
        self.norm_weight_ND = nn.Parameter(torch.ones(N, D))
        self.norm_bias_ND = nn.Parameter(torch.zeros(N, D))
        # Divided in place: on the meta device, where models are only counted, `/` imports torch's compiler (1.5 s).
        self.w1_NDE = nn.Parameter(torch.empty(N, D, E).uniform_(-1, 1).div_(math.sqrt(D)))
        self.b1_NE = nn.Parameter(torch.empty(N, E).uniform_(-1, 1).div_(math.sqrt(D)))
        self.w2_NED = nn.Parameter(torch.empty(N, E, D).uniform_(-1, 1).div_(math.sqrt(E) / config.expert_gain))
        self.b2_ND = nn.Parameter(torch.empty(N, D).uniform_(-1, 1).div_(math.sqrt(E) / config.expert_gain))

    def forward(
        self, n_TD: Tensor, weights_TK: Tensor, experts_TK: Tensor, keep: Keep | None = None
    ) -> tuple[Tensor, int]:
        """Weighted sum of the routed experts (Eq. 18) and the number of pairs that were computed.

        Args:
            n_TD: standardised tokens (zero mean, unit variance over D).
            weights_TK: routing weights.
            experts_TK: routed experts.
            keep: the share of pairs that is computed; None: every pair.
        """
        T, K = experts_TK.shape
        kept = (
            None if keep is None or keep.everything else keep.pairs(weights_TK, lambda: self._norms(n_TD, experts_TK))
        )
        every_pair, pairs = kept is None, T * K
        expert_P, weight_P = experts_TK.reshape(-1), weights_TK.reshape(-1)
        if kept is None:
            expert_P, order_P = expert_P.sort(stable=True)
        else:
            pairs = len(kept)  # fewer where weights are NaN, which are larger than nothing
            if pairs == 0:
                return torch.zeros_like(n_TD), 0
            expert_P, order = expert_P[kept].sort(stable=True)
            order_P = kept[order]
        weight_P = weight_P.index_select(0, order_P)
        token_P = order_P // K

        ends_N = torch.bincount(expert_P, minlength=len(self.b1_NE)).cumsum(0).to(torch.int32)
        w1_NDE = self.norm_weight_ND[:, :, None] * self.w1_NDE
        b1_NE = self.b1_NE + torch.einsum("nd,nde->ne", self.norm_bias_ND, self.w1_NDE)

        if every_pair:
            inverse_P = torch.empty_like(order_P)
            inverse_P[order_P] = torch.arange(pairs, device=order_P.device)
            x_PD = _dispatch(n_TD, order_P, inverse_P, K)
        else:
            x_PD = n_TD.index_select(0, token_P)
        h_PE = F.gelu(grouped_matmul(x_PD, w1_NDE, ends_N) + F.embedding(expert_P, b1_NE))
        y_PD = grouped_matmul(h_PE * weight_P[:, None], self.w2_NED, ends_N)
        if every_pair:
            y_TD = _combine(y_PD, order_P, inverse_P, K)
        else:
            y_TD = torch.zeros_like(n_TD).index_add(0, token_P, y_PD)
        # Σ g_i b2_i over a token's computed experts is one thin product of the gates with the biases.
        gates_TN = n_TD.new_zeros(T, len(self.b2_ND)).index_put((token_P, expert_P), weight_P)
        return y_TD + gates_TN @ self.b2_ND, pairs

    def _norms(self, n_TD: Tensor, experts_TK: Tensor) -> Tensor:
        """Norm of each pair's e_i(x) (T·K,): a rank at a time, every token has weight 1."""
        ones_T1 = n_TD.new_ones(len(n_TD), 1)
        ranks = [self(n_TD, ones_T1, experts_T1)[0].norm(dim=1) for experts_T1 in experts_TK.split(1, dim=1)]
        return torch.stack(ranks, dim=1).reshape(-1)
