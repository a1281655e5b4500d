"""Scores of samples and intervals."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import erf

from stomics_tools._by_name import align_columns
from stomics_tools.metrics._matrices import check_pair, check_samples

_CHUNK = 2**22
"""Numbers that are sorted at a time: 32 MiB."""


def crps_samples(truth: Any, samples: Any, *, fair: bool = True) -> np.ndarray:
    r"""Continuous ranked probability score of samples, :math:`E|X - y| - \frac12 E|X - X'|`, of each value.

    The second expectation is over pairs of different samples, which makes the score unbiased in their number; with
    ``fair=False`` over all pairs, which gives the score of the empirical distribution. Samples are sorted
    (O(n log n) a value), a block of spots at a time.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``; NaN where a gene was not measured.
    samples
        ``(n_samples, n_obs, n_genes)``, finite.
    fair
        Pairs of different samples only; needs two samples.

    Returns
    -------
    ``(n_obs, n_genes)`` in units of the expression, smaller is better; NaN where the truth is. With the absolute error
    of a point prediction it has its units in common: the score of a single point is its absolute error.

    Raises
    ------
    ValueError
        If shapes do not fit, samples are not finite or too few.
    """
    true, drawn = check_samples(truth, samples, minimum=2 if fair else 1)
    n = len(drawn)
    weights = (2 * np.arange(n) - n + 1) / (n * (n - 1) if fair else n * n)
    out = np.empty_like(true)
    step = max(1, _CHUNK // (n * true.shape[1]))
    for start in range(0, len(true), step):
        block = slice(start, start + step)
        ordered = np.sort(drawn[:, block].astype(np.float64), axis=0)
        # Sum over pairs i < j of x_(j) - x_(i): each order statistic counts as often as it is the larger one, less
        # how often it is the smaller one.
        out[block] = np.abs(ordered - true[block]).mean(axis=0) - np.tensordot(weights, ordered, axes=1)
    return out


def crps_gaussian(truth: Any, mean: Any, sd: Any) -> np.ndarray:
    r"""Continuous ranked probability score of normal distributions, in closed form, of each value.

    :math:`\sigma (z (2 \Phi(z) - 1) + 2 \varphi(z) - 1 / \sqrt\pi)` with :math:`z = (y - \mu) / \sigma`.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``; NaN where a gene was not measured.
    mean
        Predicted means ``(n_obs, n_genes)``.
    sd
        Predicted standard deviations, of that shape or one that broadcasts to it such as ``(n_genes,)``. Where it is 0
        the score is the absolute error.

    Returns
    -------
    ``(n_obs, n_genes)`` in units of the expression, smaller is better; NaN where the truth is.

    Raises
    ------
    ValueError
        If shapes do not fit or a standard deviation is negative or not finite.
    """
    if np.shape(sd) == np.shape(truth):
        _, sd = check_pair(truth, sd, argument="sd")
    else:
        _, sd = align_columns({"truth": truth, "sd": sd})
    true, mu = check_pair(truth, mean, argument="mean")
    sigma = np.broadcast_to(np.asarray(sd, dtype=np.float64), true.shape)
    if not (np.isfinite(sigma) & (sigma >= 0)).all():
        raise ValueError("`sd` must be finite and not negative.")
    error = true - mu
    z = np.divide(error, sigma, out=np.zeros_like(error), where=sigma > 0)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    spread = sigma * (z * erf(z / np.sqrt(2)) + 2 * density - 1 / np.sqrt(np.pi))
    return np.where(sigma > 0, spread, np.abs(error))


def interval_coverage(truth: Any, lower: Any, upper: Any) -> float:
    """Share of the measured values that lie in their interval, its ends included.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``; NaN where a gene was not measured.
    lower, upper
        Ends of the intervals ``(n_obs, n_genes)``.

    Returns
    -------
    From 0 to 1; NaN if nothing was measured. An interval of level 0.8 should cover 0.8.

    Raises
    ------
    ValueError
        If shapes differ, or an interval ends below its beginning.
    """
    true, low, high = _check_interval(truth, lower, upper)
    measured = ~np.isnan(true)
    inside = (low <= true) & (true <= high)
    return float(inside[measured].mean()) if measured.any() else float("nan")


def interval_width(truth: Any, lower: Any, upper: Any) -> float:
    """Mean width of the intervals of the measured values: of two with the same coverage the narrower one is better.

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``; NaN where a gene was not measured.
    lower, upper
        Ends of the intervals ``(n_obs, n_genes)``.

    Returns
    -------
    The width in units of the expression; NaN if nothing was measured.

    Raises
    ------
    ValueError
        If shapes differ, or an interval ends below its beginning.
    """
    true, low, high = _check_interval(truth, lower, upper)
    measured = ~np.isnan(true)
    return float((high - low)[measured].mean()) if measured.any() else float("nan")


def _check_interval(truth: Any, lower: Any, upper: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    true, low = check_pair(truth, lower, argument="lower")
    _, high = check_pair(truth, upper, argument="upper")
    if (low > high).any():
        raise ValueError(f"`lower` is above `upper` in {int((low > high).sum())} intervals.")
    return true, low, high
