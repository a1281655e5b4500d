"""A representation in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import scanpy as sc
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from mudata import MuData

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_integer, check_option
from stomics_tools.data._lookup import found_representation, representation
from stomics_tools.pl._color import color_values
from stomics_tools.pl._common import finish
from stomics_tools.pl._paint import check_palette, is_number
from stomics_tools.pl._palette import Palette, category_colors, stored_colors


def embedding(
    adata: AnnData | MuData,
    use_rep: str | None = None,
    *,
    color: str | Sequence[str] = _keys.DOMAIN,
    layer: str | None = None,
    use_raw: bool | None = None,
    method: Literal["umap", "tsne"] = "umap",
    n_neighbors: int = 15,
    seed: int = 0,
    palette: Palette | None = None,
    cmap: str | Colormap | None = None,
    title: str | Sequence[str] | None = None,
    ax: Axes | None = None,
    save: str | Path | None = None,
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
        ``obsm`` key of the representation, for example ``"X_graphst"``. Default: the latent representation of the model
        that wrote its results, if only one did.
    color
        Column of ``obs``, or a gene, or a list of them: one panel for each.
    layer, use_raw
        Where the expression of genes is taken from, as for :func:`~stomics_tools.pl.domains`.
    method
        ``"umap"``, of the nearest neighbours, or ``"tsne"``.
    n_neighbors
        Of ``"umap"``; for ``"tsne"`` the perplexity.
    seed
        Of the layout.
    palette
        Colours of the categories, as for :func:`~stomics_tools.pl.domains`.
    cmap
        Colour map of numbers.
    title
        Title of the plot, or one for each name in `color`. Default: `color`.
    ax
        Axes to draw on, for one panel.
    save
        File to write the figure to; its ending tells the format.
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
    check_annotated(adata)
    check_option(method, ("umap", "tsne"), argument="method")
    check_integer(n_neighbors, argument="n_neighbors", minimum=2)
    use_rep = found_representation(adata) if use_rep is None else use_rep
    z = representation(adata, use_rep)
    if len(z) <= n_neighbors:
        raise ValueError(f"`n_neighbors={n_neighbors}` needs more spots than that, found {len(z)}. Lower it.")
    columns = color_values(adata, color, layer=layer, use_raw=use_raw)
    check_palette(columns, palette, cmap)
    if ax is not None and len(columns) > 1:
        raise ValueError(f"`ax` is one plot but `color` has {len(columns)} names {list(columns)}. Leave `ax` out.")
    # Rows are in the order of the object: names are not needed, and may repeat.
    own = AnnData(obs=pd.DataFrame(index=[str(i) for i in range(len(z))]), obsm={use_rep: z})
    for name, values in columns.items():
        if is_number(values):
            own.obs[name] = values.to_numpy(dtype="float64", na_value=float("nan"))
            continue
        column = values.astype("category").array
        stored = stored_colors(adata, name, len(column.categories)) if palette is None else None
        own.uns[f"{name}_colors"] = category_colors(column.categories.tolist(), stored=stored, palette=palette)
        own.obs[name] = column.rename_categories([str(c) for c in column.categories])
    if method == "umap":
        sc.pp.neighbors(own, n_neighbors, use_rep=use_rep, random_state=seed)
        sc.tl.umap(own, random_state=seed)
    else:
        rate = max(len(z) / 48, 50)  # of scikit-learn; scanpy's of 1,000 scatters few spots
        sc.tl.tsne(own, use_rep=use_rep, perplexity=n_neighbors, learning_rate=rate, random_state=seed)
    names = list(columns)
    titles = names if title is None else [title] * len(names) if isinstance(title, str) else list(title)
    if len(names) > 1:
        kwargs.setdefault("wspace", 0.4)  # room for the legends
    drawn = sc.pl.embedding(
        own, f"X_{method}", color=names, title=titles, ax=ax, cmap=cmap, show=False, use_raw=False, **kwargs
    )
    axes = list(drawn) if isinstance(drawn, list) else [drawn]
    return finish(axes, save=save, show=show, return_fig=return_fig)
