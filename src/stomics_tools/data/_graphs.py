"""Neighbour graphs of spots: in space and between features, never joining two batches, never n x n."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

APPROXIMATE_ABOVE = 100_000
"""Feature neighbours of more spots than this are approximate (pynndescent) unless asked otherwise."""

_LEAST_STEP = 0.25  # between the distances of two rings


def _batches(n_obs: int, batch: np.ndarray | None) -> list[np.ndarray]:
    if batch is None:
        return [np.arange(n_obs)]
    return [np.flatnonzero(batch == b) for b in np.unique(batch)]


def check_batch_sizes(n_obs: int, batch: np.ndarray | None, n_neighbors: int, *, argument: str = "n_neighbors") -> None:
    """Raise ``ValueError`` if a batch has too few spots for `n_neighbors` neighbours other than itself."""
    check_slice_sizes([len(rows) for rows in _batches(n_obs, batch)], n_neighbors, argument=argument)


def check_slice_sizes(sizes: Sequence[int], n_neighbors: int, *, argument: str = "n_neighbors") -> None:
    """The same of the numbers of spots of slices; those without any spot do not count."""
    smallest = min((size for size in sizes if size), default=0)
    if smallest <= n_neighbors:
        raise ValueError(
            f"`{argument}={n_neighbors}` needs at least {n_neighbors + 1} spots in every slice, "
            f"found a slice with {smallest}. Lower `{argument}` or leave that slice out."
        )


def spatial_knn(coordinates: np.ndarray, n_neighbors: int, batch: np.ndarray | None = None) -> sparse.csr_matrix:
    """Directed graph of the nearest spots in space, within each batch.

    Parameters
    ----------
    coordinates
        ``(n_obs, 2 or 3)``, any unit of length.
    n_neighbors
        Neighbours of each spot, the spot itself not counted. Spots on the same point are neighbours at distance 0.
    batch
        Integer codes ``(n_obs,)``; spots of different batches are never joined.

    Returns
    -------
    ``(n_obs, n_obs)`` float64 CSR of Euclidean distances, `n_neighbors` stored entries a row (zeros are stored too).

    Raises
    ------
    ValueError
        If a batch has fewer than ``n_neighbors + 1`` spots.
    """
    return _knn(np.asarray(coordinates, dtype=np.float64), n_neighbors, batch, exact=True, algorithm="kd_tree")


def feature_knn(
    features: np.ndarray,
    n_neighbors: int,
    batch: np.ndarray | None = None,
    *,
    metric: str = "correlation",
    exact: bool | None = None,
    seed: int = 0,
) -> sparse.csr_matrix:
    """Directed graph of the spots most alike in their features, within each batch.

    Parameters
    ----------
    features
        ``(n_obs, n_features)``.
    n_neighbors
        Neighbours of each spot, the spot itself not counted.
    batch
        Integer codes ``(n_obs,)``; spots of different batches are never joined.
    metric
        ``"correlation"`` (one minus Pearson's; a constant row correlates with nothing) or ``"euclidean"``.
    exact
        Exact neighbours, or approximate ones by nearest-neighbour descent. Default: exact in batches of up to 100,000
        spots.
    seed
        Of the approximate search.

    Returns
    -------
    ``(n_obs, n_obs)`` float64 CSR of distances, `n_neighbors` stored entries a row (zeros are stored too).
    """
    x = np.asarray(features, dtype=np.float64)
    if metric == "correlation":
        x = x - x.mean(axis=1, keepdims=True)
        norm = np.linalg.norm(x, axis=1, keepdims=True)
        # Rows that are constant up to rounding have no direction.
        scale = np.abs(features).max(axis=1, keepdims=True) * x.shape[1] ** 0.5
        x = np.divide(x, norm, out=np.zeros_like(x), where=norm > 1e-12 * np.maximum(scale, 1e-300))
    elif metric != "euclidean":
        raise ValueError(f"`metric`: unknown option {metric!r}. Valid options: ['correlation', 'euclidean'].")
    graph = _knn(x, n_neighbors, batch, exact=exact, algorithm="brute", seed=seed)
    if metric == "correlation":
        graph.data = np.clip(1.0 - edge_dots(graph, x), 0.0, 2.0)
    return graph


def edge_dots(graph: sparse.csr_matrix, x: np.ndarray, block: int = 1 << 18) -> np.ndarray:
    """Dot product of the rows of `x` at the two ends of every stored edge, ``(n_edges,)``."""
    rows = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    out = np.empty(graph.nnz)
    for start in range(0, graph.nnz, block):
        part = slice(start, start + block)
        out[part] = np.einsum("ij,ij->i", x[rows[part]], x[graph.indices[part]])
    return out


def _knn(
    x: np.ndarray, n_neighbors: int, batch: np.ndarray | None, *, exact: bool | None, algorithm: str, seed: int = 0
) -> sparse.csr_matrix:
    """Neighbours of each row within its batch; indices ascend in a row so that the result is canonical.

    A batch gets the same neighbours whatever others there are: with `exact` None each is searched as its own size asks.
    """
    n_obs = len(x)
    check_batch_sizes(n_obs, batch, n_neighbors)
    indices = np.empty((n_obs, n_neighbors), dtype=np.int64)
    distances = np.empty((n_obs, n_neighbors))
    for rows in _batches(n_obs, batch):
        part = x[rows]
        if len(rows) <= APPROXIMATE_ABOVE if exact is None else exact:
            search = NearestNeighbors(n_neighbors=n_neighbors, algorithm=algorithm).fit(part)
            d, i = search.kneighbors()  # without an argument: the spot itself is never its own neighbour
        else:
            i, d = _approximate(part, n_neighbors, seed)
        order = np.argsort(i, axis=1)
        indices[rows] = rows[np.take_along_axis(i, order, axis=1)]
        distances[rows] = np.take_along_axis(d, order, axis=1)
    indptr = np.arange(0, n_obs * n_neighbors + 1, n_neighbors, dtype=np.int64)
    return sparse.csr_matrix((distances.ravel(), indices.ravel(), indptr), shape=(n_obs, n_obs))


def _approximate(x: np.ndarray, n_neighbors: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    from pynndescent import NNDescent  # compiles for a minute at first use

    index = NNDescent(x.astype(np.float32), n_neighbors=n_neighbors + 1, random_state=seed, n_jobs=None)
    i, d = index.neighbor_graph
    # The spot itself is left out wherever it stands; where it was not found, the farthest neighbour is.
    itself = i == np.arange(len(x))[:, None]
    itself[~itself.any(axis=1), -1] = True
    keep = ~itself
    return i[keep].reshape(len(x), n_neighbors), d[keep].reshape(len(x), n_neighbors)


def rings(graph: sparse.csr_matrix, n_hops: int) -> list[sparse.csr_matrix]:
    """Spots at exactly 1, 2, ... `n_hops` steps from each spot.

    A walk of two steps may return to where it began; a ring never holds its own centre.

    Parameters
    ----------
    graph
        Neighbours ``(n_obs, n_obs)``, in either direction; stored zeros are no edges.

    Returns
    -------
    For each number of steps a symmetric CSR pattern of float32 ones, indices ascending, no diagonal.
    """
    step = sparse.csr_matrix(graph != 0)
    step = sparse.csr_matrix(step + step.T).astype(np.int8)
    step.setdiag(0)
    step.eliminate_zeros()
    seen = sparse.csr_matrix(step + sparse.identity(graph.shape[0], dtype=np.int8, format="csr"))
    found = [step]
    for _ in range(n_hops - 1):
        reached = sparse.csr_matrix((found[-1].astype(np.int32) @ step.astype(np.int32)) != 0).astype(np.int8)
        new = sparse.csr_matrix(reached - reached.multiply(seen))
        new.eliminate_zeros()
        seen = sparse.csr_matrix(seen + new)
        found.append(new)
    for ring in found:
        ring.sort_indices()
    return [ring.astype(np.float32) for ring in found]


def ring_distances(found: list[sparse.csr_matrix], coordinates: np.ndarray, batch: np.ndarray) -> list[float]:
    """Mean distance of the spots of each of the :func:`rings`, in units of the first of its slice, rising.

    It is the number of steps where a ring has no edges, and each is at least a quarter more than the one before: spots may
    coincide, and a ready graph may join spots far apart.
    """
    unit = np.zeros(batch.max() + 1)
    distances = [1.0]
    for step, ring in enumerate(found, start=1):
        rows = np.repeat(np.arange(len(batch)), np.diff(ring.indptr))
        between = np.linalg.norm(coordinates[rows] - coordinates[ring.indices], axis=1)
        own = batch[rows]
        if step == 1:
            unit = np.bincount(own, between, len(unit)) / np.maximum(np.bincount(own, minlength=len(unit)), 1)
            continue
        known = unit[own] > 0
        mean = (between[known] / unit[own[known]]).mean() if known.any() else step
        distances.append(max(float(mean), distances[-1] + _LEAST_STEP))
    return distances


def alike_elsewhere(
    profile: np.ndarray, n_neighbors: int, near: list[sparse.csr_matrix], batch: np.ndarray | None = None
) -> sparse.csr_matrix:
    """Directed graph of the spots most alike in a profile, those near in space left out.

    Parameters
    ----------
    profile
        ``(n_obs, n_features)``.
    n_neighbors
        At most so many a row.
    near
        Patterns of what is near, such as the first :func:`rings`.
    batch
        Integer codes ``(n_obs,)``; spots of different batches are never joined.

    Returns
    -------
    ``(n_obs, n_obs)`` CSR of correlation distances, indices ascending.
    """
    local = sparse.csr_matrix(sum(near[1:], start=near[0]))
    found = [
        (rows[i], rows[j], distance)
        for rows in _batches(len(profile), batch)  # each by itself: how far to search is a matter of the batch
        for i, j, distance in [_alike_of_batch(profile[rows], n_neighbors, local[rows][:, rows])]
    ]
    rows, cols, distance = (np.concatenate(parts) for parts in zip(*found, strict=True))
    result = sparse.csr_matrix((distance, (rows, cols)), shape=(len(profile), len(profile)))
    result.sort_indices()
    return result


def _alike_of_batch(
    profile: np.ndarray, n_neighbors: int, local: sparse.csr_matrix
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends and distances of the edges of :func:`alike_elsewhere` in one batch."""
    most_near = int(np.quantile(np.diff(local.indptr), 0.99))
    n_searched = min(n_neighbors + most_near, len(profile) - 1)
    if n_searched == 0:  # a spot alone
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)
    graph = feature_knn(profile, n_searched)
    rows = np.repeat(np.arange(len(profile)), n_searched)
    far = np.asarray(local[rows, graph.indices]).ravel() == 0
    rows, cols, distance = rows[far], graph.indices[far], graph.data[far]
    order = np.lexsort((distance, rows))
    count = np.bincount(rows, minlength=len(profile))
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    kept = order[rank < n_neighbors]
    return rows[kept], cols[kept], distance[kept]


def normalized_adjacency(graph: sparse.csr_matrix) -> sparse.csr_matrix:
    """Symmetric normalised adjacency with self-loops, ``D^-1/2 (A + I) D^-1/2`` with ``A = min(W + W^T, 1)``.

    Parameters
    ----------
    graph
        Directed non-negative weights ``(n_obs, n_obs)``; stored zeros are no edges.

    Returns
    -------
    float64 CSR with ascending indices; every diagonal entry is stored.

    Source: Kipf and Welling, 2017, equation 2.
    """
    both = sparse.csr_matrix(graph + graph.T)
    both.eliminate_zeros()
    both.data = np.minimum(both.data, 1.0)
    looped = sparse.csr_matrix(both + sparse.identity(graph.shape[0], format="csr"))
    scale = sparse.diags_array(1.0 / np.sqrt(np.asarray(looped.sum(axis=1)).ravel()))
    result = sparse.csr_matrix(scale @ looped @ scale)
    result.sort_indices()
    return result
