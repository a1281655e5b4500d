"""Neighbour graphs against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist

from stomics_tools.data import alike_elsewhere, feature_knn, normalized_adjacency, rings, spatial_knn


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


@pytest.mark.parametrize(("n_obs", "k"), [(60, 2), (60, 4), (9, 8), (12, 1)])
def test_rings_equal_shortest_paths(n_obs, k):
    graph = spatial_knn(np.random.default_rng(n_obs + k).uniform(size=(n_obs, 2)), k)
    steps = shortest_path(graph != 0, directed=False, unweighted=True)
    for h, ring in enumerate(rings(graph, 4), start=1):
        dense = ring.toarray()
        np.testing.assert_array_equal(dense, steps == h)
        np.testing.assert_array_equal(dense, dense.T)
        assert ring.nnz == (steps == h).sum()  # nothing stored but ones
        assert ring.dtype == np.float32
        assert ring.has_sorted_indices


def test_rings_know_no_stored_zeros_and_no_loops():
    graph = sparse.csr_matrix(([0.0, 5.0, 2.0, 1.0], ([0, 0, 1, 2], [1, 0, 2, 3])), shape=(4, 4))
    one, two, three = rings(graph, 3)
    assert sorted(zip(*one.nonzero(), strict=True)) == [(1, 2), (2, 1), (2, 3), (3, 2)]
    assert sorted(zip(*two.nonzero(), strict=True)) == [(1, 3), (3, 1)]
    assert three.nnz == 0


def test_rings_of_many_walks():
    """More walks of two steps between two spots than a byte can count."""
    n = 300
    star = np.zeros((n + 2, n + 2))
    star[:n, n:] = 1
    two = rings(sparse.csr_matrix(star), 2)[1].toarray()
    np.testing.assert_array_equal(two, shortest_path(star, directed=False, unweighted=True) == 2)


@pytest.mark.parametrize("batch", [None, np.repeat([0, 1], [50, 40])])
def test_alike_elsewhere_equals_brute_force(batch):
    rng = np.random.default_rng(0)
    xy, profile, k = rng.uniform(size=(90, 2)), rng.normal(size=(90, 7)), 5
    near = rings(spatial_knn(xy, 4, batch), 2)
    graph = alike_elsewhere(profile, k, near, batch)
    distance = 1 - np.corrcoef(profile)
    barred = (near[0] + near[1]).toarray() > 0
    n_near = barred.sum(1)
    np.fill_diagonal(barred, True)
    if batch is not None:
        barred |= batch[:, None] != batch
    distance[barred] = np.inf
    usual = np.ceil(n_near.mean())
    for i, order in enumerate(np.argsort(distance, axis=1)):
        n = graph[i].nnz
        assert n <= k
        # A spot with more spots near it than usual may find fewer, never others.
        assert n >= min(k, k + usual - n_near[i])
        np.testing.assert_array_equal(graph[i].indices, np.sort(order[:n]))
        np.testing.assert_allclose(graph[i].data, distance[i, np.sort(order[:n])])
    assert np.diff(graph.indptr).mean() > 0.9 * k


def test_alike_elsewhere_with_few_spots():
    rng = np.random.default_rng(0)
    xy, profile = rng.uniform(size=(9, 2)), rng.normal(size=(9, 5))
    near = rings(spatial_knn(xy, 2), 2)
    graph = alike_elsewhere(profile, 50, near)
    far = (near[0] + near[1]).toarray() == 0
    np.fill_diagonal(far, False)
    np.testing.assert_array_equal(graph.toarray() != 0, far)  # all that are left
    nowhere = alike_elsewhere(profile, 3, rings(spatial_knn(xy, 8), 2))
    assert nowhere.shape == (9, 9)
    assert nowhere.nnz == 0
