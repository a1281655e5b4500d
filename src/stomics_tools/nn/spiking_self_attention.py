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

    Others are ``"ssa"`` too, with the neurons and numbers below and, as their residuals are of membranes,
    ``output_spikes=False``; re-parameterised convolutions stand in the first and the third where linear maps stand here.

    - Spike-driven Transformer V2 (Yao et al., 2024): these neurons.
    - Spike-driven Transformer V3 (Yao et al., 2025), its efficient attention: :class:`Multispike` as neuron,
      ``value_ratio=4``, ``scale=2 / sqrt(d)``.
    - QSD-Transformer (Qiu et al., 2025): :class:`Multispike`, ``scale=0.25``, with twice the range after attention.

    Parameters
    ----------
    n_features
        Width C, a multiple of `n_heads`.
    n_heads
        Number of heads.
    form
        See above.
    scale
        Of ``"ssa"``: keeps the sum near the threshold. Since the sum grows with N, a number serves sets of some hundred
        rows; None puts ``BN(Q K^T V / N)`` in its place, for sets of any size.
    value_ratio
        Of ``"ssa"``: width of all values in units of `n_features`.
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
        scale: float | None = 0.125,
        value_ratio: int = 1,
        neuron: Callable[[float], nn.Module] = lif,
        output_spikes: bool = True,
        bits: Bits = None,
    ) -> None:
        super().__init__()
        if n_heads < 1 or n_features % n_heads:
            raise ValueError(f"`n_features` must be a multiple of `n_heads`, found {n_features} and {n_heads}.")
        if form not in get_args(Form):
            raise ValueError(f"`form` must be one of {list(get_args(Form))}, found {form!r}.")
        if value_ratio < 1 or (value_ratio > 1 and form != "ssa"):
            raise ValueError(f"`value_ratio` must be at least 1, and 1 unless `form='ssa'`, found {value_ratio}.")
        self.n_heads, self.form, self.scale = n_heads, form, scale
        names = ("query", "key", "value") if form in ("ssa", "mask") else ("query", "key")
        n_values = value_ratio * n_features
        widths = {"query": n_features, "key": n_features, "value": n_values}
        self.layers = nn.ModuleDict({name: SpikingLayer(n_features, widths[name], neuron, bits=bits) for name in names})
        self.attention_norm = nn.BatchNorm1d(n_values) if form == "ssa" and scale is None else None
        self.attention_neuron = neuron(_ATTENTION_THRESHOLD)
        self.project = SpikingLayer(n_values, n_features, neuron if output_spikes else None, bits=bits)

    def forward(self, x: Tensor, segments: Tensor | None = None) -> Tensor:
        """What each row reads from all rows of its set.

        Parameters
        ----------
        x
            ``(T, B, N, C)``: time steps, sets, rows of a set, features.
        segments
            Row numbers at which sets begin, and N at the end, int64 ``(n_sets + 1,)``: rows that lie one after the other
            but do not read from each other. By default all N rows are one set.

        Returns
        -------
        ``(T, B, N, C)``.
        """
        lengths = [x.shape[2]] if segments is None else segments.diff().tolist()
        heads = [self._heads(layer(x)).split(lengths, dim=-2) for layer in self.layers.values()]
        sets = list(zip(*heads, strict=True))
        if self.form == "ssa":
            sums = [spiking_attention(*one) * self._factor(n) for one, n in zip(sets, lengths, strict=True)]
            return self._output(torch.cat(sums, dim=-2))
        return self.project(_joined(torch.cat([self._masked(*one) for one in sets], dim=-2)))

    def accumulate(self, x: Tensor) -> Tensor:
        """State ``K^T V`` of a block of rows, for inference in blocks with ``form="ssa"``.

        Parameters
        ----------
        x
            The block, ``(T, B, n_block, C)``.

        Returns
        -------
        ``(T, B, n_heads, d, d)``; the state of a set is the sum of those of its blocks.
        """
        keys, values = (self._heads(self.layers[name](x)) for name in ("key", "value"))
        return keys.mT @ values

    def read(self, x: Tensor, state: Tensor, n_rows: int) -> Tensor:
        """Outcome for a block of rows, given the state of their set (:meth:`accumulate`) and its number of rows.

        Parameters
        ----------
        x
            The block, ``(T, B, n_block, C)``.
        state
            Sum of the states of all blocks of the set.
        n_rows
            Rows of the set.

        Returns
        -------
        ``(T, B, n_block, C)``; in evaluation the rows of the whole pass.
        """
        return self._output(self._heads(self.layers["query"](x)) @ state * self._factor(n_rows))

    def _factor(self, n_rows: int) -> float:
        return 1 / max(n_rows, 1) if self.scale is None else self.scale

    def _output(self, sums: Tensor) -> Tensor:
        """``(T, B, heads, N, d)`` to ``(T, B, N, C)``."""
        joined = _joined(sums)
        if self.attention_norm is not None:
            joined = self.attention_norm(joined.flatten(0, 2)).view_as(joined)
        return self.project(self.attention_neuron(joined))

    def _masked(self, query: Tensor, key: Tensor, value: Tensor | None = None) -> Tensor:
        if value is not None:
            return query * self.attention_neuron((key * value).sum(-2, keepdim=True))
        over = -1 if self.form == "token" else -2
        return self.attention_neuron(query.sum(over, keepdim=True)) * key

    def _heads(self, x: Tensor) -> Tensor:
        """``(T, B, N, C)`` to ``(T, B, heads, N, C / heads)``."""
        return x.unflatten(-1, (self.n_heads, -1)).transpose(2, 3)


def _joined(x: Tensor) -> Tensor:
    """``(T, B, heads, N, d)`` to ``(T, B, N, heads d)``."""
    return x.transpose(2, 3).flatten(3)


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
