"""Prototypes of a latent space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mudata import MuData
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_integer
from stomics_tools.pl._common import finish, root_figure
from stomics_tools.pl._lookup import spot_coordinates
from stomics_tools.pl._paint import draw_key, legend_margin, number_scale
from stomics_tools.pl._palette import Palette, category_colors
from stomics_tools.pl._panels import given_axes, slice_rows
from stomics_tools.pl._tissue import draw_spots, is_solid, panel_grid, slice_pictures


def prototypes(
    model: Any,
    adata: AnnData | MuData | None = None,
    *,
    n_prototypes: int | None = None,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    size: float = 1.0,
    palette: Palette | None = None,
    img_key: str | None = None,
    library_id: str | Mapping[str, str] | None = None,
    ncols: int = 4,
    title: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | Path | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Figure | Axes | list[Axes] | None:
    """Draw the spots of each prototype on the tissue, and how like prototypes are to each other.

    The last panel is a heat map of the cosine of the angle between prototypes, each the mean latent of its spots less
    that of all: 1 for the same direction from the middle, -1 for opposite ones. Like ones stand together.

    Parameters
    ----------
    model
        A trained :class:`~stomics_tools.model.PRAGASpike`.
    adata
        The object of setup by default, or another one.
    n_prototypes
        Their number; by default that of the model, and if it has none, the number is found.
    spatial_key
        ``obsm`` key of the coordinates, ``(n_obs, 2 or 3)``.
    batch_key
        Column of ``obs`` that names the slice of a spot: one panel is drawn for each, before the heat map.
    size
        Diameter of a spot in units of the typical distance between neighbours.
    palette
        Colours of the prototypes, in their order or by number, or a colour map.
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
        Axes to draw on, one for each panel.
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
        If the model has no prototypes, coordinates are unusable, or `ax` has too few or too many axes.
    """
    check_integer(ncols, argument="ncols")
    if not hasattr(model, "get_prototypes"):
        raise TypeError(f"`model` must be a trained PRAGASpike, found {type(model).__name__}.")
    data = model.adata if adata is None else adata
    check_annotated(data)
    xyz = spot_coordinates(data, spatial_key, argument="spatial_key")
    slices = slice_rows(data, batch_key, otherwise="prototypes")
    given = given_axes(ax, len(slices) + 1, what=", ".join([*slices, "likeness"]))
    pictures = slice_pictures(data, slices, img_key=img_key, library_id=library_id, batch_key=batch_key)
    own = model.get_prototypes(data, n_prototypes=n_prototypes)
    likeness = _likeness(model.get_latent_representation(data), own)
    order = _alike_together(likeness)
    names = list(range(len(likeness)))
    colors = np.array(category_colors(names, palette=palette))
    sizes = np.bincount(own)
    legend = [
        Line2D([], [], linestyle="", marker="o", color=colors[k], label=f"{k} ({sizes[k]:,} spots)") for k in names
    ]

    solid = [*(is_solid(xyz[rows]) for rows in slices.values()), False]
    axes = given or panel_grid(solid, ncols, 1 + legend_margin(legend))
    for panel, (name, rows) in zip(axes[:-1], slices.items(), strict=True):
        draw_spots(panel, xyz[rows], colors[own[rows]], size, picture=pictures.get(name))
        panel.set_title(name)
    draw_key(legend, axes, label="prototype", heading="prototype", beside=axes[-2])
    scale = number_scale([-1, 1], "RdBu_r")
    heat = axes[-1]
    heat.imshow(likeness[np.ix_(order, order)], cmap=scale.cmap, vmin=-1, vmax=1)
    heat.set_xticks(names, order)
    heat.set_yticks(names, order)
    heat.set(title="likeness", xlabel="prototype", ylabel="prototype")
    for tick, k in [*zip(heat.get_xticklabels(), order, strict=True), *zip(heat.get_yticklabels(), order, strict=True)]:
        tick.set_color(colors[k])
    draw_key(scale, [heat], label="cosine", heading=None, beside=heat)
    if title is not None:
        root_figure(heat).suptitle(title)
    return finish(axes, save=save, show=show, return_fig=return_fig)


def _likeness(latent: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Cosine of the means of the groups less the mean of all, ``(K, K)``."""
    z = latent.astype(np.float64) - latent.mean(axis=0, dtype=np.float64)
    means = np.stack([z[own == k].mean(axis=0) for k in range(own.max() + 1)])
    means /= np.linalg.norm(means, axis=1, keepdims=True).clip(min=1e-12)
    return np.clip(means @ means.T, -1, 1)


def _alike_together(likeness: np.ndarray) -> np.ndarray:
    """An order in which neighbours are alike."""
    if len(likeness) < 3:
        return np.arange(len(likeness))
    distance = squareform(1 - likeness, checks=False)
    return leaves_list(optimal_leaf_ordering(linkage(distance, "average"), distance))
