"""Which genes to learn from, and what their counts are scaled to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from sklearn.preprocessing import StandardScaler

from stomics_tools import _validate
from stomics_tools.data import decide_counts, total_counts, variable_genes
from stomics_tools.data._columns import part_of_transcriptome, totals_of_column
from stomics_tools.data._feature_types import warn_of_kinds

logger = logging.getLogger("stomics_tools")

_HIGHLY_VARIABLE = "highly_variable"
N_TOP_GENES = 3000
_LEAST_SHARE = 0.01
_PSEUDOCOUNTS = 4.0  # of a spot of median depth, as in `pp.rna`: log1p then adds a quarter of a count


def choose(
    adata: AnnData,
    values: Any,
    where: str,
    genes: str | Sequence[str] | None,
    n_top_genes: int | None,
    counts: bool | None = None,
    total_key: str | None = None,
) -> tuple[list[str], float | None, dict[str, float] | None]:
    """Which genes to learn from, and the totals of counts.

    Parameters
    ----------
    adata
        The object.
    values
        Expression ``(n_obs, n_genes)``, opened.
    where
        Name of it in messages.
    genes
        Column of ``var``, or names; by default ``var["highly_variable"]`` where there is one, and else the most variable.
    n_top_genes
        How many these are; all if None.
    counts
        Whether the values are counts; None decides by the values.
    total_key
        ``obs`` column of the totals of spots, instead of the sums over the genes of the object.

    Returns
    -------
    Names of the genes in the order of the object. The total that counts are scaled to, None if these are no counts. The
    genes that totals are over, each with its share of all counts; None with `total_key`, and if these are no counts.
    """
    if n_top_genes is not None:
        _validate.check_integer(n_top_genes, argument="n_top_genes")
    if genes is not None and n_top_genes not in (None, N_TOP_GENES):
        raise ValueError(
            f"`n_top_genes={n_top_genes}` has no effect unless `genes` is None: it says which genes to take. Leave it out."
        )
    _validate.check_finite(values, argument="layer", where=where)
    names = adata.var_names.astype(str)
    if not names.is_unique:
        raise ValueError("`adata.var_names` are not unique. Call `adata.var_names_make_unique()` first.")
    warn_of_kinds(adata.var)
    total = shares = None
    if decide_counts(values, counts, argument="layer", where=where):
        sums = np.asarray(values.sum(axis=1, dtype=np.float64)).ravel()
        if not sums.any():
            raise ValueError(f"`layer`: `{where}` holds no counts (all values are zero). Name another layer.")
        if total_key is None:
            of_genes = np.asarray(values.sum(axis=0, dtype=np.float64)).ravel()
            shares = dict(zip(names.tolist(), (of_genes / of_genes.sum()).tolist(), strict=True))
            seen = part_of_transcriptome(values, adata, where)
            if seen is not None:
                logger.warning(
                    "%s: totals of spots are over the genes that are left, and depend on which these are. Give the object "
                    "with all genes and name `genes`, or name a column of totals as `total_key`.",
                    seen,
                )
        else:
            sums = totals_of_column(adata, total_key, values, argument="total_key", where="adata")
        total = _PSEUDOCOUNTS * float(np.median(sums[sums > 0]))
    elif total_key is not None:
        raise ValueError(
            f"`total_key={total_key!r}` has no effect unless `{where}` holds counts; it is taken as it is. Leave it out, or "
            "say `counts=True`."
        )
    elif counts is None and _is_scaled(values):
        logger.warning(
            "`%s` seems to be scaled gene by gene. Noise of rare genes then counts as much as signal of others, and a new "
            "slice must be scaled by the deviations of this one, not by its own. Raw counts are prepared alike in every "
            "slice: give them where there are any (`counts=False` says that these values are meant).",
            where,
        )
    flagged = _highly_variable(adata) if genes is None else None
    if flagged is not None:
        wanted = flagged
    elif genes is None:
        wanted = _most_variable(values, n_top_genes, total is not None)
    elif isinstance(genes, str):
        _validate.check_key(genes, adata.var, argument="genes", where="adata.var")
        wanted = _mask(adata.var[genes], genes)
    else:
        wanted = np.zeros(len(names), dtype=bool)
        missing = [gene for gene in genes if gene not in names]
        if missing:
            raise ValueError(f"`genes`: {len(missing)} are not in `adata.var_names`: {missing[:3]}.")
        wanted[names.get_indexer(list(genes))] = True
    if not wanted.any():
        raise ValueError("`genes`: none is left. Name some, or leave `genes` out.")
    return names[wanted].tolist(), total, shares


def _is_scaled(values: Any) -> bool:
    """Whether genes have a standard deviation of one, as after :func:`scanpy.pp.scale`; clipped ones have less."""
    deviation = np.sqrt(StandardScaler(with_mean=not sparse.issparse(values)).fit(values).var_)
    if not (deviation > 0).any():
        return False
    median, high = np.quantile(deviation[deviation > 0], [0.5, 0.9])
    return bool(0.9 < median <= high < 1.01)


def _highly_variable(adata: AnnData) -> np.ndarray | None:
    """Mask of ``var["highly_variable"]``, which nobody named: None, with a warning, where it cannot be used."""
    if _HIGHLY_VARIABLE not in adata.var:
        return None
    try:
        mask = _mask(adata.var[_HIGHLY_VARIABLE], _HIGHLY_VARIABLE)
    except ValueError as error:
        logger.warning("%s It is passed over: the most variable genes are used.", error)
        return None
    if not mask.any():
        logger.warning("`adata.var['highly_variable']` holds no True: the most variable genes are used.")
        return None
    return mask


def _mask(column: pd.Series, key: str) -> np.ndarray:
    """A column of True and False, or 0 and 1, of any type; a missing value is False."""
    words = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    known = column[column.notna()].astype(str).str.lower().map(words)
    if known.isna().any():
        found = column[column.notna()][known.isna()].iloc[0]
        raise ValueError(f"`genes`: `adata.var[{key!r}]` must hold True and False, found {found!r}.")
    return known.reindex(column.index, fill_value=False).to_numpy(dtype=bool)


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
