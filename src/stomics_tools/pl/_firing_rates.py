"""How much the neurons of a spiking model fire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stomics_tools._validate import check_key
from stomics_tools.pl._common import finish

_BLUE, _ORANGE = "#0072b2", "#d55e00"


def firing_rates(
    model: Any,
    *,
    title: str | None = None,
    ax: Axes | None = None,
    save: str | Path | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Figure | Axes | list[Axes] | None:
    """Draw how much the neurons fire that each map reads, and the fraction of spots in which they are silent.

    Maps stand in the order of computation, the first on top.

    Parameters
    ----------
    model
        A trained :class:`~stomics_tools.model.PRAGASpike`, or the table of its ``spike_stats()``.
    title
        Title of the plot.
    ax
        Axes to draw on.
    save
        File to write the figure to; its ending tells the format.
    show
        Show the plot instead of returning it. Default: ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.

    Returns
    -------
    The figure if `return_fig`, else None if shown, else the axes.

    Raises
    ------
    KeyError
        If the table lacks a column.
    ValueError
        If no row has a firing rate.
    """
    if not (isinstance(model, pd.DataFrame) or hasattr(model, "spike_stats")):
        raise TypeError(
            f"`model` must be a trained PRAGASpike or the table of its `spike_stats()`, found {type(model).__name__}."
        )
    table: pd.DataFrame = model if isinstance(model, pd.DataFrame) else model.spike_stats()
    for name in ("firing_rate", "silent_fraction"):
        check_key(name, table.columns, argument="model", where="spike_stats().columns")
    fired = table[table["firing_rate"].notna() & (table.index != "total")]
    if fired.empty:
        raise ValueError("`model`: no row of the table has a firing rate. Give the table of `spike_stats()`.")
    if ax is None:
        _, ax = plt.subplots(layout="constrained", figsize=(6, 1.2 + 0.3 * len(fired)))
    at = np.arange(len(fired))
    ax.barh(at, fired["firing_rate"].to_numpy(dtype=np.float64), 0.6, color=_BLUE, label="firing rate")
    silent = fired["silent_fraction"].to_numpy(dtype=np.float64)
    ax.plot(silent, at, "D", color=_ORANGE, markersize=5, label="fraction of silent spots", clip_on=False)
    ax.set_yticks(at, [_label(str(name)) for name in fired.index])
    ax.set(xlim=(0, 1), ylim=(len(fired) - 0.4, -0.6), xlabel="fraction")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    if title is not None:
        ax.set_title(title, pad=28)
    return finish([ax], save=save, show=show, return_fig=return_fig)


def _label(name: str) -> str:
    """``"blocks.0.attention.query.0"`` in words: what stands at the end is a place in a sequence of maps."""
    parts = name.replace("_", " ").split(".")
    if parts[0] != "blocks" or len(parts) < 3:
        return " ".join(parts)
    inner = parts[2:-1] if parts[-1].isdigit() else parts[2:]
    return f"block {parts[1]}: {' '.join(inner)}"
