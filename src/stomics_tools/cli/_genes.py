"""Which genes are kept of many."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from scipy import sparse

from stomics_tools.data import are_counts, expression_matrix, total_counts, variable_genes


def chosen_genes(adata: AnnData, layer: str | None, n_genes: int, counts: bool | None = None) -> np.ndarray:
    """Indices of the most variable genes, in the order of the object; `counts` as the model takes it."""
    if adata.n_vars <= n_genes:
        return np.arange(adata.n_vars)
    values = sparse.csr_matrix(expression_matrix(adata, layer)[0])
    if are_counts(values.data) if counts is None else counts:
        total = total_counts(values)
        return np.sort(variable_genes(values, np.where(total > 0, total, 1.0), n_genes))
    measured = np.isfinite(values.data)
    filled = sparse.csr_matrix((np.where(measured, values.data, 0.0), values.indices, values.indptr), values.shape)
    n = np.maximum(values.shape[0] - np.bincount(values.indices[~measured], minlength=values.shape[1]), 1)
    mean, square = (np.asarray(m.sum(axis=0)).ravel() / n for m in (filled, filled.multiply(filled)))
    return np.sort(np.argsort(mean**2 - square, kind="stable")[:n_genes])
