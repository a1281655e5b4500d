"""The layer that spiking transformers are made of."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from stomics_tools.nn.lif import LIFNode
from stomics_tools.nn.quantization import Bits, QuantLinear
from stomics_tools.nn.reparam import RepLinear, fold_normed


def lif(v_threshold: float = 1.0) -> nn.Module:
    """The neurons of Spikformer: time constant 2, no gradient through the reset."""
    return LIFNode(tau=2.0, v_threshold=v_threshold, detach_reset=True)


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
    rep
        Whether the map is a :class:`RepLinear` in training.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        neuron: Callable[[float], nn.Module] | None = lif,
        *,
        bits: Bits = None,
        rep: bool = False,
    ) -> None:
        super().__init__()
        self.linear: QuantLinear | RepLinear
        if rep:
            self.linear = RepLinear(n_inputs, n_outputs, bits)
        else:
            self.linear = QuantLinear(n_inputs, n_outputs, bias=False, bits=bits)
        self.norm = nn.BatchNorm1d(n_outputs)
        self.neuron = nn.Identity() if neuron is None else neuron(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """``(T, ..., n_inputs)`` to ``(T, ..., n_outputs)``."""
        return self.neuron(self.norm(self.linear(x.flatten(0, -2))).view(*x.shape[:-1], -1))

    @torch.no_grad()
    def fold(self) -> SpikingLayer:
        """A copy equal to this layer in evaluation, its map and normalisation one :class:`QuantLinear`."""
        linear = self.linear.fold() if isinstance(self.linear, RepLinear) else self.linear
        folded = {id(self.linear): fold_normed(linear, self.norm), id(self.norm): nn.Identity()}
        return copy.deepcopy(self, folded)
