"""The tensors and graphs of a tissue against dense references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist

from stomics_tools.data import hilbert_order
from stomics_tools.model.praga_spike._tissue import read_tissue

N = 80
GIVEN = {"n_spatial_neighbors": 4, "n_feature_neighbors": 3, "n_hops": 3}


def _data(seed=0):
    rng = np.random.default_rng(seed)
    return {"rna": rng.normal(3, 2, size=(N, 6)), "protein": rng.normal(-1, 5, size=(N, 4))}, rng.uniform(size=(N, 2))


def _matrix(graph):
    ones = np.ones(graph.n_edges)
    return sparse.csr_matrix((ones, graph.col.numpy(), graph.crow.numpy()), shape=graph.shape)


def _object_order(tissue, graph):
    """Dense pattern of a graph in the order of the object."""
    dense = np.zeros(graph.shape)
    edges = _matrix(graph).tocoo()
    dense[tissue.order[edges.row], tissue.order[edges.col]] = 1
    return dense


def _steps(xy, k, batch=None):
    distance = cdist(xy, xy)
    np.fill_diagonal(distance, np.inf)
    if batch is not None:
        distance[batch[:, None] != batch] = np.inf
    nearest = np.zeros_like(distance)
    np.put_along_axis(nearest, np.argsort(distance, axis=1)[:, :k], 1, axis=1)
    return shortest_path(nearest, directed=False, unweighted=True)


def test_values_are_centered_and_of_one_size(spots_of):
    values, xy = _data()
    tissue = read_tissue(spots_of(values, xy), **GIVEN)
    assert np.array_equal(tissue.order, hilbert_order(xy))
    for name, x, moments in zip(sorted(values), tissue.values, tissue.moments, strict=True):
        raw = values[name].astype(np.float32)
        scale = np.sqrt(((raw - raw.mean(0)) ** 2).mean())
        np.testing.assert_allclose(tissue.restore(x.numpy()), (raw - raw.mean(0)) / scale, atol=1e-5)
        np.testing.assert_allclose(moments[0], raw.mean(0), rtol=1e-5)
        np.testing.assert_allclose(moments[1], scale, rtol=1e-5)


def test_given_moments_are_used(spots_of):
    values, xy = _data()
    moments = [(torch.arange(4.0), torch.tensor(2.0)), (torch.arange(6.0), torch.tensor(0.5))]
    tissue = read_tissue(spots_of(values, xy), **GIVEN, moments=moments)
    np.testing.assert_allclose(tissue.restore(tissue.values[0].numpy()), (values["protein"] - range(4)) / 2, atol=1e-5)
    np.testing.assert_allclose(tissue.restore(tissue.values[1].numpy()), (values["rna"] - range(6)) / 0.5, atol=1e-5)


@pytest.mark.parametrize("n_slices", [1, 3])
def test_rings_and_distances(spots_of, n_slices):
    values, xy = _data()
    batch = np.random.default_rng(1).integers(0, n_slices, N)
    tissue = read_tissue(spots_of(values, xy, batch=batch), **GIVEN)
    steps, distance, mean = _steps(xy, 4, batch), cdist(xy, xy), []
    for h, ring in enumerate(tissue.rings, start=1):
        np.testing.assert_array_equal(_object_order(tissue, ring), steps == h)
        unit = np.array([distance[(steps == 1) & (batch == b)[:, None]].mean() for b in batch])  # of each slice its own
        mean.append((distance / unit[:, None])[steps == h].mean())
    np.testing.assert_allclose(tissue.distances, mean, rtol=1e-6)


def test_slices_are_segments_centered_by_themselves(spots_of):
    values, xy = _data()
    batch = np.random.default_rng(1).choice([0, 1, 2], N, p=[0.2, 0.3, 0.5])
    shifted = {name: x + 100.0 * batch[:, None] for name, x in values.items()}
    tissue = read_tissue(spots_of(shifted, xy, batch=batch), **GIVEN)
    assert tissue.segments.tolist() == [0, *np.cumsum(np.bincount(batch))]
    for slice_, (first, last) in enumerate(zip(tissue.segments[:-1], tissue.segments[1:], strict=True)):
        rows = tissue.order[first:last]
        np.testing.assert_array_equal(batch[rows], slice_)
        np.testing.assert_array_equal(rows, np.flatnonzero(batch == slice_)[hilbert_order(xy[batch == slice_])])
        for name, x, (_, scale) in zip(sorted(values), tissue.values, tissue.moments, strict=True):
            part = values[name][rows]
            np.testing.assert_allclose(x[first:last], (part - part.mean(0)) / scale.numpy(), atol=1e-4)
    for graph in (*tissue.rings, *tissue.alike):
        edges = _matrix(graph).tocoo()
        np.testing.assert_array_equal(batch[tissue.order[edges.row]], batch[tissue.order[edges.col]])


@pytest.mark.parametrize("n_slices", [1, 2])
def test_missing_spots_are_zero_and_alike_to_none(spots_of, n_slices):
    values, xy = _data()
    batch = (np.arange(N) % n_slices).astype(np.int64)
    missing = np.random.default_rng(1).choice(N, 25, replace=False)
    tissue = read_tissue(spots_of(values, xy, missing={"protein": missing}, batch=batch), **GIVEN)
    there = np.ones(N, dtype=bool)
    there[missing] = False
    np.testing.assert_array_equal(tissue.restore(tissue.present[0].numpy()).ravel(), there)
    assert tissue.present[1].all()
    x = tissue.restore(tissue.values[0].numpy())
    assert (x[missing] == 0).all()
    for slice_ in range(n_slices):
        np.testing.assert_allclose(x[there & (batch == slice_)].mean(0), 0, atol=1e-5)  # of those that have it
    alike = _object_order(tissue, tissue.alike[0])
    assert alike[there].sum() > 0
    assert alike[missing].sum() == alike[:, missing].sum() == 0


def test_alike_neighbourhoods_are_those_of_the_spots_around(spots_of):
    values, xy = _data()
    missing = np.arange(0, N, 7)
    tissue = read_tissue(spots_of(values, xy, missing={"protein": missing}), **GIVEN)
    steps = _steps(xy, 4)
    for name, graph in zip(sorted(values), tissue.alike, strict=True):
        has = np.ones(N)
        has[missing if name == "protein" else []] = 0
        x = values[name].astype(np.float32)
        x = (x - x[has > 0].mean(0)) * has[:, None]
        means = []
        for h in (1, 2):
            seen = (steps == h) * has
            means.append(seen @ x / np.maximum(seen.sum(1), 1)[:, None])
        distance = 1 - np.corrcoef(sum(means))
        distance[(steps <= 2) | (has == 0) | (has[:, None] == 0)] = np.inf
        pattern = _object_order(tissue, graph)
        n_found = pattern.sum(1).astype(int)
        assert n_found[has > 0].mean() > 2.5
        for i in np.flatnonzero(has):
            assert set(np.flatnonzero(pattern[i])) == set(np.argsort(distance[i])[: n_found[i]])


def test_a_flat_third_coordinate_changes_nothing(spots_of):
    values, xy = _data()
    flat = read_tissue(spots_of(values, xy), **GIVEN)
    for third in (0.0, 17.5):
        other = read_tissue(spots_of(values, np.column_stack([xy, np.full(N, third)])), **GIVEN)
        np.testing.assert_array_equal(other.order, flat.order)
        np.testing.assert_allclose(other.distances, flat.distances)
        for a, b in zip((*other.rings, *other.alike), (*flat.rings, *flat.alike), strict=True):
            assert torch.equal(a.crow, b.crow)
            assert torch.equal(a.col, b.col)


def test_ready_graphs_lose_their_loops_alone(spots_of):
    values, xy = _data()
    rng = np.random.default_rng(3)
    spatial, feature = (sparse.random(N, N, 0.05, format="csr", random_state=rng) for _ in range(2))
    feature.data[::5] = 0.0  # stored zeros are no edges
    ready = [sparse.csr_matrix(graph + 2 * sparse.identity(N)) for graph in (spatial, feature)]
    tissue = read_tissue(spots_of(values, xy, spatial_graph=ready[0], feature_graphs={"rna": ready[1]}), **GIVEN)
    steps = shortest_path(spatial != 0, directed=False, unweighted=True)
    for h, ring in enumerate(tissue.rings, start=1):
        np.testing.assert_array_equal(_object_order(tissue, ring), steps == h)
    dense = feature.toarray()
    np.fill_diagonal(dense, 0)
    np.testing.assert_array_equal(_object_order(tissue, tissue.alike[1]), dense != 0)
    assert _object_order(tissue, tissue.alike[0]).trace() == 0


def test_coincident_spots_are_neighbours(spots_of):
    values, xy = _data()
    xy[1] = xy[0]
    tissue = read_tissue(spots_of(values, xy), **GIVEN)
    assert _object_order(tissue, tissue.rings[0])[0, 1] == 1


def test_order_is_restored(spots_of):
    values, xy = _data()
    tissue = read_tissue(spots_of(values, xy), **GIVEN)
    rows = np.arange(N)
    np.testing.assert_array_equal(tissue.restore(rows[tissue.order]), rows)
    restored = tissue.restore_graph(_matrix(tissue.rings[1]))
    np.testing.assert_array_equal(restored.toarray(), _object_order(tissue, tissue.rings[1]))


def test_order_of_the_spots_does_not_matter(spots_of):
    values, xy = _data()
    turn = np.random.default_rng(4).permutation(N)
    one = read_tissue(spots_of(values, xy), **GIVEN)
    other = read_tissue(spots_of({name: x[turn] for name, x in values.items()}, xy[turn]), **GIVEN)
    np.testing.assert_array_equal(turn[other.order], one.order)
    for a, b in zip((*one.rings, *one.alike), (*other.rings, *other.alike), strict=True):
        np.testing.assert_array_equal(_matrix(a).toarray(), _matrix(b).toarray())


def test_no_feature_graphs_if_none_are_asked_for(spots_of):
    values, xy = _data()
    assert read_tissue(spots_of(values, xy), n_spatial_neighbors=4, n_feature_neighbors=0, n_hops=1).alike == []
