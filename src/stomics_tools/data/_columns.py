"""Columns of a matrix by name, and the scale of its counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from stomics_tools import _validate


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


def count_scale(counts: Any, total: float, *, argument: str, where: str) -> np.ndarray:
    """What brings the counts of each row ``(n_obs, n)`` to `total`, float32 ``(n_obs,)``; 0 for a row without any.

    Raises
    ------
    ValueError
        If these are no counts: negative, or not finite.
    """
    _validate.check_counts(counts, argument=argument, where=where)
    sums = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    return np.divide(total, sums, out=np.zeros_like(sums), where=sums > 0).astype(np.float32)
