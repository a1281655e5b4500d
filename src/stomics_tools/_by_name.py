"""Joining of pandas objects by the names of their rows or columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

_SHOWN = 3


def align_rows(values: Mapping[str, Any]) -> list[Any]:
    """Bring Series and DataFrames into the row order of the first of them; all else stays as it is.

    Parameters
    ----------
    values
        Argument name to value. Arrays and ``None`` have no names, nor has what pandas numbers by itself (a default
        index) beside names that are no numbers: these go by position.

    Returns
    -------
    The values in their order.

    Raises
    ------
    ValueError
        If two have different names, or the same ones in another order and some repeat.
    """
    return _align(values, lambda value: _row_names(value), lambda value, order: value.iloc[order], "rows")


def align_columns(values: Mapping[str, Any]) -> list[Any]:
    """The same for columns: those of DataFrames, and the rows of Series of one value a column.

    Parameters
    ----------
    values
        Argument name to value.

    Returns
    -------
    The values in their order.

    Raises
    ------
    ValueError
        As :func:`align_rows`.
    """
    return _align(
        values,
        lambda value: value.columns if isinstance(value, pd.DataFrame) else _row_names(value),
        lambda value, order: value.iloc[:, order] if isinstance(value, pd.DataFrame) else value.iloc[order],
        "columns",
    )


def _row_names(value: Any) -> pd.Index | None:
    return value.index if isinstance(value, pd.Series | pd.DataFrame) else None


def _align(values: Mapping[str, Any], names_of: Any, take: Any, what: str) -> list[Any]:
    first: tuple[str, pd.Index] | None = None
    aligned = []
    for argument, value in values.items():
        names = names_of(value)
        if names is not None:
            if first is None or (_is_numbering(first[1]) and not _is_number(names) and len(names) == len(first[1])):
                first = argument, names
            elif len(names) == len(first[1]):  # another length is told by whoever asks for the shapes
                order = _order(first, (argument, names), what)
                value = value if order is None else take(value, order)
        aligned.append(value)
    return aligned


def _order(first: tuple[str, pd.Index], second: tuple[str, pd.Index], what: str) -> np.ndarray | None:
    """Positions in the second index of the names of the first; None for those that are there already."""
    (argument, names), (other_argument, other) = first, second
    if names.equals(other) or (_is_numbering(other) and not _is_number(names)):
        return None
    hint = "Give arrays (`.to_numpy()`) to compare by position."
    absent = names[~names.isin(other)]
    if len(absent):
        raise ValueError(
            f"`{other_argument}` and `{argument}` have different names of {what}: {len(absent)} of {len(names)} of "
            f"`{argument}` are not in `{other_argument}` (first: {absent[:_SHOWN].tolist()}). {hint}"
        )
    if not (names.is_unique and other.is_unique):
        repeated = names[names.duplicated()].unique()[:_SHOWN].tolist() or other[other.duplicated()][:_SHOWN].tolist()
        raise ValueError(
            f"`{other_argument}` and `{argument}` have their {what} in another order, and names repeat "
            f"({repeated}), so that they cannot be joined. {hint}"
        )
    return np.asarray(other.get_indexer(names))


def _is_numbering(names: pd.Index) -> bool:
    """Whether these are the numbers that pandas gives to what has no names."""
    return isinstance(names, pd.RangeIndex) and names.start == 0 and names.step == 1


def _is_number(names: pd.Index) -> bool:
    return bool(pd.api.types.is_numeric_dtype(names.dtype))
