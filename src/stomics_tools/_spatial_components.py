"""Spatial components: directions along which neighbors predict a spot, in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.linalg import eigh

from stomics_tools._spot_sums import (
    chunks,
    covariances,
    leading_axes,
    mean_row,
    moments,
    predictors,
    projected,
    root_mean_square,
    slice_centers,
)

_MIN_COMPLETE = 50  # spots with every modality; where there are fewer, all spots are taken
_RIDGE = 1e-4  # of the regression, in units of the mean variance of the predictors
_RANK = 1e-6  # directions of less variance than this share of the largest are left out


@dataclass(frozen=True, eq=False)
class SpatialComponents:
    """A fit of `d` components to `M` modalities over `H` rings, the most predictable component first.

    Parameters
    ----------
    encoders
        Standardized features to components, float32 ``(n_features, d)`` a modality. Over the spots of the fit, the sum over
        the modalities has variance 1 in every component.
    decoders
        Components to standardized features, float32 ``(d, n_features)`` a modality.
    centers
        Mean of each feature over the spots of the fit, float64 ``(n_features,)`` a modality.
    scales
        Divisor of each modality, float64 ``(M,)``: root mean square of its centered features.
    center_slices
        Whether each slice is centered by its own means, also one that is not of the fit; else all by `centers`.
    eigenvalues
        Correlation of a spot with the mean of its nearest spots along each component, float64 ``(d,)``.
    hop_weights
        Weight of the mean of each modality over each ring in the prediction of a spot, float64 ``(M, H, d)``.
    self_weights
        Weight of a spot's own deviation from that prediction, from 0 to 1, float64 ``(d,)``.
    noise
        Variance that a spot shares with no other, float64 ``(d,)``; the total is `variance`.
    variance
        Second moment of the components over the spots of the fit, float64 ``(d,)``: 1 up to rounding.
    gram, target
        Products of the predictors among themselves, float64 ``(M H, M H, d)``, and with the components, ``(M H, d)``: the
        means of each modality over its rings. They give the weights where some of the predictors are missing.
    """

    encoders: list[np.ndarray]
    decoders: list[np.ndarray]
    centers: list[np.ndarray]
    scales: np.ndarray
    center_slices: bool
    eigenvalues: np.ndarray
    hop_weights: np.ndarray
    self_weights: np.ndarray
    noise: np.ndarray
    variance: np.ndarray
    gram: np.ndarray
    target: np.ndarray

    @property
    def n_components(self) -> int:
        """Number of components."""
        return len(self.eigenvalues)

    def transform(
        self,
        values: Sequence[np.ndarray],
        present: Sequence[np.ndarray],
        rings: Sequence[sparse.csr_matrix],
        batch: np.ndarray,
    ) -> np.ndarray:
        """Components of spots: what their neighbors predict, corrected by their own values.

        Where a modality is missing, the prediction takes the place of the own values. A slice has the same rows alone and
        beside others. Parameters are those of :func:`fit_spatial_components`.

        Returns
        -------
        float32 ``(n_obs, d)``.
        """
        own = self.own_values(values, present, batch)
        predicted, self_weights = self.predict(own, present, rings)
        # What each modality contributes to the components, as the prediction has it.
        expected = [
            decoder.astype(np.float64) @ encoder for decoder, encoder in zip(self.decoders, self.encoders, strict=True)
        ]
        for rows in chunks(len(batch)):
            deviation = -predicted[rows].astype(np.float64)
            for y, there, share in zip(own, present, expected, strict=True):
                deviation += np.where(there[rows, None], y[rows], predicted[rows] @ share)
            predicted[rows] += self_weights[rows] * deviation
        return predicted

    def own_values(
        self, values: Sequence[np.ndarray], present: Sequence[np.ndarray], batch: np.ndarray
    ) -> list[np.ndarray]:
        """Values of spots along the components, without any neighbor: float32 ``(n_obs, d)`` a modality, zero where missing."""
        centers = [
            slice_centers(x, there, batch, center, by_slice=self.center_slices)
            for x, there, center in zip(values, present, self.centers, strict=True)
        ]
        return [
            projected(x, there, batch, center, scale, encoder)
            for x, there, center, scale, encoder in zip(
                values, present, centers, self.scales, self.encoders, strict=True
            )
        ]

    def predict(
        self, own: Sequence[np.ndarray], present: Sequence[np.ndarray], rings: Sequence[sparse.csr_matrix]
    ) -> tuple[np.ndarray, np.ndarray]:
        """What its neighbors alone predict of each spot.

        Spots of which some rings are empty, or hold a modality in no spot, are predicted by what there is: by the weights
        that the regression on it alone would have.

        Parameters
        ----------
        own
            What :meth:`own_values` returns.
        present, rings
            See :func:`fit_spatial_components`.

        Returns
        -------
        Prediction, and self weight by what it was made of: float32 ``(n_obs, d)`` each.
        """
        full = self.hop_weights.reshape(len(self.target), -1).astype(np.float32)
        predicted = np.empty((len(own[0]), self.n_components), dtype=np.float32)
        self_weights = np.empty_like(predicted)
        for rows, means, known in predictors(own, present, rings):
            predicted[rows] = np.einsum("pnd,pd->nd", means, full)
            self_weights[rows] = self.self_weights
            partial = np.flatnonzero(~known.all(axis=0))
            patterns, which = np.unique(known[:, partial], axis=1, return_inverse=True)
            for number, pattern in enumerate(patterns.T):
                spots = partial[which.ravel() == number]
                weights, own_weights = self._weights_of(pattern)
                found = np.einsum("pnd,pd->nd", means[pattern][:, spots], weights.astype(np.float32))
                predicted[rows.start + spots], self_weights[rows.start + spots] = found, own_weights
        return predicted, self_weights

    def _weights_of(self, pattern: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights ``(n, d)`` of the predictors of which the mask `pattern` ``(M H,)`` is true, and self weights ``(d,)``."""
        gram, target = self.gram[np.ix_(pattern, pattern)], self.target[pattern]
        weights = _solve(gram, target)
        return weights, _self_weights(self.noise, self.variance, gram, target, weights)

    def decode(self, latent: np.ndarray, modality: int) -> np.ndarray:
        """Features of a modality that components ``(n, d)`` stand for, in the units of the data, about the centers of slices."""
        return latent @ (self.decoders[modality] * np.float32(self.scales[modality]))


