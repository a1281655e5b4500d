"""Reading and checking of the spots of an AnnData or MuData."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from stomics_tools import _validate
from stomics_tools.data._columns import count_scale, named_columns, row_sums, totals_of_column, totals_over
from stomics_tools.data._log_counts import are_counts, check_same_total, check_same_unit, log_total
from stomics_tools.data._matrix import open_matrix, to_dense
from stomics_tools.data._origin import Origin, check_origin, find_counts, origin_of
from stomics_tools.data._recipe import Recipe
from stomics_tools.data._spots import Modality, Spots, SpotsSpec

logger = logging.getLogger("stomics_tools")


def read_spots(
    data: AnnData | MuData,
    spec: SpotsSpec,
    recipes: Mapping[str, Recipe] | None = None,
    *,
    learn: bool = True,
    opened: Mapping[str, Any] | None = None,
) -> Spots:
    """Read and check the spots of `data`; nothing is written to it. Matrices that were `opened` before are not again.

    A modality whose ``obsm`` key is not there is made of raw counts, if `recipes` has one for it. With `learn` there
    must be something to learn from: a modality that no spot has, or whose values are all the same, and modalities
    without a spot in common are refused. A trained model takes such data.

    Raises
    ------
    KeyError
        If a key of `spec` is not there (the message lists those that are).
    TypeError
        If `data` is neither AnnData nor MuData.
    ValueError
        If what lies there cannot be used: see :mod:`stomics_tools._validate`, and for modalities rows that are NaN
        in part, infinite values, no or only constant features, no spot at all, or no spot in common with the others.
    """
    if not isinstance(data, AnnData | MuData):
        raise TypeError(f"Expected AnnData or MuData, found {type(data).__name__}.")
    if not spec.modalities:
        raise ValueError("`modalities` is empty. Name at least one, for example {'rna': 'X_pca'}.")
    kind = "mdata" if isinstance(data, MuData) else "adata"
    _validate.check_obs_names(data.obs_names, where=kind)
    modalities = {
        name: _read_mudata_modality(data, name, key, spec, (recipes or {}).get(name), learn)
        if isinstance(data, MuData)
        else _read_modality(
            data, name, key, spec, (recipes or {}).get(name), learn, where="adata", opened=(opened or {}).get(name)
        )
        for name, key in spec.modalities.items()
    }
    if learn:
        _check_connected(modalities)
    batch, names = np.zeros(data.n_obs, dtype=np.int64), ["0"]
    if spec.batch_key is not None:
        column, where = find_column(data, spec.batch_key, kind)
        batch, names = _validate.check_slices(column, argument="batch_key", where=where)
    coordinates = read_coordinates(data, spec.spatial_key, kind, batch, names)
    graph_keys = dict(spec.feature_graph_keys or {})
    for name in graph_keys:
        _validate.check_option(name, list(spec.modalities), argument="feature_graph_keys")
    return Spots(
        modalities=modalities,
        coordinates=coordinates,
        batch=batch,
        batch_names=names,
        spatial_graph=None
        if spec.spatial_graph_key is None
        else _read_graph(data, spec.spatial_graph_key, batch, kind, "spatial_graph_key"),
        feature_graphs={
            name: _read_graph(data, key, batch, kind, "feature_graph_keys") for name, key in graph_keys.items()
        },
    )


def check_same_features(spots: Spots, state: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless `spots` have the modalities and features of a :meth:`Spots.state`."""
    expected = state["modalities"]
    if set(expected) != set(spots.modalities):
        raise ValueError(
            f"`modalities`: the model was set up with {sorted(expected)}, found {sorted(spots.modalities)}."
        )
    for name, modality in spots.modalities.items():
        check_origin(name, modality.origin, expected[name].get("origin"))
        n_features, names = expected[name]["n_features"], expected[name]["feature_names"]
        if modality.n_features != n_features:
            raise ValueError(
                f"Modality {name!r}: the model was set up with {n_features} features, found {modality.n_features}. "
                "Prepare it with the same steps as the data of training."
            )
        if names is not None and modality.names is not None and list(modality.names) != list(names):
            missing = sorted(set(names) - set(modality.names))[:3]
            what = f"without {missing}" if missing else "in another order"
            raise ValueError(
                f"Modality {name!r}: the features differ from those of setup ({what}). "
                "Subset or reorder them to the names of training."
            )
        check_same_unit(
            modality.values,
            counts=expected[name]["counts"],
            whole=expected[name]["whole"],
            argument=modality.argument,
            where=modality.place or name,
            found=modality.whole,
        )
        check_same_total(modality.log_total, expected[name].get("log_total"), where=modality.place or name)


