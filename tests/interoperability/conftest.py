"""Small data and models trained on them once, which all tests of this folder share: tests work on copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData

import stomics_tools as st
from stomics_tools.model.masked_diffusion import _places, _priors

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}
MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
MODELS = ["PRAGA", "PRAGASpike", "GraphST", "VARST", "MaskedDiffusion"]
N_DOMAINS = 4


class Trained(NamedTuple):
    """A model and the object that holds its results under `key`."""

    model: Any
    data: AnnData | MuData
    key: str


@pytest.fixture(autouse=True)
def _short_regression(monkeypatch):
    """What comes before the diffusion takes as long for few cells as for many."""
    monkeypatch.setattr(_priors, "_VISITS", 300)
    monkeypatch.setattr(_places, "_N_STEPS", 20)


def multiomics() -> MuData:
    """Two slices of 100 spots, some of which lack the proteins."""
    mdata = st.datasets.simulate_multiomics(200, N_DOMAINS, n_batches=2, missing={"protein": 0.1}, seed=0)
    st.pp.rna(mdata["rna"], n_comps=10)
    st.pp.protein(mdata["protein"])
    return mdata


def new_model(name: str, data: AnnData | MuData) -> Any:
    """A small model of `data`, set up and not trained."""
    if name in ("PRAGA", "PRAGASpike"):
        cls = getattr(st.model, name)
        cls.setup_mudata(data, MODALITIES, batch_key="slice")
        return cls(data, n_latent=8)
    if name == "GraphST":
        st.model.GraphST.setup_anndata(data, batch_key="slice", n_top_genes=100)
        return st.model.GraphST(data, n_latent=8)
    if name == "VARST":
        st.model.VARST.setup_anndata(data, patient_key="patient", section_key="section")
        return st.model.VARST(data, size="tiny", n_layers=1)
    st.model.MaskedDiffusion.setup_anndata(data, batch_key="section")
    sizes = {"width": 16, "n_heads": 2, "n_layers": 1, "n_hidden": 32, "n_latent": 8, "n_window": 40, "n_members": 2}
    return st.model.MaskedDiffusion(data, **sizes)


def new_data(name: str) -> AnnData | MuData:
    """Data for a model of that name."""
    if name in ("PRAGA", "PRAGASpike"):
        return multiomics()
    if name == "GraphST":
        return multiomics()["rna"]
    if name == "VARST":
        return st.datasets.simulate_histology(2, 2, 30, n_genes=12, n_features=6)
    return st.datasets.simulate_sections(2, 60, 12)


@pytest.fixture(scope="session")
def trained() -> Callable[[str], Trained]:
    """Models by name, each trained when it is first asked for."""
    made: dict[str, Trained] = {}

    def get(name: str) -> Trained:
        if name not in made:
            data = new_data(name)
            model = new_model(name, data)
            model.train(max_epochs=2, **QUIET)
            made[name] = Trained(model, data, model._key)
        return made[name]

    return get


@pytest.fixture(params=MODELS)
def each(request, trained) -> Trained:
    """One model after the other."""
    return trained(request.param)


@pytest.fixture(params=MODELS)
def each_new(request) -> Callable[[], Any]:
    """Maker of a model that is not trained, one kind after the other."""
    return lambda: new_model(request.param, new_data(request.param))


@pytest.fixture(scope="session")
def domains(trained) -> AnnData:
    """The slices of GraphST with their true domains and those found by it."""
    adata = trained("GraphST").data.copy()
    st.tl.spatial_domains(adata, N_DOMAINS, use_rep="X_graphst", key_added="found")
    assert np.unique(adata.obs["found"]).size == N_DOMAINS
    return adata
