"""Spatial domains: clusters of a representation of the spots."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scanpy import logging as logg
from sklearn.decomposition import PCA

from stomics_tools import _keys
from stomics_tools._mixture import bic_curve, fit_tied_mixture
from stomics_tools._params import plain_params
from stomics_tools._validate import check_annotated, check_integer, check_new_key, check_option
from stomics_tools.data._lookup import found_representation, representation, spatial_graph
from stomics_tools.tl._leiden import leiden_at, require_igraph
from stomics_tools.tl._refine import majority_labels

_REFINE_NEIGHBORS = 50
_MAX_DOMAINS = 20
_N_PCS = (5, 20)  # at least, at most
_SPOTS_PER_PC = 50
_SPOTS_PER_OBSERVATION = 7.0
"""A spot and its six neighbours tell about as much as one independent observation."""


def spatial_domains(
    adata: AnnData | MuData,
    n_domains: int | None = None,
    *,
    use_rep: str | None = None,
    method: str = "gmm",
    refine: bool | int = False,
    n_pcs: int | None = None,
    n_starts: int | None = None,
    max_domains: int = _MAX_DOMAINS,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    seed: int = 0,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Partition the spots into spatial domains by clustering a representation of them.

    Parameters
    ----------
    adata
        Annotated data; only ``obsm`` and ``obs`` are read.
    n_domains
        Number of domains. Default: the number from 2 to `max_domains` at which the Gaussian mixture has the lowest
        Bayesian information criterion. As neighbours resemble each other, seven spots (one and its six neighbours) are
        counted as one observation; with every spot counted for itself the criterion grows with each further domain on
        most tissue. The number is a suggestion: with more smoothing it rises.
    use_rep
        Key of the representation in ``obsm``, ``(n_obs, any)``; its first `n_pcs` principal components are clustered.
        Default: the latent representation of the model that wrote its results, if only one did.
    method
        ``"gmm"``, a Gaussian mixture whose components share one covariance (the model EEE of mclust), or ``"leiden"``
        on the 15 nearest neighbours, which needs the extra ``stomics-tools[leiden]``.
    refine
        Give every spot the label most frequent among its nearest spots of the same slice: among 50 of them if true,
        or among as many as are given here.
    n_pcs
        Principal components that are clustered. Default: one for every 50 spots, from 5 to 20. On a few hundred spots
        twenty components are mostly noise: the mixture then gives its components to handfuls of outliers, others with
        every seed.
    n_starts
        Starts of the mixture (``gmm``), of which the likeliest result is kept. Default: 200,000 over the number of
        spots, from 20 to 100; small data have many optima.
    max_domains
        Largest number of domains considered where `n_domains` is not given.
    spatial_key
        Key of the coordinates in ``obsm``, used if `refine` is set. Of a MuData its modalities are searched as well.
    batch_key
        Column of ``obs`` that tells the slices apart, searched for alike, used if `refine` is set. Domains are shared by
        all slices.
    seed
        Seed of everything random.
    key_added
        Where results are written. Default: ``"spatial_domain"``, and a column of that name that this function did not
        write is never replaced; a column that is named here is.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    The copy if `copy`, else ``None``. Written are:

    ``obs[key_added]``
        Domain of each spot, categorical ``"0"``, ``"1"``, ... from the largest to the smallest.
    ``uns[key_added]["params"]``
        The arguments, and as ``n_found`` the number of domains.
    ``uns[key_added]["bic"]``
        If `n_domains` was not given: the criterion of 2, 3, ... domains.

    Raises
    ------
    KeyError
        If `use_rep`, `spatial_key` or `batch_key` does not exist.
    ValueError
        If the representation has missing values or does not vary, if there are fewer spots than domains, if a slice
        has too few spots to refine, or if ``obs["spatial_domain"]`` is something else and `key_added` is not given.
    TypeError
        If `adata` is no annotated data, such as a model.

    Warns
    -----
    UserWarning
        If another number of domains was found than asked for: Leiden jumps over some numbers (the nearest one met is
        kept), a component of the mixture can end up without spots, and refinement can dissolve a domain. Also if
        `batch_key` is given without `refine`.
    """
    check_annotated(adata)
    check_option(method, ("gmm", "leiden"), argument="method")
    key_added = _free_key(adata) if key_added is None else check_new_key(key_added, argument="key_added")
    if n_pcs is not None:
        check_integer(n_pcs, argument="n_pcs")
    if n_starts is not None:
        check_integer(n_starts, argument="n_starts")
        if method == "leiden":
            raise ValueError(f"`n_starts={n_starts}` has no effect with `method='leiden'`. Leave it out.")
    check_integer(max_domains, argument="max_domains", minimum=2)
    if n_domains is not None:
        check_integer(n_domains, argument="n_domains", minimum=2)
        if max_domains != _MAX_DOMAINS:
            raise ValueError(f"`max_domains={max_domains}` has no effect beside `n_domains`. Leave it out.")
    if method == "leiden":
        require_igraph()
    use_rep = found_representation(adata) if use_rep is None else use_rep
    x = representation(adata, use_rep)
    if n_domains is not None and n_domains > len(x):
        raise ValueError(f"`n_domains={n_domains}` domains cannot be made of {len(x)} spots. Lower `n_domains`.")
    if (x == x[:1]).all():
        raise ValueError(f"`use_rep`: all rows of `adata.obsm[{use_rep!r}]` are the same, there is nothing to cluster.")
    graph = None
    if batch_key is not None and refine is False:
        warnings.warn(
            "`batch_key` has no effect without `refine`: domains are found for all slices together. Leave it out.",
            UserWarning,
            stacklevel=2,
        )
    if refine is not False:
        n_neighbors = _REFINE_NEIGHBORS if refine is True else refine
        graph = spatial_graph(adata, n_neighbors, spatial_key=spatial_key, batch_key=batch_key, argument="refine")

    start = logg.info("finding spatial domains")
    if n_pcs is None:
        n_pcs = int(np.clip(len(x) // _SPOTS_PER_PC, *_N_PCS))
    z = principal_axes(x, n_pcs, seed=seed)
    result: dict[str, Any] = {}
    wanted = n_domains
    if wanted is None:
        candidates = np.arange(2, min(max_domains, len(x)) + 1)
        result["bic"] = bic_curve(z, candidates, rows_per_observation=_SPOTS_PER_OBSERVATION, seed=seed)
        wanted = int(candidates[np.argmin(result["bic"])])
        if wanted == candidates[-1]:
            logg.warning(f"the criterion is still improving at `max_domains={wanted}`")
    if method == "gmm":
        labels = fit_tied_mixture(z, wanted, n_starts=n_starts, seed=seed).predict(z)
    else:
        labels = leiden_at(z, wanted, seed=seed)
    if graph is not None:
        labels = majority_labels(labels, graph)
    labels = by_size(labels)

    n_found = int(labels.max()) + 1
    if n_found != wanted:
        warnings.warn(
            f"`n_domains={wanted}`: {n_found} domains were found, the nearest that `method={method!r}` came to "
            f"with `refine={refine}`.",
            UserWarning,
            stacklevel=2,
        )
    adata = adata.copy() if copy else adata
    adata.obs[key_added] = pd.Categorical.from_codes(labels, pd.Index([str(i) for i in range(n_found)]))
    result["params"] = plain_params(
        {
            "use_rep": use_rep,
            "n_domains": n_domains,
            "n_found": n_found,
            "method": method,
            "refine": refine,
            "n_pcs": n_pcs,
            "n_starts": n_starts if method == "gmm" else None,
            "max_domains": max_domains if n_domains is None else None,
            "spatial_key": spatial_key if graph is not None else None,
            "batch_key": batch_key if graph is not None else None,
            "seed": seed,
        }
    )
    adata.uns[key_added] = result
    logg.info(
        "    finished",
        time=start,
        deep=f"added\n    `obs[{key_added!r}]`, {n_found} domains (categorical)\n    `uns[{key_added!r}]`, parameters",
    )
    return adata if copy else None


def _free_key(adata: AnnData | MuData) -> str:
    """The default key, if what is there under it was written by this function."""
    key = _keys.DOMAIN
    record = adata.uns.get(key)
    params = record.get("params") if isinstance(record, Mapping) else None
    is_own = isinstance(params, Mapping) and "stomics_tools_version" in params and "n_found" in params
    for place, there in ((f"adata.obs[{key!r}]", key in adata.obs), (f"adata.uns[{key!r}]", record is not None)):
        if there and not is_own:
            raise ValueError(
                f"`key_added`: `{place}` is there and was not written by `tl.spatial_domains`. Name another column, or "
                f"replace this one by `key_added={key!r}`."
            )
    return key


def principal_axes(x: np.ndarray, n_components: int, *, seed: int = 0) -> np.ndarray:
    """Scores ``(n_obs, at most n_components)`` on the principal components of ``(n_obs, n_features)`` that vary at all."""
    pca = PCA(min(n_components, x.shape[1], len(x) - 1), random_state=seed)
    scores = pca.fit_transform(x)
    return scores[:, pca.explained_variance_ > 1e-10 * pca.explained_variance_[0]]


def by_size(labels: np.ndarray) -> np.ndarray:
    """Rank labels ``(n_obs,)`` from 0, the most frequent, on; of equally frequent ones the first to occur leads."""
    codes, uniques = pd.factorize(labels)
    order = np.argsort(-np.bincount(codes, minlength=len(uniques)), kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[codes]
