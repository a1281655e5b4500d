"""Neighbour graphs against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.spatial.distance import cdist

from stomics_tools.data import feature_knn, normalized_adjacency, spatial_knn


@pytest.mark.parametrize("n_dims", [2, 3])
def test_spatial_neighbours_equal_brute_force(n_dims):
    xyz = np.random.default_rng(0).uniform(size=(60, n_dims))
    graph = spatial_knn(xyz, 5)
    distance = cdist(xyz, xyz)
    np.fill_diagonal(distance, np.inf)
    for i, row in enumerate(np.argsort(distance, axis=1)[:, :5]):
        np.testing.assert_array_equal(graph[i].indices, np.sort(row))
        np.testing.assert_allclose(graph[i].data, distance[i, np.sort(row)])


def test_correlation_neighbours_equal_brute_force():
    x = np.random.default_rng(0).normal(size=(50, 9))
    graph = feature_knn(x, 6)
    distance = 1 - np.corrcoef(x)
    np.fill_diagonal(distance, np.inf)
    for i, row in enumerate(np.argsort(distance, axis=1)[:, :6]):
        np.testing.assert_array_equal(graph[i].indices, np.sort(row))
        np.testing.assert_allclose(graph[i].data, distance[i, np.sort(row)])


def test_constant_rows_correlate_with_nothing():
    x = np.random.default_rng(0).normal(size=(30, 9))
    x[4] = 0.1 + 0.2  # constant, but not exactly its own mean
    x[5] = 0
    graph = feature_knn(x, 4)
    assert np.isfinite(graph.data).all()
    np.testing.assert_allclose(graph[4].data, 1)
    np.testing.assert_allclose(graph[5].data, 1)


def test_spots_are_never_their_own_neighbours():
    xy = np.zeros((20, 2))
    xy[10:] = 1.0
    graph = spatial_knn(xy, 3)
    assert graph.diagonal().sum() == 0
    rows = np.repeat(np.arange(20), np.diff(graph.indptr))
    assert (graph.indices != rows).all()
    np.testing.assert_array_equal(graph.data, 0)  # their twins on the same point


@pytest.mark.parametrize("build", [spatial_knn, feature_knn])
def test_batches_are_never_joined(build):
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 3, 90)
    x = rng.normal(size=(90, 2 if build is spatial_knn else 7))
    graph = build(x, 4, batch).tocoo()
    np.testing.assert_array_equal(batch[graph.row], batch[graph.col])
    for b in range(3):
        rows = np.flatnonzero(batch == b)
        alone = build(x[rows], 4)
        together = build(x, 4, batch)[rows][:, rows]
        np.testing.assert_array_equal(alone.toarray(), together.toarray())


def test_too_few_spots_are_named():
    batch = np.array([0] * 10 + [1] * 3)
    with pytest.raises(ValueError, match="`n_neighbors=3` needs at least 4 spots in every slice, found a slice with 3"):
        spatial_knn(np.random.default_rng(0).uniform(size=(13, 2)), 3, batch)


def test_approximate_neighbours_are_mostly_the_exact_ones():
    x = np.random.default_rng(0).normal(size=(1500, 6))
    exact, approximate = feature_knn(x, 8), feature_knn(x, 8, exact=False)
    assert np.diff(approximate.indptr).tolist() == [8] * 1500
    assert approximate.diagonal().sum() == 0
    shared = exact.astype(bool).multiply(approximate.astype(bool)).nnz / exact.nnz
    assert shared > 0.9
    np.testing.assert_array_equal(approximate.toarray(), feature_knn(x, 8, exact=False).toarray())


def test_unknown_metric():
    with pytest.raises(ValueError, match="metric"):
        feature_knn(np.random.default_rng(0).normal(size=(10, 3)), 2, metric="cosine")


def test_normalized_adjacency_equals_the_formula():
    rng = np.random.default_rng(0)
    directed = sparse.random(25, 25, 0.15, format="csr", random_state=rng)
    directed.setdiag(0)
    dense = np.minimum(directed.toarray() + directed.toarray().T, 1) + np.eye(25)
    scale = 1 / np.sqrt(dense.sum(1))
    np.testing.assert_allclose(normalized_adjacency(directed).toarray(), scale[:, None] * dense * scale)
