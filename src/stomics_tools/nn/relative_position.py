"""Position encoding by what lies around a spot, for spots that lie anywhere."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from stomics_tools.nn.spiking_layer import lif


class SpikingRelativePosition(nn.Module):
    """A convolution over neighbours by their offsets, normalised and made spikes.

    Spiking transformers of images tell positions by a 3 x 3 convolution of each channel, whose outcome is added to the
    tokens (Zhou et al., 2023). Here neighbours lie where they lie: with a kernel on the 3^d points of a lattice of unit
    spacing, of which a neighbour at the offset ``o`` takes ``prod_k max(0, 1 - |o_k - c_k|)`` of the value at the point
    ``c`` (multilinear interpolation),

    ``y = neuron(BN(sum_j kernel(o_ij) * x_j))``, for each channel.

    On a square lattice it is that convolution. Offsets alone are read, so that moving all spots changes nothing.

    Parameters
    ----------
    n_features
        Width C.
    n_dims
        Of the coordinates.
    neuron
        Threshold to a module from ``(T, ...)`` to spikes of that shape; None for none.
    """

    points: Tensor

    def __init__(self, n_features: int, n_dims: int = 2, neuron: Callable[[float], nn.Module] | None = lif) -> None:
        super().__init__()
        points = torch.tensor(list(itertools.product((-1.0, 0.0, 1.0), repeat=n_dims)))
        self.register_buffer("points", points)
        bound = len(points) ** -0.5
        self.kernel = nn.Parameter(torch.empty(len(points), n_features).uniform_(-bound, bound))
        self.norm = nn.BatchNorm1d(n_features)
        self.neuron = nn.Identity() if neuron is None else neuron(1.0)

    def forward(self, x: Tensor, neighbors: Tensor, offsets: Tensor) -> Tensor:
        """Encoding, to be added to the tokens.

        Parameters
        ----------
        x
            ``(T, B, N, C)``.
        neighbors
            int64 ``(N, k)``: the nearest spots of each, itself among them if it is to be read.
        offsets
            ``(N, k, d)``: coordinates of these less its own, in units of the spacing of spots.

        Returns
        -------
        ``(T, B, N, C)``.
        """
        n_steps, n_sets, n_rows, n_features = x.shape
        rows = x.permute(2, 0, 1, 3).reshape(n_rows, -1)
        starts = torch.arange(0, neighbors.numel(), neighbors.shape[1], device=x.device)
        total = torch.zeros(n_rows, n_steps, n_sets, n_features, dtype=x.dtype, device=x.device)
        for point, kernel in zip(self.points, self.kernel, strict=True):
            weight = (1 - (offsets - point).abs()).clamp(min=0).prod(-1).to(x)
            # Sums of rows that are never gathered: k copies of all tokens would fill gigabytes.
            found = nn.functional.embedding_bag(
                neighbors.flatten(), rows, starts, mode="sum", per_sample_weights=weight.flatten()
            )
            total = total + found.view_as(total) * kernel
        flat = total.permute(1, 2, 0, 3).flatten(0, 2)
        return self.neuron(self.norm(flat).view(n_steps, n_sets, n_rows, n_features))
