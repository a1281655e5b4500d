from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from scipy import sparse

from stomics_tools.data import Modality, Spots


def _spots(
    values: Mapping[str, np.ndarray],
    coordinates: np.ndarray,
    *,
    missing: Mapping[str, np.ndarray] | None = None,
    batch: np.ndarray | None = None,
    spatial_graph: sparse.csr_matrix | None = None,
    feature_graphs: Mapping[str, sparse.csr_matrix] | None = None,
) -> Spots:
    modalities = {}
    for name, x in values.items():
        present = np.ones(len(x), dtype=bool)
        if missing is not None and name in missing:
            present[missing[name]] = False
        shown = np.where(present[:, None], x, 0).astype(np.float32)
        modalities[name] = Modality(shown, present, tuple(f"{name}{i}" for i in range(x.shape[1])))
    batch = np.zeros(len(coordinates), dtype=np.int64) if batch is None else batch
    names = [f"slice{b}" for b in np.unique(batch)]
    graphs = dict(feature_graphs or {})
    return Spots(modalities, np.asarray(coordinates, dtype=np.float64), batch, names, spatial_graph, graphs)


@pytest.fixture
def spots_of():
    """Maker of the arrays that a model reads."""
    return _spots


@pytest.fixture
def grid():
    """Maker of the coordinates of a square lattice."""

    def make(side: int) -> np.ndarray:
        return np.stack(np.unravel_index(np.arange(side * side), (side, side)), axis=1).astype(np.float64)

    return make
