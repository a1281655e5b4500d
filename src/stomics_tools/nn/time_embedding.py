"""Times of a diffusion as vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_SCALE = 1000.0


class TimeEmbedding(nn.Module):
    """Sinusoids of a time in [0, 1], then a perceptron.

    Frequency i of F is ``max_period^(-i / F)`` radians a thousandth: from 1 downwards, evenly in the logarithm. Each
    gives a cosine and a sine.

    Parameters
    ----------
    width
        Width of the outcome.
    max_period
        The longest period is nearly ``2 pi max_period`` thousandths.
    n_frequencies
        Number F of frequencies.

    Source: embedding of times of Ho et al., Denoising diffusion probabilistic models, 2020.
    """

    def __init__(self, width: int, *, max_period: float = 10_000.0, n_frequencies: int = 256) -> None:
        super().__init__()
        if n_frequencies < 1:
            raise ValueError(f"`n_frequencies` must be at least 1, found {n_frequencies}.")
        if max_period <= 1:
            raise ValueError(f"`max_period` must be above 1, found {max_period}.")
        self.max_period, self.n_frequencies = max_period, n_frequencies
        self.perceptron = nn.Sequential(nn.Linear(2 * n_frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Embedding ``(..., width)``, in the type of the weights, of times `t` ``(...)``, floats in [0, 1]."""
        return self.perceptron(self.sinusoids(t).to(next(self.parameters()).dtype))

    def sinusoids(self, t: Tensor) -> Tensor:
        """Cosines, then sines ``(..., 2 n_frequencies)``, float32 or float64, of times `t` ``(...)``.

        Raises ``ValueError`` if `t` is no float: a whole number would be a step, not a time.
        """
        if not t.is_floating_point():
            raise ValueError(f"`t` must be floats in [0, 1], found {t.dtype}.")
        # Not in a lower precision, and frequencies that no cast of the module changes.
        dtype = torch.promote_types(t.dtype, torch.float32)
        index = torch.arange(self.n_frequencies, dtype=dtype, device=t.device)
        frequencies = torch.exp(-math.log(self.max_period) / self.n_frequencies * index)
        angles = _SCALE * t.to(dtype).unsqueeze(-1) * frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=-1)
