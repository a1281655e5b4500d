"""Columns and coordinates of an AnnData, or of a MuData and its modalities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from stomics_tools._validate import check_coordinates, check_key


def obs_column(adata: AnnData | MuData, key: str, *, argument: str) -> pd.Series:
    """Column of ``.obs``, with one value for each of ``adata.obs_names``.

    A MuData is searched first. Of a column that only its modalities have, each spot takes the first value there is.
    """
    holders = _holders(adata, "obs", key, argument)
    column = pd.concat([holder.obs[key] for holder in holders])
    return column[~column.index.duplicated()].reindex(adata.obs_names)


def spot_coordinates(adata: AnnData | MuData, key: str, *, argument: str) -> np.ndarray:
    """Coordinates of ``.obsm``, float64 ``(n_obs, 2 or 3)``, searched for as columns are."""
    holders = _holders(adata, "obsm", key, argument)
    xyz = pd.concat([pd.DataFrame(np.asarray(holder.obsm[key]), index=holder.obs_names) for holder in holders])
    xyz = xyz[~xyz.index.duplicated()].reindex(adata.obs_names)
    return check_coordinates(xyz.to_numpy(), argument=argument, where=f".obsm[{key!r}]")


def obsm_table(adata: AnnData | MuData, key: str, *, argument: str) -> pd.DataFrame:
    """Table of ``.obsm``, with one row for each of ``adata.obs_names``, searched for as columns are.

    Columns of an array are numbered. Spots of which a modality tells nothing are NaN.
    """
    holders = _holders(adata, "obsm", key, argument)
    table = pd.concat([pd.DataFrame(holder.obsm[key], index=holder.obs_names) for holder in holders])
    return table[~table.index.duplicated()].reindex(adata.obs_names)


def stored_colors(adata: AnnData | MuData, key: str) -> Sequence[str] | None:
    """Colours that scanpy or the user left in ``.uns`` for a column of ``.obs``, searched for as columns are."""
    everywhere = [adata] if isinstance(adata, AnnData) else [adata, *adata.mod.values()]
    return next((part.uns[f"{key}_colors"] for part in everywhere if f"{key}_colors" in part.uns), None)


def _holders(adata: AnnData | MuData, attribute: str, key: str, argument: str) -> list[AnnData | MuData]:
    """The object itself if it has the key, else those of its modalities that do."""
    own = getattr(adata, attribute)
    if key in own:
        return [adata]
    parts = {} if isinstance(adata, AnnData) else dict(adata.mod)
    found = [part for part in parts.values() if key in getattr(part, attribute)]
    if not found:
        available = dict.fromkeys([*own.keys(), *(k for part in parts.values() for k in getattr(part, attribute))])
        check_key(key, available, argument=argument, where=f"adata.{attribute}")
    return found
