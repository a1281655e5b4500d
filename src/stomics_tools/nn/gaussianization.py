"""Vectors to nearly independent standard normal numbers, and back, by statistics that follow the training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stomics_tools.nn._ranks import sum_over_ranks
from stomics_tools.nn.whitening import RunningWhitening


class RunningGaussianization(nn.Module):
    """Whitening, and then each dimension by itself to a standard normal distribution.

    Heavy tails and skew leave most levels of a scalar quantizer unused; after this map they are used alike, and codes as
    far as the dimensions are independent (one iteration of Laparra et al. 2011). The second part interpolates linearly
    between running quantiles and beyond the outermost continues with slope one. Gradients pass unchanged both ways
    (straight-through): slopes between quantiles that nearly tie are steep, and what is quantized between the map and its
    inverse meets another slope on the way back.

    Parameters
    ----------
    dim
        Numbers of a vector.
    momentum
        Weight of a new batch in the running statistics.
    n_knots
        Quantiles kept.
    n_rows
        Vectors of a batch, evenly spaced, from which quantiles are taken.
    """

    knots: Tensor
    targets: Tensor
    n_updates: Tensor

    def __init__(self, dim: int, *, momentum: float = 0.05, n_knots: int = 33, n_rows: int = 2048) -> None:
        super().__init__()
        if n_knots < 2:
            raise ValueError(f"`n_knots` must be at least 2, found {n_knots}.")
        self.momentum, self.n_rows = momentum, n_rows
        self.whitening = RunningWhitening(dim, momentum)
        chances = (torch.arange(n_knots) + 0.5) / n_knots
        targets = 2**0.5 * torch.erfinv(2 * chances - 1)
        self.register_buffer("targets", targets, persistent=False)
        self.register_buffer("knots", targets.expand(dim, -1).clone())
        self.register_buffer("n_updates", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """Nearly standard normal numbers ``(..., dim)`` of vectors ``(..., dim)``."""
        with torch.no_grad():
            white = self.whitening(x)
            if self.training:
                self._update(white.reshape(-1, white.shape[-1]).float())
            z = _interpolate(white, self.knots, self.targets.expand_as(self.knots))
        return x + (z - x).detach()

    def inverse(self, z: Tensor) -> Tensor:
        """Vectors ``(..., dim)`` that :meth:`forward` takes to `z`, with the statistics as they are."""
        with torch.no_grad():
            x = self.whitening.inverse(_interpolate(z, self.targets.expand_as(self.knots), self.knots))
        return z + (x - z).detach()

    def _update(self, rows: Tensor) -> None:
        rows = rows[:: max(len(rows) // self.n_rows, 1)]
        chances = (torch.arange(len(self.targets), device=rows.device) + 0.5) / len(self.targets)
        found = torch.quantile(rows, chances, dim=0).T  # (dim, n_knots)
        weight = sum_over_ranks(torch.ones((), device=rows.device))
        found = sum_over_ranks(found) / weight
        self.n_updates += 1
        keep = 1 - self.momentum
        self.knots.lerp_(found, (1 - keep) / (1 - keep ** self.n_updates.item()))
        # Ties, as of counts, would make the map jump: neighbours keep a small distance.
        steps = self.knots.diff(dim=1).clamp(min=1e-3)
        self.knots[:, 1:] = self.knots[:, :1] + steps.cumsum(1)


def _interpolate(x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Piecewise linear map of each dimension, ``(..., dim)``, that takes `start` to `end`, ``(dim, n_knots)`` each."""
    values = x.reshape(-1, x.shape[-1]).T.contiguous()  # (dim, n)
    right = torch.searchsorted(start.contiguous(), values).clamp(1, start.shape[1] - 1)
    x0, x1 = start.gather(1, right - 1), start.gather(1, right)
    y0, y1 = end.gather(1, right - 1), end.gather(1, right)
    inside = y0 + (values - x0) * (y1 - y0) / (x1 - x0)
    below, above = values < start[:, :1], values > start[:, -1:]
    outside = torch.where(below, end[:, :1] + values - start[:, :1], end[:, -1:] + values - start[:, -1:])
    return torch.where(below | above, outside, inside).T.reshape(x.shape)
