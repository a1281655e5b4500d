"""The tensors and graphs of the inputs against dense references."""

from __future__ import annotations

import inspect
from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy import sparse
from scipy.sparse.csgraph import shortest_path
from scipy.spatial.distance import cdist

from stomics_tools.data import hilbert_order
from stomics_tools.model import PRAGASpike
from stomics_tools.model.praga_spike._inputs import prepare
from stomics_tools.model.praga_spike._settings import SpikeSettings

N = 80


def _given(**changes):
    """Settings of the model with its defaults but for few neighbors."""
    defaults = {name: p.default for name, p in inspect.signature(PRAGASpike).parameters.items()}
    defaults |= {"n_spatial_neighbors": 4, "n_feature_neighbors": 3, "n_hops": 3} | changes
    return SpikeSettings(**{field.name: defaults[field.name] for field in fields(SpikeSettings)})


GIVEN = _given()


def _data(seed=0):
    rng = np.random.default_rng(seed)
    return {"rna": rng.normal(3, 2, size=(N, 6)), "protein": rng.normal(-1, 5, size=(N, 4))}, rng.uniform(size=(N, 2))


def _matrix(graph):
    ones = np.ones(graph.n_edges)
    return sparse.csr_matrix((ones, graph.col.numpy(), graph.crow.numpy()), shape=graph.shape)


def _object_order(inputs, graph):
    """Dense pattern of a graph in the order of the object."""
    dense = np.zeros(graph.shape)
    edges = _matrix(graph).tocoo()
    dense[inputs.order[edges.row], inputs.order[edges.col]] = 1
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
    inputs = prepare(spots_of(values, xy), GIVEN)
    assert np.array_equal(inputs.order, hilbert_order(xy))
    for name, x, moments in zip(sorted(values), inputs.values, inputs.moments, strict=True):
        raw = values[name].astype(np.float32)
        scale = np.sqrt(((raw - raw.mean(0)) ** 2).mean())
        np.testing.assert_allclose(inputs.restore(x.numpy()), (raw - raw.mean(0)) / scale, atol=1e-5)
        np.testing.assert_allclose(moments[0], raw.mean(0), rtol=1e-5)
        np.testing.assert_allclose(moments[1], scale, rtol=1e-5)


def test_given_moments_are_used(spots_of):
    values, xy = _data()
    moments = [(torch.arange(4.0), torch.tensor(2.0)), (torch.arange(6.0), torch.tensor(0.5))]
    inputs = prepare(spots_of(values, xy), GIVEN, moments=moments)
    np.testing.assert_allclose(inputs.restore(inputs.values[0].numpy()), (values["protein"] - range(4)) / 2, atol=1e-5)
    np.testing.assert_allclose(inputs.restore(inputs.values[1].numpy()), (values["rna"] - range(6)) / 0.5, atol=1e-5)


@pytest.mark.parametrize("n_slices", [1, 3])
def test_rings_and_distances(spots_of, n_slices):
    values, xy = _data()
    batch = np.random.default_rng(1).integers(0, n_slices, N)
    inputs = prepare(spots_of(values, xy, batch=batch), GIVEN)
    steps, distance, mean = _steps(xy, 4, batch), cdist(xy, xy), []
    for h, ring in enumerate(inputs.rings, start=1):
        np.testing.assert_array_equal(_object_order(inputs, ring), steps == h)
        unit = np.array([distance[(steps == 1) & (batch == b)[:, None]].mean() for b in batch])  # of each slice its own
        mean.append((distance / unit[:, None])[steps == h].mean())
    np.testing.assert_allclose(inputs.distances, mean, rtol=1e-6)


def test_slices_are_segments_centered_by_themselves(spots_of):
    values, xy = _data()
    batch = np.random.default_rng(1).choice([0, 1, 2], N, p=[0.2, 0.3, 0.5])
    shifted = {name: x + 100.0 * batch[:, None] for name, x in values.items()}
    inputs = prepare(spots_of(shifted, xy, batch=batch), GIVEN)
    assert inputs.segments.tolist() == [0, *np.cumsum(np.bincount(batch))]
    for slice_, (first, last) in enumerate(zip(inputs.segments[:-1], inputs.segments[1:], strict=True)):
        rows = inputs.order[first:last]
        np.testing.assert_array_equal(batch[rows], slice_)
        np.testing.assert_array_equal(rows, np.flatnonzero(batch == slice_)[hilbert_order(xy[batch == slice_])])
        for name, x, (_, scale) in zip(sorted(values), inputs.values, inputs.moments, strict=True):
            part = values[name][rows]
            np.testing.assert_allclose(x[first:last], (part - part.mean(0)) / scale.numpy(), atol=1e-4)
    for graph in (*inputs.rings, *inputs.feature_graphs):
        edges = _matrix(graph).tocoo()
        np.testing.assert_array_equal(batch[inputs.order[edges.row]], batch[inputs.order[edges.col]])


