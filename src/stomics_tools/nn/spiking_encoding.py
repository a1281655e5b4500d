"""From numbers to time steps."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from stomics_tools.nn.quantization import Bits
from stomics_tools.nn.spiking_layer import SpikingLayer, lif


class SpikingEncoding(nn.Module):
    """A linear map and normalisation whose outcome is the current of neurons at every time step (direct encoding).

    ``neuron(BN(W x), ..., BN(W x))``: the larger a number, the earlier and the more often it fires.

    Parameters
    ----------
    n_inputs, n_features
        Widths of input and output.
    n_steps
        Number T of time steps.
    neuron
        Threshold to a module from ``(T, ...)`` to spikes of that shape; None for currents, which membrane residuals
        begin with.
    bits
        Bits of the weights, as of :class:`QuantLinear`.
    """

    def __init__(
        self,
        n_inputs: int,
        n_features: int,
        n_steps: int = 4,
        *,
        neuron: Callable[[float], nn.Module] | None = lif,
        bits: Bits = None,
    ) -> None:
        super().__init__()
        if n_steps < 1:
            raise ValueError(f"`n_steps` must be at least 1, found {n_steps}.")
        self.n_steps = n_steps
        self.layer = SpikingLayer(n_inputs, n_features, None, bits=bits)
        self.neuron = nn.Identity() if neuron is None else neuron(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, N, n_inputs)`` to ``(T, B, N, n_features)``."""
        return self.neuron(self.layer(x).expand(self.n_steps, *x.shape[:-1], -1))
