"""The models at sizes that train in seconds, for checks of machines rather than of methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def two_modalities(n_obs: int) -> Any:
    """30 features each on a square lattice."""
    from anndata import AnnData

    rng = np.random.default_rng(0)
    side = int(np.ceil(n_obs**0.5))
    xy = np.stack(np.unravel_index(np.arange(n_obs), (side, side)), axis=1).astype(float)
    waves = np.sin(2 * np.pi * xy / side)
    adata = AnnData(np.zeros((n_obs, 1), dtype=np.float32), obsm={"spatial": xy * 100.0})
    for name in ("a", "b"):
        values = waves @ rng.normal(size=(2, 30)) + rng.normal(size=(n_obs, 30))
        adata.obsm[name] = values.astype(np.float32)
    return adata


def praga(n_obs: int, **how: Any) -> Any:
    """Two modalities, which are not centred: as published, it would diverge on them."""
    import stomics_tools as st

    adata = two_modalities(n_obs)
    st.model.PRAGA.setup_anndata(adata, {"a": "a", "b": "b"})
    return st.model.PRAGA(adata, **{"data_type": "spots", "standardize": True, **how})


def praga_spike(n_obs: int, **how: Any) -> Any:
    """Two modalities."""
    import stomics_tools as st

    adata = two_modalities(n_obs)
    st.model.PRAGASpike.setup_anndata(adata, {"a": "a", "b": "b"})
    return st.model.PRAGASpike(adata, **how)


def graphst(n_obs: int, **how: Any) -> Any:
    """Counts of simulated RNA."""
    import stomics_tools as st

    adata = st.datasets.simulate_multiomics(n_obs=n_obs, n_domains=5, modalities=["rna"], seed=0)["rna"]
    st.model.GraphST.setup_anndata(adata)
    return st.model.GraphST(adata, **how)


def var_st(n_obs: int, **how: Any) -> Any:
    """Simulated histology."""
    import stomics_tools as st

    adata = st.datasets.simulate_histology(seed=0)
    adata = adata[:: max(adata.n_obs // n_obs, 1)].copy()
    st.model.VARST.setup_anndata(adata, "X_image", patient_key="patient", section_key="section")
    return st.model.VARST(adata, size="tiny", **how)


def masked_diffusion(n_obs: int, **how: Any) -> Any:
    """Simulated sections."""
    import stomics_tools as st

    cells = st.datasets.simulate_sections(seed=0)
    cells = cells[:: max(cells.n_obs // n_obs, 1)].copy()
    st.model.MaskedDiffusion.setup_anndata(cells, batch_key="section")
    return st.model.MaskedDiffusion(cells, **{"width": 32, "n_layers": 2, "n_window": 128, **how})


MAKE: dict[str, Callable[..., Any]] = {
    "PRAGA": praga,
    "PRAGASpike": praga_spike,
    "GraphST": graphst,
    "VARST": var_st,
    "MaskedDiffusion": masked_diffusion,
}


def train(model: Any, max_epochs: int, **how: Any) -> None:
    """One call for all models; every epoch is run."""
    if type(model).__name__ == "PRAGASpike":
        how.setdefault("early_stopping", False)
    model.train(max_epochs=max_epochs, enable_progress_bar=False, key_added=None, seed=0, **how)
