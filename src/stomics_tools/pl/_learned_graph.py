"""A learned graph on the tissue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from mudata import MuData
from scipy import sparse

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_integer, check_key
from stomics_tools.pl._color import color_values
from stomics_tools.pl._common import finish, root_figure
from stomics_tools.pl._lookup import spot_coordinates
from stomics_tools.pl._paint import check_palette, draw_key, legend_margin, paint
from stomics_tools.pl._palette import MISSING, Palette
from stomics_tools.pl._panels import given_axes, slice_rows
from stomics_tools.pl._tissue import draw_spots, is_solid, panel_grid, pitch, slice_pictures

_PANEL_POINTS = 230
"""Width of a panel, in points of print."""


def learned_graph(
    adata: AnnData | MuData,
    color: str | None = None,
    *,
    key: str = "praga_spike",
    graph: str = "spatial",
    layer: str | None = None,
    max_edges: int | None = None,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    size: float = 0.5,
    width: float = 1.0,
    palette: Palette | None = None,
    cmap: str | Colormap = "viridis_r",
    img_key: str | None = None,
    library_id: str | Mapping[str, str] | None = None,
    ncols: int = 4,
    title: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | Path | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Figure | Axes | list[Axes] | None:
    """Draw a graph as lines between the spots, under these, coloured by their weight, the heaviest on top.

    A line is one pair of spots: its weight is the mean of those of both directions. Nothing is drawn of a spot with
    itself, nor of pairs from two slices.

    Parameters
    ----------
    adata
        Object with the results of :class:`~stomics_tools.model.PRAGASpike` or :class:`~stomics_tools.model.GraphST`.
    color
        Column of ``obs``, or a gene, that colours the spots. Default: grey.
    key
        Name of the results: the graph is ``obsp[f"{key}_{graph}_connectivities"]``.
    graph
        ``"spatial"``, or the name of a modality: the graph of spots with like neighbourhoods in it, whose lines are long.
    layer
        Layer of the expression of a gene, as for :func:`~stomics_tools.pl.domains`.
    max_edges
        Lines of a panel: only the heaviest are drawn. Default: three a spot.
    spatial_key
        ``obsm`` key of the coordinates, ``(n_obs, 2 or 3)``.
    batch_key
        Column of ``obs`` that names the slice of a spot: one panel is drawn for each.
    size
        Diameter of a spot in units of the typical distance between neighbours.
    width
        Width of the lines, in units of a tenth of that distance.
    palette
        Colours of the categories of `color`, in their order or by name, or a colour map.
    cmap
        Colour map of the weights.
    img_key
        Image of ``uns["spatial"][library]["images"]`` to be drawn below the spots: ``"hires"`` or ``"lowres"``. A smaller
        `size` shows more of it. Default: none, and with `library_id` the one in the higher resolution.
    library_id
        Library of the image, or the library of each slice. Default: the one of the name of the slice, else the only one.
    ncols
        Panels in a row.
    title
        Title of the plot; panels of several slices carry the name of the slice. Default: the graph and, where not all
        lines are drawn, their number.
    ax
        Axes to draw on: one, or one for each slice.
    save
        File to write the figure to; its ending tells the format.
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
        If coordinates are unusable, the graph has no edges, or `ax` has too few or too many axes.
    """
    check_annotated(adata)
    check_integer(ncols, argument="ncols")
    if max_edges is not None:
        check_integer(max_edges, argument="max_edges")
    name = _keys.connectivities(key, graph)
    check_key(name, adata.obsp, argument="graph", where="adata.obsp")
    xyz = spot_coordinates(adata, spatial_key, argument="spatial_key")
    panels = slice_rows(adata, batch_key, otherwise="")
    rgba: np.ndarray | None = None
    legend: Any = []
    if color is not None:
        values = color_values(adata, [color], layer=layer)
        check_palette(values, palette, None)
        rgba, legend = paint(adata, color, values[color], palette)
    elif palette is not None or layer is not None:
        raise ValueError("`palette` and `layer` are for the spots of a `color`. Give one, or leave them out.")
    pictures = slice_pictures(adata, panels, img_key=img_key, library_id=library_id, batch_key=batch_key)
    given = given_axes(ax, len(panels), what=", ".join(panels))
    graphs = {part: sparse.csr_matrix(adata.obsp[name])[rows][:, rows] for part, rows in panels.items()}
    pairs = {part: _pairs(own) for part, own in graphs.items()}
    most = {part: 3 * len(rows) if max_edges is None else max_edges for part, rows in panels.items()}
    drawn = [weight[-most[part] :] for part, (_, _, weight) in pairs.items()]
    weights = np.concatenate(drawn)
    if not len(weights):
        raise ValueError(f"`graph`: `adata.obsp[{name!r}]` has no edges between different spots.")

    axes = given or panel_grid([is_solid(xyz[rows]) for rows in panels.values()], ncols, 1 + legend_margin(legend))
    scale = ScalarMappable(_norm(weights), plt.get_cmap(cmap))
    for panel, (part, rows) in zip(axes, panels.items(), strict=True):
        own, (i, j, weight) = xyz[rows], (values[-most[part] :] for values in pairs[part])
        colors = np.full(len(rows), MISSING) if rgba is None else rgba[rows]
        draw_spots(panel, own, colors, size, picture=pictures.get(part))
        _draw_lines(panel, np.stack([own[i], own[j]], axis=1), scale.to_rgba(weight), width * pitch(own) / 10)
        n_all = len(pairs[part][2])
        count = f", {len(weight):,} heaviest of {n_all:,} edges" if len(weight) < n_all else ""
        panel.set_title((part or title or f"{graph} graph") + ("" if title is not None and not part else count))
    if batch_key is not None:
        root_figure(axes[0]).suptitle(f"{graph} graph" if title is None else title)
    draw_key(scale, axes, label="weight of the edge", extend="both", heading=None, beside=axes[-1])
    if color is not None:
        draw_key(legend, axes, label=color, heading=color, beside=axes[-1])
    return finish(axes, save=save, show=show, return_fig=return_fig)


def _norm(weights: np.ndarray) -> Normalize:
    """A few edges weigh many times the others, so the ends leave one in a hundred out; equal weights have one colour."""
    low, high = np.percentile(weights, [1, 99])
    return Normalize(low if high - low > 1e-3 * abs(high) else min(low, 0.0), high)


def _pairs(graph: sparse.csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both ends and the weight of every pair of different spots, the lightest first."""
    both = sparse.triu((graph + graph.T) / 2, k=1, format="coo")
    both.eliminate_zeros()
    order = np.argsort(both.data, kind="stable")
    return both.row[order], both.col[order], both.data[order]


def _draw_lines(ax: Axes, ends: np.ndarray, rgba: np.ndarray, width: float) -> None:
    """Draw lines between `ends` ``(n, 2, 2 or 3)``, `width` in the unit of the coordinates."""
    extent = np.ptp(ends, axis=(0, 1)).max()
    points = float(np.clip(width / extent * _PANEL_POINTS, 0.3, 2))
    if isinstance(ax, Axes3D):
        ax.add_collection3d(Line3DCollection(ends, colors=rgba, linewidths=points))
        return
    # Tens of thousands of lines would make a vector file that no viewer opens.
    lines = LineCollection(list(ends[..., :2]), colors=rgba, linewidths=points, zorder=0.5, rasterized=True)
    ax.add_collection(lines, autolim=False)
