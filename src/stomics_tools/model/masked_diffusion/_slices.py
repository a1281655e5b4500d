"""Slices of cells as tensors, in the units of the networks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import embedding_bag


@dataclass(frozen=True)
class Slice:
    """The cells of one slice.

    ``genes`` ``(n, G)`` standardised, zero for those not measured; ``measured`` ``(G,)``, 0 or 1; ``latent`` ``(n, L)``;
    ``position`` ``(n, d)`` in the common frame; ``near`` int64 ``(n, k)``: other cells, the nearest first; ``fold``
    int64 ``(n,)``.
    """

    genes: Tensor
    measured: Tensor
    latent: Tensor
    position: Tensor
    near: Tensor
    fold: Tensor

    @property
    def n_obs(self) -> int:
        """Number of cells."""
        return len(self.genes)


def nearest(position: np.ndarray, n: int) -> Tensor:
    """The `n` nearest other cells of each (as far as there are so many), int64 ``(n_obs, n)``, the nearest first."""
    n = min(n, len(position) - 1)
    found = cKDTree(position).query(position, n + 1)[1].reshape(len(position), n + 1)
    # Where cells coincide a cell is not always its own nearest: it is taken out wherever it is.
    own = found == np.arange(len(position))[:, None]
    own[~own.any(axis=1), -1] = True
    return torch.as_tensor(found[~own].reshape(len(position), n))


def around(latent: Tensor, near: Tensor, known: Tensor, n_neighbors: int) -> Tensor:
    """Means of the latent values of a cell's nearest known neighbours: a third, as many as, and twice `n_neighbors`.

    Parameters
    ----------
    latent
        ``(n_all, L)``, of all cells of the slice.
    near
        int64 ``(n, k)``, see :func:`nearest`, of the cells that are asked for.
    known
        Boolean ``(n_all,)``: whose values may be used.

    Returns
    -------
    ``(n, 3 L)``, zero where no neighbour is known.
    """
    usable = known[near]
    rank = usable.cumsum(1)
    starts = torch.arange(len(near)) * near.shape[1]
    means = []
    for n in (max(n_neighbors // 3, 1), n_neighbors, 2 * n_neighbors):
        weight = (usable & (rank <= n)).to(latent)
        # Sums of rows that are never gathered: values of all neighbours would fill gigabytes.
        total = embedding_bag(near.flatten(), latent, starts, mode="sum", per_sample_weights=weight.flatten())
        means.append(total / weight.sum(1, keepdim=True).clamp(min=1))
    return torch.cat(means, dim=-1)