def fit_spatial_components(
    values: Sequence[np.ndarray],
    present: Sequence[np.ndarray],
    rings: Sequence[sparse.csr_matrix],
    distances: Sequence[float],
    batch: np.ndarray,
    *,
    n_components: int = 64,
    signal_threshold: float = 0.1,
    center_slices: bool | None = None,
) -> SpatialComponents:
    """Directions in feature space along which a spot and its neighbors agree, and the weights of best prediction.

    The directions solve ``G b = l S b`` with the covariance S of the spots and G of a spot with the mean of its first
    ring, made symmetric: canonical correlation of the two. Noise of single spots is in S and not in G. Along each, a spot
    is predicted from the means over its rings by least squares, blind to itself; in the end its own deviation from the
    prediction counts by ``(1 - noise / residual) ** 2``, with the variance of that deviation and the part of it that is
    noise (:func:`nugget`). (A Kalman filter would not take the square, which makes less of small weights, as the estimate
    exaggerates them.) Everything is a sum over edges and spots; nothing is n x n.

    Parameters
    ----------
    values
        One ``(n_obs, n_features)`` a modality, float32, in any units; rows of spots without it are not read.
    present
        Whether a spot has the modality, bool ``(n_obs,)`` a modality.
    rings
        Spots at exactly 1, 2, ... steps from each, ``(n_obs, n_obs)`` CSR of float32 ones without a diagonal; no ring
        joins two slices.
    distances
        Mean distance of the spots of each ring, in the unit of the first, rising.
    batch
        Codes of the slices, int64 ``(n_obs,)``, from 0.
    n_components
        Components at most.
    signal_threshold
        Least eigenvalue ``l`` of a component; the first two are kept in any case.
    center_slices
        Whether each slice is centered by its own means, here and in :meth:`SpatialComponents.transform`. Default: where
        there are several slices.
    """
    by_slice = len(np.unique(batch)) > 1 if center_slices is None else center_slices
    complete = np.logical_and.reduce(present)
    if complete.sum() < _MIN_COMPLETE:
        complete = np.ones_like(complete)
    centers = [mean_row(x, np.flatnonzero(there)) for x, there in zip(values, present, strict=True)]
    scales, reduced, bases = [], [], []
    for x, there, center in zip(values, present, centers, strict=True):
        own = slice_centers(x, there, batch, center, by_slice=by_slice)
        scale = root_mean_square(x, there, batch, own)
        basis = leading_axes(x, there, batch, own, scale)
        scales.append(scale)
        bases.append(basis)
        reduced.append(projected(x, there, batch, own, scale, basis))
    spread, common = covariances(reduced, present, rings[0], complete)
    eigenvalues, basis, inverse = canonical_axes(spread, common)
    n_kept = min(n_components, max(2, int((eigenvalues > signal_threshold).sum())), len(eigenvalues))
    eigenvalues, basis, inverse = eigenvalues[:n_kept], basis[:, :n_kept], inverse[:n_kept]

    ends = np.cumsum([x.shape[1] for x in reduced])[:-1]
    inner = np.split(basis, ends)
    own_values = [x @ block.astype(np.float32) for x, block in zip(reduced, inner, strict=True)]
    variance, gram, target, share = moments(own_values, present, rings, complete)
    weights = _solve(gram, target)
    n_modalities, n_rings = len(values), len(rings)
    # Covariance of a spot with the mean over each ring, where there is such a ring.
    shared = (target / np.maximum(share, 1e-9)[:, None]).reshape(n_modalities, n_rings, -1).sum(axis=0)
    noise = nugget(variance, shared, distances)
    return SpatialComponents(
        encoders=[
            np.ascontiguousarray(b if pre is None else pre @ b, dtype=np.float32)
            for pre, b in zip(bases, inner, strict=True)
        ],
        decoders=[
            np.ascontiguousarray(b if pre is None else b @ pre.T, dtype=np.float32)
            for pre, b in zip(bases, np.split(inverse, ends, axis=1), strict=True)
        ],
        centers=centers,
        scales=np.array(scales),
        center_slices=by_slice,
        eigenvalues=eigenvalues,
        hop_weights=weights.reshape(n_modalities, n_rings, -1),
        self_weights=_self_weights(noise, variance, gram, target, weights),
        noise=noise,
        variance=variance,
        gram=gram,
        target=target,
    )


