"""Colours of categories: those that the user gives, those that are stored with the data, or scanpy's."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from cycler import Cycler
from matplotlib.colors import Colormap, is_color_like, to_hex
from mudata import MuData
from scanpy.plotting import palettes

from stomics_tools._validate import check_option
from stomics_tools.pl._lookup import holders

MISSING = "#d3d3d3"
"""Colour of observations without a value."""

Palette = str | Colormap | Cycler | Sequence[Any] | Mapping[Any, Any] | pd.Series
"""Name of a colour map of matplotlib, the colour map itself, a cycler, colours in order, or colours by category.

A Series holds colours by category, in its index.
"""


def category_colors(
    categories: Sequence[Any], *, stored: Sequence[str] | None = None, palette: Palette | None = None
) -> list[str]:
    """Hexadecimal colour of each category: of the palette given, else the stored one, else scanpy's.

    A colour map is sampled evenly from end to end, as scanpy does.

    Raises
    ------
    TypeError
        If `palette` is nothing that holds colours.
    ValueError
        If `palette` has no colour for one of the categories, or something in it is no colour.
    """
    n = len(categories)
    if palette is not None:
        return _from_palette(categories, palette)
    if stored is not None:
        return list(stored[:n])
    known: list[list[str]] = [palettes.default_20, palettes.default_28, palettes.default_102]
    colors = next((p for p in known if len(p) >= n), known[-1])
    return [to_hex(colors[i % len(colors)]) for i in range(n)]


def stored_colors(adata: AnnData | MuData, key: str, n: int) -> list[str] | None:
    """Colours that scanpy or the user left in ``.uns`` for the `n` categories of a column, the object itself first.

    Warns
    -----
    UserWarning
        If something else is stored there; None is returned then.
    """
    name = f"{key}_colors"
    places = [(f"adata.uns[{name!r}]", part.uns[name]) for part in holders(adata).values() if name in part.uns]
    prefix, _, rest = str(key).partition(":")
    if isinstance(adata, MuData) and prefix in adata.mod and f"{rest}_colors" in adata.mod[prefix].uns:
        own = f"{rest}_colors"
        places.append((f"adata[{prefix!r}].uns[{own!r}]", adata.mod[prefix].uns[own]))
    if not places:
        return None
    where, value = places[0]
    colors = None
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
        colors = [_hexadecimal(color) for color in value]
    if colors is None or None in colors or len(colors) < n:
        found = f"{len(colors)} colours" if colors is not None and None not in colors else f"{value!r:.60}"
        warnings.warn(
            f"`{where}` must be a list of one colour for each of the {n} categories, found {found}. "
            "It is left aside, and default colours are used.",
            UserWarning,
            stacklevel=3,
        )
        return None
    return [color for color in colors if color is not None]


def _from_palette(categories: Sequence[Any], palette: Palette) -> list[str]:
    n = len(categories)
    if isinstance(palette, pd.Series):
        palette = palette.to_dict()
    if isinstance(palette, str):
        check_option(palette, list(plt.colormaps), argument="palette")
        palette = plt.get_cmap(palette)
    if isinstance(palette, Colormap):
        if palette.N < n:
            raise ValueError(
                f"`palette`: {palette.name!r} has {palette.N} colours for {n} categories. Take a larger one."
            )
        return [to_hex(color) for color in palette(np.linspace(0, 1, n))]
    if isinstance(palette, Cycler):
        if "color" not in palette.keys:
            raise ValueError(f"`palette`: the cycler has no key 'color', found {sorted(palette.keys)}.")
        palette = palette.by_key()["color"]
    if isinstance(palette, Mapping):
        missing = [c for c in categories if c not in palette]
        if missing:
            raise ValueError(f"`palette` has no colour for the categories {missing}. Give one for each.")
        given = [palette[c] for c in categories]
    elif isinstance(palette, Sequence | np.ndarray):
        if len(palette) < n:
            raise ValueError(f"`palette` has {len(palette)} colours for {n} categories. Give one for each.")
        given = list(palette[:n])
    else:
        raise TypeError(
            f"`palette` must be the name of a colour map, a colour map, a list or a mapping of colours, "
            f"found {type(palette).__name__}."
        )
    colors = [_hexadecimal(color) for color in given]
    wrong = [color for color, known in zip(given, colors, strict=True) if known is None]
    if wrong:
        raise ValueError(f"`palette`: {wrong[:3]} are no colours that matplotlib knows.")
    return [color for color in colors if color is not None]


def _hexadecimal(color: Any) -> str | None:
    """A colour in any form that matplotlib takes, or None."""
    return str(to_hex(color)) if is_color_like(color) else None
