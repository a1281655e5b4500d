"""What the recipes share: reading counts, principal components, writing an embedding."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from scanpy import logging as logg
from scipy import sparse
from sklearn.decomposition import PCA
from threadpoolctl import ThreadpoolController

from stomics_tools._params import plain_params
from stomics_tools._validate import check_counts
from stomics_tools.data import expression_matrix
from stomics_tools.data._columns import part_of_transcriptome
from stomics_tools.data._log_counts import are_counts
from stomics_tools.data._origin import where_counts_are
from stomics_tools.data._recipe import ENTRY, Recipe

_CURE = " Name the layer that holds the raw counts."


def read_counts(adata: AnnData, layer: str | None, *, integer: bool = False) -> tuple[sparse.csr_matrix, str]:
    """Return ``X`` or a layer as a CSR matrix, which may share the user's memory, and its name in messages.

    Raises ``KeyError`` if there is no such layer, ``ValueError`` if it is negative, not finite, or (`integer`)
    fractional.
    """
    values, where = expression_matrix(adata, layer)
    counts = sparse.csr_matrix(values)
    try:
        check_counts(counts, argument="layer", where=where, integer=integer)
    except ValueError as error:
        raise ValueError(str(error).replace(_CURE, where_counts_are(adata))) from error
    return counts, where


def check_whole(values: sparse.csr_matrix, adata: AnnData, where: str, counts: bool | None) -> bool:
    """Whether counts are whole numbers; warns if they are not, unless the user says that they are `counts`."""
    whole = are_counts(values)
    if not whole and not counts:
        warnings.warn(
            f"`layer`: `{where}` holds fractional values, but this recipe is made for raw counts (`counts=True` for "
            f"corrected ones).{where_counts_are(adata)}",
            UserWarning,
            stacklevel=3,
        )
    return whole


def check_stated(counts: bool | None) -> None:
    """Raise unless `counts` is True or None: the recipes take nothing else."""
    if counts is not None and not isinstance(counts, bool | np.bool_):
        raise TypeError(f"`counts` must be True or None, found {counts!r}.")
    if counts is not None and not counts:
        raise ValueError(
            "`counts=False`: the recipes take counts. For components of values as they are use `scanpy.pp.pca`."
        )


def warn_subset(counts: sparse.csr_matrix, adata: AnnData, where: str) -> None:
    """Warn if genes were left out before, so that totals are over a part of the transcriptome."""
    seen = part_of_transcriptome(counts, adata, where)
    if seen is not None:
        warnings.warn(
            f"{seen}: totals are over the genes that are left, and depend on which these are. Prepare the data before "
            "genes are taken out: `st.pp.rna` selects variable genes itself, after the totals.",
            UserWarning,
            stacklevel=3,
        )


@contextmanager
def same_threads() -> Iterator[None]:
    """Give OpenMP back the number of threads that it had: numba raises it, and torch may share it.

    A library that was loaded within gets the number of the environment.
    """
    before = {lib.filepath: lib.num_threads for lib in ThreadpoolController().lib_controllers}
    usual = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    try:
        yield
    finally:
        for lib in ThreadpoolController().lib_controllers:
            threads = before.get(lib.filepath, int(usual) if usual.isdigit() else lib.num_threads)
            if lib.user_api == "openmp" and lib.num_threads != threads:
                lib.set_num_threads(threads)


def cap_components(n_comps: int, shape: tuple[int, int]) -> int:
    """Largest number of components up to `n_comps` that a matrix of this shape has; says so if it is less.

    Raises ``ValueError`` if that is none.
    """
    limit = min(shape) - 1
    if limit < 1:
        raise ValueError(
            f"`n_comps`: {shape[0]} observations of {shape[1]} usable features are too few, "
            "at least 2 of both are needed."
        )
    if n_comps > limit:
        logg.warning(f"`n_comps={n_comps}` exceeds what {shape[0]} x {shape[1]} values have; using {limit}.")
    return min(n_comps, limit)


def _variance(x: sparse.csr_matrix) -> np.ndarray:
    """Of each column, ``(n_features,)``, with ``n - 1`` in the denominator; exactly 0 where it is constant."""
    n = x.shape[0]
    mean = np.asarray(x.mean(axis=0)).ravel()
    square = np.asarray(x.multiply(x).mean(axis=0)).ravel()
    variance = (square - mean**2) * n / (n - 1)
    return np.where(variance > 1e-12 * square, variance, 0.0)


@dataclass(frozen=True)
class Components:
    """``scores`` ``(n_obs, k)``, ``loadings`` ``(n_features, k)``, ``variance`` and ``variance_ratio`` ``(k,)``.

    ``center`` and ``scale`` ``(n_features,)`` were taken out before. What was not fitted is None.
    """

    scores: np.ndarray
    loadings: np.ndarray | None
    variance: np.ndarray | None = None
    variance_ratio: np.ndarray | None = None
    center: np.ndarray | None = None
    scale: np.ndarray | None = None


def principal_components(x: sparse.csr_matrix, n_comps: int, *, scale: bool, seed: int) -> Components:
    """Principal components of `x` ``(n_obs, n_features)``, of its standardised columns if `scale`.

    A sparse matrix stays sparse: it is centred inside the solver, and division by the standard deviations leaves
    zeros as they are.
    """
    x = sparse.csr_matrix(x, dtype=np.float64)
    variance = _variance(x)
    if not variance.any():
        raise ValueError("`layer`: no feature varies between the spots, so that there are no components.")
    center = np.asarray(x.mean(axis=0)).ravel()
    divisor = np.sqrt(np.where(variance > 0, variance, 1.0)) if scale else np.ones(x.shape[1])
    if scale:
        x = x @ sparse.diags(1 / divisor, format="csr")
    pca = PCA(n_comps, svd_solver="arpack", random_state=seed)
    scores = pca.fit_transform(x)
    return Components(
        scores, pca.components_.T, pca.explained_variance_, pca.explained_variance_ratio_, center, divisor
    )


def write_components(
    adata: AnnData,
    key: str,
    components: Components,
    features: np.ndarray,
    params: Mapping[str, Any],
    recipe: Recipe | None = None,
) -> None:
    """Write scores to ``obsm``, loadings to ``varm`` and the rest to ``uns``.

    `features` is a mask or positions: the rows of ``varm`` that loadings belong to, 0 elsewhere. Names that repeat
    cannot be found again: then no recipe is kept, and the log says so.
    """
    entry: dict[str, Any] = {"params": plain_params(params)}
    if components.variance is not None:
        entry.update(variance=components.variance, variance_ratio=components.variance_ratio)
    if recipe is not None and adata.var_names.is_unique:
        entry[ENTRY] = recipe.entry()
    elif recipe is not None:
        logg.warning("`adata.var_names` repeat, so that no recipe is kept. Call `adata.var_names_make_unique()` first.")
    if components.loadings is not None:
        loadings = np.zeros((adata.n_vars, components.loadings.shape[1]), dtype=np.float32)
        loadings[features] = components.loadings
        adata.varm[key] = loadings
    adata.obsm[key] = components.scores.astype(np.float32)
    adata.uns[key] = entry
