"""Domains, or any other annotation, on the tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mudata import MuData

from stomics_tools import _keys
from stomics_tools._validate import check_categories
from stomics_tools.pl._common import MISSING, category_colors, finish, root_figure
from stomics_tools.pl._lookup import obs_column, spot_coordinates, stored_colors
from stomics_tools.pl._tissue import draw_spots, is_solid, panel_grid


def domains(
    adata: AnnData | MuData,
    *,
    color: str = _keys.DOMAIN,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    size: float = 1.0,
    palette: Sequence[str] | Mapping[Any, str] | None = None,
    cmap: str | None = None,
    ncols: int = 4,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Figure | Axes | list[Axes] | None:
    """Draw the domains of one or several slices on the tissue.

    Spots are circles as wide as the distance to their neighbours, y points down as in an image. Flat slices with
    3-D coordinates are drawn flat; others on 3-D axes, or seen along z if `ax` is flat. Nothing is written into `adata`.

    Parameters
    ----------
    adata
        Annotated data with coordinates in ``.obsm[spatial_key]``. Of a MuData, keys are looked up in the object
        itself first and then in its modalities.
    color
        Column of ``.obs``. Text and categories are drawn in the colours of ``.uns[f"{color}_colors"]``, else of
        scanpy's palettes; numbers on a continuous scale. Missing values are grey.
    spatial_key
        ``.obsm`` key of the coordinates, ``(n_obs, 2 or 3)``, any unit of length.
    batch_key
        Column of ``.obs`` that names the slice of a spot: one panel is drawn for each.
    size
        Diameter of a spot in units of the typical distance between neighbours.
    palette
        Colours of the categories, in their order or by name.
    cmap
        Colour map of a continuous `color`. Default: matplotlib's.
    ncols
        Panels in a row.
    title
        Title of the plot; panels of several slices carry the name of the slice. Default: `color`.
    ax
        Axes to draw on, for one slice.
    show
        Show the plot instead of returning it. Default: ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.

    Returns
    -------
    The figure if `return_fig`, else None if shown, else the axes (a list of them for several slices).

    Raises
    ------
    KeyError
        If a key is absent.
    ValueError
        If coordinates are unusable, or `ax` is given for several slices.
    """
    xyz = spot_coordinates(adata, spatial_key, argument="spatial_key")
    values = obs_column(adata, color, argument="color")
    panels = {color if title is None else title: np.arange(adata.n_obs)}
    if batch_key is not None:
        slices = obs_column(adata, batch_key, argument="batch_key")
        codes, names = check_categories(slices, argument="batch_key", where=f".obs[{batch_key!r}]")
        panels = {name: np.flatnonzero(codes == i) for i, name in enumerate(names)}
    if ax is not None and len(panels) > 1:
        raise ValueError(f"`ax` is one plot but `batch_key={batch_key!r}` has {len(panels)} slices. Leave `ax` out.")

    rgba, key = _paint(values, stored_colors(adata, color), palette, cmap)
    handles = [] if isinstance(key, ScalarMappable) else key
    n_columns = 1 + len(handles) // 16  # about as high as a panel
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    margin = n_columns * (0.6 + 0.08 * longest)
    axes = [ax] if ax is not None else panel_grid([is_solid(xyz[rows]) for rows in panels.values()], ncols, margin)
    for panel, (name, rows) in zip(axes, panels.items(), strict=True):
        draw_spots(panel, xyz[rows], rgba[rows], size)
        panel.set_title(name)
    figure = root_figure(axes[0])
    if batch_key is not None and title is not None:
        figure.suptitle(title)
    if isinstance(key, ScalarMappable):
        figure.colorbar(key, ax=axes, shrink=0.6, label=color)
    else:
        heading = color if title or batch_key else None
        axes[-1].legend(
            handles=key, title=heading, ncols=n_columns, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
    return finish(axes, show=show, return_fig=return_fig)


def _paint(
    values: pd.Series,
    stored: Sequence[str] | None,
    palette: Sequence[str] | Mapping[Any, str] | None,
    cmap: str | None,
) -> tuple[np.ndarray, ScalarMappable | list[Line2D]]:
    """Colour of every spot, ``(n_obs, 4)``, and what its legend shows."""
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if is_number and values.notna().any():
        numbers = np.ma.masked_invalid(values.to_numpy(dtype=np.float64))
        scale = ScalarMappable(Normalize(numbers.min(), numbers.max()), plt.get_cmap(cmap).with_extremes(bad=MISSING))
        return scale.to_rgba(numbers), scale
    column = values.astype("category").cat.remove_unused_categories()
    # Stored colours belong to all categories of the column, used or not.
    everything = values.astype("category").cat.categories.tolist()
    colors = dict(zip(everything, category_colors(everything, stored=stored, palette=palette), strict=True))
    shown = [(str(category), colors[category]) for category in column.cat.categories]
    if column.isna().any():
        shown.append(("missing", MISSING))
    rgba = np.array([to_rgba(color) for _, color in shown])
    handles = [Line2D([], [], linestyle="", marker="o", color=color, label=label) for label, color in shown]
    return rgba[column.cat.codes.to_numpy()], handles  # the code of a missing value is -1: the last colour
