"""How the codes of a quantizer are used."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stomics_tools._validate import check_annotated, check_key
from stomics_tools.pl._common import finish

_WIDTH = 0.38


def codebook_usage(
    adata: AnnData,
    *,
    key: str = "var_st",
    ax: Axes | None = None,
    save: str | Path | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Figure | Axes | list[Axes] | None:
    """Draw how well the codes of each scale are used.

    Bars are the share of the codes that occur, and the perplexity (the number of codes that, used equally often, would
    tell as much) as a share of the codes, with the number on top. A line marks what the perplexity can be at most: fewer
    tokens than codes cannot use all of them.

    Parameters
    ----------
    adata
        Object with the results of :class:`~stomics_tools.model.VARST`.
    key
        Name of the results: the table is ``uns[key]["codebook"]``.
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
        If there are no such results, or they hold no table.
    """
    check_annotated(adata, mudata=False)
    check_key(key, adata.uns, argument="key", where="adata.uns")
    check_key("codebook", adata.uns[key], argument="key", where=f"adata.uns[{key!r}]")
    table: pd.DataFrame = adata.uns[key]["codebook"]
    n_codes, n_tokens = (table[name].to_numpy(dtype=np.float64) for name in ("n_codes", "n_tokens"))
    perplexity = table["perplexity"].to_numpy(dtype=np.float64)
    most = np.minimum(n_codes, n_tokens) / n_codes
    if ax is None:
        _, ax = plt.subplots(layout="constrained", figsize=(1.5 + 0.9 * len(table), 3.5))
    at = np.arange(len(table))
    ax.bar(at - _WIDTH / 2, table["usage"].to_numpy(dtype=np.float64), _WIDTH, label="usage")
    bars = ax.bar(at + _WIDTH / 2, perplexity / n_codes, _WIDTH, label="perplexity")
    ax.bar_label(bars, [f"{value:.0f}" for value in perplexity], fontsize="x-small", padding=4)
    ax.hlines(most, at, at + _WIDTH, colors="black", linewidth=1, label="most there can be")
    ax.set_xticks(at, table.index.astype(str))
    ax.set_xlabel("tokens of the scale")
    ax.set_ylabel("share of the codes")
    ax.set_ylim(0, 1.1)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return finish([ax], save=save, show=show, return_fig=return_fig)
