"""Nearest neighbours of cells as sparse weights, in which cells at one distance share what is left for them.

A search for k neighbours breaks ties by rounding or by the order of the cells: on a grid of spots, or where many cells
are predicted on one point, its answer depends on the pose. Here all cells nearer than the k-th distance have weight 1,
and those at that distance (up to rounding) share the rest equally, so that every row sums to k.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import sparse
from scipy.spatial import KDTree

from stomics_tools._validate import check_integer
from stomics_tools.metrics._positions import TIE, gyration_radius

_BLOCK = 512


class Neighbors:
    """Neighbours of cells by position.

    Parameters
    ----------
    points
        Positions about their centre ``(n_obs, 2 or 3)``, not all on one point.
    n_neighbors
        Neighbours of each cell, itself not counted; below `n_obs`.
    """

    def __init__(self, points: np.ndarray, n_neighbors: int) -> None:
        self.points = points
        self.n_neighbors = n_neighbors
        self.tolerance = TIE * gyration_radius(points)
        self._tree = KDTree(points)

    def weights(self, rows: np.ndarray) -> sparse.csr_array:
        """Weights of all cells as neighbours of some, ``(len(rows), n_obs)`` CSR in [0, 1], each row summing to k."""
        n_obs, k = len(self.points), self.n_neighbors
        centres = self.points[rows]
        radius = self._tree.query(centres, k=[k + 1])[0][:, 0]  # the cell itself is among the k + 1
        found = self._tree.query_ball_point(centres, radius + self.tolerance)
        row = np.repeat(np.arange(len(rows)), [len(f) for f in found])
        column = np.concatenate(found).astype(np.int64)
        other = column != rows[row]
        row, column = row[other], column[other]
        distance = np.sqrt(((self.points[column] - centres[row]) ** 2).sum(axis=1))
        inside = distance < radius[row] - self.tolerance
        n_inside = np.bincount(row[inside], minlength=len(rows))
        share = (k - n_inside) / (np.bincount(row, minlength=len(rows)) - n_inside)
        weight = np.where(inside, 1.0, share[row])
        return sparse.csr_array((weight, (row, column)), shape=(len(rows), n_obs))


def blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Indices of cells in blocks so small that the weights of one fit wherever the positions do."""
    return (rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK))


def check_n_neighbors(n_neighbors: int, n_obs: int, *, largest: int) -> int:
    """Return the number of neighbours; ``ValueError`` if it is above the `largest` that `n_obs` cells allow."""
    check_integer(n_neighbors, argument="n_neighbors")
    if n_neighbors > largest:
        raise ValueError(f"`n_neighbors={n_neighbors}` must be at most {largest} with {n_obs} cells. Lower it.")
    return n_neighbors
