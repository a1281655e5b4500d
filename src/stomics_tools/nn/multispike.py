"""Spikes of several levels in one pass, and the binary events that they stand for."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


def _counts(x: Tensor, n_levels: int) -> Tensor:
    top = n_levels - 1
    return x.mul(top).clamp_(0, top).add_(0.5).floor_()


class _Multispike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, n_levels: int) -> Tensor:
        ctx.save_for_backward((x > 0) & (x < 1))
        return _counts(x, n_levels).div_(n_levels - 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Any) -> tuple[Tensor, None]:
        (inside,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grads[0] * inside, None


def multispike(x: Tensor, n_levels: int = 5) -> Tensor:
    """Spike counts of a membrane in units of the largest: ``floor(clamp(L x, 0, L) + 1/2) / L``, ``L = n_levels - 1``.

    Parameters
    ----------
    x
        Membrane, floating point, any shape.
    n_levels
        Number of levels, silence included.

    Returns
    -------
    Values 0, 1/L, ..., 1 in the shape and dtype of `x`; halves go up. The surrogate gradient is 1 where ``0 < x < 1``
    and 0 elsewhere.

    Source: QSD-Transformer (Qiu et al., 2025), whose form has 5 levels.
    """
    return _Multispike.apply(x, n_levels)


class Multispike(nn.Module):
    """The activation :func:`multispike`, without state.

    Parameters
    ----------
    n_levels
        Number of levels, silence included; at least 2.
    """

    def __init__(self, n_levels: int = 5) -> None:
        super().__init__()
        if n_levels < 2:
            raise ValueError(f"`n_levels` must be at least 2, found {n_levels}.")
        self.n_levels = n_levels

    def forward(self, x: Tensor) -> Tensor:
        """Spikes 0, 1/L, ..., 1 in the shape of `x`."""
        return multispike(x, self.n_levels)

    def counts(self, x: Tensor) -> Tensor:
        """Whole numbers 0 to L of spikes in the shape and dtype of `x`, without gradient."""
        return _counts(x.detach(), self.n_levels)

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return f"n_levels={self.n_levels}"


def unroll(counts: Tensor, n_steps: int) -> Tensor:
    """Binary events whose sum over the steps is `counts`.

    Since ``sum_t W e_t = W sum_t e_t``, a linear map may be run on the events one step after the other, its bias added
    once: this is what makes the multi-level pass spike-driven.

    Parameters
    ----------
    counts
        Whole numbers 0 to `n_steps`, any shape.
    n_steps
        Number of time steps.

    Returns
    -------
    0 and 1, ``(n_steps, *counts.shape)``, dtype of `counts`; the events of a count come first.
    """
    if counts.numel() and counts.max() > n_steps:
        raise ValueError(f"`n_steps`: {n_steps} steps cannot hold a count of {counts.max().item():g}.")
    steps = torch.arange(n_steps, device=counts.device).view(-1, *[1] * counts.dim())
    return (counts > steps).to(counts.dtype)
