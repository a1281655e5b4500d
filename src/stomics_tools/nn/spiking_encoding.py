"""From numbers and positions to spikes over time steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
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


class SpikingPositionEncoding(nn.Module):
    """Spikes that tell where rows lie, from waves of their coordinates.

    Of each coordinate x and each wavelength ``l`` two waves are made into events,

    ``1[sin(2 pi x / l + p_t) >= 0]`` and ``1[cos(2 pi x / l + p_t) >= 0]``, ``p_t = pi / 2 * t / T`` at the step t of T,

    and ``neuron(BN(W events))`` is the encoding. Over the T steps the events tell 4 T places in a wavelength apart.
    Wavelengths rise by a constant factor: long ones tell regions, short ones neighbours apart. In contrast to
    :class:`SpikingRelativePosition`, which reads offsets of neighbours, positions mean the same in all slices of one
    coordinate system alone.

    Parameters
    ----------
    n_features
        Width C.
    n_dims
        Of the coordinates, 2 or 3.
    n_steps
        Number T of time steps.
    n_waves
        Number of wavelengths.
    shortest, longest
        Of the wavelengths, in the units of the coordinates; the defaults are for units of the spacing of spots.
    neuron
        Threshold to a module from ``(T, ...)`` to spikes of that shape; None for currents, to be added to a membrane.
    bits
        Bits of the weights, as of :class:`QuantLinear`.

    Source: central pattern generators as position encoding (Lv et al., Advancing spiking neural networks for sequential
    modeling with central pattern generators, 2024), there of one number, the place in a sequence.
    """

    wavelengths: Tensor

    def __init__(
        self,
        n_features: int,
        n_dims: int = 2,
        n_steps: int = 4,
        *,
        n_waves: int = 8,
        shortest: float = 4.0,
        longest: float = 256.0,
        neuron: Callable[[float], nn.Module] | None = lif,
        bits: Bits = None,
    ) -> None:
        super().__init__()
        for name, value in (("n_dims", n_dims), ("n_steps", n_steps), ("n_waves", n_waves)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, found {value}.")
        if not 0 < shortest <= longest:
            raise ValueError(f"`shortest` must be above 0 and at most `longest`, found {shortest} and {longest}.")
        self.n_dims, self.n_steps = n_dims, n_steps
        exponents = torch.linspace(0, 1, n_waves, dtype=torch.float64)
        self.register_buffer("wavelengths", shortest * (longest / shortest) ** exponents)
        self.layer = SpikingLayer(2 * n_dims * n_waves, n_features, neuron, bits=bits)

    def forward(self, coordinates: Tensor) -> Tensor:
        """Encoding ``(T, 1, n, C)`` of coordinates ``(n, n_dims)``; the batch of its normalisation is all rows."""
        return self.layer(self.events(coordinates)).unsqueeze(1)

    def events(self, coordinates: Tensor) -> Tensor:
        """0 and 1, ``(T, n, 2 n_dims n_waves)``, of coordinates ``(n, n_dims)``.

        Raises
        ------
        ValueError
            If there are not `n_dims` columns, or if a value is not finite.
        """
        if coordinates.dim() != 2 or coordinates.shape[1] != self.n_dims:
            raise ValueError(f"`coordinates` must be (n, {self.n_dims}), found {tuple(coordinates.shape)}.")
        if not coordinates.isfinite().all():
            raise ValueError("`coordinates` must be finite, found NaN or infinity.")
        turns = coordinates.double()[:, :, None] / self.wavelengths.double()
        steps = torch.arange(self.n_steps, device=coordinates.device).view(-1, 1, 1, 1) / self.n_steps
        angle = 2 * math.pi * turns + math.pi / 2 * steps
        waves = torch.stack([angle.sin(), angle.cos()], dim=-1)
        return (waves >= 0).flatten(2).to(self.layer.norm.weight)
