"""Predicted beside measured expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_option
from stomics_tools.metrics import pearson_per_gene
from stomics_tools.pl._common import finish, root_figure
from stomics_tools.pl._lookup import spot_coordinates
from stomics_tools.pl._measured import chosen_genes, measured_genes, predicted_genes
from stomics_tools.pl._paint import draw_key, number_scale, paint_numbers
from stomics_tools.pl._panels import given_axes, slice_rows
from stomics_tools.pl._tissue import draw_spots, is_solid, panel_grid, slice_pictures

Kind = Literal["tissue", "scatter"]
_BLUE = "#0072b2"


def expression(
    adata: AnnData,
    genes: str | Sequence[str],
    *,
    key: str = "var_st",
    layer: str | None = None,
    kind: Kind = "tissue",
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    shared_scale: bool = True,
    size: float = 1.0,
    cmap: str = "viridis",
    img_key: str | None = None,
    library_id: str | Mapping[str, str] | None = None,
    title: str | None = None,
    ax: Axes | Sequence[Axes] | None = None,
    save: str | Path | None = None,
    show: bool | None = None,
    return_fig: bool | None = None,
) -> Figure | Axes | list[Axes] | None:
    """Draw measured and predicted expression of genes, with their correlation, one row a gene and slice.

    Parameters
    ----------
    adata
        Object with predictions, for example of :class:`~stomics_tools.model.VARST`.
    genes
        One gene or several.
    key
        Name of the predictions: ``layers[key]``, or an array ``obsm[key]`` with a column for each of the genes
        that ``uns[key]["gene_names"]`` names, as models write it.
    layer
        Layer of the measured expression. Default: ``X``. Counts become log(1 + counts per 10,000) of the genes that are
        predicted, as the model does; for predictions in another unit name a layer in that unit.
    kind
        ``"tissue"``: both on the tissue, side by side. ``"scatter"``: one against the other, with the line on which they
        are equal.
    spatial_key
        ``obsm`` key of the coordinates; not of ``"scatter"``.
    batch_key
        Column of ``obs`` that names the slice of a spot.
    shared_scale
        Whether both panels of a gene have one colour scale. An expectation varies less than measured values, which are
        noisy: with a scale of its own its pattern is seen better, and not that it is weaker.
    size
        Diameter of a spot in units of the typical distance between neighbours.
    cmap
        Colour map. Spots in which a gene was not measured are grey.
    img_key
        Image of ``uns["spatial"][library]["images"]`` to be drawn below the spots: ``"hires"`` or ``"lowres"``. A smaller
        `size` shows more of it. Default: none, and with `library_id` the one in the higher resolution.
    library_id
        Library of the image, or the library of each slice. Default: the one of the name of the slice, else the only one.
    title
        Title of the plot.
    ax
        Axes to draw on, one for each panel: measured and predicted (of ``"scatter"``: one), gene by gene, the slices of
        the first gene first.
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
        If coordinates are unusable, or `ax` has too few or too many axes.
    """
    check_annotated(adata, mudata=False)
    check_option(kind, Kind.__args__, argument="kind")  # type: ignore[attr-defined]
    names = chosen_genes(genes)
    predicted = predicted_genes(adata, key, names, argument="key")
    measured = measured_genes(adata, layer, key, names)
    slices = slice_rows(adata, batch_key, otherwise="")
    rows_of = [
        (f"{gene}, {part}" if part else gene, i, part, rows)
        for i, gene in enumerate(names)
        for part, rows in slices.items()
    ]
    labels = [label for label, *_ in rows_of]
    if kind == "scatter":
        if img_key is not None or library_id is not None:
            raise ValueError("`img_key` and `library_id` have no effect with `kind='scatter'`. Leave them out.")
        axes = given_axes(ax, len(rows_of), what=", ".join(labels)) or panel_grid(
            [False] * len(rows_of), 4, 0, panel=(3.4, 3.4)
        )
        for panel, (label, i, _, rows) in zip(axes, rows_of, strict=True):
            _scatter(panel, measured[rows, i], predicted[rows, i])
            panel.set_title(f"{label}, r = {_pearson(measured[rows, i], predicted[rows, i]):.2f}")
    else:
        xyz = spot_coordinates(adata, spatial_key, argument="spatial_key")
        pictures = slice_pictures(adata, slices, img_key=img_key, library_id=library_id, batch_key=batch_key)
        solid = [is_solid(xyz[rows]) for *_, rows in rows_of for _ in range(2)]
        given = given_axes(ax, 2 * len(rows_of), what="measured and predicted of " + ", ".join(labels))
        axes = given or panel_grid(solid, 2, 1, panel=(3.6, 3.6))
        for left, right, (label, i, part, rows) in zip(axes[::2], axes[1::2], rows_of, strict=True):
            values = [measured[rows, i], predicted[rows, i]]
            shared = number_scale(np.concatenate(values), cmap)
            scales = [shared, shared] if shared_scale else [number_scale(v, cmap) for v in values]
            for panel, value, scale in zip((left, right), values, scales, strict=True):
                draw_spots(panel, xyz[rows], paint_numbers(value, scale), size, picture=pictures.get(part))
            left.set_title(f"{label}, measured")
            right.set_title(f"predicted, r = {_pearson(*values):.2f}")
            for panels, scale in (
                [([left, right], shared)] if shared_scale else [([left], scales[0]), ([right], scales[1])]
            ):
                draw_key(scale, panels, label="expression", heading=None, beside=right)
    if title is not None:
        root_figure(axes[0]).suptitle(title)
    return finish(axes, save=save, show=show, return_fig=return_fig)


def _pearson(measured: np.ndarray, predicted: np.ndarray) -> float:
    """Correlation over the spots in which the gene was measured; NaN if either is constant."""
    known = np.isfinite(measured)
    if known.sum() < 2:
        return float("nan")
    return float(pearson_per_gene(measured[known, None], predicted[known, None])[0])


def _scatter(ax: Axes, measured: np.ndarray, predicted: np.ndarray) -> None:
    """Points sparse enough to be seen through, and the line of equality over the range of both."""
    known = np.isfinite(measured)
    alpha = float(np.clip(300 / max(known.sum(), 1), 0.1, 0.7))
    ax.plot(measured[known], predicted[known], "o", color=_BLUE, markersize=3, alpha=alpha, markeredgewidth=0)
    both = np.concatenate([measured[known], predicted[known]])
    ends = [both.min(), both.max()] if both.size else [0.0, 1.0]
    ax.plot(ends, ends, color="black", linewidth=0.8, linestyle="--")
    ax.set(xlabel="measured", ylabel="predicted", aspect="equal")
    ax.spines[["top", "right"]].set_visible(False)