def _read_modality(
    adata: AnnData,
    name: str,
    key: str,
    spec: SpotsSpec,
    recipe: Recipe | None,
    learn: bool,
    *,
    where: str,
    opened: Any = None,
) -> Modality:
    argument = "layer" if name in (spec.features or {}) else f"modalities[{name!r}]"  # genes are chosen of a layer
    in_obsm, in_layers = key in adata.obsm, key in adata.layers
    if in_obsm + in_layers + (key == "X") > 1:
        places = [p for p, there in (("obsm", in_obsm), ("layers", in_layers), ("X", key == "X")) if there]
        raise ValueError(f"`{argument}`: {key!r} is in more than one of {places} of `{where}`. Rename one of them.")
    if not (in_obsm or in_layers or key == "X"):
        if recipe is not None:
            return _prepared(adata, name, key, recipe, where)
        _validate.check_key(
            key, ["X", *adata.obsm, *adata.layers], argument=argument, where=f"{where}.X, .obsm and .layers"
        )
    place = f"{where}.X" if key == "X" else f"{where}.{'obsm' if in_obsm else 'layers'}[{key!r}]"
    raw = adata.obsm[key] if in_obsm else adata.layers[key] if in_layers else adata.X
    names = None if in_obsm else tuple(adata.var_names.astype(str))
    if hasattr(raw, "columns"):  # a table, in memory or lazy
        names = tuple(map(str, raw.columns))
    total, wanted = (spec.totals or {}).get(name), (spec.features or {}).get(name)
    if not learn and adata.n_obs == 0 and raw is not None:  # no spot of a slice has this modality
        names = names if wanted is None else tuple(wanted)
        n_features = raw.shape[1] if names is None else len(names)
        nothing = np.zeros((0, n_features), dtype=np.float32)
        return Modality(
            nothing, np.zeros(0, dtype=bool), names, whole=True, counts=total is not None, argument=argument
        )
    raw = open_matrix(raw, argument=argument, where=place) if opened is None else opened
    everything, all_names = raw, names
    if wanted is not None:
        raw, names = named_columns(raw, names, wanted, argument=argument, where=place), tuple(wanted)
    shares, totals = (spec.total_genes or {}).get(name), None
    if spec.total_key is not None:
        totals = totals_of_column(adata, spec.total_key, raw, argument="total_key", where=where)
    elif shares is not None and all_names is not None:
        totals = totals_over(everything, all_names, shares, argument=argument, where=place)
    scale = None
    if total is not None:
        totals = row_sums(everything) if totals is None else totals
        scale = count_scale(everything, total, totals, argument=argument, where=place)
    whole = are_counts(raw)
    values = to_dense(raw)  # a copy: the user's array is not ours to fill
    if scale is not None:
        values *= scale[:, None]
        np.log1p(values, out=values)
    present = _find_present(values, argument, place, learn)
    values[~present] = 0.0
    if learn and (values[present] == values[present][:1]).all():
        raise ValueError(
            f"`{argument}`: `{place}` is constant (every spot has the same values). "
            "Leave this modality out or name another array."
        )
    origin = origin_of(adata, key, everything, argument=argument, where=where) if in_obsm else None
    logarithms = None if in_obsm or whole or total is not None else log_total(everything)
    return Modality(values, present, names, whole, total is not None, origin, logarithms, argument, place)


def _prepared(adata: AnnData, name: str, key: str, recipe: Recipe, where: str) -> Modality:
    """A modality whose array is not there, made of raw counts by the recipe that made the data of training."""
    argument = f"modalities[{name!r}]"
    origin = Origin(key, {}, recipe)
    if adata.n_obs == 0:  # no spot of a slice has this modality
        return Modality(np.zeros((0, recipe.n_comps), np.float32), np.zeros(0, dtype=bool), None, origin=origin)
    try:
        counts, place = find_counts(adata, None, recipe, argument=argument, where=where)
    except ValueError as error:
        raise ValueError(f"{error} Or store what the model takes in `{where}.obsm[{key!r}]`.") from error
    logger.info("`%s.obsm[%r]` is not there: `%s` is prepared like the data of training.", where, key, place)
    values = recipe.transform(counts, adata.var_names, argument=argument, where=place)
    present = np.ones(len(values), dtype=bool)
    return Modality(values, present, None, origin=origin)


