"""What the recipes share: reading counts, principal components, writing an embedding."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from anndata import AnnData
from scanpy import logging as logg
from scipy import sparse
from sklearn.decomposition import PCA

from stomics_tools._params import plain_params
from stomics_tools._validate import check_counts
from stomics_tools.data import expression_matrix


def read_counts(adata: AnnData, layer: str | None, *, integer: bool = False) -> tuple[sparse.csr_matrix, str]:
    """Return ``X`` or a layer as a CSR matrix, which may share the user's memory, and its name in messages.

    Raises ``KeyError`` if there is no such layer, ``ValueError`` if it is negative, not finite, or (`integer`)
    fractional.
    """
    values, where = expression_matrix(adata, layer)
    counts = sparse.csr_matrix(values)
    check_counts(counts, argument="layer", where=where, integer=integer)
    return counts, where


def warn_fractional(counts: sparse.csr_matrix, where: str) -> None:
    """Warn if counts are no whole numbers."""
    if counts.dtype.kind == "f" and (counts.data != np.floor(counts.data)).any():
        warnings.warn(
            f"`layer`: `{where}` holds fractional values, but this recipe is made for raw counts. "
            "Name the layer that holds them.",
            UserWarning,
            stacklevel=3,
        )


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
    """``scores`` ``(n_obs, k)``, ``loadings`` ``(n_features, k)``, ``variance`` and ``variance_ratio`` ``(k,)``."""

    scores: np.ndarray
    loadings: np.ndarray
    variance: np.ndarray
    variance_ratio: np.ndarray


def principal_components(x: sparse.csr_matrix, n_comps: int, *, scale: bool, seed: int) -> Components:
    """Principal components of `x` ``(n_obs, n_features)``, of its standardised columns if `scale`.

    A sparse matrix stays sparse: it is centred inside the solver, and division by the standard deviations leaves
    zeros as they are.
    """
    x = sparse.csr_matrix(x, dtype=np.float64)
    variance = _variance(x)
    if not variance.any():
        raise ValueError("`layer`: no feature varies between the spots, so that there are no components.")
    if scale:
        x = x @ sparse.diags(1 / np.sqrt(np.where(variance > 0, variance, 1.0)), format="csr")
    pca = PCA(n_comps, svd_solver="arpack", random_state=seed)
    scores = pca.fit_transform(x)
    return Components(scores, pca.components_.T, pca.explained_variance_, pca.explained_variance_ratio_)


def write_components(
    adata: AnnData, key: str, components: Components, features: np.ndarray, params: Mapping[str, Any]
) -> None:
    """Write scores to ``obsm``, loadings to ``varm`` (0 where `features` is false) and the rest to ``uns``."""
    loadings = np.zeros((adata.n_vars, components.loadings.shape[1]), dtype=np.float32)
    loadings[features] = components.loadings
    adata.obsm[key] = components.scores.astype(np.float32)
    adata.varm[key] = loadings
    adata.uns[key] = {
        "params": plain_params(params),
        "variance": components.variance,
        "variance_ratio": components.variance_ratio,
    }
