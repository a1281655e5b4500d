"""Pipelines and cross-validation of scikit-learn: on our latents, and with our baselines as estimators."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn
from sklearn.base import clone, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.validation import check_is_fitted

import stomics_tools as st

N, N_GROUPS = 90, 3
SMALL = {"hidden": (8,), "epochs": 2, "n_components": 4, "max_iter": 3, "n_features": 16, "scales": (1, 4)}


def small(name: str):
    """A baseline that is fitted in no time."""
    kind = getattr(st.baselines, name)
    if name == "GaussianResiduals":
        return kind(st.baselines.PCARidge(n_components=4))
    names = kind().get_params()
    return kind(**{key: value for key, value in SMALL.items() if key in names})


@pytest.fixture(scope="module")
def tissue():
    """Features, coordinates, labels and expression of three sections."""
    rng = np.random.default_rng(0)
    groups = np.repeat(["a", "b", "c"], N // N_GROUPS)
    places = rng.uniform(size=(N, 2))
    features = np.concatenate([places, rng.normal(size=(N, 4))], axis=1)
    labels = np.where(places[:, :1] > 0.5, "left", "right")
    expression = np.sin(3 * places) @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(N, 5))
    return {"features": features, "places": places, "labels": labels, "expression": expression, "groups": groups}


def problem(name: str, tissue: dict):
    """What a baseline reads, what it predicts, and the groups."""
    x = tissue[
        "labels" if "CellType" in name else "places" if name in ("SpatialKNN", "RandomFourierRidge") else "features"
    ]
    y = tissue["places" if name.startswith("Position") or name == "CellTypeCentroid" else "expression"]
    return x, y, tissue["groups"]


@pytest.mark.parametrize("name", st.baselines.__all__)
def test_baselines_are_estimators(tissue, name):
    x, y, groups = problem(name, tissue)
    estimator = small(name)
    assert is_regressor(estimator)
    copied = clone(estimator)
    assert str(copied.get_params()) == str(estimator.get_params())
    with pytest.raises(NotFittedError):
        copied.predict(x)
    with pytest.raises(NotFittedError):
        check_is_fitted(copied)
    check_is_fitted(copied.fit(x, y))
    assert copied.score(x, y) == pytest.approx(r2_score(y, copied.predict(x)))


@pytest.mark.parametrize("name", st.baselines.__all__)
def test_baselines_in_pipelines_and_cross_validation(tissue, name):
    x, y, groups = problem(name, tissue)
    first = FunctionTransformer() if "CellType" in name else StandardScaler()
    pipeline = make_pipeline(first, small(name))
    folds = GroupKFold(N_GROUPS)
    predicted = cross_val_predict(pipeline, x, y, groups=groups, cv=folds)
    scores = cross_val_score(pipeline, x, y, groups=groups, cv=folds)
    for (train, test), score in zip(folds.split(x, y, groups), scores, strict=True):
        scale = clone(first).fit(x[train])
        by_hand = small(name).fit(scale.transform(x[train]), y[train]).predict(scale.transform(x[test]))
        np.testing.assert_allclose(predicted[test], by_hand)
        assert score == pytest.approx(r2_score(y[test], by_hand))


def test_groups_reach_a_baseline_by_routing(tissue):
    x, y, groups = problem("PCARidge", tissue)
    folds = GroupKFold(N_GROUPS)
    with sklearn.config_context(enable_metadata_routing=True):
        ridge = small("PCARidge").set_fit_request(groups=True).set_predict_request(groups=False)
        predicted = cross_val_predict(make_pipeline(StandardScaler(), ridge), x, y, params={"groups": groups}, cv=folds)
    for train, test in folds.split(x, y, groups):
        scale = StandardScaler().fit(x[train])
        by_hand = small("PCARidge").fit(scale.transform(x[train]), y[train], groups[train])
        np.testing.assert_allclose(predicted[test], by_hand.predict(scale.transform(x[test])))


def test_search_of_a_parameter(tissue):
    x, y, groups = problem("KNNRetrieval", tissue)
    pipeline = make_pipeline(StandardScaler(), st.baselines.KNNRetrieval(metric="euclidean"))
    search = GridSearchCV(pipeline, {"knnretrieval__n_neighbors": [2, 5, 50]}, cv=GroupKFold(N_GROUPS))
    search.fit(x, y, groups=groups)
    scores = [
        cross_val_score(clone(pipeline).set_params(**params), x, y, groups=groups, cv=GroupKFold(N_GROUPS)).mean()
        for params in search.cv_results_["params"]
    ]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], scores)


def test_classifier_of_domains_on_our_latent(domains):
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    folds = StratifiedKFold(3, shuffle=True, random_state=0)

    def accuracy(labels):
        latent = domains.obsm["X_graphst"]
        return cross_val_score(pipeline, latent, labels, cv=folds, scoring="balanced_accuracy").mean()

    labels = domains.obs["domain"].to_numpy()
    assert accuracy(labels) > accuracy(np.random.default_rng(0).permutation(labels)) + 0.15


def test_regression_of_expression_on_our_latent(each):
    latent = each.data.obsm[f"X_{each.key}"]
    target = latent @ np.random.default_rng(0).normal(size=(latent.shape[1], 3))
    pipeline = make_pipeline(StandardScaler(), st.baselines.PCARidge(alphas=[1e-3]))
    assert cross_val_score(pipeline, latent, target, cv=3).min() > 0.9
