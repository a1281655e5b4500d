"""Representations and spatial graphs of the spots of an AnnData or MuData."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from stomics_tools._validate import check_finite, check_integer, check_key, check_slices
from stomics_tools.data._graphs import check_batch_sizes, spatial_knn
from stomics_tools.data._matrix import open_matrix
from stomics_tools.data._read import find_column, read_coordinates


def representation(data: AnnData | MuData, key: str, *, argument: str = "use_rep") -> np.ndarray:
    """Return ``obsm[key]`` as a float64 array ``(n_obs, n_features)``.

    Raises ``KeyError`` if there is none of that name, ``ValueError`` if it is not a finite numeric matrix.
    """
    owners = [name for name, part in data.mod.items() if key in part.obsm] if isinstance(data, MuData) else []
    if owners and key not in data.obsm:
        raise KeyError(
            f"`{argument}`: `mdata.obsm` has no {key!r}, its modality {owners[0]!r} has. Pass `mdata[{owners[0]!r}]`, or a "
            "representation of all modalities, such as a model writes."
        )
    check_key(key, data.obsm.keys(), argument=argument, where="adata.obsm")
    where = f"adata.obsm[{key!r}]"
    values = open_matrix(data.obsm[key], argument=argument, where=where)
    values = np.asarray(values.toarray() if sparse.issparse(values) else values)  # n_features wide, never n_obs
    check_finite(values, argument=argument, where=where)
    return values.astype(np.float64)


def found_representation(data: AnnData | MuData, *, argument: str = "use_rep") -> str:
    """Return the ``obsm`` key of the latent representation of the one model that wrote its results.

    Raises ``ValueError`` if none or several did; the message lists what there is.
    """
    found = [
        f"X_{key}"
        for key, record in data.uns.items()
        if f"X_{key}" in data.obsm and isinstance(record, Mapping) and "model" in dict(record.get("params") or {})
    ]
    if len(found) == 1:
        return found[0]
    which = f"the latent representations {found} are there" if found else "no model has written its results"
    others = [key for key in data.obsm if key not in found]
    raise ValueError(f"`{argument}`: {which}. Name the representation; `adata.obsm` also holds {others}.")


def spatial_graph(
    data: AnnData | MuData,
    n_neighbors: int,
    *,
    spatial_key: str,
    batch_key: str | None,
    argument: str = "n_neighbors",
) -> sparse.csr_matrix:
    """Directed graph of the `n_neighbors` nearest spots within each slice, as :func:`spatial_knn` gives it.

    Coordinates and slices that only the modalities of a MuData hold are found as models find them.

    Raises ``KeyError`` or ``ValueError`` for missing or unusable coordinates or slices, and for slices that are too
    small, in which case `argument` names what to lower.
    """
    check_integer(n_neighbors, argument=argument)
    kind = "mdata" if isinstance(data, MuData) else "adata"
    batch, names = np.zeros(data.n_obs, dtype=np.int64), ["0"]
    if batch_key is not None:
        column, where = find_column(data, batch_key, kind)
        batch, names = check_slices(column, argument="batch_key", where=where)
    coordinates = read_coordinates(data, spatial_key, kind, batch, names)
    check_batch_sizes(len(coordinates), batch, n_neighbors, argument=argument)
    return spatial_knn(coordinates, n_neighbors, batch)
