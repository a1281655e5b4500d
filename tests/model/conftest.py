from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

import stomics_tools as st

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


QUICK = {"max_epochs": 2, "seed": 0, "enable_progress_bar": False}
"""Arguments of the shortest training."""


def make_model(name: str, **arguments: Any) -> Any:
    """A small untrained model of any class, on data of its own."""
    cls = getattr(st.model, name)
    if name in ("PRAGA", "PRAGASpike"):
        adata = make_adata(64)
        cls.setup_anndata(adata, MODALITIES)
        return cls(adata, **{"n_latent": 8, **arguments})
    if name == "GraphST":
        adata = make_adata(64)
        cls.setup_anndata(adata)
        return cls(adata, **{"n_latent": 4, **arguments})
    if name == "VARST":
        adata = st.datasets.simulate_histology(2, 1, 20, n_genes=10, n_features=6, seed=0)
        cls.setup_anndata(adata, patient_key="patient", section_key="section")
        return cls(adata, **{"size": "tiny", "scales": (1, 8), **arguments})
    adata = st.datasets.simulate_sections(n_sections=2, n_cells=40, n_genes=10, seed=0)
    cls.setup_anndata(adata, batch_key="section")
    small = {"width": 16, "n_heads": 2, "n_layers": 1, "n_hidden": 32, "n_latent": 4, "n_read": 2, "n_window": 32}
    small |= {"n_neighbors": 3, "n_members": 2, "n_regression_hidden": 8}
    return cls(adata, **{**small, **arguments})


@pytest.fixture(params=["PRAGA", "PRAGASpike", "GraphST", "VARST", "MaskedDiffusion"])
def name(request: pytest.FixtureRequest) -> str:
    """Name of each model in turn."""
    return request.param


@pytest.fixture
def new_model(name: str) -> Callable[..., Any]:
    """Make a small untrained model of the class `name`."""
    return partial(make_model, name)


@pytest.fixture
def model(new_model: Callable[..., Any]) -> Any:
    """A small trained model of the class `name`."""
    made = new_model()
    made.train(**QUICK)
    return made
