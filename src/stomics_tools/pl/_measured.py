"""Measured and predicted expression of genes, in the same units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from stomics_tools._validate import check_key
from stomics_tools.data import are_counts, expression_matrix, normalize_expression
from stomics_tools.data._matrix import open_matrix


def chosen_genes(genes: str | Sequence[str]) -> list[str]:
    """The genes asked for, as a list.

    Raises
    ------
    ValueError
        If there are none, or one is named twice.
    """
    names = [genes] if isinstance(genes, str) else list(genes)
    if not names:
        raise ValueError("`genes` is empty. Name at least one.")
    if len(set(names)) < len(names):
        raise ValueError(f"`genes`: some occur twice in {names}. Name each once.")
    return names


def predicted_genes(adata: AnnData, key: str, genes: Sequence[str], *, argument: str) -> np.ndarray:
    """Predictions of `genes`, float64 ``(n_obs, len(genes))``.

    They are ``layers[key]``, or ``obsm[key]``: an array whose columns ``uns`` names, or a table.
    """
    if key in adata.layers:
        values = open_matrix(adata.layers[key], argument=argument, where=f"adata.layers[{key!r}]")
        return _columns(adata, values, genes)
    tables = [name for name in adata.obsm if _predicted_names(adata, name) is not None]
    check_key(key, [*adata.layers.keys(), *tables], argument=argument, where="adata.layers")
    names = _predicted_names(adata, key)
    assert names is not None
    for gene in genes:
        check_key(gene, names, argument="genes", where=f"the columns of adata.obsm[{key!r}]")
    table = adata.obsm[key]
    predicted = table.to_numpy() if isinstance(table, pd.DataFrame) else np.asarray(table)
    return np.asarray(predicted[:, names.get_indexer(pd.Index(list(genes)))], dtype=np.float64)


def _predicted_names(adata: AnnData, key: str) -> pd.Index | None:
    """Names of the genes in ``obsm[key]``, if it holds expression: ``uns[name]["gene_names"]``, or of a table its own.

    ``name`` is the key, without ``"_lower"`` and ``"_upper"`` of the ends of an interval.
    """
    values = adata.obsm[key]
    if isinstance(values, pd.DataFrame):
        return values.columns
    for name in (key, key.removesuffix("_lower").removesuffix("_upper")):
        entry = adata.uns.get(name)
        names = entry.get("gene_names") if isinstance(entry, Mapping) else None
        if names is not None and np.shape(names) == np.shape(values)[1:]:
            return pd.Index(np.asarray(names, dtype=object))
    return None


def measured_genes(adata: AnnData, layer: str | None, key: str, genes: Sequence[str]) -> np.ndarray:
    """Measured expression of `genes`, float64 ``(n_obs, len(genes))``; NaN where a gene was not measured.

    Counts become log(1 + counts per 10,000) of the genes that are predicted, the unit of predictions from counts.
    """
    raw, _ = expression_matrix(adata, layer)
    columns = _columns(adata, raw, genes)
    if key not in adata.layers:
        predicted = adata.var_names.isin(_predicted_names(adata, key))
        raw = raw[:, np.flatnonzero(predicted)]
    if not are_counts(raw):
        return columns
    if sparse.issparse(raw):
        raw = raw.copy()
        raw.data = np.nan_to_num(raw.data)
    total = np.asarray(np.nansum(raw, axis=1) if isinstance(raw, np.ndarray) else raw.sum(axis=1), dtype=np.float64)
    total = total.ravel()
    return normalize_expression(columns, np.where(total > 0, total, 1.0)).astype(np.float64)


def _columns(adata: AnnData, raw: Any, genes: Sequence[str]) -> np.ndarray:
    for gene in genes:
        check_key(gene, adata.var_names, argument="genes", where="adata.var_names")
    repeated = sorted(set(adata.var_names[adata.var_names.duplicated()]) & set(genes))
    if repeated:
        raise ValueError(f"`genes`: {repeated} are there more than once. Call `adata.var_names_make_unique()` first.")
    chosen = raw[:, [int(np.flatnonzero(adata.var_names == gene)[0]) for gene in genes]]
    return np.asarray(chosen.toarray() if sparse.issparse(chosen) else chosen, dtype=np.float64)
