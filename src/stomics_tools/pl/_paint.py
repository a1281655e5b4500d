"""Colours of spots, and the legend or bar that tells them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, to_rgba
from matplotlib.lines import Line2D
from mudata import MuData

from stomics_tools.pl._common import root_figure
from stomics_tools.pl._palette import MISSING, Palette, category_colors, stored_colors

_ROWS = 16
"""Entries of a legend about as high as a panel."""


def number_scale(values: Any, cmap: str | Colormap | None) -> ScalarMappable:
    """Scale from the smallest to the largest of `values`, of any shape; what is not finite is grey."""
    numbers = np.ma.masked_invalid(np.asarray(values, dtype=np.float64))
    low, high = (0.0, 1.0) if numbers.count() == 0 else (numbers.min(), numbers.max())
    return ScalarMappable(Normalize(low, high), plt.get_cmap(cmap).with_extremes(bad=MISSING))


def paint_numbers(values: Any, scale: ScalarMappable) -> np.ndarray:
    """Colour of every value on a scale, ``(n_obs, 4)``."""
    return scale.to_rgba(np.ma.masked_invalid(np.asarray(values, dtype=np.float64)))


def is_number(values: pd.Series) -> bool:
    """Whether values are drawn on a continuous scale."""
    kind = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    return kind and bool(values.notna().any())


def check_palette(columns: Mapping[str, pd.Series], palette: Palette | None, cmap: str | Colormap | None) -> None:
    """Raise ``ValueError`` for colours that no column takes."""
    numbers = [name for name, values in columns.items() if is_number(values)]
    if palette is not None and len(numbers) == len(columns):
        raise ValueError(f"`palette` is for categories, but {numbers} are numbers. Give `cmap`, or leave it out.")
    if cmap is not None and not numbers:
        raise ValueError(f"`cmap` is for numbers, but {list(columns)} are categories. Give `palette`, or leave it out.")


def paint(
    adata: AnnData | MuData,
    key: str,
    values: pd.Series,
    palette: Palette | None = None,
    cmap: str | Colormap | None = None,
) -> tuple[np.ndarray, ScalarMappable | list[Line2D]]:
    """Colour of every spot, ``(n_obs, 4)``, and what its legend shows; colours stored in `adata` for `key` are used."""
    if is_number(values):
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        scale = number_scale(numbers, cmap)
        return paint_numbers(numbers, scale), scale
    column = values.astype("category").cat.remove_unused_categories()
    # Stored colours belong to all categories of the column, used or not.
    everything = values.astype("category").cat.categories.tolist()
    stored = stored_colors(adata, key, len(everything)) if palette is None else None
    colors = dict(zip(everything, category_colors(everything, stored=stored, palette=palette), strict=True))
    shown = [(str(category), colors[category]) for category in column.cat.categories]
    if column.isna().any():
        shown.append(("missing", MISSING))
    rgba = np.array([to_rgba(color) for _, color in shown])
    handles = [Line2D([], [], linestyle="", marker="o", color=color, label=label) for label, color in shown]
    return rgba[column.cat.codes.to_numpy()], handles  # the code of a missing value is -1: the last colour


def legend_margin(key: ScalarMappable | list[Line2D]) -> float:
    """Width in inches that a legend takes beside the panels."""
    handles = [] if isinstance(key, ScalarMappable) else key
    longest = max((len(str(handle.get_label())) for handle in handles), default=0)
    return _columns(handles) * (0.6 + 0.08 * longest)


def draw_key(
    key: ScalarMappable | list[Line2D],
    axes: list[Axes],
    *,
    label: str,
    heading: str | None,
    beside: Axes,
    extend: Literal["neither", "both"] = "neither",
) -> None:
    """Draw a bar with a `label` for all `axes`, or a legend with a `heading` right of one of them.

    `extend` tells whether values lie beyond the ends of the bar.
    """
    if isinstance(key, ScalarMappable):
        root_figure(axes[0]).colorbar(key, ax=axes, shrink=0.6, label=label, extend=extend)
        return
    beside.legend(
        handles=key, title=heading, ncols=_columns(key), frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5)
    )


def _columns(handles: list[Line2D]) -> int:
    return 1 + len(handles) // _ROWS
