"""Telling counts from other expression values, and log-normalising them where genes were not measured."""

from __future__ import annotations

import numpy as np

from stomics_tools.data._expression import normalize_expression

_LARGEST_LOG = 20  # log2 of a million: rounded logarithms do not exceed it


def looks_like_counts(expression: np.ndarray) -> bool:
    """Whether values are counts: whole, none negative, and some above 20, unlike logarithms, ranks or flags.

    Parameters
    ----------
    expression
        ``(n_obs, n_genes)``; NaN where a gene was not measured.
    """
    return are_whole(expression) and bool((expression > _LARGEST_LOG).any())


def are_whole(expression: np.ndarray) -> bool:
    """Whether values can be counts: whole and none negative, or NaN."""
    whole = (expression >= 0) & (expression == np.floor(expression))
    return bool((whole | np.isnan(expression)).all())


def log_cp10k(counts: np.ndarray) -> np.ndarray:
    """log(1 + counts per 10,000) over the genes that were measured in a spot.

    Parameters
    ----------
    counts
        ``(n_obs, n_genes)``; NaN where a gene was not measured.

    Returns
    -------
    float32 ``(n_obs, n_genes)``; NaN stays NaN, a spot without counts has zeros.
    """
    total = np.nansum(counts, axis=1, dtype=np.float64)
    return normalize_expression(counts, np.where(total > 0, total, 1.0))
