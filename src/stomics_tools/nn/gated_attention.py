"""Exact attention within a set, or to another one, with a learned gate on what was read."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EPSILON = 1e-6

Gate = Literal["elementwise", "headwise"]


class GatedAttention(nn.Module):
    """Multi-head softmax attention whose outcome is multiplied by a sigmoid gate before the last layer.

    With queries from `x`, keys and values from a context c, each head reads ``y = softmax(q k^T / sqrt(d)) v``, and
    the outcome is ``W_o (y * sigmoid(W_g x + b_g))``. The gate has one number an element (``"elementwise"``) or one a
    head (``"headwise"``) of each token. It begins at sigmoid(2) = 0.88 everywhere. Queries, keys, values and outcome
    have no bias, so a token that reads nothing gets zero.

    No weight of attention is kept: memory is linear in the number of tokens.

    Parameters
    ----------
    width
        Width of tokens, a multiple of `n_heads`.
    n_heads
        Number of heads.
    gate
        Kind of the gate; None: no gate.
    qk_norm
        Whether queries and keys are divided by their root mean square, head by head, and multiplied by a learned gain
        an element, which the heads share.
    dropout
        Share of the weights of attention dropped in training.

    Source: gate after Qiu et al., Gated attention for large language models, 2025; the norm after Henry et al.,
    Query-key normalization for transformers, 2020, there with an L2 norm.
    """

    def __init__(
        self, width: int, n_heads: int, *, gate: Gate | None = None, qk_norm: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if n_heads < 1 or width < 1 or width % n_heads:
            raise ValueError(f"`width` must be a multiple of `n_heads`, found {width} and {n_heads}.")
        if gate not in (None, "elementwise", "headwise"):
            raise ValueError(f"`gate` must be 'elementwise', 'headwise' or None, found {gate!r}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` must be at least 0 and below 1, found {dropout}.")
        self.n_heads, self.dropout = n_heads, dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.query_gain = nn.Parameter(torch.ones(width // n_heads)) if qk_norm else None
        self.key_gain = nn.Parameter(torch.ones(width // n_heads)) if qk_norm else None
        self.gate = None if gate is None else nn.Linear(width, width if gate == "elementwise" else n_heads)
        self.project = nn.Linear(width, width, bias=False)
        if self.gate is not None:
            nn.init.zeros_(self.gate.weight)
            nn.init.constant_(self.gate.bias, 2.0)

    def forward(self, x: Tensor, *, context: Tensor | None = None, key_padding_mask: Tensor | None = None) -> Tensor:
        """What each token read.

        Parameters
        ----------
        x
            Tokens that read, ``(b, n, width)``.
        context
            Tokens that are read, ``(b, m, width)``; None: `x` itself.
        key_padding_mask
            Boolean ``(b, m)``: **True is a real token**, False is padding, which nothing is read from. None: all are
            real. Give None where you know so: asking the mask waits for the device.

        Returns
        -------
        ``(b, n, width)``. Zero where a set has no real token to read. Rows of padding in `x` get values too: drop
        them.
        """
        source = x if context is None else context
        queries = self._heads(self.query(x))
        keys, values = (self._heads(part) for part in self.key_value(source).chunk(2, dim=-1))
        queries, keys = _normed(queries, self.query_gain), _normed(keys, self.key_gain)
        mask, empty = _attention_mask(key_padding_mask, source)
        dropout = self.dropout if self.training else 0.0
        read = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)
        if empty is not None:
            read = read.masked_fill(empty, 0.0)
        read = read.transpose(1, 2)  # (b, n, heads, width / heads)
        if self.gate is not None:
            read = read * torch.sigmoid(self.gate(x)).unflatten(-1, (self.n_heads, -1))
        return self.project(read.flatten(2))

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (b, heads, n, width / heads)


def _normed(x: Tensor, gain: Tensor | None) -> Tensor:
    """In the type of `x` also where autocast has norms in float32: the kernels of attention want one type."""
    return x if gain is None else F.rms_norm(x, gain.shape, gain.to(x.dtype), eps=_EPSILON).to(x.dtype)


def _attention_mask(real: Tensor | None, source: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Mask ``(b, 1, 1, m)`` for the kernel, and which sets have nothing to read, ``(b, 1, 1, 1)``; None if not needed.

    The fastest kernels take no mask, hence none where all is real. A softmax over nothing is NaN in some kernels, or
    in their gradient: empty sets are read whole, and the outcome dropped.
    """
    if real is None:
        return None, None
    if real.dtype != torch.bool or real.shape != source.shape[:2]:
        raise ValueError(
            f"`key_padding_mask` must be boolean of shape {tuple(source.shape[:2])}, "
            f"found {real.dtype} of shape {tuple(real.shape)}."
        )
    if real.all():
        return None, None
    empty = ~real.any(dim=1)
    return (real | empty[:, None])[:, None, None], empty[:, None, None, None]
