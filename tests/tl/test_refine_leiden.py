from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

from stomics_tools.data._graphs import spatial_knn
from stomics_tools.tl._leiden import leiden_at
from stomics_tools.tl._refine import majority_labels


def test_majority_equals_a_loop():
    rng = np.random.default_rng(0)
    graph = spatial_knn(rng.uniform(size=(200, 2)), 6, rng.integers(2, size=200))
    labels = rng.integers(4, size=200)
    expected = []
    for own, row in zip(labels, graph, strict=True):
        votes = Counter(labels[row.indices].tolist())
        leaders = sorted(label for label, n in votes.items() if n == max(votes.values()))
        expected.append(own if own in leaders else leaders[0])
    refined = majority_labels(labels, graph)
    np.testing.assert_array_equal(refined, expected)
    assert (refined != labels).any()


def test_majority_takes_edges_whatever_their_values():
    graph = sparse.csr_matrix((np.array([0.0, 0.0, 9.0]), np.array([1, 2, 3]), np.array([0, 3, 3, 3, 3])), shape=(4, 4))
    np.testing.assert_array_equal(majority_labels(np.array([2, 0, 0, 1]), graph), [0, 0, 0, 1])


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    labels = rng.integers(6, size=700)
    return 8 * rng.normal(size=(6, 5))[labels] + rng.normal(size=(700, 5)), labels


def test_leiden_finds_blobs_and_numbers_around(blobs):
    x, labels = blobs
    assert adjusted_rand_score(labels, leiden_at(x, 6)) > 0.99
    for n_clusters in (8, 12):
        assert len(np.unique(leiden_at(x, n_clusters))) == n_clusters


def test_leiden_returns_the_nearest_number_there_is(blobs):
    """Six blobs without an edge between them are never fewer than six clusters."""
    x, labels = blobs
    apart = x + 1e3 * np.eye(6)[labels][:, :5] - 1e3 * (labels == 5)[:, None]
    assert adjusted_rand_score(labels, leiden_at(apart, 3)) == 1


def test_leiden_same_seed_same_result_without_global_state(blobs):
    x = blobs[0]
    state, np_state = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    np.testing.assert_array_equal(leiden_at(x, 9, seed=3), leiden_at(x, 9, seed=3))
    assert random.getstate() == state
    np.testing.assert_array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002
