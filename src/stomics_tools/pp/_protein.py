"""From protein counts to principal components."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from anndata import AnnData
from scanpy import logging as logg

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_integer, check_new_key
from stomics_tools.data._feature_types import warn_of_kinds
from stomics_tools.data._recipe import Recipe, centred_log_ratio, columns
from stomics_tools.pp._matrix import (
    cap_components,
    check_stated,
    check_whole,
    principal_components,
    read_counts,
    write_components,
)
from stomics_tools.pp._reference import prepare_alike


def protein(
    adata: AnnData,
    *,
    layer: str | None = None,
    counts: bool | None = None,
    scale: bool = False,
    n_comps: int | None = None,
    seed: int = 0,
    reference: AnnData | Recipe | str | Path | None = None,
    key_added: str = _keys.PROTEIN,
    copy: bool = False,
) -> AnnData | None:
    """Principal components of protein counts: centred log ratio of each spot, scaling, PCA.

    Counts and layers are left as they are. With `reference` nothing is fitted: proteins, means, scales and loadings are
    those of data prepared before, so that coordinates mean the same in both.

    Parameters
    ----------
    adata
        Annotated data with raw counts.
    layer
        Layer of the counts. Default: ``X``; with `reference` the layer that it was fitted on, ``X`` or ``"counts"``,
        whichever holds counts first.
    counts
        True: the values are counts, also if they are not whole, such as counts corrected for background. By default whole,
        non-negative values are; others are met by a warning, and by an error where `reference` was fitted on counts.
    scale
        Divide each protein by its standard deviation.
    n_comps
        Number of components; fewer if there are fewer spots or proteins. Default: one less than there are proteins, at
        most 50.
    seed
        Start of the PCA solver.
    reference
        Data prepared by this function, under the same `key_added`, or a recipe (:func:`load_recipe`) or its file
        (:func:`save_recipe`). Arguments of the fit must then be left out.
    key_added
        Where results are written.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    The copy if `copy`, else ``None``. Written are ``obsm[key_added]`` (components, float32 ``(n_obs, n_comps)``),
    ``varm[key_added]`` (loadings) and ``uns[key_added]`` (``params``; ``variance`` and ``variance_ratio`` of a
    fit; and ``recipe``, all that other data need to be prepared alike).

    Raises
    ------
    KeyError
        If a key is not there, or `reference` holds no recipe.
    ValueError
        For negative or infinite counts, or if nothing varies; with `reference` also if more than one protein and more
        than 5 % of them are missing, and for arguments without effect.

    Warns
    -----
    UserWarning
        If a protein of `reference` is missing.
    """
    check_annotated(adata, mudata=False)
    check_stated(counts)
    if reference is not None:
        given = {"scale": (scale, False), "n_comps": (n_comps, None), "seed": (seed, 0)}
        return prepare_alike(
            adata, "protein", reference, given, layer=layer, counts=counts, key_added=key_added, copy=copy
        )
    if n_comps is not None:
        check_integer(n_comps, argument="n_comps")
    check_new_key(key_added, argument="key_added")
    warn_of_kinds(adata.var, "protein")
    values, where = read_counts(adata, layer)
    whole = check_whole(values, adata, where, counts)

    start = logg.info("computing components of proteins")
    n_comps = cap_components(min(50, *(n - 1 for n in adata.shape)) if n_comps is None else n_comps, adata.shape)
    x = centred_log_ratio(columns(values, np.arange(adata.n_vars)))
    components = principal_components(x, n_comps, scale=scale, seed=seed)
    recipe = Recipe(
        "protein",
        features=tuple(adata.var_names.astype(str)),
        loadings=np.asarray(components.loadings, dtype=np.float32),
        whole=whole,
        layer=layer,
        center=components.center,
        scale=components.scale,
    )
    components = replace(components, scores=recipe.project(x))
    adata = adata.copy() if copy else adata
    params = {"recipe": "protein", "layer": layer, "scale": scale, "n_comps": n_comps, "seed": seed}
    write_components(adata, key_added, components, np.arange(adata.n_vars), params, recipe)
    logg.info(
        "    finished",
        time=start,
        deep=f"added\n    `obsm[{key_added!r}]`, `varm[{key_added!r}]`, `uns[{key_added!r}]`",
    )
    return adata if copy else None
