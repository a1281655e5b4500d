"""Vectors to codes and back by a table that follows the data."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stomics_tools.nn._ranks import from_rank_zero, sum_over_ranks
from stomics_tools.nn.codes import Quantized, check_width, soft, straight_through

_CHUNK = 2**22  # distances held at once: 16 MiB in float32
_LAPLACE = 1e-5
_JITTER = 0.01  # of repeated rows, in a space of unit variance


class VectorQuantizer(nn.Module):
    """Nearest vector of a table that begins with rows of the first training batch and follows the data.

    In mode ``"ema"`` the table is moving averages, one step each training call after the codes are chosen: of the
    number of rows of a code, ``N <- g N + (1 - g) n``, and of their sum, ``m <- g m + (1 - g) sum(x)``; the vector is
    ``m / N`` with N smoothed by Laplace. A code whose N has become small beside the mean N is dead: it begins again at
    a random row of the batch, with the mean N. The loss is ``commitment * mean((z - sg(e))^2)``.

    In mode ``"vq"`` the table is a parameter, and ``mean((sg(z) - e)^2)`` is added to the loss.

    Random numbers come from the global CPU generator. Under ``torch.distributed`` the statistics are summed over the
    ranks, and random rows are those of rank 0.

    Parameters
    ----------
    n_codes, dim
        Number of codes and of numbers in each.
    mode
        ``"ema"`` or ``"vq"``.
    decay
        Share g of the old statistics that stays at each training call, mode ``"ema"`` only.
    dead_after
        Training calls without a row after which a code of mean N is dead: those with ``N < decay^dead_after mean(N)``
        are. Mode ``"ema"`` only.
    commitment
        Weight of the loss that draws the input to its code.

    Source: van den Oord et al., Neural discrete representation learning, 2017, equation 3 and appendix A.1; Razavi et
    al., 2019; restarts: Dhariwal et al., Jukebox, 2020.
    """

    weight: Tensor
    counts: Tensor
    sums: Tensor
    initialised: Tensor

    def __init__(
        self,
        n_codes: int = 4096,
        dim: int = 8,
        mode: Literal["ema", "vq"] = "ema",
        *,
        decay: float = 0.99,
        dead_after: int = 300,
        commitment: float = 0.25,
    ) -> None:
        super().__init__()
        for name, least, value in (("n_codes", 2, n_codes), ("dim", 1, dim), ("dead_after", 1, dead_after)):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, found {value}.")
        if mode not in ("ema", "vq"):
            raise ValueError(f"`mode` must be 'ema' or 'vq', found {mode!r}.")
        if not 0 < decay < 1:
            raise ValueError(f"`decay` must be above 0 and below 1, found {decay}.")
        if not 0 <= commitment < math.inf:
            raise ValueError(f"`commitment` must be at least 0 and finite, found {commitment}.")
        self.n_codes, self.dim, self.mode = n_codes, dim, mode
        self.decay, self.dead_after, self.commitment = decay, dead_after, commitment
        weight = torch.randn(n_codes, dim)
        if mode == "vq":
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("counts", torch.ones(n_codes))
            self.register_buffer("sums", weight.clone())
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, z: Tensor) -> Quantized:
        """Values and codes of `z` ``(..., dim)``, and the loss."""
        check_width(z, self.dim)
        rows = self._rows(z)
        if self.training and not self.initialised:
            self.initialise(rows)
        codes = self._nearest(rows)
        values = self.lookup(codes).view(z.shape)
        loss = self.commitment * F.mse_loss(z.to(values.dtype), values.detach())
        if self.mode == "vq":
            loss = loss + F.mse_loss(values, z.detach().to(values.dtype))
        elif self.training:
            self._follow(rows, codes)
        return Quantized(straight_through(z, values), codes.view(z.shape[:-1]), loss)

    def lookup(self, codes: Tensor) -> Tensor:
        """Values ``(..., dim)`` of codes ``(...)``."""
        return F.embedding(codes, self.weight)

    def codebook(self) -> Tensor:
        """Values ``(n_codes, dim)`` of all codes."""
        return self.weight

    @torch.no_grad()
    def soft_targets(self, codes: Tensor, temperature: float) -> Tensor:
        """Probabilities ``(..., n_codes)`` proportional to ``exp(-|e_v - e_code|^2 / temperature)``; one-hot at 0."""
        own = codes.flatten()
        return soft(self._distances(self.lookup(own)), own, temperature).view(*codes.shape, self.n_codes)

    @torch.no_grad()
    def initialise(self, z: Tensor) -> None:
        """Begin with random rows of `z` ``(..., dim)``, slightly moved where they are fewer than the codes.

        The first training call does so with its input; call it before to begin with other rows.
        """
        rows = self._rows(z)
        self.weight.copy_(self._draw(rows, self.n_codes))
        if self.mode == "ema":
            n_rows = sum_over_ranks(torch.tensor(float(len(rows)), device=rows.device))
            self.counts.copy_(n_rows / self.n_codes)
            self.sums.copy_(self.weight * self.counts.unsqueeze(1))
        self.initialised.fill_(True)

    def _rows(self, z: Tensor) -> Tensor:
        return z.detach().reshape(-1, self.dim).to(self.weight.dtype)

    def _draw(self, rows: Tensor, n: int) -> Tensor:
        chosen = torch.randperm(max(n, len(rows)))[:n] % len(rows)
        drawn = rows[chosen.to(rows.device)]
        if len(rows) < n:
            drawn = drawn + _JITTER * torch.randn(n, self.dim).to(drawn)
        return from_rank_zero(drawn)

    def _distances(self, rows: Tensor) -> Tensor:
        """Squared distances of rows to all codes, less ``|row|^2``, which is the same for all codes."""
        with torch.autocast(rows.device.type, enabled=False):
            return torch.addmm(self.weight.square().sum(1), rows, self.weight.T, alpha=-2)

    @torch.no_grad()
    def _nearest(self, rows: Tensor) -> Tensor:
        chunks = rows.split(max(1, _CHUNK // self.n_codes))
        return torch.cat([self._distances(chunk).argmin(1) for chunk in chunks])

    @torch.no_grad()
    def _follow(self, rows: Tensor, codes: Tensor) -> None:
        batch = rows.new_zeros(self.n_codes, 1 + self.dim)
        batch.index_add_(0, codes, F.pad(rows, (1, 0), value=1.0))
        n, total = sum_over_ranks(batch).split([1, self.dim], dim=1)
        self.counts.lerp_(n.squeeze(1), 1 - self.decay)
        self.sums.lerp_(total, 1 - self.decay)
        # Smoothed counts have the sum of the counts.
        mean = self.counts.mean()
        smoothed = (self.counts + _LAPLACE) * (mean / (mean + _LAPLACE))
        self.weight.copy_(self.sums / smoothed.unsqueeze(1))
        dead = (self.counts < self.decay**self.dead_after * mean).nonzero().squeeze(1)
        if len(dead):
            self.weight[dead] = self._draw(rows, len(dead))
            self.counts[dead] = mean
            self.sums[dead] = self.weight[dead] * mean

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return f"n_codes={self.n_codes}, dim={self.dim}, mode={self.mode!r}"
