from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, LeaveOneGroupOut
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stomics_tools.baselines import (
    MFBP,
    MLP,
    CellTypeMean,
    GaussianResiduals,
    GradientBoosting,
    KNNRetrieval,
    NextScale,
    PCARidge,
    TrainingMean,
)
from stomics_tools.metrics import r2_against

ALL = {
    "mean": TrainingMean(),
    "ridge": PCARidge(n_components=10),
    "knn": KNNRetrieval(n_neighbors=10, n_components=10),
    "mlp": MLP(hidden=(32, 32), epochs=30, dropout=0.1, input_dropout=0.0, weight_decay=0.1, lr=0.01),
    "boosting": GradientBoosting(n_components=10, n_targets=3),
    "mfbp": MFBP(hidden=(32, 16), epochs=30, dropout=0.1, input_dropout=0.0, weight_decay=0.1, lr=0.01),
    "next_scale": NextScale(
        scales=(1, 3), hidden=(32, 32), epochs=30, dropout=0.1, input_dropout=0.0, weight_decay=0.1, lr=0.01
    ),
    "gaussian": GaussianResiduals(PCARidge(n_components=10)),
}
each = pytest.mark.parametrize("name", ALL)


@pytest.fixture
def spots():
    """Features that make a part of 6 genes, of four groups."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(240, 12)) @ rng.normal(size=(12, 12)) + 5
    y = x @ rng.normal(size=(12, 6)) / 5 + rng.normal(0, 1, (240, 6)) + np.arange(6)
    return x, y, np.repeat(["a", "b", "c", "d"], 60)


@each
def test_fit_and_predict(spots, name):
    x, y, groups = spots
    model = clone(ALL[name])
    assert model.fit(x[:180], y[:180], groups[:180]) is model
    predicted = model.predict(x[180:], groups[180:])
    assert predicted.shape == (60, 6)
    np.testing.assert_allclose(model.mean_, y[:180].mean(axis=0))
    r2 = r2_against(y[180:], predicted, model.mean_)
    assert r2 == 0 if name == "mean" else r2 > 0.3
    np.testing.assert_array_equal(
        clone(model).fit(x[:180], y[:180], groups[:180]).predict(x[180:], groups[180:]), predicted
    )


@each
def test_genes_that_were_not_measured_in_a_group(spots, name):
    """A gene that is missing in a group is learnt from the others, and the other genes do not notice."""
    x, y, groups = spots
    gaps = y.copy()
    gaps[groups == "b", 2] = np.nan
    gaps[::7, 4] = np.nan
    test = x[180:]
    predicted = clone(ALL[name]).fit(x[:180], gaps[:180], groups[:180]).predict(test)
    assert np.isfinite(predicted).all()
    if name != "mean":
        assert r2_against(y[180:, [2]], predicted[:, [2]], np.nanmean(gaps[:180, [2]], axis=0)) > 0.2
    if name in ("mean", "knn"):
        full = clone(ALL[name]).fit(x[:180], y[:180], groups[:180]).predict(test)
        np.testing.assert_allclose(predicted[:, [0, 1, 3, 5]], full[:, [0, 1, 3, 5]])


def test_ridge_equals_a_grid_search_of_sklearn(spots):
    x, y, groups = spots
    alphas = np.logspace(-2, 6, 33)
    pipeline = make_pipeline(StandardScaler(), PCA(8, random_state=0), Ridge())
    search = GridSearchCV(pipeline, {"ridge__alpha": alphas}, scoring="neg_mean_squared_error", cv=LeaveOneGroupOut())
    search.fit(x, y, groups=groups)
    ours = PCARidge(n_components=8).fit(x, y, groups)
    assert ours.alpha_ == search.best_params_["ridge__alpha"]
    assert alphas[0] < ours.alpha_ < alphas[-1]
    np.testing.assert_allclose(ours.predict(x), search.predict(x))


def test_ridge_regresses_a_gene_over_the_spots_where_it_was_measured(spots):
    x, y, _ = spots
    y[60:, 1] = np.nan
    y[:30, 3] = np.nan
    ours = PCARidge(n_components=12, alphas=[3.0]).fit(x, y)
    z = PCA(12).fit(StandardScaler().fit_transform(x)).transform(StandardScaler().fit_transform(x))
    for gene, rows in [(0, slice(None)), (1, slice(60)), (3, slice(30, None))]:
        np.testing.assert_allclose(ours.predict(x)[:, gene], Ridge(alpha=3.0).fit(z[rows], y[rows, gene]).predict(z))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_retrieval_equals_sklearn(spots, metric):
    x, y, _ = spots
    pca = make_pipeline(StandardScaler(), PCA(5, random_state=0)).fit(x[:200])
    theirs = KNeighborsRegressor(7, metric=metric).fit(pca.transform(x[:200]), y[:200])
    ours = KNNRetrieval(7, metric, n_components=5).fit(x[:200], y[:200])
    np.testing.assert_allclose(ours.predict(x[200:]), theirs.predict(pca.transform(x[200:])))
    few = KNNRetrieval(50, metric).fit(x[:20], y[:20])
    np.testing.assert_allclose(few.predict(x), np.tile(y[:20].mean(axis=0), (240, 1)))
    gaps = np.where(np.arange(6) == 2, np.nan, y[:20])
    gaps[0, 2] = 9.0
    assert (KNNRetrieval(3).fit(x[:20], gaps).predict(x)[:, 2] == 9).all()


def test_networks_leave_the_generator_of_torch(spots):
    import torch

    x, y, groups = spots
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = MLP(hidden=(8,), epochs=2).fit(x, y, groups).predict(x)
    assert torch.equal(torch.rand(3), expected)
    assert (MLP(hidden=(8,), epochs=2, seed=1).fit(x, y, groups).predict(x) != one).any()


def test_mfbp_sees_the_slide():
    """The mean of the slide decides: a spot alone cannot tell."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(30), 20)
    shift = rng.normal(size=30)[groups]
    x = np.stack([shift + rng.normal(0, 3, 600), rng.normal(size=600)], axis=1)
    y = np.stack([shift + rng.normal(0, 0.1, 600)] * 2, axis=1)
    train = groups < 24
    arguments = {"hidden": (32,), "dropout": 0.0, "input_dropout": 0.0, "weight_decay": 0.01, "lr": 0.01, "epochs": 60}
    seen = MFBP(**arguments).fit(x[train], y[train], groups[train])
    blind = MLP(**arguments).fit(x[train], y[train], groups[train])
    scores = [r2_against(y[~train], m.predict(x[~train], groups[~train]), m.mean_) for m in (seen, blind)]
    assert scores[0] > scores[1] + 0.2
    together = seen.predict(x[~train], groups[~train])
    alone = np.concatenate([seen.predict(x[groups == g]) for g in range(24, 30)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_next_scale_goes_from_groups_to_genes():
    """Two blocks of genes are its two groups; a scale adds to the group before, which in prediction is its own."""
    import torch

    rng = np.random.default_rng(2)
    x = rng.normal(size=(300, 2))
    block = np.array([0, 1, 0, 0, 1, 1])
    y = 3 * x[:, block] + rng.normal(0, 0.1, (300, 6)) + np.arange(6)
    y[:40, 1] = np.nan
    plain = {"dropout": 0.0, "input_dropout": 0.0, "weight_decay": 0.01}
    model = NextScale(scales=(2, 2, 9), hidden=(16,), epochs=40, lr=0.01, **plain).fit(x, y)
    assert [list(parent) for parent in model._parents] == [[0, 0], list(block)]
    features = torch.from_numpy(model._scaler.transform(x).astype(np.float32))
    layers = list(model._network.children())
    with torch.no_grad():
        groups = layers[0](torch.cat([features, torch.zeros(300, 1)], dim=1))
        genes = groups[:, block] + layers[1](torch.cat([features, groups], dim=1))
    np.testing.assert_allclose(model.predict(x), model.mean_ + genes.numpy(), atol=1e-6)
    deviation = y - np.nanmean(y, axis=0)
    means = np.stack([np.nanmean(deviation[:, block == group], axis=1) for group in (0, 1)], axis=1)
    assert r2_against(means, groups.numpy(), np.zeros(2)) > 0.95


def test_gaussian_residuals_are_those_of_left_out_groups(spots):
    x, y, groups = spots
    model = GaussianResiduals(PCARidge(n_components=10, alphas=[1.0])).fit(x, y, groups)
    errors = []
    for group in "abcd":
        inner = PCARidge(n_components=10, alphas=[1.0]).fit(x[groups != group], y[groups != group])
        errors.append(y[groups == group] - inner.predict(x[groups == group]))
    np.testing.assert_allclose(model.sd_, np.sqrt(np.mean(np.concatenate(errors) ** 2, axis=0)))
    lower, upper = model.interval(x, 0.8)
    assert np.mean((lower <= y) & (y <= upper)) == pytest.approx(0.8, abs=0.05)
    samples = model.sample(x, 500, seed=1)
    np.testing.assert_allclose(samples.mean(axis=0), model.predict(x), atol=0.25)
    np.testing.assert_allclose(samples.std(axis=0).mean(axis=0), model.sd_, rtol=0.02)
    np.testing.assert_array_equal(model.sample(x, 2, seed=3), model.sample(x, 2, seed=3))
    net = MLP(hidden=(8,), epochs=2)
    seeded = GaussianResiduals(net, seed=4).fit(x, y, groups).predict(x)
    np.testing.assert_array_equal(seeded, clone(net).set_params(seed=4).fit(x, y, groups).predict(x))


@each
def test_bad_input(spots, name):
    x, y, groups = spots
    model = clone(ALL[name])
    with pytest.raises(ValueError, match="is not fitted"):
        model.predict(x)
    with pytest.raises(ValueError, match=r"`Y` has shape \(239, 6\), `X` has \(240, 12\)"):
        model.fit(x, y[1:])
    with pytest.raises(ValueError, match="`groups` has shape"):
        model.fit(x, y, groups[1:])
    with pytest.raises(ValueError, match=r"`Y`: 1 genes were measured in no training spot \(first: column 3"):
        model.fit(x, np.where(np.arange(6) == 3, np.nan, y))
    with pytest.raises(ValueError, match="`Y` holds 240 infinite"):
        model.fit(x, np.where(np.arange(6) == 3, np.inf, y))
    model.fit(x, y, groups)
    with pytest.raises(ValueError, match="`X` has 11 features, the training spots had 12"):
        model.predict(x[:, 1:])
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match="`X`.*1 NaN or infinite"):
        clone(model).fit(x, y)
    with pytest.raises(ValueError, match="`X`.*1 NaN or infinite"):
        model.predict(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (PCARidge(n_components=0), "`n_components` must be at least 1"),
        (PCARidge(alphas=[-1.0]), "`alphas` must be positive"),
        (KNNRetrieval(0), "`n_neighbors` must be at least 1"),
        (KNNRetrieval(metric="cosin"), "Did you mean 'cosine'"),
        (MLP(dropout=1.0), "`dropout` must be in"),
        (MLP(hidden=(0,)), "`hidden` must be at least 1"),
        (NextScale(scales=(0,)), "`scales` must be at least 1"),
        (MFBP(epochs=0), "`epochs` must be at least 1"),
        (GradientBoosting(n_targets=0), "`n_targets` must be at least 1"),
    ],
)
def test_bad_arguments(spots, model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(*spots)


def test_rows_and_columns_of_data_frames_are_joined_by_name():
    rng = np.random.default_rng(0)
    names, columns = [f"spot{i}" for i in range(40)], ["a", "b", "c"]
    x = pd.DataFrame(rng.normal(size=(40, 3)), index=names, columns=columns)
    y = pd.DataFrame(x.to_numpy() @ rng.normal(size=(3, 2)), index=names, columns=["g", "h"])
    groups = pd.Series(np.repeat(["p", "q"], 20), index=names)
    expected = PCARidge(3).fit(x.to_numpy(), y.to_numpy(), groups=groups.to_numpy()).predict(x.to_numpy())
    order = rng.permutation(40)
    model = PCARidge(3).fit(x, y.iloc[order], groups=groups.iloc[::-1])
    np.testing.assert_allclose(model.predict(x), expected)
    np.testing.assert_allclose(model.predict(x[["c", "a", "b"]]), expected)
    np.testing.assert_allclose(model.predict(x.to_numpy()), expected)
    with pytest.raises(ValueError, match="`X` and `X in training` have different names of columns: 1 of 3"):
        model.predict(x.rename(columns={"a": "z"}))
    with pytest.raises(ValueError, match="`Y` and `X` have different names of rows"):
        PCARidge(3).fit(x, y.rename(index={"spot3": "other"}))
    labels = pd.Series(np.repeat(["s", "t"], 20), index=names)
    by_type = CellTypeMean().fit(labels, y.iloc[order]).predict(labels)
    np.testing.assert_allclose(by_type[0], y.iloc[:20].mean())
