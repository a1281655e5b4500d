"""Layers of the encoder over time steps: those of a spiking transformer, with graph aggregation beside attention."""

from __future__ import annotations

from torch import Tensor, nn

from stomics_tools.model.praga_spike._layers import MembraneLayer
from stomics_tools.model.praga_spike._settings import SpikeSettings
from stomics_tools.nn import LIFNode, SpikingMLP, SpikingSelfAttention


def lif() -> LIFNode:
    """Neurons in front of the maps of a layer."""
    return LIFNode(tau=2.0, detach_reset=True)


class StepAttention(nn.Module):
    """:class:`~stomics_tools.nn.SpikingSelfAttention` of the steps that neurons make of one membrane, then their mean."""

    windows = (None,)

    def __init__(self, settings: SpikeSettings) -> None:
        super().__init__()
        self.n_steps, self.spike = settings.n_steps, lif()
        self.inner = SpikingSelfAttention(
            settings.n_latent,
            settings.n_heads,
            scale=None,
            attention_threshold=0.5,
            output_spikes=False,
            bits=settings.bits,
        )

    def forward(self, x: Tensor, segments: Tensor) -> Tensor:
        """Normalised membrane ``(n, n_latent)`` to an update of it; each segment reads from itself."""
        return self.inner(self._steps(x), segments).mean((0, 1))

    def accumulate(self, x: Tensor) -> Tensor:
        """State of a block of rows, to be summed over those of its segment."""
        return self.inner.accumulate(self._steps(x))

    def read(self, x: Tensor, state: Tensor, n_rows: int) -> Tensor:
        """Outcome for a block of rows of a segment of `n_rows`."""
        return self.inner.read(self._steps(x), state, n_rows).mean((0, 1))

    def _steps(self, x: Tensor) -> Tensor:
        return steps_of(x, self.spike, self.n_steps).unsqueeze(1)


class StepLayer(MembraneLayer):
    """A :class:`MembraneLayer` of a spiking transformer: leaky integrate-and-fire neurons over time steps.

    At each of T steps the neurons get the normalised membrane as their current; what the maps make of their spikes, a
    current at each step, is added to the membrane as its mean over the steps. Neighbours are added up after that mean,
    which for a linear map is the same.
    """

    def __init__(self, settings: SpikeSettings) -> None:
        super().__init__(settings)
        self.n_steps = settings.n_steps
        self.spike, self.second_spike = lif(), lif()
        self.attention = StepAttention(settings) if settings.attends else None
        self.mlp = SpikingMLP(settings.n_latent, 2 * settings.n_latent, output_spikes=False, bits=settings.bits)

    def fired(self, normed: Tensor) -> Tensor:
        """Share of the steps in which a neuron fires."""
        return steps_of(normed, self.spike, self.n_steps).mean(0)

    def within(self, normed: Tensor) -> Tensor:
        """A spiking perceptron, the mean of its currents."""
        return self.mlp(steps_of(normed, self.second_spike, self.n_steps)).mean(0)

    def read(self, normed: Tensor, state: Tensor, n_rows: int) -> Tensor:
        """The sums are divided by the number of rows."""
        return self.attention.read(normed, state, n_rows)


def steps_of(x: Tensor, neuron: nn.Module, n_steps: int) -> Tensor:
    """Spikes ``(n_steps, n, width)`` of neurons whose current is `x` ``(n, width)`` at every step."""
    return neuron(x.expand(n_steps, *x.shape))
