"""Several perceptrons, of which each token passes through a few."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ExpertWidth = Literal["same_total", "same_active"]


class RouterLosses(NamedTuple):
    """What keeps a router healthy: scalars over the real tokens, zero where there are none.

    Parameters
    ----------
    balance
        ``E sum_i f_i P_i`` with f_i the share of the assignments that expert i of E got and P_i its mean probability:
        1 when all get the same, E when one gets everything.
    z
        Mean squared logarithm of the sum of the router's exponentials.
    """

    balance: Tensor
    z: Tensor


class MixtureOfExperts(nn.Module):
    """Perceptrons with one hidden layer (GELU), the experts, of which a router gives each token the `top_k` best.

    The outcome is the sum of the outcomes of the token's experts, weighted by the router's softmax, renormalised over
    the chosen. No token is dropped, however uneven the choice: the assignments are sorted by expert, each expert
    multiplies its own stretch of rows, and the rows are taken back to their tokens. Sums run in a fixed order, hence
    a rerun gives the same bits.

    Parameters
    ----------
    width
        Width of tokens.
    hidden
        Width of the hidden layer of the dense perceptron that this takes the place of.
    n_experts
        Number of experts.
    top_k
        Experts of a token.
    expert_width
        ``"same_active"``: experts `hidden` / `top_k` wide, so a token costs what it cost in the dense perceptron, with
        `n_experts` / `top_k` times its parameters. ``"same_total"``: `hidden` / `n_experts` wide, so the parameters
        are as many as the dense one's, and a token costs `top_k` / `n_experts` of it.

    Source: router of Jiang et al., Mixtral of experts, 2024; balance of Fedus et al., Switch transformers, 2022, there
    for one expert a token; z of Zoph et al., ST-MoE, 2022.
    """

    def __init__(
        self, width: int, hidden: int, *, n_experts: int, top_k: int, expert_width: ExpertWidth = "same_active"
    ) -> None:
        super().__init__()
        if not 1 <= top_k <= n_experts:
            raise ValueError(f"`top_k` must be from 1 to `n_experts`, found {top_k} and {n_experts}.")
        if expert_width not in ("same_total", "same_active"):
            raise ValueError(f"`expert_width` must be 'same_total' or 'same_active', found {expert_width!r}.")
        name, parts = ("top_k", top_k) if expert_width == "same_active" else ("n_experts", n_experts)
        if hidden < 1 or hidden % parts:
            raise ValueError(
                f"`hidden` must be a multiple of `{name}` for `expert_width={expert_width!r}`, "
                f"found {hidden} and {parts}."
            )
        self.n_experts, self.top_k = n_experts, top_k
        self.router = nn.Linear(width, n_experts, bias=False)
        self.weight_1, self.bias_1 = _stacked(n_experts, width, hidden // parts)
        self.weight_2, self.bias_2 = _stacked(n_experts, hidden // parts, width)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> tuple[Tensor, RouterLosses]:
        """Outcome, and losses of the router.

        Parameters
        ----------
        x
            Tokens ``(..., width)``.
        mask
            Boolean ``(...)``, True for real tokens; None: all are. Padding goes to no expert, counts in no loss, and
            gives zero.

        Returns
        -------
        Outcome ``(..., width)`` in the type of `x`, and the losses.
        """
        if mask is None:
            outcome, losses = self._mix(x.reshape(-1, x.shape[-1]))
            return outcome.view(x.shape), losses
        if mask.dtype != torch.bool or mask.shape != x.shape[:-1]:
            raise ValueError(
                f"`mask` must be boolean of shape {tuple(x.shape[:-1])}, "
                f"found {mask.dtype} of shape {tuple(mask.shape)}."
            )
        real, losses = self._mix(x[mask])
        outcome = torch.zeros_like(x)
        outcome[mask] = real
        return outcome, losses

    def n_parameters_active(self) -> int:
        """Number of parameters that one token meets: the router and its experts."""
        experts = sum(p.numel() for p in (self.weight_1, self.bias_1, self.weight_2, self.bias_2))
        return self.router.weight.numel() + experts // self.n_experts * self.top_k

    def _mix(self, tokens: Tensor) -> tuple[Tensor, RouterLosses]:
        """Outcome ``(n, width)`` of real tokens ``(n, width)``."""
        logits = self._logits(tokens)
        probabilities = logits.softmax(-1)  # (n, experts)
        weights, chosen = probabilities.topk(self.top_k)  # (n, k)
        weights = weights / weights.sum(-1, keepdim=True)

        order = chosen.flatten().argsort(stable=True)  # assignment token * k + slot at each place, expert by expert
        place = order.argsort()  # and the place of each assignment
        load = torch.bincount(chosen.flatten(), minlength=self.n_experts)
        sent = _Sent.apply(tokens, order, place, self.top_k)
        returned = _Sent.apply(self._experts(sent, load.tolist()), place, order, 1)
        outcome = (returned.view(*chosen.shape, tokens.shape[-1]) * weights.unsqueeze(-1)).sum(1).to(tokens.dtype)

        n = max(len(tokens), 1)
        share = load.to(logits.dtype) / (n * self.top_k)
        balance = self.n_experts * (share * (probabilities.sum(0) / n)).sum()
        return outcome, RouterLosses(balance, logits.logsumexp(-1).square().sum() / n)

    def _logits(self, tokens: Tensor) -> Tensor:
        """In float32 at least, also under autocast: rounding would change which experts are chosen."""
        dtype = torch.promote_types(tokens.dtype, torch.float32)
        with torch.autocast(tokens.device.type, enabled=False):
            return F.linear(tokens.to(dtype), self.router.weight.to(dtype))

    def _experts(self, rows: Tensor, load: list[int]) -> Tensor:
        """Each stretch of `rows` through its expert, ``(n k, width)`` to the same."""
        # Unbound at once: the gradient of a stack indexed expert by expert would be a whole stack an expert.
        parameters = zip(*(p.unbind() for p in (self.weight_1, self.bias_1, self.weight_2, self.bias_2)), strict=True)
        return torch.cat(
            [
                torch.addmm(b_2, F.gelu(torch.addmm(b_1, part, w_1)), w_2)
                for part, (w_1, b_1, w_2, b_2) in zip(rows.split(load), parameters, strict=True)
            ]
        )


class _Sent(torch.autograd.Function):
    """Rows ``(n, width)``, each `copies` times, in the given order; torch's own gradient would scatter and add."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.shape = (len(x), copies, x.shape[1])
        return x.index_select(0, order // copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        return gradients[0].index_select(0, inverse).view(ctx.shape).sum(1), None, None, None


def _stacked(n_experts: int, n_in: int, n_out: int) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights ``(experts, in, out)`` and biases ``(experts, out)``, drawn as torch's linear layers draw theirs."""
    limit = 1 / math.sqrt(n_in)
    weight = torch.empty(n_experts, n_in, n_out).uniform_(-limit, limit)
    return nn.Parameter(weight), nn.Parameter(torch.empty(n_experts, n_out).uniform_(-limit, limit))
