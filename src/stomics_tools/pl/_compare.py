"""Models side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stomics_tools._validate import check_integer, check_key
from stomics_tools.pl._common import finish
from stomics_tools.pl._palette import Palette, category_colors

_TITLES = {
    "ari": "ARI",
    "nmi": "NMI",
    "silhouette": "silhouette width",
    "stability": "stability (ARI between seeds)",
    "reconstruction_mse": "reconstruction MSE / variance",
    "seconds": "time [s]",
    "peak_mib": "rise of memory [MiB]",
}
_OF_A_MODEL = "stability"
"""The one column that has a value a model, not a run."""
_WIDE = 30
"""Ratio of the longest to the shortest time from which on its axis is logarithmic."""


def compare_models(
    table: pd.DataFrame,
    *,
    metrics: str | Sequence[str] | None = None,
    palette: Palette | None = None,
    ncols: int = 4,
    ax: Axes | None = None,
    save: str | Path | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Figure | Axes | list[Axes] | None:
    """Draw the table of :func:`stomics_tools.tl.compare_models`, one panel a metric.

    Every seed is a point; beside them stand their mean and standard deviation. Runs that diverged are left out and
    counted below the name of the model. Axes begin at zero, but for times that differ by more than a factor of 30: their
    axis is logarithmic.

    Parameters
    ----------
    table
        One row a model and seed.
    metrics
        Column, or columns, to draw. Default: ARI, NMI, silhouette, stability, reconstruction error, time and memory, as far as the
        table has them. A column without any value is left out.
    palette
        Colours of the models, in their order or by name, or a colour map.
    ncols
        Panels in a row.
    ax
        Axes to draw on, for one metric.
    save
        File to write the figure to; its ending tells the format.
    show
        Show the plot instead of returning it. Default: ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.

    Returns
    -------
    The figure if `return_fig`, else None if shown, else the axes (a list of them for several metrics).

    Raises
    ------
    KeyError
        If the table lacks a column.
    ValueError
        If there is nothing to draw, or `ax` is given for several metrics.
    """
    check_integer(ncols, argument="ncols")
    metrics = [metrics] if isinstance(metrics, str) else metrics
    check_key("model", table.columns, argument="table", where="table.columns")
    for metric in metrics or ():
        check_key(metric, table.columns, argument="metrics", where="table.columns")
    wanted = _TITLES if metrics is None else metrics
    drawn = [metric for metric in wanted if metric in table.columns and table[metric].notna().any()]
    if not drawn:
        raise ValueError(f"`metrics`: none of {list(wanted)} has a value in `table`.")
    if ax is not None and len(drawn) > 1:
        raise ValueError(f"`ax` is one plot but there are {len(drawn)} metrics {drawn}. Name one in `metrics`.")
    names = table["model"].drop_duplicates().tolist()
    colors = category_colors(names, palette=palette)
    diverged = table["error"].fillna("") != "" if "error" in table else pd.Series(False, index=table.index)
    labels = [_label(name, diverged[table["model"] == name]) for name in names]
    slanted = max(len(line) for label in labels for line in label.splitlines()) > 40 / len(names)
    axes = [ax] if ax is not None else _panels(len(drawn), ncols, len(names), 1.0 if slanted else 0.0)
    for panel, metric in zip(axes, drawn, strict=True):
        for i, (name, color) in enumerate(zip(names, colors, strict=True)):
            values = table.loc[(table["model"] == name) & ~diverged, metric].astype(np.float64).dropna().to_numpy()
            _draw(panel, i, values[:1] if metric == _OF_A_MODEL else values, color)
        panel.set_title(_TITLES.get(metric, metric.replace("_", " ")), fontsize="medium")
        panel.set_xlim(-0.6, len(names) - 0.4)
        panel.set_xticks(range(len(names)), labels)
        if slanted:
            plt.setp(panel.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")
        _scale(panel, table.loc[~diverged, metric].astype(np.float64).dropna(), metric)
        panel.spines[["top", "right"]].set_visible(False)
    return finish(axes, save=save, show=show, return_fig=return_fig)


def _scale(ax: Axes, values: pd.Series, metric: str) -> None:
    """Models and simple methods may differ in time by orders of magnitude."""
    if metric == "seconds" and values.max() > _WIDE * values.min() > 0:
        ax.set_yscale("log")
        return
    ax.yaxis.set_major_locator(MaxNLocator(5))
    if values.min() >= 0:
        ax.set_ylim(0, 1.05 * ax.get_ylim()[1])


def _panels(n: int, ncols: int, n_models: int, margin: float) -> list[Axes]:
    """A grid of panels, each with a `margin` below in inches."""
    columns = min(ncols, n)
    rows = -(-n // columns)
    size = ((1.8 + 0.5 * max(n_models, 2)) * columns, (2.8 + margin) * rows)
    figure = plt.figure(figsize=size, layout="constrained")
    return [figure.add_subplot(rows, columns, i + 1) for i in range(n)]


def _label(name: Any, diverged: pd.Series) -> str:
    return f"{name}\n({diverged.sum()} of {len(diverged)} diverged)" if diverged.any() else str(name)


def _draw(ax: Axes, position: int, values: np.ndarray, color: str) -> None:
    """Points of the runs left of the position of a model, mean and standard deviation right of it."""
    if len(values) == 1:
        ax.plot([position], values, "o", color=color, markersize=7, clip_on=False)
    if len(values) < 2:
        return
    spread = np.linspace(-0.08, 0.08, len(values))
    ax.plot(
        position - 0.15 + spread, values, "o", color=color, alpha=0.6, markersize=5, markeredgewidth=0, clip_on=False
    )
    ax.errorbar(
        [position + 0.2],
        [values.mean()],
        [values.std(ddof=1)],
        fmt="D",
        color=color,
        markersize=6,
        capsize=4,
        clip_on=False,
    )
