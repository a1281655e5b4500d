"""Spatial components of AnnData and MuData."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData
from scanpy import logging as logg
from scipy import sparse

from stomics_tools import _keys
from stomics_tools._params import plain_params
from stomics_tools._spatial_components import fit_spatial_components
from stomics_tools._validate import check_annotated, check_integer, check_new_key, check_number
from stomics_tools.data import (
    Spots,
    SpotsSpec,
    check_batch_sizes,
    check_same_features,
    hilbert_order,
    read_spots,
    ring_distances,
    rings,
    spatial_knn,
)
from stomics_tools.data._modality_keys import named_modalities
from stomics_tools.data._origin import recipes_of
from stomics_tools.tl._spatial_components_record import find_record, fit_of, record_of

_DEFAULTS: Mapping[str, Any] = {
    "n_components": 64,
    "n_neighbors": 6,
    "n_hops": 3,
    "spatial_graph_key": None,
    "signal_threshold": 0.1,
}


def spatial_components(
    adata: AnnData | MuData,
    modalities: Mapping[str, str] | Sequence[str] | str | None = None,
    *,
    n_components: int = 64,
    spatial_key: str = _keys.SPATIAL,
    batch_key: str | None = None,
    n_neighbors: int = 6,
    n_hops: int = 3,
    spatial_graph_key: str | None = None,
    signal_threshold: float = 0.1,
    reference: AnnData | MuData | Mapping[str, Any] | None = None,
    key_added: str = _keys.SPATIAL_COMPONENTS,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Denoise spots by their neighbors, along the directions in which neighbors agree: a closed form, without training.

    Components are the directions in feature space with the highest correlation between a spot and the mean of its
    neighbors; noise of single spots has no part in them. Along each, a spot is predicted from the rings of neighbors
    around it, and its own value corrects the prediction as far as it is more than noise. The result is a representation of
    every spot for :func:`spatial_domains`, neighbors in scanpy and the like, of one or several modalities and slices. It
    draws no random numbers and takes seconds for 100,000 spots; :doc:`/methods/spatial_components` has the equations.

    Parameters
    ----------
    adata
        Annotated data of one or several slices. A row of NaN marks a spot that lacks a modality, as does a spot of a
        MuData that is not in it.
    modalities
        Name of each modality to its ``obsm`` key, layer, or ``"X"``, for example ``{"rna": "X_pca", "protein":
        "X_protein"}``. A key alone is one modality of an AnnData, names alone are those of a MuData. Default: the arrays
        that :mod:`stomics_tools.pp` has written, or those of `reference`. A modality of more than 256 features is reduced
        to its 100 leading principal components first.
    n_components
        Components at most.
    spatial_key
        ``obsm`` key of the coordinates ``(n_obs, 2 or 3)``, in any unit of length.
    batch_key
        ``obs`` column of slices or patients. Where there are several, each is centered by itself; none has neighbors in
        another.
    n_neighbors
        Nearest spots that are the neighbors of each, made symmetric.
    n_hops
        Steps over these neighbors up to which a spot is predicted, each with a weight of its own.
    spatial_graph_key
        ``obsp`` key of a ready spatial graph, instead of the nearest spots.
    signal_threshold
        Least correlation of a spot and its neighbors along a component, from 0 to 1. The first two components are kept in
        any case.
    reference
        An object with spatial components, or its entry of ``uns``, whose fit is applied; nothing is fitted. Data must have
        the modalities and features of the reference, prepared by its recipe; raw counts are prepared by it where the arrays
        are not there. Keys that are left at their defaults are those of the reference. A slice has the same components
        alone and beside others; it may lack modalities.
    key_added
        Name of the results.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    The copy if `copy`, else ``None``. Written are, for `d` components (the leading ones have most signal):

    ``obsm["X_<key_added>"]``
        Components of each spot, float32 ``(n_obs, d)``.
    ``varm["<key_added>"]``
        Loadings of the features on the components, float32 ``(n_vars, d)``, where a modality is ``"X"`` or a layer; with
        several of these in one AnnData ``varm["<key_added>_<modality>"]``.
    ``uns["<key_added>"]``
        ``"eigenvalues"`` ``(d,)``, the correlation of a spot and its neighbors along each component (its Moran's I); ``"hop_weights"``
        ``(n_modalities, n_hops, d)``, modalities in the order of their names; ``"self_weights"`` ``(d,)``;
        ``"modalities"``, each with its ``"loadings"`` ``(n_features, d)``; ``"params"``, and what `reference` needs.

    Raises
    ------
    KeyError
        If a key does not exist, or `reference` holds no spatial components.
    TypeError
        If `adata` is no annotated data, or an argument has the wrong type.
    ValueError
        If the data cannot be used, if a slice has too few spots, if an argument has no effect, or if the modalities or
        features are not those of `reference`.

    Warns
    -----
    UserWarning
        If no component reaches `signal_threshold`: the values then say next to nothing about the tissue.

    Examples
    --------
    >>> import stomics_tools as st
    >>> mdata = st.datasets.simulate_multiomics(n_obs=1000, n_domains=5)
    >>> st.pp.rna(mdata["rna"])
    >>> st.pp.protein(mdata["protein"])
    >>> st.tl.spatial_components(mdata)
    >>> st.tl.spatial_domains(mdata, 5)
    >>> new = st.datasets.simulate_multiomics(n_obs=500, n_domains=5)
    >>> st.tl.spatial_components(new, reference=mdata)
    """
    check_annotated(adata)
    check_new_key(key_added, argument="key_added")
    given: dict[str, Any] = {
        "n_components": check_integer(n_components, argument="n_components"),
        "n_neighbors": check_integer(n_neighbors, argument="n_neighbors"),
        "n_hops": check_integer(n_hops, argument="n_hops"),
        "spatial_graph_key": spatial_graph_key,
        "signal_threshold": check_number(signal_threshold, argument="signal_threshold", low=0, high=1),
    }
    keys: dict[str, Any] = {"spatial_key": spatial_key, "batch_key": batch_key}
    record: Mapping[str, Any] = {}
    fit, state, source = None, None, ""
    if reference is not None:
        record, source = find_record(reference, key_added)
        fit, state = fit_of(record, source)
        given, keys, modalities = _as_in(record["params"], given, keys, modalities, adata)
    elif spatial_graph_key is not None and n_neighbors != _DEFAULTS["n_neighbors"]:
        raise ValueError(f"`n_neighbors={n_neighbors}` has no effect beside `spatial_graph_key`. Leave it out.")
    named = named_modalities(adata, modalities)
    spec = SpotsSpec(named, spatial_graph_key=given["spatial_graph_key"], **keys)
    spots = read_spots(adata, spec, {} if state is None else recipes_of(state), learn=state is None)
    if state is not None:
        check_same_features(spots, state)
    if spots.spatial_graph is None:
        check_batch_sizes(spots.n_obs, spots.batch, given["n_neighbors"])
    elif not spots.spatial_graph.count_nonzero():
        where = f"{'mdata' if isinstance(adata, MuData) else 'adata'}.obsp[{given['spatial_graph_key']!r}]"
        raise ValueError(f"`spatial_graph_key`: `{where}` has no edges. Build it anew, or leave it out.")

    start = logg.info("computing spatial components")
    order, found, distances = rings_of(spots, given["n_neighbors"], given["n_hops"])
    parts = [spots.modalities[name] for name in sorted(named)]
    values, present = [part.values[order] for part in parts], [part.present[order] for part in parts]
    if fit is None:
        fit = fit_spatial_components(
            values,
            present,
            found,
            distances,
            spots.batch[order],
            n_components=given["n_components"],
            signal_threshold=given["signal_threshold"],
        )
        _check_signal(fit.eigenvalues, given["signal_threshold"])
    latent = np.empty((spots.n_obs, fit.n_components), dtype=np.float32)
    latent[order] = fit.transform(values, present, found, spots.batch[order])

    params = {"modalities": named, **keys, **given, "key_added": key_added}
    if reference is None:
        written = record_of(fit, spots, params)
    else:
        written = deepcopy(
            {**record, "params": plain_params({"model": _keys.SPATIAL_COMPONENTS, **params, "reference": source})}
        )
    adata = adata.copy() if copy else adata
    adata.obsm[_keys.latent(key_added)] = latent
    adata.uns[key_added] = written
    _write_loadings(adata, named, dict(zip(sorted(named), fit.decoders, strict=True)), key_added)
    logg.info(
        "    finished",
        time=start,
        deep=f"added\n    `obsm[{_keys.latent(key_added)!r}]`, {fit.n_components} spatial components\n"
        f"    `uns[{key_added!r}]`, the fit",
    )
    return adata if copy else None


