from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from sklearn.decomposition import PCA

from stomics_tools import pp
from stomics_tools._compat import columns_as_given
from stomics_tools.cli._prepare import as_mudata, prepare


@pytest.fixture
def genes() -> AnnData:
    """80 spots x 200 genes of two kinds, most counts zero."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(0.3, 2.0, size=(2, 200))[np.arange(80) % 2]
    adata = AnnData(sparse.csr_matrix(rng.poisson(rates), dtype=np.float32))
    adata.var_names = [f"gene{i}" for i in range(200)]
    return adata


@pytest.fixture
def panel() -> AnnData:
    """80 spots x 30 proteins, hardly a count zero."""
    rng = np.random.default_rng(1)
    return AnnData(sparse.csr_matrix(rng.poisson(20 + 30 * rng.random((80, 30))), dtype=np.float32))


def only(mdata: MuData) -> tuple[str, AnnData]:
    ((name, adata),) = mdata.mod.items()
    return name, adata


def test_a_mudata_is_returned_as_it_is(genes):
    with columns_as_given():
        mdata = MuData({"a": genes})
    assert as_mudata(mdata, None) is mdata


def test_kind_of_values(genes, panel):
    assert only(as_mudata(genes, None)) == ("rna", genes)
    assert only(as_mudata(panel, None)) == ("protein", panel)
    dense = AnnData(panel.X.toarray())
    assert only(as_mudata(dense, None)) == ("protein", dense)
    assert only(as_mudata(genes[:, :30].copy(), None))[0] == "rna"
    genes.var_names = [f"chr{i % 20}:{i}00-{i}99" for i in range(200)]
    assert only(as_mudata(genes, None))[0] == "atac"
    assert only(as_mudata(genes, "protein")) == ("protein", genes)


def test_feature_types(genes, panel):
    panel.var["feature_types"] = "Gene Expression"
    assert only(as_mudata(panel, None))[0] == "rna"
    genes.var["feature_types"] = ["Gene Expression"] * 150 + ["Antibody Capture"] * 50
    mdata = as_mudata(genes, None)
    assert {name: adata.n_vars for name, adata in mdata.mod.items()} == {"rna": 150, "protein": 50}
    assert mdata["protein"].var_names.tolist() == genes.var_names[150:].tolist()


def test_several_ready_representations_are_several_modalities(genes):
    genes.obsm["X_pca"], genes.obsm["X_lsi"] = np.ones((80, 3)), np.zeros((80, 2))
    mdata = as_mudata(genes, None)
    assert list(mdata.mod) == ["rna", "atac"]
    assert prepare("atac", mdata["atac"], seed=0)[0] == "X_lsi"
    np.testing.assert_array_equal(mdata["atac"].obsm["X_lsi"], genes.obsm["X_lsi"])


@pytest.mark.parametrize(
    ("name", "recipe", "key"),
    [
        ("rna", pp.rna, "X_pca"),
        ("GEX", pp.rna, "X_pca"),
        ("adt", pp.protein, "X_protein"),
        ("Protein", pp.protein, "X_protein"),
        ("peaks", pp.atac, "X_lsi"),
        ("metabolites", pp.rna, "X_pca"),
    ],
)
def test_counts_go_through_the_recipe_of_the_modality(genes, name, recipe, key):
    expected = recipe(genes, copy=True).obsm[key]
    found, what = prepare(name, genes, seed=0)
    assert found == key
    assert what.startswith(f"{name}: recipe pp.{recipe.__name__} on counts")
    np.testing.assert_allclose(genes.obsm[key], expected, rtol=1e-5, atol=1e-5)


def test_the_layer_of_counts_comes_before_x(genes):
    expected = pp.rna(genes, copy=True).obsm["X_pca"]
    genes.layers["counts"] = genes.X.copy()
    genes.X = genes.X.log1p()
    prepare("rna", genes, seed=0)
    np.testing.assert_allclose(genes.obsm["X_pca"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [0.0, -1.0])
@pytest.mark.parametrize("wrap", [np.asarray, sparse.csr_matrix])
def test_values_that_are_no_counts_are_scaled_and_projected(shift, wrap):
    x = np.random.default_rng(0).gamma(2.0, size=(60, 12)) * np.arange(1, 13) + shift
    adata = AnnData(wrap(x))
    key, what = prepare("rna", adata, seed=0)
    assert key == "X_pca"
    assert what == "rna: no counts: scaled, PCA, 11 components"
    z = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    expected = np.abs(PCA(11, svd_solver="full").fit_transform(z))
    np.testing.assert_allclose(np.abs(adata.obsm[key]), expected, rtol=1e-3, atol=1e-3)


def test_a_ready_representation_is_taken_as_it_is(genes):
    ready = np.random.default_rng(0).normal(size=(80, 4))
    genes.obsm["X_pca"] = ready
    assert prepare("rna", genes, seed=0) == ("X_pca", "rna: obsm['X_pca'] as it is")
    assert genes.obsm["X_pca"] is ready or np.array_equal(genes.obsm["X_pca"], ready)


def test_nothing_to_start_from(genes):
    empty = AnnData(obs=genes.obs)
    with pytest.raises(ValueError, match="Modality 'rna' has no `X`.*'X_pca'"):
        prepare("rna", empty, seed=0)
