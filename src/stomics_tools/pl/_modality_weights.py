"""How much each modality counts, on the tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mudata import MuData

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_integer, check_key
from stomics_tools.pl._common import finish, root_figure
from stomics_tools.pl._lookup import holders, obsm_table, spot_coordinates
from stomics_tools.pl._paint import draw_key, number_scale, paint_numbers
from stomics_tools.pl._panels import given_axes, slice_rows
from stomics_tools.pl._tissue import draw_spots, is_solid, panel_grid, slice_pictures


def modality_weights(
    adata: AnnData | MuData,
    *,
    key: str = "praga_spike",
    table: str = "modality_weights",
    modalities: str | Sequence[str] | None = None,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    size: float = 1.0,
    cmap: str = "viridis",
    img_key: str | None = None,
    library_id: str | Mapping[str, str] | None = None,
    ncols: int = 4,
    title: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | Path | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Figure | Axes | list[Axes] | None:
    """Draw how much each modality counts in each spot, one panel a modality and slice.

    The weights of a spot sum to 1. All panels have one scale, from the smallest to the largest weight.

    Parameters
    ----------
    adata
        Object with the results of :class:`~stomics_tools.model.PRAGASpike`.
    key
        Name of the results: the weights are ``obsm[f"{key}_{table}"]``.
    table
        ``"modality_weights"``, or ``"spatial_weights"``: of each modality, how much the spatial graph counts beside
        the graph of its features. Any other table ``(n_obs, n_columns)`` of numbers of that name works too.
    modalities
        Column, or columns, to draw. Default: all.
    spatial_key
        ``obsm`` key of the coordinates, ``(n_obs, 2 or 3)``.
    batch_key
        Column of ``obs`` that names the slice of a spot.
    size
        Diameter of a spot in units of the typical distance between neighbours.
    cmap
        Colour map.
    img_key
        Image of ``uns["spatial"][library]["images"]`` to be drawn below the spots: ``"hires"`` or ``"lowres"``. A smaller
        `size` shows more of it. Default: none, and with `library_id` the one in the higher resolution.
    library_id
        Library of the image, or the library of each slice. Default: the one of the name of the slice, else the only one.
    ncols
        Panels in a row.
    title
        Title of the plot.
    ax
        Axes to draw on: one, or one for each panel, the modalities of the first slice first.
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
        If a key is absent.
    ValueError
        If coordinates are unusable, or `ax` has too few or too many axes.
    """
    check_annotated(adata)
    check_integer(ncols, argument="ncols")
    _check_table(adata, key, _keys.table(key, table))
    weights = obsm_table(adata, _keys.table(key, table), argument="key")
    modalities = [modalities] if isinstance(modalities, str) else modalities
    for name in modalities or ():
        check_key(name, weights.columns, argument="modalities", where=f".obsm[{_keys.table(key, table)!r}].columns")
    weights = weights[list(modalities)] if modalities is not None else weights
    xyz = spot_coordinates(adata, spatial_key, argument="spatial_key")
    slices = slice_rows(adata, batch_key, otherwise="")
    pictures = slice_pictures(adata, slices, img_key=img_key, library_id=library_id, batch_key=batch_key)
    panels = [
        (f"{name}, {part}" if part else str(name), name, part, rows)
        for part, rows in slices.items()
        for name in weights
    ]
    given = given_axes(ax, len(panels), what=", ".join(label for label, *_ in panels))

    axes = given or panel_grid([is_solid(xyz[rows]) for *_, rows in panels], ncols, 1.0)
    scale = number_scale(weights.to_numpy(dtype=np.float64, na_value=np.nan), cmap)
    for panel, (label, column, part, rows) in zip(axes, panels, strict=True):
        rgba = paint_numbers(weights[column].iloc[rows], scale)
        draw_spots(panel, xyz[rows], rgba, size, picture=pictures.get(part))
        panel.set_title(label)
    if title is not None:
        root_figure(axes[0]).suptitle(title)
    draw_key(scale, axes, label=table.replace("_", " ").removesuffix("s"), heading=None, beside=axes[-1])
    return finish(axes, save=save, show=show, return_fig=return_fig)


def _check_table(adata: AnnData | MuData, key: str, name: str) -> None:
    """Raise ``KeyError`` that tells why there is no such table."""
    parts = holders(adata).values()
    if any(name in part.obsm for part in parts):
        return
    tables = sorted({k for part in parts for k in part.obsm if str(k).endswith("_weights")})
    if any(key in part.uns for part in parts):
        why = "A model of one modality has no weights of modalities, and a model writes them by `train` or `write_results`."
    else:
        why = f"There are no results of the name {key!r}: train a PRAGASpike, or give the `key_added` of its results."
    raise KeyError(f"`key`: key {name!r} not found in `adata.obsm`. {why} Tables of weights there: {tables}.")
