"""Representations and spatial graphs of the spots of an AnnData or MuData."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from stomics_tools._validate import check_categories, check_coordinates, check_finite, check_integer, check_key
from stomics_tools.data._graphs import check_batch_sizes, spatial_knn


def representation(data: AnnData | MuData, key: str, *, argument: str = "use_rep") -> np.ndarray:
    """Return ``obsm[key]`` as a float64 array ``(n_obs, n_features)``.

    Raises ``KeyError`` if there is none of that name, ``ValueError`` if it is not a finite numeric matrix.
    """
    check_key(key, data.obsm.keys(), argument=argument, where="adata.obsm")
    values = data.obsm[key]
    where = f"adata.obsm[{key!r}]"
    values = np.asarray(values.toarray() if hasattr(values, "toarray") else values)  # n_features wide, never n_obs
    if values.ndim != 2 or not values.shape[1] or values.dtype.kind not in "iufb":
        raise ValueError(
            f"`{argument}`: `{where}` must be a numeric array of shape (n_obs, n_features), "
            f"found shape {values.shape} and dtype {values.dtype}."
        )
    check_finite(values, argument=argument, where=where)
    return values.astype(np.float64)


def spatial_graph(
    data: AnnData | MuData,
    n_neighbors: int,
    *,
    spatial_key: str,
    batch_key: str | None,
    argument: str = "n_neighbors",
) -> sparse.csr_matrix:
    """Directed graph of the `n_neighbors` nearest spots within each slice, as :func:`spatial_knn` gives it.

    Raises ``KeyError`` or ``ValueError`` for missing or unusable coordinates or slices, and for slices that are too
    small, in which case `argument` names what to lower.
    """
    check_integer(n_neighbors, argument=argument)
    check_key(spatial_key, data.obsm.keys(), argument="spatial_key", where="adata.obsm")
    coordinates = check_coordinates(
        data.obsm[spatial_key], argument="spatial_key", where=f"adata.obsm[{spatial_key!r}]"
    )
    batch = None
    if batch_key is not None:
        check_key(batch_key, data.obs.columns, argument="batch_key", where="adata.obs")
        batch, _ = check_categories(data.obs[batch_key], argument="batch_key", where=f"adata.obs[{batch_key!r}]")
    check_batch_sizes(len(coordinates), batch, n_neighbors, argument=argument)
    return spatial_knn(coordinates, n_neighbors, batch)
