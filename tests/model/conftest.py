from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}


def make_adata(n_obs: int = 160, seed: int = 0) -> AnnData:
    """Four quadrants; RNA tells left from right, protein top from bottom."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(n_obs**0.5))
    xy = np.stack(np.unravel_index(np.arange(n_obs), (side, side)), axis=1) * 100.0
    right, top = (xy > side * 50).T
    rna = 1.5 * np.outer(right - 0.5, rng.normal(size=20)) + rng.normal(size=(n_obs, 20))
    protein = 1.5 * np.outer(top - 0.5, rng.normal(size=8)) + rng.normal(size=(n_obs, 8))
    counts = rng.poisson(3, size=(n_obs, 12)).astype(np.float32)
    adata = AnnData(sparse.csr_matrix(counts), obs=pd.DataFrame(index=[f"spot{i}" for i in range(n_obs)]))
    adata.obs["domain"] = pd.Categorical((right + 2 * top).astype(str))
    adata.obs["slice"] = pd.Categorical(
        np.where(np.arange(n_obs) < n_obs // 2, "a", "b"), categories=["a", "b", "unused"]
    )
    adata.obsm.update({"X_pca": rna - rna.mean(0), "X_protein": protein - protein.mean(0), "spatial": xy})
    return adata


def make_mdata(n_obs: int = 160, seed: int = 0) -> MuData:
    adata = make_adata(n_obs, seed)
    parts = {}
    for name, key in MODALITIES.items():
        parts[name] = AnnData(adata.X.copy(), obs=adata.obs[[]].copy(), obsm={key: adata.obsm[key]})
        parts[name].var_names = [f"{name}{i}" for i in range(adata.n_vars)]
    mdata = MuData(parts)
    mdata.obsm["spatial"] = adata.obsm["spatial"]
    mdata.obs["slice"] = adata.obs["slice"].to_numpy()
    return mdata


@pytest.fixture
def adata() -> AnnData:
    return make_adata()


@pytest.fixture
def mdata() -> MuData:
    return make_mdata()
