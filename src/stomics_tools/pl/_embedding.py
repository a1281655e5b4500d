"""A representation in two dimensions."""

from __future__ import annotations

from typing import Any, Literal

import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mudata import MuData

from stomics_tools import _keys
from stomics_tools._validate import check_integer, check_option
from stomics_tools.data._lookup import representation
from stomics_tools.pl._common import finish
from stomics_tools.pl._lookup import obs_column, stored_colors


def embedding(
    adata: AnnData | MuData,
    *,
    use_rep: str,
    color: str = _keys.DOMAIN,
    method: Literal["umap", "tsne"] = "umap",
    n_neighbors: int = 15,
    seed: int = 0,
    title: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
    **kwargs: Any,
) -> Figure | Axes | list[Axes] | None:
    """Draw a representation in two dimensions, by UMAP or t-SNE of scanpy; nothing is written into `adata`.

    Parameters
    ----------
    adata
        Annotated data.
    use_rep
        ``obsm`` key of the representation, for example ``"X_graphst"``.
    color
        Column of ``obs``.
    method
        ``"umap"``, of the nearest neighbours, or ``"tsne"``.
    n_neighbors
        Of ``"umap"``; for ``"tsne"`` the perplexity.
    seed
        Of the layout.
    title
        Title of the plot. Default: `color`.
    ax
        Axes to draw on.
    show
        Show the plot instead of returning it. Default: ``scanpy.settings.autoshow``.
    return_fig
        Return the figure.
    kwargs
        Further arguments of :func:`scanpy.pl.embedding`.

    Returns
    -------
    The figure if `return_fig`, else None if shown, else the axes.

    Raises
    ------
    KeyError
        If a key is not there; the message lists those that are.
    ValueError
        If the representation cannot be used, or there are too few spots.
    """
    check_option(method, ("umap", "tsne"), argument="method")
    check_integer(n_neighbors, argument="n_neighbors", minimum=2)
    z = representation(adata, use_rep)
    if len(z) <= n_neighbors:
        raise ValueError(f"`n_neighbors={n_neighbors}` needs more spots than that, found {len(z)}. Lower it.")
    column = obs_column(adata, color, argument="color")
    own = AnnData(obs=column.to_frame(color), obsm={use_rep: z})
    colors = stored_colors(adata, color)
    if colors is not None:
        own.uns[f"{color}_colors"] = list(colors)
    if method == "umap":
        sc.pp.neighbors(own, n_neighbors, use_rep=use_rep, random_state=seed)
        sc.tl.umap(own, random_state=seed)
    else:
        rate = max(len(z) / 48, 50)  # of scikit-learn; scanpy's of 1,000 scatters few spots
        sc.tl.tsne(own, use_rep=use_rep, perplexity=n_neighbors, learning_rate=rate, random_state=seed)
    drawn = sc.pl.embedding(own, f"X_{method}", color=color, title=title or color, ax=ax, show=False, **kwargs)
    return finish([drawn], show=show, return_fig=return_fig)
