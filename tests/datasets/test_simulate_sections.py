from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData, read_h5ad
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from stomics_tools import datasets

SMALL = {"n_sections": 3, "n_cells": 120, "n_genes": 30, "n_cell_types": 5}


def simulate(**kwargs: object) -> AnnData:
    return datasets.simulate_sections(**SMALL | kwargs)


def section(adata: AnnData) -> np.ndarray:
    return adata.obs["section"].cat.codes.to_numpy()


def radius(positions: np.ndarray) -> float:
    return float(np.sqrt(((positions - positions.mean(axis=0)) ** 2).sum(axis=1).mean()))


def components(adata: AnnData, train: np.ndarray) -> np.ndarray:
    x = adata.X.toarray()
    x = np.log1p(x / x.sum(axis=1, keepdims=True) * np.median(x.sum(axis=1)))
    x = StandardScaler().fit(x[train]).transform(x)
    return PCA(50, random_state=0).fit(x[train]).transform(x)


def error_of_knn(adata: AnnData, truth: np.ndarray) -> float:
    """Root-mean-square error on the last section, in root-mean-square radii of `truth`."""
    test = section(adata) == section(adata).max()
    z = components(adata, ~test)
    predicted = KNeighborsRegressor(10).fit(z[~test], truth[~test]).predict(z[test])
    return float(np.sqrt(((predicted - truth[test]) ** 2).sum(axis=1).mean()) / radius(truth[test]))


@pytest.fixture(scope="module")
def default() -> AnnData:
    return datasets.simulate_sections()


@pytest.fixture(scope="module")
def mirrored() -> AnnData:
    return datasets.simulate_sections(symmetric=True)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_contents(n_dims):
    adata = simulate(n_dims=n_dims)
    assert adata.shape == (360, 30)
    assert (adata.X.format, adata.X.dtype) == ("csr", np.float32)
    assert (adata.X.data == np.round(adata.X.data)).all()
    assert adata.X.data.min() > 0
    assert adata.obs["section"].tolist() == np.repeat(["section0", "section1", "section2"], 120).tolist()
    assert adata.obs["cell_type"].cat.categories.tolist() == [f"type{t}" for t in range(5)]
    assert isinstance(adata.obs["section"].dtype, pd.CategoricalDtype)
    assert adata.obs_names.is_unique
    for key in ("spatial", "tissue"):
        assert adata.obsm[key].shape == (360, n_dims)
        assert adata.obsm[key].dtype == np.float64
    assert (np.ptp(adata.obsm["tissue"], axis=0) > 1500).all()
    assert (np.ptp(adata.obsm["tissue"], axis=0) < 7000).all()
    assert adata.var["length_scale"].notna().sum() == 20
    assert (adata.var["marks"].notna() == adata.var["length_scale"].isna()).all()


def test_round_trip(tmp_path):
    adata = simulate()
    adata.write_h5ad(tmp_path / "x.h5ad")
    back = read_h5ad(tmp_path / "x.h5ad")
    for key, value in adata.uns["simulation"].items():
        np.testing.assert_array_equal(back.uns["simulation"][key], value)
    pd.testing.assert_frame_equal(back.obs, adata.obs)
    pd.testing.assert_frame_equal(back.var, adata.var)


def test_the_seed_decides_and_global_state_is_left_alone():
    np.random.seed(3)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one, again, other = simulate(), simulate(), simulate(seed=1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert (one.X != again.X).nnz == 0
    np.testing.assert_array_equal(one.obsm["spatial"], again.obsm["spatial"])
    pd.testing.assert_frame_equal(one.obs, again.obs)
    assert (one.X != other.X).nnz > 0
    assert not np.isclose(one.obsm["tissue"], other.obsm["tissue"]).any()


@pytest.mark.parametrize("n_dims", [2, 3])
def test_poses(n_dims):
    adata = simulate(n_sections=8, n_dims=n_dims, deformation=0.05)
    determinants = []
    for s in range(8):
        rows = section(adata) == s
        rotation = adata.uns["simulation"]["rotation"][s]
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(n_dims), atol=1e-12)
        determinants.append(np.linalg.det(rotation))
        tissue, spatial = adata.obsm["tissue"][rows], adata.obsm["spatial"][rows]
        moved = (spatial - adata.uns["simulation"]["translation"][s]) @ rotation - tissue
        np.testing.assert_allclose(np.sqrt((moved**2).sum(axis=1).mean()) / radius(tissue), 0.05)
        # Smooth: cells that are close move alike.
        nearest = cKDTree(tissue).query(tissue, k=2)[1][:, 1]
        assert np.linalg.norm(moved - moved[nearest], axis=1).mean() < 0.5 * np.linalg.norm(moved, axis=1).mean()
    assert {-1, 1} == set(np.round(determinants))
    assert not np.allclose(adata.uns["simulation"]["rotation"][0], adata.uns["simulation"]["rotation"][1], atol=0.1)


def test_without_deformation_poses_are_rigid():
    adata = simulate(deformation=0)
    for s in range(3):
        rows = section(adata) == s
        np.testing.assert_allclose(pdist(adata.obsm["spatial"][rows]), pdist(adata.obsm["tissue"][rows]))


