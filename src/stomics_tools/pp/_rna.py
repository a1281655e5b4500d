"""From RNA counts to principal components."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scanpy import logging as logg
from scipy import sparse

from stomics_tools import _keys
from stomics_tools._validate import (
    check_annotated,
    check_categories,
    check_integer,
    check_key,
    check_new_key,
    check_number,
)
from stomics_tools.data._feature_types import warn_of_kinds
from stomics_tools.data._recipe import Recipe, columns, log_normalise
from stomics_tools.pp._matrix import (
    cap_components,
    check_stated,
    check_whole,
    principal_components,
    read_counts,
    same_threads,
    warn_subset,
    write_components,
)
from stomics_tools.pp._reference import prepare_alike


def rna(
    adata: AnnData,
    *,
    layer: str | None = None,
    counts: bool | None = None,
    n_top_genes: int | None = 3000,
    batch_key: str | None = None,
    min_cells: int = 0,
    target_sum: float | None = None,
    scale: bool = False,
    n_comps: int = 50,
    seed: int = 0,
    reference: AnnData | Recipe | str | Path | None = None,
    key_added: str = _keys.PCA,
    copy: bool = False,
) -> AnnData | None:
    """Principal components of RNA counts: variable genes, normalisation, log1p, scaling, PCA.

    Counts and layers are left as they are. With `reference` nothing is fitted: genes, totals, means, scales and loadings
    are those of data prepared before, so that coordinates mean the same in both. A fit of its own gives every object
    axes of its own, which a model trained on other data cannot read.

    Parameters
    ----------
    adata
        Annotated data with raw counts of all genes; genes taken out before are missing from the totals.
    layer
        Layer of the counts. Default: ``X``; with `reference` the layer that it was fitted on, ``X`` or ``"counts"``,
        whichever holds counts first.
    counts
        True: the values are counts, also if they are not whole, such as counts corrected for background. By default whole,
        non-negative values are; others are met by a warning, and by an error where `reference` was fitted on counts.
    n_top_genes
        Genes to keep, those that vary most by ``flavor="seurat_v3"`` of :func:`scanpy.pp.highly_variable_genes`.
        All are kept if there are no more than that, or if this is ``None``.
    batch_key
        ``obs`` column of slices or patients: genes are then ranked in each of them by itself, and those that vary in
        most of them are kept, as :func:`scanpy.pp.highly_variable_genes` does.
    min_cells
        Leave out genes found in fewer spots, before anything else. Genes found nowhere are always left out.
    target_sum
        Total of every spot after normalisation. Totals are over all genes that `min_cells` leaves. Default: four times
        the median total of spots that have counts, so that ``log1p`` amounts to a logarithm with a pseudo-count of
        one quarter: with a total fixed beforehand, the pseudo-count and with it the noise of rare genes depends on the
        depth of sequencing (Ahlmann-Eltze and Huber, Nature Methods 2023).
    scale
        Divide each gene by its standard deviation, which gives rare genes, mostly noise, the weight of the others.
    n_comps
        Number of components; fewer if there are fewer spots or genes.
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
    The copy if `copy`, else ``None``. Written are:

    ``obsm[key_added]``
        Components, float32 ``(n_obs, n_comps)``.
    ``varm[key_added]``
        Loadings, 0 for genes not used.
    ``var["highly_variable"]``
        The genes used.
    ``uns[key_added]``
        ``params``; ``variance`` and ``variance_ratio`` of a fit; and ``recipe``, all that other data need to be prepared
        alike.

    Raises
    ------
    KeyError
        If a key is not there, or `reference` holds no recipe.
    ValueError
        For negative or infinite counts, or if nothing varies; with `reference` also for logarithms, if more than 5 % of
        its genes are missing or those missing had more than 5 % of its counts, and for arguments without effect.

    Warns
    -----
    UserWarning
        If the counts are not whole numbers, if genes seem to have been taken out before, or if a few genes of
        `reference` are missing.
    """
    check_annotated(adata, mudata=False)
    check_stated(counts)
    if reference is not None:
        given = {
            "n_top_genes": (n_top_genes, 3000),
            "batch_key": (batch_key, None),
            "min_cells": (min_cells, 0),
            "target_sum": (target_sum, None),
            "scale": (scale, False),
            "n_comps": (n_comps, 50),
            "seed": (seed, 0),
        }
        return prepare_alike(adata, "rna", reference, given, layer=layer, counts=counts, key_added=key_added, copy=copy)
    if n_top_genes is not None:
        check_integer(n_top_genes, argument="n_top_genes")
    check_integer(min_cells, argument="min_cells", minimum=0)
    check_integer(n_comps, argument="n_comps")
    if target_sum is not None:
        check_number(target_sum, argument="target_sum", low=0, open_low=True)
    check_new_key(key_added, argument="key_added")
    batch = None
    if batch_key is not None:
        if n_top_genes is None:
            raise ValueError("`batch_key` has no effect with `n_top_genes=None`: no genes are chosen. Leave it out.")
        check_key(batch_key, adata.obs, argument="batch_key", where="adata.obs")
        batch = check_categories(adata.obs[batch_key], argument="batch_key", where=f"adata.obs[{batch_key!r}]")[0]
    warn_of_kinds(adata.var, "rna")
    values, where = read_counts(adata, layer)
    whole = check_whole(values, adata, where, counts)
    if whole:
        warn_subset(values, adata, where)

    start = logg.info("computing components of RNA")
    genes = np.asarray((values > 0).sum(axis=0)).ravel() >= max(min_cells, 1)
    values = columns(values, np.flatnonzero(genes))
    variable = np.ones(values.shape[1], dtype=bool)
    if n_top_genes is not None and n_top_genes < len(variable):
        variable = highly_variable(values, n_top_genes, batch)
    n_comps = cap_components(n_comps, (adata.n_obs, int(variable.sum())))
    totals = np.asarray(values.sum(axis=1, dtype=np.float64)).ravel()
    if target_sum is None:
        target_sum = 4.0 * float(np.median(totals[totals > 0]))
    x = log_normalise(columns(values, np.flatnonzero(variable)), totals, target_sum)
    components = principal_components(x, n_comps, scale=scale, seed=seed)
    used = np.flatnonzero(genes)[variable]
    names = adata.var_names.astype(str)
    sums = np.asarray(values.sum(axis=0, dtype=np.float64)).ravel()
    recipe = Recipe(
        "rna",
        features=tuple(names[used]),
        loadings=np.asarray(components.loadings, dtype=np.float32),
        whole=whole,
        layer=layer,
        center=components.center,
        scale=components.scale,
        target_sum=float(target_sum),
        total_features=tuple(names[genes]),
        total_shares=sums / sums.sum(),
    )
    # The coordinates are those that the recipe gives, to the last bit, so that the same counts always have the same.
    components = replace(components, scores=recipe.project(x))

    adata = adata.copy() if copy else adata
    adata.var["highly_variable"] = np.isin(np.arange(adata.n_vars), used)
    params = {
        "recipe": "rna",
        "layer": layer,
        "n_top_genes": n_top_genes,
        "batch_key": batch_key,
        "min_cells": min_cells,
        "target_sum": target_sum,
        "scale": scale,
        "n_comps": n_comps,
        "seed": seed,
    }
    write_components(adata, key_added, components, used, params, recipe)
    logg.info(
        "    finished",
        time=start,
        deep=f"added\n    `obsm[{key_added!r}]`, `varm[{key_added!r}]`, `uns[{key_added!r}]`, `var['highly_variable']`",
    )
    return adata if copy else None


def highly_variable(counts: sparse.csr_matrix, n_top_genes: int, batch: np.ndarray | None = None) -> np.ndarray:
    """Mask ``(n_genes,)`` of the genes of highest standardised variance, given counts ``(n_obs, n_genes)``.

    With codes of slices ``(n_obs,)`` those of highest rank in most of them.
    """
    data = AnnData(counts)
    if batch is not None:
        data.obs["batch"] = pd.Categorical(batch)
    try:
        with same_threads():
            ranked = sc.pp.highly_variable_genes(
                data,
                flavor="seurat_v3",
                n_top_genes=n_top_genes,
                batch_key=None if batch is None else "batch",
                check_values=False,
                inplace=False,
            )
    except ValueError as error:  # the fit of variance on mean fails where too few genes have distinct means
        raise ValueError(
            f"`n_top_genes={n_top_genes}`: the variances of {counts.shape[1]} genes could not be modelled ({error}). "
            "Use all genes by `n_top_genes=None`, or leave rare ones out by `min_cells`."
        ) from error
    return ranked["highly_variable"].to_numpy()