# ------------------------------------------------------------------ the three steps


def canonical_axes(spread: np.ndarray, common: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve ``G b = l S b``.

    Parameters
    ----------
    spread
        Covariance S of the spots, ``(F, F)``.
    common
        Covariance G of a spot with the mean of its neighbors, ``(F, F)`` symmetric.

    Returns
    -------
    Eigenvalues in descending order ``(r,)``, vectors as columns ``(F, r)``, and the rows ``(r, F)`` that lead back to the
    features. `r` is the rank of S. Along each vector spots have variance 1, and ``l`` is the correlation with neighbors.
    """
    size, axes = eigh(spread)
    kept = size > _RANK * size[-1]
    size, axes = np.sqrt(size[kept]), axes[:, kept]
    whiten = axes / size
    eigenvalues, turn = eigh(whiten.T @ common @ whiten)
    eigenvalues, turn = eigenvalues[::-1], turn[:, ::-1]
    basis = whiten @ turn
    sign = np.sign(np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0))
    return eigenvalues, basis * sign, (axes * size @ turn * sign).T


def nugget(variance: np.ndarray, covariances: np.ndarray, distances: Sequence[float]) -> np.ndarray:
    """Variance that a spot shares with no other: ``variance - c(0)``, ``(d,)``.

    The covariance c of the signal is continued in a line from the first two rings to distance zero: near zero that of
    sharply bounded domains is linear, with a slope in proportion to the length of their boundaries. The result lies between
    zero and ``variance - c(first ring)``.

    Parameters
    ----------
    variance
        Variance of each component, ``(d,)``.
    covariances
        Covariance of a spot and the mean over each ring, ``(n_rings, d)``.
    distances
        Distance of each ring, rising.

    Source: factorial kriging (Matheron, 1982); covariance of random sets (Matheron, 1975).
    """
    at_zero = covariances[0]
    if len(covariances) > 1:
        slope = (covariances[0] - covariances[1]) / (distances[1] - distances[0])
        at_zero = at_zero + np.maximum(slope, 0) * distances[0]
    return np.maximum(variance - np.maximum(at_zero, 0), 0)


def _solve(gram: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares weights ``(p, d)``, for each component by itself, of ``(p, p, d)`` and ``(p, d)``."""
    if not len(target):
        return target
    matrix = gram.transpose(2, 0, 1).copy()
    scale = np.maximum(np.einsum("dpp->d", matrix) / len(target), 1e-12)
    matrix += _RIDGE * scale[:, None, None] * np.eye(len(target))
    return np.linalg.solve(matrix, target.T[..., None])[..., 0].T


def _self_weights(
    noise: np.ndarray, variance: np.ndarray, gram: np.ndarray, target: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """``(1 - noise / residual) ** 2`` with the mean square of what the prediction leaves, ``(d,)``."""
    residual = variance - 2 * (weights * target).sum(axis=0) + np.einsum("pd,pqd,qd->d", weights, gram, weights)
    return np.clip(1 - noise / np.maximum(residual, 1e-9), 0, 1) ** 2
