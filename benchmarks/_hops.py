"""Average over several hops with weights learned without labels: one setting that is good on many tissues."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import nnls

_PENALTY = 1e3


def fit(x: np.ndarray, graph: sparse.csr_matrix, n_hops: int = 3) -> np.ndarray:
    """Prediction of every spot from the means at 1 to `n_hops` steps, ``(n_obs, n_features)``.

    The weights of the hops are those, not negative and of sum one, with the least squared error. A walk that returns
    to the spot does not count, hence no spot is predicted from itself.

    Parameters
    ----------
    x
        ``(n_obs, n_features)``.
    graph
        ``(n_obs, n_obs)`` nearest neighbours, none its own.
    n_hops
        Number of hops.
    """
    step = sparse.csr_matrix((np.ones(graph.nnz), graph.indices, graph.indptr), shape=graph.shape)
    step = sparse.diags(1 / np.diff(graph.indptr)) @ step
    walk, means = sparse.identity(len(x), format="csr"), []
    for _ in range(n_hops):
        walk = walk @ step
        others = walk - sparse.diags(walk.diagonal())
        means.append(others @ x / np.asarray(others.sum(axis=1)))
    stacked = np.stack([mean.ravel() for mean in means], axis=1)
    weight = _PENALTY * np.linalg.norm(stacked)  # of the condition that they sum up to one
    weights, _ = nnls(np.vstack([stacked, np.full(n_hops, weight)]), np.append(x.ravel(), weight))
    return sum(w * mean for w, mean in zip(weights, means, strict=True))