def _as_in(
    params: Mapping[str, Any],
    given: Mapping[str, Any],
    keys: Mapping[str, Any],
    modalities: Any,
    adata: AnnData | MuData,
) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Settings of the reference, keys that are its own where none are given, and modalities likewise."""
    changed = [f"`{name}={value!r}`" for name, value in given.items() if value != _DEFAULTS[name]]
    if changed:
        raise ValueError(
            f"{', '.join(changed)} without effect: with `reference` nothing is fitted, and its settings hold. Leave it "
            "out, or leave out `reference`."
        )
    settings = {name: _plain(params.get(name)) for name in given}
    if keys["spatial_key"] == _keys.SPATIAL:
        keys = {**keys, "spatial_key": str(params["spatial_key"])}
    if keys["batch_key"] is None:
        keys = {**keys, "batch_key": _plain(params.get("batch_key"))}
    known = {str(name): str(key) for name, key in params["modalities"].items()}
    if modalities is None:
        return settings, dict(keys), known
    named = named_modalities(adata, modalities)
    if set(named) != set(known):
        raise ValueError(f"`modalities`: those of the reference are {sorted(known)}, found {sorted(named)}.")
    return settings, dict(keys), named


def _plain(value: Any) -> Any:
    """A number or text of ``uns``, which may have been through a file."""
    return value.item() if isinstance(value, np.generic) else value


def rings_of(spots: Spots, n_neighbors: int, n_hops: int) -> tuple[np.ndarray, list[sparse.csr_matrix], list[float]]:
    """Rows along a space-filling curve, and the rings of neighbors of the spots in that order with their distances."""
    order = hilbert_order(spots.coordinates, spots.batch)
    batch, coordinates = spots.batch[order], spots.coordinates[order]
    if spots.spatial_graph is None:
        nearest = spatial_knn(coordinates, n_neighbors, batch)
        nearest.data[:] = 1.0  # coincident spots lie at distance zero
    else:
        nearest = sparse.csr_matrix(spots.spatial_graph[order][:, order])
    found = rings(nearest, n_hops)
    return order, found, ring_distances(found, coordinates, batch)


def _check_signal(eigenvalues: np.ndarray, threshold: float) -> None:
    if eigenvalues[0] <= threshold:
        warnings.warn(
            f"`signal_threshold={threshold:g}`: no component reaches it; kept are {len(eigenvalues)}, with correlations of "
            f"spots and neighbors of {np.round(eigenvalues, 3).tolist()}. They say next to nothing about the tissue: check "
            "the coordinates and the preparation.",
            UserWarning,
            stacklevel=3,
        )


def _write_loadings(
    adata: AnnData | MuData, named: Mapping[str, str], decoders: Mapping[str, np.ndarray], key: str
) -> None:
    """Loadings of the modalities whose features are variables."""
    owners = {name: adata.mod[name] if isinstance(adata, MuData) else adata for name in named}
    of_variables = [
        name for name, place in named.items() if place == "X" or (place in owners[name].layers and owners[name].n_vars)
    ]
    for name in of_variables:
        alone = isinstance(adata, MuData) or len(of_variables) == 1
        owners[name].varm[key if alone else f"{key}_{name}"] = np.ascontiguousarray(decoders[name].T)
