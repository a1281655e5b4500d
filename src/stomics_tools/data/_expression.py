"""Counts to the expression that is predicted, and the choice of genes on training spots."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from scipy import sparse

from stomics_tools._validate import check_counts, check_integer, check_number, check_option

Normalization = Literal["log1p_cp10k", "hest", "stem"]


def normalize_expression(counts: Any, total: np.ndarray, normalization: Normalization = "log1p_cp10k") -> Any:
    """Normalise counts; zeros stay zeros.

    Parameters
    ----------
    counts
        ``(n_obs, n_genes)``, CSR or dense; NaN stays NaN.
    total
        Total counts of each spot over all genes ``(n_obs,)``, positive.
    normalization
        ``"log1p_cp10k"``: log(1 + counts per 10,000). ``"hest"``: log(1 + counts), in which sequencing depth is left.
        ``"stem"``: log2(1 + counts), likewise.

    Returns
    -------
    As `counts`, float32.
    """
    check_option(normalization, ("log1p_cp10k", "hest", "stem"), argument="normalization")
    scale = 1e4 / total if normalization == "log1p_cp10k" else np.ones(len(total))
    log = np.log2 if normalization == "stem" else np.log
    if not sparse.issparse(counts):
        return log(1 + np.asarray(counts, dtype=np.float64) * scale[:, None]).astype(np.float32)
    out = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    out.data = log(1 + out.data * np.repeat(scale, np.diff(out.indptr)))
    return out.astype(np.float32)


def variable_genes(counts: sparse.csr_matrix, total: np.ndarray, n_genes: int, *, min_share: float = 0.1) -> np.ndarray:
    """The most variable genes in log1p of counts per 10,000, among those found in enough spots.

    Parameters
    ----------
    counts
        ``(n_obs, n_all_genes)`` of the training spots; stored NaN: the gene was not measured there.
    total
        Total counts of each spot over all genes ``(n_obs,)``, positive.
    n_genes
        Genes to choose.
    min_share
        Share of the spots in which it was measured that a gene must be found in.

    Returns
    -------
    Indices, the most variable gene first; fewer than `n_genes` if no more are found in enough spots.
    """
    check_integer(n_genes, argument="n_genes")
    check_number(min_share, argument="min_share", low=0, high=1)
    values = sparse.csr_matrix(normalize_expression(counts, total), dtype=np.float64)
    missing = np.isnan(values.data)
    n_measured = len(total) - np.bincount(values.indices[missing], minlength=values.shape[1])
    values.data[missing] = 0
    n = np.maximum(n_measured, 1)
    share = np.asarray((values > 0).sum(axis=0)).ravel() / n
    mean = np.asarray(values.sum(axis=0)).ravel() / n
    variance = np.asarray(values.multiply(values).sum(axis=0)).ravel() / n - mean**2
    order = np.argsort(-variance, kind="stable")
    return order[(share >= min_share)[order] & (variance > 0)[order] & (n_measured > 0)[order]][:n_genes]


def total_counts(counts: sparse.csr_matrix) -> np.ndarray:
    """Total of each spot ``(n_obs,)`` over the genes measured in it."""
    filled = sparse.csr_matrix((np.nan_to_num(counts.data), counts.indices, counts.indptr), shape=counts.shape)
    return np.asarray(filled.sum(axis=1), dtype=np.float64).ravel()


def counts_with_gaps(values: Any, *, argument: str, where: str) -> sparse.csr_matrix:
    """Whole counts as CSR, in which NaN (a gene that was not measured) is stored.

    Raises
    ------
    ValueError
        If other values are negative, infinite or not whole.
    """
    matrix = sparse.csr_matrix(values)
    check_counts(matrix.data[~np.isnan(matrix.data)], argument=argument, where=where, integer=True)
    return matrix
