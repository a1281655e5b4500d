from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from stomics_tools.pp import rna


@pytest.fixture
def counts() -> np.ndarray:
    """90 spots x 160 genes in three programmes; two genes found nowhere, two in few spots, one empty spot."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(0.5, 2.0, size=(3, 160))[np.arange(90) % 3] * rng.uniform(0.3, 3, size=(90, 1))
    x = rng.poisson(rates)
    x[:, [7, 90]] = 0
    x[:, [11, 50]] = 0
    x[:3, 11], x[4:8, 50] = 1, 2
    x[5] = 0
    return x


def adata_of(x) -> AnnData:
    return AnnData(sparse.csr_matrix(x, dtype=np.float32))


def published(x, *, min_cells, n_top_genes, n_comps, scale):
    """The recipe in scanpy's own steps, dense."""
    a = AnnData(np.asarray(x, dtype=np.float64))
    sc.pp.filter_genes(a, min_cells=max(min_cells, 1))
    sc.pp.highly_variable_genes(a, flavor="seurat_v3", n_top_genes=n_top_genes)
    sc.pp.normalize_total(a, target_sum=1e4)
    sc.pp.log1p(a)
    a = a[:, a.var["highly_variable"]].copy()
    if scale:
        sc.pp.scale(a)
    x = a.X - a.X.mean(axis=0)
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    return a.var_names, u[:, :n_comps] * s[:n_comps], s**2 / (s**2).sum()


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("min_cells", [0, 10])
def test_equals_the_published_steps(counts, min_cells, scale):
    a = adata_of(counts)
    rna(a, n_top_genes=80, min_cells=min_cells, n_comps=6, scale=scale, target_sum=1e4)
    genes, scores, ratio = published(counts, min_cells=min_cells, n_top_genes=80, n_comps=6, scale=scale)
    assert set(a.var_names[a.var["highly_variable"]]) == set(genes)
    sign = np.sign((a.obsm["X_pca"] * scores).sum(axis=0))
    np.testing.assert_allclose(a.obsm["X_pca"], scores * sign, atol=1e-4 * np.abs(scores).max())
    np.testing.assert_allclose(a.uns["X_pca"]["variance_ratio"], ratio[:6], rtol=1e-6)
    assert a.obsm["X_pca"].dtype == np.float32


def test_writes_only_results(counts):
    a = adata_of(counts)
    a.layers["other"] = a.X * 2
    before = a.copy()
    assert rna(a, n_top_genes=80, n_comps=5) is None
    assert (a.X != before.X).nnz == 0
    assert (a.layers["other"] != before.layers["other"]).nnz == 0
    assert a.varm["X_pca"].shape == (160, 5)
    assert not a.varm["X_pca"][~a.var["highly_variable"]].any()
    assert a.varm["X_pca"][a.var["highly_variable"]].any(axis=1).all()


def test_layer_and_copy(counts):
    a = adata_of(np.ones_like(counts))
    a.layers["counts"] = sparse.csr_matrix(counts, dtype=np.float32)
    plain = rna(adata_of(counts), n_top_genes=80, n_comps=5, copy=True)
    other = rna(a, layer="counts", n_top_genes=80, n_comps=5, key_added="X_other", copy=True)
    np.testing.assert_array_equal(other.obsm["X_other"], plain.obsm["X_pca"])
    assert not a.obsm
    assert not a.uns


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array])
@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.float32, np.float64])
def test_any_storage_gives_the_same(counts, form, dtype):
    expected = rna(adata_of(counts), n_top_genes=80, n_comps=5, copy=True)
    a = rna(AnnData(form(counts.astype(dtype))), n_top_genes=80, n_comps=5, copy=True)
    np.testing.assert_allclose(a.obsm["X_pca"], expected.obsm["X_pca"], atol=1e-5)


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_backed_file_and_round_trip(counts, tmp_path, form):
    expected = rna(adata_of(counts), n_top_genes=80, n_comps=5, copy=True)
    AnnData(form(counts.astype(np.float32))).write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    rna(backed, n_top_genes=80, n_comps=5)
    np.testing.assert_allclose(backed.obsm["X_pca"], expected.obsm["X_pca"], atol=1e-5)
    expected.write_h5ad(tmp_path / "b.h5ad")
    params = ad.read_h5ad(tmp_path / "b.h5ad").uns["X_pca"]["params"]
    assert (params["n_top_genes"], params["n_comps"]) == (80, 5)
    totals = counts.sum(axis=1)
    assert params["target_sum"] == 4 * np.median(totals[totals > 0])


@pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
def test_a_view_becomes_its_own_object(counts):
    parent = adata_of(counts)
    view = parent[:60]
    rna(view, n_top_genes=80, n_comps=5)
    expected = rna(adata_of(counts[:60]), n_top_genes=80, n_comps=5, copy=True)
    np.testing.assert_allclose(view.obsm["X_pca"], expected.obsm["X_pca"], atol=1e-6)
    assert not parent.obsm
    assert "highly_variable" not in parent.var


def test_small_panels_use_all_genes_and_all_components_there_are(counts):
    a = adata_of(counts[:, 20:32])
    rna(a)
    assert a.obsm["X_pca"].shape == (90, 11)
    assert a.uns["X_pca"]["params"]["n_comps"] == 11
    assert a.var["highly_variable"].all()
    assert np.isfinite(a.obsm["X_pca"]).all()


def test_genes_that_never_vary_are_harmless(counts):
    """Genes found nowhere are left out, others that are constant after normalisation weigh nothing."""
    a = adata_of(np.column_stack([np.full(90, 3), np.zeros(90), np.full(90, 1)]))
    with pytest.raises(ValueError, match="no feature varies"):
        rna(a)
    assert not a.obsm
    a = adata_of(np.column_stack([counts[:, 20:32], np.zeros((90, 2))]))
    rna(a)
    assert a.var["highly_variable"].tolist() == [True] * 12 + [False] * 2


def test_empty_spots_are_finite_and_alike(counts):
    counts[[8, 9]] = 0
    a = adata_of(counts)
    rna(a, n_top_genes=80, n_comps=5)
    assert np.isfinite(a.obsm["X_pca"]).all()
    np.testing.assert_allclose(a.obsm["X_pca"][8], a.obsm["X_pca"][5], atol=1e-6)


def test_same_seed_same_result_without_global_state(counts):
    np.random.seed(1)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (rna(adata_of(counts), n_top_genes=80, copy=True).obsm["X_pca"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_fractions_warn_and_whole_numbers_do_not(counts):
    with pytest.warns(UserWarning, match="`adata.X` holds fractional values"):
        rna(adata_of(counts / 3), n_top_genes=80)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        rna(adata_of(counts), n_top_genes=80)


@pytest.mark.parametrize(
    ("spoil", "arguments", "error", "message"),
    [
        (-1.0, {}, ValueError, "negative values \\(minimum -1\\)"),
        (np.nan, {}, ValueError, "1 NaN or infinite"),
        (np.inf, {}, ValueError, "1 NaN or infinite"),
        (1.0, {"layer": "conts"}, KeyError, "Did you mean 'counts'"),
        (1.0, {"n_comps": 0}, ValueError, "`n_comps` must be at least 1"),
        (1.0, {"n_top_genes": 0}, ValueError, "`n_top_genes` must be at least 1"),
        (1.0, {"target_sum": 0}, ValueError, "`target_sum`"),
        (1.0, {"min_cells": 91}, ValueError, "of 0 usable features"),
    ],
)
def test_errors_leave_the_object_alone(counts, spoil, arguments, error, message):
    a = adata_of(counts)
    a.layers["counts"] = a.X.copy()
    a.X[0, 0] = spoil
    with pytest.raises(error, match=message):
        rna(a, **arguments)
    assert not a.obsm
    assert not a.uns
    assert a.var.columns.empty


def test_no_counts_at_all():
    with pytest.raises(ValueError, match="`adata.X` is empty"):
        rna(AnnData(shape=(5, 4)))


def test_variances_that_cannot_be_modelled():
    """Genes with one and the same mean: the message says what to do, and that works."""
    values = np.random.default_rng(0).poisson(2, 60)
    a = adata_of(np.column_stack([np.random.default_rng(g).permutation(values) for g in range(30)]))
    with pytest.raises(ValueError, match="`n_top_genes=5`: the variances of 30 genes.*`n_top_genes=None`"):
        rna(a, n_top_genes=5)
    rna(a, n_top_genes=None, n_comps=3)
    assert a.obsm["X_pca"].shape == (60, 3)
