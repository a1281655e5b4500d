"""From images or feature vectors of spots to rows of spikes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from stomics_tools.nn.quant_conv import QuantConv1d, QuantConv2d
from stomics_tools.nn.quantization import Bits
from stomics_tools.nn.spiking_layer import lif

_KINDS: dict[int, tuple[type[nn.Module], type[nn.Module], type[nn.Module]]] = {
    1: (QuantConv1d, nn.BatchNorm1d, nn.MaxPool1d),
    2: (QuantConv2d, nn.BatchNorm2d, nn.MaxPool2d),
}


class SpikingPatchSplitting(nn.Module):
    """Stages of convolution, batch normalisation, neurons and pooling, each halving the sides and doubling the channels.

    A stage is ``max-pool(neuron(BN(conv(x))))``, with kernels of 3 and a border of zeros, pooled over 3 with stride 2; a
    side of s has ``ceil(s / 2)`` after it. The input is the same at all time steps; what it becomes is spikes.

    - ``n_dims=2``: images of spots, the tissue around each.
    - ``n_dims=1``: vectors of features, cut into patches of `n_inputs` features one after the other, the last filled up
      with zeros. The patches are the positions and share their weights, so that the order of the features matters:
      neighbours should belong together, as along a chromosome.

    Parameters
    ----------
    n_inputs
        Channels of an image, or features of a patch.
    n_features
        Channels C after the last stage, a multiple of ``2^(n_stages - 1)``.
    n_stages
        Number of stages, 4 in the source.
    n_dims
        See above.
    n_steps
        Number T of time steps.
    pool
        Whether the positions that are left become one row a spot, by their maximum; if not, each is a row and each spot a
        set of its own, to be told from one another by attention.
    neuron
        Threshold to a module from ``(T, ...)`` to spikes of that shape.
    bits
        Bits of the weights, as of :class:`QuantLinear`.

    Notes
    -----
    Source: spiking patch splitting of Spikformer (Zhou et al., 2023) without its position encoding, for which there is
    :class:`SpikingRelativePosition`.
    """

    def __init__(
        self,
        n_inputs: int,
        n_features: int,
        n_stages: int = 2,
        *,
        n_dims: Literal[1, 2] = 2,
        n_steps: int = 4,
        pool: bool = True,
        neuron: Callable[[float], nn.Module] = lif,
        bits: Bits = None,
    ) -> None:
        super().__init__()
        if n_dims not in _KINDS:
            raise ValueError(f"`n_dims` must be 1 or 2, found {n_dims!r}.")
        for name, value in (("n_inputs", n_inputs), ("n_stages", n_stages), ("n_steps", n_steps)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, found {value}.")
        if n_features < 1 or n_features % 2 ** (n_stages - 1):
            raise ValueError(
                f"`n_features` must be a multiple of {2 ** (n_stages - 1)} for {n_stages} stages, found {n_features}."
            )
        self.n_inputs, self.n_dims, self.n_steps, self.pool = n_inputs, n_dims, n_steps, pool
        conv, norm, pooling = _KINDS[n_dims]
        widths = [n_inputs, *(n_features // 2**i for i in reversed(range(n_stages)))]
        self.convs = nn.ModuleList(
            conv(n_in, n_out, 3, padding=1, bias=False, bits=bits)
            for n_in, n_out in zip(widths[:-1], widths[1:], strict=True)
        )
        self.norms = nn.ModuleList(norm(width) for width in widths[1:])
        self.neurons = nn.ModuleList(neuron(1.0) for _ in range(n_stages))
        self.pooling = pooling(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Rows of spikes.

        Parameters
        ----------
        x
            Images ``(B, N, n_inputs, height, width)`` or feature vectors ``(B, N, n)`` of N spots.

        Returns
        -------
        ``(T, B, N, C)``, or ``(T, B * N, n_positions, C)`` without `pool`.
        """
        n_sets, n_rows = x.shape[:2]
        images = self._patches(x) if self.n_dims == 1 else x.flatten(0, 1)
        if images.dim() != self.n_dims + 2 or images.shape[1] != self.n_inputs:
            raise ValueError(f"Expected images (sets, spots, {self.n_inputs}, height, width), found {tuple(x.shape)}.")
        for conv, norm, neuron in zip(self.convs, self.norms, self.neurons, strict=True):
            currents = norm(conv(images))
            if conv is self.convs[0]:  # the same at all steps: made once
                currents = currents.expand(self.n_steps, *currents.shape)
            else:
                currents = currents.unflatten(0, (self.n_steps, -1))
            images = self.pooling(neuron(currents).flatten(0, 1))
        positions = images.flatten(2).unflatten(0, (self.n_steps, -1))
        if self.pool:
            return positions.amax(-1).unflatten(1, (n_sets, n_rows))
        return positions.mT

    def _patches(self, x: Tensor) -> Tensor:
        """``(B, N, n)`` to ``(B N, n_inputs, n_patches)``."""
        if x.dim() != 3:
            raise ValueError(f"Expected feature vectors (sets, spots, features), found {tuple(x.shape)}.")
        filled = F.pad(x, (0, -x.shape[-1] % self.n_inputs))
        return filled.flatten(0, 1).unflatten(-1, (-1, self.n_inputs)).mT
