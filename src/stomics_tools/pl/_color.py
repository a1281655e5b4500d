"""Values that colour the spots: a column of ``obs``, or the expression of a gene."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from stomics_tools._validate import check_key
from stomics_tools.data._matrix import open_matrix
from stomics_tools.pl._lookup import holders, join_by_name, obs_column

_SHOWN = 40


def color_names(color: str | Sequence[str]) -> list[str]:
    """The columns and genes asked for, as a list.

    Raises
    ------
    TypeError
        If one of them is no name.
    ValueError
        If there are none, or one is named twice.
    """
    several = isinstance(color, Sequence | pd.Index | np.ndarray) and not isinstance(color, str)
    names: list[Any] = list(color) if several else [color]
    wrong = [name for name in names if not isinstance(name, str)]
    if wrong:
        raise TypeError(
            f"`color` must name a column of `adata.obs` or a gene, found {wrong[0]!r:.60} of type {type(wrong[0]).__name__}."
        )
    if not names:
        raise ValueError("`color` is empty. Name at least one column or gene.")
    if len(set(names)) < len(names):
        raise ValueError(f"`color`: some occur twice in {names}. Name each once.")
    return names


def color_values(
    adata: AnnData | MuData, color: str | Sequence[str], *, layer: str | None = None, use_raw: bool | None = None
) -> dict[str, pd.Series]:
    """Values ``(n_obs,)`` of every name in `color`; a column of ``obs`` comes before a gene of that name.

    Parameters
    ----------
    adata
        A MuData is searched first, then its modalities; ``"rna:name"`` is of one of them.
    color
        Columns of ``obs``, or genes.
    layer
        Layer of the expression. Default: ``raw`` if there is one, as scanpy does, else ``X``.
    use_raw
        Take genes from ``raw``, or do not.

    Raises
    ------
    KeyError
        If there is nothing of a name, or no such layer.
    ValueError
        If a gene is in several modalities, or `layer` or `use_raw` is given without a gene.
    """
    names = color_names(color)
    values = {name: _column(adata, name) for name in names}
    genes = [name for name, column in values.items() if column is None]
    if not genes and not (layer is None and use_raw is None):
        argument = "layer" if layer is not None else "use_raw"
        raise ValueError(f"`{argument}` is for genes, but {names} are columns of `adata.obs`. Leave it out.")
    if layer is not None and use_raw:
        raise ValueError("`layer` and `use_raw=True` name two sources of expression. Give one of them.")
    found = {gene: _gene(adata, gene, layer, use_raw) for gene in genes}
    return {name: found[name] if column is None else column for name, column in values.items()}


def _column(adata: AnnData | MuData, name: str) -> pd.Series | None:
    prefix, _, rest = name.partition(":")
    of_one = isinstance(adata, MuData) and prefix in adata.mod and rest in adata.mod[prefix].obs
    if of_one or any(name in part.obs for part in holders(adata).values()):
        return obs_column(adata, name, argument="color")
    return None


def _gene(adata: AnnData | MuData, gene: str, layer: str | None, use_raw: bool | None) -> pd.Series:
    if isinstance(adata, AnnData):
        if not _has(adata, gene, use_raw):
            _raise_unknown(adata, gene)
        return pd.Series(_expression(adata, gene, layer, use_raw, "adata"), index=adata.obs_names, name=gene)
    prefix, _, rest = gene.partition(":")
    owners = {name: gene for name, part in adata.mod.items() if _has(part, gene, use_raw)}
    if prefix in adata.mod and _has(adata.mod[prefix], rest, use_raw):
        owners[prefix] = rest
    if not owners:
        _raise_unknown(adata, gene)
    if len(owners) > 1:
        raise ValueError(
            f"`color`: {gene!r} is in the modalities {list(owners)}. Name one of them, as in '{next(iter(owners))}:{gene}'."
        )
    ((name, own),) = owners.items()
    part = adata.mod[name]
    values = _expression(part, own, layer, use_raw, f"mdata[{name!r}]")
    table = pd.DataFrame({gene: values}, index=part.obs_names)
    return join_by_name(adata, {name: table}, argument="color", key=gene)[gene]


def _has(part: AnnData, gene: str, use_raw: bool | None) -> bool:
    in_raw = part.raw is not None and use_raw is not False and gene in part.raw.var_names
    return in_raw or (gene in part.var_names and not (use_raw and part.raw is not None))


def _expression(part: AnnData, gene: str, layer: str | None, use_raw: bool | None, where: str) -> np.ndarray:
    """Expression of a gene, float64 ``(n_obs,)``."""
    if layer is not None:
        check_key(layer, part.layers, argument="layer", where=f"{where}.layers")
        check_key_of_gene(gene, part.var_names, f"{where}.var_names")
        matrix, names = part.layers[layer], part.var_names
    elif use_raw and part.raw is None:
        raise ValueError(f"`use_raw=True`, but `{where}.raw` is empty. Leave it out, or name a layer.")
    elif part.raw is not None and use_raw is not False and gene in part.raw.var_names:
        matrix, names = part.raw.X, part.raw.var_names
    else:
        matrix, names = part.X, part.var_names
    if matrix is None:
        raise ValueError(f"`layer`: `{where}.X` is empty. Name the layer of the expression.")
    columns = np.flatnonzero(names == gene)
    if len(columns) > 1:
        raise ValueError(
            f"`color`: the gene {gene!r} is there {len(columns)} times. Call `{where}.var_names_make_unique()` first."
        )
    column = open_matrix(matrix[:, columns], argument="color", where=f"expression of {gene!r} in {where}")
    return np.asarray(column.toarray() if sparse.issparse(column) else column, dtype=np.float64).ravel()


def check_key_of_gene(gene: str, names: pd.Index, where: str) -> None:
    """Raise ``KeyError`` if a gene is only in ``raw``, which has no layers."""
    if gene not in names:
        raise KeyError(f"`layer`: the gene {gene!r} is not in `{where}`, only in `raw`. Leave `layer` out.")


def _raise_unknown(adata: AnnData | MuData, name: str) -> None:
    columns = [str(key) for part in holders(adata).values() for key in part.obs]
    parts = [adata] if isinstance(adata, AnnData) else list(adata.mod.values())
    genes = [str(gene) for part in parts for gene in part.var_names]
    plain = {known.lower(): known for known in [*genes, *columns]}  # MBP in man is Mbp in mice
    close = get_close_matches(name.lower(), list(plain), n=1)
    hint = f" Did you mean {plain[close[0]]!r}?" if close else ""
    shown = list(dict.fromkeys(columns))
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    raise KeyError(
        f"`color`: key {name!r} not found in `adata.obs`, nor among the {len(genes)} genes. "
        f"Available columns: {shown[:_SHOWN]}{more}.{hint}"
    )
