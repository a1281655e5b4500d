"""Intervals of predicted expression."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stomics_tools._validate import check_annotated, check_integer
from stomics_tools.pl._common import finish, root_figure
from stomics_tools.pl._lookup import stored_params
from stomics_tools.pl._measured import chosen_genes, measured_genes, predicted_genes
from stomics_tools.pl._panels import given_axes, slice_rows
from stomics_tools.pl._tissue import panel_grid

_BLUE, _ORANGE, _BAND = "#0072b2", "#d55e00", "#a6cee3"


def intervals(
    adata: AnnData,
    genes: str | Sequence[str],
    *,
    key: str = "var_st",
    layer: str | None = None,
    batch_key: str | None = None,
    ncols: int = 3,
    title: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | Path | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Figure | Axes | list[Axes] | None:
    """Draw the interval of each spot with its measured value, spots sorted by expected expression.

    Titles tell the share of measured values inside, and what it should be. Values outside are orange.

    Parameters
    ----------
    adata
        Object with the results of :class:`~stomics_tools.model.VARST`.
    genes
        One gene or several.
    key
        Name of the results: ``layers[key]``, and the same with ``"_lower"`` and ``"_upper"``; or arrays in ``obsm``,
        whose columns ``uns[key]["gene_names"]`` names.
    layer
        Layer of the measured expression, as for :func:`~stomics_tools.pl.expression`. Default: ``X``.
    batch_key
        Column of ``obs`` that names the slice of a spot: one panel is drawn for each gene and slice.
    ncols
        Panels in a row.
    title
        Title of the plot.
    ax
        Axes to draw on: one, or one for each panel, the slices of the first gene first.
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
        If `ax` has too few or too many axes.
    """
    check_annotated(adata, mudata=False)
    check_integer(ncols, argument="ncols")
    names = chosen_genes(genes)
    expected, lower, upper = (
        predicted_genes(adata, f"{key}{end}", names, argument="key") for end in ("", "_lower", "_upper")
    )
    measured = measured_genes(adata, layer, key, names)
    level = stored_params(adata, key).get("level")
    slices = slice_rows(adata, batch_key, otherwise="")
    panels = [
        (f"{gene}, {part}" if part else gene, i, rows) for i, gene in enumerate(names) for part, rows in slices.items()
    ]
    axes = given_axes(ax, len(panels), what=", ".join(label for label, *_ in panels)) or panel_grid(
        [False] * len(panels), ncols, 0, panel=(4.8, 3.4)
    )
    for panel, (label, i, rows) in zip(axes, panels, strict=True):
        order = rows[np.argsort(expected[rows, i], kind="stable")]
        low, mean, high, seen = lower[order, i], expected[order, i], upper[order, i], measured[order, i]
        _draw(panel, low, mean, high, seen)
        known = np.isfinite(seen)
        inside = (seen >= low) & (seen <= high)
        share = f"{100 * inside[known].mean():.0f} % inside" if known.any() else "not measured"
        panel.set_title(f"{label}: {share}" + ("" if level is None else f" ({100 * float(level):.0f} % expected)"))
    axes[0].legend(frameon=False, fontsize="small", loc="upper left")
    if title is not None:
        root_figure(axes[0]).suptitle(title)
    return finish(axes, save=save, show=show, return_fig=return_fig)


def _draw(ax: Axes, low: np.ndarray, mean: np.ndarray, high: np.ndarray, seen: np.ndarray) -> None:
    at = np.arange(len(mean))
    outside = (seen < low) | (seen > high)
    inside = np.isfinite(seen) & ~outside
    style: dict[str, Any] = {"markersize": 2.5, "markeredgewidth": 0, "alpha": 0.7, "linestyle": "", "marker": "o"}
    ax.fill_between(at, low, high, color=_BAND, linewidth=0, alpha=0.6, label="interval")
    ax.plot(at[inside], seen[inside], color=_BLUE, label="measured, inside", **style)
    ax.plot(at[outside], seen[outside], color=_ORANGE, label="measured, outside", **style)
    ax.plot(at, mean, color="black", linewidth=1, label="expected")
    top = np.nanmax(np.concatenate([seen, high]))
    ax.set(xlabel="spots by expected expression", ylabel="expression", xlim=(-1, len(mean)))
    ax.set_ylim(top=ax.get_ylim()[0] + 1.45 * (top - ax.get_ylim()[0]))  # the legend stands above the points
    ax.spines[["top", "right"]].set_visible(False)
