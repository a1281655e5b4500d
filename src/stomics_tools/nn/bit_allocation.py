"""How many bits the weights of each layer get, if the mean over all weights is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stomics_tools.nn.packing import PackedLinear
from stomics_tools.nn.quantization import MAX_BITS, MIN_BITS, LearnedWidthQuantizer, Quantized, WeightQuantizer
from stomics_tools.nn.reparam import RepConv, RepLinear

_WIDTHS = range(MIN_BITS, MAX_BITS + 1)
_MAX_ROWS = 4096
"""Rows of a call of a layer on which the error of its output is measured."""
_MAX_UNITS = 200_000
"""Amounts of memory that are told apart."""


def mean_bits(module: nn.Module) -> float:
    """Mean number of bits of a weight over the quantized and packed layers of a module; NaN if there are none.

    Parameters
    ----------
    module
        All its layers count by their numbers of weights, except those in floating point.
    """
    total = count = 0
    for part in module.modules():
        if isinstance(part, PackedLinear):
            n_weights = part.in_features * part.out_features
        elif isinstance(part, Quantized) and part.bits is not None:
            n_weights = part.weight.numel()
        else:
            continue
        total, count = total + n_weights * (part.bits or 0), count + n_weights
    return total / count if count else math.nan


def allocate_bits(
    module: nn.Module, budget: float, loss: Callable[[], Tensor], *, tolerance: float = 0.25
) -> dict[str, int]:
    """Give the layers of learned width the whole numbers of bits that cost the loss least within a budget.

    The loss is evaluated once. A layer whose outputs have the gradients ``g`` gets the error

    ``E(b) = sum_r sum_o (g_ro (x_r . dw_o(b)))^2``, ``dw_o(b)`` what rounding to b bits adds to the weights of output o,

    over its rows r of input x: the increase of the loss to second order, with the empirical Fisher information between
    outputs left out. Among all allocations whose mean number of bits, by numbers of weights, is at most the budget, and
    not below it by more than `tolerance`, the one of least total error is taken, found by dynamic programming. All maps
    of a :class:`RepLinear` or :class:`RepConv` get the same number, which is that of the folded layer.

    The steps of layers whose bits change are fitted to their weights. Whoever trains calls it some times in training,
    for instance at a fifth, two fifths and three fifths of it, so that weights and steps adapt to their grid; what the
    learning rate is does not matter.

    Parameters
    ----------
    module
        Holds the layers made with ``bits="learned"``; others are left as they are and do not count.
    budget
        Mean number of bits of a weight, from 2 to 8.
    loss
        Gives the loss, a scalar with a gradient to the weights; it may be that of some of the rows. It is called once,
        in whatever mode the module is; gradients of parameters are left alone.
    tolerance
        Bits by which the mean may stay below the budget. Layers cannot be split: where there is no allocation so
        close, as with one layer and a budget between two whole numbers, the closest one below is taken.

    Returns
    -------
    Bits of each layer of learned width, by its name in `module`.

    Raises
    ------
    ValueError
        If there is no such layer, if the budget is out of range, or if the loss is not finite or does not depend on
        the weights of these layers.

    References
    ----------
    Fisher information as the sensitivity of a layer: Dong et al., HAWQ, 2019 (there the Hessian); the allocation is a
    multiple-choice knapsack problem.
    """
    layers = {
        name: part
        for name, part in module.named_modules()
        if isinstance(part, Quantized) and isinstance(part.quantizer, LearnedWidthQuantizer)
    }
    if not layers:
        raise ValueError("`module` has no layer of learned width: make its layers with `bits='learned'`.")
    if not MIN_BITS <= budget <= MAX_BITS:
        raise ValueError(f"`budget` must be from {MIN_BITS} to {MAX_BITS} bits, found {budget}.")
    if not tolerance >= 0:
        raise ValueError(f"`tolerance` must be at least 0, found {tolerance}.")
    errors = _errors(list(layers.values()), loss)
    groups = _groups(module, layers)
    sizes = [sum(layers[name].weight.numel() for name in group) for group in groups]
    order = list(layers)
    of_group = torch.stack([errors[[order.index(name) for name in group]].sum(0) for group in groups])
    chosen: dict[str, int] = {}
    for group, bits in zip(groups, least_error(of_group, sizes, budget, tolerance), strict=True):
        for name in group:
            quantizer = layers[name].quantizer
            if isinstance(quantizer, LearnedWidthQuantizer):
                quantizer.set_bits(bits, layers[name].weight)
            chosen[name] = bits
    return {name: chosen[name] for name in layers}


def _groups(module: nn.Module, layers: dict[str, Quantized]) -> list[list[str]]:
    """Names of the layers that share their bits."""
    owner = {
        id(part): id(rep) for rep in module.modules() if isinstance(rep, RepLinear | RepConv) for part in rep.modules()
    }
    groups: dict[int, list[str]] = {}
    for name, layer in layers.items():
        groups.setdefault(owner.get(id(layer), id(layer)), []).append(name)
    return list(groups.values())


def _errors(layers: Sequence[Quantized], loss: Callable[[], Tensor]) -> Tensor:
    """Error of each layer at each width, float64 ``(n_layers, n_widths)``; infinite at widths it may not have."""
    errors = torch.zeros(len(layers), len(_WIDTHS), dtype=torch.float64)
    with torch.enable_grad(), _measuring(layers, errors):
        value = loss()
        if value.requires_grad:
            torch.autograd.grad(value, [layer.weight for layer in layers], allow_unused=True)
    if not value.isfinite() or not errors.isfinite().all():
        raise ValueError(f"`loss` must be finite, with a finite gradient, found {value.item()}.")
    if not errors.any():
        raise ValueError("`loss` does not depend on the weights of the layers of learned width.")
    for i, layer in enumerate(layers):
        if isinstance(layer.quantizer, LearnedWidthQuantizer):
            outside = [not layer.quantizer.low <= bits <= layer.quantizer.high for bits in _WIDTHS]
            errors[i, outside] = math.inf
    return errors


@contextmanager
def _measuring(layers: Sequence[Quantized], errors: Tensor) -> Iterator[None]:
    """Within a ``with`` block gradients that reach the outputs of the layers are turned into `errors`."""

    def watch(i: int, layer: Quantized) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        rounding = _rounding(layer)

        def forward(_: nn.Module, inputs: tuple[Tensor, ...], y: Tensor) -> None:
            if not y.requires_grad:
                return
            x = inputs[0].detach()
            linear = isinstance(layer, nn.Linear)

            def backward(grad: Tensor) -> None:
                rows, slopes = (x.flatten(0, -2), grad.flatten(0, -2)) if linear else (x, grad)
                stride = max(-(-len(rows) // _MAX_ROWS), 1)
                rows, slopes = rows[::stride], slopes[::stride]
                for k, change in enumerate(rounding):
                    errors[i, k] += (
                        stride * (layer.transform(rows, change, None) * slopes).double().square().sum().cpu()
                    )

            y.register_hook(backward)

        return forward

    hooks = [
        layer.register_forward_hook(watch(i, layer)) for i, layer in enumerate(layers) if isinstance(layer, nn.Module)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def _rounding(layer: Quantized) -> list[Tensor]:
    """What the best grid of each width adds to the weight."""
    changes = []
    for bits in _WIDTHS:
        quantizer = WeightQuantizer(layer.weight, bits)
        quantizer.refit(layer.weight)
        changes.append(quantizer(layer.weight) - layer.weight)
    return changes


def least_error(errors: Tensor, sizes: Sequence[int], budget: float, tolerance: float) -> list[int]:
    """Bits of each group of weights, of least total error.

    Parameters
    ----------
    errors
        float64 ``(n_groups, 7)``, at 2 to 8 bits; infinite where a group may not have them.
    sizes
        Number of weights of each group.
    budget, tolerance
        See :func:`allocate_bits`.
    """
    total = sum(sizes)
    unit = max(math.gcd(*sizes), -(-total * len(_WIDTHS) // _MAX_UNITS))
    # Memory beyond the fewest bits, in units and rounded up, so that the budget is kept.
    capacity = math.floor((budget - MIN_BITS) * total / unit + 1e-9)
    costs = [[-(-size * k // unit) for k in range(len(_WIDTHS))] for size in sizes]
    best = torch.full((capacity + 1,), math.inf, dtype=torch.float64)
    best[0] = 0.0
    steps = []
    for row, cost in zip(errors, costs, strict=True):
        options = torch.full((len(_WIDTHS), capacity + 1), math.inf, dtype=torch.float64)
        for k, c in enumerate(cost):
            if c <= capacity:
                options[k, c:] = best[: capacity + 1 - c] + row[k]
        best, choice = options.min(0)
        steps.append(choice)
    if not best.isfinite().any():
        raise ValueError(f"`budget`: {budget} bits are below the fewest bits of these layers.")
    lowest = max(math.ceil((budget - tolerance - MIN_BITS) * total / unit - 1e-9), 0)
    close = best[lowest:].isfinite().any()
    place = lowest + int(best[lowest:].argmin()) if close else int(best.isfinite().nonzero().max())
    bits = []
    for choice, cost in zip(reversed(steps), reversed(costs), strict=True):
        k = int(choice[place])
        bits.append(MIN_BITS + k)
        place -= cost[k]
    return bits[::-1]
