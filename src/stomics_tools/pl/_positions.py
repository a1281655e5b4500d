"""Predicted positions beside true ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_coordinates, check_key
from stomics_tools.metrics import align, normalized_rmsd
from stomics_tools.pl._color import color_values
from stomics_tools.pl._common import finish, root_figure
from stomics_tools.pl._lookup import spot_coordinates, stored_params
from stomics_tools.pl._paint import check_palette, draw_key, legend_margin, number_scale, paint, paint_numbers
from stomics_tools.pl._palette import Palette
from stomics_tools.pl._panels import given_axes, slice_rows
from stomics_tools.pl._tissue import draw_spots, is_solid, panel_grid, pitch, slice_pictures


def positions(
    adata: AnnData,
    color: str,
    *,
    layer: str | None = None,
    key: str = "spatial_predicted",
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    dispersion: bool | None = None,
    in_frame: bool | None = None,
    size: float = 1.0,
    palette: Palette | None = None,
    cmap: str | Colormap | None = None,
    img_key: str | None = None,
    library_id: str | Mapping[str, str] | None = None,
    title: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | Path | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Figure | Axes | list[Axes] | None:
    """Draw true positions, predicted ones, and how far draws of these scatter; one row a slice.

    Predicted positions are brought into the pose of the true ones by rotation, reflection and translation; their size
    stays as predicted. The dispersion is drawn at the true positions. Titles tell the error: the root mean squared
    distance to the true positions over the radius of gyration of the slice, 0 for none and 1 for all cells in the centre.

    Parameters
    ----------
    adata
        Object with the results of :func:`~stomics_tools.tl.reconstruct_positions`.
    color
        Column of ``obs``, or a gene, as for :func:`~stomics_tools.pl.domains`.
    layer
        Layer of the expression of a gene, as there.
    key
        ``obsm`` key of the predicted positions.
    spatial_key
        ``obsm`` key of the true positions.
    batch_key
        Column of ``obs`` that names the slice of a cell. Every slice is aligned by itself.
    dispersion
        Whether to draw the dispersion, ``obsm`` key `key` with ``"_dispersion"`` for ``"_predicted"``. Default: if it is
        there.
    in_frame
        Whether predicted positions are in the frame of the true ones already and not to be moved. Default: whether
        cells were placed among landmarks, as ``uns[key]`` tells.
    size
        Diameter of a cell in units of the typical distance between true neighbours.
    palette
        Colours of the categories, in their order or by name, or a colour map.
    cmap
        Colour map of a continuous `color`. Default: matplotlib's.
    img_key
        Image of ``uns["spatial"][library]["images"]`` to be drawn below true positions: ``"hires"`` or ``"lowres"``. A smaller
        `size` shows more of it. Default: none, and with `library_id` the one in the higher resolution.
    library_id
        Library of the image, or the library of each slice. Default: the one of the name of the slice, else the only one.
    title
        Title of the plot.
    ax
        Axes to draw on, one for each panel: true, predicted and, if drawn, dispersion, slice by slice.
    save
        File to write the figure to; its ending tells the format.
    show
        Show the plot instead of returning it. Default: ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.

    Returns
    -------
    The figure if `return_fig`, else None if shown, else the list of axes.

    Raises
    ------
    KeyError
        If a key is absent.
    ValueError
        If coordinates are unusable, or `ax` has too few or too many axes.
    """
    check_annotated(adata, mudata=False)
    values = color_values(adata, [color], layer=layer)
    check_palette(values, palette, cmap)
    true = spot_coordinates(adata, spatial_key, argument="spatial_key")
    check_key(key, adata.obsm, argument="key", where="adata.obsm")
    found = check_coordinates(adata.obsm[key], argument="key", where=f".obsm[{key!r}]")
    n_dims = min(true.shape[1], found.shape[1])  # a slice may carry its one z
    scatter_key = f"{key.removesuffix('_predicted')}_dispersion"
    if dispersion:
        check_key(scatter_key, adata.obsm, argument="dispersion", where="adata.obsm")
    with_dispersion = scatter_key in adata.obsm if dispersion is None else dispersion
    placed = stored_params(adata, key).get("landmarks") is not None if in_frame is None else in_frame
    slices = slice_rows(adata, batch_key, otherwise="")
    kinds = ["true", "predicted", "dispersion"][: 3 if with_dispersion else 2]
    given = given_axes(ax, len(kinds) * len(slices), what=f"{', '.join(kinds)} of each slice")
    pictures = slice_pictures(adata, slices, img_key=img_key, library_id=library_id, batch_key=batch_key)
    posed = {part: _posed(true[rows][:, :n_dims], found[rows][:, :n_dims], placed) for part, rows in slices.items()}

    rgba, legend = paint(adata, color, values[color], palette, cmap)
    axes = given or panel_grid(
        [is_solid(true[rows]) for rows in slices.values() for _ in kinds], len(kinds), legend_margin(legend) + 1
    )
    grid = np.array(axes, dtype=object).reshape(len(slices), len(kinds))
    scale = number_scale(adata.obsm[scatter_key], "viridis") if with_dispersion else None
    for panels, (part, rows) in zip(grid, slices.items(), strict=True):
        own, (moved, error), unit = true[rows], posed[part], pitch(true[rows])
        draw_spots(panels[0], own, rgba[rows], size, unit=unit, picture=pictures.get(part))
        draw_spots(panels[1], moved, rgba[rows], size, unit=unit)
        if scale is not None:
            scatter = np.asarray(adata.obsm[scatter_key])[rows].ravel()
            draw_spots(panels[2], own, paint_numbers(scatter, scale), size, unit=unit, picture=pictures.get(part))
        for panel, kind in zip(panels, kinds, strict=True):
            _frame(panel, np.vstack([own[:, :n_dims], moved]), size * unit)
            told = f"{kind}, error {error:.2f}" if kind == "predicted" else kind
            panel.set_title(f"{part}: {told}" if part else told)
    if title is not None:
        root_figure(axes[0]).suptitle(title)
    if scale is not None:
        draw_key(scale, list(grid[:, 2]), label="dispersion [unit of the coordinates]", heading=None, beside=axes[-1])
    draw_key(legend, list(grid[:, :2].ravel()), label=color, heading=color, beside=grid[0, 1])
    return finish(axes, save=save, show=show, return_fig=return_fig)


def _posed(true: np.ndarray, found: np.ndarray, in_frame: bool) -> tuple[np.ndarray, float]:
    """Predicted positions in the pose of the true ones, and their error."""
    if in_frame:
        error = np.linalg.norm(found - true) / np.linalg.norm(true - true.mean(axis=0))
        return found, float(error)
    return align(true, found), normalized_rmsd(true, found)


def _frame(ax: Axes, shown: np.ndarray, margin: float) -> None:
    """The same limits for all panels of a slice, so that sizes can be compared; y points down."""
    if ax.name == "3d":
        return
    low, high = shown[:, :2].min(axis=0) - margin, shown[:, :2].max(axis=0) + margin
    ax.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]))
