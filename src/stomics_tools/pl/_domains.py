"""Domains, or any other annotation or gene, on the tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from mudata import MuData

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_integer
from stomics_tools.pl._color import color_values
from stomics_tools.pl._common import finish, root_figure
from stomics_tools.pl._lookup import spot_coordinates
from stomics_tools.pl._paint import check_palette, draw_key, legend_margin, paint
from stomics_tools.pl._palette import Palette
from stomics_tools.pl._panels import given_axes, slice_rows
from stomics_tools.pl._tissue import draw_spots, is_solid, panel_grid, slice_pictures


def domains(
    adata: AnnData | MuData,
    color: str | Sequence[str] = _keys.DOMAIN,
    *,
    layer: str | None = None,
    use_raw: bool | None = None,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    size: float = 1.0,
    palette: Palette | None = None,
    cmap: str | Colormap | None = None,
    img_key: str | None = None,
    library_id: str | Mapping[str, str] | None = None,
    ncols: int = 4,
    title: str | Sequence[str] | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | Path | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Figure | Axes | list[Axes] | None:
    """Draw the domains of one or several slices on the tissue, or any other columns and genes.

    Spots are circles as wide as the distance to their neighbours, y points down as in an image. Flat slices with
    3-D coordinates are drawn flat; others on 3-D axes, or seen along z if `ax` is flat. Nothing is written into `adata`.

    Parameters
    ----------
    adata
        Annotated data with coordinates in ``.obsm[spatial_key]``. Of a MuData, keys are looked up in the object
        itself first and then in its modalities, whose rows are joined by name; ``"rna:key"`` is of one of them.
    color
        Column of ``.obs``, or a gene, or a list of them: one panel for each. Text and categories are drawn in the
        colours of ``.uns[f"{color}_colors"]``, else of scanpy's palettes; numbers on a continuous scale. Missing values
        are grey.
    layer
        Layer of the expression of genes. Default: ``raw`` if there is one, as in scanpy, else ``X``.
    use_raw
        Whether genes are taken from ``raw``.
    spatial_key
        ``.obsm`` key of the coordinates, ``(n_obs, 2 or 3)``, any unit of length.
    batch_key
        Column of ``.obs`` that names the slice of a spot: one panel is drawn for each.
    size
        Diameter of a spot in units of the typical distance between neighbours.
    palette
        Colours of the categories: the name of a colour map of matplotlib, a colour map, colours in the order of the
        categories, or a mapping of category to colour.
    cmap
        Colour map of numbers. Default: matplotlib's.
    img_key
        Image of ``uns["spatial"][library]["images"]`` to be drawn below the spots: ``"hires"`` or ``"lowres"``. A smaller
        `size` shows more of it. Default: none, and with `library_id` the one in the higher resolution.
    library_id
        Library of the image, or the library of each slice. Default: the one of the name of the slice, else the only one.
    ncols
        Panels in a row.
    title
        Title of the plot, or one for each name in `color`. Panels of several slices carry the name of the slice.
        Default: `color`.
    ax
        Axes to draw on: one, or one for each panel, the slices of the first name in `color` first.
    save
        File to write the figure to; its ending tells the format.
    show
        Show the plot instead of returning it. Default: ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.

    Returns
    -------
    The figure if `return_fig`, else None if shown, else the axes (a list of them for several panels).

    Raises
    ------
    KeyError
        If a key or gene is absent.
    ValueError
        If coordinates are unusable, `ax` has too few or too many axes, an image is not clear, or an argument would have
        no effect.

    Warns
    -----
    UserWarning
        If what is stored in ``.uns[f"{color}_colors"]`` cannot be used.
    """
    check_annotated(adata)
    check_integer(ncols, argument="ncols")
    xyz = spot_coordinates(adata, spatial_key, argument="spatial_key")
    columns = color_values(adata, color, layer=layer, use_raw=use_raw)
    check_palette(columns, palette, cmap)
    names, several = list(columns), len(columns) > 1
    titles = names if title is None or isinstance(title, str) else list(title)
    if len(titles) != len(names):
        raise ValueError(f"`title` has {len(titles)} titles for {len(names)} panels {names}. Give one for each.")
    slices = slice_rows(adata, batch_key, otherwise="")
    pictures = slice_pictures(adata, slices, img_key=img_key, library_id=library_id, batch_key=batch_key)
    what = ", ".join(f"{name} {part}".strip() for name in names for part in slices)
    given = given_axes(ax, len(names) * len(slices), what=what)
    painted = [paint(adata, name, values, palette, cmap) for name, values in columns.items()]

    margin = max(legend_margin(key) for _, key in painted)
    solid = [is_solid(xyz[rows]) for rows in slices.values()]
    # Several names of several slices: one row a name. Each name has a legend beside its last panel.
    n_columns = len(slices) if several and 1 < len(slices) <= ncols else ncols
    n_legends = min(len(names), ncols) if len(slices) == 1 else 1
    axes = given or panel_grid(solid * len(names), n_columns, margin * n_legends)
    grid = np.array(axes, dtype=object).reshape(len(names), len(slices))
    for panels, name, heading, (rgba, key) in zip(grid, names, titles, painted, strict=True):
        for panel, (part, rows) in zip(panels, slices.items(), strict=True):
            draw_spots(panel, xyz[rows], rgba[rows], size, picture=pictures.get(part))
            own = title if isinstance(title, str) and not several else heading
            panel.set_title(own if batch_key is None else f"{heading}, {part}" if several else part)
        told = batch_key is not None or title is not None
        draw_key(key, list(panels), label=name, heading=name if told else None, beside=panels[-1])
    overall = title if isinstance(title, str) else titles[0] if title is not None and not several else None
    if overall is not None and (batch_key is not None or several):
        root_figure(axes[0]).suptitle(overall)
    return finish(axes, save=save, show=show, return_fig=return_fig)
