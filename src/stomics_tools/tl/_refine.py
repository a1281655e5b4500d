"""Smoothing of labels over a graph of spots."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def majority_labels(labels: np.ndarray, graph: sparse.csr_matrix) -> np.ndarray:
    """Give every spot the label that most of its neighbours have.

    Parameters
    ----------
    labels
        Integer codes ``(n_obs,)`` from 0.
    graph
        ``(n_obs, n_obs)`` CSR; its stored entries are the edges, whatever their values. A spot votes for itself only
        if it has an edge to itself.

    Returns
    -------
    Codes ``(n_obs,)``. A spot keeps its label where that shares the lead, and where it has no neighbours; otherwise the
    lowest of the leading codes wins.
    """
    n_obs = len(labels)
    edges = sparse.csr_matrix((np.ones(graph.nnz), graph.indices, graph.indptr), shape=graph.shape)
    one_hot = sparse.csr_matrix((np.ones(n_obs), labels, np.arange(n_obs + 1)), shape=(n_obs, int(labels.max()) + 1))
    votes = (edges @ one_hot).toarray()
    own = votes[np.arange(n_obs), labels]
    return np.where(own == votes.max(axis=1), labels, votes.argmax(axis=1))
