from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stomics_tools.baselines import CellTypeCentroid, PositionKNN, PositionMLP, PositionRidge

ALL = {
    "knn": PositionKNN(n_components=8),
    "ridge": PositionRidge(n_components=8),
    "mlp": PositionMLP((64, 64), epochs=40),
    "centroid": CellTypeCentroid(),
}
each = pytest.mark.parametrize("name", ALL)
SIZES = {"a": 1.0, "b": 3.0, "c": 0.5, "d": 2.0}
"""Radius of each section, by its name."""


@pytest.fixture
def cells():
    """Expression, cell types, positions and sections; the sections differ in place and size, not in frame."""
    rng = np.random.default_rng(0)
    unit = rng.uniform(-1, 1, size=(480, 2))
    x = np.column_stack([unit, unit**2, rng.normal(size=(480, 4))]) @ rng.normal(size=(8, 12))
    x += 0.1 * rng.normal(size=x.shape)
    types = np.char.add("t", (unit[:, 0] > 0).astype(int).astype(str))
    groups = np.repeat(list(SIZES), 120)
    shift = {name: rng.uniform(-50, 50, size=2) for name in SIZES}
    y = np.array([SIZES[g] * u + shift[g] for g, u in zip(groups, unit, strict=True)])
    return x, types, y, groups


def features(cells, name):
    return cells[1] if name == "centroid" else cells[0]


