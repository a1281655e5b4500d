from __future__ import annotations

import pickle

import numpy as np
import pytest
from anndata import read_h5ad
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold
from sklearn.neighbors import KNeighborsRegressor

from stomics_tools.baselines import CellTypeMean, RandomFourierRidge, SpatialKNN
from stomics_tools.metrics import pearson_per_gene, r2_against

ALL = {"knn": SpatialKNN(8), "fourier": RandomFourierRidge(64)}
each = pytest.mark.parametrize("name", ALL)


@pytest.fixture
def cells():
    """Coordinates and 5 genes that are waves over two sections, not the same in both."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 1000, size=(600, 2))
    groups = np.repeat(["a", "b"], 300)
    phase = np.where(groups == "a", 0.0, np.pi)[:, None]
    y = np.sin(xy @ rng.normal(scale=0.005, size=(2, 5)) + phase) + 0.3 * rng.normal(size=(600, 5)) + 2
    hidden = rng.random(600) < 0.3
    return xy, y, groups, hidden


@each
def test_hidden_cells(cells, name):
    xy, y, groups, hidden = cells
    model = clone(ALL[name]).fit(xy[~hidden], y[~hidden], groups[~hidden])
    predicted = model.predict(xy[hidden], groups[hidden])
    assert r2_against(y[hidden], predicted, model.mean_) > 0.6
    both = clone(ALL[name]).fit(xy[~hidden], y[~hidden]).predict(xy[hidden])
    assert r2_against(y[hidden], both, model.mean_) < 0.2  # the sections contradict each other
    alone = clone(ALL[name]).fit(xy[~hidden & (groups == "b")], y[~hidden & (groups == "b")])
    np.testing.assert_allclose(predicted[groups[hidden] == "b"], alone.predict(xy[hidden & (groups == "b")]))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(xy[hidden], groups[hidden]), predicted)


@each
def test_pose_and_unit_do_not_matter(cells, name):
    xy, y, _, hidden = cells
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    moved = 1e-3 * xy @ turn + 50
    one = clone(ALL[name]).fit(xy[~hidden], y[~hidden]).predict(xy[hidden])
    other = clone(ALL[name]).fit(moved[~hidden], y[~hidden]).predict(moved[hidden])
    if name == "knn":
        np.testing.assert_allclose(other, one)
    else:  # the features are random, not their law
        assert np.corrcoef(other.ravel(), one.ravel())[0, 1] > 0.9
        same = clone(ALL[name]).fit(1e-3 * xy[~hidden] + 50, y[~hidden]).predict(1e-3 * xy[hidden] + 50)
        np.testing.assert_allclose(same, one, atol=1e-6)


def test_knn_equals_sklearn(cells):
    xy, y, _, hidden = cells
    xy = xy * [1, 20]  # distances are those of the coordinates as they are
    theirs = KNeighborsRegressor(12).fit(xy[~hidden], y[~hidden]).predict(xy[hidden])
    np.testing.assert_allclose(SpatialKNN(12).fit(xy[~hidden], y[~hidden]).predict(xy[hidden]), theirs)
    few = SpatialKNN(50).fit(xy[:20], y[:20]).predict(xy)
    np.testing.assert_allclose(few, np.tile(y[:20].mean(axis=0), (600, 1)))


def test_fourier_ridge_comes_near_a_gaussian_process():
    rng = np.random.default_rng(1)
    xy = rng.uniform(-1, 1, size=(300, 2))
    y = np.stack([np.sin(3 * xy[:, 0]) + xy[:, 1], np.cos(4 * xy[:, 1])], axis=1) + 0.2 * rng.normal(size=(300, 2))
    test = rng.uniform(-0.9, 0.9, size=(200, 2))
    truth = np.stack([np.sin(3 * test[:, 0]) + test[:, 1], np.cos(4 * test[:, 1])], axis=1)
    process = GaussianProcessRegressor(RBF(0.5) + WhiteKernel(0.04), normalize_y=True, random_state=0).fit(xy, y)
    ours = RandomFourierRidge(512).fit(xy, y).predict(test)
    assert np.abs(ours - process.predict(test)).mean() < 0.05
    assert np.mean((ours - truth) ** 2) < 0.2**2 / 4  # a quarter of the noise


def test_length_scale_and_penalty_are_those_of_the_least_error_in_folds(cells):
    xy, y = cells[0][:200], cells[1][:200]
    rng = np.random.default_rng(3)
    frequency, phase = rng.normal(size=(2, 40)), rng.uniform(0, 2 * np.pi, size=40)
    centred = xy - xy.mean(axis=0)
    radius = np.sqrt((centred**2).sum(axis=1).mean())

    def wave(length):
        return np.sqrt(2 / 40) * np.cos(centred @ frequency / (length * radius) + phase)

    def error(length, alpha):
        z = wave(length)
        folds = KFold(5, shuffle=True, random_state=3).split(z)
        return sum(((Ridge(alpha=alpha).fit(z[a], y[a]).predict(z[b]) - y[b]) ** 2).sum() for a, b in folds)

    grid = [(length, alpha) for length in np.geomspace(0.05, 1.6, 6) for alpha in np.logspace(-2, 3, 11)]
    length, alpha = min(grid, key=lambda pair: error(*pair))
    expected = Ridge(alpha=alpha).fit(wave(length), y).predict(wave(length))
    np.testing.assert_allclose(RandomFourierRidge(40, seed=3).fit(xy, y).predict(xy), expected, rtol=1e-6)
    assert not np.allclose(RandomFourierRidge(40, seed=4).fit(xy, y).predict(xy), expected)


@each
def test_genes_that_were_not_measured_in_some_cells(cells, name):
    xy, y, groups, hidden = cells
    gaps = y.copy()
    gaps[::3, 1] = np.nan
    gaps[groups == "a", 4] = np.nan
    model = clone(ALL[name]).fit(xy[~hidden], gaps[~hidden], groups[~hidden])
    predicted = model.predict(xy[hidden], groups[hidden])
    assert np.isfinite(predicted).all()
    assert pearson_per_gene(y[hidden][:, [1]], predicted[:, [1]]) > 0.7
    np.testing.assert_allclose(predicted[groups[hidden] == "a", 4], model.mean_[4])  # known of the other section only


def test_three_dimensions():
    rng = np.random.default_rng(0)
    xyz = rng.uniform(-1, 1, size=(500, 3))
    for model in ALL.values():
        predicted = clone(model).fit(xyz[:400], xyz[:400, 2:] ** 2).predict(xyz[400:])
        assert np.corrcoef(predicted[:, 0], xyz[400:, 2] ** 2)[0, 1] > 0.8


@each
def test_bad_input(cells, name):
    xy, y, groups, _ = cells
    model = clone(ALL[name])
    with pytest.raises(ValueError, match=r"`X` must be a numeric array of shape \(n_obs, 2\)"):
        model.fit(xy[:, :1], y)
    with pytest.raises(ValueError, match="all 600 spots of `X` have the same coordinates"):
        model.fit(np.ones_like(xy), y)
    with pytest.raises(ValueError, match="`X`.* NaN or infinite"):
        model.fit(np.where(xy > 999, np.nan, xy), y)
    model.fit(xy, y, groups)
    with pytest.raises(ValueError, match=r"no training cells of section 'c', only of \['a', 'b'\]"):
        model.predict(xy, np.where(groups == "a", "c", "b"))
    with pytest.raises(ValueError, match="`groups` are missing"):
        model.predict(xy)
    with pytest.raises(ValueError, match="has 3 features, the training spots had 2"):
        model.predict(np.column_stack([xy, xy[:, 0]]))


def test_bad_arguments(cells):
    xy, y, groups, _ = cells
    with pytest.raises(ValueError, match="`n_neighbors` must be at least 1"):
        SpatialKNN(0).fit(xy, y)
    with pytest.raises(ValueError, match="`n_features` must be at least 1"):
        RandomFourierRidge(0).fit(xy, y)
    with pytest.raises(ValueError, match="section 'a' has its training cells on one point"):
        RandomFourierRidge(8).fit(xy[299:], y[299:], groups[299:])


def test_mean_of_a_cell_type(cells):
    _, y, _, _ = cells
    types = np.array(["neuron", "glia", "rare"])[np.arange(600) % 3]
    gaps = y.copy()
    gaps[types == "rare", 2] = np.nan
    gaps[::7, 0] = np.nan
    model = CellTypeMean().fit(types[:, None], gaps)
    found = model.predict([["glia"], ["rare"], ["unseen"]])
    np.testing.assert_allclose(found[0], np.nanmean(gaps[types == "glia"], axis=0))
    measured = [0, 1, 3, 4]
    np.testing.assert_allclose(found[1, measured], np.nanmean(gaps[types == "rare"][:, measured], axis=0))
    np.testing.assert_allclose([found[1, 2], *found[2]], [model.mean_[2], *model.mean_])


def test_hidden_cells_of_mouse_cortex(data_dir):
    """The figures in the docstrings, for sections in the order of their names."""
    adata = read_h5ad(data_dir / "starmap_mpfc_3sections.h5ad")
    x = adata.X.toarray().astype(float)
    x = np.log1p(x / x.sum(axis=1, keepdims=True) * np.median(x.sum(axis=1)))
    found = []
    for section in sorted(adata.obs["section"].unique()):
        rows = (adata.obs["section"] == section).to_numpy()
        y, xy, types = x[rows], adata.obsm["spatial"][rows], adata.obs["cell_type"].to_numpy()[rows]
        order = np.random.default_rng(0).permutation(len(y))
        hidden, seen = np.split(order, [int(0.3 * len(y))])
        pairs = [(SpatialKNN(), xy), (CellTypeMean(), types)]
        scores = [
            np.nanmean(pearson_per_gene(y[hidden], model.fit(features[seen], y[seen]).predict(features[hidden])))
            for model, features in pairs
        ]
        found.append(scores)
    np.testing.assert_allclose(found, [[0.135, 0.225], [0.131, 0.224], [0.116, 0.227]], atol=0.01)
