"""Leiden clustering of a feature graph at a wanted number of clusters."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from scipy import sparse

from stomics_tools.data._graphs import feature_knn

_BISECTIONS = 30


def leiden_at(x: np.ndarray, n_clusters: int, *, n_neighbors: int = 15, seed: int = 0) -> np.ndarray:
    """Leiden clusters ``(n_obs,)`` of the nearest neighbours of rows, at the resolution that gives `n_clusters` of them.

    Parameters
    ----------
    x
        ``(n_obs, n_features)``.
    n_clusters
        Wanted number. It is sought by bisection of the logarithm of the resolution; as the number of clusters jumps,
        it may not exist, and the clustering of the nearest number that was met is returned then.
    n_neighbors
        Neighbours of each row; the two ends of an edge need not choose each other, but an edge counts twice if they do.
    seed
        Of the neighbour search and of Leiden.
    """
    n_neighbors = min(n_neighbors, len(x) - 1)
    graph = _igraph(feature_knn(x, n_neighbors, metric="euclidean", seed=seed))
    low, high = -7.0, 7.0
    tried = []
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        labels = _leiden(graph, float(np.exp(middle)), seed)
        excess = int(labels.max()) + 1 - n_clusters
        tried.append((abs(excess), labels))
        if not excess:
            break
        low, high = (middle, high) if excess < 0 else (low, middle)
    return min(tried, key=lambda trial: trial[0])[1]


def require_igraph() -> Any:
    """Return the module ``igraph``; ``ImportError`` that says how to get it."""
    try:
        import igraph
    except ImportError as error:
        raise ImportError(
            '`method="leiden"` needs igraph. Install it with `pip install "stomics-tools[leiden]"`.'
        ) from error
    return igraph


def _igraph(knn: sparse.csr_matrix) -> Any:
    knn = sparse.csr_matrix((np.ones(knn.nnz), knn.indices, knn.indptr), shape=knn.shape)
    edges = sparse.triu(knn + knn.T, format="coo")
    return require_igraph().Graph(
        n=knn.shape[0], edges=np.column_stack([edges.row, edges.col]), edge_attrs={"weight": edges.data}
    )


def _leiden(graph: Any, resolution: float, seed: int) -> np.ndarray:
    igraph = require_igraph()
    igraph.set_random_number_generator(random.Random(seed))
    try:
        clusters = graph.community_leiden(
            objective_function="modularity", weights="weight", resolution=resolution, n_iterations=2
        )
    finally:
        igraph.set_random_number_generator(random)  # igraph's default
    return np.asarray(clusters.membership, dtype=np.int64)