def scaled(y: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre and scale sections by the definition; the positions and the mean radius."""
    frame = pd.DataFrame(y).groupby(groups)
    centred = y - frame.transform("mean").to_numpy()
    square = pd.Series((centred**2).sum(axis=1)).groupby(groups)
    return centred / np.sqrt(square.transform("mean").to_numpy())[:, None], float(np.sqrt(square.mean()).mean())


@each
def test_fit_and_predict(cells, name):
    x, (_, _, y, groups) = features(cells, name), cells
    model, train = clone(ALL[name]), groups != "d"
    assert model.fit(x[train], y[train], groups[train]) is model
    predicted = model.predict(x[~train], groups[~train])
    _, scale = scaled(y[train], groups[train])
    assert model.scale_ == pytest.approx(scale)
    own = scaled(y[~train], groups[~train])[0] * scale
    unexplained = ((predicted - own) ** 2).sum() / (own**2).sum()
    assert unexplained < {"knn": 0.25, "ridge": 0.05, "mlp": 0.4, "centroid": 0.7}[name]
    shuffled = np.random.default_rng(0).permutation(len(predicted))
    assert ((predicted[shuffled] - own) ** 2).sum() > (own**2).sum()


@each
def test_place_and_size_of_the_training_sections_do_not_matter(cells, name):
    x, (_, _, y, groups) = features(cells, name), cells
    model = clone(ALL[name]).fit(x, y, groups)
    moved = y.copy()
    moved[groups == "a"] += 1000.0
    moved[groups == "b"] *= 7.0
    other = clone(ALL[name]).fit(x, moved, groups)
    np.testing.assert_allclose(other.predict(x) / other.scale_, model.predict(x) / model.scale_, atol=1e-4)
    assert other.scale_ > model.scale_
    metres = clone(ALL[name]).fit(x, y * 1e-6, groups)
    np.testing.assert_allclose(metres.predict(x) * 1e6, model.predict(x), atol=1e-4)


def test_knn_equals_sklearn(cells):
    x, _, y, groups = cells
    train = groups != "c"
    unit, scale = scaled(y[train], groups[train])
    pca = make_pipeline(StandardScaler(), PCA(5, random_state=0)).fit(x[train])
    theirs = KNeighborsRegressor(7).fit(pca.transform(x[train]), unit)
    ours = PositionKNN(7, n_components=5).fit(x[train], y[train], groups[train])
    np.testing.assert_allclose(ours.predict(x[~train]), scale * theirs.predict(pca.transform(x[~train])))


def test_ridge_equals_a_grid_search_of_sklearn_over_left_out_sections(cells):
    x, _, y, groups = cells
    unit, scale = scaled(y, groups)
    pipeline = make_pipeline(StandardScaler(), PCA(6, random_state=0), Ridge())
    grid = {"ridge__alpha": np.logspace(-2, 6, 33)}
    search = GridSearchCV(pipeline, grid, scoring="neg_mean_squared_error", cv=LeaveOneGroupOut())
    search.fit(x, unit, groups=groups)
    np.testing.assert_allclose(PositionRidge(6).fit(x, y, groups).predict(x), scale * search.predict(x))


def test_centroids_are_means_of_the_scaled_sections(cells):
    _, types, y, groups = cells
    unit, scale = scaled(y, groups)
    model = CellTypeCentroid().fit(types, y, groups)
    expected = [scale * unit[types == "t0"].mean(axis=0), scale * unit[types == "t1"].mean(axis=0), [0, 0]]
    np.testing.assert_allclose(model.predict([["t0"], ["t1"], ["unseen"]]), expected, atol=1e-9)
    frame = pd.DataFrame({"cell_type": pd.Categorical(types, categories=["t1", "t0", "unused"])})
    np.testing.assert_array_equal(model.fit(frame[["cell_type"]], y, groups).predict(frame["cell_type"]).shape, y.shape)
    np.testing.assert_allclose(model.predict(["t0"]), [expected[0]])


@each
def test_three_dimensions_and_pickles(cells, name):
    x, (_, _, y, groups) = features(cells, name), cells
    model = clone(ALL[name]).fit(x, np.column_stack([y, y[:, 0] + y[:, 1]]), groups)
    predicted = model.predict(x)
    assert predicted.shape == (480, 3)
    assert np.abs(predicted.mean(axis=0)).max() < 0.1 * model.scale_
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(x), predicted)


@each
def test_bad_input(cells, name):
    x, (_, _, y, groups) = features(cells, name), cells
    model = clone(ALL[name])
    with pytest.raises(ValueError, match="is not fitted"):
        model.predict(x)
    with pytest.raises(ValueError, match=r"`Y` must be a numeric array of shape \(n_obs, 2\) or \(n_obs, 3\)"):
        model.fit(x, y[:, :1], groups)
    with pytest.raises(ValueError, match="`Y` has 1 rows with NaN"):
        model.fit(x, np.where(np.arange(480)[:, None] == 7, np.nan, y), groups)
    with pytest.raises(ValueError, match="`Y`: the 120 cells of section b lie on one point"):
        model.fit(x, np.where((groups == "b")[:, None], 3.0, y), groups)
    with pytest.raises(ValueError, match="all 480 spots of `Y` have the same coordinates"):
        model.fit(x, np.ones_like(y))
    with pytest.raises(ValueError, match="`groups` has shape"):
        model.fit(x, y, groups[1:])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(["a", None] * 240, dtype=object), "`X` has 240 missing values"),
        (np.full((480, 2), "a"), r"one column of labels .* found shape \(480, 2\)"),
        (np.array([], dtype=str), "that is not empty"),
        (np.full(479, "a"), r"`Y` has shape \(480, 2\), `X` has \(479, 1\)"),
    ],
)
def test_bad_labels(cells, labels, message):
    with pytest.raises(ValueError, match=message):
        CellTypeCentroid().fit(labels, cells[2])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (PositionKNN(0), "`n_neighbors` must be at least 1"),
        (PositionRidge(0), "`n_components` must be at least 1"),
        (PositionMLP(epochs=0), "`epochs` must be at least 1"),
    ],
)
def test_bad_arguments(cells, model, message):
    x, _, y, groups = cells
    with pytest.raises(ValueError, match=message):
        model.fit(x, y, groups)


def test_on_sections_of_mouse_cortex(data_dir):
    """The figures in the docstrings: Spearman correlation of distances, and the radius against the true one."""
    adata = read_h5ad(data_dir / "starmap_mpfc_3sections.h5ad")
    x = adata.X.toarray().astype(float)
    x = np.log1p(x / x.sum(axis=1, keepdims=True) * np.median(x.sum(axis=1)))
    y, groups = adata.obsm["spatial"].astype(float), adata.obs["section"].to_numpy().astype(str)
    types = adata.obs["cell_type"]
    for model, features, correlation, radius in [
        (PositionKNN(), x, 0.30, 0.62),
        (PositionKNN(1), x, 0.22, 1.00),
        (PositionRidge(), x, 0.30, 0.56),
        (CellTypeCentroid(), types, 0.28, 0.56),
    ]:
        found = []
        for section in np.unique(groups):
            test = groups == section
            predicted = model.fit(features[~test], y[~test], groups[~test]).predict(features[test])
            size = np.sqrt(predicted.var(axis=0).sum() / y[test].var(axis=0).sum())
            found.append((spearmanr(pdist(predicted), pdist(y[test]))[0], size))
        np.testing.assert_allclose(np.mean(found, axis=0), [correlation, radius], atol=0.02)
