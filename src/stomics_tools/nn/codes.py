"""What the quantizers of vectors share: their output, soft codes, the use of codes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Quantized(NamedTuple):
    """What a quantizer makes of vectors ``(..., dim)``.

    ``values`` ``(..., dim)``: those of the codes, with the gradient of the input; ``codes`` int64 ``(...)``; ``loss``,
    a scalar.
    """

    values: Tensor
    codes: Tensor
    loss: Tensor


def straight_through(z: Tensor, values: Tensor) -> Tensor:
    """`values` to the last bit, with the gradient of `z`."""
    return values.detach().to(z.dtype) + (z - z.detach())


def check_width(z: Tensor, dim: int) -> None:
    """Raise ``ValueError`` unless `z` is ``(..., dim)``."""
    if z.shape[-1] != dim:
        raise ValueError(f"Expected vectors of {dim} numbers, found {z.shape[-1]} in shape {tuple(z.shape)}.")


def soft(distances: Tensor, own: Tensor, temperature: float) -> Tensor:
    """Shares proportional to ``exp(-distances / temperature)`` over the last dimension; all to `own` at zero."""
    if not 0 <= temperature < math.inf:
        raise ValueError(f"`temperature` must be at least 0 and finite, found {temperature}.")
    if temperature == 0:
        return F.one_hot(own, distances.shape[-1]).to(distances.dtype)
    return (-distances / temperature).softmax(-1)


def code_usage(codes: Tensor, n_codes: int) -> dict[str, float]:
    """How well codes are used.

    Parameters
    ----------
    codes
        int64, any shape, from 0 to ``n_codes - 1``; anything else, or none, is a ``ValueError``.
    n_codes
        Number of codes there are.

    Returns
    -------
    ``"usage"``, the share of the codes that occur; ``"perplexity"``, the exponential of the entropy of their
    frequencies; ``"n_dead"``, the number that do not occur; ``"n_tokens"``, the number of `codes`.
    """
    if not codes.numel() or codes.min() < 0 or codes.max() >= n_codes:
        found = f"{codes.min().item()} to {codes.max().item()}" if codes.numel() else "none"
        raise ValueError(f"`codes` must be from 0 to {n_codes - 1}, found {found}.")
    counts = codes.flatten().bincount(minlength=n_codes)
    n_dead = int((counts == 0).sum())
    frequencies = (counts / codes.numel()).double()
    return {
        "usage": 1 - n_dead / n_codes,
        "perplexity": torch.special.entr(frequencies).sum().exp().item(),
        "n_dead": n_dead,
        "n_tokens": codes.numel(),
    }