@pytest.mark.parametrize("n_slices", [1, 2])
def test_missing_spots_are_zero_and_similar_to_none(spots_of, n_slices):
    values, xy = _data()
    batch = (np.arange(N) % n_slices).astype(np.int64)
    missing = np.random.default_rng(1).choice(N, 25, replace=False)
    inputs = prepare(spots_of(values, xy, missing={"protein": missing}, batch=batch), GIVEN)
    there = np.ones(N, dtype=bool)
    there[missing] = False
    np.testing.assert_array_equal(inputs.restore(inputs.present[0].numpy()).ravel(), there)
    assert inputs.present[1].all()
    x = inputs.restore(inputs.values[0].numpy())
    assert (x[missing] == 0).all()
    for slice_ in range(n_slices):
        np.testing.assert_allclose(x[there & (batch == slice_)].mean(0), 0, atol=1e-5)  # of those that have it
    similar = _object_order(inputs, inputs.feature_graphs[0])
    assert similar[there].sum() > 0
    assert similar[missing].sum() == similar[:, missing].sum() == 0


def test_similar_neighborhoods_are_those_of_the_spots_around(spots_of):
    values, xy = _data()
    missing = np.arange(0, N, 7)
    inputs = prepare(spots_of(values, xy, missing={"protein": missing}), GIVEN)
    steps = _steps(xy, 4)
    for name, graph in zip(sorted(values), inputs.feature_graphs, strict=True):
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
        pattern = _object_order(inputs, graph)
        n_found = pattern.sum(1).astype(int)
        assert n_found[has > 0].mean() > 2.5
        for i in np.flatnonzero(has):
            assert set(np.flatnonzero(pattern[i])) == set(np.argsort(distance[i])[: n_found[i]])


def test_a_flat_third_coordinate_changes_nothing(spots_of):
    values, xy = _data()
    flat = prepare(spots_of(values, xy), GIVEN)
    for third in (0.0, 17.5):
        other = prepare(spots_of(values, np.column_stack([xy, np.full(N, third)])), GIVEN)
        np.testing.assert_array_equal(other.order, flat.order)
        np.testing.assert_allclose(other.distances, flat.distances)
        for a, b in zip((*other.rings, *other.feature_graphs), (*flat.rings, *flat.feature_graphs), strict=True):
            assert torch.equal(a.crow, b.crow)
            assert torch.equal(a.col, b.col)


def test_ready_graphs_lose_their_loops_alone(spots_of):
    values, xy = _data()
    rng = np.random.default_rng(3)
    spatial, feature = (sparse.random(N, N, 0.05, format="csr", random_state=rng) for _ in range(2))
    feature.data[::5] = 0.0  # stored zeros are no edges
    ready = [sparse.csr_matrix(graph + 2 * sparse.identity(N)) for graph in (spatial, feature)]
    inputs = prepare(spots_of(values, xy, spatial_graph=ready[0], feature_graphs={"rna": ready[1]}), GIVEN)
    steps = shortest_path(spatial != 0, directed=False, unweighted=True)
    for h, ring in enumerate(inputs.rings, start=1):
        np.testing.assert_array_equal(_object_order(inputs, ring), steps == h)
    dense = feature.toarray()
    np.fill_diagonal(dense, 0)
    np.testing.assert_array_equal(_object_order(inputs, inputs.feature_graphs[1]), dense != 0)
    assert _object_order(inputs, inputs.feature_graphs[0]).trace() == 0


def test_coincident_spots_are_neighbors(spots_of):
    values, xy = _data()
    xy[1] = xy[0]
    inputs = prepare(spots_of(values, xy), GIVEN)
    assert _object_order(inputs, inputs.rings[0])[0, 1] == 1


def test_order_is_restored(spots_of):
    values, xy = _data()
    inputs = prepare(spots_of(values, xy), GIVEN)
    rows = np.arange(N)
    np.testing.assert_array_equal(inputs.restore(rows[inputs.order]), rows)
    restored = inputs.restore_graph(_matrix(inputs.rings[1]))
    np.testing.assert_array_equal(restored.toarray(), _object_order(inputs, inputs.rings[1]))


def test_order_of_the_spots_does_not_matter(spots_of):
    values, xy = _data()
    turn = np.random.default_rng(4).permutation(N)
    one = prepare(spots_of(values, xy), GIVEN)
    other = prepare(spots_of({name: x[turn] for name, x in values.items()}, xy[turn]), GIVEN)
    np.testing.assert_array_equal(turn[other.order], one.order)
    for a, b in zip((*one.rings, *one.feature_graphs), (*other.rings, *other.feature_graphs), strict=True):
        np.testing.assert_array_equal(_matrix(a).toarray(), _matrix(b).toarray())


def test_no_feature_graphs_if_none_are_asked_for(spots_of):
    values, xy = _data()
    assert prepare(spots_of(values, xy), _given(n_feature_neighbors=0)).feature_graphs == []


def test_units_are_those_of_the_data(spots_of):
    """Standardized values back to those of the object, about the center of each slice, and the reverse."""
    values, xy = _data()
    batch = (np.arange(N) % 2).astype(np.int64)
    shifted = {name: x + 50.0 * batch[:, None] for name, x in values.items()}
    inputs = prepare(spots_of(shifted, xy, batch=batch), GIVEN)
    for m, name in enumerate(sorted(values)):
        back = inputs.in_units(inputs.values[m], m)
        np.testing.assert_allclose(inputs.restore(back.numpy()), shifted[name], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(inputs.standardized(back, m), inputs.values[m], atol=1e-4, rtol=0)
