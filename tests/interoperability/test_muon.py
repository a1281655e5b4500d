"""Functions of muon on a MuData with our results, and our model beside its own integration."""

from __future__ import annotations

import matplotlib
import muon as mu
import numpy as np
import pytest
import scanpy as sc
from matplotlib import pyplot as plt

import stomics_tools as st
from stomics_tools._compat import columns_as_given

matplotlib.use("agg")
MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture
def mdata(trained):
    # Before mudata 0.4, its default way to update cannot reorder the tables of an `obsm`.
    with columns_as_given():
        yield trained("PRAGASpike").data.copy()


def test_leiden_of_the_latents_of_modalities(trained, mdata):
    model = trained("PRAGASpike").model
    latents = {name: model.get_latent_representation(mdata, modality=name) for name in mdata.mod}
    for name, modality in mdata.mod.items():
        modality.obsm["X_own"] = latents[name][mdata.obs_names.get_indexer(modality.obs_names)]
    mu.pp.intersect_obs(mdata)
    for modality in mdata.mod.values():
        sc.pp.neighbors(modality, use_rep="X_own", n_neighbors=10)
    mu.tl.leiden(mdata, resolution=1.0, random_state=0)
    assert mdata.obs["leiden"].nunique() > 1


def test_plots(mdata):
    for basis in ("X_praga_spike", "spatial"):
        axes = mu.pl.embedding(mdata, basis=basis, color="domain", show=False)
        assert len(axes.collections[0].get_offsets()) == mdata.n_obs
    plt.close("all")


def test_spots_of_all_modalities(mdata):
    before = {name: mdata[name].obs_names.copy() for name in mdata.mod}
    latent = dict(zip(mdata.obs_names, mdata.obsm["X_praga_spike"], strict=True))
    mu.pp.intersect_obs(mdata)
    assert set(mdata.obs_names) == set.intersection(*map(set, before.values()))
    assert mdata.n_obs < len(before["rna"])
    np.testing.assert_array_equal(mdata.obsm["X_praga_spike"], [latent[name] for name in mdata.obs_names])
    graph = mdata.obsp["praga_spike_spatial_connectivities"]
    assert graph.shape == (mdata.n_obs, mdata.n_obs)


def test_filtered_data_are_set_up_again(mdata):
    kept = mdata.obs_names[mdata.obs["slice"] == "slice0"]
    mu.pp.filter_obs(mdata, "slice", lambda column: column == "slice0")
    assert mdata.obs_names.tolist() == kept.tolist()
    st.model.PRAGASpike.setup_mudata(mdata, MODALITIES)
    model = st.model.PRAGASpike(mdata, n_latent=8)
    model.train(max_epochs=1, **QUIET)
    assert mdata.obsm["X_praga_spike"].shape == (len(kept), 8)
