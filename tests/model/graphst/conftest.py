from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from stomics_tools.data import Modality, Spots

N_GENES = 30


def make_slice(n_obs: int = 144, seed: int = 0, n_genes: int = N_GENES) -> AnnData:
    """Counts of a slice in four quadrants, of which each has genes of its own."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(n_obs**0.5))
    xy = np.stack(np.unravel_index(np.arange(n_obs), (side, side)), axis=1) * 100.0
    domain = (xy[:, 0] >= side * 50).astype(int) + 2 * (xy[:, 1] >= side * 50)
    rate = np.where(np.arange(n_genes) % 5 == domain[:, None], 7.5, 4.0)
    counts = rng.poisson(rate * rng.uniform(0.5, 1.5, (n_obs, 1))).astype(np.float32)
    counts[0, 0] = 40
    adata = AnnData(
        sparse.csr_matrix(counts),
        obs=pd.DataFrame(index=[f"spot{i}" for i in range(n_obs)]),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)]),
    )
    adata.obs["domain"] = pd.Categorical(domain.astype(str))
    adata.obs["slice"] = pd.Categorical(np.where(np.arange(n_obs) % 2, "a", "b"), categories=["a", "b", "unused"])
    adata.obsm["spatial"] = xy + rng.normal(size=xy.shape)  # no two neighbours equally far
    return adata


@pytest.fixture
def adata() -> AnnData:
    return make_slice()


@pytest.fixture
def make_adata() -> Callable[..., AnnData]:
    return make_slice


@pytest.fixture
def spots() -> Callable[..., Spots]:
    """Spots at random places, of one slice or several."""

    def make(n_obs: int = 80, n_genes: int = 12, n_slices: int = 1, seed: int = 0, **changes: Any) -> Spots:
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(n_obs, n_genes)).astype(np.float32) + 1
        batch = np.sort(rng.integers(n_slices, size=n_obs))
        xy = rng.uniform(size=(n_obs, 2))
        modality = Modality(values, np.ones(n_obs, dtype=bool), tuple(f"gene{i}" for i in range(n_genes)))
        names = [str(i) for i in range(n_slices)]
        return Spots(
            **{
                "modalities": {"expression": modality},
                "coordinates": xy,
                "batch": batch,
                "batch_names": names,
                "spatial_graph": None,
                "feature_graphs": {},
                **changes,
            }
        )

    return make
