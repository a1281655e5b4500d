"""Matrices of an AnnData as dense arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import is_numeric_dtype
from scipy import sparse


@np.errstate(over="ignore")
def dense_matrix(raw: Any, *, argument: str, where: str, own: bool = True) -> np.ndarray:
    """Return an array, sparse matrix or DataFrame, in memory or backed by a file, as a float32 array.

    It is one of its own, or without `own` the given array itself where that is float32 already: not to be written.

    Raises ``ValueError`` unless it is numeric, has two dimensions and holds values. Values too large for float32 become
    infinite.
    """
    if raw is None:
        raise ValueError(f"`{argument}`: `{where}` is empty.")
    if isinstance(raw, pd.DataFrame):
        text = [name for name in raw.columns if not is_numeric_dtype(raw[name])]
        if text:
            raise ValueError(f"`{argument}`: columns {text[:5]} of `{where}` hold no numbers. Drop them.")
        raw = raw.to_numpy(dtype=np.float32, na_value=np.nan)
    if not isinstance(raw, np.ndarray) and not sparse.issparse(raw):
        raw = raw[:]  # backed
    values = raw.toarray() if sparse.issparse(raw) else np.asarray(raw)  # (n_obs, n_features), as models take it
    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "iufb":
        raise ValueError(
            f"`{argument}`: `{where}` must be a numeric array with two dimensions that holds values, "
            f"found shape {values.shape} and dtype {values.dtype}."
        )
    return np.array(values, dtype=np.float32, order="C", copy=True if own else None)


def first_row(adata: AnnData, rows: np.ndarray) -> str:
    """The first of the masked rows, in words."""
    row = int(np.flatnonzero(rows)[0])
    return f"row {row}, {adata.obs_names[row]!r}"