def _find_present(values: np.ndarray, argument: str, place: str, learn: bool) -> np.ndarray:
    """Rows that were measured; a row of NaN alone was not."""
    nan = np.isnan(values)
    absent = nan.all(axis=1)
    partly = nan.any(axis=1) & ~absent
    if partly.any():
        raise ValueError(
            f"`{argument}`: {int(partly.sum())} rows of `{place}` are NaN in part (first: row "
            f"{int(np.flatnonzero(partly)[0])}). Impute these values, or set the whole row to NaN if the modality "
            "was not measured in that spot."
        )
    _validate.check_finite(values[~absent], argument=argument, where=place)
    if learn and absent.all():
        raise ValueError(f"`{argument}`: `{place}` holds no spot that was measured. Leave this modality out.")
    return ~absent


def _read_mudata_modality(
    mdata: MuData, name: str, key: str, spec: SpotsSpec, recipe: Recipe | None, learn: bool
) -> Modality:
    _validate.check_key(name, mdata.mod, argument="modalities", where="mdata.mod")
    rows, there = _rows_in_modality(mdata, name)
    own = _read_modality(mdata.mod[name], name, key, spec, recipe, learn, where=f"mdata[{name!r}]")
    values = np.zeros((mdata.n_obs, own.n_features), dtype=np.float32)
    present = np.zeros(mdata.n_obs, dtype=bool)
    values[there], present[there] = own.values[rows], own.present[rows]
    return replace(own, values=values, present=present)


