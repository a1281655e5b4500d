"""Domains, or any other annotation, on the tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mudata import MuData

from stomics_tools import _keys
from stomics_tools.pl._common import finish, root_figure
from stomics_tools.pl._lookup import obs_column, spot_coordinates, stored_colors
from stomics_tools.pl._paint import draw_key, legend_margin, paint
from stomics_tools.pl._panels import slice_rows
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
    panels = slice_rows(adata, batch_key, otherwise=color if title is None else title)
    if ax is not None and len(panels) > 1:
        raise ValueError(f"`ax` is one plot but `batch_key={batch_key!r}` has {len(panels)} slices. Leave `ax` out.")

    rgba, key = paint(values, stored_colors(adata, color), palette, cmap)
    margin = legend_margin(key)
    axes = [ax] if ax is not None else panel_grid([is_solid(xyz[rows]) for rows in panels.values()], ncols, margin)
    for panel, (name, rows) in zip(axes, panels.items(), strict=True):
        draw_spots(panel, xyz[rows], rgba[rows], size)
        panel.set_title(name)
    if batch_key is not None and title is not None:
        root_figure(axes[0]).suptitle(title)
    draw_key(key, axes, label=color, heading=color if title or batch_key else None, beside=axes[-1])
    return finish(axes, show=show, return_fig=return_fig)
