"""Averages of a representation over neighbouring spots."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from mudata import MuData
from scanpy import logging as logg
from scipy import sparse

from stomics_tools import _keys
from stomics_tools._params import plain_params
from stomics_tools._validate import check_annotated, check_integer, check_new_key
from stomics_tools.data._lookup import representation, spatial_graph


def smooth(
    adata: AnnData | MuData,
    use_rep: str,
    *,
    n_hops: int = 1,
    n_neighbors: int = 6,
    include_self: bool = True,
    multihop: bool = False,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    key_added: str = _keys.SMOOTH,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Average a representation over the nearest spots: the baseline that a spatial model has to beat.

    Parameters
    ----------
    adata
        Annotated data; only ``obsm`` and ``obs`` are read.
    use_rep
        Key of the representation in ``obsm``.
    n_hops
        How many times to average. 0 leaves the representation as it is.
    n_neighbors
        Nearest spots that are averaged.
    include_self
        Average over the spot itself and its `n_neighbors` nearest others, or over these alone.
    multihop
        Keep the averages of 0 to `n_hops` hops side by side instead of the last alone.
    spatial_key
        Key of the coordinates in ``obsm``.
    batch_key
        Column of ``obs`` that tells the slices apart; there are no neighbours across slices.
    key_added
        Where results are written.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    The copy if `copy`, else ``None``. Written are ``obsm[key_added]`` (float32 ``(n_obs, n_features)``, of
    ``(n_hops + 1) n_features`` columns if `multihop`) and ``uns[key_added]["params"]``.

    Raises
    ------
    KeyError
        If `use_rep`, `spatial_key` or `batch_key` does not exist.
    ValueError
        For missing values in the representation, coordinates or slices, or for a slice of too few spots.
    """
    check_annotated(adata)
    check_new_key(key_added, argument="key_added")
    check_integer(n_hops, argument="n_hops", minimum=0)
    x = representation(adata, use_rep)
    graph = spatial_graph(adata, n_neighbors, spatial_key=spatial_key, batch_key=batch_key)
    smoothed = smooth_features(x, graph, n_hops, include_self=include_self, multihop=multihop)
    adata = adata.copy() if copy else adata
    adata.obsm[key_added] = smoothed.astype(np.float32)
    params = {
        "use_rep": use_rep,
        "n_hops": n_hops,
        "n_neighbors": n_neighbors,
        "include_self": include_self,
        "multihop": multihop,
        "spatial_key": spatial_key,
        "batch_key": batch_key,
    }
    adata.uns[key_added] = {"params": plain_params(params)}
    logg.info(f"averaged {use_rep!r} over {n_hops} hops into `obsm[{key_added!r}]`")
    return adata if copy else None


def smooth_features(
    x: np.ndarray, graph: sparse.csr_matrix, n_hops: int = 1, *, include_self: bool = True, multihop: bool = False
) -> np.ndarray:
    """Average rows over their neighbours in a graph, `n_hops` times.

    Parameters
    ----------
    x
        ``(n_obs, n_features)``.
    graph
        ``(n_obs, n_obs)`` CSR without self-loops; its stored entries are the edges, whatever their values.
    n_hops
        How many times to average.
    include_self
        Whether a row counts among its own neighbours. A row without neighbours stays as it is if so, else becomes 0.
    multihop
        Return the averages of 0 to `n_hops` hops side by side.

    Returns
    -------
    ``(n_obs, n_features)``, or ``(n_obs, (n_hops + 1) n_features)`` if `multihop`.
    """
    degree = np.diff(graph.indptr)
    mean = sparse.csr_matrix((np.ones(graph.nnz), graph.indices, graph.indptr), shape=graph.shape)
    if include_self:
        mean = mean + sparse.identity(len(x), format="csr")
        degree = degree + 1
    mean = sparse.diags(1 / np.maximum(degree, 1), format="csr") @ mean
    hops = [x]
    for _ in range(n_hops):
        hops.append(mean @ hops[-1])
    return np.hstack(hops) if multihop else hops[-1]
