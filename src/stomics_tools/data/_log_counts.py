"""Counts or not: the one rule, and log-normalising counts where genes were not measured."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from stomics_tools.data._expression import normalize_expression

logger = logging.getLogger("stomics_tools")

_ROWS, _FEWEST_ROWS = 1000, 5
_LARGEST_LOG = 40.0
_SAME = 1e-3  # spread of totals that are the same, beside rounding
_BLOCK = 1 << 20  # values looked at together: nothing as large as the matrix is made


def are_counts(values: Any) -> bool:
    """Whether values can be counts: whole, finite and not negative, however small. NaN stands for not measured.

    Parameters
    ----------
    values
        Dense or sparse array ``(n_obs, n_genes)``, or the stored values of one.
    """
    data = values.data if sparse.issparse(values) else np.asarray(values)
    if data.dtype.kind in "ub":
        return True
    step = max(1, _BLOCK // max(1, data[:1].size))
    for start in range(0, len(data), step):
        block = data[start : start + step]
        whole = (block >= 0) & (block == np.floor(block)) & (block < np.inf)
        if not (whole | (block != block)).all():
            return False
    return True


def decide_counts(values: Any, counts: bool | None, *, argument: str, where: str) -> bool:
    """Decide whether values are counts, and log what was decided.

    Parameters
    ----------
    values
        As for :func:`are_counts`.
    counts
        What the user says: True for counts, which may be fractional (corrected for background, say); False for values
        to be taken as they are; None for the rule of :func:`are_counts`.
    argument, where
        The argument that named the values, and where they lie.

    Raises
    ------
    ValueError
        If `counts` is True and values are negative.
    """
    if counts is not None and not isinstance(counts, bool | np.bool_):
        raise TypeError(f"`counts` must be True, False or None, found {counts!r}.")
    if counts:
        data = values.data if sparse.issparse(values) else np.asarray(values)
        if data.size and np.nanmin(data) < 0:
            raise ValueError(
                f"`counts=True`: `{where}` holds negative values (minimum {np.nanmin(data):g}), which are no counts. "
                f"Name the raw counts by `{argument}`."
            )
        return True
    if counts is not None:
        return False
    found = are_counts(values)
    if found:
        logger.info("`%s` holds whole, non-negative values: taken as counts (`counts=False`: as they are).", where)
    else:
        logger.info("`%s` holds fractional or negative values: taken as they are (`counts=True`: as counts).", where)
    return found


def check_same_unit(
    values: Any, *, counts: bool, whole: bool, argument: str, where: str, found: bool | None = None
) -> None:
    """Raise ``ValueError`` if values are of another unit than those that a model was set up with.

    Parameters
    ----------
    values
        New values, as for :func:`are_counts`.
    counts, whole
        Whether the values of setup were taken as counts, and whether they were whole.
    argument, where
        The argument that named the values, and where they lie.
    found
        Whether the new values are whole and not negative, where that is known already.
    """
    data = values.data if sparse.issparse(values) else np.asarray(values)
    if not ((data > 0).any() or (data < 0).any()):
        return  # nothing but zeros, in any unit
    found = are_counts(values) if found is None else found
    if found == whole or (counts and found):
        return
    if whole:
        raise ValueError(
            f"`{argument}`: the model was set up with counts, `{where}` holds negative or fractional values. "
            "Store the raw counts there."
            if counts
            else f"`{argument}`: the model was set up with whole values, `{where}` holds negative or fractional ones. "
            "Store values of the same unit there."
        )
    raise ValueError(
        f"`{argument}`: the model was set up with values that are no counts (logarithms, say), `{where}` holds counts "
        "(whole, non-negative values). Prepare them like the data of setup, or set a model up with counts."
    )


def log_total(values: Any) -> list[float] | None:
    """Base of the logarithm and total of a spot, if values are logarithms of 1 + counts brought to one total; else None.

    Base 1 stands for no logarithm: the values themselves add up to the total. Base 0 stands for negative values, such as
    those of genes that were scaled; they have no total.

    Parameters
    ----------
    values
        As for :func:`are_counts`, with all genes that the total is over; NaN counts as zero.
    """
    rows = np.unique(np.linspace(0, values.shape[0] - 1, min(values.shape[0], _ROWS)).astype(np.int64))
    part = values[rows]
    part = part.toarray() if sparse.issparse(part) else np.asarray(part)  # a few rows
    part = np.nan_to_num(part).astype(np.float64)
    part = part[part.any(axis=1)]
    if len(part) < _FEWEST_ROWS:
        return None
    if part.min() < 0:
        return [0.0, 0.0]
    totals = part.sum(axis=1)
    if np.ptp(totals) < _SAME * totals.mean():
        return [1.0, float(totals.mean())]
    if part.max() > _LARGEST_LOG:
        return None
    for base in (math.e, 2.0, 10.0):
        totals = np.expm1(part * np.log(base)).sum(axis=1)
        if np.ptp(totals) < _SAME * totals.mean():
            return [float(base), float(totals.mean())]
    return None


def check_same_total(found: Sequence[float] | None, expected: Sequence[float] | None, *, where: str) -> None:
    """Warn if values are of another base or total than those that a model was set up with, as far as both are known."""
    if found is None or expected is None or np.allclose(found, expected, rtol=10 * _SAME):
        return
    (base, total), (own_base, own_total) = found, expected
    way = "Prepare them like the data of setup"
    if own_base > 0:
        way = f"Normalise to the same total, for example `sc.pp.normalize_total(adata, target_sum={own_total:.6g})`"
        way += ", and take logarithms" if own_base > 1 and base <= 1 else ""
    warnings.warn(
        f"The model was set up with {_in_words(own_base, own_total)}, `{where}` holds {_in_words(base, total)}. "
        f"{way}, or set a model up with counts.",
        UserWarning,
        stacklevel=2,
    )


def _in_words(base: float, total: float) -> str:
    if base == 0:
        return "negative values, as scaling makes them"
    if base == 1:
        return f"values that add up to {total:.6g} in every spot"
    return f"logarithms of base {'e' if base == math.e else format(base, 'g')} of counts that add up to {total:.6g} in every spot"


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
