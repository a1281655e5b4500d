"""Gaussian mixtures whose components share one full covariance (the EEE model of mclust), for up to millions of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import logsumexp, softmax
from sklearn.cluster import kmeans_plusplus

SUBSAMPLE = 20_000
"""Rows on which the starts compete; the winner goes on with all rows."""

_N_STARTS = (20, 100)  # at least, at most
_ROWS_OF_ALL_STARTS = 200_000
_FEW_ROWS = 10  # a component of fewer is a handful of outliers
_RIDGE = 1e-6  # added to the diagonal of the covariance, in units of the mean variance
# Columns standardised, seeds of k-means++ (or else random rows), steps of k-means.
_STARTS = ((False, True, 20), (True, True, 20), (False, True, 0), (False, False, 0))


@dataclass(frozen=True)
class TiedMixture:
    """A mixture of ``K`` Gaussians in ``d`` dimensions with one covariance, fitted to ``n_rows`` rows.

    ``weights`` ``(K,)`` sum to 1; ``means`` ``(K, d)``; ``covariance`` ``(d, d)``; ``log_likelihood`` is the mean over
    the rows.
    """

    weights: np.ndarray
    means: np.ndarray
    covariance: np.ndarray
    log_likelihood: float
    n_rows: int

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Most probable component of each row of `x` ``(n, d)``: int64 ``(n,)``."""
        return np.argmax(self.log_odds(x), axis=1)

    def log_odds(self, x: np.ndarray) -> np.ndarray:
        """Log probability ``(n, K)`` of each row of `x` with each component, up to a constant of the row."""
        return _log_odds(x, self.weights, self.means, cho_factor(self.covariance, lower=True))

    @property
    def n_populated(self) -> int:
        """Number of components that hold the weight of at least ten rows."""
        return int((self.weights * self.n_rows >= _FEW_ROWS).sum())

    def bic(self, rows_per_observation: float = 1.0) -> float:
        """Bayesian information criterion, ``-2 log L + n_parameters log n``: lower is better.

        Where rows resemble their neighbours, ``n`` rows tell less than ``n`` independent observations would; both the
        likelihood and ``n`` are those of ``n_rows / rows_per_observation`` observations.
        """
        k, d = self.means.shape
        n_parameters = k * d + d * (d + 1) // 2 + k - 1
        n = max(self.n_rows / rows_per_observation, 2.0)
        return float(-2 * n * self.log_likelihood + n_parameters * np.log(n))


