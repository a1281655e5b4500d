from __future__ import annotations

import itertools

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from stomics_tools.data._recipe import centred_log_ratio, inverse_document_frequency, tf_idf
from stomics_tools.pp import atac, protein


@pytest.fixture
def counts() -> np.ndarray:
    """60 spots x 25 features; one spot and one feature without counts."""
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(1.0, 4.0, size=(4, 25))[np.arange(60) % 4])
    x[6] = 0
    x[:, 9] = 0
    return x


def test_centred_log_ratio_by_the_formula(counts):
    expected = np.empty(counts.shape)
    for i, row in enumerate(counts):
        expected[i] = np.log1p(row / np.exp(np.log1p(row[row > 0]).sum() / len(row)))
    out = centred_log_ratio(sparse.csr_matrix(counts))
    np.testing.assert_allclose(out.toarray(), expected, atol=1e-14)
    assert out.nnz == (counts > 0).sum()


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_protein_is_the_pca_of_the_ratios(counts, form, scale):
    a = AnnData(form(counts.astype(np.float32)))
    protein(a, scale=scale)
    x = centred_log_ratio(sparse.csr_matrix(counts)).toarray()
    x -= x.mean(axis=0)
    if scale:
        deviation = x.std(axis=0, ddof=1)
        x /= np.where(deviation > 0, deviation, 1)
    assert a.obsm["X_protein"].shape == (60, 24)
    np.testing.assert_allclose(a.obsm["X_protein"] @ a.obsm["X_protein"].T, x @ x.T, atol=1e-3)
    np.testing.assert_allclose(a.obsm["X_protein"], x @ a.varm["X_protein"], atol=1e-4)
    assert protein(a, n_comps=7, copy=True).obsm["X_protein"].shape == (60, 7)
    assert protein(a, n_comps=99, copy=True).uns["X_protein"]["params"]["n_comps"] == 24


def test_at_most_fifty_components_by_default():
    x = np.random.default_rng(0).poisson(3, size=(70, 64))
    assert protein(AnnData(x), copy=True).obsm["X_protein"].shape == (70, 50)


def test_lsi_by_the_formula(counts):
    x = counts.astype(float)
    keep_rows, keep_columns = x.sum(1) > 0, x.sum(0) > 0
    part = x[keep_rows][:, keep_columns]
    weighted = (part / part.sum(1, keepdims=True)) * (len(x) / part.sum(0))
    weighted = np.log1p(1e4 * weighted / weighted.sum(1, keepdims=True))
    matrix = sparse.csr_matrix(counts)
    got = tf_idf(matrix, inverse_document_frequency(matrix)).toarray()
    np.testing.assert_allclose(got[np.ix_(keep_rows, keep_columns)], weighted)

    a = AnnData(sparse.csr_matrix(counts))
    atac(a, n_comps=8)
    u = np.linalg.svd(weighted, full_matrices=False)[0][:, :9]
    got = a.obsm["X_lsi"]
    assert got.shape == (60, 8)
    assert not got[6].any()
    # A component is known up to its sign, which changes the mean of a row: one of all signs must give the result.
    losses = []
    for signs in itertools.product([-1, 1], repeat=9):
        z = u * signs
        z = (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, ddof=1, keepdims=True)
        losses.append(np.abs(z[:, 1:] - got[keep_rows]).max())
    assert min(losses) < 1e-3


@pytest.mark.parametrize(("recipe", "key"), [(protein, "X_protein"), (atac, "X_lsi")])
def test_same_seed_same_result_and_input_untouched(counts, recipe, key):
    a = AnnData(sparse.csr_matrix(counts, dtype=np.float64))
    before = a.X.copy()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (recipe(a, copy=True).obsm[key] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert np.isfinite(first).all()
    assert first.dtype == np.float32
    assert (a.X != before).nnz == 0
    assert not a.obsm


@pytest.mark.parametrize("recipe", [protein, atac])
def test_params_survive_a_file(counts, recipe, tmp_path):
    import anndata as ad

    a = recipe(AnnData(counts), n_comps=5, key_added="X_k", copy=True)
    a.write_h5ad(tmp_path / "a.h5ad")
    assert ad.read_h5ad(tmp_path / "a.h5ad").uns["X_k"]["params"]["n_comps"] == 5


@pytest.mark.parametrize("recipe", [protein, atac])
def test_errors_leave_the_object_alone(counts, recipe):
    for value, message in ((-2.0, "minimum -2"), (np.inf, "1 NaN or infinite")):
        a = AnnData(counts.astype(np.float64))
        a.X[0, 0] = value
        with pytest.raises(ValueError, match=message):
            recipe(a)
        assert not a.obsm
    with pytest.raises(KeyError, match="`layer`: key 'counts' not found in `adata.layers`"):
        recipe(AnnData(counts), layer="counts")
    with pytest.raises(ValueError, match="60 observations of 1 usable features are too few"):
        recipe(AnnData(counts[:, :1]))
