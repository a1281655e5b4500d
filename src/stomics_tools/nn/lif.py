"""Leaky integrate-and-fire neurons over several time steps, with surrogate gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Surrogate = Literal["sigmoid", "atan", "rectangular"]


def _sigmoid(x: Tensor, sharpness: float) -> Tensor:
    s = torch.sigmoid(sharpness * x)
    return sharpness * s * (1 - s)


def _atan(x: Tensor, sharpness: float) -> Tensor:
    return sharpness / 2 / (1 + (math.pi / 2 * sharpness * x).square())


def _rectangular(x: Tensor, sharpness: float) -> Tensor:
    return sharpness * (x.abs() < 0.5 / sharpness).to(x)


_SLOPES: dict[str, tuple[Callable[[Tensor, float], Tensor], float]] = {
    "sigmoid": (_sigmoid, 4.0),
    "atan": (_atan, 2.0),
    "rectangular": (_rectangular, 1.0),
}


class _Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, surrogate: str, sharpness: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate, ctx.sharpness = surrogate, sharpness
        return (x >= 0).to(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * _SLOPES[ctx.surrogate][0](x, ctx.sharpness), None, None


def fire(x: Tensor, surrogate: Surrogate = "sigmoid", sharpness: float | None = None) -> Tensor:
    """Spikes: 1 where ``x >= 0``, else 0, with the gradient of a smooth function instead of the step's.

    Parameters
    ----------
    x
        Membrane less its threshold, any shape.
    surrogate
        Derivative, with ``a`` the `sharpness`: ``"sigmoid"``, ``a s (1 - s)`` with ``s = 1 / (1 + exp(-a x))``;
        ``"atan"``, ``a / 2 / (1 + (pi a x / 2)^2)``; ``"rectangular"``, ``a`` where ``|x| < 1 / (2 a)``. Each has the
        integral 1.
    sharpness
        4, 2 and 1 by default.

    Returns
    -------
    0 and 1 in the shape and dtype of `x`.

    Source: Neftci, Mostafa & Zenke (2019); the forms and defaults are those of SpikingJelly.
    """
    return _Fire.apply(x, surrogate, _SLOPES[surrogate][1] if sharpness is None else sharpness)


class LIFNode(nn.Module):
    """Leaky integrate-and-fire neurons.

    From the membrane ``V``, at rest before the first step, each step makes of its input ``X``

    ``H = V + (X - (V - V_rest)) / tau`` (or ``V - (V - V_rest) / tau + X``), the spikes ``S = 1[H >= V_th]``, and the next
    membrane ``V = (1 - S) H + S V_reset``, or ``V = H - S V_th`` where the reset is soft.

    ``V_rest`` is `v_reset`, and 0 where the reset is soft.

    Parameters
    ----------
    tau
        Time constant in steps, above 1.
    v_threshold
        Membrane at which a neuron fires.
    v_reset
        Where the membrane goes after a spike; None for a soft reset.
    decay_input
        Whether the input is divided by `tau` like the leak, the first form of ``H``.
    detach_reset
        Whether no gradient passes through the reset.
    surrogate, sharpness
        See :func:`fire`.

    Source: Gerstner & Kistler (2002); the discrete form is that of SpikingJelly (Fang et al., 2023).
    """

    def __init__(
        self,
        tau: float = 2.0,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        *,
        decay_input: bool = True,
        detach_reset: bool = False,
        surrogate: Surrogate = "sigmoid",
        sharpness: float | None = None,
    ) -> None:
        super().__init__()
        if not tau > 1:
            raise ValueError(f"`tau` must be above 1, found {tau}.")
        if v_reset is not None and not v_reset < v_threshold:
            raise ValueError(f"`v_reset` must be below `v_threshold`, found {v_reset} and {v_threshold}.")
        if surrogate not in get_args(Surrogate):
            raise ValueError(f"`surrogate` must be one of {list(get_args(Surrogate))}, found {surrogate!r}.")
        if sharpness is not None and not sharpness > 0:
            raise ValueError(f"`sharpness` must be above 0, found {sharpness}.")
        self.tau, self.v_threshold, self.v_reset = tau, v_threshold, v_reset
        self.decay_input, self.detach_reset = decay_input, detach_reset
        self.surrogate, self.sharpness = surrogate, sharpness

    def forward(self, x: Tensor) -> Tensor:
        """Spikes 0 and 1, ``(T, ...)``, of inputs ``(T, ...)``, from rest."""
        return self.steps(x)[0]

    def steps(self, x: Tensor, membrane: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Spikes, and the membrane after the last step, to go on from.

        Parameters
        ----------
        x
            Inputs ``(T, ...)``, floating point, one step at least.
        membrane
            ``(...)``, that before the first step; at rest by default.

        Returns
        -------
        Spikes ``(T, ...)`` and membrane ``(...)``.
        """
        rest = 0.0 if self.v_reset is None else self.v_reset
        v = torch.full_like(x[0], rest) if membrane is None else membrane
        spikes = []
        for now in x:
            leak = (rest - v) / self.tau
            h = v + leak + (now / self.tau if self.decay_input else now)
            s = fire(h - self.v_threshold, self.surrogate, self.sharpness)
            spikes.append(s)
            back = s.detach() if self.detach_reset else s
            v = h - back * self.v_threshold if self.v_reset is None else (1 - back) * h + back * self.v_reset
        return torch.stack(spikes), v

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return f"tau={self.tau}, v_threshold={self.v_threshold}, v_reset={self.v_reset}, surrogate={self.surrogate!r}"
