"""Distributions over codes: from logits to losses and draws."""

from __future__ import annotations

import torch
from torch import Tensor

from stomics_tools.nn import FSQ, VectorQuantizer

Quantizer = FSQ | VectorQuantizer


def n_logits(quantizer: Quantizer, *, factorized: bool) -> int:
    """Logits of a token: one a code, or one for each level of each dimension of a finite scalar quantizer."""
    return sum(_scalar(quantizer).levels) if factorized else quantizer.n_codes


def cross_entropy(logits: Tensor, codes: Tensor, quantizer: Quantizer, *, factorized: bool, softness: float) -> Tensor:
    """Cross-entropy of every token, ``(b, t)``, to targets that decay with the distance of a code from the true one.

    Parameters
    ----------
    logits
        ``(b, t, n_logits)``.
    codes
        int64 ``(b, t)``.
    softness
        Squared distance in the space of codes over which targets decay by e; 0 for the true code alone.
    """
    if not factorized:
        log_probability = logits.log_softmax(-1)
        if softness == 0:
            return -log_probability.gather(-1, codes[..., None])[..., 0]
        return -(quantizer.soft_targets(codes, softness) * log_probability).sum(-1)
    fsq = _scalar(quantizer)
    indices = fsq.split(codes)
    loss = torch.zeros_like(codes, dtype=logits.dtype)
    targets = fsq.soft_levels(indices, softness)
    for dimension, part in enumerate(logits.split(list(fsq.levels), dim=-1)):
        loss = loss - (targets[..., dimension, : part.shape[-1]] * part.log_softmax(-1)).sum(-1)
    return loss


def draw(
    logits: Tensor,
    quantizer: Quantizer,
    *,
    factorized: bool,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    generator: torch.Generator,
) -> Tensor:
    """Codes int64 ``(b, t)`` drawn from logits ``(b, t, n_logits)``.

    Parameters
    ----------
    temperature
        Divides the logits; 0 takes the likeliest code.
    top_k
        Only the `top_k` likeliest codes.
    top_p
        Only the likeliest codes that together have this probability, and always the first.
    """
    if not factorized:
        joint = logits
    else:
        fsq = _scalar(quantizer)
        if top_k is None and top_p is None:  # dimensions are independent: no need of all their products
            parts = logits.split(list(fsq.levels), dim=-1)
            return fsq.join(torch.stack([_draw_one(part, temperature, generator) for part in parts], dim=-1))
        joint = _joint(logits, fsq)
    if temperature == 0:
        return joint.argmax(-1)
    return _draw_one(_truncate(joint / temperature, top_k, top_p), 1.0, generator)


def _draw_one(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(-1)
    # One uniform number a token; torch.multinomial draws one for each of thousands of codes.
    cumulative = (logits / temperature).float().softmax(-1).cumsum(-1)
    uniform = torch.rand(*logits.shape[:-1], 1, generator=generator, device=logits.device)
    drawn = torch.searchsorted(cumulative, uniform * cumulative[..., -1:], right=True)
    return drawn.clamp(max=logits.shape[-1] - 1)[..., 0]


def _truncate(logits: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    if top_k is not None and top_k < logits.shape[-1]:
        kept = logits.topk(top_k, dim=-1).indices  # of codes that are equally likely, no more than `top_k`
        logits = logits.masked_fill(~torch.zeros_like(logits, dtype=torch.bool).scatter(-1, kept, True), -torch.inf)
    if top_p is not None:
        ordered, order = logits.sort(dim=-1, descending=True)
        probability = ordered.softmax(-1)
        beyond = probability.cumsum(-1) - probability >= top_p
        logits = logits.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), -torch.inf)
    return logits


def _joint(logits: Tensor, quantizer: FSQ) -> Tensor:
    """Logits of all codes from those of the levels, ``(b, t, n_codes)``."""
    every = quantizer.split(torch.arange(quantizer.n_codes, device=logits.device))  # (n_codes, dim)
    joint = logits.new_zeros(())
    for dimension, part in enumerate(logits.split(list(quantizer.levels), dim=-1)):
        joint = joint + part.log_softmax(-1)[..., every[:, dimension]]
    return joint


def _scalar(quantizer: Quantizer) -> FSQ:
    if not isinstance(quantizer, FSQ):
        raise ValueError("`head='factorized'` needs `quantizer='fsq'`; set `head='joint'`.")
    return quantizer
