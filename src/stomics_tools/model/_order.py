"""Rows along a space-filling curve, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass
class Ordered:
    """What stands in the order of a space-filling curve; ``order`` is the row of the object at each place."""

    order: np.ndarray

    @property
    def n_obs(self) -> int:
        """Number of spots."""
        return len(self.order)

    def restore(self, rows: np.ndarray) -> np.ndarray:
        """Rows along the curve back to the order of the object."""
        result = np.empty_like(rows)
        result[self.order] = rows
        return result

    def restore_graph(self, matrix: sparse.csr_matrix) -> sparse.csr_matrix:
        """A graph along the curve back to the order of the object."""
        place = np.empty_like(self.order)
        place[self.order] = np.arange(len(place))
        restored = matrix[place][:, place].tocsr()
        restored.sort_indices()
        return restored
