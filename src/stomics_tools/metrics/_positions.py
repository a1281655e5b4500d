"""Checks of true and predicted positions, and their size."""

from __future__ import annotations

from typing import Any

import numpy as np

from stomics_tools._by_name import align_columns, align_rows
from stomics_tools._validate import check_coordinates

TIE = 1e-9
"""Distances closer than this share of the radius of gyration are equal: rounding must not order the spots of a grid."""

_MIN_CELLS = 3
_ROUNDING = 1e-12


def centred_pair(
    first: Any, second: Any, *, names: tuple[str, str] = ("truth", "prediction")
) -> tuple[np.ndarray, np.ndarray]:
    """Return both as float64 ``(n_obs, 2 or 3)`` about their centres; ``ValueError`` unless they can be compared.

    Rows and columns of DataFrames are joined by name.
    """
    first, second = align_columns(
        dict(zip(names, align_rows(dict(zip(names, (first, second), strict=True))), strict=True))
    )
    x, y = (check_coordinates(values, argument=n, where=n) for values, n in zip((first, second), names, strict=True))
    if x.shape != y.shape:
        raise ValueError(
            f"`{names[1]}` has shape {y.shape}, `{names[0]}` has {x.shape}: "
            "both must hold the same cells in the same order, in the same number of dimensions."
        )
    if len(x) < _MIN_CELLS:
        raise ValueError(f"`{names[0]}` needs at least {_MIN_CELLS} cells for a layout, found {len(x)}.")
    return _centred(x, names[0]), _centred(y, names[1])


def gyration_radius(centred: np.ndarray) -> float:
    """Root mean squared length of the rows."""
    return float(np.sqrt((centred**2).sum(axis=1).mean()))


def _centred(points: np.ndarray, argument: str) -> np.ndarray:
    centred = points - points.mean(axis=0)
    if gyration_radius(centred) <= _ROUNDING * np.abs(points).max():
        raise ValueError(f"`{argument}`: all {len(points)} cells have the same coordinates up to rounding.")
    return centred