def fit_tied_mixture(x: np.ndarray, n_components: int, *, n_starts: int | None = None, seed: int = 0) -> TiedMixture:
    """Mixture of `n_components` Gaussians with one covariance: the most likely one that many starts of EM lead to.

    Parameters
    ----------
    x
        ``(n, d)``, finite, no direction without variance.
    n_components
        Number of components, at most ``n``.
    n_starts
        Starts of EM; by default 200,000 over the number of rows, from 20 to 100: with 20 starts small data end in
        another optimum with each seed, with 100 in one. The fit of highest likelihood is kept, of those with the most
        components of at least ten rows: the likelihood alone would rather spend components on single outliers. The
        starts take turns between k-means, k-means in standardised columns, the cells around k-means++ seeds and the
        cells around random rows: on tissue each of these is at times the best.
    seed
        Of the starts, and of the subsample of 20,000 rows on which they compete if there are more.

    Notes
    -----
    With one covariance the log odds of two components are linear in a row, and the covariance is the total one less
    that of the means, so that a step of EM costs two matrix products of ``n d K`` multiplications.
    """
    rng = np.random.default_rng(seed)
    x, centre, scale = _standardise(x)
    sample = _subsample(x, rng)
    if n_starts is None:
        n_starts = int(np.clip(_ROWS_OF_ALL_STARTS // len(x), *_N_STARTS))
    fits = (
        expectation_maximisation(sample, np.eye(n_components)[labels], tol=1e-4)
        for labels in _starts(sample, n_components, n_starts, rng)
    )
    best = max(fits, key=lambda fit: (fit.n_populated, fit.log_likelihood))
    best = expectation_maximisation(x, softmax(best.log_odds(x), axis=1), tol=1e-6)
    return TiedMixture(
        weights=best.weights,
        means=best.means * scale + centre,
        covariance=best.covariance * scale**2,
        log_likelihood=best.log_likelihood - x.shape[1] * float(np.log(scale)),
        n_rows=len(x),
    )


def bic_curve(
    x: np.ndarray, candidates: Iterable[int], *, rows_per_observation: float = 1.0, seed: int = 0
) -> np.ndarray:
    """Information criterion of each number of components, on 20,000 rows drawn by `seed` where `x` has more."""
    x = _subsample(x, np.random.default_rng(seed))
    fits = (fit_tied_mixture(x, k, n_starts=len(_STARTS), seed=seed) for k in candidates)
    return np.array([fit.bic(rows_per_observation) for fit in fits])


def _subsample(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return x if len(x) <= SUBSAMPLE else x[np.sort(rng.choice(len(x), SUBSAMPLE, replace=False))]


def _standardise(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Centred rows of mean variance 1, so that tolerances and the ridge do not depend on the units."""
    centre = x.mean(axis=0, dtype=np.float64)
    x = x - centre
    scale = float(np.sqrt((x**2).mean()))
    return x / scale, centre, scale


def _starts(x: np.ndarray, k: int, n_starts: int, rng: np.random.Generator) -> Iterable[np.ndarray]:
    standardised = x / np.maximum(x.std(axis=0), 1e-12)
    for start in range(n_starts):
        standardise, spread, steps = _STARTS[start % len(_STARTS)]
        rows = standardised if standardise else x
        if spread:
            centres = kmeans_plusplus(rows, k, random_state=int(rng.integers(2**31)))[0]
        else:
            centres = rows[rng.choice(len(rows), k, replace=False)]
        labels = _nearest(rows, centres)
        for _ in range(steps):
            one_hot = np.eye(k)[labels]
            counts = one_hot.sum(axis=0)[:, None]
            centres = np.where(counts > 0, one_hot.T @ rows / np.maximum(counts, 1), centres)
            labels = _nearest(rows, centres)
        yield labels


def _nearest(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return np.argmin((centres**2).sum(axis=1) - 2 * x @ centres.T, axis=1)


def expectation_maximisation(
    x: np.ndarray, responsibilities: np.ndarray, *, tol: float, max_iter: int = 500
) -> TiedMixture:
    """EM on centred rows ``(n, d)`` from ``(n, K)`` until the mean log likelihood gains less than `tol` in a step."""
    n, d = x.shape
    total = x.T @ x / n
    ridge = _RIDGE * np.eye(d)
    previous = -np.inf
    for _ in range(max_iter):
        counts = responsibilities.sum(axis=0) + 10 * np.finfo(np.float64).eps
        means = responsibilities.T @ x / counts[:, None]
        weights = counts / counts.sum()
        covariance = total - (means.T * weights) @ means + ridge
        factor = cho_factor(covariance, lower=True)
        scores = _log_odds(x, weights, means, factor)
        evidence = logsumexp(scores, axis=1)
        responsibilities = np.exp(scores - evidence[:, None])
        # The part of a log density that all components share, averaged over the rows.
        shared = np.trace(cho_solve(factor, total)) / 2 + np.log(np.diag(factor[0])).sum() + d / 2 * np.log(2 * np.pi)
        log_likelihood = float(evidence.mean() - shared)
        if log_likelihood - previous < tol:
            break
        previous = log_likelihood
    return TiedMixture(weights, means, covariance, log_likelihood, n)


def _log_odds(x: np.ndarray, weights: np.ndarray, means: np.ndarray, factor: tuple[np.ndarray, bool]) -> np.ndarray:
    slope = cho_solve(factor, means.T)
    return x @ slope + (np.log(weights) - np.einsum("kd,dk->k", means, slope) / 2)
