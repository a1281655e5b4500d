"""Weights on a grid of 2 to 8 bits whose step is learned, one per output channel."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn import functional as F

MIN_BITS, MAX_BITS = 2, 8
_LOG_LIMIT = 60.0  # e^-60 and e^60 are finite and positive in float32 and bfloat16

Bits = int | Literal["learned"] | None
"""Bits of a weight: 2 to 8, None for floating point, "learned" for :class:`LearnedWidthQuantizer`."""


def grid_limits(bits: int) -> tuple[int, int]:
    """Lowest and highest integer of a grid, ``(-2^(b-1), 2^(b-1) - 1)``.

    Parameters
    ----------
    bits
        From 2 to 8; anything else is a ``ValueError``.
    """
    if isinstance(bits, bool) or not isinstance(bits, int) or not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"`bits` must be an integer from {MIN_BITS} to {MAX_BITS}, found {bits!r}.")
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


class _LSQ(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, step: Tensor, bits: int) -> Tensor:
        ctx.save_for_backward(weight, step)
        ctx.limits = grid_limits(bits)
        return (weight / step).clamp_(*ctx.limits).round_().mul_(step)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, *grads: Any) -> tuple[Tensor, Tensor, None]:
        weight, step = ctx.saved_tensors  # type: ignore[attr-defined]
        low, high = ctx.limits  # type: ignore[attr-defined]
        scaled = weight / step
        inside = (scaled > low) & (scaled < high)
        slope = torch.where(inside, scaled.round() - scaled, scaled.clamp(low, high))
        grad_scale = 1 / math.sqrt(weight.numel() / step.numel() * high)
        return grads[0] * inside, (grads[0] * slope).sum_to_size(step.shape) * grad_scale, None


def lsq(weight: Tensor, step: Tensor, bits: int) -> Tensor:
    """Fake quantization with a learned step: ``round(clamp(w / s, -Q_N, Q_P)) s``.

    Here ``Q_N = 2^(b-1)`` and ``Q_P = 2^(b-1) - 1``. The gradient to the weight is 1 inside of the limits and 0
    outside. That to the step is ``-w/s + round(w/s)`` inside, ``-Q_N`` and ``Q_P`` outside, summed over the channel
    and multiplied by ``1 / sqrt(n Q_P)`` with ``n`` the number of weights of a channel.

    Parameters
    ----------
    weight
        ``(out, ...)``, floating point.
    step
        Positive, ``(out, 1, ...)``.
    bits
        From 2 to 8.

    Returns
    -------
    Multiples of the step, in the shape of `weight`.

    Source: Esser et al., Learned step size quantization, 2020, equations 1 to 3.
    """
    return _LSQ.apply(weight, step, bits)


def _mean_size(weight: Tensor) -> Tensor:
    """Mean absolute weight of each channel ``(out, 1, ...)``; that of a usual first weight where all are zero."""
    mean = weight.detach().abs().mean(dim=tuple(range(1, weight.dim())), keepdim=True)
    usual = 1 / math.sqrt(weight[0].numel())
    return torch.where(mean > torch.finfo(mean.dtype).tiny, mean, torch.full_like(mean, usual))


def initial_step(weight: Tensor, bits: int) -> Tensor:
    """First step of each channel, ``2 mean |w| / sqrt(Q_P)``, never zero.

    Parameters
    ----------
    weight
        ``(out, ...)``; a channel of zeros gets the step of a usual first weight.
    bits
        From 2 to 8.

    Returns
    -------
    ``(out, 1, ...)``, detached.

    Source: Esser et al., 2020, section 2.1, there of the whole tensor.
    """
    return 2 * _mean_size(weight) / math.sqrt(grid_limits(bits)[1])


def _positive(log: Tensor) -> Tensor:
    return log.clamp(-_LOG_LIMIT, _LOG_LIMIT).exp()


class WeightQuantizer(nn.Module):
    """Fake quantization of one weight, :func:`lsq`; its step is learned as a logarithm, hence always positive.

    Parameters
    ----------
    weight
        The weight ``(out, ...)`` that the step is fitted to at once (:func:`initial_step`); it is not kept.
    bits
        From 2 to 8.
    """

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.log_step = nn.Parameter(initial_step(weight, bits).log())

    @property
    def step(self) -> Tensor:
        """Distance of neighbouring values of the grid, ``(out, 1, ...)``."""
        return _positive(self.log_step)

    def forward(self, weight: Tensor) -> Tensor:
        """The nearest values of the grid, in the shape of `weight`."""
        return lsq(weight, self.step, self.bits)

    @torch.no_grad()
    def integers(self, weight: Tensor) -> Tensor:
        """The values of the grid in units of the step, int8 in the shape of `weight`."""
        return (weight / self.step).clamp_(*grid_limits(self.bits)).round_().to(torch.int8)

    @torch.no_grad()
    def refit(self, weight: Tensor) -> None:
        """Set the step of each channel to that of least squared error among a few, the present one included.

        The others are the smallest step that clips nothing and fractions of it down to 1/32, twelve to a halving.
        """
        low, high = grid_limits(self.bits)
        dims = tuple(range(1, weight.dim()))
        widest = torch.maximum(weight.amax(dims, keepdim=True) / high, weight.amin(dims, keepdim=True) / low)
        best = self.step
        least = (lsq(weight, best, self.bits) - weight).square().sum(dims, keepdim=True)
        for k in range(61):
            step = widest * 2 ** (-k / 12)
            error = (lsq(weight, step, self.bits) - weight).square().sum(dims, keepdim=True)
            better = error < least  # never of a channel of zeros, where the error is NaN
            best, least = torch.where(better, step, best), torch.where(better, error, least)
        self.log_step.copy_(best.log())

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return f"bits={self.bits}"


class LearnedWidthQuantizer(WeightQuantizer):
    """Fake quantization whose number of bits is found by :func:`allocate_bits`, for all layers of a module at once.

    Between two allocations it is a :class:`WeightQuantizer`, whose steps are learned.

    Parameters
    ----------
    weight
        The weight ``(out, ...)`` that the steps are fitted to at once; it is not kept.
    low, high
        Fewest and most bits, from 2 to 8; they begin at `high`.
    """

    width: Tensor

    def __init__(self, weight: Tensor, low: int = MIN_BITS, high: int = MAX_BITS) -> None:
        grid_limits(low)
        super().__init__(weight, high)
        if low >= high:
            raise ValueError(f"`low` must be below `high`, found {low} and {high}.")
        self.low, self.high = low, high
        self.register_buffer("width", torch.tensor(high, dtype=torch.uint8, device=weight.device))

    @torch.no_grad()
    def set_bits(self, bits: int, weight: Tensor) -> None:
        """Take another number of bits, from `low` to `high`, and the steps that serve the weight best at it.

        With the bits there are already, the steps stay.
        """
        if not self.low <= bits <= self.high:
            raise ValueError(f"`bits` must be from {self.low} to {self.high}, found {bits}.")
        if bits != self.bits:
            self.bits = bits
            self.width.fill_(bits)
            self.log_step.copy_(initial_step(weight, bits).log())
            self.refit(weight)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.bits = int(self.width)


def make_quantizer(weight: Tensor, bits: Bits) -> WeightQuantizer | None:
    """The quantizer of a weight for the argument `bits` of a layer."""
    if bits is None:
        return None
    return LearnedWidthQuantizer(weight) if bits == "learned" else WeightQuantizer(weight, bits)


class Quantized:
    """What the layers share whose weight passes a quantizer."""

    weight: Tensor
    bias: Any
    quantizer: WeightQuantizer | None

    @property
    def bits(self) -> int | None:
        """Bits of a weight; None for floating point."""
        return None if self.quantizer is None else self.quantizer.bits

    @property
    def used_weight(self) -> Tensor:
        """The weight as the layer uses it: quantized, if it has bits."""
        return self.weight if self.quantizer is None else self.quantizer(self.weight)

    def transform(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The map of the layer with another weight and bias."""
        raise NotImplementedError

    def assign(self, weight: Tensor, bias: Tensor | None, bits: int | None) -> None:
        """Take copies of the given weights, their dtype and device with them, and a grid refitted to them."""
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.quantizer = None
        if bits is not None:
            self.quantizer = WeightQuantizer(self.weight, bits)
            self.quantizer.refit(self.weight)


class QuantLinear(Quantized, nn.Linear):
    """Linear layer with fake-quantized weights; the bias and the input stay as they are.

    Parameters
    ----------
    in_features, out_features
        Widths of input and output.
    bias
        Whether to add a bias.
    bits
        Bits of a weight: 2 to 8, None for floating point, ``"learned"`` for :class:`LearnedWidthQuantizer`.

    Whoever sets the weights anew calls ``layer.quantizer.refit(layer.weight)`` after it.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True, bits: Bits = 4) -> None:
        super().__init__(in_features, out_features, bias)
        self.quantizer = make_quantizer(self.weight, bits)

    def forward(self, x: Tensor) -> Tensor:
        """Output ``(..., out_features)`` of input ``(..., in_features)``."""
        return self.transform(x, self.used_weight, self.bias)

    def transform(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``x weight^T + bias``."""
        return F.linear(x, weight, bias)