def test_sections_are_of_one_tissue_with_cells_of_their_own(default):
    tissue, s = default.obsm["tissue"], section(default)
    assert len(np.unique(tissue, axis=0)) == len(tissue)
    spacing = np.median(cKDTree(tissue[s == 0]).query(tissue[s == 0], k=2)[0][:, 1])
    assert (cKDTree(tissue[s == 0]).query(tissue[s == 1])[0] < 5 * spacing).mean() > 0.999
    # No rotation by half a turn and no reflection maps the outline onto itself.
    centred = tissue - tissue.mean(axis=0)
    tree = cKDTree(centred)
    for angle in np.arange(0, np.pi, np.pi / 18):
        normal = np.array([np.cos(angle), np.sin(angle)])
        assert (tree.query(centred - 2 * np.outer(centred @ normal, normal))[0] > 3 * spacing).mean() > 0.005
    assert (tree.query(-centred)[0] > 3 * spacing).mean() > 0.005


def test_positions_follow_from_expression(default):
    error = error_of_knn(default, default.obsm["tissue"])
    assert error < 0.16
    assert error_of_knn(default, default.obsm["spatial"]) > 0.8
    quiet = error_of_knn(datasets.simulate_sections(noise=0), default.obsm["tissue"])
    loud = error_of_knn(datasets.simulate_sections(noise=3), default.obsm["tissue"])
    assert quiet < 0.8 * error < 0.5 * loud


def test_positions_follow_from_expression_in_3d():
    adata = datasets.simulate_sections(n_dims=3)
    assert error_of_knn(adata, adata.obsm["tissue"]) < 0.3


def test_regions_prefer_cell_types_and_markers_mark_them(default):
    share = default.obs["cell_type"].value_counts(normalize=True)
    assert share.min() > 0.01
    own = np.array([default.obs["cell_type"].iloc[i] for i in range(default.n_obs)])
    neighbors = cKDTree(default.obsm["tissue"]).query(default.obsm["tissue"], k=11)[1][:, 1:]
    assert (own[neighbors] == own[:, None]).mean() > 1.5 * (share**2).sum()
    x = default.X.toarray()
    for gene in np.flatnonzero(default.var["marks"].notna()):
        inside = own == default.var["marks"].iloc[gene]
        assert x[inside, gene].mean() > 3 * x[~inside, gene].mean()


def test_both_sides_of_a_symmetric_tissue_are_alike(mirrored):
    tissue = mirrored.obsm["tissue"]
    right = tissue[:, 0] > 0
    assert abs(right.mean() - 0.5) < 0.03
    spacing = np.median(cKDTree(tissue).query(tissue, k=2)[0][:, 1])
    assert (cKDTree(tissue).query(tissue * [-1, 1])[0] > 5 * spacing).mean() < 0.002
    x = np.log1p(mirrored.X.toarray())
    x = np.column_stack([x, x**2, pd.get_dummies(mirrored.obs["cell_type"]).to_numpy()])

    def z_scores(side):
        difference = x[side].mean(axis=0) - x[~side].mean(axis=0)
        return difference / np.sqrt(x[side].var(axis=0) / side.sum() + x[~side].var(axis=0) / (~side).sum())

    assert np.abs(z_scores(right)).max() < 4.5
    assert np.sqrt((z_scores(right) ** 2).mean()) < 1.4
    top = tissue[:, 1] > np.median(tissue[:, 1])  # the other axis has no such symmetry
    assert np.sqrt((z_scores(top) ** 2).mean()) > 10


def test_expression_tells_all_but_the_side_of_a_symmetric_tissue(mirrored, default):
    def accuracy(adata):
        test = section(adata) == 3
        z, side = components(adata, ~test), adata.obsm["tissue"][:, 0] > 0
        return KNeighborsClassifier(15).fit(z[~test], side[~test]).score(z[test], side[test])

    assert abs(accuracy(mirrored) - 0.5) < 0.06
    assert accuracy(default) > 0.9
    folded = np.column_stack([np.abs(mirrored.obsm["tissue"][:, 0]), mirrored.obsm["tissue"][:, 1]])
    assert error_of_knn(mirrored, folded) < 0.2


def test_least_sizes():
    adata = datasets.simulate_sections(1, 10, 3, n_cell_types=1, noise=0, deformation=0)
    assert adata.shape == (10, 3)
    assert np.isfinite(adata.obsm["spatial"]).all()


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"n_sections": 0}, ValueError, "`n_sections` must be at least 1"),
        ({"n_cells": 9}, ValueError, "`n_cells` must be at least 10"),
        ({"n_genes": 2}, ValueError, "`n_genes` must be at least 3"),
        ({"n_cell_types": 0}, ValueError, "`n_cell_types` must be at least 1"),
        ({"n_cells": 50.5}, TypeError, "`n_cells` must be an integer"),
        ({"n_dims": 4}, ValueError, "`n_dims`: unknown option 4"),
        ({"symmetric": "left"}, ValueError, "`symmetric`: unknown option 'left'"),
        ({"noise": -1}, ValueError, "`noise` must be in"),
        ({"noise": np.nan}, ValueError, "`noise` must be in"),
        ({"deformation": 0.5}, ValueError, "`deformation` must be in"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0"),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        simulate(**kwargs)
