"""What every plot shares: what it returns, and the colours of categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scanpy import settings
from scanpy.plotting import palettes

MISSING = "#d3d3d3"
"""Colour of observations without a value."""


def root_figure(ax: Axes) -> Figure:
    """The figure that an axes ends up in."""
    return cast(Figure, ax.get_figure(root=True))


def finish(axes: list[Axes], *, show: bool | None, return_fig: bool | None) -> Figure | Axes | list[Axes] | None:
    """Return or show as scanpy does: the figure if asked for, else the axes unless they are shown."""
    if return_fig:
        return root_figure(axes[0])
    if settings.autoshow if show is None else show:
        plt.show()
        return None
    return axes[0] if len(axes) == 1 else axes


def category_colors(
    categories: Sequence[Any],
    *,
    stored: Sequence[str] | None,
    palette: Sequence[str] | Mapping[Any, str] | None,
) -> list[str]:
    """Hexadecimal colour of each category: of the palette given, else the stored one if it is long enough, else scanpy's.

    Raises
    ------
    ValueError
        If `palette` has no colour for one of the categories.
    """
    n = len(categories)
    if isinstance(palette, Mapping):
        missing = [c for c in categories if c not in palette]
        if missing:
            raise ValueError(f"`palette` has no colour for the categories {missing}. Give one for each.")
        colors: Sequence[str] = [palette[c] for c in categories]
    elif palette is not None:
        if len(palette) < n:
            raise ValueError(f"`palette` has {len(palette)} colours for {n} categories. Give one for each.")
        colors = palette
    elif stored is not None and len(stored) >= n:
        colors = stored
    else:
        known: list[list[str]] = [palettes.default_20, palettes.default_28, palettes.default_102]
        colors = next((p for p in known if len(p) >= n), known[-1])
    return [to_hex(colors[i % len(colors)]) for i in range(n)]
