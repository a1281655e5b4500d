"""The representation that a modality enters the model with: one that is there, or the recipe that fits the values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from stomics_tools import _keys, pp
from stomics_tools._compat import columns_as_given
from stomics_tools._validate import check_key, check_new_key
from stomics_tools.cli._features import Report, check_measured, kinds_apart
from stomics_tools.data import are_counts, decide_counts, expression_matrix
from stomics_tools.data._feature_types import Kind, feature_kinds, kind_of_modality
from stomics_tools.pp._matrix import cap_components, principal_components, write_components

READY: dict[Kind, str] = {"rna": _keys.PCA, "protein": _keys.PROTEIN, "atac": _keys.LSI}
_RECIPES: dict[Kind, Callable[..., Any]] = {"rna": pp.rna, "protein": pp.protein, "atac": pp.atac}
_INTERVAL = r"^\w+[:_-]\d+[_-]\d+$"
_PANEL_SIZE, _PANEL_DENSITY = 150, 0.8
"""A panel of antibodies is small, and nearly all of its counts are above zero."""


def as_mudata(data: AnnData | MuData, modality: Kind | None, *, report: Report = lambda line: None) -> MuData:
    """The modalities of an AnnData as a MuData; a MuData is returned as it is.

    An AnnData with several ready representations has a modality for each, one with features of several kinds, as Cell
    Ranger, Space Ranger and Xenium write them, a modality for each kind, and any other has one modality, called
    `modality` if given. `report` receives a line on feature types that are taken together.
    """
    if isinstance(data, MuData):
        return data
    ready = {kind: key for kind, key in READY.items() if key in data.obsm}
    mods: dict[str, AnnData]
    if modality is not None:
        mods = {modality: data}
    elif len(ready) > 1:
        mods = {kind: AnnData(obs=data.obs[[]], obsm={key: data.obsm[key]}) for kind, key in ready.items()}
        mods[next(iter(ready))] = data
    else:
        apart: dict[str, AnnData] = {str(kind): part for kind, part in kinds_apart(data, report).items()}
        mods = apart or {next(iter(ready), None) or _guess_kind(data): data}
    with columns_as_given():
        return MuData(mods)


def prepare(name: str, adata: AnnData, *, seed: int, counts: bool | None = None) -> tuple[str, str]:
    """Make the representation of one modality unless it is there.

    Returns its ``obsm`` key and one line on what was done.

    Raises
    ------
    ValueError
        If nothing can be made of it; the message names the modality.
    """
    kind = kind_of_modality(name) or _guess_kind(adata)
    key = READY[kind]
    if key in adata.obsm:
        return key, f"{name}: obsm[{key!r}] as it is"
    layer = "counts" if "counts" in adata.layers else None
    if layer is None and adata.X is None:
        raise ValueError(
            f"Modality {name!r} has no `X`, no layer 'counts' and no `obsm` key {key!r}. Store its counts or one of these."
        )
    values, where = expression_matrix(adata, layer)
    check_measured(adata, name, values)
    try:
        if decide_counts(values, counts, argument="layer", where=where):
            _RECIPES[kind](adata, layer=layer, counts=counts, seed=seed, key_added=key)
            how = f"recipe pp.{kind} on counts"
        else:
            _scaled_components(adata, key, values, seed=seed)
            how = "no counts: scaled, PCA"
    except ValueError as error:
        raise ValueError(f"Modality {name!r} cannot be prepared. {error}") from error
    return key, f"{name}: {how}, {adata.obsm[key].shape[1]} components"


def _guess_kind(adata: AnnData) -> Kind:
    told = feature_kinds(adata.var).found
    if told:
        return told[0]
    if adata.n_vars and adata.var_names.str.match(_INTERVAL).mean() > 0.9:
        return "atac"
    if 0 < adata.n_vars <= _PANEL_SIZE and adata.X is not None:
        values, _ = expression_matrix(adata, None)
        if are_counts(values):
            filled = values.count_nonzero() if sparse.issparse(values) else np.count_nonzero(values)
            return "protein" if filled > _PANEL_DENSITY * adata.n_obs * adata.n_vars else "rna"
    return "rna"


def _scaled_components(adata: AnnData, key: str, values: Any, *, seed: int) -> None:
    """Principal components of standardised values, written as the recipes write theirs."""
    n_comps = cap_components(min(50, *(n - 1 for n in adata.shape)), adata.shape)
    components = principal_components(sparse.csr_matrix(values), n_comps, scale=True, seed=seed)
    params = {"recipe": "scaled", "n_comps": n_comps, "seed": seed}
    write_components(adata, key, components, np.ones(adata.n_vars, dtype=bool), params)


def representations(
    data: AnnData | MuData,
    modality: Kind | None,
    named: list[str] | None,
    *,
    seed: int,
    report: Report,
    counts: bool | None = None,
) -> dict[str, str]:
    """The ``obsm`` key of each modality, made where it is not there.

    Parameters
    ----------
    data
        The slice. Of an AnnData with several modalities, each gets a key in the AnnData itself.
    modality
        What an AnnData holds, if it is to be one modality.
    named
        ``NAME`` or ``NAME=KEY`` of the modalities that are wanted; those with a key are taken as they are. Default:
        all.
    seed
        Seed of the recipes.
    report
        Receives a line on each modality that was prepared.
    counts
        Whether the values are counts. Default: whole, non-negative values are.

    Raises
    ------
    ValueError
        If a name has a slash, two modalities would use one key, or one cannot be prepared.
    """
    parts = as_mudata(data, modality, report=report).mod
    keys: dict[str, str] = {}
    for name, _, key in (item.partition("=") for item in named or parts):
        check_new_key(name, argument="modalities")
        if not key:
            check_key(name, parts, argument="modalities", where="the modalities of the data")
            key, how = prepare(name, parts[name], seed=seed, counts=counts)
            report(how)
            if isinstance(data, AnnData) and parts[name] is not data:
                data.obsm[key] = parts[name].obsm[key]
                if key in parts[name].uns:  # the recipe, by which other data can be prepared
                    data.uns[key] = parts[name].uns[key]
        if key in keys.values() and isinstance(data, AnnData):
            raise ValueError(
                f"Modalities {next(n for n, k in keys.items() if k == key)!r} and {name!r} would both use obsm[{key!r}]. "
                "Prepare them in Python and name their keys by `--modalities NAME=KEY ...`, or write an h5mu file."
            )
        keys[name] = key
    return keys
