"""The tree of genes over which the scales of VARST pool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import cut_tree, linkage
from sklearn.cluster import KMeans
from sklearn.utils.extmath import randomized_svd


def fitting_scales(scales: Sequence[int], n_genes: int) -> tuple[int, ...]:
    """`scales` as far as `n_genes` allow: a scale of more groups than genes is one of the genes themselves."""
    return tuple(sorted({min(int(scale), n_genes) for scale in scales}))


def gene_tree(standardized: np.ndarray, scales: Sequence[int], *, n_components: int = 32) -> np.ndarray:
    """Nested groups of genes that vary together.

    Genes are points in the space of their loadings on the leading principal components. k-means makes the groups of the
    finest scale (each gene by itself, where there are no more genes than groups), Ward's method joins these to the
    coarser ones.

    Parameters
    ----------
    standardized
        ``(n_obs, n_genes)``, training data alone, each gene with mean 0 and variance 1; values not measured are 0.
    scales
        Numbers of groups, ascending, at most ``n_genes``.

    Returns
    -------
    int64 ``(n_scales, n_genes)``: group of each gene at each scale, numbered in the order of the first gene.
    """
    n_genes = standardized.shape[1]
    rank = min(n_components, *standardized.shape)
    _, values, loadings = randomized_svd(standardized, n_components=rank, random_state=0)
    points = (loadings * values[:, None]).T / np.sqrt(len(standardized))
    finest = scales[-1]
    if finest == n_genes:
        leaves, centers = np.arange(n_genes), points
    else:
        clusters = KMeans(finest, n_init=3, random_state=0).fit(points)
        leaves, centers = clusters.labels_, clusters.cluster_centers_
    coarser = np.empty((finest, 0), dtype=np.int64)
    if len(scales) > 1:
        coarser = cut_tree(linkage(centers, method="ward"), n_clusters=list(scales[:-1]))  # (finest, n_scales - 1)
    return np.stack([_in_order(groups) for groups in (*coarser[leaves].T, leaves)])


def ordered_tree(n_genes: int, scales: Sequence[int]) -> np.ndarray:
    """Groups of neighbours in the list of genes, as in the published model; for comparison."""
    leaves = np.arange(n_genes) * scales[-1] // n_genes
    return np.stack([leaves * scale // scales[-1] for scale in scales])


def _in_order(labels: np.ndarray) -> np.ndarray:
    """Labels renumbered by where they first occur."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)
