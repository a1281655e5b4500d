"""The picture of a result: labels, domains, loss."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from stomics_tools import pl
from stomics_tools.pl._palette import category_colors

MAX_SLICES = 4


def picture(
    coordinates: np.ndarray,
    columns: Mapping[str, pd.Series],
    slices: pd.Series | None,
    history: Mapping[str, pd.DataFrame],
) -> Figure:
    """One row a slice (of the first four), one panel a column, and the losses beside them.

    Parameters
    ----------
    coordinates
        ``(n_obs, 2 or 3)``.
    columns
        Labellings ``(n_obs,)`` by the title of their panels. All take the colours of the first, each label those of
        the one that it overlaps most.
    slices
        Slice of each spot. Default: one slice.
    history
        What was logged in training.
    """
    obs = pd.DataFrame({title: column.astype("category") for title, column in columns.items()})
    adata = AnnData(obs=obs, obsm={"spatial": coordinates})
    first = obs.iloc[:, 0]
    colors = category_colors(first.cat.categories.tolist(), stored=None, palette=None)
    titles = list(columns)
    for title in titles:
        adata.uns[f"{title}_colors"] = _matched_colors(obs[title], first, colors)
    names = [None] if slices is None else slices.unique()[:MAX_SLICES].tolist()
    n_columns = len(titles) + 1
    figure, axes = plt.subplots(
        len(names), n_columns, figsize=(4.6 * n_columns, 3.6 * len(names)), squeeze=False, layout="constrained"
    )
    for row, name in zip(axes, names, strict=True):
        part = adata if name is None else adata[(slices == name).to_numpy()]
        for ax, title in zip(row[:-1], titles, strict=True):
            pl.domains(part, color=title, title=title if name is None else f"{name}: {title}", ax=ax, show=False)
        row[-1].axis("off")
    axes[0, -1].axis("on")
    pl.history(history, ax=axes[0, -1], show=False)
    return figure


def _matched_colors(labels: pd.Series, reference: pd.Series, colors: list[str]) -> list[str]:
    """Colours of the categories of `labels`: of the category of `reference` they overlap most, else new ones."""
    table = pd.crosstab(labels, reference, dropna=False).reindex(
        index=labels.cat.categories, columns=reference.cat.categories, fill_value=0
    )
    rows, matched = linear_sum_assignment(table.to_numpy(), maximize=True)
    new = category_colors(range(len(colors) + len(table)), stored=None, palette=None)
    unused = [color for color in new if color not in colors]
    result = [""] * len(table)
    for row, column in zip(rows, matched, strict=True):
        result[row] = colors[column]
    return [color or unused.pop(0) for color in result]
