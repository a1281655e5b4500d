"""From RNA counts to principal components."""

from __future__ import annotations

import numpy as np
import scanpy as sc
from anndata import AnnData
from scanpy import logging as logg
from scipy import sparse

from stomics_tools import _keys
from stomics_tools._validate import check_integer, check_number
from stomics_tools.pp._matrix import (
    cap_components,
    principal_components,
    read_counts,
    warn_fractional,
    write_components,
)


def rna(
    adata: AnnData,
    *,
    layer: str | None = None,
    n_top_genes: int | None = 3000,
    min_cells: int = 0,
    target_sum: float | None = None,
    scale: bool = False,
    n_comps: int = 50,
    seed: int = 0,
    key_added: str = _keys.PCA,
    copy: bool = False,
) -> AnnData | None:
    """Principal components of RNA counts: variable genes, normalisation, log1p, scaling, PCA.

    Counts and layers are left as they are.

    Parameters
    ----------
    adata
        Annotated data with raw counts.
    layer
        Layer of the counts. Default: ``X``.
    n_top_genes
        Genes to keep, those that vary most by ``flavor="seurat_v3"`` of :func:`scanpy.pp.highly_variable_genes`.
        All are kept if there are no more than that, or if this is ``None``.
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
        ``params``, ``variance`` and ``variance_ratio``.

    Raises
    ------
    ValueError
        For negative or infinite counts, or if nothing varies.

    Warns
    -----
    UserWarning
        If the counts are not whole numbers.
    """
    if n_top_genes is not None:
        check_integer(n_top_genes, argument="n_top_genes")
    check_integer(min_cells, argument="min_cells", minimum=0)
    check_integer(n_comps, argument="n_comps")
    if target_sum is not None:
        check_number(target_sum, argument="target_sum", low=0, open_low=True)
    counts, where = read_counts(adata, layer)
    warn_fractional(counts, where)

    start = logg.info("computing components of RNA")
    genes = np.asarray((counts > 0).sum(axis=0)).ravel() >= max(min_cells, 1)
    if not genes.all():
        counts = counts[:, genes]
    variable = np.ones(counts.shape[1], dtype=bool)
    if n_top_genes is not None and n_top_genes < len(variable):
        variable = highly_variable(counts, n_top_genes)
    n_comps = cap_components(n_comps, (adata.n_obs, int(variable.sum())))
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    if target_sum is None:
        target_sum = 4.0 * float(np.median(totals[totals > 0]))
    components = principal_components(
        log_normalise(counts[:, variable], totals, target_sum), n_comps, scale=scale, seed=seed
    )
    used = np.zeros(adata.n_vars, dtype=bool)
    used[np.flatnonzero(genes)[variable]] = True

    adata = adata.copy() if copy else adata
    adata.var["highly_variable"] = used
    params = {
        "recipe": "rna",
        "layer": layer,
        "n_top_genes": n_top_genes,
        "min_cells": min_cells,
        "target_sum": target_sum,
        "scale": scale,
        "n_comps": n_comps,
        "seed": seed,
    }
    write_components(adata, key_added, components, used, params)
    logg.info(
        "    finished",
        time=start,
        deep=f"added\n    `obsm[{key_added!r}]`, `varm[{key_added!r}]`, `uns[{key_added!r}]`, `var['highly_variable']`",
    )
    return adata if copy else None


def highly_variable(counts: sparse.csr_matrix, n_top_genes: int) -> np.ndarray:
    """Mask ``(n_genes,)`` of the genes of highest standardised variance, given counts ``(n_obs, n_genes)``."""
    try:
        ranked = sc.pp.highly_variable_genes(
            AnnData(counts), flavor="seurat_v3", n_top_genes=n_top_genes, check_values=False, inplace=False
        )
    except ValueError as error:  # the fit of variance on mean fails where too few genes have distinct means
        raise ValueError(
            f"`n_top_genes={n_top_genes}`: the variances of {counts.shape[1]} genes could not be modelled ({error}). "
            "Use all genes by `n_top_genes=None`, or leave rare ones out by `min_cells`."
        ) from error
    return ranked["highly_variable"].to_numpy()


def log_normalise(counts: sparse.csr_matrix, totals: np.ndarray, target_sum: float) -> sparse.csr_matrix:
    """``log1p`` of counts ``(n_obs, n_genes)`` after division by the spots' `totals` ``(n_obs,)`` and times `target_sum`.

    A spot without counts stays all zero.
    """
    x = sparse.csr_matrix(counts, dtype=np.float64, copy=True)
    factors = target_sum / np.where(totals > 0, totals, 1.0)
    x.data *= np.repeat(factors, np.diff(x.indptr))
    return x.log1p()
