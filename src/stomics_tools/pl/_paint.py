"""Colours of spots, and the legend or bar that tells them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgba
from matplotlib.lines import Line2D

from stomics_tools.pl._common import MISSING, category_colors, root_figure

_ROWS = 16
"""Entries of a legend about as high as a panel."""


def number_scale(values: Any, cmap: str | None) -> ScalarMappable:
    """Scale from the smallest to the largest of `values`, of any shape; what is not finite is grey."""
    numbers = np.ma.masked_invalid(np.asarray(values, dtype=np.float64))
    low, high = (0.0, 1.0) if numbers.count() == 0 else (numbers.min(), numbers.max())
    return ScalarMappable(Normalize(low, high), plt.get_cmap(cmap).with_extremes(bad=MISSING))


def paint_numbers(values: Any, scale: ScalarMappable) -> np.ndarray:
    """Colour of every value on a scale, ``(n_obs, 4)``."""
    return scale.to_rgba(np.ma.masked_invalid(np.asarray(values, dtype=np.float64)))


def paint(
    values: pd.Series,
    stored: Sequence[str] | None,
    palette: Sequence[str] | Mapping[Any, str] | None,
    cmap: str | None,
) -> tuple[np.ndarray, ScalarMappable | list[Line2D]]:
    """Colour of every spot, ``(n_obs, 4)``, and what its legend shows."""
    is_number = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
    if is_number and values.notna().any():
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        scale = number_scale(numbers, cmap)
        return paint_numbers(numbers, scale), scale
    column = values.astype("category").cat.remove_unused_categories()
    # Stored colours belong to all categories of the column, used or not.
    everything = values.astype("category").cat.categories.tolist()
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
