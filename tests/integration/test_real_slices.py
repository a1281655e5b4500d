"""From files of real tissue to domains."""

from __future__ import annotations

import anndata
import numpy as np
import pytest
import scanpy as sc
from mudata import MuData

import stomics_tools as st

QUIET = {"enable_progress_bar": False}


@pytest.mark.parametrize("replicate", ["r1", "r2"])
def test_rna_and_protein_to_domains(data_dir, replicate):
    rna = anndata.read_h5ad(data_dir / f"sim_spamosaic_{replicate}_rna.h5ad")
    protein = anndata.read_h5ad(data_dir / f"sim_spamosaic_{replicate}_adt.h5ad")
    mdata = MuData({"rna": rna, "protein": protein})
    st.pp.rna(mdata["rna"])
    st.pp.protein(mdata["protein"])
    scores = {}
    for name, modalities in {
        "both": {"rna": "X_pca", "protein": "X_protein"},
        "rna": {"rna": "X_pca"},
        "protein": {"protein": "X_protein"},
    }.items():
        st.tl.praga_spike(mdata, modalities, key_added=name, train_kwargs=QUIET)
        st.tl.spatial_domains(mdata, 5, use_rep=f"X_{name}")
        scores[name] = st.metrics.score_labels(rna.obs["gt"], mdata.obs["spatial_domain"])["ari"]
    assert scores["both"] > 0.96  # seeds gave .98 to 1; one line of smoothing .96
    assert max(scores["rna"], scores["protein"]) < 0.8  # neither modality tells all domains apart


def test_cells_that_share_their_coordinates(data_dir):
    adata = anndata.read_h5ad(data_dir / "osmfish_sscortex.h5ad")
    assert len(np.unique(adata.obsm["spatial"], axis=0)) < adata.n_obs - 400
    st.pp.rna(adata)
    st.tl.praga_spike(adata, {"rna": "X_pca"}, max_epochs=5, train_kwargs=QUIET)
    assert np.isfinite(adata.obsm["X_praga_spike"]).all()


def test_sections_are_never_joined(data_dir):
    adata = anndata.read_h5ad(data_dir / "starmap_mpfc_3sections.h5ad")
    st.pp.rna(adata)
    st.tl.praga_spike(adata, {"rna": "X_pca"}, batch_key="section", max_epochs=5, train_kwargs=QUIET)
    section = adata.obs["section"].to_numpy()
    edges = adata.obsp["praga_spike_rna_connectivities"].tocoo()
    assert (section[edges.row] == section[edges.col]).all()


def test_slices_in_three_dimensions(data_dir):
    adata = anndata.read_h5ad(data_dir / "breast_cancer_st_4layers.h5ad")
    assert adata.obsm["spatial"].shape[1] == 3
    st.pp.rna(adata)
    st.tl.praga_spike(adata, {"rna": "X_pca"}, max_epochs=5, train_kwargs=QUIET)
    assert np.isfinite(adata.obsm["X_praga_spike"]).all()


def test_on_into_scanpy_and_squidpy(data_dir):
    import squidpy as sq

    adata = anndata.read_h5ad(data_dir / "mob_st_rep12.h5ad")
    st.pp.rna(adata)
    st.tl.praga_spike(adata, {"rna": "X_pca"}, max_epochs=30, train_kwargs=QUIET)
    st.tl.spatial_domains(adata, 4, use_rep="X_praga_spike")
    sc.pp.neighbors(adata, use_rep="X_praga_spike")
    sc.tl.leiden(adata, flavor="igraph", n_iterations=2, directed=False)
    sq.gr.spatial_neighbors_knn(adata, n_neighs=6)
    sq.gr.nhood_enrichment(adata, cluster_key="spatial_domain", show_progress_bar=False, n_perms=20, seed=0)
    z = adata.uns["spatial_domain_nhood_enrichment"]["zscore"]
    assert (np.diag(z) > 0).all()  # domains hold together in space


def test_real_multi_omics_of_an_image_and_rna(data_dir):
    """Histology features as a second modality of real tissue, missing in some spots."""
    adata = anndata.read_h5ad(data_dir / "her2st_C3_image.h5ad")
    image = np.load(data_dir / "features" / "her2st_C3_handcrafted.npy").astype(np.float64)
    adata.obsm["X_image"] = (image - image.mean(0)) / (image.std(0) + 1e-9)
    adata.obsm["X_image"][::5] = np.nan
    st.pp.rna(adata)
    st.tl.praga_spike(adata, {"rna": "X_pca", "image": "X_image"}, max_epochs=20, train_kwargs=QUIET)
    assert np.isfinite(adata.obsm["X_praga_spike"]).all()
    learned = adata.obsp["praga_spike_image_connectivities"]
    np.testing.assert_array_equal(np.diff(learned.indptr)[::5], 0)