def _rows_in_modality(mdata: MuData, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the modality, and the mask of the spots of `mdata` that they belong to.

    Both are found by name: ``mdata.obsmap`` holds the rows at the time of the last ``mdata.update()``.
    """
    own = mdata.mod[name].obs_names
    _validate.check_obs_names(own, where=f"mdata[{name!r}]")
    strangers = own[~own.isin(mdata.obs_names)]
    if len(strangers):
        raise ValueError(
            f"Modality {name!r} changed since the MuData was made: {len(strangers)} of its spots are not in "
            f"`mdata.obs_names` (first: {strangers[0]!r}). Call `mdata.update()` first."
        )
    position = own.get_indexer(mdata.obs_names)  # -1: absent
    there = position >= 0
    return position[there], there


def _check_connected(modalities: Mapping[str, Modality]) -> None:
    """Every modality must share spots with the others, directly or through a third one."""
    names = list(modalities)
    reached, frontier = {names[0]}, [names[0]]
    while frontier:
        current = modalities[frontier.pop()].present
        for name in set(names) - reached:
            if (current & modalities[name].present).any():
                reached.add(name)
                frontier.append(name)
    if len(reached) < len(names):
        raise ValueError(
            f"`modalities`: {sorted(set(names) - reached)} share no spot with {sorted(reached)}. "
            "Modalities are joined by observation names: check that they agree, or train separate models."
        )


def read_coordinates(
    data: AnnData | MuData, key: str, kind: str, batch: np.ndarray, batch_names: list[str]
) -> np.ndarray:
    """Coordinates ``(n_obs, 2 or 3)``, of the object itself or as its modalities agree on them."""
    if key in data.obsm or isinstance(data, AnnData):
        _validate.check_key(key, data.obsm, argument="spatial_key", where=f"{kind}.obsm")
        values, where = data.obsm[key], f"{kind}.obsm[{key!r}]"
    else:
        values, where = _join_coordinates(data, key), f"mdata.mod[...].obsm[{key!r}]"
    return _validate.check_coordinates(
        values, argument="spatial_key", where=where, batch=batch, batch_names=batch_names
    )


def _join_coordinates(data: MuData, key: str) -> np.ndarray:
    """Coordinates that the modalities hold, where they agree."""
    owners = [name for name, mod in data.mod.items() if key in mod.obsm]
    if not owners:
        keys = [*data.obsm, *(f"{name}: {k}" for name, mod in data.mod.items() for k in mod.obsm)]
        _validate.check_key(key, keys, argument="spatial_key", where="mdata.obsm and its modalities")
    joined = np.full((data.n_obs, 0), np.nan)
    for name in owners:
        where = f"mdata[{name!r}].obsm[{key!r}]"
        own = _validate.check_coordinates(data.mod[name].obsm[key], argument="spatial_key", where=where)
        if not joined.shape[1]:
            joined = np.full((data.n_obs, own.shape[1]), np.nan)
        rows, there = _rows_in_modality(data, name)
        known = there & np.isfinite(joined).all(axis=1)
        if own.shape[1] != joined.shape[1] or not np.array_equal(joined[known], own[rows][known[there]]):
            raise ValueError(
                f"`spatial_key`: the coordinates of `{where}` differ from those of {owners[0]!r} in spots that both "
                f"hold. Set `mdata.obsm[{key!r}]` to the ones to be used."
            )
        joined[there] = own[rows]
    if not np.isfinite(joined).all():
        raise ValueError(
            f"`spatial_key`: {int((~np.isfinite(joined).all(axis=1)).sum())} spots have coordinates in no modality. "
            f"Set `mdata.obsm[{key!r}]` for all spots."
        )
    return joined


def find_column(data: AnnData | MuData, key: str, kind: str, *, argument: str = "batch_key") -> tuple[pd.Series, str]:
    """The column of `obs`, of the object itself or as its modalities agree on it."""
    if key in data.obs or isinstance(data, AnnData):
        _validate.check_key(key, data.obs, argument=argument, where=f"{kind}.obs")
        return data.obs[key], f"{kind}.obs[{key!r}]"
    owners = [name for name, mod in data.mod.items() if key in mod.obs]
    if not owners:
        keys = [*data.obs, *(f"{name}: {k}" for name, mod in data.mod.items() for k in mod.obs)]
        _validate.check_key(key, keys, argument=argument, where="mdata.obs and its modalities")
    joined = np.full(data.n_obs, None, dtype=object)
    for name in owners:
        rows, there = _rows_in_modality(data, name)
        own = data.mod[name].obs[key].astype(object).to_numpy()[rows]
        known = pd.notna(joined[there])
        if (joined[there][known].astype(str) != own[known].astype(str)).any():
            raise ValueError(
                f"`{argument}`: `mdata[{name!r}].obs[{key!r}]` differs from that of {owners[0]!r} in spots that both "
                f"hold. Set `mdata.obs[{key!r}]` to the one to be used."
            )
        joined[there] = own
    return pd.Series(joined, index=data.obs_names), f"mdata.mod[...].obs[{key!r}]"


def _check_no_distances(data: AnnData | MuData, key: str, argument: str, where: str) -> None:
    """Distances are no weights: the farther a spot, the more it would count."""
    entries = [entry for entry in data.uns.values() if isinstance(entry, Mapping) and entry.get("distances_key") == key]
    if key.endswith("distances") or entries:
        beside = next(iter(entries), {}).get("connectivities_key", key.replace("distances", "connectivities"))
        raise ValueError(
            f"`{argument}`: `{where}` holds distances, which grow where weights fall. "
            f"Name the connectivities, {beside!r} as a rule."
        )


def _read_graph(data: AnnData | MuData, key: str, batch: np.ndarray, kind: str, argument: str) -> sparse.csr_matrix:
    where = f"{kind}.obsp[{key!r}]"
    _validate.check_key(key, data.obsp, argument=argument, where=f"{kind}.obsp")
    _check_no_distances(data, key, argument, where)
    graph = sparse.csr_matrix(open_matrix(data.obsp[key], argument=argument, where=where), dtype=np.float64)
    _validate.check_finite(graph, argument=argument, where=where)
    if graph.nnz and graph.data.min() < 0:
        raise ValueError(f"`{argument}`: `{where}` has negative weights (minimum {graph.data.min():g}).")
    edges = graph.tocoo()
    n_between = int((batch[edges.row] != batch[edges.col]).sum())
    if n_between:
        raise ValueError(
            f"`{argument}`: {n_between} edges of `{where}` join different batches. Build it within each slice "
            "(squidpy's `library_key`)."
        )
    return graph
