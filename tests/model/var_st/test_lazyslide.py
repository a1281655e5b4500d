from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from scipy.spatial import cKDTree

from stomics_tools.model.var_st._lazyslide import LazySlidePredictor

GENES = ["ERBB2", "CD3E", "KRT5"]
MEMBERS = ("model", "name", "features_model_name", "needs_coords", "whole_slide")
METHODS = ("predict", "to", "get_transform", "try_compile")


class Linear:
    """Stand-in for a trained model: a linear map of features, and of those of the nearest other tile."""

    gene_names = GENES

    def __init__(self, *, uses_coordinates: bool, spatial_key: str = "spatial") -> None:
        self.spatial_key = spatial_key
        self.uses_coordinates = uses_coordinates
        self.weight = np.random.default_rng(0).normal(size=(5, 3))
        self.sizes: list[int] = []

    def predict(self, adata: AnnData) -> np.ndarray:
        self.sizes.append(adata.n_obs)
        values = adata.X @ self.weight
        if self.uses_coordinates:
            places = adata.obsm[self.spatial_key]
            values += values[cKDTree(places).query(places, k=2)[1][:, 1]]
        return values


@pytest.fixture
def features() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32)


@pytest.fixture
def corners() -> np.ndarray:
    return np.random.default_rng(2).uniform(0, 1e4, size=(50, 2))


def truth(model: Linear, features: np.ndarray, corners: np.ndarray) -> np.ndarray:
    values = features @ model.weight
    if model.uses_coordinates:
        distance = np.linalg.norm(corners[:, None] - corners[None], axis=2)
        np.fill_diagonal(distance, np.inf)
        values = values + values[distance.argmin(axis=1)]
    return values


@pytest.mark.parametrize("uses_coordinates", [False, True])
def test_one_array_a_gene(features, corners, uses_coordinates):
    model = Linear(uses_coordinates=uses_coordinates)
    found = LazySlidePredictor(model, batch_size=16).predict(features, corners)
    assert isinstance(found, Mapping)
    assert list(found) == GENES
    assert all(values.shape == (50,) and values.dtype == np.float32 for values in found.values())
    np.testing.assert_allclose(np.stack(list(found.values()), axis=1), truth(model, features, corners), rtol=1e-4)
    assert model.sizes == ([50] if uses_coordinates else [16, 16, 16, 2])


def test_coordinates_under_the_key_of_setup(features, corners):
    model = Linear(uses_coordinates=True, spatial_key="pixels")
    found = LazySlidePredictor(model, spatial_key="pixels").predict(features, corners)
    np.testing.assert_allclose(found["CD3E"], truth(model, features, corners)[:, 1], rtol=1e-4)


def test_declares_what_it_needs():
    for uses_coordinates in (False, True):
        predictor = LazySlidePredictor(Linear(uses_coordinates=uses_coordinates), features_model_name="uni")
        assert predictor.needs_coords is predictor.whole_slide is uses_coordinates
        assert (predictor.name, predictor.features_model_name) == ("var_st", "uni")
        assert all(hasattr(predictor, member) for member in MEMBERS)
        assert all(callable(getattr(predictor, method)) for method in METHODS)
        assert predictor.to("cpu") is predictor
        assert predictor.get_transform() is None
        predictor.try_compile(mode="default")


def test_places_that_do_not_fit(features, corners):
    predictor = LazySlidePredictor(Linear(uses_coordinates=True))
    with pytest.raises(ValueError, match=r"`coords` must be of shape \(50, 2\).*found None"):
        predictor.predict(features)
    with pytest.raises(ValueError, match=r"found \(49, 2\)"):
        predictor.predict(features, corners[1:])
    with pytest.raises(ValueError, match=r"`features` must be of shape \(n_tiles, n_features\), found \(5,\)"):
        predictor.predict(features[0], corners)
    assert predictor.model.sizes == []


def test_bad_arguments():
    model = Linear(uses_coordinates=False)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        LazySlidePredictor(model, batch_size=0)
    model.gene_names = ["CD3E", "CD3E", "KRT5"]
    with pytest.raises(ValueError, match="names of genes must not repeat, found 1"):
        LazySlidePredictor(model)


def run_by_protocol(predictor: Any, features: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Call a predictor as LazySlide does: in batches, or once if it asks for the whole slide."""
    step = len(features) if predictor.whole_slide else 20
    parts = []
    for start in range(0, len(features), step):
        rows = slice(start, start + step)
        output = predictor.predict(features[rows], *([corners[rows]] if predictor.needs_coords else []))
        parts.append(np.column_stack(list(output.values())))
    return np.concatenate(parts)


def run_by_lazyslide(predictor: Any, features: np.ndarray, corners: np.ndarray) -> np.ndarray:
    geopandas, shapely, wsidata, io = map(import_module, ("geopandas", "shapely", "wsidata", "wsidata.io"))
    base = import_module("lazyslide_models.base")
    assert isinstance(predictor, base.FeaturePredictionModelProtocol)

    class Reader:
        properties = type("Properties", (), {"to_dict": lambda self: {}})()

    wsi = wsidata.WSIData(reader=Reader())
    boxes = [shapely.box(x, y, x + 10, y + 10) for x, y in corners]
    io.add_shapes(wsi, "places", geopandas.GeoDataFrame({"geometry": boxes}))
    io.add_features(wsi, key="uni_places", tile_key="places", features=features)
    run = import_module("lazyslide.tools").feature_prediction
    run(wsi, predictor, tile_key="places", batch_size=20, device="cpu", pbar=False)
    table = wsi.tables["var_st_places"]
    assert list(table.var_names) == GENES
    return np.asarray(table.X)


RUNNERS = [run_by_protocol, run_by_lazyslide] if find_spec("lazyslide") else [run_by_protocol]


@pytest.mark.parametrize("run", RUNNERS)
@pytest.mark.parametrize("uses_coordinates", [False, True])
def test_run_over_a_slide(features, corners, uses_coordinates, run):
    model = Linear(uses_coordinates=uses_coordinates)
    found = run(LazySlidePredictor(model, features_model_name="uni"), features, corners)
    np.testing.assert_allclose(found, truth(model, features, corners), rtol=1e-4)
