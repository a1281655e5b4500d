from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from stomics_tools.pp import smooth, smooth_features


@pytest.fixture
def adata() -> AnnData:
    rng = np.random.default_rng(0)
    a = AnnData(shape=(40, 0))
    a.obsm["spatial"] = rng.uniform(size=(40, 2))
    a.obsm["X_pca"] = rng.normal(size=(40, 3))
    a.obs["slice"] = pd.Categorical(np.repeat(["s2", "s1"], 20), categories=["unused", "s2", "s1"])
    return a


def mean_of_nearest(x, xy, k, include_self, batch=None):
    out = np.empty_like(x)
    for i in range(len(x)):
        distance = np.linalg.norm(xy - xy[i], axis=1)
        distance[i] = np.inf
        if batch is not None:
            distance[batch != batch[i]] = np.inf
        rows = list(np.argsort(distance)[:k]) + ([i] if include_self else [])
        out[i] = x[rows].mean(axis=0)
    return out


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("batch_key", [None, "slice"])
def test_equals_a_loop(adata, include_self, batch_key):
    batch = None if batch_key is None else np.asarray(adata.obs["slice"])
    expected = [adata.obsm["X_pca"]]
    for _ in range(3):
        expected.append(mean_of_nearest(expected[-1], adata.obsm["spatial"], 6, include_self, batch))
    for n_hops in range(4):
        smooth(adata, "X_pca", n_hops=n_hops, include_self=include_self, batch_key=batch_key)
        np.testing.assert_allclose(adata.obsm["X_smooth"], expected[n_hops], atol=1e-6)
    smooth(adata, "X_pca", n_hops=3, include_self=include_self, batch_key=batch_key, multihop=True, key_added="X_all")
    np.testing.assert_allclose(adata.obsm["X_all"], np.hstack(expected), atol=1e-6)


def test_core_on_any_graph():
    """Values of the graph do not count, and rows without neighbours have a defined mean."""
    graph = sparse.csr_matrix((np.array([0.0, 5.0, 0.1]), np.array([1, 2, 0]), np.array([0, 2, 3, 3])), shape=(3, 3))
    x = np.array([[1.0], [4.0], [10.0]])
    np.testing.assert_allclose(smooth_features(x, graph).ravel(), [5, 2.5, 10])
    np.testing.assert_allclose(smooth_features(x, graph, include_self=False).ravel(), [7, 1, 0])
    np.testing.assert_array_equal(graph.data, [0.0, 5.0, 0.1])


def test_spots_on_one_point_are_each_others_neighbours(adata):
    adata.obsm["spatial"][:8] = adata.obsm["spatial"][0]
    smooth(adata, "X_pca", n_neighbors=7)
    np.testing.assert_allclose(adata.obsm["X_smooth"][:8], np.tile(adata.obsm["X_pca"][:8].mean(0), (8, 1)), atol=1e-6)


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x.astype(np.float32),
        sparse.csr_matrix,
        lambda x: pd.DataFrame(x, index=[str(i) for i in range(40)], columns=list("abc")),
    ],
    ids=["float32", "sparse", "frame"],
)
def test_any_storage_gives_the_same(adata, form):
    expected = smooth(adata, "X_pca", copy=True).obsm["X_smooth"]
    adata.obsm["X_pca"] = form(adata.obsm["X_pca"])
    np.testing.assert_allclose(smooth(adata, "X_pca", copy=True).obsm["X_smooth"], expected, atol=1e-6)


def test_copy_mudata_and_file(adata, tmp_path):
    out = smooth(adata, "X_pca", batch_key="slice", copy=True)
    assert "X_smooth" not in adata.obsm
    assert out.obsm["X_smooth"].dtype == np.float32
    out.write_h5ad(tmp_path / "a.h5ad")
    assert ad.read_h5ad(tmp_path / "a.h5ad").uns["X_smooth"]["params"]["batch_key"] == "slice"

    mdata = MuData({"rna": AnnData(np.ones((40, 2), dtype=np.float32))})
    mdata.obsm["X_pca"], mdata.obsm["spatial"] = adata.obsm["X_pca"], adata.obsm["spatial"]
    smooth(mdata, "X_pca")
    np.testing.assert_array_equal(mdata.obsm["X_smooth"], smooth(adata, "X_pca", copy=True).obsm["X_smooth"])


def spoil_rep(a):
    a.obsm["X_pca"][3, 1] = np.nan


def spoil_coordinates(a):
    a.obsm["spatial"][3, 1] = np.inf


def spoil_slices(a):
    a.obs.loc[a.obs_names[2], "slice"] = np.nan


@pytest.mark.parametrize(
    ("spoil", "arguments", "error", "message"),
    [
        (None, {"use_rep": "X_pc"}, KeyError, "`use_rep`: key 'X_pc' not found.*Did you mean 'X_pca'"),
        (None, {"spatial_key": "xy"}, KeyError, "`spatial_key`: key 'xy' not found in `adata.obsm`"),
        (None, {"batch_key": "slide"}, KeyError, "`batch_key`: key 'slide' not found in `adata.obs`.*'slice'"),
        (None, {"n_neighbors": 20, "batch_key": "slice"}, ValueError, "`n_neighbors=20` needs at least 21 spots"),
        (None, {"n_neighbors": 0}, ValueError, "`n_neighbors` must be at least 1"),
        (None, {"n_hops": -1}, ValueError, "`n_hops` must be at least 0"),
        (spoil_rep, {}, ValueError, "`use_rep`.*1 NaN or infinite"),
        (spoil_coordinates, {}, ValueError, "`spatial_key`.*1 rows with NaN"),
        (spoil_slices, {"batch_key": "slice"}, ValueError, "`batch_key`.*1 missing values"),
    ],
)
def test_errors_leave_the_object_alone(adata, spoil, arguments, error, message):
    if spoil:
        spoil(adata)
    with pytest.raises(error, match=message):
        smooth(adata, **{"use_rep": "X_pca", **arguments})
    assert "X_smooth" not in adata.obsm
    assert not adata.uns
