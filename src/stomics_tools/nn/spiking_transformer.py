"""Blocks of spiking transformers: attention and perceptron between spikes, with two kinds of residual."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import Tensor, nn

from stomics_tools.nn.quantization import Bits
from stomics_tools.nn.spiking_layer import SpikingLayer, lif
from stomics_tools.nn.spiking_self_attention import Form, SpikingSelfAttention

Residual = Literal["sew", "membrane"]


class SpikingMLP(nn.Module):
    """Two layers of neurons, each row by itself.

    Parameters
    ----------
    n_features, n_hidden
        Widths.
    neuron
        Threshold to a module from ``(T, ...)`` to spikes of that shape.
    output_spikes
        Whether neurons follow the second layer.
    bits
        Bits of the weights, as of :class:`QuantLinear`.
    """

    def __init__(
        self,
        n_features: int,
        n_hidden: int,
        *,
        neuron: Callable[[float], nn.Module] = lif,
        output_spikes: bool = True,
        bits: Bits = None,
    ) -> None:
        super().__init__()
        self.hidden = SpikingLayer(n_features, n_hidden, neuron, bits=bits)
        self.output = SpikingLayer(n_hidden, n_features, neuron if output_spikes else None, bits=bits)

    def forward(self, x: Tensor) -> Tensor:
        """``(T, ..., n_features)`` to the same."""
        return self.output(self.hidden(x))


class SpikingTransformerBlock(nn.Module):
    """Self-attention, then a perceptron, each added to what it was given.

    - ``residual="sew"``: ``x + attention(x)``, where `x` and what is added are spikes; sums of these are whole numbers, as
      in SEW ResNet (Fang et al., 2021) and Spikformer (Zhou et al., 2023).
    - ``residual="membrane"``: ``x + attention(neuron(x))``, where `x` is a membrane and what is added currents: layers
      only ever read 0 and 1, as in the Spike-driven Transformer (Yao et al., 2023).

    Parameters
    ----------
    n_features
        Width, a multiple of `n_heads`.
    n_heads
        Heads of the attention.
    mlp_ratio
        Width of the perceptron in units of `n_features`.
    residual
        See above.
    form, scale, attention_threshold, value_ratio, rep
        See :class:`SpikingSelfAttention`.
    neuron, bits
        See :class:`SpikingMLP`.
    """

    def __init__(
        self,
        n_features: int,
        n_heads: int = 8,
        mlp_ratio: float = 4.0,
        *,
        residual: Residual = "membrane",
        form: Form = "ssa",
        scale: float | None = 0.125,
        attention_threshold: float = 1.0,
        value_ratio: int = 1,
        neuron: Callable[[float], nn.Module] = lif,
        bits: Bits = None,
        rep: bool = False,
    ) -> None:
        super().__init__()
        if residual not in get_args(Residual):
            raise ValueError(f"`residual` must be one of {list(get_args(Residual))}, found {residual!r}.")
        between_spikes = residual == "sew"
        self.spikes = nn.ModuleList(nn.Identity() if between_spikes else neuron(1.0) for _ in range(2))
        self.attention = SpikingSelfAttention(
            n_features,
            n_heads,
            form,
            scale=scale,
            attention_threshold=attention_threshold,
            value_ratio=value_ratio,
            neuron=neuron,
            output_spikes=between_spikes,
            bits=bits,
            rep=rep,
        )
        self.mlp = SpikingMLP(
            n_features, round(mlp_ratio * n_features), neuron=neuron, output_spikes=between_spikes, bits=bits
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(T, B, N, C)`` to the same: time steps, sets, rows of a set, features."""
        x = x + self.attention(self.spikes[0](x))
        return x + self.mlp(self.spikes[1](x))
