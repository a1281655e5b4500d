"""Columns and coordinates of an AnnData, or of a MuData and its modalities.

What the object itself holds is taken row by row as it stands. What only its modalities hold is joined by name: the rows
of a modality may have changed since the MuData was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from stomics_tools._validate import check_coordinates, check_key, check_obs_names


def obs_column(adata: AnnData | MuData, key: str, *, argument: str) -> pd.Series:
    """Column of ``.obs``, with one value for each of ``adata.obs_names``.

    A MuData is searched first, then its modalities, which must agree in the spots they share; ``"rna:key"`` is the
    column of one of them.
    """
    table = _find(adata, "obs", key, argument, lambda part, name: part.obs[[name]])
    return table.iloc[:, 0].rename(key)


def spot_coordinates(adata: AnnData | MuData, key: str, *, argument: str) -> np.ndarray:
    """Coordinates of ``.obsm``, float64 ``(n_obs, 2 or 3)``, searched for as columns are."""
    xyz = obsm_table(adata, key, argument=argument)
    absent = xyz.isna().all(axis=1)
    if isinstance(adata, MuData) and key not in adata.obsm and absent.any():
        raise ValueError(
            f"`{argument}`: {int(absent.sum())} of {adata.n_obs} spots have coordinates in no modality (first: "
            f"{adata.obs_names[absent][0]!r}). Call `mdata.update()` if a modality was changed, or set "
            f"`mdata.obsm[{key!r}]`."
        )
    return check_coordinates(xyz.to_numpy(), argument=argument, where=f".obsm[{key!r}]")


def obsm_table(adata: AnnData | MuData, key: str, *, argument: str) -> pd.DataFrame:
    """Table of ``.obsm``, with one row for each of ``adata.obs_names``, searched for as columns are.

    Columns of an array are numbered. Spots of which a modality tells nothing are NaN.
    """
    return _find(adata, "obsm", key, argument, _obsm_frame)


def holders(adata: AnnData | MuData) -> dict[str, AnnData | MuData]:
    """The object itself, named ``""``, and its modalities by name."""
    return {"": adata} if isinstance(adata, AnnData) else {"": adata, **adata.mod}


def stored_params(adata: AnnData, key: str) -> Mapping[str, Any]:
    """Arguments that a model recorded in ``uns[key]["params"]``; nothing where something else is stored there."""
    record = adata.uns.get(key)
    params = record.get("params") if isinstance(record, Mapping) else None
    return params if isinstance(params, Mapping) else {}


def join_by_name(adata: AnnData | MuData, pieces: dict[str, pd.DataFrame], *, argument: str, key: str) -> pd.DataFrame:
    """Rows of the tables of some modalities in the order of ``adata.obs_names``; NaN where none has any.

    Raises
    ------
    ValueError
        If names repeat within a modality or are not those of the MuData, or if two modalities differ in a spot that both
        hold.
    """
    joined = pd.DataFrame()
    for name, piece in pieces.items():
        check_obs_names(piece.index, where=f"mdata[{name!r}]")
        strangers = piece.index[~piece.index.isin(adata.obs_names)]
        if len(strangers):
            raise ValueError(
                f"`{argument}`: modality {name!r} changed since the MuData was made: {len(strangers)} of its spots are "
                f"not in `mdata.obs_names` (first: {strangers[0]!r}). Call `mdata.update()` first."
            )
        piece = piece[piece.notna().any(axis=1)]
        if joined.empty:
            first, joined = name, piece
            continue
        shared = joined.index.intersection(piece.index)
        mine, other = (table.loc[shared].astype(object) for table in (joined, piece))
        if mine.shape != other.shape or not mine.equals(other.set_axis(mine.columns, axis=1)):
            raise ValueError(
                f"`{argument}`: {key!r} of the modalities {first!r} and {name!r} differs in spots that both hold. "
                f"Name one of them, as in '{first}:{key}', or set it in `mdata` itself."
            )
        joined = pd.concat([joined, piece.set_axis(joined.columns, axis=1).drop(shared)])
    return joined.reindex(adata.obs_names)


def _find(
    adata: AnnData | MuData, attribute: str, key: str, argument: str, read: Callable[[Any, str], pd.DataFrame]
) -> pd.DataFrame:
    """What the object itself has under a key, else what its modalities have, joined by name."""
    if key in getattr(adata, attribute):
        return read(adata, key)
    parts = {} if isinstance(adata, AnnData) else dict(adata.mod)
    prefix, _, rest = str(key).partition(":")
    if prefix in parts and rest in getattr(parts[prefix], attribute):
        return join_by_name(adata, {prefix: read(parts[prefix], rest)}, argument=argument, key=rest)
    found = {name: read(part, key) for name, part in parts.items() if key in getattr(part, attribute)}
    if not found:
        available = dict.fromkeys(k for part in holders(adata).values() for k in getattr(part, attribute))
        check_key(key, available, argument=argument, where=f"adata.{attribute}")
    return join_by_name(adata, found, argument=argument, key=key)


def _obsm_frame(part: AnnData | MuData, key: str) -> pd.DataFrame:
    value = part.obsm[key]
    if isinstance(value, pd.DataFrame):
        return value
    values = value.toarray() if hasattr(value, "toarray") else np.asarray(value)
    return pd.DataFrame(values, index=part.obs_names, columns=_column_names(part, key))


def _column_names(part: AnnData | MuData, key: str) -> list[str] | None:
    """Columns of a table of weights that a model wrote as an array, as it does in a MuData."""
    for method, record in part.uns.items():
        columns = record.get("columns") if isinstance(record, Mapping) else None
        if isinstance(columns, Mapping) and key.startswith(f"{method}_"):
            names = columns.get(key.removeprefix(f"{method}_"))
            if names is not None:
                return [str(name) for name in names]
    return None
