"""How labels lie on a graph of spots. The stored entries of a graph are its edges, whatever their values."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from stomics_tools.metrics._labels import label_codes


def morans_i_labels(labels: Any, graph: Any) -> float:
    """Moran's I of each label against the rest, averaged over the labels.

    Parameters
    ----------
    labels
        ``(n_obs,)`` of any type; unlabelled spots (NaN or ``None``) and their edges are left out.
    graph
        ``(n_obs, n_obs)`` sparse; every stored entry off the diagonal is an edge of weight 1.

    Returns
    -------
    About 1 for large compact domains, about 0 for labels thrown at random; NaN if there are fewer than two labels or
    no edges. Costs O(edges).
    """
    codes, source, target = _labelled_edges(labels, graph)
    n_labels = int(codes.max(initial=-1)) + 1
    if n_labels < 2 or not len(source):
        return float("nan")
    share = np.bincount(codes) / len(codes)
    within = np.bincount(codes[source][codes[source] == codes[target]], minlength=n_labels)
    ends = np.bincount(codes[source], minlength=n_labels) + np.bincount(codes[target], minlength=n_labels)
    # The sum over edges of (a - share)(b - share), a and b being 0 or 1, written out.
    covariance = within / len(source) - share * ends / len(source) + share**2
    return float(np.mean(covariance / (share * (1 - share))))


def local_purity(labels: Any, graph: Any) -> float:
    """Share of a spot's neighbours that have its own label, averaged over the spots.

    Parameters
    ----------
    labels
        ``(n_obs,)`` of any type; unlabelled spots (NaN or ``None``) and their edges are left out.
    graph
        ``(n_obs, n_obs)`` sparse; the neighbours of a spot are the stored entries of its row, itself not counted.

    Returns
    -------
    From 0 to 1; NaN if there are no edges. Costs O(edges).
    """
    codes, source, target = _labelled_edges(labels, graph)
    if not len(source):
        return float("nan")
    degree = np.bincount(source, minlength=len(codes))
    same = np.bincount(source, weights=codes[source] == codes[target], minlength=len(codes))
    return float((same[degree > 0] / degree[degree > 0]).mean())


def _labelled_edges(labels: Any, graph: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of the labelled spots, and the two ends of each edge between two different ones of them."""
    codes = label_codes(labels)
    if graph.shape != (len(codes), len(codes)):
        raise ValueError(f"`graph` has shape {graph.shape}, but there are {len(codes)} `labels`.")
    edges = sparse.coo_matrix(graph)
    kept = codes >= 0
    inside = kept[edges.row] & kept[edges.col] & (edges.row != edges.col)
    position = np.cumsum(kept) - 1
    return codes[kept], position[edges.row[inside]], position[edges.col[inside]]
