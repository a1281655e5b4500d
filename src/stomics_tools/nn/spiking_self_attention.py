"""Self-attention between spikes over time steps, in the forms of the spiking transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from stomics_tools.nn.lif import LIFNode
from stomics_tools.nn.quantization import Bits, QuantLinear

Form = Literal["ssa", "mask", "token", "channel"]
Order = Literal["auto", "linear", "quadratic"]
_ATTENTION_THRESHOLD = 0.5


def lif(v_threshold: float = 1.0) -> nn.Module:
    """The neurons of Spikformer: time constant 2, no gradient through the reset."""
    return LIFNode(tau=2.0, v_threshold=v_threshold, detach_reset=True)


def spiking_attention(
    queries: Tensor, keys: Tensor, values: Tensor, *, order: Order = "auto", n_rows: int = 1024
) -> Tensor:
    """Attention without softmax, ``Q K^T V``, in the cheaper order of its products.

    Without softmax ``(Q K^T) V = Q (K^T V)``: O(N^2 d) or O(N d^2) a head. Products of spikes are whole numbers, so that
    both orders give the same bits as long as these are below 2^24 (in float32).

    Parameters
    ----------
    queries, keys, values
        ``(..., N, d)``.
    order
        ``"linear"``: ``Q (K^T V)``; ``"quadratic"``: ``(Q K^T) V``, by blocks of rows; ``"auto"``: the former where ``N > d``.
    n_rows
        Rows of a block of the quadratic order, of which ``n_rows x N`` numbers are held at a time.

    Returns
    -------
    ``(..., N, d)``.
    """
    if order == "linear" or (order == "auto" and queries.shape[-2] > queries.shape[-1]):
        return queries @ (keys.mT @ values)
    return torch.cat([rows @ keys.mT @ values for rows in queries.split(n_rows, dim=-2)], dim=-2)


class SpikingSelfAttention(nn.Module):
    """Multi-head self-attention between spikes.

    Each of query, key and value is ``neuron(BN(W x))``, 0 or 1. A head of width d makes of them

    ===============  ====================================================  ====================================
    form             y                                                     source
    ===============  ====================================================  ====================================
    ``"ssa"``        ``neuron(scale Q K^T V)``                             Spikformer (Zhou et al., 2023)
    ``"mask"``       ``Q * neuron(sum_n K_n * V_n)``                       Spike-driven Transformer (Yao et al., 2023)
    ``"token"``      ``neuron(sum_c Q_c) * K``, a number for each row      QKFormer (Zhou et al., 2024)
    ``"channel"``    ``neuron(sum_n Q_n) * K``, a number for each column   QKFormer
    ===============  ====================================================  ====================================

    and a last layer mixes the heads. ``"ssa"`` costs O(N d^2), the others O(N d); nothing of size N x N is held.
    With :class:`~stomics_tools.nn.Multispike` as neuron, ``"ssa"`` is the attention of the second Spike-driven
    Transformer and of QSD-Transformer.

    Parameters
    ----------
    n_features
        Width C, a multiple of `n_heads`.
    n_heads
        Number of heads.
    form
        See above.
    scale
        Of ``"ssa"``: keeps the sum near the threshold.
    neuron
        Threshold to a module from ``(T, ...)`` to spikes of that shape; 1 for the layers, 0.5 after attention.
    output_spikes
        Whether neurons follow the last layer, as where residuals are sums of spikes.
    bits
        Bits of the weights, as of :class:`QuantLinear`.
    """

    def __init__(
        self,
        n_features: int,
        n_heads: int = 8,
        form: Form = "ssa",
        *,
        scale: float = 0.125,
        neuron: Callable[[float], nn.Module] = lif,
        output_spikes: bool = True,
        bits: Bits = None,
    ) -> None:
        super().__init__()
        if n_heads < 1 or n_features % n_heads:
            raise ValueError(f"`n_features` must be a multiple of `n_heads`, found {n_features} and {n_heads}.")
        if form not in get_args(Form):
            raise ValueError(f"`form` must be one of {list(get_args(Form))}, found {form!r}.")
        self.n_heads, self.form, self.scale = n_heads, form, scale
        names = ("query", "key", "value") if form in ("ssa", "mask") else ("query", "key")
        self.layers = nn.ModuleDict({name: SpikingLayer(n_features, n_features, neuron, bits=bits) for name in names})
        self.attention_neuron = neuron(_ATTENTION_THRESHOLD)
        self.project = SpikingLayer(n_features, n_features, neuron if output_spikes else None, bits=bits)

    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, N, C)`` to the same: time steps, sets, rows of a set, features."""
        heads = {name: self._heads(layer(x)) for name, layer in self.layers.items()}
        query, key = heads["query"], heads["key"]
        if self.form == "ssa":
            y = self.attention_neuron(self.scale * spiking_attention(query, key, heads["value"]))
        elif self.form == "mask":
            y = query * self.attention_neuron((key * heads["value"]).sum(-2, keepdim=True))
        else:
            over = -1 if self.form == "token" else -2
            y = self.attention_neuron(query.sum(over, keepdim=True)) * key
        return self.project(y.transpose(2, 3).flatten(3))

    def _heads(self, x: Tensor) -> Tensor:
        """``(T, B, N, C)`` to ``(T, B, heads, N, C / heads)``."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(2, 3)


class SpikingLayer(nn.Module):
    """A linear map of the last axis, batch normalisation over all others, and neurons.

    Parameters
    ----------
    n_inputs, n_outputs
        Widths.
    neuron
        Threshold to a module; None for no neurons.
    bits
        Bits of the weights, as of :class:`QuantLinear`.
    """

    def __init__(
        self, n_inputs: int, n_outputs: int, neuron: Callable[[float], nn.Module] | None = lif, *, bits: Bits = None
    ) -> None:
        super().__init__()
        self.linear = QuantLinear(n_inputs, n_outputs, bias=False, bits=bits)
        self.norm = nn.BatchNorm1d(n_outputs)
        self.neuron = nn.Identity() if neuron is None else neuron(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """``(T, ..., n_inputs)`` to ``(T, ..., n_outputs)``."""
        return self.neuron(self.norm(self.linear(x).flatten(0, -2)).view(*x.shape[:-1], -1))
