"""Functions of scanpy and squidpy on what models write."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import scanpy as sc
import squidpy as sq
from matplotlib import pyplot as plt
from mudata import MuData
from scipy import sparse

import stomics_tools as st

matplotlib.use("agg")
N_NEIGHBORS = 10


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_neighbors_leiden_umap_and_plot(each):
    data, rep = each.data.copy(), f"X_{each.key}"
    sc.pp.neighbors(data, n_neighbors=N_NEIGHBORS, use_rep=rep, random_state=0)
    latent = each.model.get_latent_representation()
    distance = np.linalg.norm(latent[:, None] - latent, axis=2)
    stored = data.obsp["distances"].toarray()
    rows, columns = stored.nonzero()
    np.testing.assert_allclose(stored[rows, columns], distance[rows, columns], rtol=1e-3, atol=1e-5)
    sc.tl.leiden(data, flavor="igraph", n_iterations=2, directed=False, random_state=0, key_added="groups")
    assert data.obs["groups"].dtype == "category"
    assert data.obs["groups"].nunique() > 1
    sc.tl.umap(data, random_state=0, maxiter=20)
    assert np.isfinite(data.obsm["X_umap"]).all()
    for basis in ("X_umap", rep, "spatial"):
        axes = sc.pl.embedding(data, basis=basis, color="groups", show=False)
        assert len(axes.collections[0].get_offsets()) == data.n_obs


def test_our_graphs_serve_as_neighbors(trained):
    data = trained("PRAGASpike").data.copy()
    key = "praga_spike_spatial_connectivities"
    graph = data.obsp[key] + data.obsp[key].T
    sc.tl.leiden(data, adjacency=graph, flavor="igraph", n_iterations=2, directed=False, key_added="groups")
    slices = data.obs.groupby("groups", observed=True)["slice"].nunique()
    assert (slices == 1).all()  # no edge joins two slices


def test_modality_latents_in_modalities(trained):
    model, data, _ = trained("PRAGASpike")
    assert isinstance(data, MuData)
    data = data.copy()
    rna = data["rna"]
    rows = data.obs_names.get_indexer(rna.obs_names)
    rna.obsm["X_own"] = model.get_latent_representation(modality="rna")[rows]
    sc.pp.neighbors(rna, use_rep="X_own", n_neighbors=N_NEIGHBORS)
    assert rna.obsp["connectivities"].shape == (rna.n_obs, rna.n_obs)


def test_spatial_neighbors_and_neighborhood_enrichment(domains):
    adata = domains.copy()
    sq.gr.spatial_neighbors_knn(adata, n_neighs=6, library_key="slice")
    sq.gr.nhood_enrichment(adata, cluster_key="found", n_perms=50, seed=0, show_progress_bar=False, n_jobs=1)
    score = adata.uns["found_nhood_enrichment"]["zscore"]
    n_found = adata.obs["found"].nunique()
    assert score.shape == (n_found, n_found)
    assert (np.diag(score) > score[~np.eye(n_found, dtype=bool)].max()).all()  # domains are patches
    sq.pl.nhood_enrichment(adata, cluster_key="found")


def test_a_graph_of_squidpy_in_our_model(domains):
    adata = domains.copy()
    sq.gr.spatial_neighbors_radius(adata, radius=110.0, library_key="slice")
    st.model.GraphST.setup_anndata(adata, batch_key="slice", spatial_graph_key="spatial_connectivities", n_top_genes=50)
    model = st.model.GraphST(adata, n_latent=4)
    model.train(max_epochs=1, enable_progress_bar=False, accelerator="cpu")
    ours = adata.obsp["graphst_spatial_connectivities"]
    given = adata.obsp["spatial_connectivities"] + sparse.eye(adata.n_obs)
    assert not ((ours != 0).astype(int) - (given != 0).astype(int)).nnz


def test_autocorrelation_of_predicted_layers(trained):
    adata = trained("VARST").data.copy()
    sq.gr.spatial_neighbors_knn(adata, n_neighs=6, library_key="section")
    sq.gr.spatial_autocorr(adata, mode="moran", layer="var_st", n_perms=None, show_progress_bar=False, n_jobs=1)
    found = adata.uns["moranI"]["I"]
    weights = adata.obsp["spatial_connectivities"].toarray()
    weights = weights / weights.sum(1, keepdims=True)
    x = adata.layers["var_st"] - adata.layers["var_st"].mean(0)
    expected = (x * (weights @ x)).sum(0) / (x * x).sum(0) * len(x) / weights.sum()
    np.testing.assert_allclose(found[adata.var_names], expected, rtol=1e-3, atol=1e-4)


def test_spatial_scatter(domains):
    adata = domains.copy()
    sq.pl.spatial_scatter(adata, color="found", shape=None, library_key="slice")
    panels = [ax for ax in plt.gcf().axes if ax.collections]
    drawn = np.concatenate([np.asarray(ax.collections[0].get_offsets()) for ax in panels])
    assert len(panels) == adata.obs["slice"].nunique()
    np.testing.assert_allclose(drawn, adata.obsm["spatial"])


def test_spatial_scatter_of_a_gene_in_a_predicted_layer(trained):
    adata = trained("VARST").data.copy()
    one = adata[adata.obs["section"] == adata.obs["section"].iloc[0]].copy()
    sq.pl.spatial_scatter(one, color=one.var_names[0], layer="var_st", shape=None)
    (points, *_) = (c for c in plt.gcf().axes[0].collections if len(c.get_offsets()) == one.n_obs)
    np.testing.assert_allclose(points.get_array(), one.layers["var_st"][:, 0], rtol=1e-5)
