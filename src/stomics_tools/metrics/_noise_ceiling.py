"""How well anything could predict observed counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from stomics_tools._by_name import align_columns, align_rows
from stomics_tools._validate import check_counts, check_integer
from stomics_tools.metrics._correlation import depth_out, pearson_per_gene
from stomics_tools.metrics._matrices import mean_of_defined


def noise_ceiling(
    counts: Any,
    genes: Any = None,
    *,
    without_depth: bool = False,
    sections: Any = None,
    target_sum: float = 1e4,
    n_splits: int = 10,
    seed: int = 0,
) -> np.ndarray:
    r"""Correlation that a prediction of the true rates would have with the observed expression of each gene.

    Every molecule is thrown into one of two halves (binomial thinning, which leaves two independent Poisson counts of
    the same rates). Both are normalised as ``log1p`` of counts per `target_sum` of the half, and correlated over the
    spots, averaged over `n_splits` throws: :math:`r`. By Spearman and Brown the full counts have the reliability
    :math:`\rho = 2 r / (1 + r)`, and nothing can be correlated with them by more than :math:`\sqrt\rho` but by chance.

    Parameters
    ----------
    counts
        Whole counts ``(n_obs, n_all_genes)``, dense or sparse, of all genes: the totals come from them.
    genes
        Columns to be judged: indices or a mask. Default: all.
    without_depth
        Take a cubic in the log of the total counts out of both halves (:func:`depth_out`).
    sections
        Section of each spot ``(n_obs,)``, to do all this within each and average the correlations.
    target_sum
        Total to which each half is normalised.
    n_splits
        Number of throws.
    seed
        Of the throws.

    Returns
    -------
    ``(n_genes,)`` from 0 to 1. 0 where the halves are not positively correlated, NaN for a gene that does not vary in
    a half of any throw.

    Notes
    -----
    What it counts as signal includes everything in which the halves agree, sequencing depth first. Spots without
    counts are left out.

    Raises
    ------
    ValueError
        If counts are negative, fractional or not finite, or fewer than two spots have any.
    """
    check_integer(n_splits, argument="n_splits")
    _, sections = align_rows({"counts": counts, "sections": sections})
    _, genes = align_columns({"counts": counts, "genes": genes})
    if getattr(counts, "dtype", None) == np.float16:
        counts = counts.astype(np.float32)  # SciPy has no sparse matrix of half precision, and totals overflow in it
    matrix = sparse.csr_matrix(counts)
    check_counts(matrix, argument="counts", where="counts", integer=True)
    total = np.asarray(matrix.sum(axis=1)).ravel()
    if (total > 0).sum() < 2:
        raise ValueError("`counts`: fewer than two spots have counts.")
    kept = total > 0
    matrix, log_depth = matrix[kept], np.log(total[kept])
    sections = None if sections is None else np.asarray(sections)[kept]
    columns = np.arange(matrix.shape[1])[slice(None) if genes is None else genes]

    rng = np.random.default_rng(seed)
    whole = matrix.data.astype(np.int64)
    correlations = []
    for _ in range(n_splits):
        first = rng.binomial(whole, 0.5)
        halves = [_expression(matrix, data, columns, target_sum) for data in (first, whole - first)]
        if without_depth:
            halves = [depth_out(half, log_depth, sections=sections) for half in halves]
        correlations.append(pearson_per_gene(*halves, sections=sections))
    r = np.maximum(mean_of_defined(np.stack(correlations), axis=0), 0.0)
    return np.sqrt(2 * r / (1 + r))


def _expression(matrix: sparse.csr_matrix, data: np.ndarray, columns: np.ndarray, target_sum: float) -> np.ndarray:
    """``log1p`` of the normalised counts `data` that stand where those of `matrix` do, ``(n_obs, n_columns)``."""
    half = sparse.csr_matrix((data.astype(np.float64), matrix.indices, matrix.indptr), shape=matrix.shape)
    total = np.asarray(half.sum(axis=1)).ravel()
    # Dense, as the correlation of the chosen genes needs it.
    return np.log1p(half[:, columns].toarray() * (target_sum / np.maximum(total, 1.0))[:, None])
