"""Columns of a matrix by name, and the scale of its counts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from stomics_tools import _validate

_FEW_COUNTS = 0.05  # share of the counts that the genes missing from totals may have had, with a warning
_NO_COUNTS = 0.01  # the same, without a warning: rare genes that a filter took out
_WHOLE = 0.9  # share of the recorded totals from which on a matrix is taken for the whole transcriptome


def named_columns(matrix: Any, names: Sequence[str] | None, wanted: Sequence[str], *, argument: str, where: str) -> Any:
    """Columns of a matrix ``(n_obs, n)``, sparse or dense, by their names and in the order asked for.

    Raises
    ------
    ValueError
        If the columns have no names, names repeat, or some are not there.
    """
    if names is None:
        raise ValueError(f"`{argument}`: the columns of `{where}` have no names. Use a layer, `X` or a DataFrame.")
    index = pd.Index(names)
    if not index.is_unique:
        raise ValueError(f"`{argument}`: names of `{where}` repeat. Call `adata.var_names_make_unique()` first.")
    at = index.get_indexer(pd.Index(wanted))
    if (at < 0).any():
        missing = [name for name, place in zip(wanted, at, strict=True) if place < 0]
        raise ValueError(
            f"`{argument}`: {len(missing)} of {len(wanted)} features of setup are not in `{where}`: {missing[:3]}. "
            "Prepare it with the same features as the data of training."
        )
    return matrix if np.array_equal(at, np.arange(matrix.shape[1])) else matrix[:, at]


def row_sums(counts: Any) -> np.ndarray:
    """Sum of each row of a sparse or dense array, float64 ``(n_obs,)``."""
    return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()


def count_scale(counts: Any, total: float, totals: np.ndarray, *, argument: str, where: str) -> np.ndarray:
    """What brings rows with the totals ``(n_obs,)`` to `total`, float32 ``(n_obs,)``; 0 for a row without any.

    Raises
    ------
    ValueError
        If `counts` ``(n_obs, n)`` are none: negative, or not finite.
    """
    _validate.check_counts(counts, argument=argument, where=where)
    return np.divide(total, totals, out=np.zeros_like(totals), where=totals > 0).astype(np.float32)


def totals_over(
    counts: Any, names: Sequence[str], shares: Mapping[str, float], *, argument: str, where: str
) -> np.ndarray:
    """Totals of rows over the genes that made the totals of other data, whatever genes there are beside them.

    Parameters
    ----------
    counts
        ``(n_obs, n)``.
    names
        Of the columns.
    shares
        Those genes, each with its share of all counts in the other data.
    argument, where
        What messages call the counts.

    Returns
    -------
    float64 ``(n_obs,)``. Where genes with a few of the counts are missing, totals are scaled up by their share.

    Raises
    ------
    ValueError
        If names repeat, or genes with more than 5 % of the counts are missing.

    Warns
    -----
    UserWarning
        If genes with more than 1 % of the counts are missing.
    """
    index = pd.Index(names)
    if not index.is_unique:
        raise ValueError(f"`{argument}`: names of `{where}` repeat. Call `adata.var_names_make_unique()` first.")
    at = index.get_indexer(pd.Index(list(shares)))
    missing = float(np.array(list(shares.values()))[at < 0].sum())
    if missing > _NO_COUNTS:
        what = (
            f"`{argument}`: the totals of the data of training are over {len(at)} genes, of which {int((at < 0).sum())} "
            f"with {missing:.0%} of all counts are not in `{where}`. "
        )
        if missing > _FEW_COUNTS:
            raise ValueError(
                what + "Totals of a part of the genes cannot be compared: give the object with all genes, of which the "
                "model takes its own; or set a model up with `total_key`, a column of `obs` with the totals over all."
            )
        warnings.warn(what + "Totals are scaled up by that share.", UserWarning, stacklevel=2)
    at = at[at >= 0]
    part = counts if np.array_equal(at, np.arange(counts.shape[1])) else counts[:, at]
    return row_sums(part) / (1.0 - missing)


def totals_of_column(adata: AnnData, key: str, counts: Any, *, argument: str, where: str) -> np.ndarray:
    """Totals of spots as a column of ``obs`` has them, float64 ``(n_obs,)``.

    Raises
    ------
    KeyError
        If there is no such column.
    ValueError
        If it holds no numbers, or less than the sums of the `counts` ``(n_obs, n)`` there are.
    """
    _validate.check_key(key, adata.obs, argument=argument, where=f"{where}.obs")
    column = adata.obs[key]
    if not pd.api.types.is_numeric_dtype(column):
        raise ValueError(f"`{argument}`: `{where}.obs[{key!r}]` holds no numbers, found dtype {column.dtype}.")
    totals, sums = column.to_numpy(dtype=np.float64, na_value=np.nan), row_sums(counts)
    bad = ~np.isfinite(totals) | (totals < sums * (1 - 1e-6))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"`{argument}`: `{where}.obs[{key!r}]` must hold the total counts of each spot over all genes; in {int(bad.sum())} "
            f"spots it is missing or less than the counts there are (first: row {row}, {totals[row]:g} and {sums[row]:g})."
        )
    return totals


def part_of_transcriptome(counts: Any, adata: AnnData, where: str) -> str | None:
    """In words what shows that genes were taken out of an object before, so that totals are over a part; else None."""
    share = _share_of_totals(counts, adata)
    if share <= _WHOLE and isinstance(adata.X, np.ndarray | sparse.sparray | sparse.spmatrix):
        share = max(share, _share_of_totals(adata.X, adata))  # counts that were thinned, with all genes there
    if share <= _WHOLE:
        return f"`{where}` holds {share:.0%} of the counts of `adata.obs['total_counts']`"
    cut = "hvg" in adata.uns and "highly_variable" in adata.var and bool(adata.var["highly_variable"].all())
    return "`adata` was cut to its variable genes" if cut else None


def _share_of_totals(counts: Any, adata: AnnData) -> float:
    """Share of the counts of ``obs["total_counts"]``, which quality control recorded, that a matrix holds."""
    column = adata.obs.get("total_counts")
    if column is None or not pd.api.types.is_numeric_dtype(column):
        return 1.0
    before = column.to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.isfinite(before) & (before > 0)
    sums = row_sums(counts)
    return float(sums[known].sum() / before[known].sum()) if known.any() else 1.0
