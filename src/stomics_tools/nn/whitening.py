"""Vectors to zero mean and unit covariance, by running statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stomics_tools.nn._ranks import sum_over_ranks
from stomics_tools.nn.codes import check_width


class RunningWhitening(nn.Module):
    """Whitening by a running mean and covariance: ``L^-1 (x - mean)`` with ``L L^T = covariance + ridge``.

    In training a call first takes its rows into the statistics. These are the mean and covariance of all rows so far, a
    call having weight ``(1 - momentum)^age``, and carry no gradient. The ridge is `eps` times the mean variance (`eps`
    where nothing varies), so that dimensions without variance do no harm. Before the first update the map is the
    identity. Under ``torch.distributed`` the rows of all ranks count.

    Parameters
    ----------
    dim
        Numbers in a vector.
    momentum
        Weight of the last call in the long run, above 0 and at most 1.
    eps
        Ridge in units of the mean variance.
    """

    mean: Tensor
    covariance: Tensor
    n_updates: Tensor

    def __init__(self, dim: int, momentum: float = 0.05, eps: float = 1e-5) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"`dim` must be at least 1, found {dim}.")
        if not 0 < momentum <= 1:
            raise ValueError(f"`momentum` must be above 0 and at most 1, found {momentum}.")
        if not 0 < eps < 1:
            raise ValueError(f"`eps` must be above 0 and below 1, found {eps}.")
        self.dim, self.momentum, self.eps = dim, momentum, eps
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("covariance", torch.eye(dim))
        self.register_buffer("n_updates", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        """Whitened `x` ``(..., dim)``."""
        check_width(x, self.dim)
        with torch.autocast(x.device.type, enabled=False):
            if self.training:
                self._update(x.detach().reshape(-1, self.dim).to(self.mean.dtype))
            centred = x - self.mean
            eye = torch.eye(self.dim, dtype=torch.float64)
            inverse = torch.linalg.solve_triangular(self._factor(), eye, upper=False)
            return centred @ inverse.T.to(centred)

    def inverse(self, z: Tensor) -> Tensor:
        """Vectors ``(..., dim)`` whose whitened form is `z` ``(..., dim)``."""
        with torch.autocast(z.device.type, enabled=False):
            return z @ self._factor().T.to(z) + self.mean

    @torch.no_grad()
    def _update(self, rows: Tensor) -> None:
        n = sum_over_ranks(torch.tensor(float(len(rows)), device=rows.device))
        mean = sum_over_ranks(rows.sum(0)) / n
        centred = rows - mean
        covariance = sum_over_ranks(centred.T @ centred) / n
        self.n_updates += 1
        keep = 1 - self.momentum
        step = (1 - keep) / (1 - keep ** self.n_updates.item())
        shift = mean - self.mean
        self.mean += step * shift
        self.covariance.lerp_(covariance, step).add_(torch.outer(shift, shift), alpha=step * (1 - step))

    def _factor(self) -> Tensor:
        """The lower factor L ``(dim, dim)``, float64 on the CPU: the ridge is below the precision of float32."""
        covariance = self.covariance.to("cpu", torch.float64)
        eye = torch.eye(self.dim, dtype=torch.float64)
        if not self.n_updates:
            return eye
        ridge = self.eps * (covariance.trace().item() / self.dim or 1.0)
        return torch.linalg.cholesky(covariance + ridge * eye)

    def extra_repr(self) -> str:
        """Shown by ``print``."""
        return f"dim={self.dim}, momentum={self.momentum}"
