"""From counts of open chromatin to latent semantic components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from anndata import AnnData
from scanpy import logging as logg
from sklearn.utils.extmath import randomized_svd

from stomics_tools import _keys
from stomics_tools._validate import check_annotated, check_integer, check_new_key
from stomics_tools.data._feature_types import warn_of_kinds
from stomics_tools.data._recipe import Recipe, columns, inverse_document_frequency, tf_idf
from stomics_tools.pp._matrix import (
    Components,
    cap_components,
    check_stated,
    check_whole,
    read_counts,
    write_components,
)
from stomics_tools.pp._reference import prepare_alike


def atac(
    adata: AnnData,
    *,
    layer: str | None = None,
    counts: bool | None = None,
    n_comps: int = 50,
    seed: int = 0,
    reference: AnnData | Recipe | str | Path | None = None,
    key_added: str = _keys.LSI,
    copy: bool = False,
) -> AnnData | None:
    """Latent semantic indexing of ATAC or other epigenome counts: TF-IDF, SVD, the first component dropped.

    The first component follows the depth of the spots. Counts and layers are left as they are. With `reference` nothing
    is fitted: peaks, their weights and loadings are those of data prepared before, so that coordinates mean the same in
    both.

    Parameters
    ----------
    adata
        Annotated data with counts of peaks or bins.
    layer
        Layer of the counts. Default: ``X``; with `reference` the layer that it was fitted on, ``X`` or ``"counts"``,
        whichever holds counts first.
    counts
        True: the values are counts, also if they are not whole, such as counts corrected for background. By default whole,
        non-negative values are; others are met by a warning, and by an error where `reference` was fitted on counts.
    n_comps
        Number of components that are kept; fewer if there are fewer spots or peaks.
    seed
        Of the randomised SVD.
    reference
        Data prepared by this function, under the same `key_added`, or a recipe (:func:`load_recipe`) or its file
        (:func:`save_recipe`). Arguments of the fit must then be left out.
    key_added
        Where results are written.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    The copy if `copy`, else ``None``. Written are ``obsm[key_added]`` (components, float32 ``(n_obs, n_comps)``) and
    ``uns[key_added]`` (``params``, and ``recipe``, all that other data need to be prepared alike).

    Raises
    ------
    KeyError
        If a key is not there, or `reference` holds no recipe.
    ValueError
        For negative or infinite counts, or if there are fewer than 2 spots or peaks; with `reference` also if more than
        5 % of its peaks are missing, and for arguments without effect.

    Warns
    -----
    UserWarning
        If a few peaks of `reference` are missing.
    """
    check_annotated(adata, mudata=False)
    check_stated(counts)
    if reference is not None:
        given = {"n_comps": (n_comps, 50), "seed": (seed, 0)}
        return prepare_alike(
            adata, "atac", reference, given, layer=layer, counts=counts, key_added=key_added, copy=copy
        )
    check_integer(n_comps, argument="n_comps")
    check_new_key(key_added, argument="key_added")
    warn_of_kinds(adata.var, "atac")
    values, where = read_counts(adata, layer)
    whole = check_whole(values, adata, where, counts)

    start = logg.info("computing components of chromatin")
    n_comps = cap_components(n_comps, adata.shape)
    idf = inverse_document_frequency(values)
    used = np.flatnonzero(idf)  # a peak without counts says nothing, here and in other data
    x = tf_idf(columns(values, used), idf[used])
    _, singular, vectors = randomized_svd(x, n_comps + 1, random_state=seed)
    recipe = Recipe(
        "atac",
        features=tuple(adata.var_names.astype(str)[used]),
        loadings=(vectors.T / np.where(singular > 0, singular, 1.0)).astype(np.float32),
        whole=whole,
        layer=layer,
        idf=idf[used],
    )
    adata = adata.copy() if copy else adata
    params = {"recipe": "atac", "layer": layer, "n_comps": n_comps, "seed": seed}
    write_components(adata, key_added, Components(recipe.project(x), None), used, params, recipe)
    logg.info("    finished", time=start, deep=f"added\n    `obsm[{key_added!r}]`, `uns[{key_added!r}]`")
    return adata if copy else None
