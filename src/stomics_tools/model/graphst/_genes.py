"""Which genes to learn from, and what their counts are scaled to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from scipy import sparse
from sklearn.preprocessing import StandardScaler

from stomics_tools import _validate
from stomics_tools.data import looks_like_counts, total_counts, variable_genes

_HIGHLY_VARIABLE = "highly_variable"
_LEAST_SHARE = 0.01
_PSEUDOCOUNTS = 4.0  # of a spot of median depth, as in `pp.rna`: log1p then adds a quarter of a count


def choose(
    adata: AnnData, layer: str | None, genes: str | Sequence[str] | None, n_top_genes: int | None
) -> tuple[list[str], float | None]:
    """Names of the genes in the order of the object, and the total that counts are scaled to, None if these are no counts.

    Parameters
    ----------
    adata
        The object.
    layer
        Layer of the expression, ``X`` by default.
    genes
        Column of ``var``, or names; by default ``var["highly_variable"]`` where there is one, and else the most variable.
    n_top_genes
        How many these are; all if None.
    """
    if layer is not None:
        _validate.check_key(layer, adata.layers, argument="layer", where="adata.layers")
    where = "adata.X" if layer is None else f"adata.layers[{layer!r}]"
    values = adata.X if layer is None else adata.layers[layer]
    if values is None:
        raise ValueError(f"`layer`: `{where}` is empty. Name a layer.")
    if not isinstance(values, np.ndarray) and not sparse.issparse(values):
        values = values[:]  # backed
    _validate.check_finite(values, argument="layer", where=where)
    names = adata.var_names.astype(str)
    if not names.is_unique:
        raise ValueError("`adata.var_names` are not unique. Call `adata.var_names_make_unique()` first.")
    total = None
    if looks_like_counts(values if isinstance(values, np.ndarray) else values.data):
        sums = np.asarray(values.sum(axis=1), dtype=np.float64).ravel()
        total = _PSEUDOCOUNTS * float(np.median(sums[sums > 0]))
    if genes is None and _HIGHLY_VARIABLE in adata.var:
        genes = _HIGHLY_VARIABLE
    if genes is None:
        wanted = _most_variable(values, n_top_genes, total is not None)
    elif isinstance(genes, str):
        _validate.check_key(genes, adata.var, argument="genes", where="adata.var")
        wanted = _mask(adata.var[genes].to_numpy(), genes)
    else:
        wanted = np.zeros(len(names), dtype=bool)
        missing = [gene for gene in genes if gene not in names]
        if missing:
            raise ValueError(f"`genes`: {len(missing)} are not in `adata.var_names`: {missing[:3]}.")
        wanted[names.get_indexer(list(genes))] = True
    if not wanted.any():
        raise ValueError("`genes`: none is left. Name some, or leave `genes` out.")
    return names[wanted].tolist(), total


def _mask(column: Any, key: str) -> np.ndarray:
    if column.dtype != bool:
        raise ValueError(f"`genes`: `adata.var[{key!r}]` must hold True and False, found dtype {column.dtype}.")
    return column


def _most_variable(values: Any, n_top_genes: int | None, counts: bool) -> np.ndarray:
    n_genes = values.shape[1]
    if n_top_genes is None or n_top_genes >= n_genes:
        return np.ones(n_genes, dtype=bool)
    wanted = np.zeros(n_genes, dtype=bool)
    if counts:
        matrix = sparse.csr_matrix(values)
        total = total_counts(matrix)
        kept = np.flatnonzero(total > 0)
        wanted[variable_genes(matrix[kept], total[kept], n_top_genes, min_share=_LEAST_SHARE)] = True
        return wanted
    variance = StandardScaler(with_mean=not sparse.issparse(values)).fit(values).var_
    wanted[np.argsort(-variance, kind="stable")[:n_top_genes]] = True
    return wanted & (variance > 0)
