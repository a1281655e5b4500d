"""Which spots and axes belong to which panel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from stomics_tools._validate import check_slices
from stomics_tools.pl._lookup import obs_column


def slice_rows(adata: AnnData | MuData, batch_key: str | None, *, otherwise: str) -> dict[str, np.ndarray]:
    """Rows of each slice by its name; without `batch_key` all rows, named `otherwise`."""
    if batch_key is None:
        return {otherwise: np.arange(adata.n_obs)}
    slices = obs_column(adata, batch_key, argument="batch_key")
    codes, names = check_slices(slices, argument="batch_key", where=f".obs[{batch_key!r}]")
    return {name: np.flatnonzero(codes == i) for i, name in enumerate(names)}


def given_axes(ax: Axes | Sequence[Axes] | None, n: int, *, what: str) -> list[Axes] | None:
    """The axes that a user gave for `n` panels, or None.

    Raises
    ------
    ValueError
        If there are too few or too many; `what` says in words what is drawn.
    """
    if ax is None:
        return None
    axes = [ax] if isinstance(ax, Axes) else list(np.ravel(np.asarray(ax, dtype=object)))
    if len(axes) != n:
        raise ValueError(f"`ax` has {len(axes)} axes for {n} panels: {what}. Give one for each, or leave it out.")
    return axes
