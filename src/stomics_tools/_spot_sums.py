"""Sums over spots and over their neighbors, some thousand rows at a time: float32 data, float64 sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse
from scipy.linalg import eigh
from sklearn.utils.extmath import randomized_svd

_ROWS = 8192  # taken at a time
_MAX_FEATURES = 256  # a modality of more is reduced to its leading components first
_N_REDUCED = 100
_MAX_SQUARE = 4096  # features up to which these come of the covariance


def chunks(n_obs: int) -> Iterator[slice]:
    """Consecutive rows, some thousand at a time."""
    return (slice(first, min(first + _ROWS, n_obs)) for first in range(0, n_obs, _ROWS))


def mean_row(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Mean of some rows of `x` ``(n_obs, width)``, float64 ``(width,)``; zero of none."""
    total = np.zeros(x.shape[1])
    for part in chunks(len(rows)):
        total += x[rows[part]].sum(axis=0, dtype=np.float64)
    return total / max(len(rows), 1)


def slice_centers(
    values: np.ndarray, present: np.ndarray, batch: np.ndarray, center: np.ndarray, *, by_slice: bool
) -> np.ndarray:
    """What to subtract from the spots of each slice, float64 ``(n_slices, n_features)``.

    The mean of its measured spots if `by_slice`; else, and where none was measured, the common `center`.
    """
    centers = np.tile(center, (int(batch.max()) + 1, 1))
    if by_slice:
        rows = np.flatnonzero(present)
        rows = rows[np.argsort(batch[rows], kind="stable")]
        codes, starts = np.unique(batch[rows], return_index=True)
        for code, first, last in zip(codes, starts, [*starts[1:], len(rows)], strict=False):
            centers[code] = mean_row(values, rows[first:last])
    return centers


def standardized(
    values: np.ndarray, present: np.ndarray, batch: np.ndarray, centers: np.ndarray, scale: float
) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows and their values less the center of their slice and over `scale`, float64, zero where missing."""
    for rows in chunks(len(values)):
        x = (values[rows].astype(np.float64) - centers[batch[rows]]) / scale
        x[~present[rows]] = 0.0
        yield rows, x


def root_mean_square(values: np.ndarray, present: np.ndarray, batch: np.ndarray, centers: np.ndarray) -> float:
    """Root of the mean square of all centered values of the spots that have the modality; 1 where they do not vary."""
    total = sum(np.square(x).sum() for _, x in standardized(values, present, batch, centers, 1.0))
    return float(np.sqrt(total / max(int(present.sum()) * values.shape[1], 1))) or 1.0


def projected(
    values: np.ndarray,
    present: np.ndarray,
    batch: np.ndarray,
    centers: np.ndarray,
    scale: float,
    basis: np.ndarray | None,
) -> np.ndarray:
    """Standardized values times `basis` (None: as they are), float32."""
    width = values.shape[1] if basis is None else basis.shape[1]
    result = np.empty((len(values), width), dtype=np.float32)
    for rows, x in standardized(values, present, batch, centers, scale):
        result[rows] = x if basis is None else x @ basis
    return result


def leading_axes(
    values: np.ndarray, present: np.ndarray, batch: np.ndarray, centers: np.ndarray, scale: float
) -> np.ndarray | None:
    """Leading components ``(n_features, n)`` of a modality of many features; None for one of few."""
    n_features = values.shape[1]
    if n_features <= _MAX_FEATURES:
        return None
    if n_features <= _MAX_SQUARE:
        square = np.zeros((n_features, n_features))
        for _, x in standardized(values, present, batch, centers, scale):
            x = x.astype(np.float32)
            square += x.T @ x
        return eigh(square, subset_by_index=[n_features - _N_REDUCED, n_features - 1])[1][:, ::-1]
    x = np.concatenate([x.astype(np.float32) for _, x in standardized(values, present, batch, centers, scale)])
    return randomized_svd(x, min(_N_REDUCED, len(x)), random_state=0)[2].T.astype(np.float64)


def ring_means(ring: sparse.csr_matrix, x: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of `x` ``(n_obs, width)``, zero where not present, over the present spots of each row of `ring`.

    Returns
    -------
    The means ``(n_rows, width)``, zero where there is no such spot, and whether there is one ``(n_rows,)``.
    """
    count = ring @ present.astype(np.float32)
    means = ring @ x
    means /= np.maximum(count, 1)[:, None]
    return means, count > 0


def predictors(
    own: Sequence[np.ndarray], present: Sequence[np.ndarray], rings: Sequence[sparse.csr_matrix]
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Rows, means of each modality over their rings ``(M H, n_rows, d)``, and whether there are any ``(M H, n_rows)``."""
    for rows in chunks(len(own[0])):
        parts = [ring[rows] for ring in rings]
        found = [ring_means(part, x, there) for x, there in zip(own, present, strict=True) for part in parts]
        yield rows, np.stack([means for means, _ in found]), np.stack([known for _, known in found])


def covariances(
    x: Sequence[np.ndarray], present: Sequence[np.ndarray], ring: sparse.csr_matrix, complete: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Second moments of the complete spots, and of those with the mean of their neighbors made symmetric, float64.

    A spot without neighbors agrees with nothing: it adds to the first alone.
    """
    width = sum(part.shape[1] for part in x)
    spread, common = np.zeros((width, width)), np.zeros((width, width))
    for rows in chunks(len(complete)):
        part, kept = ring[rows], complete[rows]
        means = [ring_means(part, own, there)[0][kept] for own, there in zip(x, present, strict=True)]
        own = np.hstack([part[rows][kept] for part in x]).astype(np.float64)
        spread += own.T @ own
        common += own.T @ np.hstack(means).astype(np.float64)
    n = complete.sum()
    return spread / n, (common + common.T) / (2 * n)


def moments(
    own: Sequence[np.ndarray], present: Sequence[np.ndarray], rings: Sequence[sparse.csr_matrix], complete: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means over the complete spots, float64.

    Returns
    -------
    The squares of the components ``(d,)``, the products of the predictors ``(p, p, d)`` and of both ``(p, d)``; and which
    part of the spots has each predictor ``(p,)``.
    """
    n_predictors, width = len(own) * len(rings), own[0].shape[1]
    variance, share = np.zeros(width), np.zeros(n_predictors)
    gram, target = np.zeros((n_predictors, n_predictors, width)), np.zeros((n_predictors, width))
    for rows, means, known in predictors(own, present, rings):
        kept = complete[rows]
        x = means[:, kept].astype(np.float64)
        y = np.sum([part[rows][kept] for part in own], axis=0, dtype=np.float64)
        variance += np.square(y).sum(axis=0)
        target += np.einsum("pnd,nd->pd", x, y)
        share += known[:, kept].sum(axis=1)
        for i in range(n_predictors):
            for j in range(i + 1):
                gram[i, j] += np.einsum("nd,nd->d", x[i], x[j])
    for i in range(n_predictors):
        gram[:i, i] = gram[i, :i]
    n = complete.sum()
    return variance / n, gram / n, target / n, share / n
